/* See command.h. */
#include "run/command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/process.h"
#include "base/shell.h"
#include "matrix/expand.h"
#include "run/find_checkpoint.h"

void rp_command_free(struct rp_command *command)
{
    for (size_t i = 0; command->argv && command->argv[i]; i++)
        free(command->argv[i]);
    for (size_t i = 0; command->env && command->env[i]; i++)
        free(command->env[i]);
    free(command->argv);
    free(command->env);
}

static const char *lookup_env(void *context, const char *name)
{
    (void)context;
    return getenv(name);
}

static const char *lookup_target(void *context, const char *name)
{
    const struct rp_context *c = context;
    for (size_t i = 0; i < c->n_targets; i++)
        if (strcmp(c->targets[i].name, name) == 0)
            return c->targets[i].path;
    return NULL;
}

/* "all", or the entry's positions as a comma list. */
static char *positions_text(const struct rp_entry *entry)
{
    const size_t size = 8 + 21 * entry->n_positions;
    char *text = malloc(size);
    if (!text)
        return NULL;
    size_t n = (size_t)snprintf(text, size, "%s", entry->n_positions ? "" : "all");
    for (size_t i = 0; i < entry->n_positions; i++)
        n += (size_t)snprintf(text + n, size - n, "%s%lld", i ? "," : "",
                              (long long)entry->positions[i]);
    return text;
}

static enum rp_status expand_env(const struct rp_env *variable, const struct rp_expansion *values,
                                 char **out, struct rp_error *err)
{
    char *value;
    const enum rp_status status = rp_expand(variable->value, values, &value, err);
    if (status)
        return status;
    const size_t size = strlen(variable->name) + strlen(value) + 2;
    *out = malloc(size);
    if (*out)
        snprintf(*out, size, "%s=%s", variable->name, value);
    free(value);
    return *out ? RP_OK : rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory");
}

/* Of a file whose path fits RP_PATH_SIZE. */
static void folder_of(const char *path, char folder[RP_PATH_SIZE])
{
    const char *slash = strrchr(path, '/');
    snprintf(folder, RP_PATH_SIZE, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
}

static bool uses(const struct rp_engine *engine, const char *placeholder)
{
    bool found = false;
    for (size_t i = 0; i < engine->n_argv; i++)
        found |= rp_template_uses(engine->argv[i], placeholder) != 0;
    for (size_t i = 0; i < engine->n_env; i++)
        found |= rp_template_uses(engine->env[i].value, placeholder) != 0;
    return found;
}

static enum rp_status find_checkpoint(const struct rp_context *context,
                                      const struct rp_entry *entry, const char *gguf,
                                      char folder[RP_PATH_SIZE], struct rp_error *err)
{
    struct rp_error refused = {.code = RP_OK};
    if (rp_find_checkpoint(context, entry, gguf[0] ? gguf : NULL, folder, &refused))
        return RP_OK;
    if (refused.code) {
        *err = refused;
        return refused.code;
    }
    return rp_fail(err, RP_ERR_MISSING, NULL, -1,
                   "there is no checkpoint of %s: set REFPARITY_CHECKPOINTS to the folder that has "
                   "%s/config.json and its safetensors",
                   entry->hf_model, entry->hf_model);
}

static enum rp_status expand_command(const struct rp_context *context, const struct rp_pair *pair,
                                     const struct rp_pair_paths *paths, struct rp_command *command,
                                     struct rp_error *err)
{
    const struct rp_engine *engine = pair->entry->engine;
    char processors[16], matrix_dir[RP_PATH_SIZE], checkpoint[RP_PATH_SIZE];
    if (uses(engine, "checkpoint")) {
        const enum rp_status found =
            find_checkpoint(context, pair->entry, command->gguf, checkpoint, err);
        if (found)
            return found;
    }
    snprintf(processors, sizeof processors, "%d", engine->processors);
    folder_of(rp_matrix_path(context->matrix), matrix_dir);
    char *positions = positions_text(pair->entry);
    const struct rp_expansion values = {.gguf = command->gguf[0] ? command->gguf : NULL,
                                        .checkpoint = checkpoint,
                                        .prompt = pair->prompt->text,
                                        .prompt_file = paths->prompt_file,
                                        .tokens_file = paths->tokens_file,
                                        .dump = paths->dump,
                                        .mode = pair->mode,
                                        .positions = positions,
                                        .slots = rp_slot_level_name(rp_pair_slots(pair)),
                                        .threads = processors,
                                        .matrix_dir = matrix_dir,
                                        .env = lookup_env,
                                        .target = lookup_target,
                                        .context = (void *)context};
    command->argv = calloc(engine->n_argv + 1, sizeof *command->argv);
    command->env = calloc(engine->n_env + 1, sizeof *command->env);
    enum rp_status status = RP_OK;
    if (!command->argv || !command->env || !positions)
        status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory");
    for (size_t i = 0; !status && i < engine->n_argv; i++)
        status = rp_expand(engine->argv[i], &values, &command->argv[i], err);
    for (size_t i = 0; !status && i < engine->n_env; i++)
        status = expand_env(&engine->env[i], &values, &command->env[i], err);
    free(positions);
    return status;
}

/* A missing program, target or variable: appends where the engine comes from. */
static enum rp_status say_how_to_get(const struct rp_engine *engine, enum rp_status status,
                                     struct rp_error *err)
{
    const size_t used = strlen(err->message);
    if (status == RP_ERR_MISSING && engine->how_to_get)
        snprintf(err->message + used, sizeof err->message - used, "; to get this engine, %s",
                 engine->how_to_get);
    return status;
}

/* argv[0] with a '/' that is not absolute is relative to the matrix's folder. */
static enum rp_status find_program(const struct rp_context *context, struct rp_command *command,
                                   struct rp_error *err)
{
    const char *program = command->argv[0] ? command->argv[0] : "";
    char relative[RP_PATH_SIZE], folder[RP_PATH_SIZE];
    if (program[0] != '/' && strchr(program, '/')) {
        folder_of(rp_matrix_path(context->matrix), folder);
        const enum rp_status status = rp_path_join(relative, sizeof relative, folder, program, err);
        if (status)
            return status;
        program = relative;
    }
    return rp_find_program(program, command->program, sizeof command->program, err);
}

enum rp_status rp_command_make(const struct rp_context *context, const struct rp_pair *pair,
                               const struct rp_pair_paths *paths, struct rp_command *command,
                               struct rp_error *err)
{
    memset(command, 0, sizeof *command);
    const struct rp_entry *entry = pair->entry;
    enum rp_status status = RP_OK;
    if (entry->engine_gguf)
        status = rp_entry_gguf(context->matrix, entry, context->models_dir, command->gguf,
                               sizeof command->gguf, err);
    if (status)
        return status;
    status = expand_command(context, pair, paths, command, err);
    if (!status)
        status = find_program(context, command, err);
    return say_how_to_get(entry->engine, status, err);
}

static void append_word(char *buf, size_t size, size_t *used, const char *text)
{
    if (*used + 1 < size)
        buf[(*used)++] = ' ';
    rp_shell_append(buf, size, used, text);
}

const char *rp_command_text(const struct rp_command *command, const char *folder, char *buf,
                            size_t size)
{
    size_t used = (size_t)snprintf(buf, size, "cd ");
    rp_shell_append(buf, size, &used, folder);
    used += (size_t)snprintf(buf + used, size - used, " &&");
    used = used < size ? used : size - 1;
    for (size_t i = 0; command->env[i]; i++) {
        /* NAME='VALUE', not 'NAME=VALUE', which a shell would take for a program */
        const char *value = strchr(command->env[i], '=') + 1;
        used += (size_t)snprintf(buf + used, size - used, " %.*s", (int)(value - command->env[i]),
                                 command->env[i]);
        used = used < size ? used : size - 1;
        rp_shell_append(buf, size, &used, value);
    }
    append_word(buf, size, &used, command->program);
    for (size_t i = 1; command->argv[0] && command->argv[i]; i++)
        append_word(buf, size, &used, command->argv[i]);
    return buf;
}
