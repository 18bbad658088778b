/* A slot, and a whole pair: see judge.h. What the tests have stored is taken, the rest is compared. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "compare/verdict.h"
#include "run/explained_gate.h"
#include "run/judge_internal.h"
#include "run/judge_replay.h"
#include "run/known.h"
#include "run/stored.h"

/* What the pair's context adds to a slot's verdict: a slot that is missing or cut short because the
 * engine broke says so. */
static void finish_slot(const struct rp_judge *judge, const struct rp_tokens_result *tokens,
                        struct rp_slot_result *result)
{
    const int both_ended_well =
        rp_judge_ended_well(&judge->record) &&
        (!judge->pair->against || rp_judge_ended_well(&judge->reference_record));
    /* The reference lacks it: something that is missing, as a model or an engine may be. */
    const int lacks_reference = !rp_tensor_set_find(judge->comparison.reference, result->slot);
    if (result->verdict == RP_SKIP && result->required && judge->context->require &&
        lacks_reference)
        result->verdict = RP_ERROR;
    if (result->verdict == RP_ERROR && !both_ended_well) {
        const struct rp_run_record *record =
            rp_judge_ended_well(&judge->record) ? &judge->reference_record : &judge->record;
        char text[128];
        const size_t used = strlen(result->message);
        snprintf(result->message + used, sizeof result->message - used, " (the engine %s)",
                 rp_process_text(&record->process, record->timeout_s, text, sizeof text));
    }
    if (tokens->verdict != RP_FAIL) /* else the tokens' message, which stands there, has said it */
        rp_judge_name_modes(judge, result->message, sizeof result->message);
}

/* The verdict of a slot's test where nothing can be compared. */
static void take_prerequisites(const struct rp_judge *judge, const char *slot,
                               struct rp_slot_result *result)
{
    memset(result, 0, sizeof *result);
    snprintf(result->slot, sizeof result->slot, "%s", slot);
    result->required = rp_slot_is_required(slot);
    result->worst.position = result->first.position = -1;
    result->verdict = judge->prerequisites.verdict;
    snprintf(result->message, sizeof result->message, "%.*s", (int)sizeof result->message - 1,
             judge->prerequisites.message);
}

static bool is_compared(const struct rp_slot_test *test, const char *slot)
{
    for (size_t i = 0; i < test->n_compared; i++)
        if (strcmp(test->compared[i].slot, slot) == 0)
            return true;
    return false;
}

/* Compares slot, then the evidence of its layer that either set has. */
static enum rp_status compare_layer(const struct rp_judge *judge,
                                    const struct rp_tokens_result *tokens, const char *slot,
                                    struct rp_damage_memory *memory, struct rp_slot_test *test,
                                    struct rp_error *err)
{
    const struct rp_comparison *c = &judge->comparison;
    const struct rp_tensor_set *const sets[] = {c->reference, c->engine};
    int layer, other;
    const bool is_layer = rp_slot_parse(slot, &layer) == RP_PART_OUTPUT;
    test->compared = calloc(1 + rp_tensor_set_n_slots(sets[0]) + rp_tensor_set_n_slots(sets[1]),
                            sizeof *test->compared);
    if (!test->compared)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory for the list of slots");
    rp_compare_slot_of_pair_after_tokens(c, tokens, slot, memory, &test->compared[0]);
    test->n_compared = 1;
    for (size_t s = 0; is_layer && s < sizeof sets / sizeof sets[0]; s++) {
        for (size_t i = 0; i < rp_tensor_set_n_slots(sets[s]); i++) {
            const char *name = rp_tensor_set_slot(sets[s], i)->name;
            if (rp_slot_parse(name, &other) == RP_PART_OTHER || other != layer ||
                is_compared(test, name))
                continue;
            rp_compare_slot_of_pair_after_tokens(c, tokens, name, memory,
                                                 &test->compared[test->n_compared++]);
        }
    }
    return RP_OK;
}

enum rp_status rp_judge_slot(const struct rp_judge *judge, const char *slot,
                             struct rp_slot_test *test, struct rp_error *err)
{
    const double start = rp_clock_seconds();
    struct rp_tokens_result tokens;
    struct rp_damage_memory memory = {.right = NULL};
    enum rp_status status = RP_OK;
    memset(test, 0, sizeof *test);
    if (judge->prerequisites.verdict == RP_PASS) {
        rp_judge_tokens(judge, &tokens);
        status = compare_layer(judge, &tokens, slot, &memory, test, err);
        rp_damage_memory_free(&memory);
        if (status)
            return status;
        test->result = test->compared[0];
        finish_slot(judge, &tokens, &test->result);
    } else {
        take_prerequisites(judge, slot, &test->result);
    }
    test->seconds = rp_clock_seconds() - start;
    return RP_OK;
}

void rp_slot_test_free(struct rp_slot_test *test)
{
    free(test->compared);
    memset(test, 0, sizeof *test);
}

/* ---- the pair ---- */

/* ERROR over FAIL over SKIP over XFAIL over PASS. */
static enum rp_verdict worse(enum rp_verdict a, enum rp_verdict b)
{
    static const int rank[] = {[RP_PASS] = 0, [RP_MARGINAL] = 1, [RP_XFAIL] = 2,
                               [RP_SKIP] = 3, [RP_FAIL] = 4,     [RP_ERROR] = 5};
    return rank[a] >= rank[b] ? a : b;
}

/* What the tests of the required slots have compared, and what each took; what none did is compared
 * here. */
struct collected {
    struct rp_slot_result *slots; /* [n_slots], owned */
    size_t n_slots;
    struct slot_seconds {
        char slot[RP_SLOT_NAME_SIZE];
        double seconds;
    } * tests; /* [n_tests], owned */
    size_t n_tests;
};

static void free_collected(struct collected *collected)
{
    free(collected->slots);
    free(collected->tests);
}

/* Takes what test has compared. */
static enum rp_status add_test(struct collected *collected, const char *slot,
                               const struct rp_slot_test *test, struct rp_error *err)
{
    struct slot_seconds *tests =
        realloc(collected->tests, (collected->n_tests + 1) * sizeof *tests);
    if (tests)
        collected->tests = tests;
    struct rp_slot_result *slots =
        realloc(collected->slots, (collected->n_slots + test->n_compared + 1) * sizeof *slots);
    if (slots)
        collected->slots = slots;
    if (!tests || !slots)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory for the list of slots");
    tests[collected->n_tests].seconds = test->seconds;
    snprintf(tests[collected->n_tests++].slot, RP_SLOT_NAME_SIZE, "%s", slot);
    for (size_t i = 0; i < test->n_compared; i++)
        slots[collected->n_slots++] = test->compared[i];
    return RP_OK;
}

static enum rp_status collect(const struct rp_judge *judge, const struct rp_tokens_result *tokens,
                              struct rp_damage_memory *memory, struct collected *collected,
                              struct rp_error *err)
{
    char name[RP_SLOT_NAME_SIZE];
    enum rp_status status = RP_OK;
    const bool compares = judge->prerequisites.verdict == RP_PASS;
    for (size_t i = 0; !status && rp_required_slot(judge->pair->entry->n_layers, i, name); i++) {
        const double start = rp_clock_seconds();
        struct rp_slot_test test = {.n_compared = 0};
        const enum rp_status stored = rp_stored_slot(judge, name, &test, err);
        if (stored == RP_ERR_FORMAT) {
            status = stored;
        } else if (stored) {
            if (compares)
                status = compare_layer(judge, tokens, name, memory, &test, err);
            test.seconds = rp_clock_seconds() - start;
        }
        if (!status)
            status = add_test(collected, name, &test, err);
        rp_slot_test_free(&test);
    }
    return status;
}

static enum rp_status collect_engine(const struct rp_judge *judge, struct rp_verdicts *verdicts,
                                     struct rp_error *err)
{
    const double start = rp_clock_seconds();
    if (judge->pair->against) { /* each of two modes has an engine test of its own */
        verdicts->engine_s = 0;
        return RP_OK;
    }
    const enum rp_status stored =
        rp_stored_engine(judge, &verdicts->engine, &verdicts->engine_s, err);
    if (!stored || stored == RP_ERR_FORMAT)
        return stored;
    rp_judge_engine(judge, &verdicts->engine);
    verdicts->engine_s = rp_clock_seconds() - start;
    return RP_OK;
}

static enum rp_status collect_tokens(const struct rp_judge *judge, struct rp_tokens_result *tokens,
                                     double *seconds, struct rp_error *err)
{
    const double start = rp_clock_seconds();
    const enum rp_status stored = rp_stored_tokens(judge, tokens, seconds, err);
    if (!stored || stored == RP_ERR_FORMAT)
        return stored;
    rp_judge_tokens(judge, tokens);
    *seconds = rp_clock_seconds() - start;
    return RP_OK;
}

/* The prerequisites' verdict on every required slot. */
static enum rp_status judge_nothing(const struct rp_judge *judge, struct rp_pair_result *pair,
                                    struct rp_error *err)
{
    const int n_layers = judge->pair->entry->n_layers;
    char name[RP_SLOT_NAME_SIZE];
    pair->slots = calloc((size_t)n_layers + 3, sizeof *pair->slots);
    if (!pair->slots)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory for the list of slots");
    for (size_t i = 0; rp_required_slot(n_layers, i, name); i++)
        take_prerequisites(judge, name, &pair->slots[pair->n_slots++]);
    pair->verdict = judge->prerequisites.verdict;
    return RP_OK;
}

static enum rp_status compare_all(const struct rp_judge *judge,
                                  const struct rp_tokens_result *tokens,
                                  const struct collected *known, struct rp_damage_memory *memory,
                                  struct rp_verdicts *verdicts, struct rp_error *err)
{
    const enum rp_status status = rp_compare_rest_of_pair(
        &judge->comparison, tokens, known->slots, known->n_slots, memory, &verdicts->pair, err);
    if (status)
        return status;
    for (size_t i = 0; i < verdicts->pair.n_slots; i++) {
        finish_slot(judge, tokens, &verdicts->pair.slots[i]);
        if (verdicts->pair.slots[i].required && verdicts->pair.slots[i].verdict == RP_ERROR)
            verdicts->pair.verdict = RP_ERROR;
    }
    rp_diagnose_pair(&judge->comparison, &verdicts->pair, &verdicts->divergence);
    rp_explained_gate_name_divergence(judge->gate, &verdicts->divergence);
    return RP_OK;
}

static enum rp_status add_seconds(const struct collected *collected, struct rp_verdicts *verdicts,
                                  struct rp_error *err)
{
    const struct rp_pair_result *pair = &verdicts->pair;
    verdicts->slots_s = calloc(pair->n_slots + 1, sizeof *verdicts->slots_s);
    if (!verdicts->slots_s)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory for the list of slots");
    for (size_t i = 0, next = 0; i < pair->n_slots && next < collected->n_tests; i++)
        if (strcmp(pair->slots[i].slot, collected->tests[next].slot) == 0) /* both in order */
            verdicts->slots_s[i] = collected->tests[next++].seconds;
    return RP_OK;
}

/* Engine, tokens and slots. */
static enum rp_status judge_against_reference(const struct rp_judge *judge,
                                              struct rp_verdicts *verdicts, struct rp_error *err)
{
    struct rp_tokens_result tokens;
    struct rp_damage_memory memory = {.right = NULL};
    struct collected collected = {.n_slots = 0};
    enum rp_status status = collect_engine(judge, verdicts, err);
    if (!status)
        status = collect_tokens(judge, &tokens, &verdicts->tokens_s, err);
    if (!status)
        status = collect(judge, &tokens, &memory, &collected, err);
    if (!status)
        status = judge->prerequisites.verdict == RP_PASS
                     ? compare_all(judge, &tokens, &collected, &memory, verdicts, err)
                     : judge_nothing(judge, &verdicts->pair, err);
    if (!status) {
        verdicts->pair.tokens = tokens;
        status = add_seconds(&collected, verdicts, err);
    }
    rp_damage_memory_free(&memory);
    free_collected(&collected);
    return status;
}

/* Without a fixture, which nothing asks for, replay alone judges; all of it has to be shown. */
static void judge_by_replay(const struct rp_judge *judge, struct rp_verdicts *verdicts)
{
    enum rp_verdict worst = RP_PASS;
    if (rp_pair_needs_fixture(judge->pair) || judge->comparison.reference ||
        verdicts->engine.verdict != RP_PASS || verdicts->verdict != RP_SKIP)
        return;
    for (size_t i = 0; i < verdicts->n_replay; i++) {
        const enum rp_verdict replayed = verdicts->replay[i].judgement.verdict;
        if (replayed != RP_PASS && replayed != RP_XFAIL)
            return;
        worst = worse(worst, replayed);
    }
    if (verdicts->n_replay > 0)
        verdicts->verdict = worst;
}

/* What is known and no longer diverges is a failure: strict. */
static enum rp_status judge_known(const struct rp_judge *judge, struct rp_verdicts *verdicts,
                                  struct rp_error *err)
{
    const enum rp_status status = rp_known_judge(judge, verdicts, err);
    for (size_t i = 0; i < verdicts->n_known; i++)
        if (rp_known_is_failure(&verdicts->known[i]))
            verdicts->verdict = worse(verdicts->verdict, RP_FAIL);
    return status;
}

enum rp_status rp_judge_pair(const struct rp_judge *judge, struct rp_verdicts *verdicts,
                             struct rp_error *err)
{
    memset(verdicts, 0, sizeof *verdicts);
    verdicts->divergence.layer = -1;
    verdicts->divergence.position = -1;
    enum rp_status status = judge_against_reference(judge, verdicts, err);
    if (!status && rp_pair_is_replayed(judge->pair))
        status = rp_judge_replay_pair(judge, &verdicts->replay, &verdicts->n_replay, err);
    if (status) {
        rp_verdicts_free(verdicts);
        return status;
    }
    rp_known_pair(judge, verdicts);
    verdicts->verdict = worse(verdicts->engine.verdict, verdicts->pair.verdict);
    for (size_t i = 0; i < verdicts->n_replay; i++) {
        const enum rp_verdict replayed = verdicts->replay[i].judgement.verdict;
        if (replayed == RP_FAIL || replayed == RP_ERROR || replayed == RP_XFAIL)
            verdicts->verdict = worse(verdicts->verdict, replayed);
    }
    judge_by_replay(judge, verdicts);
    status = judge_known(judge, verdicts, err);
    if (status) {
        rp_verdicts_free(verdicts);
        return status;
    }
    rp_judge_warnings(judge, verdicts);
    return RP_OK;
}

void rp_verdicts_free(struct rp_verdicts *verdicts)
{
    rp_pair_result_free(&verdicts->pair);
    free(verdicts->slots_s);
    verdicts->slots_s = NULL;
    rp_replay_results_free(verdicts->replay, verdicts->n_replay);
    free(verdicts->known);
    verdicts->known = NULL;
}
