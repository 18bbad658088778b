/* What is tried about the gated DeltaNet; how it is changed is in delta_net.c. */
#include <math.h>
#include <stdio.h>

#include "explain/delta_net.h"

typedef void install_fn(struct rp_ops *ops);

static enum rp_status add(struct rp_search *search, const char *name, install_fn *install,
                          int option, double value, bool reports_value, const char *text,
                          struct rp_error *err)
{
    struct rp_candidate candidate = {.name = name,
                                     .phase = RP_PHASE_FIXED,
                                     .stages = RP_STAGE_ATTENTION,
                                     .install = install,
                                     .option = option,
                                     .which = RP_N_WEIGHTS,
                                     .value = value,
                                     .reports_value = reports_value,
                                     .from_layer = -1,
                                     .parameter = RP_NO_PARAMETER};
    snprintf(candidate.text, sizeof candidate.text, "%s", text);
    return rp_search_add(search, &candidate, err);
}

static enum rp_status collect_plain(struct rp_search *search, struct rp_error *err)
{
    static const struct {
        const char *name;
        install_fn *install;
        int option;
        const char *text;
    } plain[] = {
        {"delta-decay", rp_delta_gates_install, RP_DECAY_MISSING,
         "the DeltaNet's state does not decay"},
        {"delta-decay", rp_delta_gates_install, RP_DECAY_WITHOUT_EXP,
         "the DeltaNet's decay without exp"},
        {"delta-decay", rp_delta_gates_install, RP_DECAY_SIGN,
         "the DeltaNet's decay with A's sign changed"},
        {"delta-decay", rp_delta_gates_install, RP_DECAY_WITHOUT_SOFTPLUS,
         "the DeltaNet's decay without softplus"},
        {"delta-decay", rp_delta_gates_install, RP_DECAY_WITHOUT_A,
         "the DeltaNet's decay without A"},
        {"delta-decay", rp_delta_gates_install, RP_DECAY_EXP_A,
         "exp of the DeltaNet's A, which is -exp(A_log) already"},
        {"delta-dt-bias", rp_delta_gates_install, RP_DT_MISSING,
         "the DeltaNet's decay without dt's bias"},
        {"delta-dt-bias", rp_delta_gates_install, RP_DT_SIGN, "dt's bias subtracted"},
        {"delta-dt-bias", rp_delta_gates_install, RP_DT_AFTER_SOFTPLUS,
         "dt's bias added after softplus"},
        {"delta-beta", rp_delta_gates_install, RP_BETA_WITHOUT_SIGMOID,
         "the DeltaNet's beta without sigmoid"},
        {"delta-beta", rp_delta_gates_install, RP_BETA_MISSING, "the DeltaNet without beta"},
        {"delta-beta", rp_delta_gates_install, RP_BETA_DOUBLED, "the DeltaNet's beta doubled"},
        {"delta-conv-silu", rp_delta_conv_install, RP_CONV_WITHOUT_SILU,
         "the convolution without SiLU"},
        {"delta-conv-kernel", rp_delta_conv_install, RP_CONV_REVERSED,
         "the convolution's kernel reversed"},
        {"delta-conv-kernel", rp_delta_conv_install, RP_CONV_LATE,
         "the convolution is late by a position"},
        {"delta-conv-kernel", rp_delta_conv_install, RP_CONV_MISSING,
         "the convolution left out, its SiLU kept"},
        {"delta-conv-state", rp_delta_conv_install, RP_CONV_STATE_AT_EACH,
         "the convolution sees no earlier position"},
        {"delta-gate", rp_gated_norm_install, RP_GATED_WITHOUT_GATE,
         "the DeltaNet's output is not gated"},
        {"delta-gate", rp_gated_norm_install, RP_GATED_SIGMOID,
         "the DeltaNet's gate through sigmoid; the model's is SiLU"},
        {"delta-gate", rp_gated_norm_install, RP_GATED_BEFORE_NORM,
         "the DeltaNet's gate before its norm; the model's is after it"},
        {"norm-weight-missing", rp_gated_norm_install, RP_GATED_WITHOUT_WEIGHT,
         "the DeltaNet's norm without its weight"},
        {"norm-missing", rp_gated_norm_install, RP_GATED_WITHOUT_NORM,
         "the DeltaNet's norm left out, its gate kept"},
        {"delta-head-mapping", rp_delta_rule_install, RP_DELTA_GROUPED_HEADS,
         "V head h reads K head h / group; the file's order is h % n_k_heads"},
        {"delta-head-mapping", rp_delta_rule_install, RP_DELTA_FIRST_HEAD,
         "every V head reads K head 0"},
        {"weights-swapped", rp_delta_rule_install, RP_DELTA_QK_SWAPPED,
         "the DeltaNet's Q and K swapped"},
        {"delta-state", rp_delta_rule_install, RP_DELTA_STATE_AT_EACH,
         "the DeltaNet's state is lost at every position"},
        {"delta-state", rp_delta_rule_install, RP_DELTA_STATE_TRANSPOSED,
         "the DeltaNet's state is transposed from one position to the next"},
        {"delta-order", rp_delta_rule_install, RP_DELTA_DECAY_LATE,
         "the DeltaNet's state decays after the update"},
        {"delta-order", rp_delta_rule_install, RP_DELTA_OUTPUT_EARLY,
         "the DeltaNet's output is read before the update"},
        {"delta-order", rp_delta_rule_install, RP_DELTA_PLAIN_UPDATE,
         "the update without what the state already holds"},
        {"delta-order", rp_delta_rule_install, RP_DELTA_BEFORE_DECAY,
         "what the state holds is read before its decay"},
    };
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < sizeof plain / sizeof *plain && status == RP_OK; i++)
        status = add(search, plain[i].name, plain[i].install, plain[i].option, 0, false,
                     plain[i].text, err);
    return status;
}

static enum rp_status collect_values(struct rp_search *search, struct rp_error *err)
{
    static const char gated_eps[] = "the DeltaNet's norm with eps %v";
    double dim = (double)search->config->linear_head_dim;
    const struct {
        const char *name;
        install_fn *install;
        int option;
        double value;
        const char *text;
    } known[] = {
        {"delta-scale", rp_delta_rule_install, RP_DELTA_SCALE, 1,
         "the DeltaNet's Q times %v, the model's is 1 / sqrt(head_dim)"},
        {"delta-scale", rp_delta_rule_install, RP_DELTA_SCALE, 1 / dim,
         "the DeltaNet's Q times %v, the model's is 1 / sqrt(head_dim)"},
        {"norm-weight-offset", rp_gated_norm_install, RP_GATED_WEIGHT_OFFSET, 1,
         "the DeltaNet's norm with 1 + w for its weight w"},
        {"norm-weight-offset", rp_gated_norm_install, RP_GATED_WEIGHT_OFFSET, -1,
         "the DeltaNet's norm with w - 1 for its weight w"},
        {"norm-eps", rp_gated_norm_install, RP_GATED_EPS, 1e-5, gated_eps},
        {"norm-eps", rp_gated_norm_install, RP_GATED_EPS, 1e-4, gated_eps},
        {"norm-eps", rp_gated_norm_install, RP_GATED_EPS, 1e-3, gated_eps},
        {"norm-eps", rp_gated_norm_install, RP_GATED_EPS, 1e-12, gated_eps},
    };
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < sizeof known / sizeof *known && status == RP_OK; i++)
        status = add(search, known[i].name, known[i].install, known[i].option, known[i].value, true,
                     known[i].text, err);
    return status;
}

static enum rp_status collect_states(struct rp_search *search, struct rp_error *err)
{
    double first = (double)search->slot->positions[search->first];
    enum rp_status status = RP_OK;
    if (search->first == 0)
        return RP_OK;
    status = add(search, "delta-conv-state", rp_delta_conv_install, RP_CONV_STATE_AT, first, true,
                 "the convolution's state is lost at position %v", err);
    if (status == RP_OK)
        status = add(search, "delta-conv-state", rp_delta_conv_install, RP_CONV_STATE_EVERY, first,
                     true, "the convolution's state is lost every %v positions", err);
    if (status == RP_OK)
        status = add(search, "delta-state", rp_delta_rule_install, RP_DELTA_STATE_AT, first, true,
                     "the DeltaNet's state is lost at position %v", err);
    if (status == RP_OK)
        status = add(search, "delta-state", rp_delta_rule_install, RP_DELTA_STATE_EVERY, first,
                     true, "the DeltaNet's state is lost every %v positions", err);
    return status;
}

static enum rp_status collect_l2(struct rp_search *search, struct rp_error *err)
{
    static const struct {
        enum rp_weight_id which;
        const char *text;
    } of[] = {{RP_N_WEIGHTS, "Q and K"}, {RP_ATTN_Q, "Q"}, {RP_ATTN_K, "K"}};
    static const double known[] = {0, 1e-12, 1e-5, 1e-3};
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < 3; i++) {
        struct rp_candidate candidate = {.name = "delta-l2-norm",
                                         .phase = RP_PHASE_FIXED,
                                         .stages = RP_STAGE_ATTENTION,
                                         .install = rp_delta_l2_install,
                                         .which = of[i].which,
                                         .from_layer = -1,
                                         .parameter = RP_NO_PARAMETER};
        candidate.option = RP_L2_MISSING;
        snprintf(candidate.text, sizeof candidate.text, "the DeltaNet's %s without L2 norm",
                 of[i].text);
        if (status == RP_OK)
            status = rp_search_add(search, &candidate, err);
        candidate.option = RP_L2_MEAN;
        snprintf(candidate.text, sizeof candidate.text,
                 "RMS norm of the DeltaNet's %s; the model's is an L2 norm", of[i].text);
        if (status == RP_OK)
            status = rp_search_add(search, &candidate, err);
        candidate.option = RP_L2_EPS;
        candidate.reports_value = true;
        snprintf(candidate.text, sizeof candidate.text,
                 "the L2 norm of the DeltaNet's %s with eps %%v", of[i].text);
        for (size_t j = 0; j < sizeof known / sizeof *known && status == RP_OK; j++) {
            candidate.value = known[j];
            status = rp_search_add(search, &candidate, err);
        }
    }
    return status;
}

static enum rp_status collect_fits(struct rp_search *search, struct rp_error *err)
{
    static const double eps_grid[] = {1e-10, 1e-8, 1e-4, 1e-3, 1e-2, 1};
    static const double scale_grid[] = {1e-3, 1e-2, 1e-1, 10};
    static const struct rp_fit eps = {
        .is_log = true, .low = 1e-20, .high = 1e4, .starts = eps_grid, .n_starts = 6};
    static const double factor_grid[] = {0.1, 0.5, 2, 10};
    static const struct rp_fit factor = {
        .is_log = true, .low = 1e-4, .high = 1e4, .starts = factor_grid, .n_starts = 4};
    static const struct rp_fit scale = {
        .is_log = true, .low = 1e-6, .high = 1e6, .starts = scale_grid, .n_starts = 4};
    double dim = (double)search->config->linear_head_dim;
    const struct {
        const char *name;
        install_fn *install;
        int option;
        double own;
        const struct rp_fit *fit;
        const char *text;
    } fits[] = {
        {"delta-decay", rp_delta_gates_install, RP_A_FACTOR, 1, &factor,
         "the DeltaNet's A times %v"},
        {"delta-beta", rp_delta_gates_install, RP_BETA_FACTOR, 1, &factor,
         "the DeltaNet's beta times %v"},
        {"norm-eps", rp_gated_norm_install, RP_GATED_EPS, (double)search->config->rms_norm_eps,
         &eps, "the DeltaNet's norm with eps %v"},
        {"delta-l2-norm", rp_delta_l2_install, RP_L2_EPS, 1e-6, &eps,
         "the L2 norm of the DeltaNet's Q and K with eps %v"},
        {"delta-scale", rp_delta_rule_install, RP_DELTA_SCALE, 1 / sqrt(dim), &scale,
         "the DeltaNet's Q times %v, the model's is 1 / sqrt(head_dim)"},
    };
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < sizeof fits / sizeof *fits && status == RP_OK; i++) {
        struct rp_candidate candidate = {.name = fits[i].name,
                                         .phase = RP_PHASE_FIT,
                                         .stages = RP_STAGE_ATTENTION,
                                         .install = fits[i].install,
                                         .option = fits[i].option,
                                         .which = RP_N_WEIGHTS,
                                         .value = fits[i].own,
                                         .fit = fits[i].fit,
                                         .reports_value = true,
                                         .from_layer = -1,
                                         .parameter = RP_NO_PARAMETER};
        snprintf(candidate.text, sizeof candidate.text, "%s", fits[i].text);
        status = rp_search_add(search, &candidate, err);
    }
    return status;
}

enum rp_status rp_collect_delta_net(struct rp_search *search, struct rp_error *err)
{
    if (search->kind != RP_LAYER_LINEAR_ATTENTION)
        return RP_OK;
    enum rp_status status = collect_plain(search, err);
    if (status == RP_OK)
        status = collect_values(search, err);
    if (status == RP_OK)
        status = collect_states(search, err);
    if (status == RP_OK)
        status = collect_l2(search, err);
    if (status == RP_OK)
        status = collect_fits(search, err);
    return status;
}
