/* The tokens of a pair: ids where both sides have them, else the count of positions. See judge.h. */
#include <stdio.h>
#include <string.h>

#include "run/judge_internal.h"
#include "run/vocabulary.h"

#define SAY(result, ...) snprintf((result)->message, sizeof(result)->message, __VA_ARGS__)

/* One more than the highest position of any slot but logits; 0 when there is none. */
static long long count_positions(const struct rp_tensor_set *set)
{
    long long count = 0;
    for (size_t i = 0; i < rp_tensor_set_n_slots(set); i++) {
        const struct rp_slot_info *slot = rp_tensor_set_slot(set, i);
        int layer;
        const enum rp_slot_part part = rp_slot_parse(slot->name, &layer);
        if (part == RP_PART_LOGITS || part == RP_PART_OTHER || slot->error.code ||
            slot->n_positions == 0)
            continue;
        const long long past = (long long)slot->positions[slot->n_positions - 1] + 1;
        count = past > count ? past : count;
    }
    return count;
}

/* An engine that declares that it cannot dump ids. More positions than tokens are no fault: engines
 * that generate a token run it too. */
static void judge_count(const struct rp_judge *judge, struct rp_tokens_result *result)
{
    const struct rp_entry *entry = judge->pair->entry;
    const int is_dump = judge->comparison.reference_is_dump;
    const long long expected =
        is_dump ? count_positions(judge->comparison.reference) : (long long)result->n_ref;
    const long long count = count_positions(judge->comparison.engine);
    if (entry->n_positions) {
        result->verdict = RP_SKIP;
        SAY(result,
            "not compared: engine %s dumps no token ids, as the matrix declares, and only "
            "the positions that the entry lists",
            entry->engine->name);
    } else if (count < expected) {
        result->verdict = RP_FAIL;
        result->first_difference = count;
        SAY(result,
            "the engine ran %lld positions, the reference %lld: its prompt is truncated, or "
            "tokenized otherwise (engine %s dumps no ids to tell)",
            count, expected, entry->engine->name);
    } else {
        result->verdict = RP_PASS;
        SAY(result, "%lld positions%s%s; token ids are not compared, engine %s dumps none", count,
            count > expected ? ", more than the reference: it generated tokens, or added a BOS"
                             : "",
            count == expected ? " on both sides" : "", entry->engine->name);
    }
}

static void explain(const struct rp_judge *judge, struct rp_tokens_result *result)
{
    struct rp_gguf_vocabulary vocabulary;
    char path[RP_PATH_SIZE];
    const int has_vocabulary =
        judge->pair->entry->engine_gguf &&
        !rp_entry_gguf(judge->context->matrix, judge->pair->entry, judge->context->models_dir, path,
                       sizeof path, NULL) &&
        !rp_gguf_vocabulary_open(path, &vocabulary, NULL);
    rp_explain_tokens(&judge->comparison, has_vocabulary ? &vocabulary.vocabulary : NULL, result);
    if (has_vocabulary)
        rp_gguf_vocabulary_close(&vocabulary);
}

void rp_judge_tokens(const struct rp_judge *judge, struct rp_tokens_result *result)
{
    const struct rp_engine *engine = judge->pair->entry->engine;
    if (judge->prerequisites.verdict != RP_PASS) {
        memset(result, 0, sizeof *result);
        result->first_difference = -1;
        result->verdict = judge->prerequisites.verdict;
        SAY(result, "%.*s", (int)sizeof result->message - 1, judge->prerequisites.message);
        return;
    }
    rp_compare_tokens(&judge->comparison, result);
    const int reference_has_ids = result->n_ref > 0 || judge->comparison.reference_is_dump;
    if (result->verdict == RP_FAIL) {
        explain(judge, result);
    } else if (result->verdict == RP_SKIP && reference_has_ids && engine->lacks_tokens) {
        judge_count(judge, result);
    } else if (result->verdict == RP_SKIP && reference_has_ids) {
        result->verdict = RP_ERROR;
        SAY(result,
            "the engine's dump has no token ids: dump them (rp_dump_tokens, or a tokens.txt "
            "with an id a line), or declare \"tokens\": false for engine %s in the matrix",
            engine->name);
    }
    rp_judge_name_modes(judge, result->message, sizeof result->message);
}
