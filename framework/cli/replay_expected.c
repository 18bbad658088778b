/* See cli/replay_expected.h. */
#include "cli/replay_expected.h"

#include "cli/cli.h"
#include "cli/reading.h"
#include "replay/expected.h"
#include "replay/judge.h"

static bool is_wanted(const struct rp_replay_wanted *wanted, const char *slot)
{
    int layer;
    const enum rp_slot_part part = rp_slot_parse(slot, &layer);
    if (part == RP_PART_OTHER)
        return false;
    return wanted->first_layer < 0 || (layer >= wanted->first_layer && layer <= wanted->last_layer);
}

static enum rp_status judge_all(struct rp_expected *expected, const struct rp_tensor_set *dump,
                                const struct rp_replay_wanted *wanted,
                                struct rp_replay_output *output, struct rp_error *err)
{
    enum rp_status status = RP_OK;
    for (size_t i = 0; status == RP_OK && i < rp_tensor_set_n_slots(dump); i++) {
        struct rp_replay_slot slot;
        const char *name = rp_tensor_set_slot(dump, i)->name;
        if (!is_wanted(wanted, name))
            continue;
        status = rp_expected_judge(expected, name, &slot, err);
        if (status == RP_OK)
            rp_replay_output_slot(output, &slot);
        rp_replay_slot_free(&slot);
    }
    return status;
}

int rp_cli_replay_expected(const char *path, const char *dump_path,
                           const struct rp_tensor_set_options *read,
                           const struct rp_replay_wanted *of, struct rp_replay_output *output)
{
    struct rp_replay_wanted wanted = *of;
    struct rp_tensor_set *dump = NULL;
    struct rp_expected *expected = NULL;
    struct rp_error err;
    enum rp_status status = rp_tensor_set_open_with(dump_path, read, &dump, &err);
    if (status == RP_OK)
        status = rp_cli_check_names(read->names, &err);
    if (status == RP_OK) {
        rp_replay_output_notes(output, dump);
        status = rp_expected_open(path, dump, &expected, &err);
    }
    if (status == RP_OK) {
        wanted.n_layers = rp_expected_n_layers(expected);
        rp_replay_find_lacks(&wanted, dump, &output->counts);
        if (wanted.last_layer >= wanted.n_layers)
            status =
                rp_fail(&err, RP_ERR_ARGUMENT, path, -1, "layer %d of a model with %d (0 to %d)",
                        wanted.last_layer, wanted.n_layers, wanted.n_layers - 1);
    }
    if (status == RP_OK)
        status = judge_all(expected, dump, &wanted, output, &err);
    const int code = status == RP_OK
                         ? rp_replay_output_end(output, rp_expected_model(expected), dump_path,
                                                rp_expected_numerics(expected))
                         : rp_cli_error(&err);
    rp_expected_close(expected);
    rp_tensor_set_close(dump);
    return code;
}
