/* Objects of a JSON array, found by a name that each of them has. Not for what they say: baseline.h. */
#ifndef REFPARITY_REPORT_NAMED_LIST_H
#define REFPARITY_REPORT_NAMED_LIST_H

#include <stdbool.h>

#include "base/json.h"

struct rp_named {
    const char *name;
    const cJSON *object;
};

struct rp_named_list {
    struct rp_named *items; /* [n], by name once sorted; owned */
    size_t n;
};

/* The list of array (NULL: empty), whose objects have their name at key. doc is what array is of: then each has to
 * have one, and a verdict where verdicts says so, and no name may be there twice. NULL: it is this run's own,
 * which is believed. RP_ERR_FORMAT, RP_ERR_MEMORY. To be freed, also after an error. */
enum rp_status rp_named_list_make(struct rp_named_list *list, const struct rp_json *doc,
                                  const cJSON *array, const char *key, bool verdicts,
                                  struct rp_error *err);
/* The same in steps, for several arrays: list begins zeroed, and is sorted at last. */
enum rp_status rp_named_list_add(struct rp_named_list *list, const struct rp_json *doc,
                                 const cJSON *array, const char *key, bool verdicts,
                                 struct rp_error *err);
enum rp_status rp_named_list_sort(struct rp_named_list *list, const struct rp_json *doc,
                                  struct rp_error *err);
void rp_named_list_free(struct rp_named_list *list);

/* NULL: there is none. */
const cJSON *rp_named_find(const struct rp_named_list *list, const char *name);

/* Has object a "verdict" that refparity knows? RP_ERR_FORMAT. */
enum rp_status rp_check_verdict(const struct rp_json *doc, const cJSON *object,
                                struct rp_error *err);

#endif
