/* Bugs in mixtures of experts: the weights of the chosen ones, how many there are, the shared expert's gate.
 * See bugs.h; no committed model has them: cases/families_test.sh puts them into one that it makes. */
#include "bugs_internal.h"

static enum rp_status not_normalized(void *context, const struct rp_site *site,
                                     const struct rp_weigh_experts *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_router router = *args->router;
    struct rp_weigh_experts wrong = *args;
    wrong.router = &router;
    if (rp_bug_is_here(bug, site))
        router.normalizes = false;
    return RP_BELOW(bug, weigh_experts, site, &wrong);
}

static enum rp_status raw_logits(void *context, const struct rp_site *site,
                                 const struct rp_weigh_experts *args)
{
    const struct rp_bug_site *bug = context;
    const size_t n = args->router->n_experts, n_chosen = args->router->n_chosen;
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, weigh_experts, site, args);
    for (size_t k = 0; k < site->n_positions * n_chosen; k++)
        args->weights[k] = args->logits[k / n_chosen * n + (size_t)args->experts[k]];
    return RP_OK;
}

/* The expert of the lowest score counts nothing; the others are normalised without it. */
static enum rp_status one_less(void *context, const struct rp_site *site,
                               const struct rp_weigh_experts *args)
{
    const struct rp_bug_site *bug = context;
    const size_t n = args->router->n_chosen;
    const enum rp_status status = RP_BELOW(bug, weigh_experts, site, args);
    if (status != RP_OK || !rp_bug_is_here(bug, site))
        return status;
    for (size_t p = 0; p < site->n_positions; p++) {
        float *weights = args->weights + p * n, others = 0;
        for (size_t k = 0; k + 1 < n; k++)
            others += weights[k];
        for (size_t k = 0; k + 1 < n; k++)
            weights[k] *= (others + weights[n - 1]) / others;
        weights[n - 1] = 0;
    }
    return RP_OK;
}

static enum rp_status without_shared_gate(void *context, const struct rp_site *site,
                                          const struct rp_add_shared_expert *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_add_shared_expert wrong = *args;
    if (rp_bug_is_here(bug, site))
        wrong.gate = NULL;
    return RP_BELOW(bug, add_shared_expert, site, &wrong);
}

#define EXPERTS_BUG .layers = RP_BUG_IN_ANY_LAYER, RP_BOTH_MODES
#define WEIGHTS_BUG \
    EXPERTS_BUG, .architectures = "qwen3moe,qwen35moe", .first_part = RP_PART_EXPERTW

static const struct rp_bug bugs[] = {
    {
        .name = "router-not-normalized",
        .description = "experts' weights are not divided by their sum: norm_topk_prob is not read",
        .provenance = "github.com/huggingface/transformers issue 41151 (Qwen3 MoE from a GGUF)",
        WEIGHTS_BUG,
        .ops = {.weigh_experts = not_normalized},
        .names = "router-norm",
    },
    {
        .name = "router-raw-logits",
        .description = "experts are weighted by the router's logits, without a softmax",
        .provenance = "github.com/sgl-project/sglang pull 35160 (logits returned as weights)",
        WEIGHTS_BUG,
        .ops = {.weigh_experts = raw_logits},
        .names = "router-scores",
    },
    {
        .name = "router-one-less",
        .description = "one expert less than the model's top-k",
        .provenance = "github.com/Aleph-Alpha/Alpha-MoE pull 3 (top_k - 1 experts)",
        WEIGHTS_BUG,
        .ops = {.weigh_experts = one_less},
        .names = "router-top-k",
    },
    {
        .name = "shared-gate-missing",
        .description = "the shared expert is added without its gate",
        .provenance = "github.com/NousResearch/torchtitan pull 36; "
                      "github.com/vllm-project/vllm-ascend pull 15953 (the gate was passed over)",
        EXPERTS_BUG,
        .architectures = "qwen35moe",
        .ops = {.add_shared_expert = without_shared_gate},
        .first_part = RP_PART_FFNOUT,
        .names = "shared-gate",
    },
};

const struct rp_bug_family rp_experts_bugs = RP_FAMILY(bugs);
