/* Each clean variant is the same model: end to end within what FP32 arithmetic in another order, or
 * the rounding that it declares, may change; and it does change something. Not whether replay reports
 * nothing on it: that is detect. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "model/recording.h"
#include "variants.h"

#define N_TOKENS 20

static const char *const architectures[] = {"qwen3", "llama", "qwen35"};

static struct rp_model *open_model(const char *architecture)
{
    char path[1024];
    struct rp_model *model = NULL;
    struct rp_error err;
    snprintf(path, sizeof path, "%s/fixtures/tiny/%s/%s-bf16.gguf", RP_SOURCE_DIR, architecture,
             architecture);
    if (rp_model_open(path, &model, &err) != RP_OK)
        fail_msg("%s: %s", path, err.message);
    return model;
}

static void run(const struct rp_model *model, const struct rp_variant *variant,
                const struct rp_ops *ops, struct recording *recording)
{
    static const int32_t tokens[N_TOKENS] = {17, 300, 41, 8,   511, 17, 90,  250, 33, 700,
                                             5,  64,  99, 420, 12,  3,  811, 77,  5,  600};
    const struct rp_run options = {.ops = ops,
                                   .tokens = tokens,
                                   .n_tokens = N_TOKENS,
                                   .first_position = variant ? variant->first_position : 0,
                                   .mode = variant && variant->is_per_token ? RP_MODE_PER_TOKEN
                                                                            : RP_MODE_BATCHED,
                                   .chunk = variant ? variant->chunk : 0};
    record_run(model, options, recording);
}

static bool is_rotated(const struct recorded_slot *slot)
{
    int layer;
    const enum rp_slot_part part = rp_slot_parse(slot->name, &layer);
    return part == RP_PART_QROPE || part == RP_PART_KROPE;
}

/* The largest difference of any slot; 0 where there is none. Q and K that are rotated for other
 * positions are others, and their products the same. */
static double difference(const struct recording *a, const struct recording *b, bool is_shifted)
{
    double worst = 0;
    assert_int_equal(a->n_slots, b->n_slots);
    for (size_t i = 0; i < a->n_slots; i++) {
        if (is_shifted && is_rotated(&a->slots[i]))
            continue;
        double here = worst_l2_rel(&a->slots[i], &b->slots[i]);
        if (!(here <= worst))
            worst = here;
    }
    return worst;
}

static void each_variant_is_the_same_model(void **state)
{
    (void)state;
    for (size_t a = 0; a < sizeof architectures / sizeof *architectures; a++) {
        struct rp_model *model = open_model(architectures[a]);
        struct recording clean = {.n_slots = 0};
        run(model, NULL, NULL, &clean);
        for (size_t v = 0; v < rp_n_variants; v++) {
            const struct rp_variant *variant = &rp_variants[v];
            struct rp_variant_site site;
            struct recording other = {.n_slots = 0};
            rp_variant_install(variant, &site);
            run(model, variant, &site.overlay.ops, &other);
            double worst = difference(&other, &clean, variant->first_position != 0);
            /* HF and the C model differ by 2.9e-6 on these models */
            if (!(worst <= 1e-5))
                fail_msg("%s on %s differs by %g", variant->name, architectures[a], worst);
            if (variant->order != RP_SUM_AS_MODEL && worst == 0)
                fail_msg("%s on %s differs by nothing", variant->name, architectures[a]);
            forget(&other);
        }
        forget(&clean);
        rp_model_close(model);
    }
}

static void variants_are_found_by_name(void **state)
{
    (void)state;
    for (size_t v = 0; v < rp_n_variants; v++)
        assert_ptr_equal(rp_variant_find(rp_variants[v].name), &rp_variants[v]);
    assert_null(rp_variant_find("no such variant"));
    assert_true(rp_n_variants >= 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_variant_is_the_same_model),
        cmocka_unit_test(variants_are_found_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
