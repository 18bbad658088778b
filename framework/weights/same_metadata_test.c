/* Keys of experts that the checkpoint has nothing of. Other metadata: same_weights_test.c, on whole files. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "weights/gguf_builder.h"
#include "weights/same_metadata.h"

/* One key beside the architecture; NULL: none. */
struct side {
    const char *key;
    uint32_t value;
};

static struct rp_gguf *open_side(struct gguf_bytes *bytes, struct side side)
{
    struct gguf_builder builder = {.version = 3};
    struct rp_gguf *gguf = NULL;
    gguf_add_string(&builder, "general.architecture", "deepseek2");
    if (side.key)
        gguf_add_u32(&builder, side.key, side.value);
    *bytes = gguf_finish(&builder, NULL);
    assert_int_equal(rp_gguf_open_memory(bytes->data, bytes->size, "side", &gguf, NULL), RP_OK);
    return gguf;
}

struct found {
    size_t n_wrong;
    char message[512];
};

static void see(void *context, const struct rp_weights_finding *finding)
{
    struct found *found = context;
    if (finding->is_right)
        return;
    found->n_wrong++;
    memcpy(found->message, finding->message, sizeof found->message);
}

static struct found compare(struct side file, struct side checkpoint)
{
    struct gguf_bytes bytes[2];
    struct rp_gguf *opened[2] = {open_side(&bytes[0], file), open_side(&bytes[1], checkpoint)};
    struct found found = {.n_wrong = 0};
    assert_int_equal(rp_compare_metadata(opened[0], opened[1], see, &found, NULL), RP_OK);
    for (size_t i = 0; i < 2; i++) {
        rp_gguf_close(opened[i]);
        free(bytes[i].data);
    }
    return found;
}

static void what_the_checkpoint_has_nothing_of_is_wrong(void **state)
{
    (void)state;
    static const struct side none = {NULL, 0};
    static const char *const keys[] = {"expert_group_count", "expert_shared_count",
                                       "expert_shared_feed_forward_length",
                                       "leading_dense_block_count"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char key[64], message[128];
        snprintf(key, sizeof key, "deepseek2.%s", keys[i]);
        snprintf(message, sizeof message, "%s is 4, the checkpoint says nothing of it", key);
        const struct found found = compare((struct side){key, 4}, none);
        assert_int_equal(found.n_wrong, 1);
        assert_string_equal(found.message, message);
        assert_int_equal(compare((struct side){key, 0}, none).n_wrong, 0);
    }
    for (size_t i = 0; i < 2; i++) {
        static const char *const caps[] = {"deepseek2.attn_logit_softcapping",
                                           "deepseek2.final_logit_softcapping"};
        assert_int_equal(compare((struct side){caps[i], 50}, none).n_wrong, 1);
    }
    /* All experts in one group, as converters write it. */
    assert_int_equal(compare((struct side){"deepseek2.expert_group_count", 1}, none).n_wrong, 0);
}

/* Readers multiply it by the experts' size, which is compared. */
static void shared_experts_may_be_said_by_their_number(void **state)
{
    (void)state;
    const struct found found =
        compare((struct side){"deepseek2.expert_shared_count", 2},
                (struct side){"deepseek2.expert_shared_feed_forward_length", 512});
    assert_int_equal(found.n_wrong, 1); /* there is no size here */
    assert_null(strstr(found.message, "expert_shared_count"));
}

/* What an architecture's readers take is the checkpoint's to say, by its table. */
static void an_absent_key_is_what_the_architecture_has(void **state)
{
    (void)state;
    static const unsigned char yes = 1;
    for (uint32_t absent = 1; absent <= 3; absent++) {
        struct gguf_builder builders[2] = {{.version = 3}, {.version = 3}};
        struct gguf_bytes bytes[2];
        struct rp_gguf *opened[2];
        struct found found = {.n_wrong = 0};
        for (size_t i = 0; i < 2; i++)
            gguf_add_string(&builders[i], "general.architecture", "some");
        gguf_add_u32(&builders[1], "some.expert_gating_func", 3);
        gguf_add(&builders[1], "some.expert_weights_norm", RP_GGUF_BOOL, &yes, 1);
        gguf_add_u32(&builders[1], "checkpoint.absent.expert_gating_func", absent);
        if (absent > 1)
            gguf_add(&builders[1], "checkpoint.absent.expert_weights_norm", RP_GGUF_BOOL, &yes, 1);
        for (size_t i = 0; i < 2; i++) {
            bytes[i] = gguf_finish(&builders[i], NULL);
            assert_int_equal(
                rp_gguf_open_memory(bytes[i].data, bytes[i].size, "side", &opened[i], NULL), RP_OK);
        }
        assert_int_equal(rp_compare_metadata(opened[0], opened[1], see, &found, NULL), RP_OK);
        assert_int_equal(found.n_wrong, (absent != 3) + (absent == 1));
        for (size_t i = 0; i < 2; i++) {
            rp_gguf_close(opened[i]);
            free(bytes[i].data);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_checkpoint_has_nothing_of_is_wrong),
        cmocka_unit_test(shared_experts_may_be_said_by_their_number),
        cmocka_unit_test(an_absent_key_is_what_the_architecture_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
