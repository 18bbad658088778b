/* See operations/experts_model_test_util.h. */
#include "operations/experts_model_test_util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "weights/gguf_builder.h"

enum { HIDDEN = RP_TEST_EXPERTS_HIDDEN, HEADS = 2, HEAD_DIM = 16, VOCAB = 1000 };

struct writer {
    struct gguf_builder builder;
    const char *architecture;
    uint32_t seed;
};

static void add_u32(struct writer *writer, const char *name, uint32_t value)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", writer->architecture, name);
    gguf_add_u32(&writer->builder, key, value);
}

static void add_f32(struct writer *writer, const char *name, float value)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", writer->architecture, name);
    gguf_add_f32(&writer->builder, key, value);
}

/* Norms around 1; matrices that keep the stream's size. */
static void add_weight(struct writer *writer, const char *name, uint64_t n_stacked, uint64_t n_out,
                       uint64_t n_in)
{
    const uint64_t dims[3] = {n_in, n_out, n_stacked};
    const size_t n = (size_t)(n_stacked * n_out * n_in);
    const float size = n_in > 16 ? 0.3f : 1.0f;
    float *values = malloc(n * sizeof *values);
    if (!values)
        abort();
    for (size_t i = 0; i < n; i++) {
        writer->seed = writer->seed * 1664525u + 1013904223u;
        const float random = (float)(writer->seed >> 8) / 8388608.0f - 1.0f;
        values[i] = strstr(name, "norm")       ? 1 + 0.3f * random
                    : strstr(name, "gate_inp") ? random
                                               : size * random;
    }
    gguf_add_tensor(&writer->builder, name, RP_GGML_F32,
                    n_stacked > 1 ? 3
                    : n_out > 1   ? 2
                                  : 1,
                    dims, values, n * sizeof *values);
    free(values);
}

static void add_layer(struct writer *writer, int layer, bool has_shared)
{
    const uint64_t q_rows = (has_shared ? 2 : 1) * HEADS * HEAD_DIM, size = RP_TEST_EXPERT_SIZE;
    const struct {
        const char *name;
        uint64_t n_stacked, n_out, n_in;
        bool is_shared;
    } weights[] = {
        {"attn_norm.weight", 1, 1, HIDDEN, false},
        {"attn_q.weight", 1, q_rows, HIDDEN, false},
        {"attn_k.weight", 1, HEAD_DIM, HIDDEN, false},
        {"attn_v.weight", 1, HEAD_DIM, HIDDEN, false},
        {"attn_q_norm.weight", 1, 1, HEAD_DIM, false},
        {"attn_k_norm.weight", 1, 1, HEAD_DIM, false},
        {"attn_output.weight", 1, HIDDEN, HEADS * HEAD_DIM, false},
        {has_shared ? "post_attention_norm.weight" : "ffn_norm.weight", 1, 1, HIDDEN, false},
        {"ffn_gate_inp.weight", 1, RP_TEST_EXPERTS, HIDDEN, false},
        {"ffn_gate_exps.weight", RP_TEST_EXPERTS, size, HIDDEN, false},
        {"ffn_up_exps.weight", RP_TEST_EXPERTS, size, HIDDEN, false},
        {"ffn_down_exps.weight", RP_TEST_EXPERTS, HIDDEN, size, false},
        {"ffn_gate_inp_shexp.weight", 1, 1, HIDDEN, true},
        {"ffn_gate_shexp.weight", 1, 40, HIDDEN, true},
        {"ffn_up_shexp.weight", 1, 40, HIDDEN, true},
        {"ffn_down_shexp.weight", 1, HIDDEN, 40, true},
    };
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%d.%s", layer, weights[i].name);
        if (has_shared || !weights[i].is_shared)
            add_weight(writer, name, weights[i].n_stacked, weights[i].n_out, weights[i].n_in);
    }
}

static void add_experts_keys(struct writer *writer, const struct rp_test_experts_model *model)
{
    char key[128];
    const unsigned char is_normalised = 0;
    add_u32(writer, "expert_count", model->expert_count ? model->expert_count : RP_TEST_EXPERTS);
    add_u32(writer, "expert_used_count", RP_TEST_CHOSEN);
    add_u32(writer, "expert_feed_forward_length", RP_TEST_EXPERT_SIZE);
    if (model->n_groups > 0) {
        add_u32(writer, "expert_group_count", model->n_groups);
        add_u32(writer, "expert_group_used_count", 2);
    }
    if (model->shared_count > 0)
        add_u32(writer, "expert_shared_count", model->shared_count);
    if (model->scores > 0)
        add_u32(writer, "expert_gating_func", model->scores);
    if (model->scale > 0)
        add_f32(writer, "expert_weights_scale", model->scale);
    snprintf(key, sizeof key, "%s.expert_weights_norm", writer->architecture);
    if (model->is_not_normalised)
        gguf_add(&writer->builder, key, RP_GGUF_BOOL, &is_normalised, 1);
    if (!model->has_shared)
        return;
    add_u32(writer, "expert_shared_feed_forward_length", 40);
    add_u32(writer, "full_attention_interval", 1);
    add_u32(writer, "ssm.conv_kernel", 4);
    add_u32(writer, "ssm.state_size", 8);
    add_u32(writer, "ssm.group_count", 2);
    add_u32(writer, "ssm.time_step_rank", 2);
    add_u32(writer, "ssm.inner_size", 16);
}

void rp_test_write_experts_model(const char *path, const struct rp_test_experts_model *model)
{
    struct writer writer = {.architecture = model->has_shared ? "qwen35moe" : "qwen3moe",
                            .seed = 3};
    gguf_add_string(&writer.builder, "general.architecture", writer.architecture);
    add_u32(&writer, "block_count", RP_TEST_EXPERTS_LAYERS);
    add_u32(&writer, "embedding_length", HIDDEN);
    add_u32(&writer, "attention.head_count", HEADS);
    add_u32(&writer, "attention.head_count_kv", 1);
    add_u32(&writer, "attention.key_length", HEAD_DIM);
    add_u32(&writer, "attention.value_length", HEAD_DIM);
    add_f32(&writer, "attention.layer_norm_rms_epsilon", 1e-6f);
    add_f32(&writer, "rope.freq_base", 10000);
    add_experts_keys(&writer, model);
    add_weight(&writer, "token_embd.weight", 1, VOCAB, HIDDEN);
    add_weight(&writer, "output_norm.weight", 1, 1, HIDDEN);
    for (int layer = 0; layer < RP_TEST_EXPERTS_LAYERS; layer++)
        add_layer(&writer, layer, model->has_shared);
    gguf_write(&writer.builder, path);
}
