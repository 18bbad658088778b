/* refparity shard: which tests of a build tree are those of one of several machines. */
#include "cli/cli.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "cli/configs.h"
#include "refparity/compare.h"
#include "run/shard.h"

static const char help[] =
    "usage: refparity shard [OPTION ...] K/N [BUILD_DIR | CONFIG.json]\n"
    "       refparity shard --list [--filter REGEX] N [BUILD_DIR | CONFIG.json]\n"
    "\n"
    "Prints what selects the tests of shard K of N, for one of N machines:\n"
    "\n"
    "  export REFPARITY_SHARD=2/5\n"
    "  ctest --test-dir build -R \"$(refparity shard $REFPARITY_SHARD build)\"\n"
    "\n"
    "With REFPARITY_SHARD set, the shard has a session, dumps and reports of its own, so that\n"
    "several may run in one build tree; refparity report --merge puts them together. Which\n"
    "pairs a shard has follows from the matrix alone. A prompt's modes stay together. Entries\n"
    "that ask for different resources (\"slurm\") are in different shards.\n"
    "\n"
    "  --filter REGEX  only tests whose name, as check-matrix --list prints it, or\n"
    "                  <entry>/weights, has a match of this extended regular expression;\n"
    "                  give report --merge the same\n"
    "  --names         print the names of the shard's pairs instead, a line each\n"
    "  --list          print all shards, a line each: number, pairs, mem, gres, time, with a\n"
    "                  tab between and - where nothing is asked for\n"
    "  --entries       print the entries that are run instead, a line each: hf_model, entry,\n"
    "                  mem, gres, time; needs no K/N\n"
    "  --help\n"
    "\n"
    "exit codes: 0 printed, 2 there is no such shard, or nothing for it\n";

/* ctest's regular expressions are programs of at most 32 KiB. */
enum { MAX_REGEX = 30000, N_SHOWN = 3 };

struct options {
    FILE *out;
    const char *filter;
    bool names, list, entries;
    struct rp_shard shard;
    size_t n_printed;
    size_t length; /* of the regular expression */
};

static const char *shown(const char *resource)
{
    return resource ? resource : "-";
}

/* name as a regular expression: of what names may have, only the point is special. */
static void print_pattern(struct options *options, const char *prefix, const char *name,
                          const char *end)
{
    const char *const parts[N_SHOWN] = {prefix, name, end};
    fputs(options->n_printed++ ? "|" : "^(", options->out);
    options->length++;
    for (size_t i = 0; i < N_SHOWN; i++) {
        for (const char *c = parts[i]; *c; c++) {
            if (*c == '.' || *c == '+')
                putc('\\', options->out);
            putc(*c, options->out);
            options->length += 2;
        }
    }
}

static void print_shard(const struct rp_context *context, const struct rp_shards *shards,
                        struct options *options)
{
    for (size_t i = 0; i < shards->n_pairs; i++) {
        struct rp_pair pair;
        if (shards->of_pair[i] != options->shard.index)
            continue;
        rp_matrix_pair(context->matrix, i, &pair);
        if (options->names)
            fprintf(options->out, "%s\n", pair.name);
        else
            print_pattern(options, context->prefix, pair.name, "/");
        options->n_printed += options->names;
    }
    for (size_t i = 0; !options->names && i < shards->n_entries; i++)
        if (shards->of_entry[i] == options->shard.index)
            print_pattern(options, context->prefix, rp_matrix_entry(context->matrix, i)->name,
                          "/weights$");
}

static void print_list(FILE *out, const struct rp_shards *shards)
{
    for (size_t i = 1; i <= shards->count; i++) {
        const struct rp_slurm *asked = shards->parts[i].resources;
        if (asked)
            fprintf(out, "%zu\t%zu\t%s\t%s\t%s\n", i, shards->parts[i].n_pairs, shown(asked->mem),
                    shown(asked->gres), shown(asked->time));
    }
}

static void print_entries(FILE *out, const struct rp_matrix *matrix, const struct rp_shards *shards)
{
    for (size_t i = 0; i < shards->n_entries; i++) {
        const struct rp_entry *entry = rp_matrix_entry(matrix, i);
        bool is_wanted = false;
        for (size_t k = entry->first_pair; k < shards->n_pairs && !is_wanted; k++) {
            struct rp_pair pair;
            rp_matrix_pair(matrix, k, &pair);
            if (pair.entry != entry)
                break;
            is_wanted = shards->of_pair[k] > 0;
        }
        if (is_wanted)
            fprintf(out, "%s\t%s\t%s\t%s\t%s\n", entry->hf_model, entry->name,
                    shown(entry->slurm.mem), shown(entry->slurm.gres), shown(entry->slurm.time));
    }
}

static int print_config(const char *path, struct options *options)
{
    struct rp_context context;
    struct rp_shards shards;
    struct rp_error err;
    if (rp_context_open(path, &context, &err))
        return rp_cli_error(&err);
    enum rp_status status =
        rp_shards_open(context.matrix, options->shard.count, options->filter, &shards, &err);
    if (!status) {
        if (options->entries)
            print_entries(options->out, context.matrix, &shards);
        else if (options->list)
            print_list(options->out, &shards);
        else
            print_shard(&context, &shards, options);
        rp_shards_free(&shards);
    }
    rp_context_close(&context);
    return status ? rp_cli_error(&err) : RP_EXIT_PASS;
}

static int print_all(const struct rp_configs *configs, struct options *options)
{
    char path[RP_PATH_SIZE];
    int code = RP_EXIT_PASS;
    for (size_t at = 0; code == RP_EXIT_PASS && rp_configs_next(configs, &at, path);)
        code = print_config(path, options);
    if (code != RP_EXIT_PASS || options->list || options->entries)
        return code;
    if (options->n_printed == 0)
        return rp_cli_usage_error("shard",
                                  "shard %zu of %zu has nothing to run: there are more "
                                  "shards than prompts",
                                  options->shard.index, options->shard.count);
    if (!options->names)
        fputs(")\n", options->out);
    if (options->length > MAX_REGEX)
        return rp_cli_usage_error("shard",
                                  "what selects shard %zu of %zu is longer than ctest "
                                  "takes: expected more shards",
                                  options->shard.index, options->shard.count);
    return RP_EXIT_PASS;
}

static enum rp_status read_count(const char *text, struct rp_shard *shard, struct rp_error *err)
{
    char whole[32];
    snprintf(whole, sizeof whole, "1/%.20s", text);
    return rp_shard_parse(whole, "N", shard, err);
}

int rp_cli_shard(int argc, char **argv, const struct rp_terminal *out)
{
    static const struct option known[] = {
        {"filter", required_argument, NULL, 'f'}, {"names", no_argument, NULL, 'n'},
        {"list", no_argument, NULL, 'l'},         {"entries", no_argument, NULL, 'e'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0}};
    struct options options = {.out = out->out};
    struct rp_configs configs;
    struct rp_error err;
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "h", known, NULL)) != -1) {
        switch (option) {
        case 'f': options.filter = optarg; break;
        case 'n': options.names = true; break;
        case 'l': options.list = true; break;
        case 'e': options.entries = true; break;
        case 'h': fputs(help, out->out); return RP_EXIT_PASS;
        default:
            return rp_cli_usage_error("shard", "unknown option %s, or one without its value",
                                      argv[optind - 1]);
        }
    }
    if (options.entries)
        options.shard = (struct rp_shard){.index = 1, .count = RP_MAX_SHARDS};
    else if (optind == argc)
        return rp_cli_usage_error("shard", "expected %s", options.list ? "N" : "K/N");
    else if (options.list ? read_count(argv[optind], &options.shard, &err)
                          : rp_shard_parse(argv[optind], "K/N", &options.shard, &err))
        return rp_cli_error(&err);
    optind += !options.entries;
    if (argc - optind > 1)
        return rp_cli_usage_error("shard", "expected one folder, found %d", argc - optind);
    if (rp_configs_find(optind < argc ? argv[optind] : ".", &configs, &err))
        return rp_cli_error(&err);
    const int code = print_all(&configs, &options);
    rp_configs_free(&configs);
    return code;
}
