/* The steps of latent attention that are no product, norm, rotation or attention: what those read is put together of
 * parts of each head. Not for the rest of a layer: that is forward.c. */
#include <string.h>

#include "model/pass.h"

/* Of attn_k_b the parts of a query that are not rotated, else whole heads. */
enum rp_status rp_run_head_linear(struct rp_pass *pass, const struct rp_step *step)
{
    const struct rp_model_config *config = pass->site.config;
    const struct rp_weight *weight = &pass->layer->weights[step->which];
    struct rp_head_linear args = {
        .which = step->which,
        .type = weight->type,
        .weight = weight->data,
        .loaded = weight,
        .n_heads = config->n_heads,
        .n_out = weight->n_out / config->n_heads,
        .n_in = weight->n_in,
        .x = pass->buffers[step->in],
        .x_head_stride = rp_buffer_width(config, step->in) / config->n_heads,
        .y = pass->buffers[step->out],
    };
    return pass->ops->head_linear(pass->ops->context, &pass->site, &args);
}

/* Copies a part of each head: n values of x [n_positions][n_heads][x_stride] into y
 * [n_positions][n_heads][y_stride]; of a part that all heads share x_stride is 0, and its rows are x_row apart. */
struct part {
    const float *x;
    size_t x_row, x_stride;
    float *y;
    size_t y_stride, n;
};

static void copy_part(const struct rp_pass *pass, size_t n_heads, struct part part)
{
    for (size_t p = 0; p < pass->site.n_positions; p++)
        for (size_t head = 0; head < n_heads; head++)
            memcpy(part.y + (p * n_heads + head) * part.y_stride,
                   part.x + p * part.x_row + head * part.x_stride, part.n * sizeof *part.x);
}

enum rp_status rp_run_split_latent(struct rp_pass *pass)
{
    const struct rp_model_config *config = pass->site.config;
    const float *x = pass->buffers[RP_BUFFER_KV_A];
    const size_t row = rp_buffer_width(config, RP_BUFFER_KV_A), rank = config->kv_lora_rank;
    copy_part(pass, 1, (struct part){x, row, 0, pass->buffers[RP_BUFFER_KV_LATENT], rank, rank});
    copy_part(pass, 1,
              (struct part){x + rank, row, 0, pass->buffers[RP_BUFFER_K_ROPE], config->n_rot,
                            config->n_rot});
    return RP_OK;
}

enum rp_status rp_run_join_query(struct rp_pass *pass)
{
    const struct rp_model_config *config = pass->site.config;
    const size_t n_heads = config->n_heads, rank = config->kv_lora_rank, n_rot = config->n_rot;
    const size_t own = config->nope_dim + n_rot;
    float *y = pass->buffers[RP_BUFFER_Q];
    copy_part(pass, n_heads,
              (struct part){pass->buffers[RP_BUFFER_Q_ABSORBED], n_heads * rank, rank, y,
                            config->head_dim, rank});
    copy_part(pass, n_heads,
              (struct part){pass->buffers[RP_BUFFER_MLA_Q] + config->nope_dim, n_heads * own, own,
                            y + rank, config->head_dim, n_rot});
    return RP_OK;
}

/* V is padded with zeros to K's width, and so is what attention makes of it. */
enum rp_status rp_run_join_key(struct rp_pass *pass, const struct rp_step *step)
{
    const struct rp_model_config *config = pass->site.config;
    const size_t n_heads = config->n_kv_heads, dim = config->head_dim, n_rot = config->n_rot;
    const size_t row = rp_buffer_width(config, step->in), each = row / n_heads;
    const size_t n_key = dim - n_rot, n_value = config->is_absorbed ? n_key : config->v_head_dim;
    const float *x = pass->buffers[step->in];
    float *k = pass->buffers[RP_BUFFER_K], *v = pass->buffers[RP_BUFFER_V];
    memset(v, 0, pass->site.n_positions * n_heads * dim * sizeof *v);
    copy_part(pass, n_heads, (struct part){x, row, each, k, dim, n_key});
    copy_part(pass, n_heads,
              (struct part){pass->buffers[RP_BUFFER_K_ROPE], n_rot, 0, k + n_key, dim, n_rot});
    copy_part(pass, n_heads, (struct part){x + each - n_value, row, each, v, dim, n_value});
    return RP_OK;
}

enum rp_status rp_run_narrow_heads(struct rp_pass *pass, const struct rp_step *step)
{
    const struct rp_model_config *config = pass->site.config;
    const size_t dim = config->head_dim, n_heads = config->n_heads;
    const size_t n = rp_buffer_width(config, step->out) / n_heads;
    copy_part(
        pass, n_heads,
        (struct part){pass->buffers[step->in], n_heads * dim, dim, pass->buffers[step->out], n, n});
    return RP_OK;
}
