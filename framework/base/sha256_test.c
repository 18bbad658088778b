/* base/sha256.h against the examples of FIPS 180-4 (NIST's SHA256.pdf and CAVP byte vectors). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "base/sha256.h"

static void the_published_examples_come_out(void **state)
{
    static const struct {
        const char *text, *hex;
    } examples[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrl"
         "mn"
         "opqrsmnopqrstnopqrstu",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        char hex[65];
        rp_sha256_hex(examples[i].text, strlen(examples[i].text), hex);
        assert_string_equal(hex, examples[i].hex);
    }
}

static void a_million_letters_in_uneven_pieces_come_out(void **state)
{
    struct rp_sha256 hash;
    uint8_t digest[32], letters[1009];
    char hex[65];
    size_t left = 1000000;
    (void)state;
    memset(letters, 'a', sizeof letters);
    rp_sha256_init(&hash);
    for (size_t piece = 0; left > 0; piece = (piece + 7) % sizeof letters) {
        size_t n = piece < left ? piece : left;
        rp_sha256_update(&hash, letters, n);
        left -= n;
    }
    rp_sha256_final(&hash, digest);
    rp_sha256_format(digest, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void every_length_around_a_block_is_padded_rightly(void **state)
{
    /* Hash of the hashes of "a" * n for n = 0 .. 200, from Python's hashlib. */
    char letters[201], hex[65], all[201 * 64 + 1];
    (void)state;
    memset(letters, 'a', sizeof letters);
    for (size_t n = 0; n <= 200; n++)
        rp_sha256_hex(letters, n, all + 64 * n);
    rp_sha256_hex(all, 201 * 64, hex);
    assert_string_equal(hex, "eb555248bd20c7831e511d4461b42c9b084e3a64b44d57b00051172f8afe03ff");
}

/* RFC 4231, test cases 1, 2 and 6. */
static void the_published_examples_of_hmac_come_out(void **state)
{
    static const char text[] = "what do ya want for nothing?",
                      long_text[] = "Test Using Larger Than Block-Size Key - Hash Key First";
    uint8_t key[131];
    char hex[65];
    (void)state;
    memset(key, 0x0b, sizeof key);
    rp_sha256_keyed_hex(key, 20, "Hi There", 8, hex);
    assert_string_equal(hex, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    rp_sha256_keyed_hex("Jefe", 4, text, sizeof text - 1, hex);
    assert_string_equal(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    memset(key, 0xaa, sizeof key);
    rp_sha256_keyed_hex(key, sizeof key, long_text, sizeof long_text - 1, hex);
    assert_string_equal(hex, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

static void a_file_is_hashed_like_its_bytes(void **state)
{
    char folder[256], path[512], from_file[65], from_memory[65];
    size_t n = 200001;
    uint8_t *bytes = malloc(n);
    (void)state;
    assert_non_null(bytes);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(i * 7 >> 3 & 255);
    rp_test_make_folder(folder);
    rp_test_write_file(folder, "data", bytes, n);
    assert_int_equal(rp_path_join(path, sizeof path, folder, "data", NULL), RP_OK);
    assert_int_equal(rp_sha256_file(path, from_file, NULL), RP_OK);
    rp_sha256_hex(bytes, n, from_memory);
    assert_string_equal(from_file, from_memory);
    free(bytes);
    assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
}

static void a_missing_file_and_a_folder_are_errors(void **state)
{
    char hex[65];
    struct rp_error err;
    (void)state;
    assert_int_equal(rp_sha256_file("/nonexistent/file", hex, &err), RP_ERR_MISSING);
    assert_string_equal(err.message, "cannot open: No such file or directory");
    assert_string_equal(hex, "");
    assert_int_equal(rp_sha256_file("/", hex, &err), RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "expected a regular file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_published_examples_come_out),
        cmocka_unit_test(a_million_letters_in_uneven_pieces_come_out),
        cmocka_unit_test(every_length_around_a_block_is_padded_rightly),
        cmocka_unit_test(the_published_examples_of_hmac_come_out),
        cmocka_unit_test(a_file_is_hashed_like_its_bytes),
        cmocka_unit_test(a_missing_file_and_a_folder_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
