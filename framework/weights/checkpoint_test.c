/* A checkpoint's folder: one file or shards, and what is wrong with it when it is none. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "weights/checkpoint.h"
#include "tensor/safetensors_builder.h"

#define ONE_VALUE(name) "{\"" name "\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}"

static char folder[256];

static const char *in_folder(const char *name)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_text(const char *name, const char *text)
{
    rp_test_write_file(folder, name, text, strlen(text));
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

static void expect_error(enum rp_status code, const char *where, const char *message)
{
    struct rp_checkpoint *checkpoint = NULL;
    struct rp_error err = {.code = RP_OK};
    assert_int_equal(rp_checkpoint_open(folder, &checkpoint, &err), code);
    assert_string_equal(err.message, message);
    assert_non_null(strstr(err.where, where));
    assert_null(checkpoint);
}

static void the_shards_of_an_index_are_one_checkpoint(void **state)
{
    (void)state;
    const float one = 1, two = 2;
    float value;
    struct rp_checkpoint *checkpoint = NULL;
    write_text("config.json", "{\"a\":1,\"b\":null,\"text_config\":{\"a\":2}}");
    write_text("generation_config.json", "{\"eos_token_id\":[3,4]}");
    write_text("model.safetensors.index.json",
               "{\"weight_map\":{\"y\":\"1.safetensors\",\"x\":\"2.safetensors\"}}");
    safetensors_write(in_folder("1.safetensors"), ONE_VALUE("y"), &one, 4);
    safetensors_write(in_folder("2.safetensors"), ONE_VALUE("x"), &two, 4);
    assert_true(rp_is_checkpoint(folder));
    assert_false(rp_is_checkpoint(in_folder("config.json")));
    assert_int_equal(rp_checkpoint_open(folder, &checkpoint, NULL), RP_OK);
    assert_int_equal(rp_checkpoint_n_tensors(checkpoint), 2);
    const struct rp_checkpoint_tensor *x = rp_checkpoint_find(checkpoint, "x");
    assert_ptr_equal(x, rp_checkpoint_tensor(checkpoint, 0));
    assert_int_equal(rp_safetensors_values(x->file, x->tensor, 0, 1, &value, NULL), RP_OK);
    assert_true(value == 2.0f);
    assert_null(rp_checkpoint_find(checkpoint, "z"));
    assert_true(rp_checkpoint_setting(checkpoint, "a")->valuedouble == 2.0);
    assert_null(rp_checkpoint_setting(checkpoint, "b"));
    assert_int_equal(
        cJSON_GetArraySize(rp_checkpoint_generation_setting(checkpoint, "eos_token_id")), 2);
    rp_checkpoint_close(checkpoint);
}

static void a_folder_that_is_no_checkpoint_is_an_error(void **state)
{
    (void)state;
    const float one = 1;
    expect_error(RP_ERR_MISSING, "config.json", "cannot open: No such file or directory");
    write_text("config.json", "[]");
    expect_error(RP_ERR_FORMAT, "config.json:1:1", "expected an object");
    write_text("config.json", "{}");
    expect_error(RP_ERR_MISSING, folder,
                 "no checkpoint: it has neither model.safetensors nor "
                 "model.safetensors.index.json");
    write_text("model.safetensors.index.json", "{\"weight_map\":{}}");
    expect_error(RP_ERR_FORMAT, "index.json:1:15",
                 "expected \"weight_map\", an object of tensors and their files");
    write_text("model.safetensors.index.json", "{\"weight_map\":{\"y\":\"../1.safetensors\"}}");
    expect_error(RP_ERR_FORMAT, "index.json:1:20", "expected the name of a file beside this one");
    write_text("model.safetensors.index.json", "{\"weight_map\":{\"y\":\"1.safetensors\"}}");
    expect_error(RP_ERR_MISSING, "1.safetensors", "cannot open: No such file or directory");
    safetensors_write(in_folder("1.safetensors"), ONE_VALUE("z"), &one, 4);
    expect_error(RP_ERR_MISSING, "index.json:1:20", "tensor 'y' is not in 1.safetensors");
}

static void a_tensor_in_two_shards_is_an_error(void **state)
{
    (void)state;
    const float one = 1;
    write_text("config.json", "{}");
    write_text("model.safetensors.index.json",
               "{\"weight_map\":{\"y\":\"1.safetensors\",\"x\":\"2.safetensors\"}}");
    safetensors_write(in_folder("1.safetensors"), ONE_VALUE("y"), &one, 4);
    safetensors_write(in_folder("2.safetensors"),
                      "{\"x\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
                      "\"y\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[4,8]}}",
                      (const float[]){1, 1}, 8);
    expect_error(RP_ERR_FORMAT, ".safetensors", "tensor 'y' is in another file, too");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_shards_of_an_index_are_one_checkpoint),
        TEST(a_folder_that_is_no_checkpoint_is_an_error),
        TEST(a_tensor_in_two_shards_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
