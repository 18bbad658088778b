/* The "engines" of a matrix. See refparity/matrix.h. */
#include "matrix/parse.h"

#include <string.h>

#include "base/utf8.h"
#include "matrix/expand.h"
#include "matrix/keys.h"

#define MAX_TIMEOUT_S (7.0 * 24 * 3600)
#define MAX_PROCESSORS 1024
#define COUNT(array) (sizeof(array) / sizeof *(array))

static const char *const engine_keys[] = {
    "argv",      "env",   "layout",          "timeout_s",  "processors",  "serial",
    "tokens",    "_note", "single_position", "how_to_get", "activations", "kv_cache",
    "attention", "slots", "state",           "_comment"};

int rp_engine_uses(const struct rp_engine *engine, const char *placeholder)
{
    for (size_t i = 0; i < engine->n_argv; i++) {
        if (rp_template_uses(engine->argv[i], placeholder))
            return 1;
    }
    for (size_t i = 0; i < engine->n_env; i++) {
        if (rp_template_uses(engine->env[i].value, placeholder))
            return 1;
    }
    return 0;
}

static enum rp_status read_template(const struct rp_matrix *matrix, const cJSON *value,
                                    const char *key, const char **out, struct rp_error *err)
{
    struct rp_error why;
    if (!cJSON_IsString(value))
        return rp_json_fail(matrix->json, value, err, RP_ERR_FORMAT,
                            "expected strings in \"%s\", found %s", key, rp_json_type(value));
    if (rp_template_check(value->valuestring, &why) != RP_OK)
        return rp_json_fail(matrix->json, value, err, RP_ERR_FORMAT, "%s", why.message);
    *out = value->valuestring;
    return RP_OK;
}

static enum rp_status read_argv(struct rp_matrix *matrix, const cJSON *object,
                                struct rp_engine *engine, struct rp_error *err)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, "argv");
    size_t n = 0;
    if (!value)
        return rp_json_fail(matrix->json, object, err, RP_ERR_MISSING,
                            "expected \"argv\" in an engine: the program and its arguments");
    enum rp_status status =
        rp_check_array(matrix->json, value, "argv", 1, RP_MATRIX_MAX_ARGUMENTS, &n, err);
    if (status != RP_OK)
        return status;
    engine->argv = rp_matrix_alloc(n, sizeof *engine->argv, err);
    if (!engine->argv)
        return RP_ERR_MEMORY;
    for (const cJSON *child = value->child; child; child = child->next) {
        status = read_template(matrix, child, "argv", &engine->argv[engine->n_argv], err);
        if (status != RP_OK)
            return status;
        engine->n_argv++;
    }
    if (!engine->argv[0][0])
        return rp_json_fail(matrix->json, value->child, err, RP_ERR_FORMAT,
                            "expected a program first in \"argv\", found an empty string");
    return RP_OK;
}

static int is_variable_name(const char *name)
{
    const char *letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
    size_t n_letters = strspn(name, letters);
    if (n_letters == 0)
        return 0;
    for (const char *c = name + n_letters; *c; c++) {
        if (!strchr(letters, *c) && !(*c >= '0' && *c <= '9'))
            return 0;
    }
    return 1;
}

static enum rp_status read_env(struct rp_matrix *matrix, const cJSON *object,
                               struct rp_engine *engine, struct rp_error *err)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, "env");
    char shown[RP_SHOWN_SIZE];
    if (!value)
        return RP_OK;
    if (!cJSON_IsObject(value))
        return rp_json_fail(matrix->json, value, err, RP_ERR_FORMAT,
                            "expected an object for \"env\", found %s", rp_json_type(value));
    size_t n = (size_t)cJSON_GetArraySize(value);
    if (n > RP_MATRIX_MAX_ARGUMENTS)
        return rp_json_fail(matrix->json, value, err, RP_ERR_FORMAT,
                            "expected at most %d variables in \"env\", found %zu",
                            RP_MATRIX_MAX_ARGUMENTS, n);
    struct rp_env *env = rp_matrix_alloc(n, sizeof *env, err);
    if (!env)
        return RP_ERR_MEMORY;
    engine->env = env;
    for (const cJSON *child = value->child; child; child = child->next) {
        if (!is_variable_name(child->string))
            return rp_json_fail_key(matrix->json, child, err, RP_ERR_FORMAT,
                                    "expected the name of an environment variable, found %s",
                                    rp_shown(child->string, shown));
        struct rp_env *variable = &env[engine->n_env];
        variable->name = child->string;
        enum rp_status status = read_template(matrix, child, "env", &variable->value, err);
        if (status != RP_OK)
            return status;
        engine->n_env++;
    }
    return RP_OK;
}

static enum rp_status read_layout(struct rp_matrix *matrix, const cJSON *object,
                                  struct rp_engine *engine, struct rp_error *err)
{
    static const char *const layouts[] = {"npy", "bin"};
    char shown[RP_SUGGESTION_SIZE];
    char suggestion[RP_SUGGESTION_SIZE];
    const char *layout = NULL;
    enum rp_status status = rp_read_string(matrix->json, object, "layout", &layout, err);
    if (status != RP_OK)
        return status;
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, "layout");
    if (!layout)
        return rp_json_fail(matrix->json, object, err, RP_ERR_MISSING,
                            "expected \"layout\" in an engine: \"npy\", as refparity/dump.h "
                            "writes, or \"bin\", raw FP32 files");
    if (strcmp(layout, "npy") == 0)
        engine->layout = RP_LAYOUT_NPY;
    else if (strcmp(layout, "bin") == 0)
        engine->layout = RP_LAYOUT_BIN;
    else
        return rp_json_fail(matrix->json, value, err, RP_ERR_FORMAT,
                            "expected a \"layout\", found %s%s", rp_json_shown(value, shown),
                            rp_suggest_value(layout, layouts, COUNT(layouts), suggestion));
    return RP_OK;
}

static enum rp_status read_timeout(struct rp_matrix *matrix, const cJSON *object,
                                   struct rp_engine *engine, struct rp_error *err)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, "timeout_s");
    char shown[RP_SUGGESTION_SIZE];
    engine->timeout_s = RP_DEFAULT_TIMEOUT_S;
    if (!value)
        return RP_OK;
    if (!cJSON_IsNumber(value) || !(value->valuedouble > 0 && value->valuedouble <= MAX_TIMEOUT_S))
        return rp_json_fail(matrix->json, value, err, RP_ERR_FORMAT,
                            "expected seconds above 0, at most %.0f, for \"timeout_s\", found %s",
                            MAX_TIMEOUT_S, rp_json_shown(value, shown));
    engine->timeout_s = value->valuedouble;
    return RP_OK;
}

enum rp_status rp_parse_engine(struct rp_matrix *matrix, const cJSON *value,
                               struct rp_engine *engine, struct rp_error *err)
{
    const struct rp_json *json = matrix->json;
    const char *note = NULL;
    engine->name = value->string;
    engine->processors = 1;
    rp_json_locate(json, value, &engine->line, &engine->column);
    int has_tokens = 1;
    enum rp_status status =
        rp_check_keys(json, value, "an engine", engine_keys, COUNT(engine_keys), err);
    if (status == RP_OK)
        status = read_argv(matrix, value, engine, err);
    if (status == RP_OK)
        status = read_env(matrix, value, engine, err);
    if (status == RP_OK)
        status = read_layout(matrix, value, engine, err);
    if (status == RP_OK)
        status = read_timeout(matrix, value, engine, err);
    if (status == RP_OK)
        status =
            rp_read_int(json, value, "processors", 1, MAX_PROCESSORS, &engine->processors, err);
    if (status == RP_OK)
        status = rp_read_flag(json, value, "serial", &engine->serial, err);
    if (status == RP_OK)
        status = rp_read_flag(json, value, "single_position", &engine->single_position, err);
    if (status == RP_OK)
        status = rp_read_flag(json, value, "tokens", &has_tokens, err);
    if (status == RP_OK)
        status = rp_read_string(json, value, "how_to_get", &engine->how_to_get, err);
    if (status == RP_OK)
        status = rp_parse_numerics(matrix, value, &engine->numerics, err);
    engine->slots =
        (struct rp_wanted_slots){.replayed = RP_SLOTS_OPERATIONS, .compared = RP_SLOTS_LAYERS};
    if (status == RP_OK)
        status = rp_parse_slots(matrix, value, engine, &engine->slots, err);
    if (status == RP_OK)
        status = rp_read_string(json, value, "_note", &note, err);
    if (status != RP_OK)
        return status;
    engine->lacks_tokens = !has_tokens;
    engine->uses_tokens_file = rp_engine_uses(engine, "tokens_file");
    if (engine->single_position && engine->layout != RP_LAYOUT_BIN)
        return rp_json_fail(json, cJSON_GetObjectItemCaseSensitive(value, "single_position"), err,
                            RP_ERR_FORMAT,
                            "expected \"single_position\" with layout \"bin\" only: an npy dump "
                            "says itself which positions it holds");
    if (!rp_engine_uses(engine, "dump"))
        return rp_json_fail(json, value, err, RP_ERR_FORMAT,
                            "expected {dump} in \"argv\" or \"env\": nothing tells the engine "
                            "where to dump");
    return RP_OK;
}
