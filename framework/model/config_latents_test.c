/* Sizes of latent attention that cannot be, or contradict each other, are errors before anything is allocated. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "model/model_internal.h"
#include "weights/gguf_builder.h"

/* Other values of up to two keys; NULL: of none. */
struct change {
    const char *key;
    uint32_t value;
    const char *other_key;
    uint32_t other_value;
};

static uint32_t value_of(const struct change *change, const char *key, uint32_t value)
{
    if (change->key && strcmp(change->key, key) == 0)
        return change->value;
    return change->other_key && strcmp(change->other_key, key) == 0 ? change->other_value : value;
}

/* No tensors: what is right ends at the embeddings. absorbed: keys with "_mla" too. */
static void read_config(const struct change *change, bool is_absorbed, struct rp_error *err)
{
    static const struct {
        const char *name;
        uint32_t absorbed, older; /* 0: there is none */
    } keys[] = {{"block_count", 1, 1},
                {"embedding_length", 32, 32},
                {"feed_forward_length", 64, 64},
                {"expert_count", 4, 4},
                {"expert_used_count", 2, 2},
                {"expert_feed_forward_length", 16, 16},
                {"attention.head_count", 2, 2},
                {"attention.head_count_kv", 1, 2},
                {"attention.q_lora_rank", 8, 8},
                {"attention.kv_lora_rank", 16, 16},
                {"attention.key_length", 20, 12},
                {"attention.value_length", 16, 8},
                {"attention.key_length_mla", 12, 0},
                {"attention.value_length_mla", 8, 0},
                {"rope.dimension_count", 4, 4}};
    struct gguf_builder builder = {.version = 3};
    struct rp_model_config config;
    const struct rp_architecture *architecture;
    enum rp_layer_kind *kinds = NULL;
    size_t *widths = NULL;
    struct rp_gguf *gguf = NULL;
    gguf_add_string(&builder, "general.architecture", "deepseek2");
    gguf_add_f32(&builder, "deepseek2.attention.layer_norm_rms_epsilon", 1e-6f);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char key[96];
        snprintf(key, sizeof key, "deepseek2.%s", keys[i].name);
        const uint32_t usual = is_absorbed ? keys[i].absorbed : keys[i].older;
        if (is_absorbed || usual > 0)
            gguf_add_u32(&builder, key, value_of(change, keys[i].name, usual));
    }
    struct gguf_bytes bytes = gguf_finish(&builder, NULL);
    assert_int_equal(rp_gguf_open_memory(bytes.data, bytes.size, "file", &gguf, err), RP_OK);
    assert_true(rp_config_read(gguf, &architecture, &config, &kinds, &widths, err) != RP_OK);
    free(widths);
    free(kinds);
    rp_gguf_close(gguf);
    free(bytes.data);
}

static void expect(const struct change *change, bool is_absorbed, const char *part)
{
    struct rp_error err = {.code = RP_OK};
    read_config(change, is_absorbed, &err);
    if (!strstr(err.message, part))
        fail_msg("expected \"%s\" in \"%s\"", part, err.message);
}

static void sizes_that_fit_are_read(void **state)
{
    (void)state;
    expect(&(struct change){.key = NULL}, true, "'token_embd.weight' is missing");
    expect(&(struct change){.key = NULL}, false, "'token_embd.weight' is missing");
    expect(&(struct change){"attention.q_lora_rank", 0, NULL, 0}, true,
           "'token_embd.weight' is missing");
}

static void sizes_that_cannot_be_are_errors(void **state)
{
    (void)state;
    static const struct {
        struct change change;
        const char *part;
    } cases[] = {
        {{"attention.kv_lora_rank", 0, NULL, 0}, "kv_lora_rank' is 0, expected 1 to 16777216"},
        {{"attention.kv_lora_rank", UINT32_MAX, NULL, 0},
         "kv_lora_rank' is 4294967295, expected 1 to 16777216"},
        {{"attention.kv_lora_rank", 1 << 24, NULL, 0},
         "key_length' is 20, expected 16777220, with kv_lora_rank 16777216 and 2 heads"},
        {{"attention.q_lora_rank", UINT32_MAX, NULL, 0},
         "q_lora_rank' is 4294967295, expected 0 to 16777216"},
        {{"attention.key_length_mla", 4, NULL, 0},
         "rope.dimension_count' is 4, expected less than a query's values"},
        {{"attention.key_length_mla", 0, NULL, 0}, "key_length_mla' is 0, expected 1 to"},
        {{"attention.value_length_mla", 0, NULL, 0}, "value_length_mla' is 0, expected 1 to"},
        {{"attention.head_count_kv", 2, NULL, 0}, "head_count_kv' is 2, expected 1, with"},
        {{"attention.value_length", 8, NULL, 0}, "value_length' is 8, expected kv_lora_rank"},
        {{"rope.dimension_count", 22, NULL, 0}, "an even number up to the head size, 20"},
        {{"rope.dimension_count", 14, "attention.key_length", 30},
         "rope.dimension_count' is 14, expected less than a query's values"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect(&cases[i].change, true, cases[i].part);
}

static void so_they_are_where_attention_is_not_absorbed(void **state)
{
    (void)state;
    expect(&(struct change){"attention.head_count_kv", 1, NULL, 0}, false,
           "head_count_kv' is 1, expected 2, with");
    expect(&(struct change){"attention.value_length", 13, NULL, 0}, false,
           "value_length' is 13, expected key_length at most");
    expect(&(struct change){"rope.dimension_count", 12, NULL, 0}, false,
           "rope.dimension_count' is 12, expected less than a query's values");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_that_fit_are_read),
        cmocka_unit_test(sizes_that_cannot_be_are_errors),
        cmocka_unit_test(so_they_are_where_attention_is_not_absorbed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
