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

/* Does argv or env of the engine use {placeholder}? */
int rp_engine_uses(const struct rp_engine *engine, const char *placeholder);

/* n zeroed elements, also for n = 0; NULL after filling in err. */
void *rp_matrix_alloc(size_t n, size_t size, struct rp_error *err);

#define RP_MODE_PUNCTUATION ":" /* that modes may have beside what names have */
/* mode as names of tests and files have it, in out[RP_MATRIX_NAME_MAX + 1]; returns out. */
char *rp_mode_in_names(const char *mode, char *out);

#endif
