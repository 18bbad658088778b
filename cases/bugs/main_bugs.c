/* The embedded engine with bugs from the catalogue: what refparity's own must-fail tests run.
 *     refparity-embedded-bugs --bug NAME [--layer L|all] … and the embedded engine's options */
#include "bugs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

#define MAX_BUGS 8
#define LAYER_NOT_GIVEN (-2)

struct chosen_bug {
    const struct rp_bug *bug;
    int layer;
    struct rp_bug_site site;
};

struct chosen {
    struct chosen_bug bugs[MAX_BUGS];
    size_t n;
};

static const char help_text[] =
    "\n"
    "Bugs, put into the engine on purpose; without --bug it is the plain engine:\n"
    "  --bug NAME         from the catalogue; may be given several times\n"
    "  --layer L          the layer (from 0) of the --bug before it, or all\n"
    "  --list-bugs        alone: prints the catalogue\n";

static enum rp_status add_bug(struct chosen *chosen, const char *name, struct rp_error *err)
{
    const struct rp_bug *bug = rp_bug_find(name);
    if (!bug)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "no bug '%s' (see --list-bugs)", name);
    if (chosen->n == MAX_BUGS)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "more than %d times --bug", MAX_BUGS);
    chosen->bugs[chosen->n++] = (struct chosen_bug){.bug = bug, .layer = LAYER_NOT_GIVEN};
    return RP_OK;
}

static enum rp_status set_layer(struct chosen *chosen, const char *text, struct rp_error *err)
{
    char *end;
    long layer;
    if (chosen->n == 0)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "--layer belongs after its --bug");
    struct chosen_bug *last = &chosen->bugs[chosen->n - 1];
    if (strcmp(text, "all") == 0) {
        last->layer = RP_BUG_ALL_LAYERS;
        return RP_OK;
    }
    layer = strtol(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || layer > INT16_MAX)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "--layer '%s' is neither a number nor all",
                       text);
    last->layer = (int)layer;
    return RP_OK;
}

static enum rp_status take_option(void *context, const char *name, const char *value, int *n_used,
                                  struct rp_error *err)
{
    bool is_bug = strcmp(name, "--bug") == 0;
    if (!is_bug && strcmp(name, "--layer") != 0)
        return RP_OK;
    if (!value)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "no value for '%s'", name);
    *n_used = 2;
    return is_bug ? add_bug(context, value, err) : set_layer(context, value, err);
}

static enum rp_status check(const struct chosen_bug *chosen, const struct rp_model_config *config,
                            struct rp_error *err)
{
    const char *name = chosen->bug->name;
    bool in_layer = chosen->bug->layers != RP_BUG_IN_NO_LAYER;
    if (!rp_bug_applies(chosen->bug, config->architecture))
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1,
                       "bug '%s' does not apply to architecture '%s'", name, config->architecture);
    if (in_layer && chosen->layer == LAYER_NOT_GIVEN)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "bug '%s' needs a --layer", name);
    if (!in_layer && chosen->layer != LAYER_NOT_GIVEN)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "bug '%s' belongs to no layer", name);
    if (chosen->layer >= 0 && (size_t)chosen->layer >= config->n_layers)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "--layer %d of a model with %zu layers",
                       chosen->layer, config->n_layers);
    if (chosen->layer >= 0 && !rp_bug_applies_to_layer(chosen->bug, config, (size_t)chosen->layer))
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1,
                       "bug '%s' does not apply to layer %d, which %s", name, chosen->layer,
                       config->layer_kinds[chosen->layer] == RP_LAYER_FULL_ATTENTION
                           ? "is full attention"
                           : "is linear attention");
    return RP_OK;
}

static enum rp_status prepare(void *context, const struct rp_model *model,
                              struct rp_engine_prompt *prompt, const struct rp_ops **ops,
                              struct rp_error *err)
{
    struct chosen *chosen = context;
    for (size_t i = 0; i < chosen->n; i++) {
        struct chosen_bug *one = &chosen->bugs[i];
        enum rp_status status = check(one, rp_model_config(model), err);
        if (status != RP_OK)
            return status;
        if (one->bug->change_prompt)
            one->bug->change_prompt(prompt->tokens, &prompt->n_tokens);
        rp_bug_install(one->bug, one->layer, *ops, &one->site);
        *ops = &one->site.overlay.ops;
    }
    return RP_OK;
}

static void list_bugs(void)
{
    for (size_t i = 0; i < rp_n_bugs; i++) {
        const struct rp_bug *bug = &rp_bugs[i];
        printf("%s\n    %s\n    applies to: %s%s\n    as in: %s\n", bug->name, bug->description,
               bug->architectures, bug->in_per_token ? "" : " (batched only)", bug->provenance);
    }
}

int main(int argc, char **argv)
{
    struct chosen chosen = {.n = 0};
    const struct rp_engine_hooks hooks = {
        .context = &chosen,
        .program = "refparity-embedded-bugs",
        .help = help_text,
        .option = take_option,
        .prepare = prepare,
    };
    if (argc == 2 && strcmp(argv[1], "--list-bugs") == 0) {
        list_bugs();
        return 0;
    }
    return rp_engine_main(argc, argv, &hooks);
}
