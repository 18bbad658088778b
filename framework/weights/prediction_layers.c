/* See weights/prediction_layers.h. */
#include "weights/prediction_layers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum rp_status rp_gguf_count_layers(const struct rp_gguf *gguf, int64_t max, size_t *n_layers,
                                    size_t *n_prediction_layers, struct rp_error *err)
{
    struct rp_gguf_string architecture;
    char key[128];
    int64_t n_all = 0, n_behind = 0;
    enum rp_status status = rp_gguf_get_string(gguf, "general.architecture", &architecture, err);
    if (status != RP_OK)
        return status;
    const int length = (int)(architecture.length < 64 ? architecture.length : 64);
    snprintf(key, sizeof key, "%.*s.block_count", length, architecture.data);
    status = rp_gguf_get_int(gguf, key, 1, max, &n_all, err);
    if (status != RP_OK)
        return status;
    snprintf(key, sizeof key, "%.*s.nextn_predict_layers", length, architecture.data);
    if (rp_gguf_find_value(gguf, key))
        status = rp_gguf_get_int(gguf, key, 0, n_all - 1, &n_behind, err);
    if (status != RP_OK)
        return status;
    *n_layers = (size_t)(n_all - n_behind);
    *n_prediction_layers = (size_t)n_behind;
    return RP_OK;
}

bool rp_gguf_is_of_prediction(const struct rp_gguf *gguf, const struct rp_gguf_tensor *tensor)
{
    size_t n_layers, n_behind;
    char *end;
    if (strncmp(tensor->name, "blk.", 4) != 0 || tensor->name[4] < '0' || tensor->name[4] > '9' ||
        rp_gguf_count_layers(gguf, INT32_MAX, &n_layers, &n_behind, NULL) != RP_OK)
        return false;
    const unsigned long layer = strtoul(tensor->name + 4, &end, 10);
    return *end == '.' && layer >= n_layers && layer - n_layers < n_behind;
}
