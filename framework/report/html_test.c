/* Pages: what a stranger writes stays text, what is not finite is shown, and a large pair fits. That a browser
 * draws them is cases/html_report_test.sh's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "report/chart.h"
#include "report/html.h"
#include "report/html_pair.h"
#include "report/html_text.h"

static char *written(void (*write)(FILE *, const void *), const void *argument)
{
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    write(out, argument);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void write_text(FILE *out, const void *text)
{
    rp_html_text(out, text);
}

static void write_pair(FILE *out, const void *pair)
{
    rp_html_pair(out, pair, "index.html");
}

static void write_chart(FILE *out, const void *chart)
{
    rp_chart_write(out, chart);
}

static void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("not there: %s, in:\n%.2000s", part, text);
}

static void assert_lacks(const char *text, const char *part)
{
    if (strstr(text, part))
        fail_msg("there: %s", part);
}

static void what_a_stranger_writes_stays_text(void **state)
{
    (void)state;
    char *text = written(write_text, "<script>&\"'\x01\xff\xe2\x82\xac\n");
    assert_string_equal(text,
                        "&#60;script&#62;&#38;&#34;&#39;\xEF\xBF\xBD\xEF\xBF\xBD\xE2\x82\xAC\n");
    free(text);
    cJSON *pair = cJSON_Parse(
        "{\"pair\": \"<b>\\\"\", \"verdict\": \"<i>\", \"matrix\": \"/a\\\"><u>\", \"line\": 3, "
        "\"warnings\": "
        "[{\"kind\": \"<k>\", \"message\": \"<m>\"}], \"comparison\": {\"divergence\": {\"slot\": "
        "\"<s>\", "
        "\"position\": 1, \"explanation\": \"<e>\"}, \"slots\": [{\"slot\": \"<q>\"}], "
        "\"by_position\": "
        "{\"columns\": [[1, 1]], \"tokens\": [\"<t>\"], \"slots\": [{\"slot\": \"<h>\", "
        "\"l2_rel\": [1]}]}}, "
        "\"replay\": [{\"slot\": \"<l>\", \"verdict\": \"FAIL\", \"slots\": [{\"slot\": \"<r>\", "
        "\"verdict\": "
        "\"FAIL\", \"introduced\": 1, \"limit\": 1, \"operation\": \"<o>\", \"message\": \"<g>\", "
        "\"explanation\": {\"text\": \"<x>\"}}]}], \"reproduce\": \"<c>\", \"reference\": "
        "\"<f>\"}");
    assert_non_null(pair);
    text = written(write_pair, pair);
    for (const char *letter = "biukmesqthlrogxcf"; *letter; letter++) {
        const char tag[] = {'<', *letter, '>', '\0'}, escaped[] = "&#60;", *at = text;
        assert_lacks(text, tag);
        while ((at = strstr(at, escaped)) != NULL && at[sizeof escaped - 1] != *letter)
            at++;
        if (!at)
            fail_msg("%s is not shown", tag);
    }
    free(text);
    cJSON_Delete(pair);
}

static void a_pair_of_which_nothing_is_known_has_a_page(void **state)
{
    (void)state;
    static const char *const pairs[] = {
        "{}", "{\"comparison\": null, \"replay\": 3}",
        "{\"comparison\": {\"slots\": [], \"by_position\": {}}, \"replay\": [{}]}",
        "{\"comparison\": {\"by_position\": {\"columns\": [[], 1], \"tokens\": [3], \"slots\": "
        "[{\"l2_rel\": "
        "[1, 2, 3, \"nan\", null]}, 7]}}}"};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        cJSON *pair = cJSON_Parse(pairs[i]);
        assert_non_null(pair);
        char *text = written(write_pair, pair);
        assert_has(text, "</html>");
        free(text);
        cJSON_Delete(pair);
    }
}

static void what_is_not_finite_is_drawn_and_said(void **state)
{
    (void)state;
    const char *const labels[] = {"h0", "h1", "h2", "h3"};
    const double values[] = {1e-300, 0, HUGE_VAL, (double)NAN};
    const struct rp_chart chart = {.title = "errors",
                                   .of = "slot",
                                   .labels = labels,
                                   .n = 4,
                                   .series = {{"L2_rel", values, true}},
                                   .n_series = 1,
                                   .limit = 0.05};
    char *text = written(write_chart, &chart);
    assert_has(text, "h2: L2_rel not finite");
    assert_has(text, "aria-label=\"errors");
    assert_has(text, "<th scope=\"row\">h3<td class=\"n\">\n"); /* nothing there */
    assert_lacks(text, "h3: ");
    assert_lacks(text, "nan");
    assert_lacks(text, "inf");
    free(text);
}

/* 40 layers, 1,000 positions in 256 columns, no two neighbours of one colour; operations of a layer, too. */
static void a_pair_of_forty_layers_fits_one_mebibyte(void **state)
{
    (void)state;
    cJSON *pair = cJSON_CreateObject();
    cJSON *by = cJSON_AddObjectToObject(cJSON_AddObjectToObject(pair, "comparison"), "by_position");
    cJSON *columns = cJSON_AddArrayToObject(by, "columns"),
          *tokens = cJSON_AddArrayToObject(by, "tokens"),
          *slots = cJSON_AddArrayToObject(by, "slots");
    for (int c = 0; c < 256; c++) {
        const double ends[] = {4 * c, 4 * c + 3};
        cJSON_AddItemToArray(columns, cJSON_CreateDoubleArray(ends, 2));
        cJSON_AddItemToArray(tokens, cJSON_CreateString("\" token\""));
    }
    for (int l = 0; l < 70; l++) {
        cJSON *slot = cJSON_CreateObject();
        char name[32];
        snprintf(name, sizeof name, l < 43 ? "h%d" : "h3_q%d", l);
        cJSON_AddStringToObject(slot, "slot", name);
        cJSON *errors = cJSON_AddArrayToObject(slot, "l2_rel");
        for (int c = 0; c < 256; c++)
            cJSON_AddItemToArray(errors, cJSON_CreateNumber(c % 2 ? 1.23e-07 : 0.123));
        cJSON_AddItemToArray(slots, slot);
    }
    char *text = written(write_pair, pair);
    assert_has(text, "Positions and layers");
    assert_has(text, "1020-1023");
    assert_true(strlen(text) < 1 << 20);
    free(text);
    cJSON_Delete(pair);
}

static void the_index_has_the_explanation_of_a_pair_that_fails(void **state)
{
    (void)state;
    char folder[256], path[RP_PATH_SIZE], *text = NULL;
    size_t length;
    rp_test_make_folder(folder);
    cJSON *results = cJSON_Parse(
        "{\"pairs\": [{\"pair\": \"e/p0\", \"verdict\": \"FAIL\", \"replay\": [{\"slots\": "
        "[{\"slot\": "
        "\"h0_q\"}, {\"slot\": \"h0_qrope\", \"explanation\": {\"text\": \"RoPE <2>\"}}]}]}]}");
    assert_non_null(results);
    assert_int_equal(rp_report_html(folder, results, NULL), RP_OK);
    assert_int_equal(rp_path_join(path, sizeof path, folder, "index.html", NULL), RP_OK);
    assert_int_equal(rp_file_read(path, 1 << 20, &text, &length, NULL), RP_OK);
    assert_has(text, "<br>replay of <strong>h0_qrope</strong>: RoPE &#60;2&#62;\n");
    free(text);
    cJSON_Delete(results);
    assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_stranger_writes_stays_text),
        cmocka_unit_test(a_pair_of_which_nothing_is_known_has_a_page),
        cmocka_unit_test(what_is_not_finite_is_drawn_and_said),
        cmocka_unit_test(a_pair_of_forty_layers_fits_one_mebibyte),
        cmocka_unit_test(the_index_has_the_explanation_of_a_pair_that_fails),
    };
    return cmocka_run_group_tests_name("report/html", tests, NULL, NULL);
}
