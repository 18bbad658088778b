/* A decoder-only transformer in plain FP32, from a GGUF file or an HF checkpoint, one layer in memory at a time.
 * It is what an engine is held against, so it favours being checkable over being fast.
 * Architectures: those of architectures/. Not a tokenizer, and it samples nothing. */
#ifndef REFPARITY_MODEL_H
#define REFPARITY_MODEL_H

#include "refparity/gguf.h"
#include "refparity/ops.h"
#include "refparity/status.h"
#include "refparity/tensor_set.h"

#ifdef __cplusplus
extern "C" {
#endif

struct rp_model;

/* Opens a GGUF, or a checkpoint where path is a folder (config.json and safetensors, as the GGUF that a
 * right converter makes of them), and checks it as a whole: the configuration, and that exactly the tensors which
 * the architecture uses are there, with the shapes that the configuration implies. No weights are
 * decoded yet, except for output_norm and rope's factors. On success *out is to be closed with
 * rp_model_close. Errors: those of rp_gguf_open; RP_ERR_MISSING (a key or tensor),
 * RP_ERR_MISMATCH (two of them contradict each other), RP_ERR_UNSUPPORTED (an architecture, rope
 * scaling or an unused tensor that this model does not compute). A weight of a type that cannot be
 * decoded fails what reads it, not this. */
enum rp_status rp_model_open(const char *path, struct rp_model **out, struct rp_error *err);
/* The same for a caller of layers first to last alone: of a model in several files only the shards that hold them
 * are opened, and the first; another one may be missing. Of such a model there are no other layers and nothing outside
 * them: rp_layer_load and what embeds tokens or makes logits must not be asked for it. */
enum rp_status rp_model_open_layers(const char *path, size_t first, size_t last,
                                    struct rp_model **out, struct rp_error *err);
bool rp_model_has_layer(const struct rp_model *model, size_t layer);
bool rp_model_is_partial(const struct rp_model *model);
void rp_model_close(struct rp_model *model); /* NULL is allowed */

const struct rp_model_config *rp_model_config(const struct rp_model *model);
const struct rp_gguf *rp_model_gguf(const struct rp_model *model);

/* How wide a slot is; 0: the layer has none (layer is ignored outside the layers). */
size_t rp_model_slot_width(const struct rp_model *model, enum rp_slot_part part, size_t layer);

/* ggml's type of the output matrix, which is token_embd where embeddings are tied. */
uint32_t rp_model_output_type(const struct rp_model *model);

/* ---- one layer ---- */

/* Decodes layer's weights; release them with rp_layer_free. A weight of a type that cannot be decoded is
 * NaN, and so is what it is used for: see rp_layer_check_decodable. */
enum rp_status rp_layer_load(const struct rp_model *model, size_t layer, struct rp_layer *weights,
                             struct rp_error *err);
/* RP_ERR_UNSUPPORTED with the first weight of the layer that cannot be decoded. */
enum rp_status rp_layer_check_decodable(const struct rp_model *model, size_t layer,
                                        struct rp_error *err);
/* The weight's tensor (of RP_TOKEN_EMBD and RP_OUTPUT layer is ignored) where its type cannot be decoded;
 * NULL: it can, or there is none. */
const struct rp_gguf_tensor *rp_model_undecodable(const struct rp_model *model, size_t layer,
                                                  enum rp_weight_id which);
void rp_layer_free(struct rp_layer *weights); /* a zeroed one is allowed */
/* What rp_layer_load takes; layer is less than n_layers. */
size_t rp_layer_bytes(const struct rp_model *model, size_t layer);

/* What a layer remembers of earlier positions: its KV cache, or its convolution's last inputs and
 * its recurrent state. */
struct rp_layer_state;

/* An empty state with room for capacity positions; close it with rp_layer_state_close. */
enum rp_status rp_layer_state_open(const struct rp_model *model, size_t layer, size_t capacity,
                                   struct rp_layer_state **out, struct rp_error *err);
void rp_layer_state_close(struct rp_layer_state *state); /* NULL is allowed */

/* Some rows of a slot, as they have just been computed; valid during the call only. A tap may
 * overwrite them: what follows then goes on from its values. */
struct rp_tap {
    const char *slot; /* "emb", "h3_in", …: see RP_LAYER_SLOTS in tensor_set.h */
    enum rp_slot_part part;
    int layer; /* -1: belongs to no layer */
    size_t n_positions;
    const int64_t *positions; /* [n_positions] */
    size_t dim;
    float *rows; /* [n_positions][dim] */
};

/* Anything but RP_OK ends the computation with that status; err is the caller's. */
typedef enum rp_status rp_tap_fn(void *context, const struct rp_tap *tap, struct rp_error *err);

/* How the functions below compute. */
struct rp_forward {
    const struct rp_model *model;
    const struct rp_ops *ops; /* NULL: rp_ops_default() */
    enum rp_mode mode;        /* told to the operations; the arithmetic is the same */
    rp_tap_fn *tap;           /* NULL: none */
    void *tap_context;
    /* Positions of the whole sequence, by which longrope chooses its factors; 0: up to the last of the call. */
    size_t sequence_length;
    /* Of rp_layer_forward: which steps of the layer's plan to run, the others leave their output
     * undefined. NULL: all. See architectures/architecture.h. */
    const unsigned char *steps;
};

/* Runs one layer over n positions (strictly ascending, and later than those in state), and appends
 * them to state. hidden [n][hidden_size] is the layer's input and becomes its output. layer is
 * what operations and taps are told; weights may be another layer's of the same kind. Taps every
 * slot of the layer, its values in HF's order. RP_ERR_ARGUMENT (no room in state, positions that do not
 * ascend, weights or a state of another kind), RP_ERR_MEMORY, or what an operation or the tap returns. */
enum rp_status rp_layer_forward(const struct rp_forward *forward, size_t layer,
                                const struct rp_layer *weights, struct rp_layer_state *state,
                                size_t n, const int64_t *positions, float *hidden,
                                struct rp_error *err);

/* ---- before and after the layers ---- */

/* hidden [n][hidden_size] from tokens[n]; taps emb. RP_ERR_ARGUMENT for an id outside the
 * vocabulary. */
enum rp_status rp_model_embed(const struct rp_forward *forward, size_t n, const int64_t *positions,
                              const int32_t *tokens, float *hidden, struct rp_error *err);
/* In place, hidden [n][hidden_size]; taps post_norm. */
enum rp_status rp_model_final_norm(const struct rp_forward *forward, size_t n,
                                   const int64_t *positions, float *hidden, struct rp_error *err);
/* logits [n][vocab_size] from normed [n][hidden_size], chunk positions (0: all) per linear call;
 * taps logits chunk by chunk. The output matrix is decoded in blocks of rows, once per call. */
enum rp_status rp_model_logits(const struct rp_forward *forward, size_t n, const int64_t *positions,
                               size_t chunk, const float *normed, float *logits,
                               struct rp_error *err);
/* The same for a caller that need not have them all at once: take gets each block of n_out columns from
 * column first, y [n][n_out]. Taps nothing. */
typedef void rp_logits_block_fn(void *context, size_t first, size_t n_out, const float *y);
enum rp_status rp_model_logits_by_block(const struct rp_forward *forward, size_t n,
                                        const int64_t *positions, const float *normed,
                                        rp_logits_block_fn *take, void *context,
                                        struct rp_error *err);

/* ---- everything ---- */

struct rp_run {
    const struct rp_ops *ops; /* NULL: rp_ops_default() */
    const int32_t *tokens;    /* [n_tokens] */
    size_t n_tokens;          /* at least 1 */
    int64_t first_position;   /* of tokens[0]; 0 for a prompt of its own */
    enum rp_mode mode;
    size_t chunk;   /* positions per batch, 0 for all; ignored when per token */
    rp_tap_fn *tap; /* NULL: none */
    void *tap_context;
};

/* Runs the model over the tokens. Layer by layer, also in RP_MODE_PER_TOKEN: each position of a
 * layer reads only that layer's earlier positions, so the results are those of going token by
 * token, and one layer's weights are in memory at a time. Hence all of a slot's rows come before
 * the next slot's. RP_ERR_ARGUMENT for no tokens, an id outside the vocabulary. */
enum rp_status rp_model_run(const struct rp_model *model, const struct rp_run *run,
                            struct rp_error *err);

#ifdef __cplusplus
}
#endif
#endif
