/* The key of a build tree: one, whoever makes it, and however many at once. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "run/seal.h"

enum { N_MAKERS = 8, N_ROUNDS = 50, HEX = RP_SEAL_KEY_SIZE - 1 };

/* In a process of its own: waits until go is closed, makes the key and writes it to out. */
static void make_key(const char *folder, int go, int out)
{
    char key[RP_SEAL_KEY_SIZE], byte;
    (void)!read(go, &byte, 1);
    if (rp_seal_make_key(folder, key, NULL) || write(out, key, HEX) != HEX)
        _exit(1);
    _exit(0);
}

static void all_who_make_a_key_at_once_get_the_same(void **state)
{
    (void)state;
    for (int round = 0; round < N_ROUNDS; round++) {
        char folder[256], first[RP_SEAL_KEY_SIZE], key[RP_SEAL_KEY_SIZE] = "";
        int go[2], out[2], status;
        rp_test_make_folder(folder);
        assert_int_equal(pipe(go), 0);
        assert_int_equal(pipe(out), 0);
        for (int i = 0; i < N_MAKERS; i++) {
            const pid_t child = fork();
            assert_true(child >= 0);
            if (child == 0) {
                close(go[1]);
                make_key(folder, go[0], out[1]);
            }
        }
        close(go[0]);
        close(go[1]);
        for (int i = 0; i < N_MAKERS; i++) {
            assert_true(wait(&status) > 0);
            assert_int_equal(status, 0);
        }
        rp_seal_read_key(folder, first);
        assert_int_equal(strlen(first), HEX);
        for (int i = 0; i < N_MAKERS; i++) {
            assert_int_equal(read(out[0], key, HEX), HEX);
            assert_string_equal(key, first);
        }
        close(out[0]);
        close(out[1]);
        DIR *left = opendir(folder);
        size_t n = 0;
        assert_non_null(left);
        while (readdir(left))
            n++;
        closedir(left);
        assert_int_equal(n, 3); /* ".", ".." and the key */
        assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
    }
}

static void what_is_no_key_is_replaced(void **state)
{
    (void)state;
    char folder[256], key[RP_SEAL_KEY_SIZE], again[RP_SEAL_KEY_SIZE];
    rp_test_make_folder(folder);
    rp_test_write_file(folder, "key", "short", 5);
    rp_seal_read_key(folder, key);
    assert_string_equal(key, "");
    assert_int_equal(rp_seal_make_key(folder, key, NULL), RP_OK);
    assert_int_equal(strlen(key), HEX);
    assert_int_equal(rp_seal_make_key(folder, again, NULL), RP_OK);
    assert_string_equal(again, key);
    assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_who_make_a_key_at_once_get_the_same),
        cmocka_unit_test(what_is_no_key_is_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
