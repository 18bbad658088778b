/* What the parts of the matrix's parser share. Not for use outside framework/matrix. */
#ifndef REFPARITY_MATRIX_PARSE_H
#define REFPARITY_MATRIX_PARSE_H

#include "base/json.h"
#include "refparity/matrix.h"

/* A prompt file, read once however many entries name it. */
struct rp_prompt_file {
    char *path; /* absolute, without symbolic links */
    char *text; /* [length] and a NUL */
    size_t length;
    struct rp_prompt_file *next;
};

struct rp_matrix {
    char *path;
    char *folder;         /* absolute; may not exist */
    struct rp_json *json; /* owns nearly all strings below */
    struct rp_engine *engines;
    size_t n_engines;
    const struct rp_engine *default_engine; /* of entries that name none; NULL: there is none */
    struct rp_entry *entries;
    size_t n_entries;
    size_t n_pairs;
    struct rp_prompt_file *files;
    size_t file_bytes; /* of all files */
};

/* Each fills one element of engines or entries from its JSON value. After an error, what the
 * element already owns is still released by rp_matrix_free. */
enum rp_status rp_parse_engine(struct rp_matrix *matrix, const cJSON *value,
                               struct rp_engine *engine, struct rp_error *err);
enum rp_status rp_parse_entry(struct rp_matrix *matrix, const cJSON *value, struct rp_entry *entry,
                              struct rp_error *err);
/* Fills entry->prompts from the value of "prompts". */
enum rp_status rp_parse_prompts(struct rp_matrix *matrix, const cJSON *value,
                                struct rp_entry *entry, struct rp_error *err);

#define RP_HOW_TO_ADD_AN_ENGINE                                                                 \
    "what there is to run: \"engines\": {\"NAME\": {\"argv\": [\"{env:PROGRAM}\", \"{gguf}\", " \
    "\"{prompt}\", \"{dump}\"], \"layout\": \"bin\"}}"

/* The engine that the string value names. */
enum rp_status rp_find_engine(struct rp_matrix *matrix, const cJSON *value,
                              const struct rp_engine **engine, struct rp_error *err);
/* Fills modes of an entry whose engine is known. */
enum rp_status rp_parse_modes(struct rp_matrix *matrix, const cJSON *object, struct rp_entry *entry,
                              struct rp_error *err);
/* Fills compare_modes, modes_limits and accept_exit of an entry whose modes and limits are read. */
enum rp_status rp_parse_compare_modes(struct rp_matrix *matrix, const cJSON *object,
                                      struct rp_entry *entry, struct rp_error *err);
enum rp_status rp_parse_accept_exit(struct rp_matrix *matrix, const cJSON *object,
                                    struct rp_entry *entry, struct rp_error *err);

/* activations, kv_cache, attention and state of an engine or an entry; numerics keeps what they do not say. */
enum rp_status rp_parse_numerics(struct rp_matrix *matrix, const cJSON *object,
                                 struct rp_numerics *numerics, struct rp_error *err);
/* slots of an engine or an entry, whose engine's argv and env are read; slots keeps what it does not say. */
enum rp_status rp_parse_slots(struct rp_matrix *matrix, const cJSON *object,
                              const struct rp_engine *engine, struct rp_wanted_slots *slots,
                              struct rp_error *err);
/* Fills reference of an entry of which all else is read. */
enum rp_status rp_parse_reference(struct rp_matrix *matrix, const cJSON *object,
                                  struct rp_entry *entry, struct rp_error *err);
/* Fills slurm of an entry. */
enum rp_status rp_parse_slurm(struct rp_matrix *matrix, const cJSON *object, struct rp_entry *entry,
                              struct rp_error *err);
/* Fills numerics, slots, gate and replay of an entry whose engine and engine_gguf are read. */
enum rp_status rp_parse_gate(struct rp_matrix *matrix, const cJSON *object, struct rp_entry *entry,
                             struct rp_error *err);

/* Fills known of an entry of which all else is read. */
enum rp_status rp_parse_known(struct rp_matrix *matrix, const cJSON *object, struct rp_entry *entry,
                              struct rp_error *err);

/* The limits of key in an entry: a number, or a number per slot, which have to be released. limits
 * keeps its values when there is no such key. */
enum rp_status rp_parse_l2_rel_limits(struct rp_matrix *matrix, const cJSON *object,
                                      const char *key, const struct rp_entry *entry,
                                      struct rp_limits *limits, struct rp_error *err);

/* Does argv or env of the engine use {placeholder}? */
int rp_engine_uses(const struct rp_engine *engine, const char *placeholder);

/* n zeroed elements, also for n = 0; NULL after filling in err. */
void *rp_matrix_alloc(size_t n, size_t size, struct rp_error *err);

#define RP_MODE_PUNCTUATION ":" /* that modes may have beside what names have */
/* mode as names of tests and files have it, in out[RP_MATRIX_NAME_MAX + 1]; returns out. */
char *rp_mode_in_names(const char *mode, char *out);
#define RP_COMPARED_MODES_SIZE (2 * RP_MATRIX_NAME_MAX + sizeof "-vs-")
/* "<mode>-vs-<against>", in out[RP_COMPARED_MODES_SIZE]; returns out. */
char *rp_compared_modes_in_names(const struct rp_mode_pair *compared, char *out);

#endif
