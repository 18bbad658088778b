/* What a stored result rests on: a GGUF in several files counts with all of them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "run/fingerprint.h"
#include "run/inputs.h"

struct hashes {
    char fingerprint[RP_FINGERPRINT_SIZE], sha256[65];
};

static struct hashes hashes_of(const char *folder, const char *name)
{
    char path[512], cache[512];
    struct hashes hashes;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    snprintf(cache, sizeof cache, "%s/cache", folder);
    rp_fingerprint(path, hashes.fingerprint);
    assert_int_equal(rp_remembered_gguf_sha256(path, cache, hashes.sha256, NULL), RP_OK);
    return hashes;
}

static void a_changed_shard_changes_the_hashes_of_the_first(void **state)
{
    (void)state;
    static const char first[] = "m-00001-of-00002.gguf", second[] = "m-00002-of-00002.gguf";
    char folder[256];
    rp_test_make_folder(folder);
    rp_test_write_file(folder, first, "a", 1);
    rp_test_write_file(folder, second, "b", 1);
    const struct hashes before = hashes_of(folder, first), again = hashes_of(folder, first);
    assert_string_equal(before.fingerprint, again.fingerprint);
    assert_string_equal(before.sha256, again.sha256);
    /* sha256(hex(sha256("a")) + hex(sha256("b"))), as fixtures/gguf_weights.py has it */
    assert_string_equal(before.sha256,
                        "62af5c3cb8da3e4f25061e829ebeea5c7513c54949115b1acc225930a90154da");
    rp_test_write_file(folder, second, "bc", 2);
    const struct hashes after = hashes_of(folder, first);
    assert_string_not_equal(before.fingerprint, after.fingerprint);
    assert_string_not_equal(before.sha256, after.sha256);
    assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
}

/* The twin: a file of another name is no shard. */
static void another_file_changes_nothing(void **state)
{
    (void)state;
    char folder[256];
    rp_test_make_folder(folder);
    rp_test_write_file(folder, "m.gguf", "a", 1);
    const struct hashes before = hashes_of(folder, "m.gguf");
    rp_test_write_file(folder, "m-00002-of-00002.gguf", "b", 1);
    const struct hashes after = hashes_of(folder, "m.gguf");
    assert_string_equal(before.fingerprint, after.fingerprint);
    assert_string_equal(before.sha256, after.sha256);
    assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_changed_shard_changes_the_hashes_of_the_first),
        cmocka_unit_test(another_file_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
