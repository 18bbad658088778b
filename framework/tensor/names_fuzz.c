/* libFuzzer target: any bytes as a user's names, then held against names. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/names.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const char *const tried[] = {"h0",   "layer_12", "model.layers.3.mlp",
                                        "a00b", "99999",    ""};
    struct rp_names *names;
    if (rp_names_parse((const char *)bytes, n, "fuzz", &names, NULL) != RP_OK)
        return 0;
    for (size_t i = 0; i < sizeof tried / sizeof *tried; i++) {
        char target[RP_SLOT_NAME_SIZE];
        int l;
        const struct rp_name_rule *rule = rp_names_find(names, tried[i], &l);
        if (rule && strlen(rp_name_target(rule, l, target)) >= RP_SLOT_NAME_SIZE - 1)
            abort(); /* cut */
    }
    (void)rp_names_unused(names);
    rp_names_free(names);
    return 0;
}
