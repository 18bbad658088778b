/* See order.h. */
#include "tensor/order.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tensor/set.h"

#define MAX_NUMBER INT32_MAX
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- what an order is ---- */

bool rp_order_fits(const struct rp_order *order, size_t dim)
{
    if (order->kind == RP_ORDER_HF)
        return true;
    if (dim <= order->first || (dim - order->first) % order->head_dim != 0)
        return false;
    return order->kind != RP_ORDER_TILED_HEADS ||
           (dim - order->first) / order->head_dim % order->n_groups == 0;
}

size_t rp_order_from(const struct rp_order *order, size_t dim, size_t i)
{
    if (order->kind == RP_ORDER_HF || i < order->first)
        return i;
    const size_t head = (i - order->first) / order->head_dim;
    const size_t at = (i - order->first) % order->head_dim, half = order->n_rot / 2;
    if (order->kind == RP_ORDER_TILED_HEADS) {
        const size_t a_group = (dim - order->first) / order->head_dim / order->n_groups;
        const size_t own = head / a_group + head % a_group * order->n_groups;
        return order->first + own * order->head_dim + at;
    }
    return at >= order->n_rot ? i : i - at + (at < half ? 2 * at : 2 * (at - half) + 1);
}

enum rp_status rp_order_turn(const struct rp_order *order, const char *slot,
                             struct rp_tensor *tensor, struct rp_error *err)
{
    const size_t dim = tensor->dim, n = tensor->n_positions;
    if (order->kind == RP_ORDER_HF || n == 0)
        return RP_OK;
    size_t *from = malloc(dim * sizeof *from);
    uint32_t *turned = malloc(n * dim * sizeof *turned);
    uint32_t *row = malloc(dim * sizeof *row);
    enum rp_status status = RP_OK;
    if (!from || !turned || !row)
        status =
            rp_fail(err, RP_ERR_MEMORY, slot, -1, "no memory for %zu rows of %zu values", n, dim);
    else if (!rp_order_fits(order, dim))
        status =
            rp_fail(err, RP_ERR_MISMATCH, slot, -1, "a row of %zu values has no such order", dim);
    for (size_t j = 0; status == RP_OK && j < dim; j++)
        from[j] = rp_order_from(order, dim, j);
    for (size_t i = 0; status == RP_OK && i < n; i++) {
        memcpy(row, (const char *)tensor->data + i * dim * sizeof *row, dim * sizeof *row);
        for (size_t j = 0; j < dim; j++)
            turned[i * dim + j] = row[from[j]];
    }
    free(from);
    free(row);
    if (status != RP_OK) {
        free(turned);
        return status;
    }
    free(tensor->owned);
    tensor->data = turned;
    tensor->owned = turned;
    return RP_OK;
}

/* ---- dump.json's rules ---- */

static const struct {
    const char *name;
    enum rp_order_kind kind;
} kinds[] = {{"interleaved_pairs", RP_ORDER_INTERLEAVED_PAIRS},
             {"tiled_heads", RP_ORDER_TILED_HEADS}};

/* A number of a rule: which kind has it, and where it goes. */
static const struct number {
    const char *key;
    size_t offset; /* in struct rp_order */
    enum rp_order_kind kind;
    bool is_of_all_kinds, is_optional;
    long long lowest;
} numbers[] = {
    {"head_dim", offsetof(struct rp_order, head_dim), RP_ORDER_HF, true, false, 1},
    {"n_rot", offsetof(struct rp_order, n_rot), RP_ORDER_INTERLEAVED_PAIRS, false, false, 2},
    {"n_groups", offsetof(struct rp_order, n_groups), RP_ORDER_TILED_HEADS, false, false, 1},
    {"first", offsetof(struct rp_order, first), RP_ORDER_TILED_HEADS, false, true, 0},
};

/* A slot that a rule names. */
struct named {
    enum rp_slot_part part;
    int layer; /* -1: of every layer */
    struct rp_order order;
    const cJSON *where;
};

struct names {
    struct named *names; /* [n] */
    size_t n, max;
};

static bool has_number(const struct number *number, enum rp_order_kind kind)
{
    return number->is_of_all_kinds || number->kind == kind;
}

static enum rp_status check_keys(const struct rp_json *doc, const cJSON *rule,
                                 enum rp_order_kind kind, struct rp_error *err)
{
    const cJSON *member;
    cJSON_ArrayForEach(member, rule)
    {
        bool known = strcmp(member->string, "slots") == 0 || strcmp(member->string, "kind") == 0;
        for (size_t i = 0; i < COUNT(numbers); i++)
            known |= strcmp(member->string, numbers[i].key) == 0 && has_number(&numbers[i], kind);
        if (!known)
            return rp_json_fail_key(doc, member, err, RP_ERR_FORMAT,
                                    "order: a rule of this kind has no key \"%.40s\"",
                                    member->string);
    }
    return RP_OK;
}

static enum rp_status read_rule(const struct rp_json *doc, const cJSON *rule,
                                struct rp_order *order, struct rp_error *err)
{
    if (!cJSON_IsObject(rule))
        return rp_json_fail(doc, rule, err, RP_ERR_FORMAT, "order: expected a list of objects");
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(rule, "kind");
    *order = (struct rp_order){.kind = RP_ORDER_HF};
    for (size_t i = 0; cJSON_IsString(value) && i < COUNT(kinds); i++)
        if (strcmp(value->valuestring, kinds[i].name) == 0)
            order->kind = kinds[i].kind;
    if (order->kind == RP_ORDER_HF)
        return rp_json_fail(doc, value ? value : rule, err, RP_ERR_FORMAT,
                            "order: expected \"kind\": \"interleaved_pairs\" or \"tiled_heads\"");
    enum rp_status status = check_keys(doc, rule, order->kind, err);
    for (size_t i = 0; status == RP_OK && i < COUNT(numbers); i++) {
        long long number = 0;
        value = cJSON_GetObjectItemCaseSensitive(rule, numbers[i].key);
        if (!has_number(&numbers[i], order->kind) || (!value && numbers[i].is_optional))
            continue;
        if (!value || !rp_json_int(value, numbers[i].lowest, MAX_NUMBER, &number))
            status = rp_json_fail(doc, value ? value : rule, err, RP_ERR_FORMAT,
                                  "order: expected \"%s\": a whole number from %lld to %d",
                                  numbers[i].key, numbers[i].lowest, MAX_NUMBER);
        *(size_t *)((char *)order + numbers[i].offset) = (size_t)number;
    }
    if (status == RP_OK && (order->n_rot % 2 != 0 || order->n_rot > order->head_dim))
        status =
            rp_json_fail(doc, cJSON_GetObjectItemCaseSensitive(rule, "n_rot"), err, RP_ERR_FORMAT,
                         "order: expected an even n_rot up to head_dim %zu, found %zu",
                         order->head_dim, order->n_rot);
    return status;
}

/* "q": of every layer; "h3_q": of one. */
static bool parse_name(const char *text, struct named *named)
{
    char slot[RP_SLOT_NAME_SIZE + 4] = "h0_";
    const size_t n = strlen(text);
    if (n == 0 || n >= RP_SLOT_NAME_SIZE)
        return false;
    named->part = rp_slot_parse(text, &named->layer);
    if (named->layer < 0) {
        memcpy(slot + 3, text, n + 1);
        named->part = rp_slot_parse(slot, &named->layer);
        named->layer = -1;
    }
    return named->part >= RP_PART_IN && named->part < RP_PART_OUTPUT;
}

static enum rp_status add_names(struct names *names, const struct rp_json *doc, const cJSON *rule,
                                const struct rp_order *order, struct rp_error *err)
{
    const cJSON *slots = cJSON_GetObjectItemCaseSensitive(rule, "slots"), *slot;
    if (!cJSON_IsArray(slots) || cJSON_GetArraySize(slots) == 0)
        return rp_json_fail(doc, slots ? slots : rule, err, RP_ERR_FORMAT,
                            "order: expected \"slots\": a list of slots");
    cJSON_ArrayForEach(slot, slots)
    {
        struct named named = {.order = *order, .where = slot};
        if (!cJSON_IsString(slot) || !parse_name(slot->valuestring, &named))
            return rp_json_fail(doc, slot, err, RP_ERR_FORMAT,
                                "order: expected a slot of a layer, as \"q\" or \"h0_q\"");
        if (names->n == names->max) {
            const size_t more = names->max ? 2 * names->max : 16;
            struct named *grown = realloc(names->names, more * sizeof *grown);
            if (!grown)
                return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu names", more);
            names->names = grown;
            names->max = more;
        }
        names->names[names->n++] = named;
    }
    return RP_OK;
}

/* The rule for every layer first, then those for one. */
static int by_part_and_layer(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    if (x->part != y->part)
        return x->part < y->part ? -1 : 1;
    return (x->layer > y->layer) - (x->layer < y->layer);
}

static enum rp_status check_overlap(const struct names *names, const struct rp_json *doc,
                                    struct rp_error *err)
{
    size_t first = 0; /* of the same part */
    for (size_t i = 1; i < names->n; i++) {
        const struct named *name = &names->names[i];
        if (name->part != names->names[first].part)
            first = i;
        else if (names->names[first].layer < 0 || name->layer == names->names[i - 1].layer)
            return rp_json_fail(doc, name->where, err, RP_ERR_FORMAT,
                                "order: slot \"%s\" has two rules", name->where->valuestring);
    }
    return RP_OK;
}

static const struct named *find_rule(const struct names *names, const char *slot)
{
    struct named key;
    key.part = rp_slot_parse(slot, &key.layer);
    const struct named *found =
        bsearch(&key, names->names, names->n, sizeof *names->names, by_part_and_layer);
    key.layer = -1;
    return found ? found
                 : bsearch(&key, names->names, names->n, sizeof *names->names, by_part_and_layer);
}

static void give_orders(struct rp_tensor_set *set, const struct names *names,
                        const struct rp_json *doc)
{
    for (size_t i = 0; i < set->n_slots; i++) {
        struct rp_slot *slot = &set->slots[i];
        const struct named *rule = find_rule(names, slot->info.name);
        if (!rule || slot->info.error.code)
            continue;
        slot->order = rule->order;
        if (!rp_order_fits(&rule->order, slot->info.dim))
            rp_json_fail(doc, rule->where, &slot->info.error, RP_ERR_MISMATCH,
                         "order: the %zu values of slot %s are not %zu and then heads of %zu%s",
                         slot->info.dim, slot->info.name, rule->order.first, rule->order.head_dim,
                         rule->order.kind == RP_ORDER_TILED_HEADS ? ", a multiple of n_groups"
                                                                  : "");
    }
}

enum rp_status rp_order_read(struct rp_tensor_set *set, const struct rp_json *doc,
                             const cJSON *rules, struct rp_error *err)
{
    struct names names = {.names = NULL};
    enum rp_status status = RP_OK;
    const cJSON *rule;
    if (!rules)
        return RP_OK;
    if (!cJSON_IsArray(rules))
        return rp_json_fail(doc, rules, err, RP_ERR_FORMAT, "order: expected a list of rules");
    cJSON_ArrayForEach(rule, rules)
    {
        struct rp_order order;
        if (status == RP_OK)
            status = read_rule(doc, rule, &order, err);
        if (status == RP_OK)
            status = add_names(&names, doc, rule, &order, err);
    }
    if (status == RP_OK && names.n > 0) {
        qsort(names.names, names.n, sizeof *names.names, by_part_and_layer);
        status = check_overlap(&names, doc, err);
        if (status == RP_OK)
            give_orders(set, &names, doc);
    }
    free(names.names);
    return status;
}
