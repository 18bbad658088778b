/* tensor/names.h: rules of a user's file, and the common names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tensor/names.h"

static struct rp_names *parse(const char *text)
{
    struct rp_names *names;
    struct rp_error err;
    if (rp_names_parse(text, strlen(text), "names.txt", &names, &err) != RP_OK)
        fail_msg("%s", err.message);
    return names;
}

/* What name is read as; "" where no rule fits. */
static const char *target(struct rp_names *names, const char *name)
{
    static char out[RP_SLOT_NAME_SIZE];
    int l;
    const struct rp_name_rule *rule = rp_names_find(names, name, &l);
    return rule ? rp_name_target(rule, l, out) : "";
}

static void lines_are_pairs_of_names(void **state)
{
    struct rp_names *names = parse("# of my engine\n"
                                   "wte emb   # scaled\r\n"
                                   "\n"
                                   "\tblock.{l}.out\th{l}\n"
                                   "one_based_{l+1} h{l}_attnout\n"
                                   "junk -\n"
                                   "states h{l}\n"
                                   "hs hidden_states\n"
                                   "hs_{l} hidden_states.{l}\n"
                                   "ids tokens");
    (void)state;
    assert_int_equal(names->n, 8);
    assert_string_equal(target(names, "wte"), "emb");
    assert_string_equal(target(names, "block.17.out"), "h17");
    assert_string_equal(target(names, "block.007.out"), "h7");
    assert_string_equal(target(names, "block.x.out"), "");
    assert_string_equal(target(names, "block.1.outer"), "");
    assert_string_equal(target(names, "block.999999.out"), "");
    assert_string_equal(target(names, "one_based_1"), "h0_attnout");
    assert_string_equal(target(names, "one_based_0"), "");
    assert_int_equal(names->rules[3].kind, RP_NAME_LEFT_OUT);
    assert_int_equal(names->rules[4].kind, RP_NAME_STACK);
    assert_int_equal(names->rules[5].kind, RP_NAME_HIDDEN_STATES);
    assert_int_equal(names->rules[6].kind, RP_NAME_HIDDEN_STATE);
    assert_int_equal(names->rules[7].kind, RP_NAME_TOKENS);
    assert_string_equal(rp_names_unused(names)->name, "junk");
    assert_int_equal(rp_names_unused(names)->line, 6);
    rp_names_free(names);
}

static void a_json_object_is_the_same(void **state)
{
    struct rp_names *names = parse(" {\"my layer {l}\": \"h{l}\",\n \"norm out\": \"post_norm\"}");
    (void)state;
    assert_string_equal(target(names, "my layer 3"), "h3");
    assert_string_equal(target(names, "norm out"), "post_norm");
    assert_null(rp_names_unused(names));
    assert_int_equal(names->rules[1].line, 2);
    rp_names_free(names);
}

static void a_wrong_rule_is_an_error_with_its_line(void **state)
{
    static const char slots[] =
        "line 1: expected a slot (emb, h{l}, h{l}_q ..., post_norm, logits), or tokens, positions, "
        "hidden_states, hidden_states.{l}, or - for what is to be left out, found ";
    static const struct {
        const char *text, *message, *found;
    } cases[] = {
        {"a emb\nb", "line 2: expected two words, their name and our slot: \"layer_{l} h{l}\"", ""},
        {"a b c", "line 1: expected two words, their name and our slot: \"layer_{l} h{l}\"", ""},
        {"a layer_0", slots, "\"layer_0\""},
        {"a{l} h{l+1}", slots, "\"h{l+1}\""},
        {"a{l} h{x}", slots, "\"h{x}\""},
        {"a{l}{l} h{l}",
         "line 1: expected a name with {l}, {l+1} or {l-1} at one place at most, found ",
         "\"a{l}{l}\""},
        {"a{l+} h{l}",
         "line 1: expected a name with {l}, {l+1} or {l-1} at one place at most, found ",
         "\"a{l+}\""},
        {"a{l} h3", "line 1: the slot has no {l}, and the name has one, found ", "\"a{l}\""},
        {"a{l} hidden_states",
         "line 1: one array is expected to be this, not one for each {l}, found ", "\"a{l}\""},
        {"a hidden_states.{l}",
         "line 1: the name has no {l}: write hidden_states for an array of all, found ", "\"a\""},
        {"a emb\n\na h0", "line 3: \"a\" is in line 1 too", ""},
        {"{\"a\": 3}", "expected a slot's name", ""},
        {"{\"a\": \"emb\"", NULL, ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rp_names *names = NULL;
        struct rp_error err;
        char message[1024];
        assert_int_equal(
            rp_names_parse(cases[i].text, strlen(cases[i].text), "names.txt", &names, &err),
            RP_ERR_FORMAT);
        assert_null(names);
        if (!cases[i].message)
            continue;
        snprintf(message, sizeof message, "%s%s", cases[i].message, cases[i].found);
        assert_string_equal(err.message, message);
    }
}

static void a_text_cut_anywhere_is_read_or_an_error(void **state)
{
    static const char text[] = "a{l} h{l}\n{l+1}b h{l}_q\nc emb # x\nd -\n";
    (void)state;
    for (size_t n = 0; n < sizeof text; n++) {
        struct rp_names *names = NULL;
        char *exact = malloc(n + 1); /* so that a sanitizer sees any read past the end */
        assert_non_null(exact);
        memcpy(exact, text, n);
        exact = realloc(exact, n ? n : 1);
        if (rp_names_parse(exact, n, "names.txt", &names, NULL) == RP_OK)
            rp_names_free(names);
        free(exact);
    }
}

static void a_byte_0_is_no_text(void **state)
{
    struct rp_names *names;
    (void)state;
    assert_int_equal(rp_names_parse("a\0b emb", 7, "names.txt", &names, NULL), RP_ERR_FORMAT);
}

static void common_names_of_three_tools_are_known(void **state)
{
    static const struct {
        const char *name, *target;
    } cases[] = {{"hidden_states.3", "hidden_states.3"},
                 {"last_hidden_state", "post_norm"},
                 {"model.layers.12", "h12"},
                 {"model.layers.2.self_attn.q_proj", "h2_q"},
                 {"l_out-7", "h7"},
                 {"ffn_inp-7", "h7_postattn"},
                 {"result_output", "logits"},
                 {"h03", "h3"},
                 {"layer_0", "h0"},
                 {"model.layers.2.self_attn", ""},
                 {"layer_0_attn", ""},
                 {"arr_0", ""}};
    struct rp_names *names;
    (void)state;
    assert_int_equal(rp_names_common(&names, NULL), RP_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(target(names, cases[i].name), cases[i].target);
    rp_names_free(names);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_pairs_of_names),
        cmocka_unit_test(a_json_object_is_the_same),
        cmocka_unit_test(a_wrong_rule_is_an_error_with_its_line),
        cmocka_unit_test(a_text_cut_anywhere_is_read_or_an_error),
        cmocka_unit_test(a_byte_0_is_no_text),
        cmocka_unit_test(common_names_of_three_tools_are_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
