/* What went wrong between two lists of token ids: a truncated prompt, a missing BOS, another merge.
 * Names a tokenizer's fault; never changes a verdict. Not a tokenizer, and it opens no file: the
 * vocabulary is the caller's. */
#ifndef REFPARITY_DIAGNOSE_TOKENS_H
#define REFPARITY_DIAGNOSE_TOKENS_H

#include "refparity/compare.h"

/* How a vocabulary spells bytes in its pieces. */
enum rp_spelling {
    RP_SPELLING_SENTENCEPIECE, /* a space is U+2581, a byte that has no piece of its own is <0xNN> */
    RP_SPELLING_BYTE_LEVEL     /* GPT-2: each byte is a printable character (bytes_to_unicode) */
};

enum rp_piece_kind {
    RP_PIECE_TEXT,
    RP_PIECE_SPECIAL, /* a control token, or one that the user defined: its text is no text */
    RP_PIECE_BYTE     /* one byte, as <0xNN> */
};

struct rp_piece {
    const char *data; /* [length], as the vocabulary spells it */
    size_t length;
    enum rp_piece_kind kind;
};

struct rp_vocabulary {
    const struct rp_piece *pieces; /* [n], by id */
    size_t n;
    enum rp_spelling spelling;
    int64_t bos; /* ids, -1 where there is none */
    int64_t eos;
};

enum rp_token_fault {
    RP_TOKENS_SAME,
    RP_TOKENS_TRUNCATED,     /* the engine's ids are a beginning of the reference's */
    RP_TOKENS_LONGER,        /* the reference's are a beginning of the engine's */
    RP_TOKENS_BOS_MISSING,   /* the reference begins with one more id, a BOS where that is known */
    RP_TOKENS_BOS_EXTRA,     /* the engine does */
    RP_TOKENS_EOS_MISSING,   /* the reference ends with one more, the EOS */
    RP_TOKENS_EOS_EXTRA,     /* the engine does */
    RP_TOKENS_MERGE,         /* the same bytes, cut into other pieces */
    RP_TOKENS_UTF8,          /* a character is cut into bytes, or its bytes are wrong */
    RP_TOKENS_SPACE_MISSING, /* the engine's text lacks a space there */
    RP_TOKENS_SPACE_EXTRA,   /* or has one more */
    RP_TOKENS_SPECIAL_AS_TEXT, /* the engine spells out what is one special token */
    RP_TOKENS_TEXT_AS_SPECIAL, /* the engine takes for a special token what is text */
    RP_TOKENS_OTHER
};

struct rp_token_diagnosis {
    enum rp_token_fault fault;
    size_t index; /* the first that differs */
    /* "token ids differ from position 3 on: the reference has id 7 "fox", the engine id 9 "f"; counts
     * 11 and 14: …", one line, printable; "" when they are the same */
    char message[640];
};

/* vocabulary is NULL where none is known: then only what ids alone can tell is named. */
void rp_diagnose_tokens(const struct rp_vocabulary *vocabulary, const int64_t *reference,
                        size_t n_reference, const int64_t *engine, size_t n_engine,
                        struct rp_token_diagnosis *diagnosis);

/* Puts the diagnosis in the place of the message of a FAIL from rp_compare_tokens. */
void rp_explain_tokens(const struct rp_comparison *comparison,
                       const struct rp_vocabulary *vocabulary, struct rp_tokens_result *result);

/* The bytes that piece stands for into out[size]; their number, or size + 1 when they do not fit. */
size_t rp_piece_bytes(const struct rp_vocabulary *vocabulary, const struct rp_piece *piece,
                      char *out, size_t size);

/* bytes[n] in quotes and printable: what is not valid UTF-8 as \xNN, control and format characters
 * as \u200d, cut to fit out[size] (at least 16) with "…". Returns out. */
char *rp_bytes_shown(const char *bytes, size_t n, char *out, size_t size);

#endif
