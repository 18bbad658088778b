/* One call of rp_layer_forward, for the files of this folder that run its steps. */
#ifndef REFPARITY_MODEL_PASS_H
#define REFPARITY_MODEL_PASS_H

#include "model/model_internal.h"

struct rp_pass {
    const struct rp_forward *forward;
    const struct rp_ops *ops;
    const struct rp_layer *layer;
    struct rp_layer_state *state;
    struct rp_site site;
    float *buffers[RP_N_BUFFERS]; /* [n_positions][rp_buffer_width] each */
    float *scores;                /* [n_used + n_positions] */
};

/* The steps of a mixture of experts. */
enum rp_status rp_run_choose_experts(struct rp_pass *pass, const struct rp_step *step);
enum rp_status rp_run_weigh_experts(struct rp_pass *pass, const struct rp_step *step);
enum rp_status rp_run_experts_linear(struct rp_pass *pass, const struct rp_step *step);
enum rp_status rp_run_sum_experts(struct rp_pass *pass, const struct rp_step *step);
enum rp_status rp_run_add_shared(struct rp_pass *pass, const struct rp_step *step);

/* The steps of latent attention. */
enum rp_status rp_run_head_linear(struct rp_pass *pass, const struct rp_step *step);
enum rp_status rp_run_split_latent(struct rp_pass *pass);
enum rp_status rp_run_join_query(struct rp_pass *pass);
enum rp_status rp_run_join_key(struct rp_pass *pass, const struct rp_step *step);
enum rp_status rp_run_narrow_heads(struct rp_pass *pass, const struct rp_step *step);

#endif
