/* tensor/zip.h: archives as numpy writes them, and damaged or hostile ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tensor/npz_writer_test_util.h"
#include "tensor/zip.h"

static const char text_a[] = "content of a";
static const char text_b[] =
    "b, which repeats itself, b, which repeats itself, b, which repeats itself";

static struct rp_test_bytes archive_of_two(unsigned how, int is_zip64)
{
    struct rp_test_zip zip = {.n_members = 0};
    struct rp_test_bytes bytes = {NULL, 0, 0};
    rp_test_zip_add(&zip, "a", text_a, sizeof text_a, how);
    rp_test_zip_add(&zip, "b", text_b, sizeof text_b, how);
    rp_test_zip_finish(&zip, is_zip64, &bytes);
    return bytes;
}

static enum rp_status load(const struct rp_test_bytes *bytes, const char *name, char *out,
                           struct rp_error *err)
{
    struct rp_zip zip;
    const uint8_t *content;
    void *owned;
    enum rp_status code = rp_zip_open(bytes->data, bytes->n, "x.zip", &zip, err);
    if (code)
        return code;
    const struct rp_zip_member *member = rp_zip_find(&zip, name);
    if (!member)
        code = RP_ERR_MISSING;
    else
        code = rp_zip_load(&zip, member, &content, &owned, err);
    if (!code) {
        assert_true(member->size < 100);
        memcpy(out, content, (size_t)member->size);
        free(owned);
    }
    rp_zip_close(&zip);
    return code;
}

static void assert_loads(const struct rp_test_bytes *bytes)
{
    char out[100];
    assert_int_equal(load(bytes, "a", out, NULL), RP_OK);
    assert_string_equal(out, text_a);
    assert_int_equal(load(bytes, "b", out, NULL), RP_OK);
    assert_string_equal(out, text_b);
}

/* Opening it, or loading a from it, fails with code and message. */
static void assert_refused(struct rp_test_bytes *bytes, enum rp_status code, const char *message)
{
    char out[100];
    struct rp_error err;
    assert_int_equal(load(bytes, "a", out, &err), code);
    assert_string_equal(err.message, message);
    assert_string_equal(err.where, "x.zip");
    rp_test_free(bytes);
}

static void stored_and_deflated_members_are_read(void **state)
{
    static const unsigned ways[] = {0, RP_TEST_DEFLATED, RP_TEST_ZIP64, RP_TEST_ZIP64_ENTRY,
                                    RP_TEST_ZIP64 | RP_TEST_ZIP64_ENTRY | RP_TEST_DEFLATED};
    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        for (int is_zip64 = 0; is_zip64 < 2; is_zip64++) {
            struct rp_test_bytes bytes = archive_of_two(ways[i], is_zip64);
            assert_loads(&bytes);
            rp_test_free(&bytes);
        }
    }
}

static void a_stored_member_is_used_in_place(void **state)
{
    struct rp_test_bytes bytes = archive_of_two(0, 0);
    struct rp_zip zip;
    const uint8_t *content;
    void *owned;
    (void)state;
    assert_int_equal(rp_zip_open(bytes.data, bytes.n, "x.zip", &zip, NULL), RP_OK);
    assert_int_equal(rp_zip_load(&zip, rp_zip_find(&zip, "a"), &content, &owned, NULL), RP_OK);
    assert_null(owned);
    assert_true(content == bytes.data + 31);
    rp_zip_close(&zip);
    rp_test_free(&bytes);
}

static void an_empty_archive_and_a_comment_are_fine(void **state)
{
    struct rp_test_zip zip = {.n_members = 0};
    struct rp_test_bytes bytes = {NULL, 0, 0};
    struct rp_zip opened;
    (void)state;
    rp_test_zip_finish(&zip, 0, &bytes);
    assert_int_equal(rp_zip_open(bytes.data, bytes.n, "x.zip", &opened, NULL), RP_OK);
    assert_int_equal(opened.n_members, 0);
    rp_zip_close(&opened);
    rp_test_free(&bytes);

    bytes = archive_of_two(0, 0);
    bytes.data[bytes.n - 2] = 7;
    rp_test_put(&bytes, "comment", 7);
    assert_loads(&bytes);
    rp_test_free(&bytes);
}

static void members_that_the_directory_does_not_list_are_not_there(void **state)
{
    struct rp_test_zip zip = {.n_members = 0};
    struct rp_test_bytes bytes = {NULL, 0, 0};
    char out[100];
    (void)state;
    rp_test_zip_add(&zip, "a", text_b, sizeof text_b, 0); /* stale: replaced by the next */
    rp_test_free(&zip.directory);
    zip.n_members = 0;
    rp_test_zip_add(&zip, "a", text_a, sizeof text_a, 0);
    rp_test_zip_finish(&zip, 0, &bytes);
    assert_int_equal(load(&bytes, "a", out, NULL), RP_OK);
    assert_string_equal(out, text_a);
    assert_int_equal(load(&bytes, "b", out, NULL), RP_ERR_MISSING);
    rp_test_free(&bytes);
}

static void two_members_of_one_name_are_refused(void **state)
{
    struct rp_test_zip zip = {.n_members = 0};
    struct rp_test_bytes bytes = {NULL, 0, 0};
    (void)state;
    rp_test_zip_add(&zip, "a", text_a, sizeof text_a, 0);
    rp_test_zip_add(&zip, "b", text_a, sizeof text_a, 0);
    rp_test_zip_add(&zip, "a", text_b, sizeof text_b, 0);
    rp_test_zip_finish(&zip, 0, &bytes);
    assert_refused(&bytes, RP_ERR_FORMAT, "member a is there twice");
}

/* As zip bombs do that list the same bytes many times. */
static void members_that_overlap_are_refused(void **state)
{
    struct rp_test_zip zip = {.n_members = 0};
    struct rp_test_bytes bytes = {NULL, 0, 0};
    (void)state;
    rp_test_zip_add(&zip, "a", text_a, sizeof text_a, 0);
    size_t first = zip.last_entry;
    rp_test_zip_add(&zip, "b", text_a, sizeof text_a, 0);
    memcpy(zip.directory.data + zip.last_entry + 42, zip.directory.data + first + 42, 4);
    rp_test_zip_finish(&zip, 0, &bytes);
    assert_refused(&bytes, RP_ERR_FORMAT, "member a overlaps what follows it at byte 0");
}

enum { CRC = 16, COMPRESSED = 20, SIZE = 24, OFFSET = 42 }; /* in a directory entry */

/* One member a; its directory entry's 4 bytes at field are replaced. */
static struct rp_test_bytes with_entry_field(unsigned how, size_t field, uint32_t value)
{
    struct rp_test_zip zip = {.n_members = 0};
    struct rp_test_bytes bytes = {NULL, 0, 0};
    rp_test_zip_add(&zip, "a", text_a, sizeof text_a, how);
    for (size_t i = 0; i < 4; i++)
        zip.directory.data[field + i] = (uint8_t)(value >> 8 * i & 255);
    rp_test_zip_finish(&zip, 0, &bytes);
    return bytes;
}

static void sizes_and_places_outside_the_archive_are_refused(void **state)
{
    struct rp_test_bytes bytes = with_entry_field(0, OFFSET, 1000);
    (void)state;
    assert_refused(&bytes, RP_ERR_FORMAT,
                   "member a: expected it before byte 44, found 13 bytes from byte 1000");
    bytes = with_entry_field(0, COMPRESSED, 14);
    assert_refused(&bytes, RP_ERR_FORMAT,
                   "member a: expected it before byte 44, found 14 bytes from byte 0");
    bytes = with_entry_field(0, COMPRESSED, 0xffffffff); /* saturated, and no zip64 field */
    assert_refused(&bytes, RP_ERR_FORMAT,
                   "member a: expected it before byte 44, found 4294967295 bytes from byte 0");
    bytes = with_entry_field(0, OFFSET, 1);
    assert_refused(&bytes, RP_ERR_FORMAT,
                   "member a: expected it before byte 44, found 13 bytes from byte 1");
}

static void stored_sizes_have_to_agree(void **state)
{
    struct rp_test_bytes bytes = with_entry_field(0, SIZE, 12);
    (void)state;
    assert_refused(&bytes, RP_ERR_FORMAT,
                   "member a is stored, but its sizes differ: 13 and 12 bytes");
}

static void a_bomb_is_refused_before_memory_is_taken(void **state)
{
    struct rp_test_bytes bytes = with_entry_field(RP_TEST_DEFLATED, SIZE, 0xfffffff0);
    (void)state;
    assert_refused(&bytes, RP_ERR_FORMAT,
                   "member a: 4294967280 bytes cannot come from 15 compressed bytes");
}

/* Zeros deflate a thousandfold: 65 MiB of them are 66 kB. */
static struct rp_test_bytes archive_of_zeros(size_t n, size_t n_random)
{
    struct rp_test_zip zip = {.n_members = 0};
    struct rp_test_bytes bytes = {NULL, 0, 0};
    uint8_t *content = calloc(n, 1);
    assert_non_null(content);
    uint32_t random = 1;
    for (size_t i = 0; i < n_random; i++)
        content[i] = (uint8_t)((random = random * 1664525u + 1013904223u) >> 24);
    rp_test_zip_add(&zip, "a", content, n, RP_TEST_DEFLATED);
    rp_test_zip_finish(&zip, 0, &bytes);
    free(content);
    return bytes;
}

static enum rp_status load_large(struct rp_test_bytes *bytes, struct rp_error *err)
{
    struct rp_zip zip;
    const uint8_t *content;
    void *owned = NULL;
    assert_int_equal(rp_zip_open(bytes->data, bytes->n, "x.zip", &zip, NULL), RP_OK);
    const enum rp_status code = rp_zip_load(&zip, rp_zip_find(&zip, "a"), &content, &owned, err);
    free(owned);
    rp_zip_close(&zip);
    rp_test_free(bytes);
    return code;
}

static void what_is_large_and_shrinks_a_hundredfold_is_refused(void **state)
{
    const size_t MiB = (size_t)1 << 20;
    struct rp_error err;
    (void)state;
    struct rp_test_bytes bytes = archive_of_zeros(65 * MiB, 0);
    assert_int_equal(load_large(&bytes, &err), RP_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "member a: 68157440 bytes from "));
    bytes = archive_of_zeros(65 * MiB, MiB); /* a 65th at least */
    assert_int_equal(load_large(&bytes, &err), RP_OK);
    bytes = archive_of_zeros(8 * MiB, 0);
    assert_int_equal(load_large(&bytes, &err), RP_OK);
}

static void deflated_data_of_another_length_is_refused(void **state)
{
    static const uint32_t sizes[] = {0, 1, 12, 14, 1000};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct rp_test_bytes bytes = with_entry_field(RP_TEST_DEFLATED, SIZE, sizes[i]);
        char out[100];
        struct rp_error err;
        assert_int_equal(load(&bytes, "a", out, &err), RP_ERR_FORMAT);
        assert_non_null(strstr(err.message, "member a: its deflated data is damaged, or is not "));
        rp_test_free(&bytes);
    }
}

static void a_wrong_checksum_is_refused(void **state)
{
    static const unsigned ways[] = {0, RP_TEST_DEFLATED};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct rp_test_bytes bytes = with_entry_field(ways[i], CRC, 0x12345678);
        assert_refused(&bytes, RP_ERR_FORMAT,
                       "member a is damaged: expected CRC 12345678, found 9611489e");
    }
}

/* One member a; 2 bytes are replaced in its local header and, where entry is not 0, in its entry. */
static struct rp_test_bytes with_u16(size_t local, size_t entry, unsigned value)
{
    struct rp_test_zip zip = {.n_members = 0};
    struct rp_test_bytes bytes = {NULL, 0, 0};
    rp_test_zip_add(&zip, "a", text_a, sizeof text_a, 0);
    zip.members.data[local] = (uint8_t)(value & 255);
    zip.members.data[local + 1] = (uint8_t)(value >> 8);
    if (entry) {
        zip.directory.data[entry] = (uint8_t)(value & 255);
        zip.directory.data[entry + 1] = (uint8_t)(value >> 8);
    }
    rp_test_zip_finish(&zip, 0, &bytes);
    return bytes;
}

static void encryption_and_other_methods_are_refused(void **state)
{
    struct rp_test_bytes bytes = with_u16(6, 8, 1);
    (void)state;
    assert_refused(&bytes, RP_ERR_UNSUPPORTED, "member a is encrypted or a patch: flags 0x0001");
    bytes = with_u16(8, 10, 12);
    assert_refused(&bytes, RP_ERR_UNSUPPORTED,
                   "member a: expected it stored or deflated, found compression method 12");
    bytes = with_u16(8, 0, 8);
    assert_refused(&bytes, RP_ERR_FORMAT,
                   "member a: compression method 0 in the directory, 8 in its local header");
}

static void local_headers_have_to_agree_with_the_directory(void **state)
{
    struct rp_test_bytes bytes = with_u16(0, 0, 0);
    (void)state;
    assert_refused(&bytes, RP_ERR_FORMAT,
                   "member a: expected the signature of a local header, found 0x04030000");
    bytes = with_u16(26, 0, 2);
    assert_refused(&bytes, RP_ERR_FORMAT, "member a has another name in its local header");
    bytes = with_u16(30, 0, 'b' | 'c' << 8);
    assert_refused(&bytes, RP_ERR_FORMAT, "member a has another name in its local header");
    bytes = with_u16(28, 0, 1);
    assert_refused(&bytes, RP_ERR_FORMAT, "member a overlaps what follows it at byte 44");
    bytes = with_u16(6, 0, 8); /* a data descriptor follows: nothing that the directory lacks */
    char out[100];
    assert_int_equal(load(&bytes, "a", out, NULL), RP_OK);
    rp_test_free(&bytes);
}

static void a_name_with_a_nul_is_refused(void **state)
{
    struct rp_test_zip zip = {.n_members = 0};
    struct rp_test_bytes bytes = {NULL, 0, 0};
    (void)state;
    rp_test_zip_add(&zip, "a", text_a, sizeof text_a, 0);
    zip.directory.data[46] = 0;
    rp_test_zip_finish(&zip, 0, &bytes);
    assert_refused(&bytes, RP_ERR_FORMAT, "a member's name is empty or contains a NUL");
}

static void end_records_that_lie_are_refused(void **state)
{
    struct rp_test_bytes bytes = archive_of_two(0, 0);
    size_t end = bytes.n - 22;
    (void)state;
    bytes.data[end + 8] = bytes.data[end + 10] = 3;
    assert_refused(&bytes, RP_ERR_FORMAT,
                   "a central directory of 94 bytes is too short for 3 members");
    bytes = archive_of_two(0, 0);
    bytes.data[end + 8] = bytes.data[end + 10] = 1;
    assert_refused(&bytes, RP_ERR_FORMAT,
                   "expected the central directory's end after 1 members, found 47 more bytes");
    bytes = archive_of_two(0, 0);
    bytes.data[end + 4] = 1;
    assert_refused(&bytes, RP_ERR_UNSUPPORTED, "the archive is one part of several");
    bytes = archive_of_two(0, 0);
    bytes.data[end + 18] = 1;
    assert_refused(&bytes, RP_ERR_FORMAT,
                   "expected the central directory before byte 243, found 94 bytes from byte "
                   "65685");
    bytes = archive_of_two(0, 1);
    end = bytes.n - 22;
    bytes.data[end - 20 + 8 + 7] = 0x80;
    assert_refused(&bytes, RP_ERR_FORMAT,
                   "expected the zip64 end record before its locator, found its offset to be "
                   "9223372036854776051");
    bytes = archive_of_two(0, 1);
    bytes.data[end - 20 - 56] ^= 1;
    assert_refused(&bytes, RP_ERR_FORMAT,
                   "expected the signature of a zip64 end record, found 0x06064b51");
    bytes = archive_of_two(0, 1);
    bytes.data[end - 20 - 56 + 31] = bytes.data[end - 20 - 56 + 39] = 1;
    assert_refused(&bytes, RP_ERR_UNSUPPORTED,
                   "expected at most 100000 members, found 72057594037927938");
}

static void a_truncated_archive_is_an_error_at_every_byte(void **state)
{
    (void)state;
    for (int is_zip64 = 0; is_zip64 < 2; is_zip64++) {
        struct rp_test_bytes bytes = archive_of_two(RP_TEST_ZIP64 | RP_TEST_ZIP64_ENTRY, is_zip64);
        for (size_t n = 0; n < bytes.n; n++) {
            struct rp_test_bytes cut = {malloc(n + 1), n, n};
            char out[100];
            struct rp_error err;
            assert_non_null(cut.data);
            memcpy(cut.data, bytes.data, n);
            cut.data = realloc(cut.data, n ? n : 1);
            assert_int_equal(load(&cut, "a", out, &err), RP_ERR_FORMAT);
            assert_non_null(strstr(err.message, "not a complete zip file: no end of central "));
            rp_test_free(&cut);
        }
        rp_test_free(&bytes);
    }
}

static void a_flipped_bit_never_changes_what_is_read(void **state)
{
    static const unsigned ways[] = {0, RP_TEST_DEFLATED, RP_TEST_ZIP64 | RP_TEST_ZIP64_ENTRY};
    (void)state;
    for (size_t way = 0; way < 3; way++) {
        struct rp_test_bytes bytes = archive_of_two(ways[way], way == 2);
        size_t n_refused = 0;
        for (size_t bit = 0; bit < 8 * bytes.n; bit++) {
            char out[100];
            bytes.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
            if (load(&bytes, "a", out, NULL) == RP_OK)
                assert_string_equal(out, text_a);
            else
                n_refused++;
            if (load(&bytes, "b", out, NULL) == RP_OK)
                assert_string_equal(out, text_b);
            bytes.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        assert_true(n_refused > 8 * sizeof text_a);
        rp_test_free(&bytes);
    }
}

static void a_peek_gives_the_first_bytes(void **state)
{
    static const unsigned ways[] = {0, RP_TEST_DEFLATED};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct rp_test_bytes bytes = archive_of_two(ways[i], 0);
        struct rp_zip zip;
        uint8_t buffer[100];
        size_t n;
        assert_int_equal(rp_zip_open(bytes.data, bytes.n, "x.zip", &zip, NULL), RP_OK);
        const struct rp_zip_member *b = rp_zip_find(&zip, "b");
        assert_int_equal(rp_zip_peek(&zip, b, buffer, 20, &n, NULL), RP_OK);
        assert_int_equal(n, 20);
        assert_memory_equal(buffer, text_b, 20);
        assert_int_equal(rp_zip_peek(&zip, b, buffer, sizeof buffer, &n, NULL), RP_OK);
        assert_int_equal(n, sizeof text_b);
        rp_zip_close(&zip);
        rp_test_free(&bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stored_and_deflated_members_are_read),
        cmocka_unit_test(a_stored_member_is_used_in_place),
        cmocka_unit_test(an_empty_archive_and_a_comment_are_fine),
        cmocka_unit_test(members_that_the_directory_does_not_list_are_not_there),
        cmocka_unit_test(two_members_of_one_name_are_refused),
        cmocka_unit_test(members_that_overlap_are_refused),
        cmocka_unit_test(sizes_and_places_outside_the_archive_are_refused),
        cmocka_unit_test(stored_sizes_have_to_agree),
        cmocka_unit_test(a_bomb_is_refused_before_memory_is_taken),
        cmocka_unit_test(what_is_large_and_shrinks_a_hundredfold_is_refused),
        cmocka_unit_test(deflated_data_of_another_length_is_refused),
        cmocka_unit_test(a_wrong_checksum_is_refused),
        cmocka_unit_test(encryption_and_other_methods_are_refused),
        cmocka_unit_test(local_headers_have_to_agree_with_the_directory),
        cmocka_unit_test(a_name_with_a_nul_is_refused),
        cmocka_unit_test(end_records_that_lie_are_refused),
        cmocka_unit_test(a_truncated_archive_is_an_error_at_every_byte),
        cmocka_unit_test(a_flipped_bit_never_changes_what_is_read),
        cmocka_unit_test(a_peek_gives_the_first_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
