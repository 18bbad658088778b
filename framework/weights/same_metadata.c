/* See weights/same_metadata.h. A key that the file lacks counts as what its readers then take (llama.cpp's
 * llama-model.cpp). */
#include "weights/same_metadata.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "weights/gguf_internal.h"
#include "weights/prediction_layers.h"

#define KEY_SIZE 128
#define TEXT_SIZE 128
#define ABSENT \
    "checkpoint.absent." /* in front of what the architecture's readers take for an absent key */
#define FLOAT_ROUNDING 0x1p-23 /* what FP32 may have rounded away of a number in JSON */

struct comparison {
    const struct rp_gguf *file, *checkpoint;
    char file_prefix[64], prefix[64]; /* "llama." of each */
    rp_weights_fn *see;
    void *context;
    struct rp_error *err;
};

static void read_prefix(const struct rp_gguf *gguf, char prefix[64])
{
    struct rp_gguf_string name = {"", 0};
    (void)rp_gguf_get_string(gguf, "general.architecture", &name, NULL);
    snprintf(prefix, 64, "%.*s.", (int)(name.length < 60 ? name.length : 60), name.data);
    for (char *at = prefix; *at; at++) /* it goes into messages */
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            *at = '?';
}

/* The key as the file has it, and the file's value; NULL: it has none. */
static const struct rp_gguf_value *find(const struct comparison *comparison, const char *name,
                                        char key[KEY_SIZE])
{
    snprintf(key, KEY_SIZE, "%s%s", comparison->file_prefix, name);
    return rp_gguf_find_value(comparison->file, key);
}

static const char *text_of(const struct rp_gguf *gguf, const struct rp_gguf_value *value,
                           char text[TEXT_SIZE])
{
    return rp_gguf_value_text(gguf, value, text, TEXT_SIZE);
}

static void report(const struct comparison *comparison, const char *key, bool is_right,
                   const char *found, const char *expected, const char *cause)
{
    struct rp_weights_finding finding = {
        .is_metadata = true, .is_right = is_right, .type = "", .n_rows = 1};
    snprintf(finding.name, sizeof finding.name, "%s", key);
    if (!is_right) {
        finding.n_failing = 1;
        snprintf(finding.message, sizeof finding.message, "%s is %s, the checkpoint says %s", key,
                 found, expected);
        snprintf(finding.cause, sizeof finding.cause, "%s", cause);
        snprintf(finding.next, sizeof finding.next,
                 "convert again, or set the key to the checkpoint's value");
    }
    comparison->see(comparison->context, &finding);
}

static bool is_number(enum rp_gguf_kind kind)
{
    return kind != RP_GGUF_STRING && kind != RP_GGUF_ARRAY && kind != RP_GGUF_BOOL;
}

/* Any number; NaN: the key is no number. */
static double number_at(const struct rp_gguf *gguf, const char *key)
{
    int64_t whole;
    double real = (double)NAN;
    if (rp_gguf_get_int(gguf, key, INT64_MIN, INT64_MAX, &whole, NULL) == RP_OK)
        return (double)whole;
    return rp_gguf_get_float(gguf, key, &real, NULL) == RP_OK ? real : (double)NAN;
}

static double checkpoint_number(const struct comparison *comparison, const char *name)
{
    char key[KEY_SIZE];
    snprintf(key, sizeof key, "%s%s", comparison->prefix, name);
    return number_at(comparison->checkpoint, key);
}

/* What YaRN multiplies cosine and sine by where no key says so: 1 where DeepSeek's mscale and mscale_all_dim
 * are alike. */
static double yarn_attention_factor(const struct comparison *comparison)
{
    char key[KEY_SIZE];
    const double factor = checkpoint_number(comparison, "rope.scaling.factor");
    if (find(comparison, "rope.scaling.yarn_log_multiplier", key))
        return 1;
    return factor > 1 ? 1 + 0.1 * log(factor) : 1;
}

/* Of gemma2, which alone has caps. */
static double absent_cap(const struct comparison *comparison, const char *name)
{
    char key[KEY_SIZE];
    snprintf(key, sizeof key, "%s%s", ABSENT, name);
    return number_at(comparison->checkpoint, key);
}

/* The same of a mixture of experts. */
static double absent_experts_number(const struct comparison *comparison, const char *name)
{
    char key[KEY_SIZE];
    if (strcmp(name, "expert_weights_scale") == 0)
        return 1;
    if (strcmp(name, "expert_gating_func") == 0)
        return number_at(comparison->checkpoint, ABSENT "expert_gating_func");
    if (strcmp(name, "leading_dense_block_count") == 0)
        return 0;
    if (strcmp(name, "expert_shared_feed_forward_length") == 0 &&
        find(comparison, "expert_shared_count", key))
        return number_at(comparison->file, key) *
               checkpoint_number(comparison, "expert_feed_forward_length");
    return (double)NAN;
}

/* What a reader takes where the key is absent; NaN: it has to be there. */
static double absent_number(const struct comparison *comparison, const char *name)
{
    char key[KEY_SIZE];
    const bool has_key_length = find(comparison, "attention.key_length", key) != NULL;
    const double heads = checkpoint_number(comparison, "attention.head_count");
    const double head_dim = has_key_length
                                ? number_at(comparison->file, key)
                                : checkpoint_number(comparison, "embedding_length") / heads;
    if (strcmp(name, "attention.head_count_kv") == 0)
        return heads;
    if (strcmp(name, "attention.key_length") == 0 || strcmp(name, "attention.value_length") == 0)
        return checkpoint_number(comparison, "embedding_length") / heads;
    if (strcmp(name, "rope.dimension_count") == 0)
        return head_dim;
    if (strcmp(name, "rope.freq_base") == 0 || strcmp(name, "rope.freq_base_swa") == 0)
        return 10000;
    if (strcmp(name, "rope.scaling.yarn_beta_fast") == 0)
        return 32;
    if (strcmp(name, "rope.scaling.yarn_beta_slow") == 0 ||
        strcmp(name, "rope.scaling.factor") == 0 || strcmp(name, "rope.scaling.attn_factor") == 0)
        return 1;
    if (strcmp(name, "rope.scaling.original_context_length") == 0)
        return checkpoint_number(comparison, "context_length");
    if (strcmp(name, "rope.scaling.yarn_attn_factor") == 0)
        return yarn_attention_factor(comparison);
    if (strcmp(name, "attn_logit_softcapping") == 0 || strcmp(name, "final_logit_softcapping") == 0)
        return absent_cap(comparison, name);
    if (strcmp(name, "vocab_size") == 0 || strcmp(name, "context_length") == 0)
        return checkpoint_number(comparison, name); /* no reader computes with them */
    return absent_experts_number(comparison, name);
}

/* A cause where the number shows it. */
static const char *number_cause(const struct comparison *comparison, const char *name, double found)
{
    if (strcmp(name, "rope.freq_base") == 0 && found == 10000)
        return "10000 is what readers take where rope_theta was not converted";
    if (strcmp(name, "rope.dimension_count") == 0 &&
        found == checkpoint_number(comparison, "attention.key_length"))
        return "partial_rotary_factor was not applied";
    if (strcmp(name, "attention.layer_norm_rms_epsilon") == 0 && (found == 0 || !isfinite(found)))
        return "it was not converted";
    return "";
}

static void compare_number(const struct comparison *comparison, const char *name,
                           const struct rp_gguf_value *expected)
{
    char key[KEY_SIZE], found_text[TEXT_SIZE], expected_text[TEXT_SIZE];
    const struct rp_gguf_value *value = find(comparison, name, key);
    const double wanted = checkpoint_number(comparison, name);
    size_t n_layers, n_behind = 0; /* those of prediction are no decoder's */
    if (strcmp(name, "block_count") == 0)
        (void)rp_gguf_count_layers(comparison->file, INT32_MAX, &n_layers, &n_behind, NULL);
    const double found = value ? number_at(comparison->file, key) - (double)n_behind
                               : absent_number(comparison, name);
    const double limit = expected->kind == RP_GGUF_FLOAT32 ? FLOAT_ROUNDING * fabs(wanted) : 0;
    if (value)
        text_of(comparison->file, value, found_text);
    else if (isfinite(found))
        snprintf(found_text, sizeof found_text, "missing, which readers take for %g", found);
    else
        snprintf(found_text, sizeof found_text, "missing");
    report(comparison, key, fabs(found - wanted) <= limit, found_text,
           text_of(comparison->checkpoint, expected, expected_text),
           number_cause(comparison, name, found));
}

static void compare_text(const struct comparison *comparison, const char *key,
                         const struct rp_gguf_value *expected)
{
    char found[TEXT_SIZE] = "missing", wanted[TEXT_SIZE];
    const struct rp_gguf_value *value = rp_gguf_find_value(comparison->file, key);
    if (value)
        text_of(comparison->file, value, found);
    text_of(comparison->checkpoint, expected, wanted);
    report(comparison, key, strcmp(found, wanted) == 0, found, wanted, "");
}

/* The file's id is one of the checkpoint's. */
static enum rp_status compare_token_id(const struct comparison *comparison, const char *key,
                                       const struct rp_gguf_value *expected)
{
    char ids_key[KEY_SIZE], found[TEXT_SIZE] = "missing", wanted[TEXT_SIZE];
    int64_t *ids = NULL, id = -1;
    size_t n = 0;
    bool is_right = false;
    snprintf(ids_key, sizeof ids_key, "%.*s", (int)expected->key.length, expected->key.data);
    const struct rp_gguf_value *value = rp_gguf_find_value(comparison->file, key);
    enum rp_status status =
        rp_gguf_get_ints(comparison->checkpoint, ids_key, &ids, &n, comparison->err);
    if (status != RP_OK)
        return status;
    if (value && rp_gguf_get_int(comparison->file, key, 0, INT32_MAX, &id, NULL) == RP_OK)
        for (size_t i = 0; i < n; i++)
            is_right = is_right || ids[i] == id;
    if (value)
        text_of(comparison->file, value, found);
    report(comparison, key, is_right, found, text_of(comparison->checkpoint, expected, wanted), "");
    free(ids);
    return RP_OK;
}

/* Layers' kinds: attention.recurrent_layers, or full_attention_interval, by either of which they are known. */
static enum rp_status compare_layer_kinds(const struct comparison *comparison, const char *name)
{
    char key[KEY_SIZE], expected_key[KEY_SIZE], found[TEXT_SIZE], wanted[TEXT_SIZE];
    bool *expected = NULL, *kinds = NULL, is_right = true;
    size_t n = 0, n_kinds = 0;
    int64_t interval = 4;
    snprintf(expected_key, sizeof expected_key, "%s%s", comparison->prefix, name);
    enum rp_status status =
        rp_gguf_get_bools(comparison->checkpoint, expected_key, &expected, &n, comparison->err);
    const bool is_listed = find(comparison, name, key) != NULL;
    if (status == RP_OK && is_listed)
        is_right = rp_gguf_get_bools(comparison->file, key, &kinds, &n_kinds, NULL) == RP_OK &&
                   n_kinds == n;
    for (size_t i = 0; is_listed && is_right && status == RP_OK && i < n; i++)
        is_right = kinds[i] == expected[i];
    if (status == RP_OK) {
        const char *shown = "missing";
        const struct rp_gguf_value *value = rp_gguf_find_value(comparison->file, key);
        if (value)
            shown = text_of(comparison->file, value, found);
        if (is_listed)
            report(comparison, key, is_right, shown,
                   text_of(comparison->checkpoint,
                           rp_gguf_find_value(comparison->checkpoint, expected_key), wanted),
                   "");
        value = find(comparison, "full_attention_interval", key);
        if (value && rp_gguf_get_int(comparison->file, key, 1, 4096, &interval, NULL) != RP_OK)
            interval = 0;
        is_right = interval > 0 || is_listed;
        for (size_t i = 0; interval > 0 && i < n; i++)
            is_right = is_right && expected[i] == ((i + 1) % (size_t)interval != 0);
        if (value || !is_listed)
            report(comparison, key, is_right,
                   value ? text_of(comparison->file, value, found) : "missing, taken for 4",
                   "layer_types", "");
    }
    free(expected);
    free(kinds);
    return status;
}

static enum rp_status compare_weights_norm(const struct comparison *comparison, const char *name)
{
    char key[KEY_SIZE], expected_key[KEY_SIZE];
    bool wanted = false, found = false;
    (void)rp_gguf_get_bool(comparison->checkpoint, ABSENT "expert_weights_norm", &found, NULL);
    snprintf(expected_key, sizeof expected_key, "%s%s", comparison->prefix, name);
    const enum rp_status status =
        rp_gguf_get_bool(comparison->checkpoint, expected_key, &wanted, comparison->err);
    const struct rp_gguf_value *value = find(comparison, name, key);
    bool is_right = status == RP_OK;
    if (value)
        is_right = is_right && rp_gguf_get_bool(comparison->file, key, &found, NULL) == RP_OK;
    if (status == RP_OK)
        report(comparison, key, is_right && found == wanted,
               found   ? "true"
               : value ? "false"
                       : "missing, which readers take for false",
               wanted ? "true" : "false", "");
    return status;
}

static enum rp_status compare_array(const struct comparison *comparison, const char *name)
{
    char key[KEY_SIZE], expected_key[KEY_SIZE], found[TEXT_SIZE] = "missing", wanted[TEXT_SIZE];
    int64_t *expected = NULL, *values = NULL;
    size_t n = 0, n_values = 0;
    snprintf(expected_key, sizeof expected_key, "%s%s", comparison->prefix, name);
    enum rp_status status =
        rp_gguf_get_ints(comparison->checkpoint, expected_key, &expected, &n, comparison->err);
    const struct rp_gguf_value *value = find(comparison, name, key);
    bool is_right = status == RP_OK && value &&
                    rp_gguf_get_ints(comparison->file, key, &values, &n_values, NULL) == RP_OK &&
                    n_values == n;
    for (size_t i = 0; is_right && i < n; i++)
        is_right = values[i] == expected[i];
    if (value)
        text_of(comparison->file, value, found);
    if (status == RP_OK)
        report(comparison, key, is_right, found,
               text_of(comparison->checkpoint,
                       rp_gguf_find_value(comparison->checkpoint, expected_key), wanted),
               "");
    free(expected);
    free(values);
    return status;
}

/* Whether a reader takes the file for the checkpoint's rope scaling where the file has no type of it: that is
 * linear, or longrope where its tensors are there, as Phi-3's converter has it. */
static bool is_known_without_type(const struct comparison *comparison, const char *key)
{
    struct rp_gguf_string type = {"", 0};
    (void)rp_gguf_get_string(comparison->checkpoint, key, &type, NULL);
    return (type.length == 6 && memcmp(type.data, "linear", 6) == 0) ||
           (type.length == 8 && memcmp(type.data, "longrope", 8) == 0 &&
            rp_gguf_find_tensor(comparison->file, "rope_factors_short.weight"));
}

static enum rp_status compare_value(const struct comparison *comparison,
                                    const struct rp_gguf_value *expected)
{
    char key[KEY_SIZE], file_key[KEY_SIZE];
    const size_t n_prefix = strlen(comparison->prefix);
    snprintf(key, sizeof key, "%.*s", (int)expected->key.length, expected->key.data);
    if (strncmp(key, ABSENT, strlen(ABSENT)) == 0)
        return RP_OK;
    if (strcmp(key, "checkpoint.bos_token_ids") == 0)
        return compare_token_id(comparison, "tokenizer.ggml.bos_token_id", expected);
    if (strcmp(key, "checkpoint.eos_token_ids") == 0)
        return compare_token_id(comparison, "tokenizer.ggml.eos_token_id", expected);
    if (strncmp(key, comparison->prefix, n_prefix) != 0) {
        compare_text(comparison, key, expected);
        return RP_OK;
    }
    const char *name = key + n_prefix;
    if (is_number(expected->kind)) {
        compare_number(comparison, name, expected);
        return RP_OK;
    }
    if (expected->kind == RP_GGUF_STRING) {
        const struct rp_gguf_value *value = find(comparison, name, file_key);
        if (value || strcmp(name, "rope.scaling.type") != 0 ||
            !is_known_without_type(comparison, key))
            compare_text(comparison, file_key, expected);
        return RP_OK;
    }
    if (strcmp(name, "attention.recurrent_layers") == 0)
        return compare_layer_kinds(comparison, name);
    if (strcmp(name, "expert_weights_norm") == 0)
        return compare_weights_norm(comparison, name);
    return compare_array(comparison, name);
}

/* Keys that change the result, where the checkpoint has nothing of the kind. */
static void find_surplus(const struct comparison *comparison)
{
    static const struct {
        const char *name;
        double neutral;         /* what changes nothing, beside 0 */
        const char *checkpoint; /* the checkpoint's key, where it has another name; else NULL */
    } keys[] = {{"rope.scaling.factor", 1, NULL},
                {"rope.scaling.attn_factor", 1, NULL},
                {"rope.scale_linear", 1, NULL},
                {"expert_count", 0, NULL},
                {"expert_used_count", 0, NULL},
                {"expert_group_count", 1, NULL},
                {"expert_shared_count", 0, "expert_shared_feed_forward_length"},
                {"expert_shared_feed_forward_length", 0, NULL},
                {"leading_dense_block_count", 0, NULL},
                {"attention.sliding_window", 0, NULL},
                {"attention.scale", 0, NULL},
                {"attention.clamp_kqv", 0, NULL},
                {"attn_logit_softcapping", 0, NULL},
                {"final_logit_softcapping", 0, NULL},
                {"logit_scale", 1, NULL},
                {"residual_scale", 1, NULL},
                {"embedding_scale", 1, NULL},
                {"attention.max_alibi_bias", 0, NULL}};
    char key[KEY_SIZE], own[KEY_SIZE], text[TEXT_SIZE];
    struct rp_gguf_string scaling;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const struct rp_gguf_value *value = find(comparison, keys[i].name, key);
        const double found = value ? number_at(comparison->file, key) : 0;
        snprintf(own, sizeof own, "%s%s", comparison->prefix,
                 keys[i].checkpoint ? keys[i].checkpoint : keys[i].name);
        if (found != 0 && found != keys[i].neutral &&
            !rp_gguf_find_value(comparison->checkpoint, own))
            report(comparison, key, false, text_of(comparison->file, value, text), "nothing of it",
                   "");
    }
    const struct rp_gguf_value *value = find(comparison, "rope.scaling.type", key);
    snprintf(own, sizeof own, "%s%s", comparison->prefix, "rope.scaling.type");
    if (value && !rp_gguf_find_value(comparison->checkpoint, own) &&
        !(rp_gguf_get_string(comparison->file, key, &scaling, NULL) == RP_OK &&
          scaling.length == 4 && memcmp(scaling.data, "none", 4) == 0))
        report(comparison, key, false, text_of(comparison->file, value, text), "nothing of it",
               "llama3 scaling stands in the tensor rope_freqs.weight");
}

enum rp_status rp_compare_metadata(const struct rp_gguf *file, const struct rp_gguf *checkpoint,
                                   rp_weights_fn *see, void *context, struct rp_error *err)
{
    struct comparison comparison = {
        .file = file, .checkpoint = checkpoint, .see = see, .context = context, .err = err};
    enum rp_status status = RP_OK;
    read_prefix(file, comparison.file_prefix);
    read_prefix(checkpoint, comparison.prefix);
    for (size_t i = 0; i < rp_gguf_n_values(checkpoint) && status == RP_OK; i++)
        status = compare_value(&comparison, rp_gguf_value(checkpoint, i));
    if (status == RP_OK)
        find_surplus(&comparison);
    return status;
}
