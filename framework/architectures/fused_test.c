/* Weights that a file keeps in one tensor: which of its rows are whose. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "architectures/architecture.h"

static const struct rp_model_config config = {
    .hidden_size = 256, .intermediate_size = 512, .n_heads = 8, .n_kv_heads = 2, .head_dim = 32};

static void assert_rows(const struct rp_architecture *architecture, enum rp_weight_id which,
                        size_t first, size_t n, size_t n_all)
{
    const struct rp_weight_rows rows = rp_weight_rows(architecture, &config, which);
    assert_int_equal(rows.first, first);
    assert_int_equal(rows.n, n);
    assert_int_equal(rows.n_all, n_all);
}

static void the_parts_of_a_fused_tensor_lie_below_one_another(void **state)
{
    (void)state;
    char name[RP_GGUF_NAME_SIZE];
    assert_rows(&rp_architecture_phi3, RP_ATTN_Q, 0, 256, 384);
    assert_rows(&rp_architecture_phi3, RP_ATTN_K, 256, 64, 384);
    assert_rows(&rp_architecture_phi3, RP_ATTN_V, 320, 64, 384);
    assert_rows(&rp_architecture_phi3, RP_FFN_GATE, 0, 512, 1024);
    assert_rows(&rp_architecture_phi3, RP_FFN_UP, 512, 512, 1024);
    rp_weight_full_name(&rp_architecture_phi3, RP_ATTN_V, 3, name);
    assert_string_equal(name, "blk.3.attn_qkv.weight");
    rp_weight_full_name(&rp_architecture_phi3, RP_FFN_GATE, 0, name);
    assert_string_equal(name, "blk.0.ffn_up.weight");
}

static void any_other_weight_has_its_tensor_alone(void **state)
{
    (void)state;
    char name[RP_GGUF_NAME_SIZE];
    assert_rows(&rp_architecture_phi3, RP_ATTN_OUTPUT, 0, 256, 256);
    assert_rows(&rp_architecture_llama, RP_ATTN_K, 0, 64, 64);
    rp_weight_full_name(&rp_architecture_llama, RP_FFN_UP, 1, name);
    assert_string_equal(name, "blk.1.ffn_up.weight");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_parts_of_a_fused_tensor_lie_below_one_another),
        cmocka_unit_test(any_other_weight_has_its_tensor_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
