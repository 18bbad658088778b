/* Hypotheses about attention, its cache and its gate; attention_changes.c runs them. */
#include <math.h>
#include <stdio.h>

#include "operations/attention_changes.h"

#define NONE RP_NO_PARAMETER
#define MAX_HEADS 64 /* each is tried as the one that is zero */

static struct rp_candidate make(const char *name, int option, double value, bool reports_value)
{
    struct rp_candidate candidate =
        rp_candidate_make(name, rp_attention_install, option, RP_N_WEIGHTS);
    candidate.value = value;
    candidate.reports_value = reports_value;
    return candidate;
}

static void collect_softcap(struct rp_search *search)
{
    static const char name[] = "attention-softcap";
    static const struct rp_hypothesis own[] = {
        {name, RP_ATTENTION_NO_SOFTCAP, NONE, "attention's scores are not capped; the model's are"},
        {name, RP_ATTENTION_CAP_UNSCALED, NONE,
         "attention's scores are capped before they are scaled; the model's after it"},
        {name, RP_ATTENTION_CAP_DIVIDES, NONE,
         "attention's scores are tanh(s / cap), without the product with the cap"},
        {name, RP_ATTENTION_CAP_MASKS, NONE,
         "attention's mask is set before the cap: keys that are not seen have the score -cap"},
    };
    static const double caps[] = {1, 3, 10, 20, 100, 300, 1000};
    static const struct rp_fit fit = RP_FIT(true, 1e-3, 1e6, caps);
    const double cap = (double)search->config->attention_softcap;
    if (cap > 0)
        RP_ADD_ALL(search, RP_STEP_ATTENTION, rp_attention_install, own);
    for (int i = 0; i < 3; i++) {
        const bool is_fit = i == 2;
        struct rp_candidate candidate = make(name, RP_ATTENTION_SOFTCAP, i == 1 ? 30 : 50, true);
        if (!is_fit && fabs(candidate.value - cap) < 1e-6 * cap)
            continue;
        candidate.phase = is_fit ? RP_PHASE_FIT : RP_PHASE_FIXED;
        candidate.fit = is_fit ? &fit : NULL;
        candidate.own = is_fit ? cap : 0;
        if (cap > 0)
            rp_search_add(search, candidate,
                          "attention's scores capped at %%v; the model's at %.6g", cap);
        else
            rp_search_add(search, candidate, "attention's scores capped at %%v");
    }
}

static void collect_plain(struct rp_search *search)
{
    static const char sink[] = "a sink in attention's softmax, of logit %v";
    static const char empty[] = "%v keys of zeros from before the sequence are seen";
    static const char after[] =
        "keys of zeros after the position are seen, up to the next multiple "
        "of %v";
    static const struct rp_hypothesis plain[] = {
        {"attention-sink", RP_ATTENTION_SINK, 0, sink},
        {"attention-empty-keys", RP_ATTENTION_EMPTY, 2, empty},
        {"attention-empty-keys", RP_ATTENTION_EMPTY, 3, empty},
        {"attention-empty-keys", RP_ATTENTION_EMPTY, 4, empty},
        {"attention-empty-keys", RP_ATTENTION_EMPTY, 8, empty},
        {"attention-empty-keys", RP_ATTENTION_EMPTY_AFTER, 8, after},
        {"attention-empty-keys", RP_ATTENTION_EMPTY_AFTER, 16, after},
        {"attention-empty-keys", RP_ATTENTION_EMPTY_AFTER, 32, after},
        {"attention-empty-keys", RP_ATTENTION_EMPTY_AFTER, 64, after},
        {"attention-empty-keys", RP_ATTENTION_EMPTY_AFTER, 256, after},
        {"attention-head", RP_ATTENTION_TRANSPOSED, NONE,
         "attention's output has its heads interleaved"},
        {"attention-softmax", RP_ATTENTION_NO_SOFTMAX_SUM, NONE,
         "softmax's weights are not divided by their sum"},
    };
    static const struct rp_hypothesis sinks[] = {
        {"attention-sink", RP_ATTENTION_NO_SINKS, NONE,
         "attention's sinks are missing: softmax's sum has the keys alone"},
        {"attention-sink", RP_ATTENTION_SINKS_SCALED, NONE,
         "attention's sinks are multiplied by its scale"},
        {"attention-sink", RP_ATTENTION_SINKS_ROLLED, NONE,
         "each head has the next head's sink in attention's softmax"},
    };
    if (rp_search_has_step(search, RP_STEP_ATTENTION, RP_ATTN_SINKS))
        RP_ADD_ALL(search, RP_STEP_ATTENTION, rp_attention_install, sinks);
    RP_ADD_ALL(search, RP_STEP_ATTENTION, rp_attention_install, plain);
}

static void collect_heads(struct rp_search *search)
{
    static const char name[] = "attention-head-mapping";
    static const struct rp_hypothesis mappings[] = {
        {name, RP_ATTENTION_MODULO, NONE, "query head h reads KV head h % n_kv_heads"},
        {name, RP_ATTENTION_FIRST_HEAD, NONE, "every query head reads KV head 0"},
        {name, RP_ATTENTION_REVERSED, NONE, "KV heads are read in reverse order"},
        {name, RP_ATTENTION_NEXT_HEAD, NONE, "query heads read the next KV head"},
    };
    const struct rp_model_config *config = search->config;
    if (config->n_kv_heads > 1)
        RP_ADD_ALL(search, RP_STEP_ATTENTION, rp_attention_install, mappings);
    for (size_t head = 0; head < config->n_heads && head < MAX_HEADS; head++) {
        struct rp_candidate candidate =
            make("attention-head", RP_ATTENTION_ZERO_HEAD, (double)head, true);
        candidate.is_everywhere = true;
        rp_search_add(search, candidate, "attention's head %%v is zero");
    }
    /* In a part of the heads and positions; everywhere it is a branch that is missing. */
    rp_search_add(search, make("attention-head", RP_ATTENTION_ZERO, 0, false),
                  "attention's output is zero");
}

static void collect_shifts(struct rp_search *search)
{
    static const struct {
        enum rp_weight_id which;
        const char *text;
    } of[] = {{RP_ATTN_V, "V"}, {RP_ATTN_K, "K"}, {RP_N_WEIGHTS, "K and V"}};
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        for (int by = -1; by <= 1; by += 2) {
            struct rp_candidate candidate = make("kv-shifted", RP_ATTENTION_SHIFTED, by, true);
            candidate.which = of[i].which;
            rp_search_add(search, candidate, "%s of the position %s is read from the cache",
                          of[i].text, by > 0 ? "before" : "after");
        }
    }
    if (!search->config->is_absorbed) /* both are the latent */
        rp_search_add(search, make("kv-shifted", RP_ATTENTION_SWAPPED, 0, false),
                      "the cache's K and V are swapped");
}

static void collect_scale(struct rp_search *search)
{
    const struct rp_model_config *config = search->config;
    const double own = (double)config->attention_scale, head_dim = (double)config->head_dim;
    /* Of latent attention, without YaRN's mscale, once with it. */
    const double plain = 1 / sqrt((double)(config->nope_dim + config->n_rot));
    const bool has_latents = config->kv_lora_rank > 0;
    const double known[] = {has_latents ? plain : own,
                            has_latents ? sqrt(plain * own) : own,
                            1,
                            1 / sqrt((double)config->hidden_size),
                            1 / sqrt(head_dim),
                            1 / head_dim,
                            own * own / sqrt((double)config->n_heads),
                            2 * own,
                            own / 2,
                            own * sqrt(2.0),
                            own / sqrt(2.0),
                            sqrt(head_dim),
                            sqrt((double)config->n_heads / (double)config->hidden_size)};
    static const double grid[] = {1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 0.6, 2, 5, 10};
    static const struct rp_fit fit = RP_FIT(true, 1e-6, 1e4, grid);
    for (size_t i = 0; i <= sizeof known / sizeof *known; i++) {
        const bool is_fit = i == sizeof known / sizeof *known;
        struct rp_candidate candidate =
            make("attention-scale", RP_ATTENTION_SCALE, is_fit ? own : known[i], true);
        if (!is_fit && fabs(known[i] - own) < 1e-6 * own)
            continue;
        candidate.phase = is_fit ? RP_PHASE_FIT : RP_PHASE_FIXED;
        candidate.own = is_fit ? own : 0;
        candidate.fit = is_fit ? &fit : NULL;
        rp_search_add(search, candidate, "attention's scale is %%v; the model's is %.6g", own);
    }
}

static void collect_fits(struct rp_search *search)
{
    static const double logits[] = {-16, -11, -7, -4, -2, 2, 4};
    static const struct rp_fit sink = RP_FIT(false, -60, 60, logits);
    rp_search_add_fit(search, RP_STEP_ATTENTION, rp_attention_install,
                      (struct rp_hypothesis){"attention-sink", RP_ATTENTION_SINK, 0,
                                             "a sink in attention's softmax, of logit %v"},
                      &sink, 0);
}

static void collect_gate(struct rp_search *search)
{
    static const char name[] = "attention-gate";
    static const struct rp_hypothesis gates[] = {
        {name, RP_GATE_MISSING, NONE, "attention's output is not gated"},
        {name, RP_GATE_SILU, NONE, "attention's gate through SiLU; the model's is sigmoid"},
        {name, RP_GATE_TANH, NONE, "attention's gate through tanh; the model's is sigmoid"},
        {name, RP_GATE_PLAIN, NONE, "attention's gate without sigmoid"},
        {name, RP_GATE_ONE_LESS, NONE, "attention's gate is 1 - sigmoid; the model's is sigmoid"},
    };
    static const struct rp_hypothesis splits[] = {
        {name, RP_GATE_SWAPPED, NONE, "attention's Q and gate swapped"},
        {name, RP_GATE_HALVES, NONE,
         "attention's Q and gate split as halves of the row, not of each head"},
    };
    RP_ADD_ALL(search, RP_STEP_ATTENTION_GATE, rp_attention_gate_install, gates);
    RP_ADD_ALL(search, RP_STEP_SPLIT_GATE, rp_split_gate_install, splits);
}

void rp_collect_attention(struct rp_search *search)
{
    collect_gate(search);
    if (!rp_search_has_step(search, RP_STEP_ATTENTION, RP_N_WEIGHTS))
        return;
    rp_collect_attention_keys(search);
    collect_heads(search);
    collect_shifts(search);
    collect_plain(search);
    collect_softcap(search);
    collect_scale(search);
    collect_fits(search);
}

const char *rp_attention_remark(const struct rp_search *search)
{
    const bool is_first = search->n_failing > 0 && search->first == 0 &&
                          search->slot.positions[0] == search->first_position;
    return is_first && rp_search_has_step(search, RP_STEP_ATTENTION, RP_N_WEIGHTS)
               ? "; position 0 is wrong, too, which sees itself alone: RoPE and the mask change "
                 "nothing "
                 "there, unless it sees later positions. V, the head mapping, a term in softmax's "
                 "sum or the output projection may be wrong"
               : "";
}
