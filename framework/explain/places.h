/* Where an error is: in which heads, at which positions; and how that is said. */
#ifndef REFPARITY_EXPLAIN_PLACES_H
#define REFPARITY_EXPLAIN_PLACES_H

#include "explain/search.h"

#define RP_MAX_PLACES 16

/* Places by head that the failing rows' error points at: the slot's own heads, or behind the output
 * projection those whose columns span it. RP_ERR_MEMORY. */
enum rp_status rp_places_by_head(const struct rp_search *search,
                                 struct rp_place places[RP_MAX_PLACES], size_t *n_places,
                                 struct rp_error *err);

/* Places by position, for an error that begins at the first failing one; returns how many. */
size_t rp_places_by_position(const struct rp_search *search, struct rp_place places[RP_MAX_PLACES]);

/* Adds to n places by head the same heads at the failing positions alone; returns how many there are. */
size_t rp_places_at_failing(const struct rp_search *search, struct rp_place places[RP_MAX_PLACES],
                            size_t n);

/* " at position 7 only", " in head 2 only", "" for everywhere; returns out. */
const char *rp_place_text(const struct rp_place *place, char *out, size_t size);

#endif
