/* A checkpoint as a GGUF: the tiny checkpoints give exactly what their BF16 GGUFs hold, and what is not
 * computed or does not fit together is an error with its place. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "architectures/checkpoint_config.h"
#include "architectures/from_checkpoint.h"
#include "base/file.h"
#include "base/scratch_test_util.h"

static const char *const models[] = {"qwen3", "llama", "qwen35"};

/* expf of another library: HF's decay and rope factors. */
#define OTHER_EXP 3e-7f

static void compare_tensor(const struct rp_gguf *checkpoint, const struct rp_gguf *file,
                           const struct rp_gguf_tensor *tensor)
{
    const struct rp_gguf_tensor *other = rp_gguf_find_tensor(file, tensor->name);
    const size_t n = tensor->n_rows * tensor->dims[0];
    float *a = malloc(n * sizeof *a), *b = malloc(n * sizeof *b);
    assert_true(a && b && other);
    if (!a || !b || !other) /* for the analyzer, which does not know assert_true */
        abort();
    assert_memory_equal(tensor->dims, other->dims, sizeof tensor->dims);
    assert_int_equal(tensor->n_dims, other->n_dims);
    assert_int_equal(rp_gguf_rows(checkpoint, tensor, 0, tensor->n_rows, a, NULL), RP_OK);
    assert_int_equal(rp_gguf_rows(file, other, 0, tensor->n_rows, b, NULL), RP_OK);
    const bool is_exact = !strstr(tensor->name, "ssm_a") || strstr(tensor->name, "ssm_alpha");
    if (is_exact && strcmp(tensor->name, "rope_freqs.weight") != 0)
        assert_memory_equal(a, b, n * sizeof *a);
    for (size_t i = 0; i < n; i++)
        assert_true(fabsf(a[i] - b[i]) <= OTHER_EXP * fabsf(b[i]));
    free(a);
    free(b);
}

static void the_tiny_checkpoints_are_their_bf16_ggufs(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        char folder[512], path[600];
        struct rp_gguf *checkpoint = NULL, *file = NULL;
        struct rp_error err;
        snprintf(folder, sizeof folder, "%s/fixtures/tiny/%s", RP_SOURCE_DIR, models[i]);
        snprintf(path, sizeof path, "%s/%s-bf16.gguf", folder, models[i]);
        if (rp_gguf_open_checkpoint(folder, &checkpoint, &err) != RP_OK)
            fail_msg("%s: %s", err.where, err.message);
        assert_int_equal(rp_gguf_open(path, &file, &err), RP_OK);
        assert_int_equal(rp_gguf_n_tensors(checkpoint), rp_gguf_n_tensors(file));
        for (size_t k = 0; k < rp_gguf_n_tensors(checkpoint); k++)
            compare_tensor(checkpoint, file, rp_gguf_tensor(checkpoint, k));
        rp_gguf_close(checkpoint);
        rp_gguf_close(file);
    }
}

/* A checkpoint of the model's weights and its config.json with one text for another; to be removed. */
static void make_changed(const char *model, const char *find, const char *replace, char folder[256])
{
    char source[512], target[512], *text = NULL;
    size_t length;
    rp_test_make_folder(folder);
    snprintf(source, sizeof source, "%s/fixtures/tiny/%s/model.safetensors", RP_SOURCE_DIR, model);
    snprintf(target, sizeof target, "%s/model.safetensors", folder);
    assert_int_equal(symlink(source, target), 0);
    snprintf(source, sizeof source, "%s/fixtures/tiny/%s/config.json", RP_SOURCE_DIR, model);
    assert_int_equal(rp_file_read(source, 1 << 20, &text, &length, NULL), RP_OK);
    char *at = strstr(text, find);
    assert_non_null(at);
    const size_t size = length + strlen(replace) + 1;
    char *changed = calloc(1, size);
    assert_non_null(changed);
    snprintf(changed, size, "%.*s%s%s", (int)(at - text), text, replace, at + strlen(find));
    rp_test_write_file(folder, "config.json", changed, strlen(changed));
    free(changed);
    free(text);
}

static enum rp_status open_changed(const char *model, const char *find, const char *replace,
                                   struct rp_gguf **gguf, struct rp_error *err)
{
    char folder[256];
    make_changed(model, find, replace, folder);
    const enum rp_status status = rp_gguf_open_checkpoint(folder, gguf, err);
    assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
    return status;
}

static void expect_error(const char *model, const char *find, const char *replace,
                         enum rp_status code, const char *message)
{
    struct rp_gguf *gguf = NULL;
    struct rp_error err = {.code = RP_OK};
    assert_int_equal(open_changed(model, find, replace, &gguf, &err), code);
    assert_string_equal(err.message, message);
    assert_null(gguf);
}

static void layers_for_prediction_are_left_out(void **state)
{
    (void)state;
    struct rp_gguf *gguf = NULL;
    struct rp_error err = {.code = RP_OK};
    if (open_changed("llama", "\"num_hidden_layers\": 4",
                     "\"num_hidden_layers\": 3, \"num_nextn_predict_layers\": 1", &gguf,
                     &err) != RP_OK)
        fail_msg("%s", err.message);
    assert_non_null(rp_gguf_find_tensor(gguf, "blk.2.attn_q.weight"));
    assert_null(rp_gguf_find_tensor(gguf, "blk.3.attn_q.weight"));
    rp_gguf_close(gguf);
    expect_error("llama", "\"num_hidden_layers\": 4",
                 "\"num_hidden_layers\": 2, \"num_nextn_predict_layers\": 1", RP_ERR_UNSUPPORTED,
                 "tensor 'model.layers.3.input_layernorm.weight' is not part of architecture "
                 "'llama' with 2 layers");
}

/* With that rope_type, and settings behind it; closed by the caller. */
static struct rp_gguf *open_scaled(const char *settings)
{
    struct rp_gguf *gguf = NULL;
    struct rp_error err = {.code = RP_OK};
    if (open_changed("llama", "\"rope_type\": \"llama3\"", settings, &gguf, &err) != RP_OK)
        fail_msg("%s", err.message);
    return gguf;
}

static double number(const struct rp_gguf *gguf, const char *key)
{
    double value;
    assert_int_equal(rp_gguf_get_float(gguf, key, &value, NULL), RP_OK);
    return value;
}

/* Expected: HF's, by LlamaConfig and ROPE_INIT_FUNCTIONS as in operations/rope_scaling_test.c. */
static void yarn_s_settings_are_hf_s(void **state)
{
    (void)state;
    static const struct {
        const char *settings;
        double attention_factor;
    } cases[] = {
        {"\"rope_type\": \"yarn\"", 1.2079441541679836},
        {"\"type\": \"yarn\", \"truncate\": true", 1.2079441541679836},
        {"\"rope_type\": \"yarn\", \"attention_factor\": 0.75", 0.75},
        {"\"rope_type\": \"yarn\", \"attention_factor\": null", 1.2079441541679836},
        {"\"rope_type\": \"yarn\", \"mscale\": 1.0, \"mscale_all_dim\": 0.5", 1.094179988101349},
        {"\"rope_type\": \"yarn\", \"mscale_all_dim\": 0.5", 1.2079441541679836},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rp_gguf *gguf = open_scaled(cases[i].settings);
        const double found = number(gguf, "llama.rope.scaling.yarn_attn_factor");
        if (!(fabs(found - cases[i].attention_factor) < 1e-7))
            fail_msg("%s: %.9g, expected %.9g", cases[i].settings, found,
                     cases[i].attention_factor);
        assert_true(number(gguf, "llama.rope.scaling.factor") == 8);
        assert_true(number(gguf, "llama.rope.scaling.yarn_beta_fast") == 32);
        assert_null(rp_gguf_find_tensor(gguf, "rope_freqs.weight"));
        rp_gguf_close(gguf);
    }
}

static void longrope_s_factors_are_tensors(void **state)
{
    (void)state;
    struct rp_gguf *gguf =
        open_scaled("\"rope_type\": \"longrope\", \"short_factor\": [1, 1, 1, 1, 1, 1, 1, 1.5], "
                    "\"long_factor\": [1, 2, 3, 4, 5, 6, 7, 8]");
    const struct rp_gguf_tensor *factors = rp_gguf_find_tensor(gguf, "rope_factors_long.weight");
    float values[8];
    assert_non_null(factors);
    assert_int_equal(rp_gguf_row(gguf, factors, 0, values, NULL), RP_OK);
    assert_true(values[7] == 8);
    assert_true(fabs(number(gguf, "llama.rope.scaling.attn_factor") - 1.224744871391589) < 1e-7);
    rp_gguf_close(gguf);
}

static void rope_scaling_that_is_not_computed_is_an_error(void **state)
{
    (void)state;
    static const char type[] = "\"rope_type\": \"llama3\"";
    expect_error("llama", type, "\"rope_type\": \"dynamic\"", RP_ERR_UNSUPPORTED,
                 "rope scaling dynamic; \"default\", \"linear\", \"yarn\", \"longrope\" and, of "
                 "Llama, \"llama3\" are computed");
    expect_error("llama", type, "\"rope_type\": \"yarn\", \"truncate\": false", RP_ERR_UNSUPPORTED,
                 "\"truncate\" is false; a GGUF's readers take the architecture for true");
    expect_error("llama", type, "\"rope_type\": \"yarn\", \"beta_slow\": 40", RP_ERR_FORMAT,
                 "beta_fast is 32, expected more than beta_slow, 40");
    expect_error("llama", type, "\"rope_type\": \"yarn\", \"mscale\": \"1\"", RP_ERR_FORMAT,
                 "\"mscale\": expected a number above 0, up to 1e9");
    expect_error("llama", type, "\"rope_type\": \"longrope\", \"short_factor\": [1, 2]",
                 RP_ERR_MISMATCH,
                 "\"short_factor\": expected an array of one for each rotated pair, 8");
    expect_error("qwen3", "\"rope_type\": \"default\"", "\"rope_type\": \"linear\"", RP_ERR_MISSING,
                 "\"factor\" is missing");
}

static void settings_that_are_not_computed_are_errors(void **state)
{
    (void)state;
    expect_error(
        "llama", "\"model_type\": \"llama\"", "\"model_type\": \"gemma\"", RP_ERR_UNSUPPORTED,
        "model_type gemma; computed are: deepseek_v2, deepseek_v3, gemma2, gemma3, gemma3_text, "
        "gpt_oss, llama, mistral, "
        "phi3, qwen2, "
        "qwen3, qwen3_5, "
        "qwen3_5_text, qwen3_5_moe, qwen3_5_moe_text, qwen3_moe, smollm3");
    expect_error("qwen3", "\"silu\"", "\"gelu\"", RP_ERR_UNSUPPORTED,
                 "\"hidden_act\" is not \"silu\", which alone is computed");
    expect_error("qwen3", "\"use_sliding_window\": false",
                 "\"use_sliding_window\": true, \"sliding_window\": 64", RP_ERR_FORMAT,
                 "expected each key once, found \"sliding_window\" again");
    expect_error("qwen3", "\"full_attention\"", "\"sliding_attention\"", RP_ERR_UNSUPPORTED,
                 "layer 0 is of type sliding_attention, which qwen3 does not compute");
    expect_error("qwen35", "\"linear_value_head_dim\": 16", "\"linear_value_head_dim\": 32",
                 RP_ERR_UNSUPPORTED,
                 "linear_value_head_dim is 32, linear_key_head_dim 16; only equal ones are "
                 "computed");
}

static void settings_that_do_not_fit_are_errors(void **state)
{
    (void)state;
    expect_error("llama", "\"rms_norm_eps\": 1e-05,", "", RP_ERR_MISSING,
                 "\"rms_norm_eps\" is missing");
    expect_error("llama", "\"rms_norm_eps\": 1e-05,", "\"rms_norm_eps\": -1,", RP_ERR_FORMAT,
                 "\"rms_norm_eps\": expected a number above 0");
    expect_error("llama", "\"hidden_size\": 64", "\"hidden_size\": 1e99", RP_ERR_FORMAT,
                 "\"hidden_size\": expected a number from 1 to 16777216");
    expect_error("llama", "\"num_attention_heads\": 4", "\"num_attention_heads\": 3",
                 RP_ERR_MISMATCH,
                 "3 heads, 2 KV heads, hidden_size 64: heads do not divide evenly");
    expect_error("llama", "\"intermediate_size\": 192", "\"intermediate_size\": 128",
                 RP_ERR_MISMATCH,
                 "tensor 'model.layers.0.mlp.gate_proj.weight' is [192][64], expected [128][64] "
                 "from config.json");
    expect_error("llama", "\"num_hidden_layers\": 4", "\"num_hidden_layers\": 3",
                 RP_ERR_UNSUPPORTED,
                 "tensor 'model.layers.3.input_layernorm.weight' is not part of architecture "
                 "'llama' with 3 layers");
    expect_error("llama", "\"num_hidden_layers\": 4", "\"num_hidden_layers\": 5", RP_ERR_MISSING,
                 "tensor 'model.layers.4.input_layernorm.weight' is missing");
    expect_error("qwen3", "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false",
                 RP_ERR_MISSING, "tensor 'lm_head.weight' is missing");
    expect_error("qwen35", "\"linear_num_key_heads\": 2", "\"linear_num_key_heads\": 3",
                 RP_ERR_MISMATCH, "4 V heads, expected a multiple of linear_num_key_heads, 3");
}

/* The tiny Qwen3 taken for a mixture of experts. */
static void experts_that_cannot_be_chosen_are_errors(void **state)
{
    (void)state;
    static const char type[] = "\"model_type\": \"qwen3\"";
    static const struct {
        const char *experts, *message;
        enum rp_status status;
    } cases[] = {
        {"", "\"num_experts\" or \"num_local_experts\" or \"n_routed_experts\" is missing",
         RP_ERR_MISSING},
        {"\"num_experts\": 0,", "\"num_experts\": expected a number from 1 to 16777216",
         RP_ERR_FORMAT},
        {"\"num_local_experts\": 8,", "\"num_experts_per_tok\" or \"experts_per_token\" is missing",
         RP_ERR_MISSING},
        {"\"num_experts\": 8, \"num_experts_per_tok\": 9,",
         "9 experts a token, expected at most the experts to choose from, 8", RP_ERR_MISMATCH},
        {"\"num_experts\": 8, \"num_experts_per_tok\": 5, \"n_group\": 4, \"topk_group\": 2,",
         "5 experts a token, expected at most the experts to choose from, 4", RP_ERR_MISMATCH},
        {"\"num_experts\": 8, \"num_experts_per_tok\": 2, \"n_group\": 3,",
         "2 of 8 experts from 1 of 3 groups: they do not divide evenly", RP_ERR_MISMATCH},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char replace[256];
        snprintf(replace, sizeof replace, "%s \"model_type\": \"qwen3_moe\"", cases[i].experts);
        expect_error("qwen3", type, replace, cases[i].status, cases[i].message);
    }
}

/* Whether the weights of the chosen experts are divided by their sum: config.json's word, else the class's default
 * in transformers; and what a file's readers take for an absent key is another question. */
static void what_config_json_does_not_say_is_the_class_s_default(void **state)
{
    (void)state;
    static const struct {
        const char *model_type, *says;
        bool normalizes;
    } cases[] = {
        {"qwen3_moe", "", false},
        {"qwen3_moe", "\"norm_topk_prob\": true,", true},
        {"qwen3_moe", "\"norm_topk_prob\": null,", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char folder[256], replace[256];
        struct rp_checkpoint *checkpoint = NULL;
        struct rp_checkpoint_config config;
        struct rp_error err = {.code = RP_OK};
        snprintf(replace, sizeof replace,
                 "\"num_experts\": 8, \"num_experts_per_tok\": 2, %s \"model_type\": \"%s\"",
                 cases[i].says, cases[i].model_type);
        make_changed("qwen3", "\"model_type\": \"qwen3\"", replace, folder);
        assert_int_equal(rp_checkpoint_open(folder, &checkpoint, &err), RP_OK);
        if (rp_checkpoint_config_read(checkpoint, &config, &err) != RP_OK)
            fail_msg("%s", err.message);
        assert_int_equal(config.model.router.normalizes, cases[i].normalizes);
        rp_checkpoint_config_free(&config);
        rp_checkpoint_close(checkpoint);
        assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
    }
    assert_true(rp_architecture_of_hf("deepseek_v3")->hf_normalizes);
    assert_false(rp_architecture_of_hf("deepseek_v2")->hf_normalizes);
    assert_true(rp_architecture_of_hf("qwen3_5_moe")->hf_normalizes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_tiny_checkpoints_are_their_bf16_ggufs),
        cmocka_unit_test(settings_that_are_not_computed_are_errors),
        cmocka_unit_test(settings_that_do_not_fit_are_errors),
        cmocka_unit_test(layers_for_prediction_are_left_out),
        cmocka_unit_test(yarn_s_settings_are_hf_s),
        cmocka_unit_test(longrope_s_factors_are_tensors),
        cmocka_unit_test(rope_scaling_that_is_not_computed_is_an_error),
        cmocka_unit_test(experts_that_cannot_be_chosen_are_errors),
        cmocka_unit_test(what_config_json_does_not_say_is_the_class_s_default),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
