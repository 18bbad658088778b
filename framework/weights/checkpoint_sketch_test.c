/* A sketch's file: what is wrong with it when it is none. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "weights/checkpoint.h"
#include "tensor/safetensors_builder.h"

static char folder[256];

static const char *path(void)
{
    static char text[512];
    snprintf(text, sizeof text, "%s/s.safetensors", folder);
    return text;
}

static int make_folder(void **state)
{
    (void)state;
    rp_test_make_folder(folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    return rp_remove_tree(folder, NULL) != RP_OK;
}

/* A file with config.json, manifest (NULL: none), and tensor w of that shape: six FP32. */
static void write_file(const char *config, const char *manifest, const char *shape)
{
    char header[1024], data[1024] = {0};
    const size_t n_config = strlen(config), n_manifest = manifest ? strlen(manifest) : 0;
    snprintf(data + 24, sizeof data - 24, "%s%s", config, manifest ? manifest : "");
    int n = snprintf(header, sizeof header,
                     "{\"w\":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[0,24]},"
                     "\"refparity.config.json\":{\"dtype\":\"U8\",\"shape\":[%zu],"
                     "\"data_offsets\":[24,%zu]}",
                     shape, n_config, 24 + n_config);
    if (manifest)
        n += snprintf(header + n, sizeof header - (size_t)n,
                      ",\"refparity.manifest\":{\"dtype\":\"U8\",\"shape\":[%zu],"
                      "\"data_offsets\":[%zu,%zu]}",
                      n_manifest, 24 + n_config, 24 + n_config + n_manifest);
    snprintf(header + n, sizeof header - (size_t)n, "}");
    safetensors_write(path(), header, data, 24 + n_config + n_manifest);
}

#define MANIFEST(sketched) \
    "{\"format\":\"refparity-sketch\",\"version\":1,\"n_vectors\":1,\"sketched\":" sketched "}"
#define W(shape) MANIFEST("{\"w\":{\"dtype\":\"BF16\",\"shape\":" shape "}}")

static void expect_error(const char *manifest, const char *shape, enum rp_status code,
                         const char *message)
{
    struct rp_checkpoint *checkpoint = NULL;
    struct rp_error err = {.code = RP_OK};
    write_file("{}", manifest, shape);
    assert_int_equal(rp_checkpoint_open_sketch(path(), &checkpoint, &err), code);
    assert_string_equal(err.message, message);
    assert_non_null(strstr(err.where, path()));
    assert_null(checkpoint);
}

static void a_sketched_tensor_has_its_own_shape_and_no_values(void **state)
{
    (void)state;
    struct rp_checkpoint *checkpoint = NULL;
    struct rp_row_sketch row;
    float value;
    write_file("{\"a\":1}", W("[1,2,70]"), "[2,3]");
    assert_int_equal(rp_checkpoint_open_sketch(path(), &checkpoint, NULL), RP_OK);
    assert_int_equal(rp_checkpoint_n_tensors(checkpoint), 1);
    const struct rp_checkpoint_tensor *w = rp_checkpoint_find(checkpoint, "w");
    assert_int_equal(w->tensor->n_dims, 3);
    assert_int_equal(w->tensor->dims[2], 70);
    assert_int_equal(w->tensor->type, RP_SAFETENSORS_BF16);
    assert_int_equal(w->sketch.n_rows, 2);
    assert_true(rp_sketch_row(&w->sketch, 1, &row));
    assert_int_equal(rp_safetensors_values(w->file, w->tensor, 0, 1, &value, NULL),
                     RP_ERR_ARGUMENT);
    assert_true(rp_checkpoint_setting(checkpoint, "a")->valuedouble == 1.0);
    rp_checkpoint_close(checkpoint);
}

static void a_file_that_is_no_sketch_is_an_error(void **state)
{
    (void)state;
    struct rp_checkpoint *checkpoint = NULL;
    assert_int_equal(rp_checkpoint_open_sketch(path(), &checkpoint, NULL), RP_ERR_MISSING);
    expect_error(NULL, "[6]", RP_ERR_FORMAT,
                 "not a sketch of a checkpoint: it has no member refparity.manifest");
    expect_error("[]", "[6]", RP_ERR_FORMAT, "expected an object");
    expect_error("{}", "[6]", RP_ERR_FORMAT, "expected \"format\": \"refparity-sketch\"");
    expect_error("{\"format\":\"refparity-sketch\",\"version\":2}", "[6]", RP_ERR_UNSUPPORTED,
                 "expected \"version\": 1; record it again with ci/record.sh");
    expect_error("{\"format\":\"refparity-sketch\",\"version\":1,\"n_vectors\":17}", "[6]",
                 RP_ERR_FORMAT, "expected \"n_vectors\", 1 to 16");
    expect_error(MANIFEST("[]"), "[6]", RP_ERR_FORMAT,
                 "expected \"sketched\", an object of tensors");
    expect_error(MANIFEST("{\"v\":{}}"), "[6]", RP_ERR_MISSING, "tensor 'v' is not in the sketch");
    write_file("[]", W("[2,70]"), "[2,3]");
    assert_int_equal(rp_checkpoint_open_sketch(path(), &checkpoint, NULL), RP_ERR_FORMAT);
}

static void a_shape_that_does_not_fit_is_an_error(void **state)
{
    (void)state;
    static const char no_shape[] = "tensor 'w': expected \"shape\" of two dimensions or more, and "
                                   "\"dtype\" F32, F16 or BF16";
    expect_error(MANIFEST("{\"w\":{}}"), "[2,3]", RP_ERR_FORMAT, no_shape);
    expect_error(W("[70]"), "[2,3]", RP_ERR_FORMAT, no_shape);
    expect_error(W("[0,70]"), "[2,3]", RP_ERR_FORMAT, no_shape);
    expect_error(W("[1099511627776,1099511627776,70]"), "[2,3]", RP_ERR_FORMAT, no_shape);
    expect_error(W("[1,1,1,1,1,1,1,2,70]"), "[2,3]", RP_ERR_FORMAT, no_shape);
    expect_error(MANIFEST("{\"w\":{\"dtype\":\"I64\",\"shape\":[2,70]}}"), "[2,3]", RP_ERR_FORMAT,
                 no_shape);
    expect_error(W("[3,70]"), "[2,3]", RP_ERR_FORMAT,
                 "tensor 'w' is sketched, but not as F32 [3][3]");
    expect_error(W("[2,70]"), "[6]", RP_ERR_FORMAT,
                 "tensor 'w' is sketched, but not as F32 [2][3]");
    expect_error(W("[1,70]"), "[1,6]", RP_ERR_FORMAT,
                 "tensor 'w' is sketched, but not as F32 [1][3]");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_sketched_tensor_has_its_own_shape_and_no_values),
        TEST(a_file_that_is_no_sketch_is_an_error),
        TEST(a_shape_that_does_not_fit_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
