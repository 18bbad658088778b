/* What a model has to have to be opened: each missing or contradicting key or tensor is an error that
 * names it. Running models is tested in run_test.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "model/model_builder.h"

static void expect_refused(const struct variant *variant, enum rp_status code, const char *message)
{
    struct rp_model *model = NULL;
    struct rp_error err = {.code = RP_OK};
    write_model(variant);
    assert_int_equal(rp_model_open(path, &model, &err), code);
    assert_string_equal(err.message, message);
    assert_string_equal(err.where, path);
    assert_null(model);
}

static void the_configuration_is_read(void **state)
{
    (void)state;
    struct variant llama = {.architecture = "llama", .untied = true, .freq_factor = 8};
    struct rp_model *model = open_variant(&(struct variant){.without = NULL});
    const struct rp_model_config *config = rp_model_config(model);
    assert_string_equal(config->architecture, "qwen3");
    assert_int_equal(config->n_layers, N_LAYERS);
    assert_int_equal(config->head_dim, HEAD_DIM);
    assert_int_equal(config->n_rot, HEAD_DIM);
    assert_int_equal(config->vocab_size, VOCAB);
    assert_int_equal(config->rope_ordering, RP_ROPE_NEOX);
    assert_true(config->has_tied_embeddings);
    assert_true(config->rms_norm_eps == 1e-6f);
    rp_model_close(model);
    model = open_variant(&llama);
    config = rp_model_config(model);
    assert_int_equal(config->rope_ordering, RP_ROPE_INTERLEAVED);
    assert_false(config->has_tied_embeddings);
    rp_model_close(model);
    rp_model_close(NULL);
}

static void head_size_and_kv_heads_have_defaults(void **state)
{
    (void)state;
    struct variant no_rot = {.without = "rope.dimension_count"};
    struct rp_model *model = open_variant(&no_rot);
    assert_int_equal(rp_model_config(model)->n_rot, HEAD_DIM);
    rp_model_close(model);
    expect_refused(&(struct variant){.without = "attention.head_count_kv"}, RP_ERR_MISMATCH,
                   "tensor 'blk.0.attn_k.weight' is [1][1][12][8], expected [1][1][24][8] from the "
                   "configuration");
}

static void a_missing_key_is_named(void **state)
{
    (void)state;
    static const char *const keys[] = {"block_count", "embedding_length", "feed_forward_length",
                                       "attention.head_count"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char message[128];
        snprintf(message, sizeof message, "key 'qwen3.%s' is missing", keys[i]);
        expect_refused(&(struct variant){.without = keys[i]}, RP_ERR_MISSING, message);
    }
}

static void contradicting_keys_are_an_error(void **state)
{
    (void)state;
    expect_refused(&(struct variant){.changed = "attention.head_count_kv", .value = 3},
                   RP_ERR_MISMATCH,
                   "key 'qwen3.attention.head_count_kv' is 3, expected a divisor of head_count, 4");
    expect_refused(&(struct variant){.changed = "rope.dimension_count", .value = 5},
                   RP_ERR_MISMATCH,
                   "key 'qwen3.rope.dimension_count' is 5, expected an even number up to the head "
                   "size, 6");
    expect_refused(&(struct variant){.changed = "rope.dimension_count", .value = 8},
                   RP_ERR_MISMATCH,
                   "key 'qwen3.rope.dimension_count' is 8, expected an even number up to the head "
                   "size, 6");
    expect_refused(&(struct variant){.changed = "vocab_size", .value = 12}, RP_ERR_MISMATCH,
                   "key 'qwen3.vocab_size' is 12, expected the rows of 'token_embd.weight', 11");
    expect_refused(&(struct variant){.n_tokens_listed = 10}, RP_ERR_MISMATCH,
                   "key 'tokenizer.ggml.tokens' lists 10 tokens, expected the rows of "
                   "'token_embd.weight', 11");
    expect_refused(&(struct variant){.eps_is_zero = true}, RP_ERR_FORMAT,
                   "key 'qwen3.attention.layer_norm_rms_epsilon' is 0, expected a number above 0");
    expect_refused(&(struct variant){.changed = "attention.head_count", .value = 0},
                   RP_ERR_UNSUPPORTED,
                   "key 'qwen3.attention.head_count' is 0, expected 1 to 16777216");
}

static void each_layer_may_have_a_width_of_its_own(void **state)
{
    (void)state;
    static const uint32_t same[N_LAYERS] = {FFN, FFN, FFN}, other[N_LAYERS] = {FFN, 16, FFN + 8},
                          none[N_LAYERS] = {FFN, 0, FFN};
    struct rp_model *model = open_variant(&(struct variant){.widths = same});
    assert_int_equal(rp_model_config(model)->intermediate_size, FFN);
    rp_model_close(model);
    model = open_variant(&(struct variant){.widths = other});
    for (size_t layer = 0; layer < N_LAYERS; layer++) {
        struct rp_layer weights;
        assert_int_equal(rp_model_slot_width(model, RP_PART_UP, layer), other[layer]);
        assert_int_equal(rp_layer_load(model, layer, &weights, NULL), RP_OK);
        assert_int_equal(weights.weights[RP_FFN_DOWN].n_in, other[layer]);
        rp_layer_free(&weights);
    }
    rp_model_close(model);
    expect_refused(&(struct variant){.widths = none}, RP_ERR_UNSUPPORTED,
                   "key 'qwen3.feed_forward_length' is 0 for layer 1, expected 1 to 16777216");
    expect_refused(&(struct variant){.widths = other, .n_widths = 2}, RP_ERR_MISMATCH,
                   "key 'qwen3.feed_forward_length' has 2 elements, expected one per layer, 3");
}

static void shapes_that_contradict_the_configuration_are_an_error(void **state)
{
    (void)state;
    expect_refused(&(struct variant){.changed = "embedding_length", .value = 16}, RP_ERR_MISMATCH,
                   "tensor 'token_embd.weight' is [1][1][11][8], expected [1][1][11][16] from the "
                   "configuration");
    expect_refused(&(struct variant){.changed = "feed_forward_length", .value = 31},
                   RP_ERR_MISMATCH,
                   "tensor 'blk.0.ffn_gate.weight' is [1][1][32][8], expected [1][1][31][8] from "
                   "the configuration");
}

static void too_few_or_too_many_tensors_are_an_error(void **state)
{
    (void)state;
    expect_refused(&(struct variant){.without = "blk.1.attn_q_norm.weight"}, RP_ERR_MISSING,
                   "tensor 'blk.1.attn_q_norm.weight' is missing");
    expect_refused(&(struct variant){.without = "token_embd.weight"}, RP_ERR_MISSING,
                   "tensor 'token_embd.weight' is missing");
    expect_refused(&(struct variant){.changed = "block_count", .value = 4}, RP_ERR_MISSING,
                   "tensor 'blk.3.attn_norm.weight' is missing");
    expect_refused(&(struct variant){.changed = "block_count", .value = 2}, RP_ERR_UNSUPPORTED,
                   "tensor 'blk.2.attn_norm.weight' is not part of architecture 'qwen3' with 2 "
                   "layers");
    expect_refused(&(struct variant){.extra_tensor = "blk.0.attn_q.bias"}, RP_ERR_UNSUPPORTED,
                   "tensor 'blk.0.attn_q.bias' is not part of architecture 'qwen3' with 3 layers");
    expect_refused(&(struct variant){.freq_factor = 8}, RP_ERR_UNSUPPORTED,
                   "tensor 'rope_freqs.weight' is not part of architecture 'qwen3' with 3 layers");
}

static void layers_for_prediction_are_left_out(void **state)
{
    (void)state;
    struct rp_model *model =
        open_variant(&(struct variant){.changed = "nextn_predict_layers", .value = 1});
    assert_int_equal(rp_model_config(model)->n_layers, N_LAYERS - 1);
    assert_int_equal(rp_model_config(model)->n_prediction_layers, 1);
    rp_model_close(model);
    model = open_variant(&(struct variant){.architecture = "qwen35",
                                           .changed = "nextn_predict_layers",
                                           .value = 1,
                                           .recurrent_layers = "101"});
    assert_int_equal(rp_model_config(model)->layer_kinds[1], RP_LAYER_FULL_ATTENTION);
    rp_model_close(model);
    expect_refused(&(struct variant){.changed = "nextn_predict_layers", .value = N_LAYERS},
                   RP_ERR_UNSUPPORTED, "key 'qwen3.nextn_predict_layers' is 3, expected 0 to 2");
    expect_refused(&(struct variant){.changed = "nextn_predict_layers",
                                     .value = 1,
                                     .extra_tensor = "blk.3.attn_norm.weight"},
                   RP_ERR_UNSUPPORTED,
                   "tensor 'blk.3.attn_norm.weight' is not part of architecture 'qwen3' with 2 "
                   "layers");
}

static void what_is_not_computed_is_refused(void **state)
{
    (void)state;
    expect_refused(
        &(struct variant){.architecture = "gpt2"}, RP_ERR_UNSUPPORTED,
        "architecture \"gpt2\"; computed are: deepseek2, gemma2, gemma3, gpt-oss, llama, phi3, "
        "qwen2, qwen3, "
        "qwen35, qwen35moe, "
        "qwen3moe, smollm3");
    expect_refused(&(struct variant){.changed = "attention.value_length", .value = 4},
                   RP_ERR_UNSUPPORTED,
                   "key 'qwen3.attention.value_length' is 4 and key_length 6; only equal lengths "
                   "are computed");
    expect_refused(&(struct variant){.changed = "expert_count", .value = 8}, RP_ERR_UNSUPPORTED,
                   "key 'qwen3.expert_count' is 8, which this model does not compute");
    expect_refused(&(struct variant){.architecture = "llama", .freq_factor = -1}, RP_ERR_FORMAT,
                   "tensor 'rope_freqs.weight': value 2 is -1, expected a number above 0");
    rp_model_close(open_variant(&(struct variant){.scaling = "none"}));
}

static void a_weight_that_cannot_be_decoded_fails_its_layer_alone(void **state)
{
    (void)state;
    struct rp_model *model = open_variant(&(struct variant){.bad_type = "blk.2.ffn_up.weight"});
    struct rp_error err;
    assert_int_equal(rp_layer_check_decodable(model, 1, &err), RP_OK);
    assert_int_equal(rp_layer_check_decodable(model, 2, &err), RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message,
                        "tensor 'blk.2.ffn_up.weight': weights of type I8 (24) cannot be decoded");
    assert_null(rp_model_undecodable(model, 2, RP_FFN_GATE));
    assert_non_null(rp_model_undecodable(model, 2, RP_FFN_UP));
    rp_model_close(model);
}

/* ---- the hybrid ---- */

static void the_hybrids_configuration_is_read(void **state)
{
    (void)state;
    struct rp_model *model = open_variant(&(struct variant){.architecture = "qwen35"});
    const struct rp_model_config *config = rp_model_config(model);
    assert_true(config->has_attention_gate);
    assert_int_equal(config->n_linear_k_heads, LINEAR_K_HEADS);
    assert_int_equal(config->n_linear_v_heads, LINEAR_V_HEADS);
    assert_int_equal(config->linear_head_dim, LINEAR_DIM);
    assert_int_equal(config->conv_kernel, CONV_KERNEL);
    assert_int_equal(config->layer_kinds[0], RP_LAYER_LINEAR_ATTENTION);
    assert_int_equal(config->layer_kinds[1], RP_LAYER_FULL_ATTENTION);
    assert_int_equal(config->layer_kinds[2], RP_LAYER_LINEAR_ATTENTION);
    rp_model_close(model);
    model = open_variant(&(struct variant){.without = NULL});
    config = rp_model_config(model);
    assert_false(config->has_attention_gate);
    assert_int_equal(config->layer_kinds[0], RP_LAYER_FULL_ATTENTION);
    assert_int_equal(config->n_linear_v_heads, 0);
    rp_model_close(model);
}

static void recurrent_layers_come_before_the_interval(void **state)
{
    (void)state;
    struct variant listed = {.architecture = "qwen35",
                             .recurrent_layers = "101",
                             .changed = "full_attention_interval",
                             .value = 3};
    struct variant absent = {.architecture = "qwen35", .without = "full_attention_interval"};
    struct rp_model *model = open_variant(&listed);
    assert_int_equal(rp_model_config(model)->layer_kinds[1], RP_LAYER_FULL_ATTENTION);
    assert_int_equal(rp_model_config(model)->layer_kinds[2], RP_LAYER_LINEAR_ATTENTION);
    rp_model_close(model);
    listed.recurrent_layers = NULL;
    expect_refused(&listed, RP_ERR_MISSING, "tensor 'blk.1.attn_qkv.weight' is missing");
    expect_refused(&absent, RP_ERR_MISSING, "tensor 'blk.1.attn_qkv.weight' is missing");
    listed.recurrent_layers = "10";
    expect_refused(&listed, RP_ERR_MISMATCH,
                   "key 'qwen35.attention.recurrent_layers' has 2 elements, expected one per "
                   "layer, 3");
    listed.recurrent_layers = "102";
    expect_refused(&listed, RP_ERR_FORMAT,
                   "key 'qwen35.attention.recurrent_layers': element 2 is the byte 2, expected 0 "
                   "or 1");
    listed.recurrent_layers = "";
    expect_refused(&listed, RP_ERR_MISMATCH,
                   "key 'qwen35.attention.recurrent_layers' has 0 elements, expected one per "
                   "layer, 3");
}

static void a_wrong_delta_net_is_an_error(void **state)
{
    (void)state;
    static const char *const keys[] = {"ssm.conv_kernel", "ssm.state_size", "ssm.group_count",
                                       "ssm.time_step_rank", "ssm.inner_size"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char message[128];
        struct variant variant = {.architecture = "qwen35", .without = keys[i]};
        snprintf(message, sizeof message, "key 'qwen35.%s' is missing", keys[i]);
        expect_refused(&variant, RP_ERR_MISSING, message);
    }
    expect_refused(
        &(struct variant){.architecture = "qwen35", .changed = "ssm.group_count", .value = 3},
        RP_ERR_MISMATCH,
        "key 'qwen35.ssm.group_count' is 3, expected a divisor of ssm.time_step_rank, 4");
    expect_refused(
        &(struct variant){.architecture = "qwen35", .changed = "ssm.inner_size", .value = 16},
        RP_ERR_MISMATCH,
        "key 'qwen35.ssm.inner_size' is 16, expected ssm.time_step_rank * ssm.state_size, 12");
    expect_refused(
        &(struct variant){.architecture = "qwen35", .changed = "ssm.conv_kernel", .value = 3},
        RP_ERR_MISMATCH,
        "tensor 'blk.0.ssm_conv1d.weight' is [1][1][24][4], expected [1][1][24][3] from the "
        "configuration");
    expect_refused(
        &(struct variant){.architecture = "qwen35", .changed = "ssm.conv_kernel", .value = 0},
        RP_ERR_UNSUPPORTED, "key 'qwen35.ssm.conv_kernel' is 0, expected 1 to 16777216");
    expect_refused(&(struct variant){.architecture = "qwen35", .without = "blk.2.ssm_dt.bias"},
                   RP_ERR_MISSING, "tensor 'blk.2.ssm_dt.bias' is missing");
    expect_refused(&(struct variant){.architecture = "qwen35", .without = "blk.0.ssm_a"},
                   RP_ERR_MISSING, "tensor 'blk.0.ssm_a' is missing");
    expect_refused(
        &(struct variant){.architecture = "qwen35", .without = "blk.1.post_attention_norm.weight"},
        RP_ERR_MISSING, "tensor 'blk.1.post_attention_norm.weight' is missing");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_configuration_is_read),
        cmocka_unit_test(head_size_and_kv_heads_have_defaults),
        cmocka_unit_test(a_missing_key_is_named),
        cmocka_unit_test(contradicting_keys_are_an_error),
        cmocka_unit_test(each_layer_may_have_a_width_of_its_own),
        cmocka_unit_test(shapes_that_contradict_the_configuration_are_an_error),
        cmocka_unit_test(too_few_or_too_many_tensors_are_an_error),
        cmocka_unit_test(layers_for_prediction_are_left_out),
        cmocka_unit_test(what_is_not_computed_is_refused),
        cmocka_unit_test(a_weight_that_cannot_be_decoded_fails_its_layer_alone),
        cmocka_unit_test(the_hybrids_configuration_is_read),
        cmocka_unit_test(recurrent_layers_come_before_the_interval),
        cmocka_unit_test(a_wrong_delta_net_is_an_error),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder) ? 1 : 0;
}
