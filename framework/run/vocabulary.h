/* The vocabulary of a GGUF, for messages about tokens (diagnose/tokens.h). Not a tokenizer. */
#ifndef REFPARITY_RUN_VOCABULARY_H
#define REFPARITY_RUN_VOCABULARY_H

#include "diagnose/tokens.h"
#include "refparity/gguf.h"

struct rp_gguf_vocabulary {
    struct rp_vocabulary vocabulary;
    struct rp_gguf *gguf; /* private: holds the pieces' bytes */
};

/* Reads tokenizer.ggml.tokens, .token_type, .model, .bos_token_id, .eos_token_id. *out is to be
 * closed on success. RP_ERR_MISSING: no such file, or it has no tokens. */
enum rp_status rp_gguf_vocabulary_open(const char *path, struct rp_gguf_vocabulary *out,
                                       struct rp_error *err);
void rp_gguf_vocabulary_close(struct rp_gguf_vocabulary *vocabulary);

#endif
