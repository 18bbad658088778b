/* Bugs in the gate of gated attention, and in the row that has it beside Q. See bugs.h. */
#include "bugs_internal.h"

#include <math.h>
#include <string.h>

static enum rp_status no_gate(void *context, const struct rp_site *site,
                              const struct rp_attention_gate *args)
{
    const struct rp_bug_site *bug = context;
    if (rp_bug_is_here(bug, site))
        return RP_OK;
    return RP_BELOW(bug, attention_gate, site, args);
}

static enum rp_status silu_gate(void *context, const struct rp_site *site,
                                const struct rp_attention_gate *args)
{
    const struct rp_bug_site *bug = context;
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, attention_gate, site, args);
    for (size_t i = 0; i < site->n_positions * args->dim; i++)
        args->y[i] *= args->gate[i] / (1.0f + expf(-args->gate[i]));
    return RP_OK;
}

/* The first half of the row is taken as Q, the second as the gate. */
static enum rp_status split_in_halves(void *context, const struct rp_site *site,
                                      const struct rp_split_gate *args)
{
    const struct rp_bug_site *bug = context;
    const size_t width = args->n_heads * args->head_dim;
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, split_gate, site, args);
    for (size_t p = 0; p < site->n_positions; p++) {
        memcpy(args->q + p * width, args->x + 2 * p * width, width * sizeof *args->q);
        memcpy(args->gate + p * width, args->x + (2 * p + 1) * width, width * sizeof *args->gate);
    }
    return RP_OK;
}

#define GATE_BUG                                                                  \
    .layers = RP_BUG_IN_FULL_ATTENTION, .architectures = "qwen35", RP_BOTH_MODES, \
    .names = "attention-gate"

static const struct rp_bug bugs[] = {
    {
        .name = "attention-gate-missing",
        .description = "full attention's output is not multiplied by the sigmoid of its gate",
        .provenance = "github.com/NVIDIA/TensorRT-LLM pull 9060 (an override drops the gate)",
        GATE_BUG,
        .first_part = RP_PART_MIX,
        .ops = {.attention_gate = no_gate},
        .at_position = true,
    },
    {
        .name = "attention-gate-silu",
        .description = "SiLU in the place of the gate's sigmoid",
        .provenance = "github.com/trymirai/lalamo pull 267 (another function in the sigmoid's "
                      "place)",
        GATE_BUG,
        .first_part = RP_PART_MIX,
        .ops = {.attention_gate = silu_gate},
    },
    {
        .name = "attention-gate-halves",
        .description = "Q and gate are split as halves of the row, not of each head",
        .provenance = "github.com/llmmanorg/llmman pull 16 (Qwen3.5's q_proj split flat)",
        GATE_BUG,
        .first_part = RP_PART_Q,
        RP_ALSO(RP_PART_Z),
        .ops = {.split_gate = split_in_halves},
    },
};

const struct rp_bug_family rp_attention_gate_bugs = RP_FAMILY(bugs);
