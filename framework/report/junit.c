/* See junit.h. */
#include "report/junit.h"

#include <string.h>

#include "base/json.h"
#include "base/utf8.h"
#include "refparity/tensor_set.h"
#include "report/known.h"
#include "report/test_name.h"

static double number_of(const cJSON *object, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(value) ? value->valuedouble : 0;
}

/* As character data or attribute value. What XML 1.0 cannot hold (control characters, bytes that
 * are not UTF-8) becomes '?': messages quote what a stranger's engine printed. */
static void write_escaped(FILE *out, const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t left = strlen(text);
    while (left > 0) {
        const size_t n = rp_utf8_sequence(s, left);
        if (n == 1 && *s == '&')
            fputs("&amp;", out);
        else if (n == 1 && *s == '<')
            fputs("&lt;", out);
        else if (n == 1 && *s == '>')
            fputs("&gt;", out);
        else if (n == 1 && *s == '"')
            fputs("&quot;", out);
        else if (n == 1 && *s == '\n')
            fputs("&#10;", out);
        else if (n == 0 || (n == 1 && *s < 32 && *s != '\t') ||
                 (n == 3 && s[0] == 0xEF && s[1] == 0xBF && s[2] >= 0xBE))
            fputc('?', out);
        else
            fwrite(s, 1, n, out);
        const size_t step = n > 0 ? n : 1;
        if (step >= left)
            break;
        s += step;
        left -= step;
    }
}

static void write_attribute(FILE *out, const char *name, const char *value)
{
    fprintf(out, " %s=\"", name);
    write_escaped(out, value);
    fputc('"', out);
}

static void write_property(FILE *out, const char *name, const char *value)
{
    fputs("      <property", out);
    write_attribute(out, "name", name);
    write_attribute(out, "value", value);
    fputs("/>\n", out);
}

/* SUREFIRE_TIME allows no exponent and at most groups of three digits before the point. */
static void write_time(FILE *out, double seconds)
{
    fprintf(out, " time=\"%.3f\"", seconds > 0 ? seconds : 0);
}

struct counts {
    int tests, failures, errors, skipped;
    double time;
};

static void count(struct counts *counts, const char *verdict)
{
    counts->tests++;
    counts->failures += strcmp(verdict, "FAIL") == 0;
    counts->errors += strcmp(verdict, "ERROR") == 0;
    counts->skipped += strcmp(verdict, "SKIP") == 0 || strcmp(verdict, "XFAIL") == 0;
}

static int line_of(const cJSON *pair)
{
    long long line = 0;
    (void)rp_json_int(cJSON_GetObjectItemCaseSensitive(pair, "line"), 1, INT32_MAX, &line);
    return (int)line;
}

/* Of each operation that fails in a replay test, on a line of its own; false: there is none. */
static bool write_explanations(FILE *out, const cJSON *judged)
{
    const cJSON *slot;
    bool has_any = false;
    cJSON_ArrayForEach(slot, cJSON_GetObjectItemCaseSensitive(judged, "slots"))
    {
        const cJSON *explanation = cJSON_GetObjectItemCaseSensitive(slot, "explanation");
        if (!cJSON_IsObject(explanation))
            continue;
        fputs("&#10;", out);
        write_escaped(out, rp_json_text(slot, "slot"));
        fputs(": ", out);
        write_escaped(out, rp_json_text(explanation, "text"));
        has_any = true;
    }
    return has_any;
}

/* Where an error begins, beside the first slot over its limit. */
static void write_origin(FILE *out, const cJSON *pair)
{
    const cJSON *comparison = cJSON_GetObjectItemCaseSensitive(pair, "comparison");
    const cJSON *divergence = cJSON_GetObjectItemCaseSensitive(comparison, "divergence");
    const cJSON *departure = cJSON_GetObjectItemCaseSensitive(comparison, "departure");
    if (cJSON_IsObject(divergence)) {
        fputs("&#10;", out);
        write_escaped(out, rp_json_text(divergence, "explanation"));
    }
    if (cJSON_IsObject(departure)) {
        fputs("&#10;departure: ", out);
        write_escaped(out, rp_json_text(departure, "slot"));
        fprintf(out, " at position %.0f: ", number_of(departure, "position"));
        write_escaped(out, rp_json_text(departure, "explanation"));
    }
}

/* A pair's name, else an entry's. */
static const char *name_of(const cJSON *owner)
{
    return rp_json_text(owner, rp_json_text(owner, "pair")[0] ? "pair" : "entry");
}

/* What is no pass. file:line is the entry's place in the matrix. */
static void write_problem(FILE *out, const cJSON *owner, const char *name, const cJSON *judged)
{
    const char *verdict = rp_json_text(judged, "verdict"),
               *message = rp_json_text(judged, "message");
    const bool failed = strcmp(verdict, "FAIL") == 0, known = strcmp(verdict, "XFAIL") == 0;
    const bool skipped = known || strcmp(verdict, "SKIP") == 0;
    const char *element = failed ? "failure" : skipped ? "skipped" : "error";
    fprintf(out, "      <%s", element);
    write_attribute(out, "type",
                    failed    ? "divergence"
                    : known   ? "xfail"
                    : skipped ? "skip"
                              : "error");
    write_attribute(out, "message", message);
    fputc('>', out);
    write_escaped(out, rp_json_text(owner, "matrix"));
    fprintf(out, ":%d: %s: ", line_of(owner), skipped ? "note" : "error");
    write_escaped(out, name);
    fputs(": ", out);
    write_escaped(out, message);
    const char *downstream = rp_json_text(judged, "downstream_of");
    if (downstream[0])
        fprintf(out, "&#10;downstream of %s", downstream);
    if (!write_explanations(out, judged) && failed && !downstream[0])
        write_origin(out, owner);
    if (!skipped) {
        fputs("&#10;", out);
        write_escaped(out, rp_json_text(owner, "reproduce"));
    }
    fprintf(out, "</%s>\n", element);
}

/* A pass that is to be seen: one that is MARGINAL, and the owner's warnings of slot; NULL: of none. Returns
 * how many lines there are; out may be NULL. */
static int write_output(FILE *out, const cJSON *owner, const cJSON *judged, const char *slot)
{
    const cJSON *warning;
    int n = 0;
    if (strcmp(rp_json_text(judged, "verdict"), "MARGINAL") == 0 && n++ == 0 && out) {
        fputs("MARGINAL: ", out);
        write_escaped(out, rp_json_text(judged, "message"));
    }
    cJSON_ArrayForEach(warning, cJSON_GetObjectItemCaseSensitive(owner, "warnings"))
    {
        if (!slot || strcmp(rp_json_text(warning, "slot"), slot) != 0)
            continue;
        if (out) {
            fputs(n > 0 ? "&#10;warning: " : "warning: ", out);
            write_escaped(out, rp_json_text(warning, "kind"));
            fputs(": ", out);
            write_escaped(out, rp_json_text(warning, "message"));
        }
        n++;
    }
    return n;
}

/* One testcase. slot: whose warnings stand in it; NULL: none. */
static void write_case(FILE *out, const cJSON *owner, const char *name, const cJSON *judged,
                       const char *slot, double time)
{
    const char *verdict = rp_json_text(judged, "verdict");
    const bool passed = strcmp(verdict, "PASS") == 0 || strcmp(verdict, "MARGINAL") == 0;
    fputs("    <testcase", out);
    write_attribute(out, "classname", name_of(owner));
    write_attribute(out, "name", name);
    write_time(out, time);
    if (passed && write_output(NULL, owner, judged, slot) == 0) {
        fputs("/>\n", out);
        return;
    }
    fputs(">\n", out);
    if (!passed)
        write_problem(out, owner, name, judged);
    if (write_output(NULL, owner, judged, slot) > 0) {
        fputs("      <system-out>", out);
        (void)write_output(out, owner, judged, slot);
        fputs("</system-out>\n", out);
    }
    fputs("    </testcase>\n", out);
}

/* Of a required slot: all others' are in results.json, thousands of them. */
static void write_metrics(FILE *out, const cJSON *slot, const char *name)
{
    const cJSON *worst = cJSON_GetObjectItemCaseSensitive(slot, "worst");
    if (!cJSON_IsObject(worst))
        return;
    const struct {
        const char *key, *label;
    } metrics[] = {{"l2_rel", "L2_rel"},
                   {"cosine", "cosine"},
                   {"max_abs", "max_abs"},
                   {"position", "worst_position"}};
    for (size_t i = 0; i < sizeof metrics / sizeof metrics[0]; i++) {
        char label[RP_SLOT_NAME_SIZE + 32], value[32];
        const cJSON *number = cJSON_GetObjectItemCaseSensitive(worst, metrics[i].key);
        snprintf(label, sizeof label, "%s.%s", name, metrics[i].label);
        if (cJSON_IsNumber(number))
            snprintf(value, sizeof value, "%.9g", number->valuedouble);
        write_property(out, label, cJSON_IsNumber(number) ? value : "nan");
    }
}

/* What is known of the pair's engine: each a property, "known.h*_attn". */
static void write_known(FILE *out, const cJSON *pair)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(pair, "known"))
    {
        char name[128], value[1024];
        snprintf(name, sizeof name, "known.%.64s", rp_json_text(item, "slot"));
        snprintf(value, sizeof value, "%s: %.600s %.300s", rp_json_text(item, "state"),
                 rp_json_text(item, "reason"), rp_json_text(item, "issue"));
        write_property(out, name, value);
    }
}

/* Has any of the pair's known divergences been judged? */
static bool has_report_test(const cJSON *pair)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(pair, "known"))
    {
        if (strcmp(rp_json_text(item, "state"), rp_known_state_name(RP_KNOWN_NOT_JUDGED)) != 0)
            return true;
    }
    return false;
}

/* The verdict of a pair's test `report`, where known divergences were judged: as an object that write_case
 * takes; the caller's. */
static cJSON *report_test(const cJSON *pair)
{
    const cJSON *mended = rp_report_next_mended(pair, NULL);
    cJSON *test = cJSON_CreateObject();
    cJSON_AddStringToObject(test, "verdict", mended ? "FAIL" : "PASS");
    cJSON_AddStringToObject(test, "message", rp_json_text(mended, "message"));
    cJSON_AddStringToObject(test, "downstream_of", "");
    return test;
}

static int is_required(const cJSON *slot)
{
    return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(slot, "required"));
}

static struct counts count_pair(const cJSON *pair)
{
    struct counts counts = {.time = number_of(pair, "engine_s") + number_of(pair, "compare_s")};
    const cJSON *comparison = cJSON_GetObjectItemCaseSensitive(pair, "comparison"), *slot;
    const cJSON *engine = cJSON_GetObjectItemCaseSensitive(pair, "engine_test");
    if (engine) /* two modes that are compared with each other have theirs elsewhere */
        count(&counts, rp_json_text(engine, "verdict"));
    count(&counts, rp_json_text(cJSON_GetObjectItemCaseSensitive(comparison, "tokens"), "verdict"));
    cJSON_ArrayForEach(slot, cJSON_GetObjectItemCaseSensitive(comparison, "slots"))
    {
        if (is_required(slot))
            count(&counts, rp_json_text(slot, "verdict"));
    }
    cJSON_ArrayForEach(slot, cJSON_GetObjectItemCaseSensitive(pair, "replay"))
    {
        count(&counts, rp_json_text(slot, "verdict"));
    }
    if (has_report_test(pair))
        count(&counts, rp_report_next_mended(pair, NULL) ? "FAIL" : "PASS");
    return counts;
}

static void write_counts(FILE *out, const struct counts *counts, int with_skipped)
{
    fprintf(out, " tests=\"%d\" failures=\"%d\" errors=\"%d\"", counts->tests, counts->failures,
            counts->errors);
    if (with_skipped)
        fprintf(out, " skipped=\"%d\"", counts->skipped);
    write_time(out, counts->time);
}

/* Its opening tag, and the properties that pairs and entries share. */
static void write_suite(FILE *out, const cJSON *owner, const struct counts *counts)
{
    char line[32];
    fputs("  <testsuite", out);
    write_attribute(out, "name", name_of(owner));
    write_counts(out, counts, 1);
    if (rp_json_text(owner, "timestamp")[0])
        write_attribute(out, "timestamp", rp_json_text(owner, "timestamp"));
    write_attribute(out, "file", rp_json_text(owner, "matrix"));
    fputs(">\n    <properties>\n", out);
    snprintf(line, sizeof line, "%d", line_of(owner));
    write_property(out, "hf_model", rp_json_text(owner, "hf_model"));
    write_property(out, "engine", rp_json_text(owner, "engine"));
    if (rp_json_text(owner, "reference")[0])
        write_property(out, "reference", rp_json_text(owner, "reference"));
    write_property(out, "line", line);
}

static struct counts count_entry(const cJSON *entry)
{
    const cJSON *weights = cJSON_GetObjectItemCaseSensitive(entry, "weights");
    const cJSON *disabled = cJSON_GetObjectItemCaseSensitive(entry, "disabled");
    struct counts counts = {.time = number_of(weights, "compare_s")};
    if (weights)
        count(&counts, rp_json_text(weights, "verdict"));
    if (disabled)
        count(&counts, rp_json_text(disabled, "verdict"));
    return counts;
}

/* Its test <entry>/weights, and that it is _disabled. */
static void write_entry(FILE *out, const cJSON *entry)
{
    const struct counts counts = count_entry(entry);
    const cJSON *weights = cJSON_GetObjectItemCaseSensitive(entry, "weights");
    const cJSON *disabled = cJSON_GetObjectItemCaseSensitive(entry, "disabled");
    write_suite(out, entry, &counts);
    fputs("    </properties>\n", out);
    if (weights)
        write_case(out, entry, "weights", weights, NULL, number_of(weights, "compare_s"));
    if (disabled)
        write_case(out, entry, "disabled", disabled, "", 0);
    fputs("  </testsuite>\n", out);
}

static void write_pair(FILE *out, const cJSON *pair)
{
    const struct counts counts = count_pair(pair);
    long long n_layers = 1; /* a broken result.json must not break the others' report */
    (void)rp_json_int(cJSON_GetObjectItemCaseSensitive(pair, "n_layers"), 1, 100000, &n_layers);
    const cJSON *comparison = cJSON_GetObjectItemCaseSensitive(pair, "comparison"), *slot;
    const cJSON *slots = cJSON_GetObjectItemCaseSensitive(comparison, "slots");
    const cJSON *engine = cJSON_GetObjectItemCaseSensitive(pair, "engine_test");
    char name[RP_SLOT_NAME_SIZE];
    write_suite(out, pair, &counts);
    cJSON_ArrayForEach(slot, slots)
    {
        if (is_required(slot))
            write_metrics(out, slot,
                          rp_slot_test_name(rp_json_text(slot, "slot"), (int)n_layers, name));
    }
    write_known(out, pair);
    fputs("    </properties>\n", out);
    if (engine)
        write_case(out, pair, "engine", engine, NULL,
                   number_of(pair, "engine_s") + number_of(engine, "compare_s"));
    const cJSON *tokens = cJSON_GetObjectItemCaseSensitive(comparison, "tokens");
    write_case(out, pair, "tokens", tokens, NULL, number_of(tokens, "compare_s"));
    cJSON_ArrayForEach(slot, slots)
    {
        if (is_required(slot))
            write_case(out, pair,
                       rp_slot_test_name(rp_json_text(slot, "slot"), (int)n_layers, name), slot,
                       rp_json_text(slot, "slot"), number_of(slot, "compare_s"));
    }
    cJSON_ArrayForEach(slot, cJSON_GetObjectItemCaseSensitive(pair, "replay"))
    {
        char test[RP_SLOT_NAME_SIZE + 8];
        snprintf(test, sizeof test, "replay/%s",
                 rp_slot_test_name(rp_json_text(slot, "slot"), (int)n_layers, name));
        write_case(out, pair, test, slot, NULL, number_of(slot, "replay_s"));
    }
    if (has_report_test(pair)) {
        cJSON *report = report_test(pair);
        write_case(out, pair, "report", report, NULL, 0);
        cJSON_Delete(report);
    }
    fputs("  </testsuite>\n", out);
}

static void add_counts(struct counts *total, struct counts counts)
{
    total->tests += counts.tests;
    total->failures += counts.failures;
    total->errors += counts.errors;
    total->time += counts.time;
}

void rp_report_junit(FILE *out, const cJSON *results)
{
    const cJSON *pairs = cJSON_GetObjectItemCaseSensitive(results, "pairs"), *pair;
    const cJSON *entries = cJSON_GetObjectItemCaseSensitive(results, "entries"), *entry;
    struct counts total = {0};
    cJSON_ArrayForEach(pair, pairs)
    {
        add_counts(&total, count_pair(pair));
    }
    cJSON_ArrayForEach(entry, entries)
    {
        add_counts(&total, count_entry(entry));
    }
    fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"refparity\"", out);
    write_counts(out, &total, 0);
    fputs(">\n", out);
    cJSON_ArrayForEach(pair, pairs)
    {
        write_pair(out, pair);
    }
    cJSON_ArrayForEach(entry, entries)
    {
        write_entry(out, entry);
    }
    fputs("</testsuites>\n", out);
}
