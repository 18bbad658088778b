/* Replay reads the matrices of the experts that the dump chose, and of no others: those of a large model do not fit
 * into memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "explain/engine_test_util.h"
#include "operations/experts_model_test_util.h"

enum { LAYER = 1, N = RP_TEST_EXPERTS, K = RP_TEST_CHOSEN };

static char folder[256], path[300];
static bool is_chosen[N]; /* in LAYER */

static int set_up(void **state)
{
    (void)state;
    rp_test_make_folder(folder);
    snprintf(path, sizeof path, "%s/model.gguf", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return rp_remove_tree(folder, NULL) == RP_OK ? 0 : -1;
}

static enum rp_status note_choice(void *context, const struct rp_site *site,
                                  const struct rp_choose_experts *args)
{
    struct rp_test_bug *bug = context;
    const enum rp_status status = RP_TEST_BELOW(bug, choose_experts, site, args);
    for (size_t k = 0; rp_test_bug_is_here(bug, site) && k < site->n_positions * K; k++)
        is_chosen[(size_t)args->experts[k]] = true;
    return status;
}

static void install(struct rp_ops *ops)
{
    ops->choose_experts = note_choice;
}

static struct rp_test_report replay(void)
{
    /* One position, so that most experts are not chosen. */
    const struct rp_test_engine engine = {.model = path,
                                          .install = install,
                                          .layer = LAYER,
                                          .level = RP_SLOTS_OPERATIONS,
                                          .n_tokens = 1};
    memset(is_chosen, 0, sizeof is_chosen);
    return rp_test_explain(RP_SOURCE_DIR, &engine);
}

/* Makes every value of that expert's matrix NaN in the file. */
static void poison(const char *stack, size_t expert)
{
    enum { SIZE = RP_TEST_EXPERT_SIZE * RP_TEST_EXPERTS_HIDDEN };
    char name[64], *bytes, encoded[SIZE * sizeof(float)];
    float matrix[SIZE];
    size_t length, at = 0;
    struct rp_gguf *gguf;
    snprintf(name, sizeof name, "blk.%d.%s.weight", LAYER, stack);
    assert_int_equal(rp_gguf_open(path, &gguf, NULL), RP_OK);
    const struct rp_gguf_tensor *tensor = rp_gguf_find_tensor(gguf, name);
    const size_t n_rows = SIZE / (size_t)tensor->dims[0];
    assert_int_equal(rp_gguf_rows(gguf, tensor, expert * n_rows, n_rows, matrix, NULL), RP_OK);
    rp_gguf_close(gguf);
    memcpy(encoded, matrix, sizeof encoded);
    assert_int_equal(rp_file_read(path, 1 << 24, &bytes, &length, NULL), RP_OK);
    while (at + sizeof encoded <= length && memcmp(bytes + at, encoded, sizeof encoded) != 0)
        at++;
    assert_true(at + sizeof encoded <= length);
    memset(bytes + at, 0xff, sizeof encoded);
    assert_int_equal(rp_file_write_atomic(path, bytes, length, NULL), RP_OK);
    free(bytes);
}

static void poison_all(size_t expert)
{
    static const char *const stacks[] = {"ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"};
    for (size_t i = 0; i < sizeof stacks / sizeof *stacks; i++)
        poison(stacks[i], expert);
}

static void matrices_of_experts_that_are_not_chosen_are_not_read(void **state)
{
    (void)state;
    size_t n = 0;
    rp_test_write_experts_model(path, &(struct rp_test_experts_model){0});
    assert_int_equal(replay().n_failing, 0);
    for (size_t expert = 0; expert < N; expert++) {
        if (!is_chosen[expert])
            poison_all(expert);
        n += is_chosen[expert];
    }
    assert_int_equal(n, K);
    assert_int_equal(replay().n_failing, 0);
}

/* The twin: whichever is chosen, its matrix is read. */
static void a_matrix_of_one_that_is_chosen_is_read(void **state)
{
    (void)state;
    const int32_t token = 7;
    const struct rp_run run = {.tokens = &token, .n_tokens = 1};
    struct rp_model *model;
    struct rp_error err = {0};
    rp_test_write_experts_model(path, &(struct rp_test_experts_model){0});
    for (size_t expert = 0; expert < N; expert++)
        poison("ffn_up_exps", expert);
    assert_int_equal(rp_model_open(path, &model, NULL), RP_OK);
    assert_int_equal(rp_model_run(model, &run, &err), RP_ERR_FORMAT);
    assert_non_null(strstr(err.message, "blk.1.ffn_up_exps.weight"));
    rp_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matrices_of_experts_that_are_not_chosen_are_not_read),
        cmocka_unit_test(a_matrix_of_one_that_is_chosen_is_read),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
