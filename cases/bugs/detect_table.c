/* See detect_table.h. */
#include "detect_table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "refparity/compare.h"
#include "refparity/tensor_set.h"

#define N_FIELDS 18
#define N_LEVELS (RP_SLOTS_OPERATIONS + 1)

/* A bug that changes more than three times the limit has to be found; one nearer to it may come to lie
 * below, where the error that it adds to points the other way. */
#define CLEAR_RATIO 3.0

/* What is to be reached, as shares: of the bugs above three limits, of those above the limit, and of
 * what was named. */
struct goals {
    double detected, layers, operation, name, wrong_name;
};
static const struct goals goals_of[N_LEVELS] = {
    [RP_SLOTS_OPERATIONS] = {1.0, 0.99, 0.99, 0.97, 0.005},
    /* a name there is a guess among all operations before the slot */
    [RP_SLOTS_LAYERS] = {1.0, 0.99, 0.99, 0, 0.03},
};

enum field {
    GROUND,
    SLOTS,
    WEIGHTS,
    ARCH,
    KIND,
    MAGNITUDE,
    LAYER,
    MODE,
    ABOVE,
    DETECTED,
    LAYERS_RIGHT,
    OPERATION_RIGHT,
    POSITION_RIGHT,
    NAME_GIVEN,
    NAME_RIGHT,
    RATIO,
    POS0_RULE,
    RULE_5PCT
};

/* What is counted of a group of trials. Of bugs, all but n and below are about those above the limit. */
struct counts {
    char group[64], name[64];
    size_t n, n_above, n_below_reported;
    size_t n_clear, n_clear_detected; /* above CLEAR_RATIO times the limit */
    size_t n_detected, n_layers, n_operation, n_position;
    size_t n_nameable, n_named, n_wrong, n_unexplained;
    size_t n_pos0, n_pos0_tried, n_5pct, n_5pct_tried;
    double largest;  /* of clean ones: error over the limit */
    double smallest; /* detected change over the limit */
};

/* Of the dumps of one level. */
struct table {
    struct counts *groups; /* [n_groups] */
    size_t n_groups;
    struct counts bugs, clean;
};

static bool is_yes(const char *text)
{
    return strcmp(text, "1") == 0;
}

static void count_answer(const char *text, size_t *n, size_t *n_tried)
{
    *n_tried += text[0] != '\0';
    *n += is_yes(text);
}

/* A trial without a ratio is one of the prompt, whose tokens differ or do not. */
static bool is_clear(char *const fields[N_FIELDS])
{
    return !fields[RATIO][0] || !(strtod(fields[RATIO], NULL) <= CLEAR_RATIO);
}

static void count(struct counts *counts, char *const fields[N_FIELDS], bool is_clean)
{
    counts->n++;
    if (!is_clean && !is_yes(fields[ABOVE])) {
        counts->n_below_reported += is_yes(fields[DETECTED]);
        return;
    }
    counts->n_above++;
    counts->n_detected += is_yes(fields[DETECTED]);
    counts->n_clear += is_clear(fields);
    counts->n_clear_detected += is_clear(fields) && is_yes(fields[DETECTED]);
    counts->n_layers += is_yes(fields[LAYERS_RIGHT]);
    counts->n_operation += is_yes(fields[OPERATION_RIGHT]);
    counts->n_position += is_yes(fields[POSITION_RIGHT]);
    if (fields[NAME_RIGHT][0] || !is_yes(fields[DETECTED])) {
        bool is_wrong = strcmp(fields[NAME_RIGHT], "0") == 0;
        bool is_unexplained = strcmp(fields[NAME_GIVEN], "unexplained") == 0;
        counts->n_nameable++;
        counts->n_named += is_yes(fields[NAME_RIGHT]);
        counts->n_wrong += is_wrong && !is_unexplained;
        counts->n_unexplained += is_wrong && is_unexplained;
    }
    count_answer(fields[POS0_RULE], &counts->n_pos0, &counts->n_pos0_tried);
    count_answer(fields[RULE_5PCT], &counts->n_5pct, &counts->n_5pct_tried);
    if (is_clean && fields[RATIO][0])
        counts->largest = fmax(counts->largest, strtod(fields[RATIO], NULL));
    if (is_yes(fields[DETECTED]) && fields[RATIO][0]) {
        double ratio = strtod(fields[RATIO], NULL);
        if (!(ratio >= counts->smallest))
            counts->smallest = ratio;
    }
}

static struct counts *group_of(struct table *table, const char *group, const char *name)
{
    struct counts *grown;
    for (size_t i = 0; i < table->n_groups; i++) {
        if (strcmp(table->groups[i].group, group) == 0 && strcmp(table->groups[i].name, name) == 0)
            return &table->groups[i];
    }
    grown = realloc(table->groups, (table->n_groups + 1) * sizeof *grown);
    if (!grown)
        return NULL;
    table->groups = grown;
    /* The caller's table has it, and frees it. NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
    struct counts *added = &table->groups[table->n_groups++];
    *added = (struct counts){.smallest = (double)INFINITY};
    snprintf(added->group, sizeof added->group, "%s", group);
    snprintf(added->name, sizeof added->name, "%s", name);
    return added;
}

/* Trials of two bugs are one kind. */
static const char *kind_of(const char *kind)
{
    return strchr(kind, '+') ? "two bugs at once" : kind;
}

static const char *place_of(const char *mode)
{
    return strstr(mode, "@p") ? "one position" : strstr(mode, "@h") ? "one head" : "everywhere";
}

static bool count_in(struct table *table, const char *group, const char *name,
                     char *const fields[N_FIELDS], bool is_clean)
{
    struct counts *counts = group_of(table, group, name);
    if (counts)
        count(counts, fields, is_clean);
    return counts != NULL;
}

static bool add_line(struct table *table, char *const fields[N_FIELDS])
{
    bool is_clean = strncmp(fields[KIND], "clean:", 6) == 0, is_batched = fields[MODE][0] == 'b';
    char ground[64];
    snprintf(ground, sizeof ground, "%.20s %.20s", fields[GROUND], fields[WEIGHTS]);
    if (is_clean) {
        count(&table->clean, fields, true);
        return count_in(table, "clean", fields[KIND] + 6, fields, true) &&
               count_in(table, "clean weights", ground, fields, true);
    }
    count(&table->bugs, fields, false);
    return count_in(table, "kind", kind_of(fields[KIND]), fields, false) &&
           count_in(table, "weights", ground, fields, false) &&
           count_in(table, "arch", fields[ARCH], fields, false) &&
           count_in(table, "mode", is_batched ? "batched" : "per-token", fields, false) &&
           count_in(table, "place", place_of(fields[MODE]), fields, false);
}

/* Splits the line in place. How many fields it has. */
static size_t split(char *line, char *fields[N_FIELDS])
{
    static char none[1];
    size_t n = 0;
    line[strcspn(line, "\r\n")] = '\0';
    for (char *at = line; n < N_FIELDS; at++) {
        fields[n++] = at;
        at += strcspn(at, ",");
        if (!*at)
            break;
        *at = '\0';
        if (n == N_FIELDS)
            return N_FIELDS + 1;
    }
    for (size_t i = n; i < N_FIELDS; i++)
        fields[i] = none;
    return n;
}

static bool read_file(struct table tables[N_LEVELS], const char *path)
{
    char line[2048];
    char *fields[N_FIELDS];
    FILE *file = fopen(path, "r");
    size_t number = 0;
    enum rp_slot_level level;
    bool is_good = file != NULL;
    if (!file)
        perror(path);
    while (is_good && fgets(line, sizeof line, file)) {
        size_t n = split(line, fields);
        number++;
        if (strcmp(fields[0], "ground") == 0 || (n == 1 && !fields[0][0]))
            continue;
        if (n != N_FIELDS) {
            fprintf(stderr, "%s:%zu: error: %zu fields, expected %d\n", path, number, n, N_FIELDS);
            is_good = false;
        } else if (rp_slot_level_parse(fields[SLOTS], &level, NULL) != RP_OK) {
            fprintf(stderr, "%s:%zu: error: no level of slots '%s'\n", path, number, fields[SLOTS]);
            is_good = false;
        } else {
            is_good = add_line(&tables[level], fields);
        }
    }
    if (file)
        fclose(file);
    return is_good;
}

/* ---- printing ---- */

/* "123 (97.6%)", in 14 columns. */
static void print_share(size_t n, size_t of)
{
    char text[64];
    if (of == 0)
        snprintf(text, sizeof text, "-");
    else
        snprintf(text, sizeof text, "%zu (%.1f%%)", n, 100.0 * (double)n / (double)of);
    printf(" %14s", text);
}

static void print_head(const char *what)
{
    printf("\n%-28s %6s %6s %14s %14s %14s %14s %14s %14s %14s %9s %14s %14s\n", what, "trials",
           "above", "detected", "layers", "operation", "position", "name", "wrong name",
           "unexplained", "smallest", "5%", "5% at 0");
}

static void print_counts(const struct counts *c, const char *name)
{
    printf("%-28s %6zu %6zu", name, c->n, c->n_above);
    print_share(c->n_detected, c->n_above);
    print_share(c->n_layers, c->n_above);
    print_share(c->n_operation, c->n_above);
    print_share(c->n_position, c->n_above);
    print_share(c->n_named, c->n_nameable);
    print_share(c->n_wrong, c->n_nameable);
    print_share(c->n_unexplained, c->n_nameable);
    if (isfinite(c->smallest))
        printf(" %9.3g", c->smallest);
    else
        printf(" %9s", "-");
    print_share(c->n_5pct, c->n_5pct_tried);
    print_share(c->n_pos0, c->n_pos0_tried);
    putchar('\n');
}

static void print_groups(const struct table *table, const char *group, const char *title)
{
    print_head(title);
    for (size_t i = 0; i < table->n_groups; i++) {
        if (strcmp(table->groups[i].group, group) == 0)
            print_counts(&table->groups[i], table->groups[i].name);
    }
}

static void print_clean(const struct table *table, const char *group, const char *title)
{
    printf("\n%-28s %6s %14s %14s %14s %14s\n", title, "trials", "false alarms", "worst / limit",
           "5%", "5% at 0");
    for (size_t i = 0; i < table->n_groups; i++) {
        const struct counts *c = &table->groups[i];
        if (strcmp(c->group, group) != 0)
            continue;
        printf("%-28s %6zu", c->name, c->n);
        print_share(c->n_detected, c->n);
        printf(" %14.2f", c->largest);
        print_share(c->n_5pct, c->n_5pct_tried);
        print_share(c->n_pos0, c->n_pos0_tried);
        putchar('\n');
    }
}

static void print_text(const struct table *table, enum rp_slot_level level)
{
    printf(level == RP_SLOTS_OPERATIONS ? "\n==== Dumps of all operations\n"
                                        : "\n==== The same trials, dumps of the layers: operation "
                                          "is the first slot that shows it\n");
    print_groups(table, "kind", "kind");
    print_groups(table, "weights", "ground and weights");
    print_groups(table, "arch", "architecture");
    print_groups(table, "mode", "mode");
    print_groups(table, "place", "where in the layer");
    print_head("all bugs");
    print_counts(&table->bugs, "all");
    printf("below the limit: %zu trials, of which %zu were reported\n",
           table->bugs.n - table->bugs.n_above, table->bugs.n_below_reported);
    print_clean(table, "clean", "clean variant");
    print_clean(table, "clean weights", "clean, by weights");
}

static void print_json_counts(const struct counts *c)
{
    printf("{\"group\": \"%s\", \"name\": \"%s\", \"trials\": %zu, \"above\": %zu, "
           "\"above_three\": [%zu, %zu], "
           "\"detected\": %zu, \"layers_right\": %zu, \"operation_right\": %zu, "
           "\"position_right\": %zu, \"nameable\": %zu, \"name_right\": %zu, \"name_wrong\": %zu, "
           "\"unexplained\": %zu, \"rule_5pct\": [%zu, %zu], "
           "\"pos0_rule\": [%zu, %zu], \"below_reported\": %zu, \"largest\": %.6g, \"smallest\": ",
           c->group, c->name, c->n, c->n_above, c->n_clear_detected, c->n_clear, c->n_detected,
           c->n_layers, c->n_operation, c->n_position, c->n_nameable, c->n_named, c->n_wrong,
           c->n_unexplained, c->n_5pct, c->n_5pct_tried, c->n_pos0, c->n_pos0_tried,
           c->n_below_reported, c->largest);
    if (isfinite(c->smallest))
        printf("%.6g}", c->smallest);
    else
        printf("null}");
}

static void print_json(const struct table *table)
{
    printf("{\"groups\": [");
    for (size_t i = 0; i < table->n_groups; i++) {
        printf(i ? ",\n  " : "\n  ");
        print_json_counts(&table->groups[i]);
    }
    printf("\n],\n\"bugs\": ");
    print_json_counts(&table->bugs);
    printf(",\n\"clean\": ");
    print_json_counts(&table->clean);
    printf("}");
}

/* "123 (97.6%)"; "-" where there are none. */
static void print_cell(size_t n, size_t of)
{
    if (of == 0)
        printf(" - |");
    else
        printf(" %zu (%.1f%%) |", n, 100.0 * (double)n / (double)of);
}

static void print_row(const struct counts *c, const char *name)
{
    printf("| %s | %zu |", name, c->n_above);
    print_cell(c->n_detected, c->n_above);
    print_cell(c->n_layers, c->n_above);
    print_cell(c->n_operation, c->n_above);
    print_cell(c->n_position, c->n_above);
    print_cell(c->n_named, c->n_nameable);
    print_cell(c->n_wrong, c->n_nameable);
    print_cell(c->n_5pct, c->n_5pct_tried);
    print_cell(c->n_pos0, c->n_pos0_tried);
    putchar('\n');
}

static void print_rows(const struct table *table, const char *slots)
{
    const struct counts *clean = &table->clean;
    char name[96];
    for (size_t i = 0; i < table->n_groups; i++) {
        if (strcmp(table->groups[i].group, "weights") != 0)
            continue;
        snprintf(name, sizeof name, "%s, %s", slots, table->groups[i].name);
        print_row(&table->groups[i], name);
    }
    snprintf(name, sizeof name, "%s, all", slots);
    print_row(&table->bugs, name);
    printf("| %s, clean: false alarms | %zu clean |", slots, clean->n);
    print_cell(clean->n_detected, clean->n);
    printf(" | | | | |");
    print_cell(clean->n_5pct, clean->n_5pct_tried);
    print_cell(clean->n_pos0, clean->n_pos0_tried);
    putchar('\n');
}

static void print_smallest(const struct counts *bugs, const char *slots)
{
    printf("\nDumps of %s: smallest detected error %.2f times the limit; of %zu bugs above three "
           "limits %zu were found; of %zu below the limit %zu.\n",
           slots, bugs->smallest, bugs->n_clear, bugs->n_clear_detected, bugs->n - bugs->n_above,
           bugs->n_below_reported);
}

/* The totals, short enough for a README. */
static void print_markdown(const struct table tables[N_LEVELS])
{
    printf("| dump, ground, weights | bugs above the limit | detected | exactly the right layers "
           "| right operation | right first position | right name | wrong name | 5%% "
           "at all positions | 5%% at position 0 |\n|---|---|---|---|---|---|---|---|---|---|\n");
    print_rows(&tables[RP_SLOTS_OPERATIONS], "operations");
    print_rows(&tables[RP_SLOTS_LAYERS], "layers");
    print_smallest(&tables[RP_SLOTS_OPERATIONS].bugs, "operations");
    print_smallest(&tables[RP_SLOTS_LAYERS].bugs, "layers");
}

/* goal: what is to be reached; with is_limit, what is to be stayed below, or 0 for none at all. */
static bool print_goal(const char *what, size_t n, size_t of, double goal, bool is_limit)
{
    double reached = of ? (double)n / (double)of : is_limit ? 0 : 1;
    bool is_met = is_limit ? n == 0 || reached < goal : reached >= goal;
    printf("%s  %-44s %zu of %zu (%.2f%%), goal: ", is_met ? "met   " : "MISSED", what, n, of,
           100 * reached);
    if (is_limit && goal == 0)
        printf("none\n");
    else
        printf("%s %g%%\n", is_limit ? "under" : "at least", 100 * goal);
    return is_met;
}

static bool print_goals(const struct table *table, enum rp_slot_level level)
{
    const struct counts *bugs = &table->bugs, *clean = &table->clean;
    const struct goals *goals = &goals_of[level];
    bool is_met = true;
    printf("\nDumps of %s:\n", rp_slot_level_name(level));
    is_met &= print_goal("detected, above three limits", bugs->n_clear_detected, bugs->n_clear,
                         goals->detected, false);
    is_met &= print_goal("exactly the right layers, above the limit", bugs->n_layers, bugs->n_above,
                         goals->layers, false);
    is_met &=
        print_goal("right operation", bugs->n_operation, bugs->n_above, goals->operation, false);
    is_met &= print_goal("right name", bugs->n_named, bugs->n_nameable, goals->name, false);
    is_met &= print_goal("wrong name", bugs->n_wrong, bugs->n_nameable, goals->wrong_name, true);
    is_met &= print_goal("false alarms on clean variants", clean->n_detected, clean->n, 0, true);
    return is_met;
}

static bool print_text_of_all(const struct table tables[N_LEVELS])
{
    bool is_met = true;
    printf(
        "Bugs: those count that change more than replay's limit at their slot; shares are of "
        "them,\n"
        "of names without the bugs of the prompt. smallest: the smallest detected change over the\n"
        "limit. The last three columns: the same dumps judged end to end.\n");
    for (size_t level = N_LEVELS; level-- > 0;)
        print_text(&tables[level], (enum rp_slot_level)level);
    for (size_t level = N_LEVELS; level-- > 0;) {
        if (tables[level].bugs.n + tables[level].clean.n > 0)
            is_met &= print_goals(&tables[level], (enum rp_slot_level)level);
    }
    return is_met;
}

int rp_detect_table(char **files, size_t n_files, enum rp_detect_format format, bool must_pass)
{
    struct table tables[N_LEVELS];
    size_t n = 0;
    int code = RP_EXIT_PASS;
    for (size_t level = 0; level < N_LEVELS; level++)
        tables[level] = (struct table){
            .bugs = {.group = "all", .name = "bugs", .smallest = (double)INFINITY},
            .clean = {.group = "all", .name = "clean", .smallest = (double)INFINITY}};
    for (size_t i = 0; i < n_files && code == RP_EXIT_PASS; i++)
        code = read_file(tables, files[i]) ? RP_EXIT_PASS : RP_EXIT_ERROR;
    for (size_t level = 0; level < N_LEVELS; level++)
        n += tables[level].bugs.n_above + tables[level].clean.n;
    if (code == RP_EXIT_PASS && n == 0) {
        fprintf(stderr, "refparity-detect: there are no trials to count\n");
        code = RP_EXIT_ERROR;
    }
    if (code != RP_EXIT_PASS)
        goto done;
    switch (format) {
    case RP_DETECT_JSON:
        printf("{\"operations\": ");
        print_json(&tables[RP_SLOTS_OPERATIONS]);
        printf(",\n\"layers\": ");
        print_json(&tables[RP_SLOTS_LAYERS]);
        printf("}\n");
        break;
    case RP_DETECT_MARKDOWN: print_markdown(tables); break;
    case RP_DETECT_TEXT:
        if (!print_text_of_all(tables) && must_pass)
            code = RP_EXIT_FAIL;
        break;
    }
done:
    for (size_t level = 0; level < N_LEVELS; level++)
        free(tables[level].groups);
    return code;
}
