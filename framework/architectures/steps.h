/* The words in which architectures are written: each is one or more steps of a layer's plan. A step is
 * {kind, weight, from, to, slot part}. Not for anything but the tables of this folder. */
#ifndef REFPARITY_ARCHITECTURES_STEPS_H
#define REFPARITY_ARCHITECTURES_STEPS_H

#include "architectures/architecture.h"

/* clang-format off */
#define TAP(part, from)    {RP_STEP_TAP, RP_N_WEIGHTS, from, from, part, false}
#define STEP(kind, weight, from, to) {kind, weight, from, to, RP_PART_OTHER, false}
#define RMS_NORM(weight, from, to) STEP(RP_STEP_RMS_NORM, weight, from, to)
#define LINEAR(weight, from, to)   STEP(RP_STEP_LINEAR, weight, from, to)
#define HEAD_LINEAR(weight, from, to) STEP(RP_STEP_HEAD_LINEAR, weight, from, to)
#define ROPE(weight, buffer)       STEP(RP_STEP_ROPE, weight, buffer, buffer)
#define KV_STORE       STEP(RP_STEP_KV_STORE, RP_N_WEIGHTS, RP_BUFFER_K, RP_BUFFER_V)
#define ATTENTION      STEP(RP_STEP_ATTENTION, RP_N_WEIGHTS, RP_BUFFER_Q, RP_BUFFER_HEADS)
#define SPLIT_GATE     STEP(RP_STEP_SPLIT_GATE, RP_N_WEIGHTS, RP_BUFFER_Q_AND_GATE, RP_BUFFER_Q)
#define ATTENTION_GATE \
    STEP(RP_STEP_ATTENTION_GATE, RP_N_WEIGHTS, RP_BUFFER_HEADS_GATE, RP_BUFFER_HEADS)
#define CAUSAL_CONV1D \
    STEP(RP_STEP_CAUSAL_CONV1D, RP_SSM_CONV1D, RP_BUFFER_QKV, RP_BUFFER_CONV_QKV)
#define L2_NORM(of)    STEP(RP_STEP_L2_NORM, of, RP_BUFFER_CONV_QKV, RP_BUFFER_CONV_QKV)
#define DELTA_DECAY    STEP(RP_STEP_DELTA_DECAY, RP_N_WEIGHTS, RP_BUFFER_DECAY, RP_BUFFER_DECAY)
#define DELTA_BETA     STEP(RP_STEP_DELTA_BETA, RP_N_WEIGHTS, RP_BUFFER_BETA, RP_BUFFER_BETA)
#define DELTA_RULE     STEP(RP_STEP_DELTA_RULE, RP_N_WEIGHTS, RP_BUFFER_CONV_QKV, RP_BUFFER_DELTA)
#define GATED_NORM     STEP(RP_STEP_GATED_NORM, RP_SSM_NORM, RP_BUFFER_DELTA, RP_BUFFER_DELTA)
#define FFN_ACTIVATION STEP(RP_STEP_FFN_ACTIVATION, RP_N_WEIGHTS, RP_BUFFER_GATE, RP_BUFFER_GATE)
#define RESIDUAL_ADD(weight) STEP(RP_STEP_RESIDUAL_ADD, weight, RP_BUFFER_BRANCH, RP_BUFFER_HIDDEN)
/* What every layer does before its token mixer, and after it. */
#define BEGIN                                                   \
    TAP(RP_PART_IN, RP_BUFFER_HIDDEN),                          \
    RMS_NORM(RP_ATTN_NORM, RP_BUFFER_HIDDEN, RP_BUFFER_NORMED), \
    TAP(RP_PART_PREATTN, RP_BUFFER_NORMED)
#define PROJECT(weight, part, to) \
    LINEAR(weight, RP_BUFFER_NORMED, to), TAP(part, to)
#define PROJECT_WITH_BIAS(weight, part, to) \
    {RP_STEP_LINEAR, weight, RP_BUFFER_NORMED, to, RP_PART_OTHER, true}, TAP(part, to)
#define NORM_HEADS(weight, part, buffer) \
    RMS_NORM(weight, buffer, buffer), TAP(part, buffer)
#define ROTATE(weight, part, buffer) \
    ROPE(weight, buffer), TAP(part, buffer)
#define ATTEND \
    KV_STORE, ATTENTION, TAP(RP_PART_ATTN, RP_BUFFER_HEADS)
#define MIXER_OUT(weight, from)                      \
    LINEAR(weight, from, RP_BUFFER_BRANCH),          \
    TAP(RP_PART_ATTNOUT, RP_BUFFER_BRANCH),          \
    RESIDUAL_ADD(weight),                            \
    TAP(RP_PART_POSTATTN, RP_BUFFER_HIDDEN)
/* With a norm of the branch before it is added. */
#define MIXER_OUT_NORMED(weight, from)                                  \
    LINEAR(weight, from, RP_BUFFER_BRANCH),                             \
    TAP(RP_PART_ATTNOUT, RP_BUFFER_BRANCH),                             \
    RMS_NORM(RP_ATTN_POST_NORM, RP_BUFFER_BRANCH, RP_BUFFER_BRANCH),    \
    TAP(RP_PART_ATTNNORM, RP_BUFFER_BRANCH),                            \
    RESIDUAL_ADD(weight),                                               \
    TAP(RP_PART_POSTATTN, RP_BUFFER_HIDDEN)
#define FFN_BRANCH                                             \
    RMS_NORM(RP_FFN_NORM, RP_BUFFER_HIDDEN, RP_BUFFER_NORMED), \
    TAP(RP_PART_PREFFN, RP_BUFFER_NORMED),                     \
    PROJECT(RP_FFN_GATE, RP_PART_GATE, RP_BUFFER_GATE),        \
    PROJECT(RP_FFN_UP, RP_PART_UP, RP_BUFFER_UP),              \
    FFN_ACTIVATION,                                            \
    TAP(RP_PART_ACT, RP_BUFFER_GATE),                          \
    LINEAR(RP_FFN_DOWN, RP_BUFFER_GATE, RP_BUFFER_BRANCH),     \
    TAP(RP_PART_FFNOUT, RP_BUFFER_BRANCH)
#define FFN                    \
    FFN_BRANCH,                \
    RESIDUAL_ADD(RP_FFN_DOWN), \
    TAP(RP_PART_OUTPUT, RP_BUFFER_HIDDEN)
#define FFN_NORMED                                                   \
    FFN_BRANCH,                                                      \
    RMS_NORM(RP_FFN_POST_NORM, RP_BUFFER_BRANCH, RP_BUFFER_BRANCH),  \
    TAP(RP_PART_FFNNORM, RP_BUFFER_BRANCH),                          \
    RESIDUAL_ADD(RP_FFN_DOWN),                                       \
    TAP(RP_PART_OUTPUT, RP_BUFFER_HIDDEN)
/* clang-format on */

#define PLAN(steps)                            \
    {                                          \
        steps, sizeof(steps) / sizeof *(steps) \
    }

#endif
