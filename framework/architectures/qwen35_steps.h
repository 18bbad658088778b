/* What Qwen3.5's two architectures have in common: the plans up to the FFN, and the sources. */
#ifndef REFPARITY_ARCHITECTURES_QWEN35_STEPS_H
#define REFPARITY_ARCHITECTURES_QWEN35_STEPS_H

#include "architectures/sources.h"
#include "architectures/steps.h"

/* clang-format off */
/* HF: Qwen3_5GatedDeltaNet */
#define QWEN35_DELTA_NET \
    BEGIN, \
    PROJECT(RP_ATTN_QKV, RP_PART_QKV, RP_BUFFER_QKV), \
    PROJECT(RP_ATTN_GATE, RP_PART_Z, RP_BUFFER_DELTA_GATE), \
    PROJECT(RP_SSM_ALPHA, RP_PART_A, RP_BUFFER_DECAY), \
    PROJECT(RP_SSM_BETA, RP_PART_B, RP_BUFFER_BETA), \
    CAUSAL_CONV1D, \
    TAP(RP_PART_CONV, RP_BUFFER_CONV_QKV), \
    DELTA_DECAY, \
    TAP(RP_PART_DECAY, RP_BUFFER_DECAY), \
    DELTA_BETA, \
    TAP(RP_PART_BETA, RP_BUFFER_BETA), \
    L2_NORM(RP_ATTN_Q), \
    L2_NORM(RP_ATTN_K), \
    DELTA_RULE, \
    TAP(RP_PART_DELTA, RP_BUFFER_DELTA), \
    GATED_NORM, \
    TAP(RP_PART_MIX, RP_BUFFER_DELTA), \
    MIXER_OUT(RP_SSM_OUT, RP_BUFFER_DELTA)
/* HF: Qwen3_5Attention */
#define QWEN35_ATTENTION \
    BEGIN, \
    LINEAR(RP_ATTN_Q, RP_BUFFER_NORMED, RP_BUFFER_Q_AND_GATE), \
    SPLIT_GATE, \
    TAP(RP_PART_Q, RP_BUFFER_Q), \
    TAP(RP_PART_Z, RP_BUFFER_HEADS_GATE), \
    PROJECT(RP_ATTN_K, RP_PART_K, RP_BUFFER_K), \
    PROJECT(RP_ATTN_V, RP_PART_V, RP_BUFFER_V), \
    NORM_HEADS(RP_ATTN_Q_NORM, RP_PART_QNORM, RP_BUFFER_Q), \
    NORM_HEADS(RP_ATTN_K_NORM, RP_PART_KNORM, RP_BUFFER_K), \
    ROTATE(RP_ATTN_Q, RP_PART_QROPE, RP_BUFFER_Q), \
    ROTATE(RP_ATTN_K, RP_PART_KROPE, RP_BUFFER_K), \
    ATTEND, \
    ATTENTION_GATE, \
    TAP(RP_PART_MIX, RP_BUFFER_HEADS), \
    MIXER_OUT(RP_ATTN_OUTPUT, RP_BUFFER_HEADS)
/* The V heads of the DeltaNet are dealt out over the K heads: all that has a row or a column a V head. */
#define QWEN35_SOURCES \
    EMBEDDING_SOURCES, \
    NORM_SOURCES(RP_CHANGE_PLUS_ONE), \
    QK_NORM_SOURCES(RP_CHANGE_PLUS_ONE), \
    ATTENTION_SOURCES, \
    ROWS(RP_ATTN_QKV, "linear_attn.in_proj_qkv.weight", RP_PART_QKV), \
    ROWS(RP_ATTN_GATE, "linear_attn.in_proj_z.weight", RP_PART_Z), \
    ROWS(RP_SSM_CONV1D, "linear_attn.conv1d.weight", RP_PART_CONV), \
    ROWS(RP_SSM_ALPHA, "linear_attn.in_proj_a.weight", RP_PART_A), \
    ROWS(RP_SSM_BETA, "linear_attn.in_proj_b.weight", RP_PART_B), \
    COLUMNS(RP_SSM_DT, "linear_attn.dt_bias", RP_CHANGE_NONE, RP_PART_A), \
    COLUMNS(RP_SSM_A, "linear_attn.A_log", RP_CHANGE_MINUS_EXP, RP_PART_A), \
    AS_IT_IS(RP_SSM_NORM, "linear_attn.norm.weight"), \
    COLUMNS(RP_SSM_OUT, "linear_attn.out_proj.weight", RP_CHANGE_NONE, RP_PART_MIX)
/* clang-format on */

#endif
