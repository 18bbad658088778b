/* Causes that are another order: of the tensor's rows, columns or values, or of tensors. Each sets search->text
 * where it holds. Nothing outside this folder includes it. */
#ifndef REFPARITY_WEIGHTS_CAUSE_ORDER_H
#define REFPARITY_WEIGHTS_CAUSE_ORDER_H

#include "weights/cause_search.h"

/* The converter's own order, left out or done twice. */
enum rp_status rp_try_own_order(struct rp_cause_search *search);
/* A reordering of rotated pairs where there is none to be. */
enum rp_status rp_try_pairs(struct rp_cause_search *search);
enum rp_status rp_try_nibbles(struct rp_cause_search *search);
enum rp_status rp_try_other_tensors(struct rp_cause_search *search);
enum rp_status rp_try_transposed(struct rp_cause_search *search);
/* Looks for each sampled row among all rows of the tensor. */
enum rp_status rp_try_other_rows(struct rp_cause_search *search);

#endif
