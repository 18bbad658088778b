/* Where an error begins, whatever its size: the first place where what a layer adds to the residual stream
 * leaves the noise of what was added before. Beside the first slot over its limit, which may lie layers
 * behind. Not for verdicts: it changes none.
 *
 * What a branch (the token mixer, or the FFN) adds is the difference of two slots of the stream, h1_postattn
 * minus h0 for instance. Its error is relative to itself, ||added_e - added_r|| / ||added_r||, so that a
 * branch that is small beside the stream counts like any other, and what the stream was off by before does
 * not: with quantized weights this is about the same in all layers and positions, in FP32 some u.
 *
 * The noise at (branch, position) is the largest error of its past: the branches before it, and itself, at
 * the positions up to this one. It departs where its error is more than RP_DEPARTURE_JUMP times that. The
 * first branch at the first position has no past and is not judged: there, quantized weights and a bug look
 * alike.
 * In FP32 the past may be nearly exact. No noise is below what sums of the longest rows may add,
 * u * sqrt(16384), and what rounding the stream itself adds, 2 u * ||stream|| / ||added||. */
#ifndef REFPARITY_DIAGNOSE_DEPARTURE_H
#define REFPARITY_DIAGNOSE_DEPARTURE_H

#include "refparity/diagnose.h"

/* An order of magnitude. Measured on clean engines, FP32, Q8_0 and Q4_0, three architectures: at most 2.3
 * times the past (departure_test.c holds it to half of the jump). */
#define RP_DEPARTURE_JUMP 10.0

/* departure->slot is "" where nothing departs; largest, where not NULL, takes the largest error over noise
 * that was seen, of all branches. */
void rp_find_departure(const struct rp_comparison *comparison, struct rp_departure *departure,
                       double *largest);

#endif
