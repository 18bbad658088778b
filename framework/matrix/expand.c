/* See matrix/expand.h. */
#include "matrix/expand.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

#define NAME_SIZE 256 /* of an environment variable or a target, its NUL included */

enum placeholder {
    LITERAL, /* no placeholder: text as it stands */
    GGUF,
    CHECKPOINT,
    PROMPT,
    PROMPT_FILE,
    TOKENS_FILE,
    DUMP,
    MODE,
    POSITIONS,
    SLOTS,
    THREADS,
    MATRIX_DIR,
    ENV,
    TARGET,
    N_PLACEHOLDERS
};

static const char *const placeholder_names[N_PLACEHOLDERS] = {
    "",     "gguf",      "checkpoint", "prompt",  "prompt_file", "tokens_file", "dump",
    "mode", "positions", "slots",      "threads", "matrix_dir",  "env",         "target"};

struct part {
    enum placeholder kind;
    const char *keyword; /* its entry in placeholder_names */
    const char *text;    /* [length], of a LITERAL */
    size_t length;
    char name[NAME_SIZE]; /* of ENV and TARGET, else empty */
};

static int is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static int is_name(const char *name, enum placeholder kind)
{
    const char *punctuation = kind == TARGET ? ".-+" : "";
    if (!name[0] || (kind == ENV && !is_letter(name[0])))
        return 0;
    for (const char *c = name; *c; c++) {
        if (!is_letter(*c) && !(*c >= '0' && *c <= '9') && !strchr(punctuation, *c))
            return 0;
    }
    return 1;
}

/* inside is what stands between two braces. */
static enum rp_status read_placeholder(const char *inside, struct part *part, struct rp_error *err)
{
    char shown[RP_SHOWN_SIZE];
    const char *colon = strchr(inside, ':');
    size_t length = colon ? (size_t)(colon - inside) : strlen(inside);
    for (enum placeholder kind = GGUF; kind < N_PLACEHOLDERS; kind++) {
        if (strlen(placeholder_names[kind]) != length ||
            memcmp(placeholder_names[kind], inside, length) != 0)
            continue;
        if ((kind == ENV || kind == TARGET) != (colon != NULL))
            break;
        if (colon && !is_name(colon + 1, kind))
            return rp_fail(err, RP_ERR_FORMAT, NULL, -1,
                           "expected the name of %s after {%s:, found %s",
                           kind == ENV ? "an environment variable" : "a build target",
                           placeholder_names[kind], rp_shown(colon + 1, shown));
        part->kind = kind;
        part->keyword = placeholder_names[kind];
        if (colon)
            memcpy(part->name, colon + 1, strlen(colon + 1) + 1);
        return RP_OK;
    }
    return rp_fail(
        err, RP_ERR_FORMAT, NULL, -1,
        "expected one of {gguf} {checkpoint} {prompt} {prompt_file} {tokens_file} {dump} "
        "{mode} {positions} {slots} {threads} {matrix_dir} {env:NAME} {target:NAME}, or "
        "{{ and }} for braces, found placeholder %s",
        rp_shown(inside, shown));
}

/* Reads the part that starts at *at and moves past it. *at is not at the end. */
static enum rp_status next_part(const char **at, struct part *part, struct rp_error *err)
{
    const char *start = *at;
    part->kind = LITERAL;
    part->keyword = "";
    part->name[0] = '\0';
    part->text = start;
    if (start[0] != '{' && start[0] != '}') {
        part->length = strcspn(start, "{}");
        *at += part->length;
        return RP_OK;
    }
    if (start[1] == start[0]) {
        part->length = 1;
        *at += 2;
        return RP_OK;
    }
    if (start[0] == '}')
        return rp_fail(err, RP_ERR_FORMAT, NULL, -1, "expected }} for a brace, found } alone");
    char inside[NAME_SIZE];
    size_t length = strcspn(start + 1, "{}");
    if (start[1 + length] != '}')
        return rp_fail(err, RP_ERR_FORMAT, NULL, -1,
                       "expected } at the end of a placeholder, or {{ for a brace, found { alone");
    if (length >= sizeof inside)
        return rp_fail(err, RP_ERR_FORMAT, NULL, -1,
                       "expected a placeholder of less than %d bytes, found %zu", NAME_SIZE,
                       length);
    memcpy(inside, start + 1, length);
    inside[length] = '\0';
    *at += length + 2;
    return read_placeholder(inside, part, err);
}

enum rp_status rp_template_check(const char *text, struct rp_error *err)
{
    struct part part = {.keyword = "", .text = ""};
    while (*text) {
        enum rp_status status = next_part(&text, &part, err);
        if (status != RP_OK)
            return status;
    }
    return RP_OK;
}

int rp_template_uses(const char *text, const char *placeholder)
{
    struct part part = {.keyword = "", .text = ""};
    while (*text && next_part(&text, &part, NULL) == RP_OK) {
        if (part.kind != LITERAL && strcmp(part.keyword, placeholder) == 0)
            return 1;
    }
    return 0;
}

static const char *given(const struct rp_expansion *values, enum placeholder kind)
{
    switch (kind) {
    case GGUF: return values->gguf;
    case PROMPT: return values->prompt;
    case PROMPT_FILE: return values->prompt_file;
    case TOKENS_FILE: return values->tokens_file;
    case DUMP: return values->dump;
    case MODE: return values->mode;
    case POSITIONS: return values->positions;
    case SLOTS: return values->slots;
    case THREADS: return values->threads;
    case CHECKPOINT: return values->checkpoint;
    case MATRIX_DIR: return values->matrix_dir;
    case LITERAL:
    case ENV:
    case TARGET:
    case N_PLACEHOLDERS: break;
    }
    return NULL;
}

static enum rp_status value_of(const struct part *part, const struct rp_expansion *values,
                               const char **value, struct rp_error *err)
{
    if (part->kind == ENV) {
        *value = values->env ? values->env(values->context, part->name) : NULL;
        if (!*value || !**value)
            return rp_fail(err, RP_ERR_MISSING, NULL, -1, "environment variable %s is not set",
                           part->name);
        return RP_OK;
    }
    if (part->kind == TARGET) {
        *value = values->target ? values->target(values->context, part->name) : NULL;
        if (!*value || !**value)
            return rp_fail(err, RP_ERR_MISSING, NULL, -1, "the build makes no target %s",
                           part->name);
        return RP_OK;
    }
    *value = given(values, part->kind);
    if (!*value)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "there is no value for {%s} here",
                       part->keyword);
    return RP_OK;
}

struct text {
    char *bytes; /* [length] and a NUL */
    size_t length;
    size_t capacity;
};

static enum rp_status append(struct text *text, const char *bytes, size_t length,
                             struct rp_error *err)
{
    if (length >= SIZE_MAX / 2 - text->length)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "an expansion is too long");
    size_t needed = text->length + length + 1;
    if (needed > text->capacity) {
        size_t capacity = needed < 32 ? 64 : needed * 2;
        char *grown = realloc(text->bytes, capacity);
        if (!grown)
            return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu bytes", capacity);
        text->bytes = grown;
        text->capacity = capacity;
    }
    memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
    text->bytes[text->length] = '\0';
    return RP_OK;
}

enum rp_status rp_expand(const char *text, const struct rp_expansion *values, char **out,
                         struct rp_error *err)
{
    struct text expanded = {0};
    struct part part = {.keyword = "", .text = ""};
    enum rp_status status = append(&expanded, "", 0, err);
    while (status == RP_OK && *text) {
        status = next_part(&text, &part, err);
        if (status != RP_OK)
            break;
        if (part.kind == LITERAL) {
            status = append(&expanded, part.text, part.length, err);
            continue;
        }
        const char *value = NULL;
        status = value_of(&part, values, &value, err);
        if (status == RP_OK && value)
            status = append(&expanded, value, strlen(value), err);
    }
    if (status != RP_OK) {
        free(expanded.bytes);
        return status;
    }
    *out = expanded.bytes;
    return RP_OK;
}
