/* What is tried about attention; how it is changed is in attention.c. */
#include <math.h>
#include <stdio.h>

#include "explain/attention.h"

static struct rp_candidate make(const char *name, int option, double value)
{
    return (struct rp_candidate){.name = name,
                                 .phase = RP_PHASE_FIXED,
                                 .stages = RP_STAGE_ATTENTION,
                                 .install = rp_attention_install,
                                 .option = option,
                                 .which = RP_N_WEIGHTS,
                                 .value = value,
                                 .from_layer = -1,
                                 .parameter = RP_NO_PARAMETER};
}

static enum rp_status add(struct rp_search *search, struct rp_candidate candidate, const char *text,
                          struct rp_error *err)
{
    snprintf(candidate.text, sizeof candidate.text, "%s", text);
    return rp_search_add(search, &candidate, err);
}

static enum rp_status collect_plain(struct rp_search *search, struct rp_error *err)
{
    static const struct {
        const char *name, *text;
        double value;
        int option;
        bool reports_value;
    } plain[] = {
        {"attention-mask", "attention is not causal", 0, RP_ATTENTION_NOT_CAUSAL, false},
        {"attention-mask", "attention's mask is off by one: the next position is seen", 1,
         RP_ATTENTION_MASK, true},
        {"attention-mask", "attention's mask is off by one: the current position is not seen", -1,
         RP_ATTENTION_MASK, true},
        {"attention-softcap", "attention's scores capped at %v", 50, RP_ATTENTION_SOFTCAP, true},
        {"attention-softcap", "attention's scores capped at %v", 30, RP_ATTENTION_SOFTCAP, true},
        {"attention-sink", "a sink in attention's softmax, of logit %v", 0, RP_ATTENTION_SINK,
         true},
    };
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < sizeof plain / sizeof *plain && status == RP_OK; i++) {
        struct rp_candidate candidate = make(plain[i].name, plain[i].option, plain[i].value);
        candidate.reports_value = plain[i].reports_value;
        candidate.sees_later =
            plain[i].option == RP_ATTENTION_NOT_CAUSAL || plain[i].option == RP_ATTENTION_MASK;
        status = add(search, candidate, plain[i].text, err);
    }
    return status;
}

static enum rp_status collect_heads(struct rp_search *search, struct rp_error *err)
{
    static const struct {
        int option;
        const char *text;
    } mappings[] = {
        {RP_ATTENTION_MODULO, "query head h reads KV head h % n_kv_heads"},
        {RP_ATTENTION_FIRST_HEAD, "every query head reads KV head 0"},
        {RP_ATTENTION_REVERSED, "KV heads are read in reverse order"},
        {RP_ATTENTION_NEXT_HEAD, "query heads read the next KV head"},
    };
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < sizeof mappings / sizeof *mappings && status == RP_OK; i++) {
        if (search->config->n_kv_heads > 1)
            status = add(search, make("attention-head-mapping", mappings[i].option, 0),
                         mappings[i].text, err);
    }
    return status;
}

/* A window shows from the position on that it leaves the first one out of. */
static enum rp_status collect_windows(struct rp_search *search, struct rp_error *err)
{
    const int64_t *positions = search->slot->positions;
    double windows[8] = {1, 2, 4, 8, 16, 32};
    size_t n = 6;
    enum rp_status status = RP_OK;
    if (search->first > 0) {
        windows[n++] = (double)(positions[search->first] - positions[0]);
        windows[n++] = (double)(positions[search->first] - positions[0] + 1);
    }
    for (size_t i = 0; i < n && status == RP_OK; i++) {
        struct rp_candidate candidate = make("attention-window", RP_ATTENTION_WINDOW, windows[i]);
        candidate.reports_value = true;
        status = add(search, candidate, "attention sees the last %v positions only", err);
    }
    return status;
}

static enum rp_status collect_shifts(struct rp_search *search, struct rp_error *err)
{
    static const struct {
        enum rp_weight_id which;
        const char *text;
    } of[] = {{RP_ATTN_V, "V"}, {RP_ATTN_K, "K"}, {RP_N_WEIGHTS, "K and V"}};
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < 3; i++) {
        for (int by = -1; by <= 1 && status == RP_OK; by += 2) {
            struct rp_candidate candidate = make("kv-shifted", RP_ATTENTION_SHIFTED, by);
            candidate.which = of[i].which;
            candidate.sees_later = by < 0;
            candidate.reports_value = true;
            snprintf(candidate.text, sizeof candidate.text,
                     "%s of the position %s is read from the cache", of[i].text,
                     by > 0 ? "before" : "after");
            status = rp_search_add(search, &candidate, err);
        }
    }
    return status;
}

static enum rp_status collect_scale(struct rp_search *search, struct rp_error *err)
{
    const struct rp_model_config *config = search->config;
    double own = (double)config->attention_scale, head_dim = (double)config->head_dim;
    size_t heads_share = config->hidden_size / config->n_heads; /* head_dim, where it has no key */
    const double known[] = {1,
                            1 / sqrt((double)config->hidden_size),
                            1 / head_dim,
                            own * own / sqrt((double)config->n_heads),
                            2 * own,
                            own / 2,
                            own * sqrt(2.0),
                            own / sqrt(2.0),
                            sqrt(head_dim),
                            1 / sqrt((double)heads_share)};
    static const double grid[] = {1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 0.6, 2, 5, 10};
    static const struct rp_fit fit = {.is_log = true,
                                      .low = 1e-6,
                                      .high = 1e4,
                                      .starts = grid,
                                      .n_starts = sizeof grid / sizeof *grid};
    enum rp_status status = RP_OK;
    for (size_t i = 0; i <= sizeof known / sizeof *known && status == RP_OK; i++) {
        bool is_fit = i == sizeof known / sizeof *known;
        struct rp_candidate candidate =
            make("attention-scale", RP_ATTENTION_SCALE, is_fit ? own : known[i]);
        if (!is_fit && fabs(known[i] - own) < 1e-6 * own)
            continue;
        candidate.phase = is_fit ? RP_PHASE_FIT : RP_PHASE_FIXED;
        candidate.fit = is_fit ? &fit : NULL;
        candidate.reports_value = true;
        snprintf(candidate.text, sizeof candidate.text,
                 "attention's scale is %%v; the model's is %.6g", own);
        status = rp_search_add(search, &candidate, err);
    }
    return status;
}

static enum rp_status collect_fits(struct rp_search *search, struct rp_error *err)
{
    static const double caps[] = {1, 3, 10, 20, 100, 300, 1000};
    static const double logits[] = {-16, -11, -7, -4, -2, 2, 4};
    static const struct rp_fit cap = {
        .is_log = true, .low = 1e-3, .high = 1e6, .starts = caps, .n_starts = 7};
    static const struct rp_fit sink = {
        .is_log = false, .low = -60, .high = 60, .starts = logits, .n_starts = 7};
    struct rp_candidate candidate = make("attention-softcap", RP_ATTENTION_SOFTCAP, 50);
    candidate.phase = RP_PHASE_FIT;
    candidate.reports_value = true;
    candidate.fit = &cap;
    enum rp_status status = add(search, candidate, "attention's scores capped at %v", err);
    candidate = make("attention-sink", RP_ATTENTION_SINK, 0);
    candidate.phase = RP_PHASE_FIT;
    candidate.reports_value = true;
    candidate.fit = &sink;
    if (status == RP_OK)
        status = add(search, candidate, "a sink in attention's softmax, of logit %v", err);
    return status;
}

static enum rp_status collect_gate(struct rp_search *search, struct rp_error *err)
{
    static const struct {
        int option;
        const char *text;
    } gates[] = {
        {RP_GATE_MISSING, "attention's output is not gated"},
        {RP_GATE_SILU, "attention's gate through SiLU; the model's is sigmoid"},
        {RP_GATE_TANH, "attention's gate through tanh; the model's is sigmoid"},
        {RP_GATE_PLAIN, "attention's gate without sigmoid"},
        {RP_GATE_SWAPPED, "attention's Q and gate swapped"},
        {RP_GATE_HALVES, "attention's Q and gate split as halves of the row, not of each head"},
    };
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < sizeof gates / sizeof *gates && status == RP_OK; i++) {
        struct rp_candidate candidate = make("attention-gate", gates[i].option, 0);
        candidate.install = i < RP_GATE_SWAPPED ? rp_attention_gate_install : rp_split_gate_install;
        status = add(search, candidate, gates[i].text, err);
    }
    return status;
}

enum rp_status rp_collect_attention(struct rp_search *search, struct rp_error *err)
{
    enum rp_status status;
    if (search->kind != RP_LAYER_FULL_ATTENTION)
        return RP_OK;
    status = collect_plain(search, err);
    if (status == RP_OK)
        status = collect_heads(search, err);
    if (status == RP_OK)
        status = collect_windows(search, err);
    if (status == RP_OK)
        status = collect_shifts(search, err);
    if (status == RP_OK)
        status = collect_scale(search, err);
    if (status == RP_OK)
        status = collect_fits(search, err);
    if (status == RP_OK && search->config->has_attention_gate)
        status = collect_gate(search, err);
    return status;
}
