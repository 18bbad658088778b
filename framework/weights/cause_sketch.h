/* Causes that a sketch shows: rows of another place, or scaled. Nothing outside this folder includes it. */
#ifndef REFPARITY_WEIGHTS_CAUSE_SKETCH_H
#define REFPARITY_WEIGHTS_CAUSE_SKETCH_H

#include "weights/cause_search.h"

/* search->is_sketched, and it has samples. Sets search->text where a cause holds, and would not by chance. */
enum rp_status rp_try_sketch(struct rp_cause_search *search);

#endif
