/* The matrix (matrix.json): which engines run which models on which prompts, and how close they
 * have to come. Parsed and checked as a whole, so that a matrix that loads can be relied on.
 * Not for running anything: see cases/; nor for what a placeholder becomes: matrix/expand.h. */
#ifndef REFPARITY_MATRIX_H
#define REFPARITY_MATRIX_H

#include "refparity/limits.h"
#include "refparity/numerics.h"
#include "refparity/status.h"
#include "refparity/tensor_set.h"

#ifdef __cplusplus
extern "C" {
#endif

#define RP_MATRIX_NAME_MAX 64 /* bytes of an entry's, engine's or mode's name, of a prompt's id */
#define RP_MATRIX_MAX_ENGINES 1000
#define RP_MATRIX_MAX_ENTRIES 10000
#define RP_MATRIX_MAX_ARGUMENTS 1024  /* of argv, of env */
#define RP_MATRIX_MAX_PROMPTS 1000    /* per entry */
#define RP_MATRIX_MAX_MODES 64        /* per entry; of compare_modes likewise */
#define RP_MATRIX_MAX_LAYERS 1024     /* per model */
#define RP_MATRIX_MAX_KNOWN 256       /* known divergences of one entry */
#define RP_MATRIX_MAX_POSITIONS 65536 /* listed by one entry */
#define RP_MATRIX_MAX_PROMPT_BYTES ((size_t)1 << 20)
#define RP_MATRIX_MAX_PROMPT_FILES ((size_t)64 << 20) /* bytes of all prompt files together */
#define RP_PAIR_NAME_SIZE (4 * RP_MATRIX_NAME_MAX + 16)

#define RP_DEFAULT_TIMEOUT_S 600.0

/* Everything below is owned by the matrix and lives until rp_matrix_free. */

struct rp_env {
    const char *name;
    const char *value; /* a template */
};

/* What {slots} asks an engine to dump. */
struct rp_wanted_slots {
    enum rp_slot_level replayed; /* for a pair that is replayed; by default RP_SLOTS_OPERATIONS */
    enum rp_slot_level compared; /* for any other; by default RP_SLOTS_LAYERS */
};

/* How to run an engine. argv and the values of env are templates: see matrix/expand.h. */
struct rp_engine {
    const char *name;
    const char **argv; /* [n_argv], n_argv >= 1 */
    size_t n_argv;
    const struct rp_env *env; /* [n_env], added to the environment; in the order of the file */
    size_t n_env;
    enum rp_layout layout;  /* RP_LAYOUT_NPY or RP_LAYOUT_BIN */
    double timeout_s;       /* of one run, > 0 */
    int processors;         /* that one run keeps busy, for ctest's scheduler; >= 1 */
    int serial;             /* 1: no two runs of this engine at once */
    int single_position;    /* 1: NAME.bin holds the one position that each entry then lists */
    const char *how_to_get; /* one sentence for who has not got this engine; NULL: none */
    int lacks_tokens;       /* 1: declared "tokens": false, it cannot dump token ids */
    int uses_tokens_file;   /* 1: {tokens_file} is in argv or env, so it needs a fixture */
    struct rp_numerics
        numerics; /* activations, kv_cache, attention, state: of entries that say nothing */
    struct rp_wanted_slots slots; /* likewise */
    int line;                     /* of its value in the matrix, from 1 */
    int column;
};

struct rp_prompt {
    const char *id;   /* its "id", or "p<idx>" */
    const char *text; /* [length] bytes of UTF-8 without NUL, then a NUL; length >= 1 */
    size_t length;
    const char *file; /* absolute path it was read from; NULL when the matrix holds the text */
};

/* An end other than exit code 0 that an entry's engine may come to, once its dump is complete. */
struct rp_accepted_exit {
    int code;           /* exit code, 1 to 255; 0: a signal is meant */
    int signal;         /* number; 0: a code is meant */
    const char *reason; /* NULL: no other end is accepted */
};

/* Two modes of an entry to be compared with each other: mode as the engine, against as the
 * reference. */
struct rp_mode_pair {
    const char *mode;
    const char *against;
};

/* A divergence that the engine is known to have: what it fits is XFAIL and not FAIL. See run/known.h. */
struct rp_known {
    const char *slot;     /* a pattern of slots' names, as fnmatch(3) has them: "h*_attn" */
    const char *name;     /* of the hypothesis that has to explain it; NULL: any divergence */
    const char *reason;   /* for people */
    const char *issue;    /* where it is reported, an address say; NULL: nowhere */
    const char **prompts; /* [n_prompts] ids; NULL, 0: of all prompts */
    size_t n_prompts;
    const char *
        *modes; /* [n_modes] modes, or comparisons "x-vs-y"; NULL, 0: all modes, no comparison */
    size_t n_modes;
    int line; /* of it in the matrix, from 1 */
    int column;
};

/* Another engine as the reference, in HF's place. */
struct rp_reference {
    const struct rp_engine *engine; /* NULL: the reference is HF */
    const char *gguf;               /* its weights, as engine_gguf; NULL: none */
    const char *mode;               /* that it runs in; NULL: it has only one */
    const char *how_to_get;         /* one sentence for who has not got that file; NULL: none */
    /* "<engine>-<8 hex digits>", of its command, file, mode and positions: in stores in dtype's place. */
    char folder[RP_MATRIX_NAME_MAX + 16];
};

/* What a job of Slurm asks for, as sbatch's options of these names take it; NULL: what the cluster gives by
 * default. */
struct rp_slurm {
    const char *mem;  /* "64G" */
    const char *gres; /* "gpu:1" */
    const char *time; /* "2:00:00" */
};

/* One row: a model, an engine, limits. */
struct rp_entry {
    const char *name;
    const char *hf_model;
    const char *revision; /* "main" by default */
    const char *dtype;    /* "float32" by default */
    struct rp_reference reference;
    int n_layers;
    const struct rp_engine *engine;
    const char **modes; /* [n_modes]; NULL, 0 when the engine has only one way to run */
    size_t n_modes;
    const char *engine_gguf;         /* as written; NULL when there is none. See rp_entry_gguf */
    const char *how_to_get;          /* one sentence for who has not got that file; NULL: none */
    const struct rp_prompt *prompts; /* [n_prompts], n_prompts >= 1 */
    size_t n_prompts;
    struct rp_limits limits;                  /* threshold_l2_rel and threshold_cosine */
    const struct rp_mode_pair *compare_modes; /* [n_compare_modes]; NULL, 0: none */
    size_t n_compare_modes;
    struct rp_limits modes_limits; /* of compare_modes: threshold_modes_l2_rel, by default limits */
    struct rp_accepted_exit accept_exit;
    struct rp_numerics numerics;  /* the entry's own, else its engine's */
    struct rp_wanted_slots slots; /* likewise */
    enum rp_gate gate;            /* other than strict only with engine_gguf */
    int replay; /* 1: layers are replayed too; only with engine_gguf; by default unless gate is strict */
    const char **replay_modes; /* [n_replay_modes], in these modes alone; NULL, 0: in all */
    size_t n_replay_modes;
    const struct rp_known *known; /* [n_known]; NULL, 0: none */
    size_t n_known;
    const int64_t *positions; /* [n_positions], ascending; NULL, 0 means all */
    size_t n_positions;
    int disabled;                /* its pairs are listed, but are not to be run */
    const char *disabled_reason; /* NULL when the matrix gives none */
    struct rp_slurm slurm;
    const char *note; /* NULL when there is none */
    int line;         /* of the row in the matrix, from 1 */
    int column;
    size_t first_pair; /* index of its first pair */
};

/* An entry and one of its prompts, in one of its modes; or in two of them, to be compared with each
 * other. A copy that the caller owns; what it points to belongs to the matrix. */
struct rp_pair {
    const struct rp_entry *entry;
    const char *mode; /* NULL when the entry has none */
    /* The mode whose dump is the reference; NULL: the reference is the fixture, HF's or an engine's. */
    const char *against;
    const struct rp_prompt *prompt;
    size_t prompt_index;
    size_t index; /* of it among the matrix's pairs, as rp_matrix_pair takes it */
    /* "<entry>/<prompt id>" or "<entry>/<mode>/<prompt id>"; a ':' in the mode is a '-' here. The
     * mode of a comparison of two is "<mode>-vs-<against>". */
    char name[RP_PAIR_NAME_SIZE];
    /* "<entry>__p<idx>" or "<entry>__<mode>__p<idx>", for the names of reports. Unique. */
    char report_stem[RP_PAIR_NAME_SIZE];
};

struct rp_matrix;

/* Reads and checks the matrix at path, prompt files included. *matrix is to be freed with
 * rp_matrix_free. Errors carry path:line:column. RP_ERR_FORMAT (not JSON, or not a matrix),
 * RP_ERR_MISSING (a key that has to be there, or a file: the matrix or a prompt), RP_ERR_IO,
 * RP_ERR_MEMORY, RP_ERR_UNSUPPORTED (a file is too long, or not a regular file). */
enum rp_status rp_matrix_load(const char *path, struct rp_matrix **matrix, struct rp_error *err);

/* The same for text[length] already in memory. path names it in errors, and its folder is where
 * prompt files are looked for; nothing has to exist there when no prompt has a file. */
enum rp_status rp_matrix_parse(const char *text, size_t length, const char *path,
                               struct rp_matrix **matrix, struct rp_error *err);

void rp_matrix_free(struct rp_matrix *matrix); /* NULL is allowed */

const char *rp_matrix_path(const struct rp_matrix *matrix); /* as given */

size_t rp_matrix_n_engines(const struct rp_matrix *matrix);
const struct rp_engine *rp_matrix_engine(const struct rp_matrix *matrix, size_t index);
size_t rp_matrix_n_entries(const struct rp_matrix *matrix);
const struct rp_entry *rp_matrix_entry(const struct rp_matrix *matrix, size_t index);
/* NULL when there is no entry of that name. */
const struct rp_entry *rp_matrix_find_entry(const struct rp_matrix *matrix, const char *name);

/* Pairs run in the order of the matrix: by entry, then by mode, then by compare_modes, each by
 * prompt. Those of disabled entries count. index < rp_matrix_n_pairs. */
size_t rp_matrix_n_pairs(const struct rp_matrix *matrix);
void rp_matrix_pair(const struct rp_matrix *matrix, size_t index, struct rp_pair *pair);

/* What the pair's engine computes in: as declared, and for flash attention, whose accumulators depend
 * on it, how many positions it takes at once (see rp_batch_of_mode) and its
 * threads. */
struct rp_numerics rp_pair_numerics(const struct rp_pair *pair);

/* Are the pair's layers replayed? Of a comparison of two modes, never. */
int rp_pair_is_replayed(const struct rp_pair *pair);

/* False where its dump has another use, in a comparison of modes or a replay, and the engine tokenizes the
 * prompt itself: then a fixture that is missing is a SKIP, whatever is required. */
int rp_pair_needs_fixture(const struct rp_pair *pair);

/* Which slots the pair's engine is asked to dump: what {slots} becomes. Not for a comparison of two modes,
 * which runs no engine. */
enum rp_slot_level rp_pair_slots(const struct rp_pair *pair);

/* What is run to make the reference of a pair whose entry has one: a pair of an entry that is as the pair's
 * own, but with the reference's engine, file and mode. *run points to *entry. */
void rp_pair_reference_run(const struct rp_pair *pair, struct rp_entry *entry, struct rp_pair *run);

/* The pair whose dump a comparison of two modes takes: of its own mode, or of the one against. */
void rp_pair_of_mode(const struct rp_pair *comparison, int against, struct rp_pair *pair);

/* mode: as the matrix or as a pair's name spells it; NULL or "" for an entry without modes.
 * RP_ERR_MISSING names what there is instead. */
enum rp_status rp_matrix_find_pair(const struct rp_matrix *matrix, const char *entry,
                                   const char *mode, const char *prompt_id, struct rp_pair *pair,
                                   struct rp_error *err);

const char *rp_gate_name(enum rp_gate gate); /* "strict", "explained" */

/* Finds the entry's engine_gguf: as an absolute path; or below models_dir (the value of
 * REFPARITY_MODELS or its default; NULL or "": none); or relative to the matrix's folder. Writes
 * its path into out[size]. RP_ERR_MISSING says how to get it, and lists where it was looked for; RP_ERR_ARGUMENT: the
 * entry has no engine_gguf, or out is too small. */
enum rp_status rp_entry_gguf(const struct rp_matrix *matrix, const struct rp_entry *entry,
                             const char *models_dir, char *out, size_t size, struct rp_error *err);

#ifdef __cplusplus
}
#endif
#endif
