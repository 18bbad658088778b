/* Was the dump made with other weights than the model that it is replayed with: of another quantization,
 * say? Then every matrix product fails and nothing else does. Not for one wrong weight: those are the
 * families' hypotheses. */
#ifndef REFPARITY_EXPLAIN_OTHER_WEIGHTS_H
#define REFPARITY_EXPLAIN_OTHER_WEIGHTS_H

#include "refparity/explain.h"

/* Slots of layers that could be replayed. */
struct rp_products {
    size_t n_products, n_failing; /* that a matrix product computes, or lies before */
    size_t n_others;              /* that none does */
    size_t n_named;               /* failing ones that an explanation names */
    size_t n_large;               /* failing ones by more than a quantization costs */
    bool is_else;                 /* something fails otherwise than by other weights */
};

/* Takes a layer's slots up; what stands outside the layers is left out, as it may be of a type of its own.
 * explanations [layer->n_slots], zeroed where there is none. */
void rp_products_add(struct rp_products *products, const struct rp_replay_layer *layer,
                     const struct rp_explanation *explanations);

#define RP_PRODUCTS_TEXT_SIZE 400 /* as an explanation's */

/* Whether other weights are the likely cause of all that fails; text then says so. Where the dump says which
 * file the engine read, that is known; false with a text: it is another one, and more than products fails. Else
 * text is "". */
bool rp_products_hint(const struct rp_products *products, const struct rp_replay *replay,
                      char text[RP_PRODUCTS_TEXT_SIZE]);

#endif
