/* See other_weights.h. */
#include "explain/other_weights.h"

#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "refparity/gguf.h"

/* Four errors that have nothing to do with each other, none of them known and nothing else wrong: less
 * likely than one cause. A layer has about seven products; a dump of layers alone shows two of each. */
#define FEW_PRODUCTS 4

/* No quantization costs more than the sign alone does: sqrt(1 - 2/pi) of weights with a normal
 * distribution. A product whose terms cancel shows more; most do not. */
#define LARGEST_ERROR 0.603

static bool is_large(const struct rp_replay_slot *slot)
{
    for (size_t i = 0; i < slot->n_positions; i++)
        if (!(slot->introduced[i] <= LARGEST_ERROR))
            return true;
    return false;
}

void rp_products_add(struct rp_products *products, const struct rp_replay_layer *layer,
                     const struct rp_explanation *explanations)
{
    for (size_t i = 0; i < layer->n_slots && layer->layer >= 0; i++) {
        const struct rp_replay_slot *slot = &layer->slots[i];
        if (slot->n_positions == 0)
            continue;
        products->n_products += slot->has_product;
        products->n_others += !slot->has_product;
        if (slot->verdict == RP_PASS)
            continue;
        products->n_failing++;
        products->n_named += explanations[i].name[0] != '\0';
        products->n_large += is_large(slot);
        products->is_else |=
            slot->verdict != RP_FAIL || !slot->has_product || slot->n_over < slot->n_positions;
    }
}

bool rp_products_hint(const struct rp_products *products, const struct rp_replay *replay,
                      char text[RP_PRODUCTS_TEXT_SIZE])
{
    const char *path = rp_gguf_path(rp_model_gguf(rp_replay_model(replay))),
               *dumped = rp_tensor_set_model(rp_replay_dump(replay));
    const char *slash = strrchr(path, '/'), *model = slash ? slash + 1 : path;
    char id[RP_MODEL_FILE_ID_SIZE], cause[RP_PRODUCTS_TEXT_SIZE / 2], shown[RP_SHOWN_SIZE];
    text[0] = '\0';
    if (products->n_failing == 0) /* which file it is reads some of all of it */
        return false;
    rp_model_file_id(path, id);
    if (rp_model_file_is_another(id, dumped))
        snprintf(text, RP_PRODUCTS_TEXT_SIZE,
                 "the dump was made with another file, %.60s, than %.60s: replay it with that one",
                 dumped, id);
    /* Of two files some tensors may have the same type, so that not all fail. */
    if (products->is_else || products->n_named > 0 || products->n_others == 0 ||
        products->n_failing < FEW_PRODUCTS || 2 * products->n_large > products->n_failing ||
        2 * products->n_failing <= products->n_products)
        return false;
    if (rp_model_file_is(id, dumped))
        snprintf(cause, sizeof cause,
                 "the dump was made with this very file: the engine decodes "
                 "its weights wrongly, or multiplies them so");
    else if (rp_model_file_is_another(id, dumped))
        snprintf(cause, sizeof cause, "the dump was made with another file, %s, than %.60s",
                 rp_shown(dumped, shown), id);
    else
        snprintf(cause, sizeof cause,
                 "the dump was made with other weights than %.60s (another quantization, or a "
                 "finetune), or the engine decodes this file's weights wrongly",
                 model);
    snprintf(text, RP_PRODUCTS_TEXT_SIZE,
             "%zu of %zu matrix products fail, at every position, and none of the %zu other "
             "operations: %s",
             products->n_failing, products->n_products, products->n_others, cause);
    return true;
}
