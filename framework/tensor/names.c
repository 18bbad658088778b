/* See tensor/names.h. */
#include "tensor/names.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/utf8.h"

#define MAX_FILE ((size_t)1 << 20)
#define MAX_RULES 10000
#define MAX_NAME 255
#define MAX_LAYER 99999

/* ---- patterns ---- */

/* "{l}", "{l+1}", "{l-1}" in a pattern. */
struct number_place {
    size_t before; /* characters before it */
    size_t length; /* 0: there is none */
    int offset;
};

static bool find_number(const char *pattern, struct number_place *place)
{
    const char *open = strstr(pattern, "{l"), *p = open;
    *place = (struct number_place){.length = 0};
    if (!open)
        return strchr(pattern, '{') == NULL;
    p += 2;
    if ((*p == '+' || *p == '-') && isdigit((unsigned char)p[1])) {
        place->offset = *p == '+' ? p[1] - '0' : '0' - p[1];
        p += 2;
    }
    place->before = (size_t)(open - pattern);
    place->length = (size_t)(p + 1 - open);
    return *p == '}' && strchr(p, '{') == NULL;
}

/* *l is -1 where the pattern has no number. */
static bool matches(const char *pattern, const char *name, int *l)
{
    struct number_place place;
    *l = -1;
    if (!find_number(pattern, &place) || place.length == 0)
        return strcmp(pattern, name) == 0;
    if (strncmp(pattern, name, place.before) != 0)
        return false;
    const char *p = name + place.before;
    int number = 0;
    if (!isdigit((unsigned char)*p))
        return false;
    for (; isdigit((unsigned char)*p); p++) {
        number = number * 10 + (*p - '0');
        if (number > MAX_LAYER)
            return false;
    }
    *l = number - place.offset;
    return *l >= 0 && strcmp(p, pattern + place.before + place.length) == 0;
}

char *rp_name_target(const struct rp_name_rule *rule, int l, char *out)
{
    const char *open = strstr(rule->target, "{l}");
    if (open)
        snprintf(out, RP_SLOT_NAME_SIZE, "%.*s%d%s", (int)(open - rule->target), rule->target, l,
                 open + 3);
    else
        snprintf(out, RP_SLOT_NAME_SIZE, "%s", rule->target);
    return out;
}

/* ---- rules ---- */

static const char expected_target[] = "expected a slot (emb, h{l}, h{l}_q ..., post_norm, logits), "
                                      "or tokens, positions, hidden_states, "
                                      "hidden_states.{l}, or - for what is to be left out";

/* What the two names of a rule make; NULL, or what is wrong. */
static const char *find_kind(struct rp_name_rule *rule)
{
    static const struct {
        const char *target;
        enum rp_name_kind kind;
    } words[] = {{"hidden_states", RP_NAME_HIDDEN_STATES},
                 {"tokens", RP_NAME_TOKENS},
                 {"positions", RP_NAME_POSITIONS}};
    struct number_place theirs, ours;
    char name[RP_SLOT_NAME_SIZE];
    int layer;
    if (strlen(rule->name) > MAX_NAME || !find_number(rule->name, &theirs))
        return "expected a name with {l}, {l+1} or {l-1} at one place at most";
    if (strcmp(rule->target, "-") == 0) {
        rule->kind = RP_NAME_LEFT_OUT;
        return NULL;
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(rule->target, words[i].target) == 0) {
            rule->kind = words[i].kind;
            return theirs.length > 0 ? "one array is expected to be this, not one for each {l}"
                                     : NULL;
        }
    if (strlen(rule->target) > RP_SLOT_NAME_SIZE - 8 || !find_number(rule->target, &ours) ||
        ours.offset != 0)
        return expected_target;
    if (strcmp(rule->target, "hidden_states.{l}") == 0) {
        rule->kind = RP_NAME_HIDDEN_STATE;
        return theirs.length == 0 ? "the name has no {l}: write hidden_states for an array of all"
                                  : NULL;
    }
    if (rp_slot_parse(rp_name_target(rule, 0, name), &layer) == RP_PART_OTHER)
        return expected_target;
    rule->kind = ours.length > 0 && theirs.length == 0 ? RP_NAME_STACK : RP_NAME_SLOT;
    return ours.length == 0 && theirs.length > 0 ? "the slot has no {l}, and the name has one"
                                                 : NULL;
}

static struct rp_name_rule *add_rule(struct rp_names *names, const char *name, size_t n_name,
                                     const char *target, size_t n_target)
{
    if (names->n == names->max) {
        const size_t more = names->max ? 2 * names->max : 32;
        struct rp_name_rule *grown = realloc(names->rules, more * sizeof *grown);
        if (!grown)
            return NULL;
        names->rules = grown;
        names->max = more;
    }
    struct rp_name_rule *rule = &names->rules[names->n];
    memset(rule, 0, sizeof *rule);
    rule->name = strndup(name, n_name);
    rule->target = strndup(target, n_target);
    if (!rule->name || !rule->target) {
        free(rule->name);
        free(rule->target);
        return NULL;
    }
    names->n++;
    return rule;
}

static struct rp_names *make(const char *where)
{
    struct rp_names *names = calloc(1, sizeof *names);
    if (names && !(names->path = strdup(where))) {
        free(names);
        names = NULL;
    }
    return names;
}

void rp_names_free(struct rp_names *names)
{
    if (!names)
        return;
    for (size_t i = 0; i < names->n; i++) {
        free(names->rules[i].name);
        free(names->rules[i].target);
    }
    free(names->rules);
    free(names->path);
    free(names);
}

/* ---- a user's file ---- */

static enum rp_status take_rule(struct rp_names *names, const char *name, size_t n_name,
                                const char *target, size_t n_target, int line, struct rp_error *err)
{
    char where[64], shown[RP_SHOWN_SIZE];
    snprintf(where, sizeof where, "line %d: ", line);
    if (names->n == MAX_RULES)
        return rp_fail(err, RP_ERR_UNSUPPORTED, names->path, -1, "%sexpected at most %d names",
                       where, MAX_RULES);
    struct rp_name_rule *rule = add_rule(names, name, n_name, target, n_target);
    if (!rule)
        return rp_fail(err, RP_ERR_MEMORY, names->path, -1, "cannot allocate a name");
    rule->line = line;
    const char *wrong = find_kind(rule);
    if (wrong)
        return rp_fail(err, RP_ERR_FORMAT, names->path, -1, "%s%s, found %s", where, wrong,
                       rp_shown(wrong == expected_target ? rule->target : rule->name, shown));
    for (size_t i = 0; i + 1 < names->n; i++)
        if (strcmp(names->rules[i].name, rule->name) == 0)
            return rp_fail(err, RP_ERR_FORMAT, names->path, -1, "%s%s is in line %d too", where,
                           rp_shown(rule->name, shown), names->rules[i].line);
    return RP_OK;
}

static size_t word(const char **at, const char *end)
{
    while (*at < end && (**at == ' ' || **at == '\t' || **at == '\r'))
        ++*at;
    size_t n = 0;
    while (*at + n < end && (*at)[n] != ' ' && (*at)[n] != '\t' && (*at)[n] != '\r')
        n++;
    return n;
}

static enum rp_status parse_line(struct rp_names *names, const char *line, const char *end,
                                 int number, struct rp_error *err)
{
    const char *comment = memchr(line, '#', (size_t)(end - line));
    if (comment)
        end = comment;
    const char *name = line;
    const size_t n_name = word(&name, end);
    const char *target = name + n_name;
    const size_t n_target = word(&target, end);
    const char *rest = target + n_target;
    if (n_name == 0)
        return RP_OK;
    if (n_target == 0 || word(&rest, end) != 0)
        return rp_fail(err, RP_ERR_FORMAT, names->path, -1,
                       "line %d: expected two words, their name and our slot: \"layer_{l} h{l}\"",
                       number);
    return take_rule(names, name, n_name, target, n_target, number, err);
}

static enum rp_status parse_lines(struct rp_names *names, const char *text, size_t n,
                                  struct rp_error *err)
{
    enum rp_status status = RP_OK;
    const char *end = text + n;
    for (int number = 1; text < end && status == RP_OK; number++) {
        const char *line_end = memchr(text, '\n', (size_t)(end - text));
        status = parse_line(names, text, line_end ? line_end : end, number, err);
        text = line_end ? line_end + 1 : end;
    }
    return status;
}

static enum rp_status parse_json(struct rp_names *names, const char *text, size_t n,
                                 struct rp_error *err)
{
    struct rp_json *doc = NULL;
    const cJSON *item;
    enum rp_status status = rp_json_parse(text, n, names->path, &doc, err);
    if (status != RP_OK)
        return status;
    if (!cJSON_IsObject(rp_json_root(doc)))
        status = rp_json_fail(doc, rp_json_root(doc), err, RP_ERR_FORMAT,
                              "expected an object: {\"layer_{l}\": \"h{l}\"}");
    else
        cJSON_ArrayForEach(item, rp_json_root(doc))
        {
            int line, column;
            rp_json_locate(doc, item, &line, &column);
            if (status == RP_OK && !cJSON_IsString(item))
                status = rp_json_fail(doc, item, err, RP_ERR_FORMAT, "expected a slot's name");
            if (status == RP_OK)
                status = take_rule(names, item->string, strlen(item->string), item->valuestring,
                                   strlen(item->valuestring), line, err);
        }
    rp_json_free(doc);
    return status;
}

enum rp_status rp_names_parse(const char *text, size_t n, const char *where,
                              struct rp_names **names, struct rp_error *err)
{
    struct rp_names *read = make(where);
    size_t first = 0;
    *names = NULL;
    if (!read)
        return rp_fail(err, RP_ERR_MEMORY, where, -1, "cannot allocate names");
    while (first < n && isspace((unsigned char)text[first]))
        first++;
    enum rp_status status = RP_OK;
    if (n > 0 && memchr(text, '\0', n))
        status = rp_fail(err, RP_ERR_FORMAT, where, -1, "expected text, found a byte 0");
    else
        status = first < n && text[first] == '{' ? parse_json(read, text, n, err)
                                                 : parse_lines(read, text, n, err);
    if (status == RP_OK)
        *names = read;
    else
        rp_names_free(read);
    return status;
}

enum rp_status rp_names_open(const char *path, struct rp_names **names, struct rp_error *err)
{
    char *text;
    size_t n;
    *names = NULL;
    enum rp_status status = rp_file_read(path, MAX_FILE, &text, &n, err);
    if (status != RP_OK)
        return status;
    status = rp_names_parse(text, n, path, names, err);
    free(text);
    return status;
}

/* ---- common names ---- */

/* counted: scripts count layers from 0 or from 1, or take the embeddings for the first. */
static const struct {
    const char *name, *target;
    bool is_counted;
} common[] = {
    /* transformers: output_hidden_states, then modules */
    {"hidden_states.{l}", "hidden_states.{l}", false},
    {"hidden_states_{l}", "hidden_states.{l}", false},
    {"hidden_states[{l}]", "hidden_states.{l}", false},
    {"hidden_states/{l}", "hidden_states.{l}", false},
    {"hidden_state_{l}", "hidden_states.{l}", false},
    {"hidden_state.{l}", "hidden_states.{l}", false},
    {"hidden_states", "hidden_states", false},
    {"all_hidden_states", "hidden_states", false},
    {"last_hidden_state", "post_norm", false},
    {"model.embed_tokens", "emb", false},
    {"embed_tokens", "emb", false},
    {"model.layers.{l}", "h{l}", false},
    {"model.layers.{l}.input_layernorm", "h{l}_preattn", false},
    {"model.layers.{l}.self_attn.q_proj", "h{l}_q", false},
    {"model.layers.{l}.self_attn.k_proj", "h{l}_k", false},
    {"model.layers.{l}.self_attn.v_proj", "h{l}_v", false},
    {"model.layers.{l}.self_attn.o_proj", "h{l}_attnout", false},
    {"model.layers.{l}.mlp.gate_proj", "h{l}_gate", false},
    {"model.layers.{l}.mlp.up_proj", "h{l}_up", false},
    {"model.layers.{l}.mlp.down_proj", "h{l}_ffnout", false},
    {"model.layers.{l}.mlp", "h{l}_ffnout", false},
    {"model.norm", "post_norm", false},
    {"lm_head", "logits", false},
    {"layers.{l}", "h{l}", false},
    {"transformer.h.{l}", "h{l}", false},
    /* llama.cpp's graph */
    {"inp_embd", "emb", false},
    {"l_out-{l}", "h{l}", false},
    {"attn_norm-{l}", "h{l}_preattn", false},
    {"ffn_inp-{l}", "h{l}_postattn", false},
    {"ffn_norm-{l}", "h{l}_preffn", false},
    {"ffn_out-{l}", "h{l}_ffnout", false},
    {"result_norm", "post_norm", false},
    {"result_output", "logits", false},
    {"blk.{l}", "h{l}", false},
    /* scripts */
    {"embeddings", "emb", false},
    {"embedding", "emb", false},
    {"embed", "emb", false},
    {"h{l}", "h{l}", true}, /* h00, h01 ... */
    {"layer_{l}", "h{l}", true},
    {"layer.{l}", "h{l}", true},
    {"layer{l}", "h{l}", true},
    {"layers_{l}", "h{l}", true},
    {"layer_{l}_output", "h{l}", true},
    {"layer_{l}_out", "h{l}", true},
    {"layer_{l}.output", "h{l}", true},
    {"block_{l}", "h{l}", true},
    {"final_norm", "post_norm", false},
    {"norm", "post_norm", false},
};

enum rp_status rp_names_common(struct rp_names **names, struct rp_error *err)
{
    struct rp_names *made = make("common names");
    bool is_whole = made != NULL;
    for (size_t i = 0; is_whole && i < sizeof common / sizeof *common; i++) {
        struct rp_name_rule *rule = add_rule(made, common[i].name, strlen(common[i].name),
                                             common[i].target, strlen(common[i].target));
        is_whole = rule && !find_kind(rule);
        if (rule)
            rule->is_counted = common[i].is_counted;
    }
    *names = is_whole ? made : NULL;
    if (is_whole)
        return RP_OK;
    rp_names_free(made);
    return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "cannot allocate names");
}

/* ---- answers ---- */

struct rp_name_rule *rp_names_find(struct rp_names *names, const char *name, int *l)
{
    for (size_t i = 0; names && i < names->n; i++)
        if (matches(names->rules[i].name, name, l)) {
            names->rules[i].is_used = true;
            return &names->rules[i];
        }
    *l = -1;
    return NULL;
}

const struct rp_name_rule *rp_names_unused(const struct rp_names *names)
{
    for (size_t i = 0; names && i < names->n; i++)
        if (!names->rules[i].is_used)
            return &names->rules[i];
    return NULL;
}
