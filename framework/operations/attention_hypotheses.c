/* Hypotheses about attention, its cache and its gate; attention_changes.c runs them. */
#include <math.h>
#include <stdio.h>

#include "operations/attention_changes.h"

#define MAX_HEADS 64 /* each is tried as the one that is zero */

static struct rp_candidate make(const char *name, int option, double value, bool reports_value)
{
    struct rp_candidate candidate =
        rp_candidate_make(name, rp_attention_install, option, RP_N_WEIGHTS);
    candidate.value = value;
    candidate.reports_value = reports_value;
    return candidate;
}

static enum rp_status collect_plain(struct rp_search *search, struct rp_error *err)
{
    static const char cap[] = "attention's scores capped at %v";
    static const char sink[] = "a sink in attention's softmax, of logit %v";
    static const char empty[] = "%v keys of zeros from before the sequence are seen";
    static const char after[] =
        "keys of zeros after the position are seen, up to the next multiple "
        "of %v";
    static const struct {
        const char *name, *text;
        double value;
        int option;
        bool reports_value;
    } plain[] = {
        {"attention-sink", sink, 0, RP_ATTENTION_SINK, true},
        {"attention-softcap", cap, 50, RP_ATTENTION_SOFTCAP, true},
        {"attention-softcap", cap, 30, RP_ATTENTION_SOFTCAP, true},
        {"attention-empty-keys", empty, 2, RP_ATTENTION_EMPTY, true},
        {"attention-empty-keys", empty, 3, RP_ATTENTION_EMPTY, true},
        {"attention-empty-keys", empty, 4, RP_ATTENTION_EMPTY, true},
        {"attention-empty-keys", empty, 8, RP_ATTENTION_EMPTY, true},
        {"attention-empty-keys", after, 8, RP_ATTENTION_EMPTY_AFTER, true},
        {"attention-empty-keys", after, 16, RP_ATTENTION_EMPTY_AFTER, true},
        {"attention-empty-keys", after, 32, RP_ATTENTION_EMPTY_AFTER, true},
        {"attention-empty-keys", after, 64, RP_ATTENTION_EMPTY_AFTER, true},
        {"attention-empty-keys", after, 256, RP_ATTENTION_EMPTY_AFTER, true},
        {"attention-head", "attention's output has its heads interleaved", 0,
         RP_ATTENTION_TRANSPOSED, false},
        {"attention-softmax", "softmax's weights are not divided by their sum", 0,
         RP_ATTENTION_NO_SOFTMAX_SUM, false},
    };
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < sizeof plain / sizeof *plain && status == RP_OK; i++)
        status = rp_search_add(
            search, make(plain[i].name, plain[i].option, plain[i].value, plain[i].reports_value),
            err, "%s", plain[i].text);
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
    const struct rp_model_config *config = search->config;
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < sizeof mappings / sizeof *mappings && status == RP_OK; i++) {
        if (config->n_kv_heads > 1)
            status =
                rp_search_add(search, make("attention-head-mapping", mappings[i].option, 0, false),
                              err, "%s", mappings[i].text);
    }
    for (size_t head = 0; head < config->n_heads && head < MAX_HEADS && status == RP_OK; head++) {
        struct rp_candidate candidate =
            make("attention-head", RP_ATTENTION_ZERO_HEAD, (double)head, true);
        candidate.is_everywhere = true;
        status = rp_search_add(search, candidate, err, "attention's head %%v is zero");
    }
    /* In a part of the heads and positions; everywhere it is a branch that is missing. */
    return status == RP_OK
               ? rp_search_add(search, make("attention-head", RP_ATTENTION_ZERO, 0, false), err,
                               "attention's output is zero")
               : status;
}

static enum rp_status collect_shifts(struct rp_search *search, struct rp_error *err)
{
    static const struct {
        enum rp_weight_id which;
        const char *text;
    } of[] = {{RP_ATTN_V, "V"}, {RP_ATTN_K, "K"}, {RP_N_WEIGHTS, "K and V"}};
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        for (int by = -1; by <= 1 && status == RP_OK; by += 2) {
            struct rp_candidate candidate = make("kv-shifted", RP_ATTENTION_SHIFTED, by, true);
            candidate.which = of[i].which;
            status = rp_search_add(search, candidate, err,
                                   "%s of the position %s is read from the cache", of[i].text,
                                   by > 0 ? "before" : "after");
        }
    }
    return status == RP_OK
               ? rp_search_add(search, make("kv-shifted", RP_ATTENTION_SWAPPED, 0, false), err,
                               "the cache's K and V are swapped")
               : status;
}

static enum rp_status collect_scale(struct rp_search *search, struct rp_error *err)
{
    const struct rp_model_config *config = search->config;
    const double own = (double)config->attention_scale, head_dim = (double)config->head_dim;
    const double known[] = {1,
                            1 / sqrt((double)config->hidden_size),
                            1 / head_dim,
                            own * own / sqrt((double)config->n_heads),
                            2 * own,
                            own / 2,
                            own * sqrt(2.0),
                            own / sqrt(2.0),
                            sqrt(head_dim),
                            sqrt((double)config->n_heads / (double)config->hidden_size)};
    static const double grid[] = {1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 0.6, 2, 5, 10};
    static const struct rp_fit fit = {.is_log = true,
                                      .low = 1e-6,
                                      .high = 1e4,
                                      .starts = grid,
                                      .n_starts = sizeof grid / sizeof *grid};
    enum rp_status status = RP_OK;
    for (size_t i = 0; i <= sizeof known / sizeof *known && status == RP_OK; i++) {
        const bool is_fit = i == sizeof known / sizeof *known;
        struct rp_candidate candidate =
            make("attention-scale", RP_ATTENTION_SCALE, is_fit ? own : known[i], true);
        if (!is_fit && fabs(known[i] - own) < 1e-6 * own)
            continue;
        candidate.phase = is_fit ? RP_PHASE_FIT : RP_PHASE_FIXED;
        candidate.own = is_fit ? own : 0;
        candidate.fit = is_fit ? &fit : NULL;
        status = rp_search_add(search, candidate, err,
                               "attention's scale is %%v; the model's is %.6g", own);
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
    struct rp_candidate candidate = make("attention-softcap", RP_ATTENTION_SOFTCAP, 50, true);
    candidate.phase = RP_PHASE_FIT;
    candidate.fit = &cap;
    enum rp_status status =
        rp_search_add(search, candidate, err, "attention's scores capped at %%v");
    candidate = make("attention-sink", RP_ATTENTION_SINK, 0, true);
    candidate.phase = RP_PHASE_FIT;
    candidate.fit = &sink;
    return status == RP_OK ? rp_search_add(search, candidate, err,
                                           "a sink in attention's softmax, of logit %%v")
                           : status;
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
        {RP_GATE_ONE_LESS, "attention's gate is 1 - sigmoid; the model's is sigmoid"},
        {RP_GATE_SWAPPED, "attention's Q and gate swapped"},
        {RP_GATE_HALVES, "attention's Q and gate split as halves of the row, not of each head"},
    };
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < sizeof gates / sizeof *gates && status == RP_OK; i++) {
        const bool is_split = gates[i].option >= RP_GATE_SWAPPED;
        struct rp_candidate candidate = make("attention-gate", gates[i].option, 0, false);
        candidate.install = is_split ? rp_split_gate_install : rp_attention_gate_install;
        if (rp_search_has_step(search, is_split ? RP_STEP_SPLIT_GATE : RP_STEP_ATTENTION_GATE,
                               RP_N_WEIGHTS))
            status = rp_search_add(search, candidate, err, "%s", gates[i].text);
    }
    return status;
}

enum rp_status rp_collect_attention(struct rp_search *search, struct rp_error *err)
{
    enum rp_status status = collect_gate(search, err);
    if (!rp_search_has_step(search, RP_STEP_ATTENTION, RP_N_WEIGHTS))
        return status;
    if (status == RP_OK)
        status = rp_collect_attention_keys(search, err);
    if (status == RP_OK)
        status = collect_heads(search, err);
    if (status == RP_OK)
        status = collect_shifts(search, err);
    if (status == RP_OK)
        status = collect_plain(search, err);
    if (status == RP_OK)
        status = collect_scale(search, err);
    return status == RP_OK ? collect_fits(search, err) : status;
}

const char *rp_attention_remark(const struct rp_search *search)
{
    const bool is_first = search->n_failing > 0 && search->first == 0 &&
                          search->slot.positions[0] == search->first_position;
    return is_first && rp_search_has_step(search, RP_STEP_ATTENTION, RP_N_WEIGHTS)
               ? "; position 0 is wrong, which sees itself alone: unless it sees later ones, it is "
                 "neither RoPE nor mask, but V, the head mapping, a term in softmax's sum or the "
                 "output"
               : "";
}
