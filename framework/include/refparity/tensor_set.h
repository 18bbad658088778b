/* A tensor set: what the reference or the engine computed, as slot -> FP32 [n_positions][dim].
 * One reader for files (.npz, .safetensors) and for both dump layouts (a folder of .npy, or of .bin).
 * Not for judging it: see compare.h. */
#ifndef REFPARITY_TENSOR_SET_H
#define REFPARITY_TENSOR_SET_H

#include <stdbool.h>

#include "refparity/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define RP_SLOT_NAME_SIZE 64 /* longest slot name, its NUL included */

enum rp_layout {
    RP_LAYOUT_AUTO, /* a file: by its first bytes; a folder: npy if it holds dump.json or any .npy, else bin */
    RP_LAYOUT_NPZ,
    RP_LAYOUT_SAFETENSORS,
    RP_LAYOUT_NPY, /* folder of NAME.npy, dump.json, tokens.npy; written by refparity/dump.h */
    RP_LAYOUT_BIN  /* folder of NAME.bin (one position, or all) or NAME_p{pos}.bin, raw FP32 LE */
};

/* What is known of a slot without reading its data. Owned by the set. */
struct rp_slot_info {
    char name[RP_SLOT_NAME_SIZE];
    size_t n_positions;
    size_t dim;
    const int64_t *positions; /* [n_positions], strictly ascending */
    /* RP_OK, or why this slot cannot be read (a short file, a wrong dtype …): such a slot does not
     * keep the others from being read. rp_tensor_load returns the same error. */
    struct rp_error error;
};

/* A slot's data, ready to read. data may be unaligned (npz members are): read it with memcpy, or
 * with what metrics.h offers. Row i belongs to position positions[i]. */
struct rp_tensor {
    const void *data; /* FP32 little-endian [n_positions][dim] */
    size_t n_positions;
    size_t dim;
    const int64_t *positions; /* [n_positions]; owned by the set */
    void *owned;              /* private: heap memory behind data, NULL when it is mapped */
};

struct rp_tensor_set;

/* Opens path and reads the list of its slots, not their data.
 * single_position: for RP_LAYOUT_BIN, the position that a plain NAME.bin holds (0 in the field's
 * scripts); ignored otherwise.
 * Errors of the whole set only: RP_ERR_MISSING (nothing there), RP_ERR_IO, RP_ERR_FORMAT,
 * RP_ERR_UNSUPPORTED, RP_ERR_MEMORY. On success *set is to be closed with rp_tensor_set_close. */
enum rp_status rp_tensor_set_open(const char *path, enum rp_layout layout, int64_t single_position,
                                  struct rp_tensor_set **set, struct rp_error *err);
void rp_tensor_set_close(struct rp_tensor_set *set); /* NULL is allowed */

struct rp_names; /* tensor/names.h */

/* How to read what says too little of itself. */
struct rp_tensor_set_options {
    enum rp_layout layout;
    /* Of slots that hold one row while nothing says of which position: that position. -1: not known, then 0,
     * and an error where there are more token ids than that. */
    int64_t single_position;
    bool with_aliases; /* names of other recorders are read as slots, where it is clear which */
    struct rp_names
        *names; /* which names are which slots, in the place of those aliases; NULL: none */
    /* Of RP_LAYOUT_BIN. A plain NAME.bin holds n_rows positions; 0: as many as rows of hidden states of width
     * values fit into it, or of n_logits into logits.bin. Where those are not known (0) either: one. */
    size_t n_rows, width, n_logits;
};
/* The same, as options say. */
enum rp_status rp_tensor_set_open_with(const char *path,
                                       const struct rp_tensor_set_options *options,
                                       struct rp_tensor_set **set, struct rp_error *err);
/* What was read otherwise than it stands in the file, a sentence each: "hidden_states.1 is read as h0". */
size_t rp_tensor_set_n_notes(const struct rp_tensor_set *set);
const char *rp_tensor_set_note(const struct rp_tensor_set *set, size_t index);
/* Names of the file that no slot can have, beside the slots that refparity does not know. */
size_t rp_tensor_set_n_others(const struct rp_tensor_set *set);
const char *rp_tensor_set_other(const struct rp_tensor_set *set, size_t index);
/* Are its names those of transformers' hidden_states? They lack the last layer's own output. */
bool rp_tensor_set_lacks_last_layer(const struct rp_tensor_set *set);

const char *rp_tensor_set_path(const struct rp_tensor_set *set);
enum rp_layout rp_tensor_set_layout(const struct rp_tensor_set *set); /* never RP_LAYOUT_AUTO */

/* Slots in forward order (emb, h0_in, h0_preattn … h0, h1_in … post_norm, logits: see RP_LAYER_SLOTS),
 * then slots that refparity does not know, by name. */
size_t rp_tensor_set_n_slots(const struct rp_tensor_set *set);
const struct rp_slot_info *rp_tensor_set_slot(const struct rp_tensor_set *set, size_t index);
/* NULL when the set has no such slot. */
const struct rp_slot_info *rp_tensor_set_find(const struct rp_tensor_set *set, const char *slot);

/* The prompt's token ids: *ids is [*n], owned by the set. *ids = NULL, *n = 0 when the set carries
 * none (a valid state: many engines write none). */
enum rp_status rp_tensor_set_tokens(const struct rp_tensor_set *set, const int64_t **ids, size_t *n,
                                    struct rp_error *err);

/* JSON text of how the set was made: the fixture's manifest, or the dump's dump.json. NULL, 0 when
 * it carries none. Not NUL-terminated. Owned by the set. */
const char *rp_tensor_set_manifest(const struct rp_tensor_set *set, size_t *length);

/* What the dump says of the model file that the engine read, rp_dump_model's text; "" where it says
 * nothing. */
const char *rp_tensor_set_model(const struct rp_tensor_set *set);

/* Number of layers that the manifest declares; -1 when it declares none. */
int rp_tensor_set_n_layers(const struct rp_tensor_set *set);
/* One more than the largest l of any slot named h{l}; 0 when there is none. */
int rp_tensor_set_n_layers_seen(const struct rp_tensor_set *set);

/* False when an npy dump's dump.json says that the engine did not finish (it has to call
 * rp_dump_close), true otherwise: the other layouts cannot tell. */
int rp_tensor_set_complete(const struct rp_tensor_set *set);

/* Makes slot's data readable, its values in HF's order: rows of a dump whose dump.json says that they
 * have another are turned, and what belongs to a position's chosen experts is put in the order of
 * their numbers. Checks an npz member's CRC. RP_ERR_MISSING when the set lacks it.
 * Release with rp_tensor_release (also allowed on a zeroed tensor). */
enum rp_status rp_tensor_load(struct rp_tensor_set *set, const char *slot, struct rp_tensor *tensor,
                              struct rp_error *err);
/* The row of position, [dim] FP32 that need not be aligned; NULL where there is none. */
const void *rp_tensor_row(const struct rp_tensor *tensor, int64_t position);
void rp_tensor_release(struct rp_tensor *tensor);

/* ---- slot names ---- */

/* What a slot holds, in forward order: the one list of slots. Each is [n_positions][dim], its values in
 * the order of HF's modules. Which of them a model has, and what computes each, is its architecture's
 * table. X(constant, suffix): of a layer, "h{l}" and the suffix; else the whole name. */
/* clang-format off */
#define RP_LAYER_SLOTS(X)                                                                               \
    X(RP_PART_IN, "_in")                     /* the residual stream that enters the layer */            \
    X(RP_PART_PREATTN, "_preattn")           /* the norm before the token mixer */                      \
    X(RP_PART_QA, "_qa")                     /* MLA: q_a_proj */                                        \
    X(RP_PART_QANORM, "_qanorm")             /* MLA: its norm, what q_b_proj reads */                   \
    X(RP_PART_KVA, "_kva")                   /* MLA: kv_a_proj_with_mqa: latent, rotated key */         \
    X(RP_PART_KVANORM, "_kvanorm")           /* MLA: the latent's norm, what kv_b_proj reads */         \
    X(RP_PART_KVB, "_kvb")                   /* MLA, not absorbed: kv_b_proj; key, value */             \
    X(RP_PART_Q, "_q")                       /* projections, bias included */                           \
    X(RP_PART_K, "_k")                                                                                  \
    X(RP_PART_V, "_v")                                                                                  \
    X(RP_PART_QNORM, "_qnorm")               /* QK-norm */                                              \
    X(RP_PART_KNORM, "_knorm")                                                                          \
    X(RP_PART_QROPE, "_qrope")               /* after rotation: what attention reads, and the cache */  \
    X(RP_PART_KROPE, "_krope")                                                                          \
    X(RP_PART_QABSORBED, "_qabsorbed")       /* MLA, absorbed: queries of the latent */                 \
    X(RP_PART_LATENT, "_latent")             /* MLA, absorbed: weighted latents */                      \
    X(RP_PART_ATTN, "_attn")                 /* weighted values, heads side by side */                  \
    X(RP_PART_QKV, "_qkv")                   /* gated DeltaNet: in_proj_qkv */                          \
    X(RP_PART_A, "_a")                       /* gated DeltaNet: in_proj_a */                            \
    X(RP_PART_B, "_b")                       /* gated DeltaNet: in_proj_b */                            \
    X(RP_PART_CONV, "_conv")                 /* after the convolution and its SiLU */                   \
    X(RP_PART_DECAY, "_decay")               /* the logarithm of the decay: HF's g */                   \
    X(RP_PART_BETA, "_beta")                 /* sigmoid of _b */                                        \
    X(RP_PART_DELTA, "_delta")               /* the delta rule's output */                              \
    X(RP_PART_Z, "_z")                       /* what gates the mixer's output, before its activation */ \
    X(RP_PART_MIX, "_mix")                   /* what the output projection reads, where not _attn */    \
    X(RP_PART_ATTNOUT, "_attnout")           /* the output projection, before its residual add */       \
    X(RP_PART_ATTNNORM, "_attnnorm")         /* a norm of that, where there is one: what is added */    \
    X(RP_PART_POSTATTN, "_postattn")         /* after that residual add */                              \
    X(RP_PART_PREFFN, "_preffn")             /* the norm before the FFN */                              \
    X(RP_PART_ROUTER, "_router")             /* experts: the router's logits, bias included */          \
    X(RP_PART_EXPERTS, "_experts")           /* the chosen experts' numbers, [n_chosen] */              \
    X(RP_PART_EXPERTW, "_expertw")           /* what their outputs are multiplied by, [n_chosen] */     \
    X(RP_PART_GATE, "_gate")                 /* the FFN's products; of experts [n_chosen][dim] */       \
    X(RP_PART_UP, "_up")                                                                                \
    X(RP_PART_ACT, "_act")                   /* what the FFN's down projection reads */                 \
    X(RP_PART_MOE, "_moe")                   /* experts' weighted sum, where not _ffnout */             \
    X(RP_PART_SHAREDROUTER, "_sharedrouter") /* the shared expert's gate before its sigmoid */          \
    X(RP_PART_SHAREDGATE, "_sharedgate")     /* the shared expert's products */                         \
    X(RP_PART_SHAREDUP, "_sharedup")                                                                    \
    X(RP_PART_SHAREDACT, "_sharedact")                                                                  \
    X(RP_PART_SHAREDOUT, "_sharedout")       /* its down projection */                                  \
    X(RP_PART_FFNOUT, "_ffnout")             /* the FFN's output, before its residual add */            \
    X(RP_PART_FFNNORM, "_ffnnorm")           /* a norm of that, where there is one: what is added */    \
    X(RP_PART_OUTPUT, "")                    /* the layer's output, h{l} itself */

enum rp_slot_part {
    RP_PART_EMB, /* embeddings, scaled where the architecture scales */
#define RP_SLOT_CONSTANT(constant, suffix) constant,
    RP_LAYER_SLOTS(RP_SLOT_CONSTANT)
#undef RP_SLOT_CONSTANT
    RP_PART_POST_NORM,
    RP_PART_LOGITS,
    RP_PART_OTHER /* a name that refparity does not know */
};
/* clang-format on */
enum { RP_N_LAYER_PARTS = RP_PART_OUTPUT - RP_PART_IN + 1 };

/* Splits a slot's name; *layer is -1 where the part belongs to no layer. "h007" and "h7_x" are
 * RP_PART_OTHER. */
enum rp_slot_part rp_slot_parse(const char *slot, int *layer);
/* Writes the name into out[RP_SLOT_NAME_SIZE] and returns out. */
char *rp_slot_name(enum rp_slot_part part, int layer, char *out);
/* Order of execution: negative, 0, positive as for strcmp; unknown names come last, by name. */
int rp_slot_order(const char *a, const char *b);
/* emb, h{l}, post_norm and logits: the slots that fail a test. The others are evidence for it. */
int rp_slot_is_required(const char *slot);

/* Which of a model's slots an engine dumps. */
enum rp_slot_level {
    RP_SLOTS_LAYERS, /* emb, post_norm, logits; of a layer _in, _postattn, _preffn, _ffnout, output */
    RP_SLOTS_OPERATIONS /* every one: what each operation reads and writes */
};
bool rp_slot_level_has(enum rp_slot_level level, enum rp_slot_part part);
/* "layers", "operations": as the matrix and command lines spell them. */
const char *rp_slot_level_name(enum rp_slot_level level);
/* RP_ERR_ARGUMENT names what there is; *out is then untouched. */
enum rp_status rp_slot_level_parse(const char *name, enum rp_slot_level *out, struct rp_error *err);

/* Writes the name of a model's required slot number index, in forward order, into
 * out[RP_SLOT_NAME_SIZE] and returns out; NULL where there are no more: there are n_layers + 3. */
char *rp_required_slot(int n_layers, size_t index, char *out);

#ifdef __cplusplus
}
#endif
#endif
