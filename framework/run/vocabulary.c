/* See vocabulary.h. */
#include "run/vocabulary.h"

#include <stdlib.h>
#include <string.h>

/* As ggml numbers token types. */
enum { TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4, TYPE_BYTE = 6 };

static enum rp_piece_kind kind_of(int64_t type)
{
    if (type == TYPE_CONTROL || type == TYPE_USER_DEFINED)
        return RP_PIECE_SPECIAL;
    return type == TYPE_BYTE ? RP_PIECE_BYTE : RP_PIECE_TEXT;
}

static int64_t id_at(const struct rp_gguf *gguf, const char *key)
{
    int64_t id = -1;
    rp_gguf_get_int(gguf, key, 0, INT32_MAX, &id, NULL);
    return id;
}

enum rp_status rp_gguf_vocabulary_open(const char *path, struct rp_gguf_vocabulary *out,
                                       struct rp_error *err)
{
    struct rp_gguf_string *texts = NULL, model = {"", 0};
    int64_t *types = NULL;
    size_t n = 0, n_types = 0;
    struct rp_piece *pieces = NULL;
    memset(out, 0, sizeof *out);
    enum rp_status status = rp_gguf_open(path, &out->gguf, err);
    if (status)
        return status;
    status = rp_gguf_get_strings(out->gguf, "tokenizer.ggml.tokens", &texts, &n, err);
    if (status)
        goto done;
    pieces = calloc(n + 1, sizeof *pieces);
    if (!pieces) {
        status = rp_fail(err, RP_ERR_MEMORY, path, -1, "cannot allocate %zu pieces", n);
        goto done;
    }
    /* without types every piece is text, as ggml reads such a file */
    rp_gguf_get_ints(out->gguf, "tokenizer.ggml.token_type", &types, &n_types, NULL);
    for (size_t i = 0; i < n; i++)
        pieces[i] = (struct rp_piece){texts[i].data, texts[i].length,
                                      i < n_types ? kind_of(types[i]) : RP_PIECE_TEXT};
    rp_gguf_get_string(out->gguf, "tokenizer.ggml.model", &model, NULL);
    const int is_byte_level = model.length == 4 && memcmp(model.data, "gpt2", 4) == 0;
    out->vocabulary = (struct rp_vocabulary){
        .pieces = pieces,
        .n = n,
        .spelling = is_byte_level ? RP_SPELLING_BYTE_LEVEL : RP_SPELLING_SENTENCEPIECE,
        .bos = id_at(out->gguf, "tokenizer.ggml.bos_token_id"),
        .eos = id_at(out->gguf, "tokenizer.ggml.eos_token_id")};
done:
    free(texts);
    free(types);
    if (status)
        rp_gguf_vocabulary_close(out);
    return status;
}

void rp_gguf_vocabulary_close(struct rp_gguf_vocabulary *vocabulary)
{
    free((void *)vocabulary->vocabulary.pieces);
    rp_gguf_close(vocabulary->gguf);
    memset(vocabulary, 0, sizeof *vocabulary);
}
