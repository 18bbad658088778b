/* See scratch_pair_test_util.h. */
#include "cases/scratch_pair_test_util.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "run/run.h"

static const char default_argv[] =
    "[\"{target:refparity-embedded}\", \"--model\", \"{gguf}\", \"--tokens\", \"{tokens_file}\", "
    "\"--dump\", \"{dump}\"]";

static const char *or_default(const char *value, const char *standard)
{
    return value ? value : standard;
}

static void write_matrix(const struct rp_scratch_pair *scratch, const struct rp_scratch_spec *spec)
{
    const char *architecture = or_default(spec->architecture, "qwen3");
    char text[8192], gguf[1024];
    snprintf(gguf, sizeof gguf, "%s/fixtures/tiny/%s/%s-%s.gguf", RP_SOURCE_DIR, architecture,
             architecture, or_default(spec->weights, "bf16"));
    const int n =
        snprintf(text, sizeof text,
                 "{\"engines\": {\"test\": {\"argv\": %s, \"layout\": \"%s\"%s}},\n"
                 " \"tests\": [\n"
                 "  {\"name\": \"tiny\", \"hf_model\": \"tiny/%s\", \"n_layers\": %d, \"engine\": "
                 "\"test\",\n"
                 "   \"engine_gguf\": \"%s\", \"prompts\": [%s]%s}]}\n",
                 or_default(spec->argv, default_argv), or_default(spec->layout, "npy"),
                 or_default(spec->engine_extra, ""), architecture,
                 spec->n_layers ? spec->n_layers : RP_TINY_LAYERS, or_default(spec->gguf, gguf),
                 or_default(spec->prompt, "\"" RP_FOX "\""), or_default(spec->entry_extra, ""));
    assert_true(n > 0 && (size_t)n < sizeof text);
    rp_test_write_file(scratch->folder, "matrix.json", text, (size_t)n);
}

static void write_config(const struct rp_scratch_pair *scratch, const struct rp_scratch_spec *spec)
{
    char text[8192];
    const int n = snprintf(
        text, sizeof text,
        "{\"matrix\": \"%s/matrix.json\", \"prefix\": \"\", \"build_dir\": \"%s\",\n"
        " \"work_dir\": \"%s/work\", \"reports_dir\": \"%s/reports\",\n"
        " \"record_command\": \"ci/record.sh\", \"stores\": [%s],\n"
        " \"targets\": {\"refparity-embedded\": \"%s\", \"refparity-embedded-bugs\": \"%s\"}}\n",
        scratch->folder, scratch->folder, scratch->folder, scratch->folder,
        or_default(spec->stores, "\"" RP_SOURCE_DIR "/fixtures/store\""), RP_EMBEDDED,
        RP_EMBEDDED_BUGS);
    assert_true(n > 0 && (size_t)n < sizeof text);
    rp_test_write_file(scratch->folder, "config.json", text, (size_t)n);
}

void rp_scratch_pair_open(struct rp_scratch_pair *scratch, const struct rp_scratch_spec *spec)
{
    static const char *const unwanted[] = {"REFPARITY_REQUIRE", "REFPARITY_REUSE_DUMPS",
                                           "REFPARITY_MODELS"};
    for (size_t i = 0; i < sizeof unwanted / sizeof unwanted[0]; i++)
        unsetenv(unwanted[i]);
    char path[512], text[2300];
    struct rp_error err;
    rp_test_make_folder(scratch->folder);
    setenv("REFPARITY_STORE", scratch->folder, 1);
    write_matrix(scratch, spec);
    write_config(scratch, spec);
    snprintf(path, sizeof path, "%s/config.json", scratch->folder);
    enum rp_status status = rp_context_open(path, &scratch->context, &err);
    if (!status)
        status = rp_matrix_find_pair(scratch->context.matrix, "tiny", or_default(spec->mode, ""),
                                     "p0", &scratch->pair, &err);
    if (status)
        fail_msg("%s", rp_error_text(&err, text, sizeof text));
}

enum rp_status rp_scratch_pair_reopen(struct rp_scratch_pair *scratch, struct rp_error *err)
{
    char path[512], mode[RP_PAIR_NAME_SIZE];
    snprintf(path, sizeof path, "%s/config.json", scratch->folder);
    snprintf(mode, sizeof mode, "%s%s%s", scratch->pair.mode ? scratch->pair.mode : "",
             scratch->pair.against ? "-vs-" : "",
             scratch->pair.against ? scratch->pair.against : "");
    rp_context_close(&scratch->context);
    const enum rp_status status = rp_context_open(path, &scratch->context, err);
    return status ? status
                  : rp_matrix_find_pair(scratch->context.matrix, "tiny", mode, "p0", &scratch->pair,
                                        err);
}

void rp_scratch_pair_begin(struct rp_scratch_pair *scratch, const struct rp_scratch_spec *spec)
{
    char path[512], reports[RP_PATH_SIZE], text[2300];
    struct rp_error err;
    rp_scratch_pair_open(scratch, spec);
    snprintf(path, sizeof path, "%s/config.json", scratch->folder);
    if (rp_context_begin_session(path, reports, &err) || rp_scratch_pair_reopen(scratch, &err))
        fail_msg("%s", rp_error_text(&err, text, sizeof text));
}

void rp_scratch_pair_close(struct rp_scratch_pair *scratch)
{
    rp_context_close(&scratch->context);
    assert_int_equal(rp_remove_tree(scratch->folder, NULL), RP_OK);
}

void rp_scratch_pair_judge(struct rp_scratch_pair *scratch, struct rp_verdicts *verdicts)
{
    struct rp_run_record record;
    struct rp_error err;
    char text[2300];
    struct rp_judge *judge = malloc(sizeof *judge);
    assert_non_null(judge);
    struct rp_pair runs[2] = {scratch->pair};
    const int n_runs = scratch->pair.against ? 2 : 1;
    for (int i = 0; scratch->pair.against && i < n_runs; i++)
        rp_pair_of_mode(&scratch->pair, i, &runs[i]);
    enum rp_status status = RP_OK;
    for (int i = 0; !status && i < n_runs; i++)
        status = rp_run_pair(&scratch->context, &runs[i], &record, &err);
    if (!status) {
        rp_judge_open(&scratch->context, &scratch->pair, judge);
        status = rp_judge_pair(judge, verdicts, &err);
        rp_judge_close(judge);
    }
    free(judge);
    if (status)
        fail_msg("%s", rp_error_text(&err, text, sizeof text));
}

const struct rp_slot_result *rp_slot_of(const struct rp_verdicts *verdicts, const char *slot)
{
    for (size_t i = 0; i < verdicts->pair.n_slots; i++)
        if (strcmp(verdicts->pair.slots[i].slot, slot) == 0)
            return &verdicts->pair.slots[i];
    fail_msg("no result for slot %s", slot);
    abort(); /* fail_msg does not return */
}
