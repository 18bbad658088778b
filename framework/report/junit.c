/* See junit.h. */
#include "report/junit.h"

#include <string.h>

#include "base/json.h"
#include "base/utf8.h"
#include "refparity/tensor_set.h"
#include "report/results.h"

static const char *text_of(const cJSON *object, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsString(value) ? value->valuestring : "";
}

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
    counts->skipped += strcmp(verdict, "SKIP") == 0;
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
        write_escaped(out, text_of(slot, "slot"));
        fputs(": ", out);
        write_escaped(out, text_of(explanation, "text"));
        has_any = true;
    }
    return has_any;
}

/* One testcase. file:line is the entry's place in the matrix. */
static void write_case(FILE *out, const cJSON *pair, const char *name, const cJSON *judged,
                       double time)
{
    const char *verdict = text_of(judged, "verdict"), *message = text_of(judged, "message");
    fputs("    <testcase", out);
    write_attribute(out, "classname", text_of(pair, "pair"));
    write_attribute(out, "name", name);
    write_time(out, time);
    const int failed = strcmp(verdict, "FAIL") == 0, skipped = strcmp(verdict, "SKIP") == 0;
    if (strcmp(verdict, "MARGINAL") == 0) { /* passes, and is shown */
        fputs(">\n      <system-out>MARGINAL: ", out);
        write_escaped(out, message);
        fputs("</system-out>\n    </testcase>\n", out);
        return;
    }
    if (!failed && !skipped && strcmp(verdict, "ERROR") != 0) {
        fputs("/>\n", out);
        return;
    }
    const char *element = failed ? "failure" : skipped ? "skipped" : "error";
    fprintf(out, ">\n      <%s", element);
    write_attribute(out, "type", failed ? "divergence" : skipped ? "skip" : "error");
    write_attribute(out, "message", message);
    fputc('>', out);
    write_escaped(out, text_of(pair, "matrix"));
    fprintf(out, ":%d: %s: ", line_of(pair), skipped ? "note" : "error");
    write_escaped(out, name);
    fputs(": ", out);
    write_escaped(out, message);
    const char *downstream = text_of(judged, "downstream_of");
    if (downstream[0])
        fprintf(out, "&#10;downstream of %s", downstream);
    const cJSON *divergence = cJSON_GetObjectItemCaseSensitive(
        cJSON_GetObjectItemCaseSensitive(pair, "comparison"), "divergence");
    if (!write_explanations(out, judged) && failed && !downstream[0] &&
        cJSON_IsObject(divergence)) {
        fputs("&#10;", out);
        write_escaped(out, text_of(divergence, "explanation"));
    }
    if (!skipped) {
        fputs("&#10;", out);
        write_escaped(out, text_of(pair, "reproduce"));
    }
    fprintf(out, "</%s>\n    </testcase>\n", element);
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
        count(&counts, text_of(engine, "verdict"));
    count(&counts, text_of(cJSON_GetObjectItemCaseSensitive(comparison, "tokens"), "verdict"));
    cJSON_ArrayForEach(slot, cJSON_GetObjectItemCaseSensitive(comparison, "slots"))
    {
        if (is_required(slot))
            count(&counts, text_of(slot, "verdict"));
    }
    cJSON_ArrayForEach(slot, cJSON_GetObjectItemCaseSensitive(pair, "replay"))
    {
        count(&counts, text_of(slot, "verdict"));
    }
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

static void write_pair(FILE *out, const cJSON *pair)
{
    const struct counts counts = count_pair(pair);
    long long n_layers = 1; /* a broken result.json must not break the others' report */
    (void)rp_json_int(cJSON_GetObjectItemCaseSensitive(pair, "n_layers"), 1, 100000, &n_layers);
    const cJSON *comparison = cJSON_GetObjectItemCaseSensitive(pair, "comparison"), *slot;
    const cJSON *slots = cJSON_GetObjectItemCaseSensitive(comparison, "slots");
    const cJSON *engine = cJSON_GetObjectItemCaseSensitive(pair, "engine_test");
    char name[RP_SLOT_NAME_SIZE], line[32];
    fputs("  <testsuite", out);
    write_attribute(out, "name", text_of(pair, "pair"));
    write_counts(out, &counts, 1);
    write_attribute(out, "timestamp", text_of(pair, "timestamp"));
    write_attribute(out, "file", text_of(pair, "matrix"));
    fputs(">\n    <properties>\n", out);
    snprintf(line, sizeof line, "%d", line_of(pair));
    write_property(out, "hf_model", text_of(pair, "hf_model"));
    write_property(out, "engine", text_of(pair, "engine"));
    write_property(out, "line", line);
    cJSON_ArrayForEach(slot, slots)
    {
        if (is_required(slot))
            write_metrics(out, slot, rp_slot_test_name(text_of(slot, "slot"), (int)n_layers, name));
    }
    fputs("    </properties>\n", out);
    if (engine)
        write_case(out, pair, "engine", engine,
                   number_of(pair, "engine_s") + number_of(engine, "compare_s"));
    const cJSON *tokens = cJSON_GetObjectItemCaseSensitive(comparison, "tokens");
    write_case(out, pair, "tokens", tokens, number_of(tokens, "compare_s"));
    cJSON_ArrayForEach(slot, slots)
    {
        if (is_required(slot))
            write_case(out, pair, rp_slot_test_name(text_of(slot, "slot"), (int)n_layers, name),
                       slot, number_of(slot, "compare_s"));
    }
    cJSON_ArrayForEach(slot, cJSON_GetObjectItemCaseSensitive(pair, "replay"))
    {
        char test[RP_SLOT_NAME_SIZE + 8];
        snprintf(test, sizeof test, "replay/%s",
                 rp_slot_test_name(text_of(slot, "slot"), (int)n_layers, name));
        write_case(out, pair, test, slot, number_of(slot, "replay_s"));
    }
    fputs("  </testsuite>\n", out);
}

void rp_report_junit(FILE *out, const cJSON *results)
{
    const cJSON *pairs = cJSON_GetObjectItemCaseSensitive(results, "pairs"), *pair;
    struct counts total = {0};
    cJSON_ArrayForEach(pair, pairs)
    {
        const struct counts counts = count_pair(pair);
        total.tests += counts.tests;
        total.failures += counts.failures;
        total.errors += counts.errors;
        total.time += counts.time;
    }
    fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"refparity\"", out);
    write_counts(out, &total, 0);
    fputs(">\n", out);
    cJSON_ArrayForEach(pair, pairs)
    {
        write_pair(out, pair);
    }
    fputs("</testsuites>\n", out);
}
