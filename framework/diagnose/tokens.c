/* See diagnose/tokens.h. The ids alone tell what is missing or extra at either end; the bytes that
 * they stand for tell whether the same text was cut in another way, or another text was read. */
#include "diagnose/tokens.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

enum {
    WINDOW_TOKENS = 64, /* how far a different cut is followed */
    WINDOW_BYTES = 2048,
    PIECE_SHOWN = 64
};

struct ids {
    const int64_t *ids; /* [n] */
    size_t n;
};

/* The text from the first difference on, as one side reads it. */
struct window {
    const struct ids *side;
    size_t begin, end; /* ids[begin .. end) */
    char bytes[WINDOW_BYTES];
    size_t n_bytes;
    int cuts_characters; /* a piece of it is not whole UTF-8 */
    int has_special;
};

static const struct rp_piece *piece_of(const struct rp_vocabulary *v, int64_t id)
{
    return v && id >= 0 && (uint64_t)id < v->n ? &v->pieces[id] : NULL;
}

static int is_special(const struct rp_vocabulary *v, int64_t id)
{
    const struct rp_piece *piece = piece_of(v, id);
    return piece && (piece->kind == RP_PIECE_SPECIAL || id == v->bos || id == v->eos);
}

static void say(struct rp_token_diagnosis *d, enum rp_token_fault fault, const char *fmt, ...)
    RP_PRINTF(3, 4);

static void say(struct rp_token_diagnosis *d, enum rp_token_fault fault, const char *fmt, ...)
{
    const size_t used = strlen(d->message);
    va_list args;
    va_start(args, fmt);
    vsnprintf(d->message + used, sizeof d->message - used, fmt, args);
    va_end(args);
    d->fault = fault;
}

/* "id 7 "fox"", "id 7", or that there is none. */
static const char *id_shown(const struct rp_vocabulary *v, const struct ids *side, size_t index,
                            char *out, size_t size)
{
    char bytes[WINDOW_BYTES], shown[PIECE_SHOWN];
    if (index >= side->n) {
        snprintf(out, size, "no id (it has %zu)", side->n);
        return out;
    }
    const long long id = (long long)side->ids[index];
    const struct rp_piece *piece = piece_of(v, id);
    if (!v) {
        snprintf(out, size, "id %lld", id);
    } else if (!piece) {
        snprintf(out, size, "id %lld (the vocabulary has %zu)", id, v->n);
    } else {
        const size_t n = rp_piece_bytes(v, piece, bytes, sizeof bytes);
        snprintf(out, size, "id %lld %s", id,
                 rp_bytes_shown(bytes, n <= sizeof bytes ? n : sizeof bytes, shown, sizeof shown));
    }
    return out;
}

/* Are n ids of a from i on those of b from j on? */
static int are_equal(const struct ids *a, size_t i, const struct ids *b, size_t j, size_t n)
{
    return i + n <= a->n && j + n <= b->n &&
           (n == 0 || memcmp(a->ids + i, b->ids + j, n * sizeof *a->ids) == 0);
}

/* What is over once one side's ids are a beginning of the other's: reference from i, engine from j. */
static void judge_end(const struct rp_vocabulary *v, const struct ids *reference, size_t i,
                      const struct ids *engine, size_t j, struct rp_token_diagnosis *d)
{
    if (i == reference->n && j + 1 == engine->n && v && engine->ids[j] == v->eos)
        say(d, RP_TOKENS_EOS_EXTRA, "the engine adds an EOS at the end");
    else if (j == engine->n && i + 1 == reference->n && v && reference->ids[i] == v->eos)
        say(d, RP_TOKENS_EOS_MISSING, "the engine lacks the EOS at the end");
    else if (j == engine->n)
        say(d, RP_TOKENS_TRUNCATED, "the engine's prompt is truncated, %zu ids are missing",
            reference->n - i);
    else
        say(d, RP_TOKENS_LONGER, "the engine's prompt goes on, with %zu more ids", engine->n - j);
}

/* Is one side the other after its first id? Without a vocabulary any first id may be a BOS, unless
 * the ids that follow are compared already. */
static int judge_beginning(const struct rp_vocabulary *v, const struct ids *reference,
                           const struct ids *engine, struct rp_token_diagnosis *d)
{
    const int missing = reference->n > 1 && (v ? is_special(v, reference->ids[0]) : d->index == 0);
    const int extra = engine->n > 1 && (v ? is_special(v, engine->ids[0]) : d->index == 0);
    size_t n = reference->n - 1 < engine->n ? reference->n - 1 : engine->n;
    enum rp_token_fault fault;
    if (missing && n > 0 && are_equal(reference, 1, engine, 0, n)) {
        say(d, fault = RP_TOKENS_BOS_MISSING,
            v ? "the engine lacks the BOS" : "the engine lacks the first id (a BOS?)");
        if (reference->n - 1 != engine->n) {
            say(d, fault, "; ");
            judge_end(v, reference, n + 1, engine, n, d);
        }
    } else {
        n = engine->n - 1 < reference->n ? engine->n - 1 : reference->n;
        if (!extra || n == 0 || !are_equal(reference, 0, engine, 1, n))
            return 0;
        say(d, fault = RP_TOKENS_BOS_EXTRA, "the engine begins with one id too many, a%s BOS",
            reference->n > 0 && engine->ids[0] == reference->ids[0] ? " second" : "");
        if (engine->n - 1 != reference->n) {
            say(d, fault, "; ");
            judge_end(v, reference, n, engine, n + 1, d);
        }
    }
    d->fault = fault;
    return 1;
}

/* Appends the next id's bytes; false when there is none, or no room. */
static int extend(const struct rp_vocabulary *v, struct window *w)
{
    const struct rp_piece *piece = w->end < w->side->n ? piece_of(v, w->side->ids[w->end]) : NULL;
    if (!piece || w->end - w->begin >= WINDOW_TOKENS)
        return 0;
    const size_t room = sizeof w->bytes - w->n_bytes;
    const size_t n = rp_piece_bytes(v, piece, w->bytes + w->n_bytes, room);
    if (n > room)
        return 0;
    w->cuts_characters |= rp_utf8_valid_length(w->bytes + w->n_bytes, n) < n;
    w->has_special |= piece->kind == RP_PIECE_SPECIAL;
    w->n_bytes += n;
    w->end++;
    return 1;
}

/* Extends the shorter side until both read the same bytes (1), or other ones (0). */
static int read_same_bytes(const struct rp_vocabulary *v, struct window *reference,
                           struct window *engine)
{
    for (;;) {
        const size_t shorter =
            reference->n_bytes < engine->n_bytes ? reference->n_bytes : engine->n_bytes;
        if (memcmp(reference->bytes, engine->bytes, shorter) != 0)
            return 0;
        if (reference->n_bytes == engine->n_bytes && shorter > 0)
            return 1;
        if (!extend(v, reference->n_bytes <= engine->n_bytes ? reference : engine))
            return 0;
    }
}

/* " lo" "w", each in quotes, cut to fit. */
static const char *pieces_shown(const struct rp_vocabulary *v, const struct window *w, char *out,
                                size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = w->begin; i < w->end; i++) {
        char bytes[WINDOW_BYTES], shown[PIECE_SHOWN];
        const struct rp_piece *piece = piece_of(v, w->side->ids[i]);
        const size_t n = rp_piece_bytes(v, piece, bytes, sizeof bytes);
        rp_bytes_shown(bytes, n <= sizeof bytes ? n : sizeof bytes, shown, sizeof shown);
        if (used + strlen(shown) + sizeof " …" > size) {
            snprintf(out + used, size - used, "…");
            break;
        }
        used += (size_t)snprintf(out + used, size - used, "%s%s", i > w->begin ? " " : "", shown);
    }
    return out;
}

static void judge_same_bytes(const struct rp_vocabulary *v, const struct window *reference,
                             const struct window *engine, struct rp_token_diagnosis *d)
{
    char r[128], e[128];
    pieces_shown(v, reference, r, sizeof r);
    pieces_shown(v, engine, e, sizeof e);
    if (reference->has_special && !engine->has_special)
        say(d, RP_TOKENS_SPECIAL_AS_TEXT,
            "the engine spells a special token out as text: %s, the reference has %s", e, r);
    else if (engine->has_special && !reference->has_special)
        say(d, RP_TOKENS_TEXT_AS_SPECIAL,
            "the engine takes text for a special token: %s, the reference has %s", e, r);
    else if (engine->cuts_characters && !reference->cuts_characters)
        say(d, RP_TOKENS_UTF8,
            "broken UTF-8 pieces: the engine cuts a character into bytes, %s, the reference has %s",
            e, r);
    else
        say(d, RP_TOKENS_MERGE,
            "a different merge of the same text: the engine has %s, the "
            "reference %s",
            e, r);
}

/* Do a's bytes after its first one, a space, begin as b's do? */
static int is_one_space_more(const struct window *a, const struct window *b)
{
    if (a->n_bytes == 0 || a->bytes[0] != ' ' || b->n_bytes == 0)
        return 0;
    const size_t n = a->n_bytes - 1 < b->n_bytes ? a->n_bytes - 1 : b->n_bytes;
    return n > 0 && memcmp(a->bytes + 1, b->bytes, n) == 0;
}

static void judge_other_bytes(const struct window *reference, const struct window *engine,
                              struct rp_token_diagnosis *d)
{
    char r[PIECE_SHOWN], e[PIECE_SHOWN];
    const size_t shorter =
        reference->n_bytes < engine->n_bytes ? reference->n_bytes : engine->n_bytes;
    size_t i = 0;
    while (i < shorter && reference->bytes[i] == engine->bytes[i])
        i++;
    rp_bytes_shown(reference->bytes, reference->n_bytes, r, sizeof r);
    rp_bytes_shown(engine->bytes, engine->n_bytes, e, sizeof e);
    if (is_one_space_more(reference, engine))
        say(d, RP_TOKENS_SPACE_MISSING, "the engine lacks a space before %s", e);
    else if (is_one_space_more(engine, reference))
        say(d, RP_TOKENS_SPACE_EXTRA, "the engine has a space too many before %s", r);
    else if (i < reference->n_bytes && (unsigned char)reference->bytes[i] >= 0x80)
        say(d, RP_TOKENS_UTF8, "broken UTF-8: where the reference reads %s, the engine reads %s", r,
            e);
    else
        say(d, RP_TOKENS_OTHER, "the engine reads other text there: %s, the reference %s", e, r);
}

static void judge_text(const struct rp_vocabulary *v, const struct ids *reference,
                       const struct ids *engine, struct rp_token_diagnosis *d)
{
    struct window r = {.side = reference, .begin = d->index, .end = d->index};
    struct window e = {.side = engine, .begin = d->index, .end = d->index};
    if (!v)
        say(d, RP_TOKENS_OTHER, "no vocabulary is at hand to tell what they stand for");
    else if (read_same_bytes(v, &r, &e))
        judge_same_bytes(v, &r, &e, d);
    else
        judge_other_bytes(&r, &e, d);
}

void rp_explain_tokens(const struct rp_comparison *comparison,
                       const struct rp_vocabulary *vocabulary, struct rp_tokens_result *result)
{
    struct rp_token_diagnosis diagnosis;
    const int64_t *reference, *engine;
    size_t n_reference, n_engine;
    if (result->verdict != RP_FAIL ||
        rp_tensor_set_tokens(comparison->reference, &reference, &n_reference, NULL) ||
        rp_tensor_set_tokens(comparison->engine, &engine, &n_engine, NULL) || !reference || !engine)
        return;
    rp_diagnose_tokens(vocabulary, reference, n_reference, engine, n_engine, &diagnosis);
    snprintf(result->message, sizeof result->message, "%s", diagnosis.message);
}

void rp_diagnose_tokens(const struct rp_vocabulary *vocabulary, const int64_t *reference,
                        size_t n_reference, const int64_t *engine, size_t n_engine,
                        struct rp_token_diagnosis *diagnosis)
{
    const struct ids ref = {reference, n_reference}, eng = {engine, n_engine};
    const size_t shorter = n_reference < n_engine ? n_reference : n_engine;
    char a[160], b[160];
    size_t i = 0;
    while (i < shorter && reference[i] == engine[i])
        i++;
    *diagnosis = (struct rp_token_diagnosis){.fault = RP_TOKENS_SAME, .index = i};
    if (i == n_reference && i == n_engine)
        return;
    say(diagnosis, RP_TOKENS_OTHER,
        "token ids differ from position %zu on: the reference has %s, the engine %s; counts %zu "
        "and %zu: ",
        i, id_shown(vocabulary, &ref, i, a, sizeof a), id_shown(vocabulary, &eng, i, b, sizeof b),
        n_reference, n_engine);
    if (judge_beginning(vocabulary, &ref, &eng, diagnosis))
        return;
    if (i == shorter)
        judge_end(vocabulary, &ref, i, &eng, i, diagnosis);
    else
        judge_text(vocabulary, &ref, &eng, diagnosis);
}
