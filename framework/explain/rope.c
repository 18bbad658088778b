/* Hypotheses about RoPE. All of them go through the rope below, with other arguments. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "explain/search.h"

#define MAX_OFFSET 8 /* of positions */

enum option {
    ORDERING,
    THETA,
    SCALING,
    NO_FACTORS,
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
    int64_t value = (int64_t)change->value;
    switch (change->option) {
    case OFFSET: return position + value;
    case RESTART: return position >= value ? position - value : position;
    case MODULO: return position % value;
    case CLAMP: return position < value ? position : value;
    case ONE_POSITION: return value;
    default: return position;
    }
}

static void move_positions(const struct rp_change *change, const int64_t *positions, size_t n,
                           int64_t *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = moved(change, positions[i]);
}

static enum rp_status run_changed(const struct rp_change *change, const struct rp_site *site,
                                  struct rp_rope *args, float *factors, int64_t *positions)
{
    const struct rp_ops *below = change->overlay.below;
    switch (change->option) {
    case ORDERING:
        args->ordering = args->ordering == RP_ROPE_NEOX ? RP_ROPE_INTERLEAVED : RP_ROPE_NEOX;
        break;
    case THETA: args->theta = (float)change->value; break;
    case SCALING:
        scaled_factors(args, change->value, factors);
        args->freq_factors = factors;
        break;
    case NO_FACTORS: args->freq_factors = NULL; break;
    case INVERTED_FACTORS:
        for (size_t i = 0; args->freq_factors && i < args->n_rot / 2; i++)
            factors[i] = 1 / args->freq_factors[i];
        if (args->freq_factors)
            args->freq_factors = factors;
        break;
    case LLAMA3_FACTORS:
        llama3_factors(args, change->value, factors);
        args->freq_factors = factors;
        break;
    case DIMENSION:
        if ((size_t)change->value > args->n_rot) /* there are no factors for these */
            args->freq_factors = NULL;
        args->n_rot = (size_t)change->value;
        break;
    case EXPONENT:
        args->theta = powf(args->theta, (float)args->n_rot / (float)change->value);
        break;
    case DIRECTION:
        scaled_factors(args, -1, factors);
        args->freq_factors = factors;
        break;
    default:
        move_positions(change, args->positions, site->n_positions, positions);
        args->positions = positions;
        break;
    }
    return below->rope(below->context, site, args);
}

static enum rp_status rope(void *context, const struct rp_site *site, const struct rp_rope *args)
{
    const struct rp_change *change = context;
    const struct rp_ops *below = change->overlay.below;
    struct rp_rope wrong = *args;
    if (change->which != RP_N_WEIGHTS && change->which != args->which)
        return below->rope(below->context, site, args);
    if (change->option == MISSING)
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

/* What rotates K rotates V when it is stored. */
static enum rp_status remember_rope(void *context, const struct rp_site *site,
                                    const struct rp_rope *args)
{
    struct rp_change *change = context;
    if (args->which == RP_ATTN_K)
        change->rope = *args;
    return change->overlay.below->rope(change->overlay.below->context, site, args);
}

static enum rp_status store_rotated_v(void *context, const struct rp_site *site,
                                      const struct rp_kv_store *args)
{
    struct rp_change *change = context;
    const struct rp_ops *below = change->overlay.below;
    struct rp_kv_store wrong = *args;
    struct rp_rope rope_args = change->rope;
    size_t size = site->n_positions * args->dim * sizeof *args->v;
    float *v = malloc(size + 1);
    if (!v)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for V");
    memcpy(v, args->v, size);
    rope_args.positions = site->positions;
    rope_args.x = v;
    wrong.v = v;
    enum rp_status status = below->rope(below->context, site, &rope_args);
    if (status == RP_OK)
        status = below->kv_store(below->context, site, &wrong);
    free(v);
    return status;
}

static void install_on_v(struct rp_ops *ops)
{
    ops->rope = remember_rope;
    ops->kv_store = store_rotated_v;
}

static struct rp_candidate make(const char *name, enum option option, enum rp_weight_id which,
                                double value)
{
    return (struct rp_candidate){.name = name,
                                 .phase = RP_PHASE_FIXED,
                                 .stages = RP_STAGE_ATTENTION,
                                 .install = install,
                                 .option = (int)option,
                                 .which = which,
                                 .value = value,
                                 .from_layer = -1,
                                 .parameter = RP_NO_PARAMETER};
}

static const char *target(enum rp_weight_id which)
{
    return which == RP_ATTN_Q ? " of Q only" : which == RP_ATTN_K ? " of K only" : "";
}

static const enum rp_weight_id targets[] = {RP_N_WEIGHTS, RP_ATTN_Q, RP_ATTN_K};
#define N_TARGETS (sizeof targets / sizeof *targets)

static enum rp_status collect_plain(struct rp_search *search, struct rp_error *err)
{
    static const struct {
        const char *name;
        enum option option;
        const char *text;
    } plain[] = {
        {"rope-ordering", ORDERING, "RoPE pairs the values of a head the other way"},
        {"rope-missing", MISSING, "RoPE left out"},
        {"rope-direction", DIRECTION, "RoPE rotates the other way"},
        {"rope-freq-factors", NO_FACTORS, "RoPE without the model's frequency factors"},
        {"rope-freq-factors", INVERTED_FACTORS,
         "RoPE's frequency factors multiply where they divide"},
    };
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        for (size_t t = 0; t < N_TARGETS && status == RP_OK; t++) {
            struct rp_candidate candidate = make(plain[i].name, plain[i].option, targets[t], 0);
            snprintf(candidate.text, sizeof candidate.text, "%s%s", plain[i].text,
                     target(targets[t]));
            status = rp_search_add(search, &candidate, err);
        }
    }
    if (status == RP_OK) {
        struct rp_candidate candidate = make("rope-on-v", ORDERING, RP_N_WEIGHTS, 0);
        candidate.install = install_on_v;
        snprintf(candidate.text, sizeof candidate.text, "V is rotated as K is");
        status = rp_search_add(search, &candidate, err);
    }
    for (int factor = 8; factor <= 32 && status == RP_OK; factor *= 4) {
        struct rp_candidate candidate =
            make("rope-freq-factors", LLAMA3_FACTORS, RP_N_WEIGHTS, factor);
        snprintf(candidate.text, sizeof candidate.text,
                 "RoPE with Llama 3's frequency factors (factor %d), which are not the model's",
                 factor);
        status = rp_search_add(search, &candidate, err);
    }
    return status;
}

static enum rp_status collect_theta(struct rp_search *search, struct rp_error *err)
{
    /* Of models in the field: Llama, Qwen, Gemma, Mistral, gpt-oss, DeepSeek, Command R. */
    static const double bases[] = {1e4, 5e5, 1e6, 1e7, 150000, 8e6, 2.5e5, 1e5, 5e6, 4e6, 160000};
    static const double grid[] = {1e1, 1e2, 5e2, 2e3, 5e3, 2e4, 5e4, 2e5, 2e6, 2e7, 1e8, 1e9};
    static const struct rp_fit fit = {.is_log = true,
                                      .low = 1.5,
                                      .high = 1e12,
                                      .starts = grid,
                                      .n_starts = sizeof grid / sizeof *grid};
    double own = (double)search->config->rope_theta;
    enum rp_status status = RP_OK;
    for (size_t i = 0; i <= sizeof bases / sizeof *bases && status == RP_OK; i++) {
        bool is_fit = i == sizeof bases / sizeof *bases;
        struct rp_candidate candidate =
            make("rope-theta", THETA, RP_N_WEIGHTS, is_fit ? own : bases[i]);
        if (!is_fit && fabs(bases[i] - own) < 1e-6 * own)
            continue;
        candidate.phase = is_fit ? RP_PHASE_FIT : RP_PHASE_FIXED;
        candidate.fit = is_fit ? &fit : NULL;
        candidate.reports_value = true;
        snprintf(candidate.text, sizeof candidate.text, "RoPE with base %%v; the model's is %.10g",
                 own);
        status = rp_search_add(search, &candidate, err);
    }
    return status;
}

static enum rp_status collect_scaling(struct rp_search *search, struct rp_error *err)
{
    static const double factors[] = {0.5, 0.25, 0.125, 1.0 / 32, 2, 4, 8};
    static const struct rp_fit fit = {.is_log = true,
                                      .low = 1e-4,
                                      .high = 1e3,
                                      .starts = factors,
                                      .n_starts = sizeof factors / sizeof *factors};
    enum rp_status status = RP_OK;
    for (size_t i = 0; i <= sizeof factors / sizeof *factors && status == RP_OK; i++) {
        bool is_fit = i == sizeof factors / sizeof *factors;
        struct rp_candidate candidate =
            make("rope-scaling", SCALING, RP_N_WEIGHTS, is_fit ? 1 : factors[i]);
        candidate.phase = is_fit ? RP_PHASE_FIT : RP_PHASE_FIXED;
        candidate.fit = is_fit ? &fit : NULL;
        candidate.reports_value = true;
        snprintf(candidate.text, sizeof candidate.text, "RoPE's positions are multiplied by %%v");
        status = rp_search_add(search, &candidate, err);
    }
    return status;
}

static enum rp_status collect_dimension(struct rp_search *search, struct rp_error *err)
{
    const struct rp_model_config *config = search->config;
    enum rp_status status = RP_OK;
    const size_t others[] = {config->head_dim,      config->head_dim / 2, config->head_dim / 4,
                             3 * config->n_rot / 4, config->n_rot / 2,    2};
    for (size_t i = 0; i < sizeof others / sizeof *others && status == RP_OK; i++) {
        size_t n_rot = others[i];
        bool is_new = n_rot != config->n_rot && n_rot >= 2 && n_rot % 2 == 0;
        for (size_t j = 0; j < i; j++)
            is_new = is_new && others[j] != n_rot;
        if (!is_new)
            continue;
        struct rp_candidate candidate =
            make("rope-dimension", DIMENSION, RP_N_WEIGHTS, (double)n_rot);
        candidate.reports_value = true;
        snprintf(candidate.text, sizeof candidate.text,
                 "RoPE over %%v values of a head; the model's are %zu", config->n_rot);
        status = rp_search_add(search, &candidate, err);
        candidate.option = EXPONENT;
        snprintf(candidate.text, sizeof candidate.text,
                 "RoPE's exponents are i / %%v; the model's i / %zu", config->n_rot);
        if (status == RP_OK)
            status = rp_search_add(search, &candidate, err);
    }
    return status;
}

static enum rp_status add_position(struct rp_search *search, enum option option, double value,
                                   enum rp_weight_id which, const char *text, struct rp_error *err)
{
    struct rp_candidate candidate = make("rope-position", option, which, value);
    candidate.reports_value = true;
    snprintf(candidate.text, sizeof candidate.text, "%s%s", text, target(which));
    return rp_search_add(search, &candidate, err);
}

/* A constant offset on both Q and K changes nothing, and one on K is the opposite one on Q. */
static enum rp_status collect_positions(struct rp_search *search, struct rp_error *err)
{
    const int64_t *positions = search->slot->positions;
    int64_t first = positions[search->first];
    enum rp_status status = RP_OK;
    for (int offset = 1; offset <= MAX_OFFSET; offset++) {
        for (int sign = 1; sign >= -1 && status == RP_OK; sign -= 2)
            status = add_position(search, OFFSET, sign * offset, RP_ATTN_Q,
                                  "RoPE's positions are off by %v", err);
    }
    if (status == RP_OK && first > 0)
        status = add_position(search, RESTART, (double)first, RP_N_WEIGHTS,
                              "RoPE's positions start again at 0 from position %v on", err);
    if (status == RP_OK && first > 0)
        status = add_position(search, MODULO, (double)first, RP_N_WEIGHTS,
                              "RoPE's positions start again at 0 every %v positions", err);
    if (status == RP_OK && first > 0)
        status = add_position(search, CLAMP, (double)(first - 1), RP_N_WEIGHTS,
                              "RoPE's positions stay at %v from there on", err);
    for (int i = 0; i < 2 && status == RP_OK; i++)
        status = add_position(search, ONE_POSITION, 0, targets[1 + i],
                              "every position is rotated as position %v is", err);
    if (status == RP_OK && first > 0)
        status = add_position(search, OFFSET, (double)-first, RP_N_WEIGHTS,
                              "RoPE's positions are off by %v", err);
    return status;
}

enum rp_status rp_collect_rope(struct rp_search *search, struct rp_error *err)
{
    if (search->kind != RP_LAYER_FULL_ATTENTION)
        return RP_OK;
    enum rp_status status = collect_plain(search, err);
    if (status == RP_OK)
        status = collect_theta(search, err);
    if (status == RP_OK)
        status = collect_scaling(search, err);
    if (status == RP_OK)
        status = collect_dimension(search, err);
    if (status == RP_OK)
        status = collect_positions(search, err);
    return status;
}
