/* See json.h. */
#include "report/json.h"

#include <math.h>

static void add_number(cJSON *object, const char *name, double value)
{
    if (isfinite(value))
        cJSON_AddNumberToObject(object, name, value);
    else
        cJSON_AddNullToObject(object, name);
}

static void add_count(cJSON *object, const char *name, size_t value)
{
    cJSON_AddNumberToObject(object, name, (double)value);
}

static void add_metrics(cJSON *object, const char *name, const struct rp_position_metrics *p)
{
    if (p->position < 0) {
        cJSON_AddNullToObject(object, name);
        return;
    }
    cJSON *m = cJSON_AddObjectToObject(object, name);
    add_number(m, "position", (double)p->position);
    add_number(m, "l2_rel", p->metrics.l2_rel);
    add_number(m, "cosine", p->metrics.cosine);
    add_number(m, "norm_reference", p->metrics.norm_ref);
    add_number(m, "norm_engine", p->metrics.norm_engine);
    add_number(m, "max_abs", p->metrics.max_abs);
}

static cJSON *slot_json(const struct rp_slot_result *slot)
{
    cJSON *object = cJSON_CreateObject();
    int layer;
    cJSON_AddStringToObject(object, "slot", slot->slot);
    cJSON_AddStringToObject(object, "verdict", rp_verdict_name(slot->verdict));
    cJSON_AddBoolToObject(object, "required", slot->required);
    cJSON_AddStringToObject(object, "message", slot->message);
    add_count(object, "dim", slot->dim);
    add_count(object, "n_compared", slot->n_compared);
    add_count(object, "n_missing", slot->n_missing);
    add_count(object, "n_extra", slot->n_extra);
    add_count(object, "n_failing", slot->n_failing);
    add_number(object, "limit", slot->limit);
    add_metrics(object, "worst", &slot->worst);
    add_metrics(object, "first_failing", &slot->first);
    if (slot->unchecked[0])
        cJSON_AddStringToObject(object, "unchecked", slot->unchecked);
    if (slot->downstream_of[0])
        cJSON_AddStringToObject(object, "downstream_of", slot->downstream_of);
    if (rp_slot_parse(slot->slot, &layer) == RP_PART_LOGITS && slot->n_compared > 0) {
        add_count(object, "n_top1_equal", slot->n_top1_equal);
        add_number(object, "top_k_overlap", slot->top_k_overlap);
        add_number(object, "kl_max", slot->kl_max);
        add_number(object, "kl_mean", slot->kl_sum / (double)slot->n_compared);
        add_number(object, "information_mean", slot->information_sum / (double)slot->n_compared);
        add_count(object, "n_wrong_size", slot->n_wrong_size);
        add_number(object, "size", slot->size_excess > 0 ? slot->size : 1);
    }
    return object;
}

static void add_tokens(cJSON *object, const struct rp_tokens_result *tokens)
{
    cJSON *t = cJSON_AddObjectToObject(object, "tokens");
    cJSON_AddStringToObject(t, "verdict", rp_verdict_name(tokens->verdict));
    cJSON_AddStringToObject(t, "message", tokens->message);
    add_count(t, "n_reference", tokens->n_ref);
    add_count(t, "n_engine", tokens->n_engine);
    add_number(t, "first_difference", (double)tokens->first_difference);
}

static void add_divergence(cJSON *object, const struct rp_divergence *divergence)
{
    if (!divergence->slot[0]) {
        cJSON_AddNullToObject(object, "divergence");
        return;
    }
    cJSON *d = cJSON_AddObjectToObject(object, "divergence");
    cJSON_AddStringToObject(d, "slot", divergence->slot);
    add_number(d, "layer", divergence->layer);
    add_number(d, "position", (double)divergence->position);
    cJSON_AddStringToObject(d, "inner_slot", divergence->inner_slot);
    cJSON_AddStringToObject(d, "explanation", divergence->explanation);
}

static void add_departure(cJSON *object, const struct rp_departure *departure)
{
    if (!departure->slot[0]) {
        cJSON_AddNullToObject(object, "departure");
        return;
    }
    cJSON *d = cJSON_AddObjectToObject(object, "departure");
    cJSON_AddStringToObject(d, "slot", departure->slot);
    cJSON_AddStringToObject(d, "operation_slot", departure->operation_slot);
    add_number(d, "position", (double)departure->position);
    add_number(d, "error", departure->error);
    add_number(d, "noise", departure->noise);
    cJSON_AddStringToObject(d, "explanation", departure->explanation);
}

void rp_report_json(cJSON *object, const struct rp_pair_result *pair,
                    const struct rp_divergence *divergence)
{
    cJSON_AddStringToObject(object, "verdict", rp_verdict_name(pair->verdict));
    add_tokens(object, &pair->tokens);
    add_divergence(object, divergence);
    add_departure(object, &divergence->departure);
    cJSON *slots = cJSON_AddArrayToObject(object, "slots");
    for (size_t i = 0; i < pair->n_slots; i++)
        cJSON_AddItemToArray(slots, slot_json(&pair->slots[i]));
    add_count(object, "n_required", pair->n_required);
    add_count(object, "n_required_compared", pair->n_required_compared);
}

void rp_report_json_warnings(cJSON *object, const struct rp_warnings *warnings)
{
    cJSON *array = cJSON_AddArrayToObject(object, "warnings");
    for (size_t i = 0; i < warnings->n; i++) {
        const struct rp_warning *warning = &warnings->list[i];
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "kind", rp_warning_name(warning->kind));
        cJSON_AddStringToObject(item, "rule", rp_warning_rule(warning->kind));
        cJSON_AddStringToObject(item, "slot", warning->slot);
        cJSON_AddStringToObject(item, "message", warning->message);
        cJSON_AddItemToArray(array, item);
    }
}
