/* Which tests each of several machines gets: every one in exactly one shard. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "matrix/matrix_test_util.h"
#include "run/shard.h"

/* Entries a (two modes, compared), b and c (GPU); d is disabled. */
static const char text[] =
    "{\"engines\": {\"e\": {\"argv\": [\"e\", \"{dump}\", \"{prompt}\", \"{mode}\"], \"layout\": "
    "\"npy\"}}, \"tests\": ["
    "{\"name\": \"a\", \"hf_model\": \"o/m\", \"n_layers\": 1, \"modes\": [\"x\", \"y\"], "
    "\"compare_modes\": [[\"x\", \"y\"]], \"prompts\": [\"1\", \"2\", \"3\"]},"
    "{\"name\": \"b\", \"hf_model\": \"o/m\", \"n_layers\": 1, \"modes\": [\"x\"], \"prompts\": "
    "[\"1\"]},"
    "{\"name\": \"c\", \"hf_model\": \"o/m\", \"n_layers\": 1, \"modes\": [\"x\"], \"prompts\": "
    "[\"1\", \"2\"], \"slurm\": {\"gres\": \"gpu:1\"}},"
    "{\"name\": \"d\", \"hf_model\": \"o/m\", \"n_layers\": 1, \"modes\": [\"x\"], \"prompts\": "
    "[\"1\"], \"_disabled\": true}]}";
enum { N_PAIRS = 3 * 3 + 1 + 2 + 1, DISABLED = N_PAIRS - 1 };

static void open_shards(const struct rp_matrix *matrix, size_t count, const char *filter,
                        struct rp_shards *shards)
{
    struct rp_error err;
    if (rp_shards_open(matrix, count, filter, shards, &err))
        fail_msg("%s", err.message);
}

static void each_pair_is_in_one_shard_whatever_their_number(void **state)
{
    (void)state;
    struct rp_matrix *matrix = parse(text);
    for (size_t count = 2; count < 20; count++) {
        struct rp_shards shards;
        size_t sum = 0;
        open_shards(matrix, count, NULL, &shards);
        assert_int_equal(shards.n_pairs, N_PAIRS);
        for (size_t i = 0; i < DISABLED; i++)
            assert_in_range(shards.of_pair[i], 1, count);
        assert_int_equal(shards.of_pair[DISABLED], 0);
        for (size_t i = 1; i <= count; i++) {
            sum += shards.parts[i].n_pairs;
            assert_true((shards.parts[i].n_pairs > 0) == (shards.parts[i].resources != NULL));
        }
        assert_int_equal(sum, DISABLED);
        for (size_t i = 0; i < 3; i++)
            assert_in_range(shards.of_entry[i], 1, count);
        assert_int_equal(shards.of_entry[3], 0);
        rp_shards_free(&shards);
    }
    rp_matrix_free(matrix);
}

static void modes_of_a_prompt_stay_together(void **state)
{
    (void)state;
    struct rp_matrix *matrix = parse(text);
    struct rp_shards shards;
    open_shards(matrix, 6, NULL, &shards);
    for (size_t prompt = 0; prompt < 3; prompt++) { /* by mode, then by prompt */
        assert_int_equal(shards.of_pair[prompt], shards.of_pair[3 + prompt]);
        assert_int_equal(shards.of_pair[prompt], shards.of_pair[6 + prompt]);
    }
    assert_int_not_equal(shards.of_pair[0], shards.of_pair[1]);
    assert_int_equal(shards.of_entry[0],
                     shards.of_pair[0]); /* its weights, with its first prompt */
    rp_shards_free(&shards);
    rp_matrix_free(matrix);
}

static void entries_of_other_resources_are_in_other_shards(void **state)
{
    (void)state;
    struct rp_matrix *matrix = parse(text);
    struct rp_shards shards;
    open_shards(matrix, 2, NULL, &shards);
    assert_null(shards.parts[1].resources->gres);
    assert_string_equal(shards.parts[2].resources->gres, "gpu:1");
    for (size_t i = 0; i < DISABLED; i++)
        assert_int_equal(shards.of_pair[i], i < 10 ? 1 : 2);
    rp_shards_free(&shards);
    rp_matrix_free(matrix);
}

static void a_filter_leaves_the_rest_in_no_shard(void **state)
{
    (void)state;
    struct rp_matrix *matrix = parse(text);
    struct rp_shards shards;
    open_shards(matrix, 3, "^a/.*/p1$|^c/weights", &shards);
    for (size_t i = 0; i < N_PAIRS; i++)
        assert_true((shards.of_pair[i] > 0) == (i == 1 || i == 4 || i == 7));
    assert_int_equal(shards.of_entry[0], 0);
    assert_in_range(shards.of_entry[2], 1, 3);
    rp_shards_free(&shards);
    rp_matrix_free(matrix);
}

static void expect_failure(const struct rp_matrix *matrix, size_t count, const char *filter,
                           const char *message)
{
    struct rp_shards shards;
    struct rp_error err;
    assert_int_equal(rp_shards_open(matrix, count, filter, &shards, &err), RP_ERR_ARGUMENT);
    if (!strstr(err.message, message))
        fail_msg("expected \"%s\" in \"%s\"", message, err.message);
    assert_null(shards.of_pair);
}

static void what_cannot_be_divided_is_an_error(void **state)
{
    (void)state;
    struct rp_matrix *matrix = parse(text);
    expect_failure(matrix, 1, NULL, "expected at least 2 shards, found 1");
    expect_failure(matrix, 2, "nothing", "no test of the matrix matches 'nothing'");
    expect_failure(matrix, 2, "^d/", "no test of the matrix matches '^d/'"); /* it is disabled */
    expect_failure(matrix, 2, "(", "'(' is no extended regular expression");
    rp_matrix_free(matrix);
}

static void a_shard_is_written_as_a_fraction(void **state)
{
    (void)state;
    static const char *const wrong[] = {"",         "2",
                                        "/5",       "2/",
                                        "0/5",      "6/5",
                                        "2/0",      "-1/5",
                                        "2/5 ",     "2/5/7",
                                        "1/100000", "+1/2",
                                        " 1/2",     "18446744073709551617/18446744073709551617"};
    struct rp_shard shard;
    struct rp_error err;
    assert_int_equal(rp_shard_parse("2/5", "S", &shard, &err), RP_OK);
    assert_int_equal(shard.index, 2);
    assert_int_equal(shard.count, 5);
    assert_int_equal(rp_shard_parse("10000/10000", "S", &shard, &err), RP_OK);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(rp_shard_parse(wrong[i], "S", &shard, &err), RP_ERR_ARGUMENT);
        assert_int_equal(shard.count, 0);
        assert_string_equal(err.where, "S");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_pair_is_in_one_shard_whatever_their_number),
        cmocka_unit_test(modes_of_a_prompt_stay_together),
        cmocka_unit_test(entries_of_other_resources_are_in_other_shards),
        cmocka_unit_test(a_filter_leaves_the_rest_in_no_shard),
        cmocka_unit_test(what_cannot_be_divided_is_an_error),
        cmocka_unit_test(a_shard_is_written_as_a_fraction),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
