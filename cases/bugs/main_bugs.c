/* The embedded engine with bugs from the catalogue: what refparity's own must-fail tests run.
 *     refparity-embedded-bugs --bug NAME [--layer L|all] [--magnitude M] … and the embedded engine's
 *     options */
#include "bugs.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

#define MAX_BUGS 8
#define LAYER_NOT_GIVEN (-2)

struct chosen_bug {
    struct rp_bug_choice choice;
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
    "  --magnitude M      of the --bug before it, where it has one; the default is the first "
    "listed\n"
    "  --list-bugs        alone: prints the catalogue\n";

static enum rp_status add_bug(struct chosen *chosen, const char *name, struct rp_error *err)
{
    const struct rp_bug *bug = rp_bug_find(name);
    if (!bug)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "no bug '%s' (see --list-bugs)", name);
    if (chosen->n == MAX_BUGS)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "more than %d times --bug", MAX_BUGS);
    chosen->bugs[chosen->n++].choice = (struct rp_bug_choice){.bug = bug,
                                                              .layer = LAYER_NOT_GIVEN,
                                                              .position = RP_BUG_EVERYWHERE,
                                                              .head = RP_BUG_EVERYWHERE};
    return RP_OK;
}

/* The last --bug; NULL: none was given. */
static struct rp_bug_choice *last_choice(struct chosen *chosen)
{
    return chosen->n > 0 ? &chosen->bugs[chosen->n - 1].choice : NULL;
}

static enum rp_status set_layer(struct chosen *chosen, const char *text, struct rp_error *err)
{
    char *end;
    long layer;
    struct rp_bug_choice *last = last_choice(chosen);
    if (!last)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "--layer belongs after its --bug");
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

static enum rp_status set_magnitude(struct chosen *chosen, const char *text, struct rp_error *err)
{
    char *end;
    struct rp_bug_choice *last = last_choice(chosen);
    if (!last)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "--magnitude belongs after its --bug");
    last->magnitude = strtod(text, &end);
    if (end == text || *end || !isfinite(last->magnitude) || last->magnitude == 0)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "--magnitude '%s' is not a number but 0",
                       text);
    if (!last->bug->magnitudes)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "bug '%s' has no magnitude",
                       last->bug->name);
    return RP_OK;
}

static const struct {
    const char *name;
    enum rp_status (*take)(struct chosen *chosen, const char *value, struct rp_error *err);
} options[] = {{"--bug", add_bug}, {"--layer", set_layer}, {"--magnitude", set_magnitude}};

static enum rp_status take_option(void *context, const char *name, const char *value, int *n_used,
                                  struct rp_error *err)
{
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        if (strcmp(name, options[i].name) != 0)
            continue;
        if (!value)
            return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "no value for '%s'", name);
        *n_used = 2;
        return options[i].take(context, value, err);
    }
    return RP_OK;
}

static enum rp_status check(const struct rp_bug_choice *chosen,
                            const struct rp_model_config *config, struct rp_error *err)
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
                              const struct rp_numerics *numerics, struct rp_engine_prompt *prompt,
                              const struct rp_ops **ops, struct rp_error *err)
{
    (void)numerics;
    struct chosen *chosen = context;
    for (size_t i = 0; i < chosen->n; i++) {
        struct chosen_bug *one = &chosen->bugs[i];
        enum rp_status status = check(&one->choice, rp_model_config(model), err);
        if (status != RP_OK)
            return status;
        if (one->choice.bug->change_prompt)
            one->choice.bug->change_prompt(prompt->tokens, &prompt->n_tokens);
        status = rp_bug_install(&one->choice, model, *ops, NULL, &one->site, err);
        if (status != RP_OK)
            return status;
        *ops = one->site.ops;
    }
    return RP_OK;
}

static void list_bugs(void)
{
    for (size_t i = 0; i < rp_bug_count(); i++) {
        const struct rp_bug *bug = rp_bug_at(i);
        printf("%s\n    %s\n    applies to: %s%s\n", bug->name, bug->description,
               bug->architectures,
               !bug->in_per_token ? " (batched only)"
               : !bug->in_batched ? " (per token only)"
                                  : "");
        for (const double *m = bug->magnitudes; m && *m != 0; m++)
            printf("%s%g%s", m == bug->magnitudes ? "    magnitudes: " : ", ", *m,
                   m[1] == 0 ? "\n" : "");
        printf("    as in: %s\n", bug->provenance);
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
    int code = rp_engine_main(argc, argv, &hooks);
    for (size_t i = 0; i < chosen.n; i++)
        rp_bug_remove(&chosen.bugs[i].site);
    return code;
}
