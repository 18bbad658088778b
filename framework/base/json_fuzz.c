/* Fuzz target (libFuzzer): whatever the bytes, rp_json_parse gives a tree whose every value it can
 * place, or an error with a message. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void check(const struct rp_json *doc, const cJSON *value)
{
    int line = 0;
    int column = 0;
    rp_json_locate(doc, value, &line, &column);
    if (line < 1 || column < 1)
        abort();
    for (const cJSON *child = value->child; child; child = child->next)
        check(doc, child);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct rp_json *doc = NULL;
    struct rp_error err = {0};
    if (rp_json_parse((const char *)bytes, length, "fuzz.json", &doc, &err) == RP_OK) {
        check(doc, rp_json_root(doc));
        rp_json_free(doc);
    } else if (doc || !err.message[0] || strncmp(err.where, "fuzz.json", 9) != 0) {
        abort();
    }
    return 0;
}
