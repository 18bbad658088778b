/* What the readers of a tensor set share. Private: users include refparity/tensor_set.h. */
#ifndef REFPARITY_TENSOR_SET_PRIVATE_H
#define REFPARITY_TENSOR_SET_PRIVATE_H

#include "base/file.h"
#include "refparity/tensor_set.h"
#include "tensor/array.h"
#include "tensor/order.h"
#include "tensor/safetensors.h"
#include "tensor/zip.h"

#define RP_SET_MAX_SLOTS 16384
#define RP_SET_MAX_FILES 500000 /* in a dump folder: 200 slots at 2,500 positions */
#define RP_SET_MAX_POSITIONS ((size_t)1 << 24)
#define RP_SET_MAX_LISTED ((size_t)1 << 25)    /* positions of slots that list their own: 256 MiB */
#define RP_SET_MAX_POSITION ((int64_t)1 << 53) /* exact in JSON */
#define RP_SET_MAX_TOKENS ((size_t)1 << 24)
#define RP_SET_MAX_MANIFEST ((size_t)16 << 20)
#define RP_FILE_NAME_SIZE 256 /* of what a file calls a slot, its NUL included */

struct rp_slot {
    struct rp_slot_info info;          /* its name is "" where file_name can be no slot's */
    char file_name[RP_FILE_NAME_SIZE]; /* what the file calls it, cut to fit */
    int64_t *own_positions;            /* [info.n_positions]; NULL while they are the set's */
    struct rp_rows rows;               /* of all but bin */
    struct rp_rows stack; /* the same as a stack of slots; n_stacked below 2: it is none */
    size_t data_offset;   /* npz: in the member; npy: in the file */
    const struct rp_zip_member *member; /* npz */
    const struct rp_safetensor *tensor; /* safetensors */
    const void *map;                    /* [map_size]: npy: the whole file */
    size_t map_size;
    bool is_borrowed;      /* map is another slot's to unmap */
    struct rp_order order; /* npy: of the values in a row, where dump.json says so */
    int is_single_file;    /* bin: NAME.bin, not NAME_p{pos}.bin */
};

struct rp_orphan {
    const void *map; /* [size] */
    size_t size;
};

struct rp_tensor_set {
    char *path;
    enum rp_layout layout;
    struct rp_slot *slots; /* [n_slots], in forward order once the set is open */
    size_t n_slots, max_slots;
    int64_t *positions; /* [n_positions]: the fixture's; without those 0, 1, 2 ... */
    size_t n_positions;
    int has_positions; /* positions are the fixture's: every slot has to have these */
    int is_foreign;    /* nothing says which positions a slot's rows belong to */
    int64_t *tokens;   /* [n_tokens]; NULL until they are asked for */
    size_t n_tokens;
    char *manifest; /* [n_manifest]; NULL when there is none */
    size_t n_manifest;
    char model[256]; /* "model" of a dump's manifest */
    int n_layers, n_layers_seen, complete;
    size_t n_rows;   /* bin: positions of each plain NAME.bin */
    int last_layer;  /* bin: the last one that has a plain file; -1: none */
    const void *map; /* [map_size]: npz: the whole file */
    size_t map_size;
    struct rp_zip zip; /* npz */
    struct rp_safetensors *safetensors;
    struct rp_tensor_set_options options; /* as they were given */
    const struct rp_zip_member *stack; /* npz: the last stack of slots that was read, its bytes, */
    const uint8_t *stack_bytes;        /* and the memory behind them */
    void *stack_owned;
    struct rp_orphan *orphans; /* [n_orphans]: maps that no slot owns any more */
    size_t n_orphans;
    char **notes; /* [n_notes]: how names and values were read, where that is not as they stand */
    size_t n_notes;
    char **others; /* [n_others]: names of the file that are no slots, and that no slot can have */
    size_t n_others;
    bool
        is_hidden_states; /* named as transformers' hidden_states, which lack the last layer's output */
};

/* The readers: fill a set whose path and layout are known with slots (name, n_positions, dim or
 * error), positions and manifest. Errors as rp_tensor_set_open. */
enum rp_status rp_npz_open(struct rp_tensor_set *set, struct rp_error *err);
enum rp_status rp_npy_folder_open(struct rp_tensor_set *set, struct rp_error *err);
enum rp_status rp_safetensors_set_open(struct rp_tensor_set *set, struct rp_error *err);
enum rp_status rp_bin_folder_open(struct rp_tensor_set *set, struct rp_error *err);

/* Fill tensor->data and tensor->owned of a slot without error. */
enum rp_status rp_npz_load(struct rp_tensor_set *set, const struct rp_slot *slot,
                           struct rp_tensor *tensor, struct rp_error *err);
/* The same of npz's and safetensors' slots, from the bytes of their array. */
enum rp_status rp_rows_load(const struct rp_slot *slot, const uint8_t *data, const char *where,
                            struct rp_tensor *tensor, struct rp_error *err);
enum rp_status rp_bin_folder_load(const struct rp_tensor_set *set, const struct rp_slot *slot,
                                  struct rp_tensor *tensor, struct rp_error *err);

/* Any slot's values, from its layout's reader; its positions are those that info has. */
enum rp_status rp_set_load_slot(struct rp_tensor_set *set, const struct rp_slot *slot,
                                struct rp_tensor *tensor, struct rp_error *err);

/* Fill set->tokens, or leave it NULL when the set has none. */
enum rp_status rp_npz_tokens(struct rp_tensor_set *set, struct rp_error *err);
enum rp_status rp_npy_folder_tokens(struct rp_tensor_set *set, struct rp_error *err);
enum rp_status rp_bin_folder_tokens(struct rp_tensor_set *set, struct rp_error *err);
enum rp_status rp_safetensors_set_tokens(struct rp_tensor_set *set, struct rp_error *err);

/* True for 1 to 63 of A-Z a-z 0-9 _ . -, the first neither '.' nor '-'. */
int rp_slot_is_name(const char *name, size_t n);

/* Appends a slot that the file calls so; *slot is valid until the next one is added. RP_ERR_MEMORY,
 * RP_ERR_UNSUPPORTED. */
enum rp_status rp_set_add_slot(struct rp_tensor_set *set, const char *name, size_t n_name,
                               struct rp_slot **slot, struct rp_error *err);
/* RP_ERR_MEMORY. */
enum rp_status rp_set_note(struct rp_tensor_set *set, struct rp_error *err, const char *fmt, ...)
    RP_PRINTF(3, 4);
/* A value that FP32 does not hold exactly is said, once for all slots. RP_ERR_MEMORY. */
enum rp_status rp_set_note_types(struct rp_tensor_set *set, struct rp_error *err);
/* What is in the file beside slots. */
enum rp_set_array { RP_SET_SLOT, RP_SET_TOKENS, RP_SET_POSITIONS, RP_SET_MANIFEST };
/* What an array of that name, [n], is. */
enum rp_set_array rp_set_array_kind(const struct rp_tensor_set *set, const char *name, size_t n);
/* Of two arrays of one kind the one with refparity's name is read, else the first: found is NULL at first. */
bool rp_set_array_is_better(const char *name, const char *found);
void rp_set_sort(struct rp_tensor_set *set);
struct rp_slot *rp_set_find(const struct rp_tensor_set *set, const char *name); /* when sorted */

/* Takes a slot's rows from its array, of which where is for errors. Errors as rp_array_rows. */
enum rp_status rp_set_slot_rows(struct rp_slot *slot, const struct rp_array *array,
                                const char *where, struct rp_error *err);

/* Checks a whole .npy and takes rows and data_offset from its header: bytes[n] are its first, total
 * is its size. Errors as rp_npy_parse, rp_npy_check and rp_array_rows. */
enum rp_status rp_slot_from_npy(struct rp_slot *slot, const uint8_t *bytes, size_t n,
                                uint64_t total, const char *where, struct rp_error *err);

/* A one-dimensional integer .npy as int64: *values is [*n], heap. where names it in errors. */
enum rp_status rp_set_read_int64(const uint8_t *bytes, size_t size, const char *where, size_t max_n,
                                 int64_t **values, size_t *n, struct rp_error *err);

/* The positions that a file gives: they ascend, from 0 or more. RP_ERR_FORMAT. */
enum rp_status rp_set_check_positions(struct rp_tensor_set *set, struct rp_error *err);

/* Keeps text as the manifest and reads n_layers from it; format is what its "format" has to be.
 * Where json is not NULL, it gets the document, to be freed by the caller. */
struct rp_json;
enum rp_status rp_set_manifest(struct rp_tensor_set *set, const char *text, size_t n,
                               const char *where, const char *format, struct rp_json **json,
                               struct rp_error *err);

#endif
