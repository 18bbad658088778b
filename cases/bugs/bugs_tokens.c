/* Bugs before and after the layers: tokens, embedding, logits. See bugs.h. */
#include "bugs_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void drop_last(int32_t *tokens, size_t *n_tokens)
{
    if (*n_tokens > 1)
        tokens[--*n_tokens] = -1; /* no token: it would be refused if anything still read it */
}

static void drop_first(int32_t *tokens, size_t *n_tokens)
{
    if (*n_tokens > 1) {
        memmove(tokens, tokens + 1, (*n_tokens - 1) * sizeof *tokens);
        tokens[--*n_tokens] = -1;
    }
}

/* NOLINTNEXTLINE(readability-non-const-parameter): as rp_bug.change_prompt has it */
static void double_first(int32_t *tokens, size_t *n_tokens)
{
    if (*n_tokens > 1)
        memmove(tokens + 1, tokens, (*n_tokens - 1) * sizeof *tokens);
}

/* NOLINTNEXTLINE(readability-non-const-parameter): as rp_bug.change_prompt has it */
static void replace_middle(int32_t *tokens, size_t *n_tokens)
{
    tokens[*n_tokens / 2] = tokens[*n_tokens / 2] ? tokens[*n_tokens / 2] - 1 : 1;
}

static void scale(float *rows, size_t n, double factor)
{
    for (size_t i = 0; i < n; i++)
        rows[i] = (float)((double)rows[i] * factor);
}

static enum rp_status scaled_embedding(void *context, const struct rp_site *site,
                                       const struct rp_embed *args)
{
    const struct rp_bug_site *bug = context;
    enum rp_status status = RP_BELOW(bug, embed, site, args);
    if (status == RP_OK && rp_bug_is_here(bug, site))
        scale(args->y, site->n_positions * site->config->hidden_size, bug->choice.magnitude);
    return status;
}

static enum rp_status unscaled_embedding(void *context, const struct rp_site *site,
                                         const struct rp_embed *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_embed wrong = *args;
    if (rp_bug_is_here(bug, site))
        wrong.scale = 0;
    return RP_BELOW(bug, embed, site, &wrong);
}

/* The row after the token's, as where the table has one more in front. */
static enum rp_status next_row(void *context, const struct rp_site *site,
                               const struct rp_embed *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_embed wrong = *args;
    int32_t *tokens;
    enum rp_status status;
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, embed, site, args);
    tokens = calloc(site->n_positions, sizeof *tokens);
    if (!tokens)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a bug");
    for (size_t p = 0; p < site->n_positions; p++)
        tokens[p] = (args->tokens[p] + 1) % (int32_t)site->config->vocab_size;
    wrong.tokens = tokens;
    status = RP_BELOW(bug, embed, site, &wrong);
    free(tokens);
    return status;
}

/* f of each logit that the call computes. */
static enum rp_status change_logits(const struct rp_bug_site *bug, const struct rp_site *site,
                                    const struct rp_linear *args, double (*f)(double, double))
{
    enum rp_status status = RP_BELOW(bug, linear, site, args);
    if (status != RP_OK || !rp_bug_is_here(bug, site) || args->which != RP_OUTPUT)
        return status;
    for (size_t p = 0; p < site->n_positions; p++) {
        for (size_t i = 0; i < args->n_out; i++) {
            float *y = args->y + p * args->y_stride + i;
            *y = (float)f((double)*y, bug->choice.magnitude);
        }
    }
    return RP_OK;
}

static double times(double value, double factor)
{
    return value * factor;
}

static double cap(double value, double bound)
{
    return bound * tanh(value / bound);
}

static enum rp_status scaled_logits(void *context, const struct rp_site *site,
                                    const struct rp_linear *args)
{
    return change_logits(context, site, args, times);
}

static enum rp_status capped_logits(void *context, const struct rp_site *site,
                                    const struct rp_linear *args)
{
    return change_logits(context, site, args, cap);
}

static enum rp_status uncapped_logits(void *context, const struct rp_site *site,
                                      const struct rp_linear *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_linear wrong = *args;
    if (rp_bug_is_here(bug, site))
        wrong.softcap = 0;
    return RP_BELOW(bug, linear, site, &wrong);
}

#define PROMPT_BUG                                                        \
    .architectures = RP_EVERY_ARCHITECTURE, .layers = RP_BUG_IN_NO_LAYER, \
    .first_part = RP_PART_OTHER, RP_BOTH_MODES
#define OUTER_BUG \
    .architectures = RP_EVERY_ARCHITECTURE, .layers = RP_BUG_IN_NO_LAYER, RP_BOTH_MODES

static const struct rp_bug bugs[] = {
    {
        .name = "drop-last-token",
        .description = "the prompt's last token never reaches the model",
        .provenance = "github.com/Integral2u/SharpMind issue 57 (prefill silently skips tokens)",
        PROMPT_BUG,
        .spares_position_0 = true,
        .change_prompt = drop_last,
        .names = "-",
    },
    {
        .name = "first-token-missing",
        .description = "the prompt without its first token",
        .provenance = "github.com/tenstorrent/tt-metal issue 48444 (ids without BOS)",
        PROMPT_BUG,
        .change_prompt = drop_first,
        .names = "-",
    },
    {
        .name = "first-token-doubled",
        .description = "the prompt's first token comes twice",
        .provenance = "github.com/InfiniTensor/InfiniLM pull 389 (two BOS); "
                      "github.com/abetlen/llama-cpp-python issue 1501",
        PROMPT_BUG,
        .spares_position_0 = true,
        .change_prompt = double_first,
        .names = "-",
    },
    {
        .name = "token-replaced",
        .description = "one token in the middle is another",
        .provenance = "github.com/ggml-org/llama.cpp issue 7898 (a special token's id wrong)",
        PROMPT_BUG,
        .spares_position_0 = true,
        .change_prompt = replace_middle,
        .names = "-",
    },
    {
        .name = "embedding-factor",
        .description = "embeddings times a factor, first the square root of the width",
        .provenance = "github.com/TensorAuto/OpenTau pull 179 (scaled twice); "
                      "github.com/RLinf/RLinf pull 1098",
        OUTER_BUG,
        .first_part = RP_PART_EMB,
        .ops = {.embed = scaled_embedding},
        RP_FACTORS(8),
        .at_position = true,
        .names = "constant-factor",
    },
    {
        .name = "embedding-scale-missing",
        .description = "embeddings without the square root of the width",
        .provenance = "github.com/marin-community/levanter pull 978 (Gemma without it)",
        .layers = RP_BUG_IN_NO_LAYER,
        RP_BOTH_MODES,
        .architectures = "gemma2,gemma3",
        .first_part = RP_PART_EMB,
        .ops = {.embed = unscaled_embedding},
        .names = "constant-factor",
    },
    {
        .name = "embedding-next-row",
        .description = "the row after the token's",
        .provenance = "github.com/pytorch/text issue 1840 (ids off by one for some vocabularies)",
        OUTER_BUG,
        .first_part = RP_PART_EMB,
        .ops = {.embed = next_row},
        .at_position = true,
        .names = "token-replaced,-",
    },
    {
        .name = "logits-factor",
        .description = "logits times a factor, first Granite's 1/8",
        .provenance = "github.com/dphnAI/sonar pull 1054 (Granite's logit scale)",
        OUTER_BUG,
        .first_part = RP_PART_LOGITS,
        .ops = {.linear = scaled_logits},
        RP_FACTORS(0.125),
        .names = "constant-factor",
    },
    {
        .name = "logits-softcap",
        .description = "logits capped as in Gemma 2, which the model does not do",
        .provenance = "github.com/ggml-org/llama.cpp pull 8197 (the final cap missing, the other "
                      "way round)",
        OUTER_BUG,
        .first_part = RP_PART_LOGITS,
        .ops = {.linear = capped_logits},
        RP_MAGNITUDES(2, 10, 30, 100, 500, 3000, 1e6),
        .names = "logits-softcap",
    },
    {
        .name = "logits-softcap-missing",
        .description = "Gemma 2's logits are not capped",
        .provenance = "github.com/ggml-org/llama.cpp pull 8197 (the final cap missing)",
        .layers = RP_BUG_IN_NO_LAYER,
        RP_BOTH_MODES,
        .architectures = "gemma2",
        .first_part = RP_PART_LOGITS,
        .ops = {.linear = uncapped_logits},
        .names = "logits-softcap",
    },
};

const struct rp_bug_family rp_token_bugs = RP_FAMILY(bugs);
