/* The CRC: against zlib's, at every length and alignment that its paths distinguish. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/crc32.h"

/* The same bytes on every run: xorshift64, https://www.jstatsoft.org/v08/i14/paper. */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static unsigned char *random_bytes(size_t n)
{
    uint64_t state = 88172645463325252u;
    unsigned char *bytes = malloc(n);
    assert_non_null(bytes);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (unsigned char)(next_random(&state) >> 32);
    return bytes;
}

static void assert_same_as_zlib(const unsigned char *bytes, size_t n)
{
    const uint32_t expected = (uint32_t)crc32_z(crc32_z(0, NULL, 0), bytes, n);
    const uint32_t found = rp_crc32(bytes, n);
    if (found != expected)
        fail_msg("%zu bytes: expected %08lx, found %08lx", n, (unsigned long)expected,
                 (unsigned long)found);
}

static void the_check_value_of_the_standard_is_found(void **state)
{
    (void)state;
    assert_int_equal(rp_crc32("123456789", 9), 0xcbf43926);
    assert_int_equal(rp_crc32(NULL, 0), 0);
}

static void every_length_and_alignment_gives_zlibs_value(void **state)
{
    (void)state;
    enum { LENGTHS = 400, SHIFTS = 17 }; /* past six strides of 64 bytes */
    unsigned char *bytes = random_bytes(LENGTHS + SHIFTS);
    for (size_t shift = 0; shift < SHIFTS; shift++)
        for (size_t n = 0; n <= LENGTHS; n++)
            assert_same_as_zlib(bytes + shift, n);
    free(bytes);
}

static void random_parts_of_a_long_buffer_give_zlibs_value(void **state)
{
    (void)state;
    const size_t size = 1u << 18;
    unsigned char *bytes = random_bytes(size);
    uint64_t random = 1;
    for (int i = 0; i < 300; i++) {
        const size_t start = (size_t)(next_random(&random) % size);
        assert_same_as_zlib(bytes + start, (size_t)(next_random(&random) % (size - start + 1)));
    }
    free(bytes);
}

static void uniform_bytes_give_zlibs_value(void **state)
{
    (void)state;
    unsigned char bytes[1000];
    for (int value = 0; value < 256; value += 85) {
        memset(bytes, value, sizeof bytes);
        assert_same_as_zlib(bytes, sizeof bytes);
    }
}

static void one_flipped_bit_changes_the_value(void **state)
{
    (void)state;
    unsigned char *bytes = random_bytes(300);
    const uint32_t whole = rp_crc32(bytes, 300);
    for (size_t bit = 0; bit < 2400; bit++) {
        bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
        assert_int_not_equal(rp_crc32(bytes, 300), whole);
        bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    assert_int_equal(rp_crc32(bytes, 300), whole);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_check_value_of_the_standard_is_found),
        cmocka_unit_test(every_length_and_alignment_gives_zlibs_value),
        cmocka_unit_test(random_parts_of_a_long_buffer_give_zlibs_value),
        cmocka_unit_test(uniform_bytes_give_zlibs_value),
        cmocka_unit_test(one_flipped_bit_changes_the_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
