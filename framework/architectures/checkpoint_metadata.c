/* See architectures/checkpoint_metadata.h. */
#include "architectures/checkpoint_metadata.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "architectures/from_checkpoint.h"
#include "base/json.h"

#define KEY_SIZE 256

static void put_size(struct rp_gguf_metadata *metadata, const char *architecture, const char *name,
                     size_t value)
{
    char key[KEY_SIZE];
    snprintf(key, sizeof key, "%s.%s", architecture, name);
    rp_gguf_metadata_size(metadata, key, value);
}

static void put_float(struct rp_gguf_metadata *metadata, const char *architecture, const char *name,
                      float value)
{
    char key[KEY_SIZE];
    snprintf(key, sizeof key, "%s.%s", architecture, name);
    rp_gguf_metadata_float(metadata, key, value);
}

/* An id, or an array of ids, of both files. */
static void put_token_ids(struct rp_gguf_metadata *metadata, const struct rp_checkpoint *checkpoint,
                          const char *setting, const char *key)
{
    enum { MAX_IDS = 64 };
    int64_t ids[MAX_IDS];
    size_t n = 0;
    const cJSON *values[] = {rp_checkpoint_setting(checkpoint, setting),
                             rp_checkpoint_generation_setting(checkpoint, setting)};
    for (size_t i = 0; i < 2; i++) {
        const cJSON *item = cJSON_IsArray(values[i]) ? values[i]->child : values[i];
        for (; item && n < MAX_IDS; item = cJSON_IsArray(values[i]) ? item->next : NULL) {
            long long id;
            if (rp_json_int(item, 0, INT32_MAX, &id))
                ids[n++] = id;
        }
    }
    if (n > 0)
        rp_gguf_metadata_ints(metadata, key, ids, n);
}

static void put_experts(struct rp_gguf_metadata *metadata, const struct rp_model_config *model)
{
    const struct rp_router *router = &model->router;
    const char *name = model->architecture;
    const struct rp_gguf_string file_name = {name, strlen(name)};
    const struct rp_router *absent =
        &rp_architecture_find(file_name)->router; /* of any file of it */
    char key[KEY_SIZE];
    put_size(metadata, name, "expert_count", router->n_experts);
    put_size(metadata, name, "expert_used_count", router->n_chosen);
    put_size(metadata, name, "expert_feed_forward_length", model->expert_size);
    if (model->shared_expert_size > 0)
        put_size(metadata, name, "expert_shared_feed_forward_length", model->shared_expert_size);
    if (model->n_dense_layers > 0)
        put_size(metadata, name, "leading_dense_block_count", model->n_dense_layers);
    if (router->n_groups > 1) {
        put_size(metadata, name, "expert_group_count", router->n_groups);
        put_size(metadata, name, "expert_group_used_count", router->n_chosen_groups);
    }
    put_size(metadata, name, "expert_gating_func", (size_t)router->scores + 1);
    put_float(metadata, name, "expert_weights_scale", router->scale);
    snprintf(key, sizeof key, "%s.expert_weights_norm", name);
    rp_gguf_metadata_bool(metadata, key, router->normalizes);
    rp_gguf_metadata_size(metadata, "checkpoint.absent.expert_gating_func",
                          (size_t)absent->scores + 1);
    rp_gguf_metadata_bool(metadata, "checkpoint.absent.expert_weights_norm", absent->normalizes);
}

static void put_hybrid(struct rp_gguf_metadata *metadata, const struct rp_checkpoint_config *config)
{
    const struct rp_model_config *model = &config->model;
    const char *name = model->architecture;
    char key[KEY_SIZE];
    put_size(metadata, name, "ssm.conv_kernel", model->conv_kernel);
    put_size(metadata, name, "ssm.state_size", model->linear_head_dim);
    put_size(metadata, name, "ssm.group_count", model->n_linear_k_heads);
    put_size(metadata, name, "ssm.time_step_rank", model->n_linear_v_heads);
    put_size(metadata, name, "ssm.inner_size", model->n_linear_v_heads * model->linear_head_dim);
    bool *is_recurrent = calloc(model->n_layers, sizeof *is_recurrent);
    metadata->failed = metadata->failed || !is_recurrent;
    for (size_t i = 0; is_recurrent && i < model->n_layers; i++)
        is_recurrent[i] = config->layer_kinds[i] == RP_LAYER_LINEAR_ATTENTION;
    snprintf(key, sizeof key, "%s.attention.recurrent_layers", name);
    if (is_recurrent)
        rp_gguf_metadata_bools(metadata, key, is_recurrent, model->n_layers);
    free(is_recurrent);
}

/* Lengths as attention runs, and, with "mla", those of HF's heads. */
static void put_latents(struct rp_gguf_metadata *metadata, const struct rp_model_config *model)
{
    const char *name = model->architecture;
    if (model->q_lora_rank > 0)
        put_size(metadata, name, "attention.q_lora_rank", model->q_lora_rank);
    put_size(metadata, name, "attention.kv_lora_rank", model->kv_lora_rank);
    put_size(metadata, name, "attention.value_length",
             model->is_absorbed ? model->kv_lora_rank : model->v_head_dim);
    if (!model->is_absorbed)
        return;
    put_size(metadata, name, "attention.key_length_mla", model->nope_dim + model->n_rot);
    put_size(metadata, name, "attention.value_length_mla", model->v_head_dim);
}

/* One for each layer. */
static void put_widths(struct rp_gguf_metadata *metadata, const struct rp_model_config *model)
{
    char key[KEY_SIZE];
    int64_t *widths = calloc(model->n_layers, sizeof *widths);
    metadata->failed = metadata->failed || !widths;
    for (size_t i = 0; widths && i < model->n_layers; i++)
        widths[i] = (int64_t)model->intermediate_sizes[i];
    snprintf(key, sizeof key, "%s.feed_forward_length", model->architecture);
    if (widths)
        rp_gguf_metadata_ints(metadata, key, widths, model->n_layers);
    free(widths);
}

static void put_softcaps(struct rp_gguf_metadata *metadata,
                         const struct rp_checkpoint_config *config)
{
    const struct rp_model_config *model = &config->model;
    const struct rp_architecture *absent = config->architecture;
    put_float(metadata, model->architecture, "attn_logit_softcapping", model->attention_softcap);
    put_float(metadata, model->architecture, "final_logit_softcapping", model->logits_softcap);
    put_float(metadata, "checkpoint.absent", "attn_logit_softcapping", absent->attention_softcap);
    put_float(metadata, "checkpoint.absent", "final_logit_softcapping", absent->logits_softcap);
}

static void put_rope_scaling(struct rp_gguf_metadata *metadata,
                             const struct rp_checkpoint_config *config)
{
    static const char *const types[] = {
        [RP_ROPE_LINEAR] = "linear", [RP_ROPE_YARN] = "yarn", [RP_ROPE_LONGROPE] = "longrope"};
    const struct rp_rope_scaling *scaling = &config->model.rope_scaling;
    const char *name = config->model.architecture;
    char key[KEY_SIZE];
    if (scaling->type == RP_ROPE_NOT_SCALED)
        return;
    snprintf(key, sizeof key, "%s.rope.scaling.type", name);
    rp_gguf_metadata_string(metadata, key, types[scaling->type]);
    if (scaling->type != RP_ROPE_LONGROPE)
        put_float(metadata, name, "rope.scaling.factor", scaling->factor);
    if (scaling->type != RP_ROPE_LINEAR)
        put_size(metadata, name, "rope.scaling.original_context_length", scaling->original_context);
    if (scaling->type == RP_ROPE_LONGROPE)
        put_float(metadata, name, "rope.scaling.attn_factor", scaling->attention_factor);
    if (scaling->type != RP_ROPE_YARN)
        return;
    put_float(metadata, name, "rope.scaling.yarn_attn_factor", scaling->attention_factor);
    put_float(metadata, name, "rope.scaling.yarn_beta_fast", scaling->beta_fast);
    put_float(metadata, name, "rope.scaling.yarn_beta_slow", scaling->beta_slow);
    if (scaling->mscale_all_dim > 0)
        put_float(metadata, name, "rope.scaling.yarn_log_multiplier",
                  0.1f * scaling->mscale_all_dim);
}

void rp_checkpoint_metadata(const struct rp_checkpoint *checkpoint,
                            const struct rp_checkpoint_config *config,
                            struct rp_gguf_metadata *metadata)
{
    const struct rp_model_config *model = &config->model;
    const char *name = model->architecture;
    char key[KEY_SIZE];
    rp_gguf_metadata_string(metadata, "general.architecture", name);
    put_size(metadata, name, "block_count", model->n_layers);
    if (config->context_length > 0)
        put_size(metadata, name, "context_length", config->context_length);
    put_size(metadata, name, "embedding_length", model->hidden_size);
    if (model->intermediate_sizes)
        put_widths(metadata, model);
    else if (model->intermediate_size > 0)
        put_size(metadata, name, "feed_forward_length", model->intermediate_size);
    put_size(metadata, name, "vocab_size", model->vocab_size);
    put_size(metadata, name, "attention.head_count", model->n_heads);
    put_size(metadata, name, "attention.head_count_kv", model->n_kv_heads);
    put_size(metadata, name, "attention.key_length", model->head_dim);
    if (model->kv_lora_rank > 0)
        put_latents(metadata, model);
    else
        put_size(metadata, name, "attention.value_length", model->head_dim);
    put_float(metadata, name, "attention.layer_norm_rms_epsilon", model->rms_norm_eps);
    put_size(metadata, name, "rope.dimension_count", model->n_rot);
    put_float(metadata, name, "rope.freq_base", model->rope_theta);
    if (model->window > 0) {
        put_size(metadata, name, "attention.sliding_window", model->window);
        if (config->architecture->window_has_own_rope)
            put_float(metadata, name, "rope.freq_base_swa", model->rope_theta_sliding);
    }
    if (config->architecture->attention_softcap > 0)
        put_softcaps(metadata, config);
    put_rope_scaling(metadata, config);
    if (config->n_rope_sections > 0) {
        snprintf(key, sizeof key, "%s.rope.dimension_sections", name);
        rp_gguf_metadata_ints(metadata, key, config->rope_sections, RP_MAX_ROPE_SECTIONS);
    }
    if (rp_architecture_is_hybrid(config->architecture))
        put_hybrid(metadata, config);
    if (rp_architecture_has_experts(config->architecture))
        put_experts(metadata, model);
    put_token_ids(metadata, checkpoint, "bos_token_id", RP_CHECKPOINT_BOS_IDS);
    put_token_ids(metadata, checkpoint, "eos_token_id", RP_CHECKPOINT_EOS_IDS);
}
