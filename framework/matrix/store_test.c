/* Behaviour of matrix/store.h: C and Python agree on where a fixture lies. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/json.h"
#include "matrix/store.h"

static const char *text_of(const cJSON *object, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    assert_true(cJSON_IsString(value));
    return value->valuestring;
}

static void every_case_shared_with_the_recorder_agrees(void **state)
{
    (void)state;
    struct rp_json *doc = NULL;
    struct rp_error err = {0};
    char path[1024];
    size_t n = 0;
    assert_int_equal(
        rp_json_parse_file(RP_SOURCE_DIR "/fixtures/store_path_cases.json", &doc, &err), RP_OK);
    for (const cJSON *c = rp_json_root(doc)->child; c; c = c->next, n++) {
        const char *prompt = text_of(c, "prompt");
        assert_int_equal(rp_store_path(text_of(c, "hf_model"), text_of(c, "revision"),
                                       text_of(c, "dtype"), prompt, strlen(prompt), path,
                                       sizeof path, &err),
                         RP_OK);
        assert_string_equal(path, text_of(c, "path"));
    }
    assert_true(n >= 10);
    rp_json_free(doc);
}

static void expect_failure(const char *hf_model, const char *revision, size_t size,
                           const char *message)
{
    char path[1024];
    struct rp_error err = {0};
    assert_int_equal(rp_store_path(hf_model, revision, "float32", "Hello", 5, path, size, &err),
                     RP_ERR_ARGUMENT);
    assert_string_equal(err.message, message);
}

static void a_path_never_leaves_the_store(void **state)
{
    (void)state;
    expect_failure("..", "main", 1024, "hf_model cannot be \"..\"");
    expect_failure(".", "main", 1024, "hf_model cannot be \".\"");
    expect_failure("", "main", 1024, "hf_model cannot be \"\"");
    expect_failure("tiny/qwen3", "..", 1024, "revision cannot be \"..\"");
    expect_failure("tiny/qwen3", "", 1024, "revision cannot be \"\"");
}

static void what_does_not_fit_is_an_error(void **state)
{
    (void)state;
    char long_name[300];
    memset(long_name, 'n', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    expect_failure(long_name, "main", 1024, "hf_model is longer than 255 bytes");
    expect_failure("m", long_name, 1024, "revision is longer than 255 bytes");
    /* m/main/float32/hello-185f8db3.npz and its NUL */
    expect_failure("m", "main", 33, "a fixture's path needs 34 bytes, has 33");
    char path[34];
    assert_int_equal(rp_store_path("m", "main", "float32", "Hello", 5, path, sizeof path, NULL),
                     RP_OK);
    assert_string_equal(path, "m/main/float32/hello-185f8db3.npz");
}

static void a_sketch_lies_beside_its_fixtures(void **state)
{
    (void)state;
    char path[64];
    struct rp_error err = {0};
    assert_int_equal(rp_store_sketch_path("Org/M 1", "refs/pr/3", path, sizeof path, NULL), RP_OK);
    assert_string_equal(path, "Org--M_1/refs_pr_3/sketch.safetensors");
    assert_int_equal(rp_store_sketch_path("m", "..", path, sizeof path, &err), RP_ERR_ARGUMENT);
    assert_int_equal(rp_store_sketch_path("m", "main", path, 25, &err), RP_ERR_ARGUMENT);
    assert_string_equal(err.message, "a sketch's path needs 26 bytes, has 25");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case_shared_with_the_recorder_agrees),
        cmocka_unit_test(a_path_never_leaves_the_store),
        cmocka_unit_test(what_does_not_fit_is_an_error),
        cmocka_unit_test(a_sketch_lies_beside_its_fixtures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
