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
#define ATTENTION_WITH_SINKS STEP(RP_STEP_ATTENTION, RP_ATTN_SINKS, RP_BUFFER_Q, RP_BUFFER_HEADS)
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
#define CHOOSE_EXPERTS(correction) \
    STEP(RP_STEP_CHOOSE_EXPERTS, correction, RP_BUFFER_ROUTER, RP_BUFFER_EXPERTS)
#define WEIGH_EXPERTS \
    STEP(RP_STEP_WEIGH_EXPERTS, RP_N_WEIGHTS, RP_BUFFER_ROUTER, RP_BUFFER_EXPERT_WEIGHTS)
#define SUM_EXPERTS STEP(RP_STEP_SUM_EXPERTS, RP_N_WEIGHTS, RP_BUFFER_EXPERTS_OUT, RP_BUFFER_BRANCH)
#define ACTIVATION_OF(gate) STEP(RP_STEP_FFN_ACTIVATION, RP_N_WEIGHTS, gate, gate)
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
#define ATTEND_WITH_SINKS \
    KV_STORE, ATTENTION_WITH_SINKS, TAP(RP_PART_ATTN, RP_BUFFER_HEADS)
#define MIXER_OUT(weight, from)                      \
    LINEAR(weight, from, RP_BUFFER_BRANCH),          \
    TAP(RP_PART_ATTNOUT, RP_BUFFER_BRANCH),          \
    RESIDUAL_ADD(weight),                            \
    TAP(RP_PART_POSTATTN, RP_BUFFER_HIDDEN)
#define MIXER_OUT_WITH_BIAS(weight, from)                                   \
    {RP_STEP_LINEAR, weight, from, RP_BUFFER_BRANCH, RP_PART_OTHER, true}, \
    TAP(RP_PART_ATTNOUT, RP_BUFFER_BRANCH),                                \
    RESIDUAL_ADD(weight),                                                  \
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
/* What leads to the experts' weighted sum, in BRANCH. correction: RP_ROUTER_CORRECTION, or RP_N_WEIGHTS; has_bias:
 * the products have one, the router's too. */
#define EXPERTS_BRANCH(correction, has_bias)                                                           \
    RMS_NORM(RP_FFN_NORM, RP_BUFFER_HIDDEN, RP_BUFFER_NORMED),                                         \
    TAP(RP_PART_PREFFN, RP_BUFFER_NORMED),                                                             \
    {RP_STEP_LINEAR, RP_ROUTER, RP_BUFFER_NORMED, RP_BUFFER_ROUTER, RP_PART_OTHER, has_bias},          \
    TAP(RP_PART_ROUTER, RP_BUFFER_ROUTER),                                                             \
    CHOOSE_EXPERTS(correction),                                                                        \
    TAP(RP_PART_EXPERTS, RP_BUFFER_EXPERTS),                                                           \
    WEIGH_EXPERTS,                                                                                     \
    TAP(RP_PART_EXPERTW, RP_BUFFER_EXPERT_WEIGHTS),                                                    \
    {RP_STEP_EXPERTS_LINEAR, RP_EXPERTS_GATE, RP_BUFFER_NORMED, RP_BUFFER_EXPERTS_GATE, RP_PART_OTHER, \
     has_bias},                                                                                        \
    TAP(RP_PART_GATE, RP_BUFFER_EXPERTS_GATE),                                                         \
    {RP_STEP_EXPERTS_LINEAR, RP_EXPERTS_UP, RP_BUFFER_NORMED, RP_BUFFER_EXPERTS_UP, RP_PART_OTHER,     \
     has_bias},                                                                                        \
    TAP(RP_PART_UP, RP_BUFFER_EXPERTS_UP),                                                             \
    ACTIVATION_OF(RP_BUFFER_EXPERTS_GATE),                                                             \
    TAP(RP_PART_ACT, RP_BUFFER_EXPERTS_GATE),                                                          \
    {RP_STEP_EXPERTS_LINEAR, RP_EXPERTS_DOWN, RP_BUFFER_EXPERTS_GATE, RP_BUFFER_EXPERTS_OUT,           \
     RP_PART_OTHER, has_bias},                                                                         \
    SUM_EXPERTS
/* gate: RP_SHARED_ROUTER where the shared expert's output is gated, after SHARED_ROUTER; RP_N_WEIGHTS. */
#define SHARED_EXPERT(gate)                                            \
    PROJECT(RP_SHARED_GATE, RP_PART_SHAREDGATE, RP_BUFFER_SHARED_GATE), \
    PROJECT(RP_SHARED_UP, RP_PART_SHAREDUP, RP_BUFFER_SHARED_UP),       \
    ACTIVATION_OF(RP_BUFFER_SHARED_GATE),                               \
    TAP(RP_PART_SHAREDACT, RP_BUFFER_SHARED_GATE),                      \
    LINEAR(RP_SHARED_DOWN, RP_BUFFER_SHARED_GATE, RP_BUFFER_SHARED_OUT), \
    TAP(RP_PART_SHAREDOUT, RP_BUFFER_SHARED_OUT),                       \
    STEP(RP_STEP_ADD_SHARED, gate, RP_BUFFER_SHARED_OUT, RP_BUFFER_BRANCH)
#define SHARED_GATE \
    PROJECT(RP_SHARED_ROUTER, RP_PART_SHAREDROUTER, RP_BUFFER_SHARED_ROUTER)
#define ADD_FFN                                 \
    TAP(RP_PART_FFNOUT, RP_BUFFER_BRANCH),      \
    RESIDUAL_ADD(RP_FFN_DOWN),                  \
    TAP(RP_PART_OUTPUT, RP_BUFFER_HIDDEN)
/* Experts alone; with a shared one; with one whose output is gated. */
#define EXPERTS EXPERTS_BRANCH(RP_N_WEIGHTS, false), ADD_FFN
#define EXPERTS_WITH_BIAS EXPERTS_BRANCH(RP_N_WEIGHTS, true), ADD_FFN
#define EXPERTS_AND_SHARED(correction)                   \
    EXPERTS_BRANCH(correction, false),                   \
    TAP(RP_PART_MOE, RP_BUFFER_BRANCH),                  \
    SHARED_EXPERT(RP_N_WEIGHTS),                         \
    ADD_FFN
#define EXPERTS_AND_GATED_SHARED                         \
    EXPERTS_BRANCH(RP_N_WEIGHTS, false),                 \
    TAP(RP_PART_MOE, RP_BUFFER_BRANCH),                  \
    SHARED_GATE,                                         \
    SHARED_EXPERT(RP_SHARED_ROUTER),                     \
    ADD_FFN
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
