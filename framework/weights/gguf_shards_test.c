/* Models in several files: any shard opens all of them, and shards that do not belong together are errors. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <unistd.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "weights/gguf_builder.h"

#define N_SHARDS 3
#define ROW 4

/* What is written wrongly; zeroed: nothing. */
struct fault {
    size_t shard;           /* that is written otherwise, from 1; 0: none */
    uint16_t number, count; /* in the place of split.no and split.count; 0: the right ones */
    int32_t n_tensors;      /* of split.tensors.count */
    const char *architecture, *tensor /* the shard's own name for its tensor */;
};

static int setup(void **state)
{
    char *folder = malloc(256);
    *state = folder;
    if (folder)
        rp_test_make_folder(folder);
    return folder ? 0 : -1;
}

static int teardown(void **state)
{
    const enum rp_status status = rp_remove_tree(*state, NULL);
    free(*state);
    return status == RP_OK ? 0 : -1;
}

static void add_u16(struct gguf_builder *builder, const char *key, uint16_t value)
{
    gguf_add(builder, key, RP_GGUF_UINT16, &value, sizeof value);
}

/* Shard i holds tensors "t<i>" of value i + 1, and shard 0 the metadata. */
static void write_shards(const char *folder, const struct fault *fault)
{
    for (size_t i = 0; i < N_SHARDS; i++) {
        const bool is_wrong = fault->shard == i + 1;
        const uint64_t dims[1] = {ROW};
        float values[ROW];
        char name[64], path[512];
        int32_t n_tensors = is_wrong && fault->n_tensors ? fault->n_tensors : N_SHARDS;
        struct gguf_builder builder = {.version = 3};
        for (size_t k = 0; k < ROW; k++)
            values[k] = (float)(i + 1);
        if (i == 0)
            gguf_add_string(&builder, "general.architecture", "test");
        else if (is_wrong && fault->architecture)
            gguf_add_string(&builder, "general.architecture", fault->architecture);
        add_u16(&builder, "split.no", is_wrong && fault->number ? fault->number : (uint16_t)i);
        add_u16(&builder, "split.count", is_wrong && fault->count ? fault->count : N_SHARDS);
        gguf_add(&builder, "split.tensors.count", RP_GGUF_INT32, &n_tensors, sizeof n_tensors);
        snprintf(name, sizeof name, "t%zu", i);
        gguf_add_tensor(&builder, is_wrong && fault->tensor ? fault->tensor : name, RP_GGML_F32, 1,
                        dims, values, sizeof values);
        snprintf(path, sizeof path, "%s/m-%05zu-of-%05d.gguf", folder, i + 1, N_SHARDS);
        gguf_write(&builder, path);
    }
}

/* Opens shard number (from 1). */
static enum rp_status open_shard(const char *folder, size_t number, struct rp_gguf **gguf,
                                 struct rp_error *err)
{
    char path[512];
    snprintf(path, sizeof path, "%s/m-%05zu-of-%05d.gguf", folder, number, N_SHARDS);
    return rp_gguf_open(path, gguf, err);
}

/* Shard i holds the tensors of layers[i], "blk.N.w", as many as are not -1. */
#define MANY 5
static void write_layers(const char *folder, const int layers[MANY][3])
{
    for (size_t i = 0; i < MANY; i++) {
        const uint64_t dims[1] = {ROW};
        const float values[ROW] = {(float)i};
        struct gguf_builder builder = {.version = 3};
        char name[64], path[512];
        gguf_add_string(&builder, "general.architecture", "test");
        add_u16(&builder, "split.no", (uint16_t)i);
        add_u16(&builder, "split.count", MANY);
        for (size_t k = 0; k < 3 && layers[i][k] >= 0; k++) {
            snprintf(name, sizeof name, "blk.%d.w%zu", layers[i][k], i);
            gguf_add_tensor(&builder, name, RP_GGML_F32, 1, dims, values, sizeof values);
        }
        snprintf(path, sizeof path, "%s/l-%05zu-of-%05d.gguf", folder, i + 1, MANY);
        gguf_write(&builder, path);
    }
}

/* Whether a tensor of shard index is found. */
static bool has_shard(const struct rp_gguf *gguf, size_t index)
{
    char end[8];
    snprintf(end, sizeof end, ".w%zu", index);
    for (size_t i = 0; i < rp_gguf_n_tensors(gguf); i++)
        if (strstr(rp_gguf_tensor(gguf, i)->name, end))
            return true;
    return false;
}

static void layers_open_the_shards_that_hold_them_alone(void **state)
{
    static const int in_order[MANY][3] = {{-1}, {0, 1, -1}, {1, 2, 3}, {4, 5, -1}, {6, 7, 8}};
    static const int mixed[MANY][3] = {{-1}, {0, 4, -1}, {1, 2, -1}, {3, 1, -1}, {5, 6, 7}};
    const char *folder = *state;
    const struct {
        const int (*layers)[3];
        size_t first, last;
        bool is_open[MANY]; /* of shards with layers */
    } cases[] = {
        {in_order, 0, 0, {false, true, false, false, false}},
        {in_order, 4, 4, {false, true, true, true, false}}, /* it may begin before */
        {in_order, 7, 8, {false, true, false, true, true}}, /* the middle one is looked at */
        {in_order, 0, 8, {false, true, true, true, true}},
        {mixed, 2, 2, {false, true, true, true, true}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rp_gguf *gguf = NULL;
        char path[512];
        size_t n_closed = 0;
        write_layers(folder, cases[i].layers);
        snprintf(path, sizeof path, "%s/l-00001-of-%05d.gguf", folder, MANY);
        assert_int_equal(rp_gguf_open_layers(path, cases[i].first, cases[i].last, &gguf, NULL),
                         RP_OK);
        for (size_t shard = 1; shard < MANY; shard++) {
            if (has_shard(gguf, shard) != cases[i].is_open[shard])
                fail_msg("case %zu: shard %zu", i, shard);
            n_closed += !cases[i].is_open[shard];
        }
        assert_int_equal(rp_gguf_is_partial(gguf), n_closed > 0);
        rp_gguf_close(gguf);
    }
}

static void a_shard_may_be_missing_where_no_layer_asks_for_it(void **state)
{
    static const int in_order[MANY][3] = {{-1}, {0, 1, -1}, {2, 3, -1}, {4, 5, -1}, {6, 7, 8}};
    const char *folder = *state;
    struct rp_gguf *gguf = NULL;
    struct rp_error err;
    char path[512], missing[512];
    write_layers(folder, in_order);
    snprintf(missing, sizeof missing, "%s/l-00005-of-%05d.gguf", folder, MANY);
    snprintf(path, sizeof path, "%s/l-00003-of-%05d.gguf", folder, MANY);
    assert_int_equal(unlink(missing), 0);
    assert_int_equal(rp_gguf_open_layers(path, 2, 3, &gguf, &err), RP_OK);
    assert_true(has_shard(gguf, 2) && !has_shard(gguf, 4));
    rp_gguf_close(gguf);
    assert_int_equal(rp_gguf_open_layers(path, 3, 6, &gguf, &err), RP_ERR_MISSING);
    assert_non_null(strstr(err.where, "l-00005-of-00005.gguf"));
    assert_int_equal(rp_gguf_open(path, &gguf, &err), RP_ERR_MISSING);
    /* the middle one, which is looked at first: layer 0 is not in it, and layer 2 may be */
    write_layers(folder, in_order);
    snprintf(missing, sizeof missing, "%s/l-00003-of-%05d.gguf", folder, MANY);
    snprintf(path, sizeof path, "%s/l-00001-of-%05d.gguf", folder, MANY);
    assert_int_equal(unlink(missing), 0);
    assert_int_equal(rp_gguf_open_layers(path, 0, 0, &gguf, &err), RP_OK);
    rp_gguf_close(gguf);
    assert_int_equal(rp_gguf_open_layers(path, 2, 2, &gguf, &err), RP_ERR_MISSING);
    assert_non_null(strstr(err.where, "l-00003-of-00005.gguf"));
}

static void any_shard_opens_all_of_them(void **state)
{
    const char *folder = *state;
    write_shards(folder, &(struct fault){.shard = 0});
    for (size_t number = 1; number <= N_SHARDS; number++) {
        struct rp_gguf *gguf = NULL;
        assert_int_equal(open_shard(folder, number, &gguf, NULL), RP_OK);
        assert_int_equal(rp_gguf_n_shards(gguf), N_SHARDS);
        assert_int_equal(rp_gguf_n_tensors(gguf), N_SHARDS);
        assert_non_null(strstr(rp_gguf_path(gguf), "m-00001-of-00003.gguf"));
        assert_non_null(rp_gguf_find_value(gguf, "general.architecture"));
        for (size_t i = 0; i < N_SHARDS; i++) {
            char name[64], file[64];
            float row[ROW];
            snprintf(name, sizeof name, "t%zu", i);
            snprintf(file, sizeof file, "m-%05zu-of", i + 1);
            const struct rp_gguf_tensor *tensor = rp_gguf_find_tensor(gguf, name);
            assert_non_null(tensor);
            assert_ptr_equal(tensor, rp_gguf_tensor(gguf, i));
            assert_int_equal(rp_gguf_row(gguf, tensor, 0, row, NULL), RP_OK);
            assert_true(row[0] == (float)(i + 1) && row[ROW - 1] == row[0]);
            assert_non_null(strstr(rp_gguf_tensor_path(gguf, tensor), file));
        }
        rp_gguf_close(gguf);
    }
}

static void expect_error(const char *folder, size_t number, enum rp_status code, const char *where,
                         const char *message)
{
    struct rp_gguf *gguf = NULL;
    struct rp_error err = {.code = RP_OK};
    assert_int_equal(open_shard(folder, number, &gguf, &err), code);
    if (!strstr(err.message, message) || !strstr(err.where, where))
        fail_msg("%s: %s; expected %s: %s", err.where, err.message, where, message);
    assert_null(gguf);
}

static void a_missing_shard_is_named(void **state)
{
    const char *folder = *state;
    for (size_t missing = 1; missing <= N_SHARDS; missing++) {
        char path[512], where[64], message[64];
        write_shards(folder, &(struct fault){.shard = 0});
        snprintf(where, sizeof where, "/m-%05zu-of-00003.gguf", missing);
        snprintf(message, sizeof message, "shard %zu of 3 of this model is missing", missing);
        snprintf(path, sizeof path, "%s%s", folder, where);
        assert_int_equal(unlink(path), 0);
        expect_error(folder, missing == 1 ? 2 : 1, RP_ERR_MISSING, where, message);
        expect_error(folder, missing == 3 ? 2 : 3, RP_ERR_MISSING, where, message);
    }
}

static void shards_that_disagree_are_errors(void **state)
{
    const char *folder = *state;
    static const struct {
        struct fault fault;
        enum rp_status code;
        const char *message;
    } cases[] = {
        {{.shard = 2, .count = 4}, RP_ERR_MISMATCH, "this is shard 2 of 4 (split.no, split.count)"},
        {{.shard = 3, .number = 1}, RP_ERR_MISMATCH, "by its name it is shard 3 of 3"},
        {{.shard = 2, .n_tensors = 7},
         RP_ERR_MISMATCH,
         "split.tensors.count is 7, in shard 1 it is 3"},
        {{.shard = 2, .architecture = "other"},
         RP_ERR_MISMATCH,
         "general.architecture is \"other\", in shard 1 it is \"test\""},
        {{.shard = 3, .tensor = "t0"}, RP_ERR_FORMAT, "tensor 't0' is in an earlier shard, too"},
        {{.shard = 3, .tensor = "t1"}, RP_ERR_FORMAT, "tensor 't1'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char where[64];
        write_shards(folder, &cases[i].fault);
        snprintf(where, sizeof where, "m-%05zu-of", cases[i].fault.shard);
        expect_error(folder, 1, cases[i].code, where, cases[i].message);
    }
    write_shards(folder, &(struct fault){.shard = 2, .architecture = "test"}); /* the clean twin */
    struct rp_gguf *gguf = NULL;
    assert_int_equal(open_shard(folder, 2, &gguf, NULL), RP_OK);
    rp_gguf_close(gguf);
}

/* All shards agree, but a tensor is missing: of the name that two had. */
static void a_sum_of_tensors_that_is_not_the_files_is_an_error(void **state)
{
    const char *folder = *state;
    char from[512], to[512];
    struct rp_gguf *gguf = NULL;
    struct rp_error err;
    for (size_t i = 1; i <= N_SHARDS; i++) {
        write_shards(folder, &(struct fault){.shard = i, .n_tensors = 4});
        snprintf(from, sizeof from, "%s/m-%05zu-of-00003.gguf", folder, i);
        snprintf(to, sizeof to, "%s/n-%05zu-of-00003.gguf", folder, i);
        assert_int_equal(rename(from, to), 0);
    }
    assert_int_equal(rp_gguf_open(to, &gguf, &err), RP_ERR_MISMATCH);
    assert_non_null(strstr(err.message, "the 3 shards hold 3 tensors, split.tensors.count says 4"));
}

static void a_shard_of_another_name_says_what_it_is(void **state)
{
    const char *folder = *state;
    char from[512], to[512];
    struct rp_gguf *gguf = NULL;
    struct rp_error err;
    write_shards(folder, &(struct fault){.shard = 0});
    snprintf(from, sizeof from, "%s/m-00002-of-00003.gguf", folder);
    snprintf(to, sizeof to, "%s/renamed.gguf", folder);
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(rp_gguf_open(to, &gguf, &err), RP_ERR_MISMATCH);
    assert_non_null(strstr(err.message, "this is shard 2 of 3"));
    assert_non_null(strstr(err.message, "\"-00002-of-00003.gguf\""));
}

static void names_of_shards_are_told_from_others(void **state)
{
    (void)state;
    char name[64];
    assert_int_equal(rp_gguf_shards_of_name("a/m-00002-of-00012.gguf"), 12);
    assert_int_equal(rp_gguf_shard_name("a/m-00002-of-00012.gguf", 11, name, sizeof name, NULL),
                     RP_OK);
    assert_string_equal(name, "a/m-00012-of-00012.gguf");
    assert_int_equal(rp_gguf_shard_name("a/m.gguf", 0, name, sizeof name, NULL), RP_OK);
    assert_string_equal(name, "a/m.gguf");
    assert_int_equal(rp_gguf_shard_name("a/m-00002-of-00012.gguf", 0, name, 10, NULL),
                     RP_ERR_ARGUMENT);
    static const char *const others[] = {"m.gguf",
                                         "",
                                         "-00001-of-00003.gguf",
                                         "m-00004-of-00003.gguf",
                                         "m-00000-of-00003.gguf",
                                         "m-0001-of-00003.gguf",
                                         "m-00001-of-00003.bin",
                                         "m-0x001-of-00003.gguf",
                                         "m-00001_of-00003.gguf"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_int_equal(rp_gguf_shards_of_name(others[i]), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(any_shard_opens_all_of_them, setup, teardown),
        cmocka_unit_test_setup_teardown(layers_open_the_shards_that_hold_them_alone, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_shard_may_be_missing_where_no_layer_asks_for_it, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_missing_shard_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(shards_that_disagree_are_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(a_sum_of_tensors_that_is_not_the_files_is_an_error, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_shard_of_another_name_says_what_it_is, setup, teardown),
        cmocka_unit_test(names_of_shards_are_told_from_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
