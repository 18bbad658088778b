/* Hypotheses about what latent attention has and other attention has not: which part of a query is rotated, what
 * the scores are made of, and the matrices that each head has of its own. RoPE, norms and the scale are in the
 * files of theirs. */
#include <stdlib.h>
#include <string.h>

#include "operations/hypotheses.h"

#define NONE RP_NO_PARAMETER

enum option {
    ROPE_IN_FRONT, /* the first n_rot values of a head */
    ROPE_WHOLE,    /* the whole head, with frequencies for its width */
    NEXT_HEAD,     /* head h has the matrix of head h + 1 */
    PREVIOUS_HEAD,
    REVERSED_HEADS,
    FIRST_HEAD,
    TRANSPOSED,       /* each head's matrix */
    WITHOUT_ROTATED,  /* of a query, in the scores */
    WITHOUT_UNROTATED /* the same */
};

/* ---- which part is rotated ---- */

static enum rp_status rope(void *context, const struct rp_site *site, const struct rp_rope *args)
{
    const struct rp_change *change = context;
    struct rp_rope wrong = *args;
    if (args->first == 0)
        return RP_RUN_BELOW(change, rope, site, args);
    wrong.first = 0;
    if (change->what.option == ROPE_WHOLE) {
        wrong.n_rot = args->head_dim / 2 * 2;
        wrong.freq_factors = NULL;
    }
    return RP_RUN_BELOW(change, rope, site, &wrong);
}

static void install_rope(struct rp_ops *ops)
{
    ops->rope = rope;
}

/* ---- a matrix a head ---- */

static size_t head_of(int option, size_t n_heads, size_t head)
{
    switch (option) {
    case NEXT_HEAD: return (head + 1) % n_heads;
    case PREVIOUS_HEAD: return (head + n_heads - 1) % n_heads;
    case REVERSED_HEADS: return n_heads - 1 - head;
    case FIRST_HEAD: return 0;
    default: return head;
    }
}

/* weight [n_heads][n_out][n_in]: what the engine takes for the one of args. */
static void change_weight(int option, const struct rp_head_linear *args, float *weight)
{
    const size_t n = args->n_out * args->n_in;
    for (size_t head = 0; head < args->n_heads; head++) {
        const float *from = args->weight + head_of(option, args->n_heads, head) * n;
        float *to = weight + head * n;
        if (option != TRANSPOSED)
            memcpy(to, from, n * sizeof *to);
        for (size_t i = 0; i < n && option == TRANSPOSED; i++)
            to[i] = from[i % args->n_out * args->n_in + i / args->n_out];
    }
}

static enum rp_status head_linear(void *context, const struct rp_site *site,
                                  const struct rp_head_linear *args)
{
    const struct rp_change *change = context;
    struct rp_head_linear wrong = *args;
    if (change->what.which != args->which)
        return RP_RUN_BELOW(change, head_linear, site, args);
    const size_t n = args->n_heads * args->n_out * args->n_in;
    float *weight = malloc((n + 1) * sizeof *weight);
    if (!weight)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a copy of '%s'",
                       rp_weight_name(args->which));
    change_weight(change->what.option, args, weight);
    wrong.weight = weight;
    const enum rp_status status = RP_RUN_BELOW(change, head_linear, site, &wrong);
    free(weight);
    return status;
}

static void install_head_linear(struct rp_ops *ops)
{
    ops->head_linear = head_linear;
}

/* ---- what the scores are made of ---- */

static enum rp_status attention(void *context, const struct rp_site *site,
                                const struct rp_attention *args)
{
    const struct rp_change *change = context;
    const size_t n_heads = site->n_positions * args->n_heads, dim = args->head_dim;
    const size_t n_rot = site->config->n_rot;
    const bool is_rotated = change->what.option == WITHOUT_ROTATED;
    struct rp_attention wrong = *args;
    float *q = malloc((n_heads * dim + 1) * sizeof *q);
    if (!q)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for attention's queries");
    memcpy(q, args->q, n_heads * dim * sizeof *q);
    for (size_t i = 0; i < n_heads; i++)
        memset(q + i * dim + (is_rotated ? dim - n_rot : 0), 0,
               (is_rotated ? n_rot : dim - n_rot) * sizeof *q);
    wrong.q = q;
    const enum rp_status status = RP_RUN_BELOW(change, attention, site, &wrong);
    free(q);
    return status;
}

static void install_attention(struct rp_ops *ops)
{
    ops->attention = attention;
}

/* ---- what is tried ---- */

static void collect_head_matrices(struct rp_search *search, enum rp_weight_id which)
{
    static const struct {
        const char *name;
        enum option option;
        const char *text;
    } tried[] = {
        {"weights-transposed", TRANSPOSED, "each head's matrix of %s transposed"},
        {"weights-heads", NEXT_HEAD, "heads read the next head's matrix of %s"},
        {"weights-heads", PREVIOUS_HEAD, "heads read the previous head's matrix of %s"},
        {"weights-heads", REVERSED_HEADS, "heads read the matrices of %s in reverse order"},
        {"weights-heads", FIRST_HEAD, "every head reads the first head's matrix of %s"},
    };
    if (!rp_search_has_step(search, RP_STEP_HEAD_LINEAR, which))
        return;
    for (size_t i = 0; i < sizeof tried / sizeof *tried; i++) {
        struct rp_candidate candidate =
            rp_candidate_make(tried[i].name, install_head_linear, (int)tried[i].option, which);
        candidate.is_everywhere = true;
        rp_search_add(search, candidate, tried[i].text, rp_weight_name(which));
    }
}

void rp_collect_latents(struct rp_search *search)
{
    static const struct rp_hypothesis rotations[] = {
        {"rope-on-nope-part", ROPE_IN_FRONT, NONE,
         "RoPE rotates the first values of each head; the model the last ones"},
        {"rope-on-nope-part", ROPE_WHOLE, NONE,
         "RoPE rotates whole heads; the model their last values"},
    };
    static const struct rp_hypothesis scores[] = {
        {"attention-parts", WITHOUT_ROTATED, NONE,
         "scores are of the latents alone, without the rotated parts"},
        {"attention-parts", WITHOUT_UNROTATED, NONE,
         "scores are of the rotated parts alone, without the latents"},
    };
    if (search->config->kv_lora_rank == 0)
        return;
    if (rp_search_has_step(search, RP_STEP_ROPE, RP_ATTN_Q))
        RP_ADD_ALL(search, RP_STEP_ROPE, install_rope, rotations);
    RP_ADD_ALL(search, RP_STEP_ATTENTION, install_attention, scores);
    collect_head_matrices(search, RP_ATTN_K_B);
    collect_head_matrices(search, RP_ATTN_V_B);
}
