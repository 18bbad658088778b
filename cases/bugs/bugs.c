/* See bugs.h: what is the same for every bug. The bugs themselves are in bugs_*.c. */
#include "bugs_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct rp_bug_family *const families[] = {
    &rp_rope_bugs,        &rp_norm_bugs,
    &rp_attention_bugs,   &rp_attention_gate_bugs,
    &rp_deepseek_bugs,    &rp_experts_bugs,
    &rp_ffn_bugs,         &rp_gpt_oss_bugs,
    &rp_residual_bugs,    &rp_delta_net_bugs,
    &rp_delta_state_bugs, &rp_token_bugs,
    &rp_precision_bugs,   NULL};

size_t rp_bug_count(void)
{
    size_t n = 0;
    for (size_t f = 0; families[f]; f++)
        n += families[f]->n;
    return n;
}

const struct rp_bug *rp_bug_at(size_t index)
{
    for (size_t f = 0; families[f]; f++) {
        if (index < families[f]->n)
            return &families[f]->bugs[index];
        index -= families[f]->n;
    }
    return NULL;
}

const struct rp_bug *rp_bug_find(const char *name)
{
    for (size_t i = 0; i < rp_bug_count(); i++) {
        if (strcmp(rp_bug_at(i)->name, name) == 0)
            return rp_bug_at(i);
    }
    return NULL;
}

bool rp_bug_applies(const struct rp_bug *bug, const char *architecture)
{
    size_t length = strlen(architecture);
    for (const char *at = bug->architectures; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, architecture, length) == 0 && (at[length] == ',' || !at[length]))
            return true;
    }
    return false;
}

bool rp_bug_applies_to_layer(const struct rp_bug *bug, const struct rp_model_config *config,
                             size_t layer)
{
    enum rp_layer_kind kind = config->layer_kinds[layer];
    switch (bug->layers) {
    case RP_BUG_IN_ANY_LAYER: return true;
    case RP_BUG_IN_FULL_ATTENTION: return kind == RP_LAYER_FULL_ATTENTION;
    case RP_BUG_IN_LINEAR_ATTENTION: return kind == RP_LAYER_LINEAR_ATTENTION;
    case RP_BUG_IN_NO_LAYER: break;
    }
    return false;
}

enum rp_slot_part rp_bug_shown_in(enum rp_slot_part part, enum rp_slot_level level)
{
    while (!rp_slot_level_has(level, part) && part < RP_PART_OUTPUT)
        part++;
    return part;
}

enum rp_slot_part rp_bug_first_part(const struct rp_bug *bug, const struct rp_model *model,
                                    int layer, enum rp_slot_level level)
{
    enum rp_slot_part part = bug->first_part;
    for (const enum rp_slot_part *also = bug->also;
         also && *also && rp_model_slot_width(model, part, (size_t)layer) == 0; also++)
        part = *also;
    return rp_bug_shown_in(part, level);
}

bool rp_bug_is_in_part(const struct rp_bug *bug, enum rp_slot_part part, enum rp_slot_level level)
{
    bool is_in = rp_bug_shown_in(bug->first_part, level) == part;
    for (const enum rp_slot_part *also = bug->also; also && *also; also++)
        is_in |= rp_bug_shown_in(*also, level) == part;
    return is_in;
}

bool rp_bug_is_here(const struct rp_bug_site *bug, const struct rp_site *site)
{
    if (bug->is_off)
        return false;
    if (bug->choice.bug->layers == RP_BUG_IN_NO_LAYER)
        return site->layer < 0;
    return site->layer >= 0 &&
           (bug->choice.layer == RP_BUG_ALL_LAYERS || bug->choice.layer == site->layer);
}

enum rp_status rp_bug_floats(const struct rp_site *site, size_t n, const float *copy_of,
                             float **floats)
{
    *floats = calloc(n ? n : 1, sizeof **floats);
    if (!*floats)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a bug");
    if (copy_of)
        memcpy(*floats, copy_of, n * sizeof **floats);
    return RP_OK;
}

enum rp_status rp_bug_keep(struct rp_bug_site *bug, const struct rp_site *site, const float *rows,
                           size_t dim)
{
    size_t n = (size_t)site->positions[site->n_positions - 1] + 1;
    if (n > bug->n_kept) {
        float *grown = realloc(bug->kept, n * dim * sizeof *grown);
        if (!grown)
            return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a bug");
        bug->kept = grown;
        bug->n_kept = n;
        bug->kept_dim = dim;
    }
    for (size_t p = 0; p < site->n_positions; p++)
        memcpy(bug->kept + (size_t)site->positions[p] * dim, rows + p * dim,
               dim * sizeof *bug->kept);
    return RP_OK;
}

const float *rp_bug_kept(const struct rp_bug_site *bug, int64_t position)
{
    return bug->kept + (size_t)position * bug->kept_dim;
}

float rp_bug_round(float value, int bits)
{
    int exponent;
    double mantissa;
    if (!isfinite(value) || bits >= 24)
        return value;
    mantissa = frexp((double)value, &exponent);
    return (float)ldexp(nearbyint(ldexp(mantissa, bits)), exponent - bits);
}

#define TAKE(operation)                                    \
    do {                                                   \
        if (from->operation)                               \
            site->overlay.ops.operation = from->operation; \
    } while (0)

static void take_ops(struct rp_bug_site *site, const struct rp_ops *from)
{
    TAKE(embed);
    TAKE(rms_norm);
    TAKE(linear);
    TAKE(head_linear);
    TAKE(rope);
    TAKE(kv_store);
    TAKE(attention);
    TAKE(split_gate);
    TAKE(attention_gate);
    TAKE(causal_conv1d);
    TAKE(l2_norm);
    TAKE(delta_decay);
    TAKE(delta_beta);
    TAKE(delta_rule);
    TAKE(gated_norm);
    TAKE(ffn_activation);
    TAKE(choose_experts);
    TAKE(weigh_experts);
    TAKE(sum_experts);
    TAKE(add_shared_expert);
    TAKE(residual_add);
}

/* Operations that another engine's rounding is in. */
#define ROUND_OTHERWISE(operation)                                                     \
    static enum rp_status round_##operation(void *context, const struct rp_site *site, \
                                            const struct rp_##operation *args)         \
    {                                                                                  \
        struct rp_bug_site *bug = context;                                             \
        const struct rp_ops *other = &bug->emulation.overlay.ops;                      \
        if (!rp_bug_is_here(bug, site))                                                \
            return RP_BELOW(bug, operation, site, args);                               \
        return other->operation(other->context, site, args);                           \
    }
ROUND_OTHERWISE(linear)
ROUND_OTHERWISE(kv_store)
ROUND_OTHERWISE(attention)

static const struct rp_ops rounding_ops = {
    .linear = round_linear, .kv_store = round_kv_store, .attention = round_attention};

/* The next layer of the same kind, or the one before. */
static size_t another_layer(const struct rp_model_config *config, size_t layer)
{
    for (size_t other = layer + 1; other < config->n_layers; other++) {
        if (config->layer_kinds[other] == config->layer_kinds[layer])
            return other;
    }
    for (size_t other = layer; other-- > 0;) {
        if (config->layer_kinds[other] == config->layer_kinds[layer])
            return other;
    }
    return layer;
}

enum rp_status rp_bug_install(const struct rp_bug_choice *choice, const struct rp_model *model,
                              const struct rp_ops *below, const struct rp_ops *plain,
                              struct rp_bug_site *site, struct rp_error *err)
{
    const struct rp_bug *bug = choice->bug;
    *site = (struct rp_bug_site){.choice = *choice};
    if (site->choice.magnitude == 0 && bug->magnitudes)
        site->choice.magnitude = bug->magnitudes[0];
    site->numerics = choice->declared;
    if (bug->has_activations)
        site->numerics.activations = bug->numerics.activations;
    if (bug->has_kv_cache)
        site->numerics.kv_cache = bug->numerics.kv_cache;
    rp_emulation_open(&site->emulation, &site->numerics, plain ? plain : below);
    rp_overlay_open(&site->overlay, below);
    take_ops(site, bug->has_activations || bug->has_kv_cache ? &rounding_ops : &bug->ops);
    site->ops = &site->overlay.ops;
    if (choice->position != RP_BUG_EVERYWHERE || choice->head != RP_BUG_EVERYWHERE)
        rp_bug_scope_open(site);
    if (bug->weights == RP_BUG_NO_WEIGHTS || choice->layer < 0)
        return RP_OK;
    size_t layer = (size_t)choice->layer;
    return rp_layer_load(
        model,
        bug->weights == RP_BUG_OWN_WEIGHTS ? layer : another_layer(rp_model_config(model), layer),
        &site->weights, err);
}

void rp_bug_remove(struct rp_bug_site *site)
{
    rp_layer_free(&site->weights);
    free(site->kept);
    site->kept = NULL;
}
