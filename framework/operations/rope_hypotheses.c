/* Hypotheses about RoPE: all of them go through the rope below, with other arguments. Where its input
 * and output are dumped, the angles are measured first, and say what is to be tried. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "operations/rope_angles.h"

#define MAX_OFFSET 8 /* of positions */

enum option {
    ORDERING,
    THETA,
    SCALING,
    NO_FACTORS,
    NO_FACTORS_AND_BASE, /* base `value` */
    MEASURED_FACTORS,    /* rows [n_rot / 2]: what each of the model's frequencies is divided by */
    MEASURED_POSITIONS,  /* rows [n]: of each of the slot's positions */
    INVERTED_FACTORS,
    LLAMA3_FACTORS,
    DIMENSION,
    EXPONENT, /* of head_dim, where n_rot values are rotated */
    OFFSET,
    RESTART, /* once, at 0, from position `value` on */
    MODULO,  /* every `value` positions */
    CLAMP,   /* no further than position `value` */
    ONE_POSITION,
    MISSING,
    DIRECTION
};

/* llama3's factors, for a model that comes without: HF's _compute_llama3_parameters with the numbers
 * of Llama 3.1 (factor 8) and 3.2 (32). factors [n_rot / 2] */
static void llama3_factors(const struct rp_rope *args, double factor, float *factors)
{
    const double low = 1, high = 4, original = 8192, two_pi = 6.283185307179586;
    for (size_t i = 0; i < args->n_rot / 2; i++) {
        double exponent = 2 * (double)i / (double)args->n_rot;
        double wavelength = two_pi * pow((double)args->theta, exponent);
        double smooth = (original / wavelength - low) / (high - low);
        if (wavelength < original / high)
            factors[i] = 1;
        else if (wavelength > original / low)
            factors[i] = (float)factor;
        else
            factors[i] = (float)(1 / ((1 - smooth) / factor + smooth));
    }
}

/* factors [n_rot / 2]: a position times `scale` is a frequency divided by 1 / scale. */
static void scaled_factors(const struct rp_rope *args, double scale, float *factors)
{
    for (size_t i = 0; i < args->n_rot / 2; i++) {
        double factor = args->freq_factors ? (double)args->freq_factors[i] : 1;
        factors[i] = (float)(factor / scale);
    }
}

static int64_t moved(const struct rp_change *change, int64_t position)
{
    const int64_t value = (int64_t)change->what.value;
    const size_t row = rp_row_of(change->positions, change->n_rows, position);
    switch (change->what.option) {
    case MEASURED_POSITIONS:
        return row < change->n_rows ? (int64_t)change->what.rows[row] : position;
    case OFFSET: return position + value;
    case RESTART: return position >= value ? position - value : position;
    case MODULO: return position % value;
    case CLAMP: return position < value ? position : value;
    case ONE_POSITION: return value;
    default: return position;
    }
}

static enum rp_status run_changed(const struct rp_change *change, const struct rp_site *site,
                                  struct rp_rope *args, float *factors, int64_t *positions)
{
    switch (change->what.option) {
    case ORDERING:
        args->ordering = args->ordering == RP_ROPE_NEOX ? RP_ROPE_INTERLEAVED : RP_ROPE_NEOX;
        break;
    case THETA: args->theta = (float)change->what.value; break;
    case SCALING:
        scaled_factors(args, change->what.value, factors);
        args->freq_factors = factors;
        break;
    case NO_FACTORS: args->freq_factors = NULL; break;
    case NO_FACTORS_AND_BASE:
        args->freq_factors = NULL;
        args->theta = (float)change->what.value;
        break;
    case MEASURED_FACTORS:
        for (size_t i = 0; i < args->n_rot / 2; i++)
            factors[i] = (args->freq_factors ? args->freq_factors[i] : 1) * change->what.rows[i];
        args->freq_factors = factors;
        break;
    case INVERTED_FACTORS:
        for (size_t i = 0; args->freq_factors && i < args->n_rot / 2; i++)
            factors[i] = 1 / args->freq_factors[i];
        if (args->freq_factors)
            args->freq_factors = factors;
        break;
    case LLAMA3_FACTORS:
        llama3_factors(args, change->what.value, factors);
        args->freq_factors = factors;
        break;
    case DIMENSION:
        if ((size_t)change->what.value > args->n_rot) /* there are no factors for these */
            args->freq_factors = NULL;
        args->n_rot = (size_t)change->what.value;
        break;
    case EXPONENT:
        args->theta = powf(args->theta, (float)args->n_rot / (float)change->what.value);
        break;
    case DIRECTION:
        scaled_factors(args, -1, factors);
        args->freq_factors = factors;
        break;
    default:
        for (size_t i = 0; i < site->n_positions; i++)
            positions[i] = moved(change, args->positions[i]);
        args->positions = positions;
        break;
    }
    return RP_RUN_BELOW(change, rope, site, args);
}

static enum rp_status rope(void *context, const struct rp_site *site, const struct rp_rope *args)
{
    const struct rp_change *change = context;
    struct rp_rope wrong = *args;
    if (change->what.which != RP_N_WEIGHTS && change->what.which != args->which)
        return RP_RUN_BELOW(change, rope, site, args);
    if (change->what.option == MISSING)
        return RP_OK;
    float *factors = calloc(args->head_dim + 1, sizeof *factors);
    int64_t *positions = calloc(site->n_positions + 1, sizeof *positions);
    enum rp_status status =
        factors && positions
            ? run_changed(change, site, &wrong, factors, positions)
            : rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for RoPE's arguments");
    free(factors);
    free(positions);
    return status;
}

static void install(struct rp_ops *ops)
{
    ops->rope = rope;
}

/* What rotates K rotates V when it is stored; rows: the model's frequency factors, or NULL. */
static enum rp_status store_rotated_v(void *context, const struct rp_site *site,
                                      const struct rp_kv_store *args)
{
    const struct rp_change *change = context;
    const struct rp_model_config *config = site->config;
    struct rp_kv_store wrong = *args;
    const size_t n = site->n_positions * args->dim;
    float *v = malloc((n + 1) * sizeof *v);
    if (!v)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for V");
    memcpy(v, args->v, n * sizeof *v);
    const struct rp_rope rotated = {.which = RP_ATTN_K,
                                    .ordering = config->rope_ordering,
                                    .theta = rp_site_rope_theta(site),
                                    .freq_factors = change->what.rows,
                                    .attention_factor = rp_site_attention_factor(site),
                                    .n_rot = config->n_rot,
                                    .n_heads = config->n_kv_heads,
                                    .head_dim = config->head_dim,
                                    .positions = site->positions,
                                    .x = v};
    wrong.v = v;
    enum rp_status status = RP_RUN_BELOW(change, rope, site, &rotated);
    if (status == RP_OK)
        status = RP_RUN_BELOW(change, kv_store, site, &wrong);
    free(v);
    return status;
}

static void install_on_v(struct rp_ops *ops)
{
    ops->kv_store = store_rotated_v;
}

/* ---- what is tried ---- */

static const char *target(enum rp_weight_id which)
{
    return which == RP_ATTN_Q ? " of Q only" : which == RP_ATTN_K ? " of K only" : "";
}

/* Q's and K's both, and each alone where both lead to the slot. */
static const enum rp_weight_id targets[] = {RP_N_WEIGHTS, RP_ATTN_Q, RP_ATTN_K};

static size_t n_targets(const struct rp_search *search)
{
    return rp_search_has_step(search, RP_STEP_ROPE, RP_ATTN_Q) &&
                   rp_search_has_step(search, RP_STEP_ROPE, RP_ATTN_K)
               ? 3
               : 1;
}

static struct rp_candidate make(const char *name, enum option option, double value)
{
    struct rp_candidate candidate = rp_candidate_make(name, install, (int)option, RP_N_WEIGHTS);
    candidate.value = value;
    candidate.reports_value = value != 0;
    return candidate;
}

static void collect_fixed(struct rp_search *search)
{
    static const struct {
        const char *name;
        enum option option;
        const char *text;
    } fixed[] = {
        {"rope-ordering", ORDERING, "RoPE pairs the values of a head the other way"},
        {"rope-missing", MISSING, "RoPE left out"},
        {"rope-direction", DIRECTION, "RoPE rotates the other way"},
        {"rope-freq-factors", NO_FACTORS, "RoPE without the model's frequency factors"},
        {"rope-freq-factors", INVERTED_FACTORS,
         "RoPE's frequency factors multiply where they divide"},
    };
    const bool is_scaled = search->config->rope_scaling.type != RP_ROPE_NOT_SCALED;
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        if (fixed[i].option == NO_FACTORS && is_scaled) /* rope_scaling_hypotheses.c has it */
            continue;
        for (size_t t = 0; t < n_targets(search); t++) {
            struct rp_candidate candidate = make(fixed[i].name, fixed[i].option, 0);
            candidate.which = targets[t];
            rp_search_add(search, candidate, "%s%s", fixed[i].text, target(targets[t]));
        }
    }
    for (int factor = 8; factor <= 32; factor *= 4) {
        struct rp_candidate candidate = make("rope-freq-factors", LLAMA3_FACTORS, factor);
        candidate.reports_value = false;
        rp_search_add(
            search, candidate,
            "RoPE with Llama 3's frequency factors (factor %d), which are not the model's", factor);
    }
}

static void collect_fit(struct rp_search *search, struct rp_candidate candidate,
                        const double *known, size_t n, double own, double start,
                        const struct rp_fit *fit, const char *text)
{
    for (size_t i = 0; i < n; i++) {
        candidate.value = known[i];
        if (fabs(known[i] - own) > 1e-6 * own)
            rp_search_add(search, candidate, "%s", text);
    }
    candidate.value = start > fit->low && start < fit->high ? start : own;
    candidate.own = own;
    candidate.phase = RP_PHASE_FIT;
    candidate.fit = fit;
    rp_search_add(search, candidate, "%s", text);
}

/* theta and scaling: where the fit starts, 0: at the model's own. */
static void collect_bases(struct rp_search *search, double theta, double scaling, bool has_factors)
{
    /* Of models in the field: Llama, Qwen, Gemma, Mistral, gpt-oss, DeepSeek, Command R. */
    static const double bases[] = {1e4, 5e5, 1e6, 1e7, 150000, 8e6, 2.5e5, 1e5, 5e6, 4e6, 160000};
    static const double factors[] = {0.5, 0.25, 0.125, 1.0 / 32, 2, 4, 8};
    static const double grid[] = {1e1, 1e2, 5e2, 2e3, 5e3, 2e4, 5e4, 2e5, 2e6, 2e7, 1e8, 1e9};
    static const struct rp_fit base_fit = RP_FIT(true, 1.5, 1e12, grid);
    static const struct rp_fit factor_fit = RP_FIT(true, 1e-4, 1e3, factors);
    const double own = (double)rp_rope_theta(search->config, search->kind);
    char text[120];
    snprintf(text, sizeof text, "RoPE with base %%v; the model's is %.10g", own);
    collect_fit(search, make("rope-theta", THETA, own), bases, sizeof bases / sizeof *bases, own,
                theta, &base_fit, text);
    collect_fit(search, make("rope-scaling", SCALING, 1), factors, sizeof factors / sizeof *factors,
                1, scaling, &factor_fit,
                "RoPE's positions are multiplied by %v; the model's are not");
    if (has_factors)
        rp_search_add(search, make("rope-theta", NO_FACTORS_AND_BASE, 1e4),
                      "RoPE with the default base %%v and no frequency factors; the model's base "
                      "is %.10g, and it has factors",
                      own);
}

static void collect_dimensions(struct rp_search *search)
{
    const struct rp_model_config *config = search->config;
    /* Behind the part of a query that is not rotated there is no room for more. */
    const bool has_latents = config->kv_lora_rank > 0;
    const size_t head_dim = has_latents ? config->n_rot : config->head_dim;
    const size_t others[] = {
        head_dim, head_dim / 2, head_dim / 4, 3 * config->n_rot / 4, config->n_rot / 2, 2};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        const size_t n_rot = others[i];
        bool is_new = n_rot != config->n_rot && n_rot >= 2 && n_rot % 2 == 0;
        for (size_t j = 0; j < i; j++)
            is_new = is_new && others[j] != n_rot;
        if (!is_new)
            continue;
        rp_search_add(search, make("rope-dimension", DIMENSION, (double)n_rot),
                      "RoPE over %%v values of a head; the model's are %zu", config->n_rot);
        rp_search_add(search, make("rope-dimension", EXPONENT, (double)n_rot),
                      "RoPE's exponents are i / %%v; the model's i / %zu", config->n_rot);
    }
}

static void add_position(struct rp_search *search, enum option option, double value,
                         enum rp_weight_id which, const char *text)
{
    struct rp_candidate candidate = make("rope-position", option, value);
    candidate.which = which;
    candidate.reports_value = true;
    rp_search_add(search, candidate, "%s%s", text, target(which));
}

/* A constant offset on both Q and K changes nothing in attention, and one on K is the opposite one on
 * Q. */
static void collect_positions(struct rp_search *search)
{
    const bool has_both = n_targets(search) == 3;
    const enum rp_weight_id which = has_both ? RP_ATTN_Q : RP_N_WEIGHTS;
    const int64_t first = search->slot.positions[search->first];
    for (int offset = 1; offset <= MAX_OFFSET; offset++) {
        for (int sign = 1; sign >= -1; sign -= 2)
            add_position(search, OFFSET, sign * offset, which, "RoPE's positions are off by %v");
    }
    for (size_t t = has_both ? 1 : 0; t < n_targets(search); t++)
        add_position(search, ONE_POSITION, 0, targets[t],
                     "every position is rotated as position %v is");
    if (first <= 0 || search->n_failing < 2)
        return;
    add_position(search, RESTART, (double)first, RP_N_WEIGHTS,
                 "RoPE's positions start again at 0 from position %v on");
    add_position(search, MODULO, (double)first, RP_N_WEIGHTS,
                 "RoPE's positions start again at 0 every %v positions");
    add_position(search, CLAMP, (double)(first - 1), RP_N_WEIGHTS,
                 "RoPE's positions stay at %v from there on");
    add_position(search, OFFSET, (double)-first, RP_N_WEIGHTS, "RoPE's positions are off by %v");
}

/* What the angles say that none of the above does: an offset of any size, positions of any kind, pairs
 * that are not rotated, frequencies of any kind. */
static void collect_measured(struct rp_search *search, const struct rp_measured_rope *measured)
{
    const size_t first = search->first;
    const int64_t position = search->slot.positions[first];
    const double offset = (double)measured->position[first] - (double)position;
    float *factors = rp_search_new_rows(search);
    if (measured->is_whole && fabs(offset) > MAX_OFFSET)
        add_position(search, OFFSET, offset, RP_N_WEIGHTS, "RoPE's positions are off by %v");
    if (measured->is_whole) {
        struct rp_candidate candidate = make("rope-position", MEASURED_POSITIONS, 0);
        candidate.rows = measured->position;
        candidate.phase = RP_PHASE_BIAS;
        candidate.parameter = offset;
        rp_search_add(search, candidate,
                      "RoPE has other positions: position %lld is rotated as %.0f is",
                      (long long)position, (double)measured->position[first]);
    }
    if (!factors || search->n_failing < 2)
        return;
    struct rp_candidate candidate = make("rope-freq-factors", MEASURED_FACTORS, 0);
    candidate.rows = factors;
    candidate.phase = RP_PHASE_BIAS;
    const bool has_sections = measured->n_still > 0 && measured->n_still < measured->n_pairs;
    size_t last = 0;
    for (size_t i = 0; i < measured->n_pairs; i++) {
        const bool is_still = fabs(measured->frequency[i]) < 0.02 * measured->own[i];
        factors[i] = has_sections ? (is_still ? HUGE_VALF : 1)
                                  : (float)(measured->own[i] / measured->frequency[i]);
        last = is_still ? i : last;
    }
    if (!has_sections) {
        rp_search_add(search, candidate,
                      "RoPE's frequencies are others: the last pair's %.4g, the model's %.4g",
                      measured->frequency[measured->n_pairs - 1],
                      measured->own[measured->n_pairs - 1]);
        return;
    }
    candidate.name = "rope-sections";
    candidate.phase = RP_PHASE_FIXED;
    candidate.parameter = (double)measured->n_still;
    rp_search_add(search, candidate,
                  "RoPE leaves %zu of %zu pairs of a head as they are, the last of them pair "
                  "%zu; the model rotates them",
                  measured->n_still, measured->n_pairs, last);
}

void rp_collect_rope(struct rp_search *search)
{
    const float *freq_factors = search->rope_freqs;
    struct rp_measured_rope measured = {.n_pairs = 0};
    if (search->config->kv_lora_rank == 0 &&
        rp_search_has_step(search, RP_STEP_KV_STORE, RP_N_WEIGHTS)) {
        struct rp_candidate candidate =
            rp_candidate_make("rope-on-v", install_on_v, 0, RP_N_WEIGHTS);
        candidate.rows = freq_factors;
        rp_search_add(search, candidate, "V is rotated as K is; the model's is not");
    }
    if (!rp_search_has_step(search, RP_STEP_ROPE, RP_N_WEIGHTS))
        return;
    collect_fixed(search);
    if (rp_search_is_just(search, RP_STEP_ROPE))
        rp_measure_rope(search, &measured);
    collect_bases(search, measured.theta, measured.scaling, freq_factors != NULL);
    collect_dimensions(search);
    collect_positions(search);
    if (measured.n_pairs > 0)
        collect_measured(search, &measured);
    rp_measured_rope_free(&measured);
}
