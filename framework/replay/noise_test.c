/* The bounds of operations, measured beside a run and drawn in one: what is drawn has the size that is
 * measured. Whether that size is right is in bounds_test.c. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "replay/engine_dump_test_util.h"
#include "replay/layer_run.h"
#include "replay/noise.h"
#include "replay/session.h"

enum { N_POSITIONS = 12, N_DRAWS = 40 };

/* Of each slot of a layer, from the engine's own rows of the slots before it. */
struct rows {
    float *rows[RP_N_LAYER_PARTS];    /* [N_POSITIONS][dim] */
    double *bound[RP_N_LAYER_PARTS];  /* [N_POSITIONS] */
    double *square[RP_N_LAYER_PARTS]; /* [N_POSITIONS] of what is drawn */
    const struct rp_noise *noise;
    const struct rp_replay_plan *plan;
    bool is_drawn;
};

static enum rp_status see(void *context, const struct rp_planned_slot *slot, const float *rows,
                          struct rp_error *err)
{
    struct rows *all = context;
    const size_t k = (size_t)(slot - all->plan->slots), n = N_POSITIONS * slot->dim;
    (void)err;
    if (!all->rows[k]) {
        all->rows[k] = malloc(n * sizeof *rows);
        all->bound[k] = calloc(N_POSITIONS, sizeof **all->bound);
        all->square[k] = calloc(N_POSITIONS, sizeof **all->square);
        memcpy(all->rows[k], rows, n * sizeof *rows);
        memcpy(all->bound[k], all->noise->bound, N_POSITIONS * sizeof **all->bound);
    }
    for (size_t i = 0; i < n && all->is_drawn; i++)
        all->square[k][i / slot->dim] += pow((double)rows[i] - (double)all->rows[k][i], 2);
    return RP_OK;
}

static void rows_free(struct rows *all)
{
    for (size_t k = 0; k < RP_N_LAYER_PARTS; k++) {
        free(all->rows[k]);
        free(all->bound[k]);
        free(all->square[k]);
    }
}

struct session {
    struct rp_test_replayed replayed;
    struct rp_replay_plan plan;
    struct rp_emulation emulation;
    struct rp_numerics numerics;
    struct rp_noise noise;
    const struct rp_layer *weights;
};

static void open_session(struct session *session, const char *model, const char *type,
                         struct rp_numerics numerics, size_t layer)
{
    const struct rp_test_dump_of of = {.model = model, .type = type, .n_tokens = N_POSITIONS};
    session->numerics = numerics;
    rp_test_replayed_open(&session->replayed, &of);
    assert_int_equal(rp_replay_plan_open(&session->plan, session->replayed.model,
                                         session->replayed.dump, layer, 0, NULL),
                     RP_OK);
    assert_int_equal(rp_replay_weights(session->replayed.replay, layer, &session->weights, NULL),
                     RP_OK);
    const struct rp_ops *below = rp_replay_stack(&session->numerics, &session->emulation, NULL);
    assert_int_equal(rp_noise_open(&session->noise, &session->numerics, below, N_POSITIONS, NULL),
                     RP_OK);
}

static void close_session(struct session *session)
{
    rp_noise_close(&session->noise);
    rp_replay_plan_close(&session->plan);
    rp_test_replayed_close(&session->replayed);
}

static void run(struct session *session, struct rows *all)
{
    struct rp_error err = {.code = RP_OK};
    all->noise = &session->noise;
    all->plan = &session->plan;
    const struct rp_layer_run layer_run = {.ops = &session->noise.overlay.ops,
                                           .mode = RP_MODE_BATCHED,
                                           .weights = session->weights,
                                           .see = see,
                                           .context = all};
    if (rp_replay_layer_run(&session->plan, &layer_run, &err) != RP_OK)
        fail_msg("%s", err.message);
}

/* Three times the RMS of what was drawn is the bound. It is rounded to FP32 as it is added, by up to 0.6 u
 * of a value: where the bound is but a few of those, it comes out by up to 0.6 of that too small or too
 * large, and in a few values more than in many; where it is less, all of it may be rounded away. */
static void expect_size(const struct session *session, const struct rows *all, size_t k)
{
    const struct rp_planned_slot *slot = &session->plan.slots[k];
    /* Q and its gate are one product, whose bound is that of both. */
    const bool is_half = rp_model_config(session->plan.model)->has_attention_gate &&
                         (slot->part == RP_PART_Q || slot->part == RP_PART_Z);
    for (size_t p = 0; p < N_POSITIONS; p++) {
        const double drawn = RP_BOUND_SIGMAS * sqrt(all->square[k][p] / N_DRAWS);
        const double bound = all->bound[k][p];
        double norm = 0, fourth = 0;
        for (size_t i = 0; i < slot->dim; i++) {
            norm += pow((double)all->rows[k][p * slot->dim + i], 2);
            fourth += pow((double)all->rows[k][p * slot->dim + i], 4);
        }
        const double n_large = norm * norm / fourth; /* that make up most of the row */
        const double rounding = RP_BOUND_SIGMAS * 0.6 * 0x1p-24 * sqrt(norm);
        const double tolerance = 0.03 + 0.3 / sqrt(n_large) + 0.6 * rounding / bound;
        const bool is_fine = bound > 3 * rounding;
        const double least = is_fine && !is_half ? (1 - tolerance) * bound : 0;
        const double most = is_fine ? (1 + tolerance) * bound : bound + 2 * rounding;
        if (!(drawn >= least && drawn <= most))
            fail_msg("%s, position %zu: drawn %g, bound %g, rounding %g", slot->dumped.slot, p,
                     drawn, bound, rounding);
    }
}

static void what_is_drawn_has_the_size_that_is_measured(void **state)
{
    (void)state;
    static const struct {
        const char *model, *type;
        struct rp_numerics numerics;
        size_t layer;
    } cases[] = {
        {"qwen3", "bf16", {.activations = RP_ACTIVATIONS_F32}, 1},
        {"llama", "q8_0", {.activations = RP_ACTIVATIONS_BY_WEIGHT}, 1},
        {"llama", "q4_0", {.activations = RP_ACTIVATIONS_Q8_0, .kv_cache = RP_KV_CACHE_Q8_0}, 2},
        {"qwen3", "bf16", {.kv_cache = RP_KV_CACHE_F16, .attention = RP_ATTENTION_FLASH}, 3},
        {"qwen35", "bf16", {.activations = RP_ACTIVATIONS_F32}, 1},
        {"qwen35", "bf16", {.activations = RP_ACTIVATIONS_F32}, 3},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct session session;
        struct rows all = {.is_drawn = false};
        open_session(&session, cases[c].model, cases[c].type, cases[c].numerics, cases[c].layer);
        run(&session, &all);
        session.noise.draws = all.is_drawn = true;
        for (size_t draw = 0; draw < N_DRAWS; draw++) {
            session.noise.seed = 77 * draw;
            run(&session, &all);
        }
        for (size_t k = 0; k < session.plan.n_slots; k++) {
            if (session.plan.slots[k].part != RP_PART_IN)
                expect_size(&session, &all, k);
        }
        rows_free(&all);
        close_session(&session);
    }
}

/* A run that is measured computes what a plain one does. */
static void measuring_changes_nothing(void **state)
{
    (void)state;
    struct session session;
    struct rows all = {.is_drawn = false}, again = {.is_drawn = false};
    open_session(&session, "qwen35", "bf16", (struct rp_numerics){.state = RP_STATE_F32}, 1);
    run(&session, &all);
    session.noise.overlay.ops = *rp_ops_default();
    run(&session, &again);
    for (size_t k = 0; k < session.plan.n_slots; k++)
        assert_memory_equal(all.rows[k], again.rows[k],
                            N_POSITIONS * session.plan.slots[k].dim * sizeof(float));
    rows_free(&all);
    rows_free(&again);
    close_session(&session);
}

static void the_same_seed_draws_the_same_and_another_does_not(void **state)
{
    (void)state;
    struct session session;
    struct rows runs[3] = {{.is_drawn = false}, {.is_drawn = false}, {.is_drawn = false}};
    size_t n_other = 0;
    open_session(&session, "llama", "bf16", (struct rp_numerics){.state = RP_STATE_F32}, 1);
    session.noise.draws = true;
    for (size_t i = 0; i < 3; i++) {
        session.noise.seed = i < 2 ? 5 : 6;
        run(&session, &runs[i]);
    }
    for (size_t k = 0; k < session.plan.n_slots; k++) {
        const size_t size = N_POSITIONS * session.plan.slots[k].dim * sizeof(float);
        assert_memory_equal(runs[0].rows[k], runs[1].rows[k], size);
        n_other += memcmp(runs[0].rows[k], runs[2].rows[k], size) != 0;
    }
    /* All but _in, and the residual adds, whose error is below a unit. */
    assert_true(n_other >= session.plan.n_slots - 3);
    for (size_t i = 0; i < 3; i++)
        rows_free(&runs[i]);
    close_session(&session);
}

/* Of a sequence of 4 positions the bounds of those 4 are taken, whatever there is room for. */
static void no_more_positions_are_measured_than_there_is_room_for(void **state)
{
    (void)state;
    struct rp_noise noise;
    const struct rp_numerics plain = {.state = RP_STATE_F32};
    static const int64_t positions[4] = {0, 1, 2, 3};
    const struct rp_model_config config = {.head_dim = 2};
    const struct rp_site site = {.config = &config, .n_positions = 4, .positions = positions};
    float hidden[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    const float branch[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    const struct rp_residual_add args = {.dim = 2, .branch = branch, .hidden = hidden};
    assert_int_equal(rp_noise_open(&noise, &plain, NULL, 2, NULL), RP_OK);
    assert_int_equal(noise.overlay.ops.residual_add(&noise, &site, &args), RP_OK);
    for (size_t p = 0; p < 2; p++) {
        const double sum = hypot((double)hidden[2 * p], (double)hidden[2 * p + 1]);
        assert_true(fabs(noise.bound[p] - 3 * 0.5 * 0x1p-24 * sum) < 1e-5 * noise.bound[p]);
    }
    rp_noise_close(&noise);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_drawn_has_the_size_that_is_measured),
        cmocka_unit_test(measuring_changes_nothing),
        cmocka_unit_test(the_same_seed_draws_the_same_and_another_does_not),
        cmocka_unit_test(no_more_positions_are_measured_than_there_is_room_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
