/* What a pair's verdicts rest on, as one hash: by it, a verdict that is stored is told from one of
 * another run or of other files. The records are looked at before they are read, so that a run in
 * between leaves a state that fits no later one. See judge_internal.h. */
#include "run/judge_internal.h"

#include <stdio.h>
#include <string.h>

#include "run/fixture.h"

static void add_text(struct rp_sha256 *hash, const char *text)
{
    rp_sha256_update(hash, text, strlen(text) + 1);
}

static void add_file(struct rp_sha256 *hash, const char *path)
{
    char state[RP_FINGERPRINT_SIZE];
    rp_fingerprint(path, state);
    add_text(hash, path);
    add_text(hash, state);
}

/* A run is told from the next by its record: by content, too, which has how long it took. */
static void add_record(struct rp_sha256 *hash, const char *path)
{
    char content[65] = "";
    if (rp_sha256_file(path, content, NULL))
        content[0] = '\0';
    add_file(hash, path);
    add_text(hash, content);
}

void rp_judge_state_begin(const struct rp_judge *judge, struct rp_sha256 *hash)
{
    const struct rp_context *context = judge->context;
    const struct rp_pair *pair = judge->pair;
    rp_sha256_init(hash);
    add_text(hash, pair->name);
    add_text(hash, context->state);
    add_text(hash, context->require ? "required" : "");
    add_file(hash, context->tool ? context->tool : ""); /* stands for what judges */
    for (int against = 0; against < (pair->against ? 2 : 1); against++) {
        struct rp_pair run = *pair;
        struct rp_pair_paths paths = judge->paths;
        if (pair->against)
            rp_pair_of_mode(pair, against, &run);
        if (!pair->against || !rp_pair_paths(context, &run, &paths, NULL)) {
            add_record(hash, paths.record);
            add_file(hash, paths.dump);
        }
    }
}

void rp_judge_state_end(struct rp_judge *judge, struct rp_sha256 *hash)
{
    const struct rp_entry *entry = judge->pair->entry;
    char gguf[RP_PATH_SIZE], model[RP_FINGERPRINT_SIZE];
    uint8_t digest[32];
    rp_context_model_file(judge->context, entry, gguf, model);
    add_text(hash, gguf);
    add_text(hash, model);
    add_file(hash, judge->fixture_path);
    add_text(hash, rp_verdict_name(judge->prerequisites.verdict));
    add_text(hash, judge->prerequisites.message);
    rp_sha256_final(hash, digest);
    rp_sha256_format(digest, judge->state);
}
