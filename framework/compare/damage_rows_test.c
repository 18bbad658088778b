/* The recognisers by themselves: rows in memory, at any alignment, few and many. What makes them an
 * error: dump_damage_test. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "compare/damage_rows.h"
#include "compare/toy_model_test_util.h"

enum { DIM = 24 };

/* Two sides of [n][DIM], the engine's at an odd address, both with positions 0, 2, 4 ... */
struct sides {
    struct rp_tensor right, engine;
    char *bytes;
    float *rows;
    int64_t *positions;
};

static float right_value(size_t p, size_t j)
{
    uint32_t state = (uint32_t)(p * DIM + j + 1);
    return (float)rp_toy_normal(&state);
}

/* source(p): the right row at the engine's row p; -1: zeros. */
static struct sides make(size_t n, long (*source)(size_t p, size_t n))
{
    struct sides s;
    s.rows = malloc(n * DIM * sizeof *s.rows);
    s.bytes = malloc(n * DIM * sizeof *s.rows + 1);
    s.positions = malloc(n * sizeof *s.positions);
    assert_true(s.rows && s.bytes && s.positions);
    for (size_t p = 0; p < n; p++) {
        s.positions[p] = (int64_t)(2 * p);
        for (size_t j = 0; j < DIM; j++) {
            const long from = source(p, n);
            const float value = from < 0 ? 0.0f : right_value((size_t)from, j);
            s.rows[p * DIM + j] = right_value(p, j);
            memcpy(s.bytes + 1 + (p * DIM + j) * 4, &value, 4);
        }
    }
    s.right = (struct rp_tensor){.data = s.rows, .n_positions = n, .dim = DIM};
    s.engine = (struct rp_tensor){.data = s.bytes + 1, .n_positions = n, .dim = DIM};
    s.right.positions = s.engine.positions = s.positions;
    return s;
}

static void end(struct sides *s)
{
    free(s->rows);
    free(s->bytes);
    free(s->positions);
}

static long same(size_t p, size_t n)
{
    (void)n;
    return (long)p;
}

static long reversed(size_t p, size_t n)
{
    return (long)(n - 1 - p);
}

static long scattered(size_t p, size_t n)
{
    return (long)((p * 7 + 3) % n);
}

static long shifted_by_9(size_t p, size_t n)
{
    return p + 9 < n ? (long)p + 9 : -1;
}

static long zeros_from_the_middle(size_t p, size_t n)
{
    return p < n / 2 ? (long)p : -1;
}

static void open_rows(const struct sides *s, struct rp_damage_rows *rows)
{
    assert_int_equal(rp_damage_rows_open(rows, &s->right, &s->engine, NULL, 0, 0.05), RP_OK);
}

static void assert_displaced(size_t n, long (*source)(size_t p, size_t n), const char *text)
{
    struct sides s = make(n, source);
    struct rp_damage_rows rows;
    struct rp_damage damage;
    open_rows(&s, &rows);
    assert_int_equal(rp_damage_find_displaced(&rows, &damage), RP_OK);
    assert_int_equal(damage.kind, RP_DAMAGE_DISPLACED);
    if (!strstr(damage.text, text))
        fail_msg("expected \"%s\" in \"%s\"", text, damage.text);
    for (size_t p = 0; p < n; p++)
        assert_int_equal(damage.source[p], source(p, n) < 0 ? -1 : 2 * source(p, n));
    assert_true(damage.each_once);
    /* of thousands that would take too long */
    assert_int_equal(rp_damage_count_distinct(&rows, &damage, 0.05),
                     n < 1000 ? damage.n_undone : 0);
    rp_damage_free(&damage);
    rp_damage_rows_close(&rows);
    end(&s);
}

static void displaced_rows_are_found_and_named_by_position(void **state)
{
    (void)state;
    assert_displaced(40, reversed, "reverse order");
    assert_displaced(40, scattered, "permuted: position 0 holds the row of position 6");
    assert_displaced(40, shifted_by_9, "off by -18: position 0 holds the row of position 18");
}

/* More rows than are searched one by one. */
static void regular_displacements_are_found_in_any_number_of_rows(void **state)
{
    (void)state;
    struct sides s = make(5001, scattered);
    struct rp_damage_rows rows;
    struct rp_damage damage;
    assert_displaced(5001, reversed, "reverse order");
    assert_displaced(5001, shifted_by_9, "off by -18");
    open_rows(&s, &rows);
    assert_int_equal(rp_damage_find_displaced(&rows, &damage), RP_OK);
    assert_int_equal(damage.kind, RP_DAMAGE_NONE);
    rp_damage_rows_close(&rows);
    end(&s);
}

static void right_rows_are_nothing(void **state)
{
    (void)state;
    struct sides s = make(20, same);
    struct rp_damage_rows rows;
    struct rp_damage damage;
    open_rows(&s, &rows);
    assert_int_equal(rows.n_pairs, 20);
    assert_int_equal(rows.n_failing, 0);
    assert_int_equal(rp_damage_find_encoding(&rows, &damage), RP_OK);
    assert_int_equal(damage.kind, RP_DAMAGE_NONE);
    assert_int_equal(rp_damage_find_displaced(&rows, &damage), RP_OK);
    assert_int_equal(damage.kind, RP_DAMAGE_NONE);
    assert_int_equal(rp_damage_find_unwritten(&rows, &damage), RP_OK);
    assert_int_equal(damage.kind, RP_DAMAGE_NONE);
    rp_damage_match_other(&rows, &s.right, &damage);
    assert_int_equal(damage.kind, RP_DAMAGE_NONE);
    rp_damage_rows_close(&rows);
    end(&s);
}

static void one_row_can_be_encoded_or_unwritten_but_not_displaced(void **state)
{
    (void)state;
    struct sides s = make(1, zeros_from_the_middle);
    struct rp_damage_rows rows;
    struct rp_damage damage;
    open_rows(&s, &rows);
    assert_int_equal(rp_damage_find_displaced(&rows, &damage), RP_OK);
    assert_int_equal(damage.kind, RP_DAMAGE_NONE);
    assert_int_equal(rp_damage_find_unwritten(&rows, &damage), RP_OK);
    assert_int_equal(damage.kind, RP_DAMAGE_UNWRITTEN);
    assert_int_equal(damage.n_undone, 0);
    rp_damage_rows_close(&rows);
    for (size_t j = 0; j < DIM; j++)
        for (size_t k = 0; k < 4; k++)
            s.bytes[1 + 4 * j + k] = ((const char *)s.rows)[4 * j + 3 - k];
    open_rows(&s, &rows);
    assert_int_equal(rp_damage_find_encoding(&rows, &damage), RP_OK);
    assert_int_equal(damage.kind, RP_DAMAGE_SWAPPED);
    rp_damage_rows_close(&rows);
    end(&s);
}

static void rows_of_different_widths_are_not_compared(void **state)
{
    (void)state;
    struct sides s = make(3, same);
    struct rp_damage_rows rows;
    s.engine.dim = DIM / 2;
    assert_int_equal(rp_damage_rows_open(&rows, &s.right, &s.engine, NULL, 0, 0.05),
                     RP_ERR_MISMATCH);
    end(&s);
}

static void arrays_are_looked_at_for_every_kind_in_turn(void **state)
{
    (void)state;
    static const struct {
        long (*source)(size_t p, size_t n);
        enum rp_damage_kind kind;
    } cases[] = {{same, RP_DAMAGE_NONE},
                 {reversed, RP_DAMAGE_DISPLACED},
                 {zeros_from_the_middle, RP_DAMAGE_UNWRITTEN}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sides s = make(10, cases[i].source);
        float engine[10 * DIM];
        struct rp_damage damage;
        memcpy(engine, s.engine.data, sizeof engine);
        assert_int_equal(rp_damage_of_arrays(s.rows, engine, s.positions, 10, DIM, 0.05, &damage),
                         RP_OK);
        assert_int_equal(damage.kind, cases[i].kind);
        rp_damage_free(&damage);
        for (size_t j = 0; j < 10 * DIM; j++) {
            uint32_t bits;
            memcpy(&bits, &s.rows[j], 4);
            bits = bits >> 24 | (bits >> 8 & 0xff00) | (bits << 8 & 0xff0000) | bits << 24;
            memcpy(&engine[j], &bits, 4);
        }
        assert_int_equal(rp_damage_of_arrays(s.rows, engine, s.positions, 10, DIM, 0.05, &damage),
                         RP_OK);
        assert_int_equal(damage.kind, RP_DAMAGE_SWAPPED);
        end(&s);
    }
}

static void equal_right_rows_are_not_distinct(void **state)
{
    (void)state;
    struct sides s = make(8, reversed);
    struct rp_damage_rows rows;
    struct rp_damage damage;
    memcpy(s.rows + 3 * DIM, s.rows + 5 * DIM, DIM * sizeof *s.rows);
    memcpy(s.bytes + 1 + (size_t)4 * DIM * 4, s.rows + 5 * DIM, DIM * sizeof *s.rows);
    open_rows(&s, &rows);
    assert_int_equal(rp_damage_find_displaced(&rows, &damage), RP_OK);
    assert_int_equal(damage.kind, RP_DAMAGE_DISPLACED);
    assert_int_equal(rp_damage_count_distinct(&rows, &damage, 0.05), 6);
    rp_damage_free(&damage);
    rp_damage_rows_close(&rows);
    end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(displaced_rows_are_found_and_named_by_position),
        cmocka_unit_test(regular_displacements_are_found_in_any_number_of_rows),
        cmocka_unit_test(right_rows_are_nothing),
        cmocka_unit_test(one_row_can_be_encoded_or_unwritten_but_not_displaced),
        cmocka_unit_test(rows_of_different_widths_are_not_compared),
        cmocka_unit_test(arrays_are_looked_at_for_every_kind_in_turn),
        cmocka_unit_test(equal_right_rows_are_not_distinct),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
