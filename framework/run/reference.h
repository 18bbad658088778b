/* A reference that another engine computed, in HF's place: what its manifest says, and whether it is the
 * one that the matrix asks for. Not for making it: reference_record.h. */
#ifndef REFPARITY_RUN_REFERENCE_H
#define REFPARITY_RUN_REFERENCE_H

#include <stdbool.h>

#include "base/json.h"
#include "run/context.h"

/* How it was made: "reference" of a fixture's manifest. */
struct rp_reference_origin {
    char engine[RP_MATRIX_NAME_MAX + 1]; /* its name in the matrix */
    char program[256];                   /* what the dump says of its engine; "": nothing */
    char program_sha256[65];
    char mode[RP_MATRIX_NAME_MAX + 1]; /* "": it has none */
    char model[192];                   /* rp_model_file_id of its file; "": it has none */
    char weights[128]; /* the types of its matrices, the largest share first: "Q4_K, Q6_K, F32" */
    bool is_coarse;    /* some matrix has fewer than 8 bits a value */
    char command[8192];
};

/* The shell command that records the entry's references: `refparity record CONFIG ENTRY`. Returns buf. */
const char *rp_reference_command(const struct rp_context *context, const struct rp_entry *entry,
                                 bool force, char *buf, size_t size);

/* Reads the origin from the fixture's manifest. RP_ERR_FORMAT: there is none, or it is none. */
enum rp_status rp_reference_origin_read(const struct rp_tensor_set *fixture,
                                        struct rp_reference_origin *origin, struct rp_error *err);

/* Adds it to a manifest, as "reference". */
enum rp_status rp_reference_origin_write(const struct rp_reference_origin *origin, cJSON *manifest,
                                         struct rp_error *err);

/* Was the fixture made by the engine of pair's entry, on the file that is at hand? A file that is not at hand
 * is not asked about. RP_ERR_MISMATCH, RP_ERR_FORMAT. */
enum rp_status rp_reference_check(const struct rp_context *context, const struct rp_pair *pair,
                                  const struct rp_tensor_set *fixture, struct rp_error *err);

/* For reports: "llama.cpp 1.2, F32 weights (f32.gguf)", and what its rounding means for the figures; "" where
 * the reference is HF's. Returns buf. */
const char *rp_reference_text(const struct rp_context *context, const struct rp_pair *pair,
                              const struct rp_tensor_set *fixture, char *buf, size_t size);

#endif
