/* Fuzz target (libFuzzer): whatever the bytes, rp_matrix_parse gives a matrix in which every pair
 * has a name that finds it again and every template expands, or an error with a message.
 * Seeds: framework/matrix/corpus/matrix. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "matrix/expand.h"
#include "matrix/store.h"
#include "refparity/matrix.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static const char *any_name(void *context, const char *name)
{
    (void)context;
    return name;
}

static void expand(const char *text)
{
    const struct rp_expansion values = {.gguf = "g",
                                        .prompt = "p",
                                        .prompt_file = "f",
                                        .tokens_file = "t",
                                        .dump = "d",
                                        .mode = "m",
                                        .positions = "all",
                                        .slots = "layers",
                                        .threads = "1",
                                        .env = any_name,
                                        .target = any_name};
    char *out = NULL;
    if (rp_expand(text, &values, &out, NULL) != RP_OK)
        abort();
    free(out);
}

static void check_pair(const struct rp_matrix *matrix, size_t index)
{
    char path[1024];
    struct rp_pair pair;
    struct rp_pair found;
    rp_matrix_pair(matrix, index, &pair);
    /* the mode as the name spells it: "<entry>/<mode>/<prompt id>" */
    char mode[RP_PAIR_NAME_SIZE];
    const size_t n_entry = strlen(pair.entry->name), n_prompt = strlen(pair.prompt->id);
    snprintf(mode, sizeof mode, "%s", pair.name + n_entry + 1);
    mode[pair.mode ? strlen(mode) - n_prompt - 1 : 0] = '\0';
    if (rp_matrix_find_pair(matrix, pair.entry->name, mode, pair.prompt->id, &found, NULL) !=
            RP_OK ||
        strcmp(pair.name, found.name) != 0 || strcmp(pair.report_stem, found.report_stem) != 0)
        abort();
    if (pair.against) {
        rp_pair_of_mode(&pair, 1, &found);
        if (found.against || strcmp(found.mode, pair.against) != 0)
            abort();
    }
    if (rp_store_path(pair.entry->hf_model, pair.entry->revision, pair.entry->dtype,
                      pair.prompt->text, pair.prompt->length, path, sizeof path, NULL) != RP_OK ||
        strstr(path, "/../"))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct rp_matrix *matrix = NULL;
    struct rp_error err = {0};
    if (rp_matrix_parse((const char *)bytes, length, "/nonexistent/fuzz.json", &matrix, &err) !=
        RP_OK) {
        if (matrix || !err.message[0])
            abort();
        return 0;
    }
    for (size_t i = 0; i < rp_matrix_n_engines(matrix); i++) {
        const struct rp_engine *engine = rp_matrix_engine(matrix, i);
        for (size_t j = 0; j < engine->n_argv; j++)
            expand(engine->argv[j]);
        for (size_t j = 0; j < engine->n_env; j++)
            expand(engine->env[j].value);
    }
    for (size_t i = 0; i < rp_matrix_n_pairs(matrix); i++)
        check_pair(matrix, i);
    rp_matrix_free(matrix);
    return 0;
}
