/* Each fault of a tokenizer, by its name; and that no fault is seen where there is none.
 * See diagnose/tokens.h. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "diagnose/tokens.h"

/* Ids of the small vocabulary below. "Ġ" is a space, "Ċ" a newline, "Ã" and "©" the bytes of "é". */
enum {
    BOS,
    EOS,
    HELLO,
    SPACE_WORLD,
    WOR,
    LD,
    SPACE,
    LT,
    END_TEXT,
    E_ACUTE,
    BYTE_C3,
    BYTE_A9,
    A,
    AA
};
enum { IM_END = END_TEXT + 6, N_PIECES };

static const struct rp_piece byte_level[N_PIECES] = {
    [BOS] = {"<s>", 3, RP_PIECE_SPECIAL},
    [EOS] = {"</s>", 4, RP_PIECE_SPECIAL},
    [HELLO] = {"Hello", 5, RP_PIECE_TEXT},
    [SPACE_WORLD] = {"\xC4\xA0world", 7, RP_PIECE_TEXT},
    [WOR] = {"wor", 3, RP_PIECE_TEXT},
    [LD] = {"ld", 2, RP_PIECE_TEXT},
    [SPACE] = {"\xC4\xA0", 2, RP_PIECE_TEXT},
    [LT] = {"<|im", 4, RP_PIECE_TEXT},
    [END_TEXT] = {"_end|>", 6, RP_PIECE_TEXT},
    [E_ACUTE] = {"\xC3\x83\xC2\xA9", 4, RP_PIECE_TEXT},
    [BYTE_C3] = {"\xC3\x83", 2, RP_PIECE_TEXT},
    [BYTE_A9] = {"\xC2\xA9", 2, RP_PIECE_TEXT},
    [A] = {"a", 1, RP_PIECE_TEXT},
    [AA] = {"aa", 2, RP_PIECE_TEXT},
    [IM_END] = {"<|im_end|>", 10, RP_PIECE_SPECIAL},
};

static const struct rp_vocabulary vocabulary = {.pieces = byte_level,
                                                .n = N_PIECES,
                                                .spelling = RP_SPELLING_BYTE_LEVEL,
                                                .bos = BOS,
                                                .eos = EOS};

/* Up to 8 ids, ended by -1. */
#define IDS(...) ((const int64_t[]){__VA_ARGS__, -1})

static size_t count(const int64_t *ids)
{
    size_t n = 0;
    while (ids[n] >= 0)
        n++;
    return n;
}

static void expect(const struct rp_vocabulary *v, const int64_t *reference, const int64_t *engine,
                   enum rp_token_fault fault, const char *message)
{
    struct rp_token_diagnosis d;
    rp_diagnose_tokens(v, reference, count(reference), engine, count(engine), &d);
    assert_string_equal(d.message, message);
    assert_int_equal(d.fault, fault);
}

static void equal_ids_have_no_fault(void **state)
{
    (void)state;
    expect(&vocabulary, IDS(BOS, HELLO), IDS(BOS, HELLO), RP_TOKENS_SAME, "");
    expect(NULL, IDS(7), IDS(7), RP_TOKENS_SAME, "");
    expect(NULL, IDS(-1), IDS(-1), RP_TOKENS_SAME, "");
}

static void a_truncated_prompt_is_named(void **state)
{
    (void)state;
    expect(&vocabulary, IDS(BOS, HELLO, SPACE_WORLD, SPACE_WORLD), IDS(BOS, HELLO),
           RP_TOKENS_TRUNCATED,
           "token ids differ from position 2 on: the reference has id 3 \" world\", the engine no "
           "id (it has 2); counts 4 and 2: the engine's prompt is truncated, 2 ids are missing");
    expect(NULL, IDS(5, 6), IDS(-1), RP_TOKENS_TRUNCATED,
           "token ids differ from position 0 on: the reference has id 5, the engine no id (it has "
           "0); counts 2 and 0: the engine's prompt is truncated, 2 ids are missing");
}

static void a_run_of_one_token_cut_short_is_truncated_and_lacks_no_BOS(void **state)
{
    (void)state;
    struct rp_token_diagnosis d;
    rp_diagnose_tokens(&vocabulary, IDS(A, A, A), 3, IDS(A, A), 2, &d);
    assert_int_equal(d.fault, RP_TOKENS_TRUNCATED);
    rp_diagnose_tokens(NULL, IDS(A, A, A), 3, IDS(A, A), 2, &d);
    assert_int_equal(d.fault, RP_TOKENS_TRUNCATED);
    rp_diagnose_tokens(&vocabulary, IDS(A, A), 2, IDS(A, A, A), 3, &d);
    assert_int_equal(d.fault, RP_TOKENS_LONGER);
}

static void a_missing_and_an_extra_BOS_are_named(void **state)
{
    (void)state;
    expect(&vocabulary, IDS(BOS, HELLO, SPACE_WORLD), IDS(HELLO, SPACE_WORLD),
           RP_TOKENS_BOS_MISSING,
           "token ids differ from position 0 on: the reference has id 0 \"<s>\", the engine id 2 "
           "\"Hello\"; counts 3 and 2: the engine lacks the BOS");
    expect(&vocabulary, IDS(HELLO, SPACE_WORLD), IDS(BOS, HELLO, SPACE_WORLD), RP_TOKENS_BOS_EXTRA,
           "token ids differ from position 0 on: the reference has id 2 \"Hello\", the engine id 0 "
           "\"<s>\"; counts 2 and 3: the engine begins with one id too many, a BOS");
    expect(&vocabulary, IDS(BOS, HELLO), IDS(BOS, BOS, HELLO), RP_TOKENS_BOS_EXTRA,
           "token ids differ from position 1 on: the reference has id 2 \"Hello\", the engine id 0 "
           "\"<s>\"; counts 2 and 3: the engine begins with one id too many, a second BOS");
    expect(NULL, IDS(9, 5, 6), IDS(5, 6), RP_TOKENS_BOS_MISSING,
           "token ids differ from position 0 on: the reference has id 9, the engine id 5; counts 3 "
           "and 2: the engine lacks the first id (a BOS?)");
}

static void two_faults_at_the_ends_are_both_named(void **state)
{
    (void)state;
    expect(
        &vocabulary, IDS(BOS, HELLO, A), IDS(HELLO, A, EOS), RP_TOKENS_BOS_MISSING,
        "token ids differ from position 0 on: the reference has id 0 \"<s>\", the engine id 2 "
        "\"Hello\"; counts 3 and 3: the engine lacks the BOS; the engine adds an EOS at the end");
}

static void an_EOS_at_the_end_is_named(void **state)
{
    (void)state;
    expect(&vocabulary, IDS(BOS, HELLO), IDS(BOS, HELLO, EOS), RP_TOKENS_EOS_EXTRA,
           "token ids differ from position 2 on: the reference has no id (it has 2), the engine id "
           "1 \"</s>\"; counts 2 and 3: the engine adds an EOS at the end");
    expect(&vocabulary, IDS(HELLO, EOS), IDS(HELLO), RP_TOKENS_EOS_MISSING,
           "token ids differ from position 1 on: the reference has id 1 \"</s>\", the engine no id "
           "(it has 1); counts 2 and 1: the engine lacks the EOS at the end");
}

static void another_merge_of_the_same_text_is_named_with_its_pieces(void **state)
{
    (void)state;
    expect(
        &vocabulary, IDS(HELLO, SPACE_WORLD, A), IDS(HELLO, SPACE, WOR, LD, A), RP_TOKENS_MERGE,
        "token ids differ from position 1 on: the reference has id 3 \" world\", the engine id 6 "
        "\" \"; counts 3 and 5: a different merge of the same text: the engine has \" \" \"wor\" "
        "\"ld\", the reference \" world\"");
    struct rp_token_diagnosis d;
    rp_diagnose_tokens(&vocabulary, IDS(AA, A, HELLO), 3, IDS(A, AA, HELLO), 3, &d);
    assert_int_equal(d.fault, RP_TOKENS_MERGE);
}

static void a_character_cut_into_bytes_is_broken_UTF_8(void **state)
{
    (void)state;
    expect(
        &vocabulary, IDS(HELLO, E_ACUTE), IDS(HELLO, BYTE_C3, BYTE_A9), RP_TOKENS_UTF8,
        "token ids differ from position 1 on: the reference has id 9 \"\xC3\xA9\", the engine id "
        "10 \"\\xc3\"; counts 2 and 3: broken UTF-8 pieces: the engine cuts a character into "
        "bytes, \"\\xc3\" \"\\xa9\", the reference has \"\xC3\xA9\"");
    /* the reference's own cut is none of the engine's doing */
    struct rp_token_diagnosis d;
    rp_diagnose_tokens(&vocabulary, IDS(BYTE_C3, BYTE_A9), 2, IDS(E_ACUTE), 1, &d);
    assert_int_equal(d.fault, RP_TOKENS_MERGE);
}

static void a_character_with_wrong_bytes_is_broken_UTF_8(void **state)
{
    (void)state;
    expect(
        &vocabulary, IDS(E_ACUTE, A), IDS(BYTE_C3, A), RP_TOKENS_UTF8,
        "token ids differ from position 0 on: the reference has id 9 \"\xC3\xA9\", the engine id "
        "10 \"\\xc3\"; counts 2 and 2: broken UTF-8: where the reference reads \"\xC3\xA9\", the "
        "engine reads \"\\xc3"
        "a\"");
}

static void a_special_token_spelled_out_and_text_taken_for_one_are_named(void **state)
{
    (void)state;
    expect(
        &vocabulary, IDS(HELLO, IM_END), IDS(HELLO, LT, END_TEXT), RP_TOKENS_SPECIAL_AS_TEXT,
        "token ids differ from position 1 on: the reference has id 14 \"<|im_end|>\", the engine "
        "id 7 \"<|im\"; counts 2 and 3: the engine spells a special token out as text: \"<|im\" "
        "\"_end|>\", the reference has \"<|im_end|>\"");
    expect(&vocabulary, IDS(HELLO, LT, END_TEXT), IDS(HELLO, IM_END), RP_TOKENS_TEXT_AS_SPECIAL,
           "token ids differ from position 1 on: the reference has id 7 \"<|im\", the engine id 14 "
           "\"<|im_end|>\"; counts 3 and 2: the engine takes text for a special token: "
           "\"<|im_end|>\", the reference has \"<|im\" \"_end|>\"");
}

static void a_space_too_few_or_too_many_is_named(void **state)
{
    (void)state;
    expect(
        &vocabulary, IDS(HELLO, SPACE_WORLD), IDS(HELLO, WOR, LD), RP_TOKENS_SPACE_MISSING,
        "token ids differ from position 1 on: the reference has id 3 \" world\", the engine id 4 "
        "\"wor\"; counts 2 and 3: the engine lacks a space before \"wor\"");
    expect(
        &vocabulary, IDS(WOR, LD), IDS(SPACE_WORLD), RP_TOKENS_SPACE_EXTRA,
        "token ids differ from position 0 on: the reference has id 4 \"wor\", the engine id 3 \" "
        "world\"; counts 2 and 1: the engine has a space too many before \"wor\"");
}

static void other_text_is_called_other(void **state)
{
    (void)state;
    expect(&vocabulary, IDS(HELLO, A), IDS(WOR, A), RP_TOKENS_OTHER,
           "token ids differ from position 0 on: the reference has id 2 \"Hello\", the engine id 4 "
           "\"wor\"; counts 2 and 2: the engine reads other text there: \"wor\", the reference "
           "\"Hello\"");
    expect(&vocabulary, IDS(A), IDS(99), RP_TOKENS_OTHER,
           "token ids differ from position 0 on: the reference has id 12 \"a\", the engine id 99 "
           "(the vocabulary has 15); counts 1 and 1: the engine reads other text there: \"\", the "
           "reference \"a\"");
    expect(NULL, IDS(1, 5), IDS(1, 6), RP_TOKENS_OTHER,
           "token ids differ from position 1 on: the reference has id 5, the engine id 6; counts 2 "
           "and 2: no vocabulary is at hand to tell what they stand for");
}

static void sentencepiece_spells_spaces_and_bytes_its_own_way(void **state)
{
    (void)state;
    static const struct rp_piece pieces[] = {
        {"<s>", 3, RP_PIECE_SPECIAL},   {"\xE2\x96\x81world", 8, RP_PIECE_TEXT},
        {"\xC3\xA9", 2, RP_PIECE_TEXT}, {"<0xC3>", 6, RP_PIECE_BYTE},
        {"<0xA9>", 6, RP_PIECE_BYTE},   {"world", 5, RP_PIECE_TEXT}};
    const struct rp_vocabulary spm = {
        .pieces = pieces, .n = 6, .spelling = RP_SPELLING_SENTENCEPIECE, .bos = 0, .eos = -1};
    struct rp_token_diagnosis d;
    rp_diagnose_tokens(&spm, IDS(0, 1, 2), 3, IDS(0, 1, 3, 4), 4, &d);
    assert_int_equal(d.fault, RP_TOKENS_UTF8);
    rp_diagnose_tokens(&spm, IDS(0, 1, 2), 3, IDS(0, 5, 2), 3, &d);
    assert_int_equal(d.fault, RP_TOKENS_SPACE_MISSING);
}

static void every_byte_has_its_character_in_GPT_2s_alphabet(void **state)
{
    (void)state;
    char out[8];
    int seen[256] = {0};
    for (unsigned c = 33; c < 256 + 68; c++) {
        const int is_used = c < 127 || (c >= 161 && c <= 172) || (c >= 174 && c <= 255) || c >= 256;
        char text[3] = {(char)c, 0, 0};
        if (c >= 0x80) {
            text[0] = (char)(0xC0 | c >> 6);
            text[1] = (char)(0x80 | (c & 0x3F));
        }
        const struct rp_piece piece = {text, c >= 0x80 ? 2 : 1, RP_PIECE_TEXT};
        const size_t n = rp_piece_bytes(&vocabulary, &piece, out, sizeof out);
        if (is_used) {
            assert_int_equal(n, 1);
            seen[(unsigned char)out[0]]++;
        }
    }
    for (int byte = 0; byte < 256; byte++)
        assert_int_equal(seen[byte], 1);
    const struct rp_piece space = {"\xC4\xA0", 2, RP_PIECE_TEXT};
    assert_int_equal(rp_piece_bytes(&vocabulary, &space, out, sizeof out), 1);
    assert_int_equal(out[0], ' ');
    assert_int_equal(rp_piece_bytes(&vocabulary, &byte_level[HELLO], out, 4), 5);
}

static void what_is_shown_is_one_printable_line(void **state)
{
    (void)state;
    static const char emoji[] = "\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x9A\x80"; /* with a joiner */
    char out[32];
    assert_string_equal(rp_bytes_shown("a\n\t\"\\\x01\xFF", 7, out, sizeof out),
                        "\"a\\n\\t\\\"\\\\\\x01\\xff\"");
    assert_string_equal(rp_bytes_shown(emoji, sizeof emoji - 1, out, sizeof out),
                        "\"\xF0\x9F\x91\xA9\\u200d\xF0\x9F\x9A\x80\"");
    assert_string_equal(rp_bytes_shown("abcdefghijklmnopqrstuvwxyz", 26, out, 16),
                        "\"abcdefghij\xE2\x80\xA6\"");
    assert_string_equal(rp_bytes_shown("", 0, out, 16), "\"\"");
}

static void long_runs_and_long_pieces_stay_within_bounds(void **state)
{
    (void)state;
    enum { N = 5000 };
    static int64_t many[N], pairs[N / 2];
    static char text[4000];
    for (size_t i = 0; i < N; i++)
        many[i] = A;
    for (size_t i = 0; i < N / 2; i++)
        pairs[i] = AA;
    memset(text, 'x', sizeof text);
    const struct rp_piece long_pieces[] = {{text, sizeof text, RP_PIECE_TEXT},
                                           {text, sizeof text - 1, RP_PIECE_TEXT}};
    const struct rp_vocabulary large = {
        .pieces = long_pieces, .n = 2, .spelling = RP_SPELLING_BYTE_LEVEL, .bos = -1, .eos = -1};
    struct rp_token_diagnosis d;
    rp_diagnose_tokens(&vocabulary, many, N, pairs, N / 2, &d);
    assert_int_equal(d.fault, RP_TOKENS_MERGE);
    rp_diagnose_tokens(&large, IDS(0), 1, IDS(1), 1, &d);
    assert_int_equal(d.fault, RP_TOKENS_OTHER);
    assert_true(strlen(d.message) < sizeof d.message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_ids_have_no_fault),
        cmocka_unit_test(a_truncated_prompt_is_named),
        cmocka_unit_test(a_run_of_one_token_cut_short_is_truncated_and_lacks_no_BOS),
        cmocka_unit_test(a_missing_and_an_extra_BOS_are_named),
        cmocka_unit_test(two_faults_at_the_ends_are_both_named),
        cmocka_unit_test(an_EOS_at_the_end_is_named),
        cmocka_unit_test(another_merge_of_the_same_text_is_named_with_its_pieces),
        cmocka_unit_test(a_character_cut_into_bytes_is_broken_UTF_8),
        cmocka_unit_test(a_character_with_wrong_bytes_is_broken_UTF_8),
        cmocka_unit_test(a_special_token_spelled_out_and_text_taken_for_one_are_named),
        cmocka_unit_test(a_space_too_few_or_too_many_is_named),
        cmocka_unit_test(other_text_is_called_other),
        cmocka_unit_test(sentencepiece_spells_spaces_and_bytes_its_own_way),
        cmocka_unit_test(every_byte_has_its_character_in_GPT_2s_alphabet),
        cmocka_unit_test(what_is_shown_is_one_printable_line),
        cmocka_unit_test(long_runs_and_long_pieces_stay_within_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
