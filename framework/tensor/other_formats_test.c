/* tensor/other_formats.h: other tools' files are named, and a file of our own is not taken for one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tensor/other_formats.h"

static const char torch_zip[] = "PK\3\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x10\0\0\0"
                                "archive/data.pkl";
static const char npz[] = "PK\3\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x07\0\0\0"
                          "emb.npy";
static const char old_torch[] = "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
static const char log_text[] =
    "main: build\n"
    "ggml_debug:                 inp_embd = (f32)   GET_ROWS(token_embd\n";

static const struct {
    const char *bytes;
    size_t size;
    const char *path, *begin; /* of the name; NULL: it is none */
} cases[] = {
    {torch_zip, sizeof torch_zip - 1, "a.npz", "a file of torch.save"},
    {old_torch, sizeof old_torch - 1, "a", "a file of torch.save"},
    {"\x80\x04\x95}.", 5, "a", "a Python pickle"},
    {"_logits_\1\0\0\0", 12, "a", "a file of llama-perplexity --kl-divergence-base"},
    {log_text, sizeof log_text - 1, "a.txt", "a log of llama.cpp's eval callback"},
    {"\0\0\x80\x3f", 4, "/x/llamacpp-M.bin", "a file of llama-debug --save-logits"},
    {"\0\0\x80\x3f", 4, "/x/M.bin", NULL},
    {"\0\0\x80\x3f", 4, "/x/llamacpp-M-tokens.bin", NULL},
    {npz, sizeof npz - 1, "a.pt", NULL},
    {"\x93NUMPY\1\0", 8, "a", NULL},
    {"GGUF", 4, "a", NULL},
    {"", 0, "a", NULL},
};

/* Of 0x0280 bytes of header, whose last value's highest byte is 0x2e, '.'. */
static void a_safetensors_file_that_begins_and_ends_as_a_pickle_is_none(void **state)
{
    (void)state;
    uint8_t bytes[8 + 0x280 + 2] = {0x80, 2};
    const char *lines;
    memset(bytes + 8, ' ', sizeof bytes - 8);
    bytes[8] = '{';
    bytes[sizeof bytes - 1] = '.';
    assert_null(rp_other_format(bytes, sizeof bytes, "a.safetensors", &lines));
    bytes[8] = '}';
    assert_string_equal(rp_other_format(bytes, sizeof bytes, "a", &lines), "a Python pickle");
}

static void other_tools_files_are_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *lines = "x";
        const char *name =
            rp_other_format((const uint8_t *)cases[i].bytes, cases[i].size, cases[i].path, &lines);
        if (!cases[i].begin) {
            assert_null(name);
            assert_null(lines);
            continue;
        }
        assert_non_null(name);
        assert_memory_equal(name, cases[i].begin, strlen(cases[i].begin));
        assert_non_null(strchr(lines, '\n'));
        assert_null(strchr(strchr(lines, '\n') + 1, '\n')); /* two lines */
    }
}

static void nothing_is_read_past_a_file_cut_anywhere(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t n = 0; n < cases[i].size; n++) {
            const char *lines;
            uint8_t *exact = malloc(n ? n : 1); /* so that a sanitizer sees any read past the end */
            assert_non_null(exact);
            memcpy(exact, cases[i].bytes, n);
            (void)rp_other_format(exact, n, cases[i].path, &lines);
            (void)rp_is_safetensors(exact, n);
            free(exact);
        }
}

static void a_safetensors_header_has_to_fit_into_its_file(void **state)
{
    (void)state;
    assert_true(rp_is_safetensors((const uint8_t *)"\2\0\0\0\0\0\0\0{}", 10));
    assert_false(rp_is_safetensors((const uint8_t *)"\3\0\0\0\0\0\0\0{}", 10));
    assert_false(rp_is_safetensors((const uint8_t *)"\2\0\0\0\0\0\0\0[]", 10));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_safetensors_file_that_begins_and_ends_as_a_pickle_is_none),
        cmocka_unit_test(other_tools_files_are_named),
        cmocka_unit_test(nothing_is_read_past_a_file_cut_anywhere),
        cmocka_unit_test(a_safetensors_header_has_to_fit_into_its_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
