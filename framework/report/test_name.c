/* See test_name.h. */
#include "report/test_name.h"

#include <stdio.h>

#include "base/shell.h"
#include "refparity/tensor_set.h"

char *rp_slot_test_name(const char *slot, int n_layers, char *out)
{
    int layer, width = 2;
    for (int last = (n_layers - 1) / 100; last > 0; last /= 10)
        width++;
    if (rp_slot_parse(slot, &layer) == RP_PART_OUTPUT)
        snprintf(out, RP_SLOT_NAME_SIZE, "h%0*d", width, layer);
    else
        snprintf(out, RP_SLOT_NAME_SIZE, "%s", slot);
    return out;
}

char *rp_test_command(const struct rp_context *context, const char *name, const char *test,
                      char *buf, size_t size)
{
    char folder[RP_PATH_SIZE + 64], tests[RP_PATH_SIZE], pattern[RP_PATH_SIZE + 64];
    snprintf(tests, sizeof tests, "^%s%s/%s%s", context->prefix, name, test ? test : "",
             test ? "$" : "");
    snprintf(buf, size, "ctest --test-dir %s --output-on-failure -R %s",
             rp_shell_quote(context->build_dir, folder, sizeof folder),
             rp_shell_quote(tests, pattern, sizeof pattern));
    return buf;
}
