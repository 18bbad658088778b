/* A small random model with a mixture of experts, as a GGUF, for tests: no committed model has one. */
#ifndef REFPARITY_OPERATIONS_EXPERTS_MODEL_TEST_UTIL_H
#define REFPARITY_OPERATIONS_EXPERTS_MODEL_TEST_UTIL_H

#include <stdbool.h>
#include <stdint.h>

enum {
    RP_TEST_EXPERTS = 8,
    RP_TEST_CHOSEN = 3,
    RP_TEST_EXPERT_SIZE = 24,
    RP_TEST_EXPERTS_HIDDEN = 32,
    RP_TEST_EXPERTS_LAYERS = 2
};

struct rp_test_experts_model {
    bool has_shared;   /* a qwen35moe, whose layers all have full attention; else a qwen3moe */
    uint32_t n_groups; /* 2 of them are chosen; 0: none */
    uint32_t scores;   /* ggml's expert_gating_func; 0: not said */
    float scale;       /* of the weights; 0: not said */
    bool is_not_normalised;
    uint32_t shared_count; /* of a key that a qwen3moe's readers do not know; 0: not said */
    uint32_t expert_count; /* the key's, where it is not that of the tensors; 0: it is */
};

/* Writes it to path; aborts where it cannot. */
void rp_test_write_experts_model(const char *path, const struct rp_test_experts_model *model);

#endif
