/* Where the fixture of (hf_model, revision, dtype, prompt) lies below a store's root.
 * The recorder in Python computes the same path; fixtures/store_path_cases.json holds both to it.
 * Not for looking into stores. */
#ifndef REFPARITY_MATRIX_STORE_H
#define REFPARITY_MATRIX_STORE_H

#include "refparity/status.h"

#define RP_STORE_SLUG_MAX 32

/* Writes "<hf_model>/<revision>/<dtype>/<slug>-<hash>.npz" into out[size]: "/" in hf_model becomes
 * "--", other bytes outside [A-Za-z0-9._-] in hf_model and revision become "_"; slug is the
 * readable start of prompt[length], hash the first 8 hex digits of its sha256.
 * RP_ERR_ARGUMENT: out is too small, or hf_model or revision is empty, "." or "..". */
enum rp_status rp_store_path(const char *hf_model, const char *revision, const char *dtype,
                             const char *prompt, size_t length, char *out, size_t size,
                             struct rp_error *err);

/* Where the sketch of (hf_model, revision) lies, "<hf_model>/<revision>/sketch.safetensors". Errors as above. */
enum rp_status rp_store_sketch_path(const char *hf_model, const char *revision, char *out,
                                    size_t size, struct rp_error *err);

#endif
