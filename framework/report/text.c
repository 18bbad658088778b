/* See text.h. */
#include "report/text.h"

#include <math.h>
#include <string.h>

#include "report/replay.h"
#include "report/verdict_style.h"

static void write_line(const struct rp_terminal *out, const char *label, const char *value)
{
    if (value && value[0])
        rp_print_line(out, "%-10s %s", label, value);
}

/* ---- the table ---- */

/* Evidence never fails a test, so it is never called FAIL. */
static struct rp_cell status_of(const struct rp_slot_result *slot)
{
    const char *name = rp_verdict_name(slot->verdict);
    if (slot->required)
        return (struct rp_cell){name, rp_verdict_style(name)};
    switch (slot->verdict) {
    case RP_PASS: return (struct rp_cell){"(ok)", RP_STYLE_FAINT};
    case RP_XFAIL:
    case RP_FAIL: return (struct rp_cell){"(over)", RP_STYLE_NOTABLE};
    case RP_SKIP: return (struct rp_cell){"(none)", RP_STYLE_FAINT};
    default: return (struct rp_cell){"(error)", RP_STYLE_BAD};
    }
}

enum { N_COLUMNS = 11 };

/* As wide as the longest name, which keeps all within RP_TERMINAL_WIDTH. */
static void make_columns(const struct rp_pair_result *pair, struct rp_column columns[N_COLUMNS])
{
    static const struct rp_column all[N_COLUMNS] = {
        {"slot", 9, true},    {"dim", 6, false},      {"n", 5, false},       {"position", 8, false},
        {"|ref|", 8, false},  {"|engine|", 8, false}, {"max_abs", 8, false}, {"L2_rel", 8, false},
        {"cosine", 9, false}, {"limit", 6, false},    {"status", 8, true}};
    const size_t longest = 16;
    memcpy(columns, all, sizeof all);
    for (size_t i = 0; i < pair->n_slots; i++) {
        const size_t width = rp_print_width(pair->slots[i].slot);
        if (width > columns[0].width)
            columns[0].width = width < longest ? width : longest;
    }
}

/* Why a slot is not compared, or fails where nothing before it does. */
static void write_reason(const struct rp_terminal *out, const struct rp_slot_result *slot)
{
    const bool has_reason = slot->required && slot->verdict != RP_PASS &&
                            (!slot->downstream_of[0] || slot->verdict == RP_XFAIL);
    if (slot->n_missing)
        rp_print_line(out, "    %s%s[%zu positions not in the dump]",
                      has_reason ? slot->message : "", has_reason ? " " : "", slot->n_missing);
    else if (has_reason)
        rp_print_line(out, "    %s", slot->message);
}

static void write_row(const struct rp_terminal *out, const struct rp_column columns[N_COLUMNS],
                      const struct rp_slot_result *slot)
{
    const struct rp_metrics *m = &slot->worst.metrics;
    char dim[24], n[24], position[24], numbers[6][RP_NUMBER_SIZE];
    snprintf(dim, sizeof dim, "%zu", slot->dim);
    snprintf(n, sizeof n, "%zu", slot->n_compared);
    snprintf(position, sizeof position, "%lld", (long long)slot->worst.position);
    const struct rp_cell cells[N_COLUMNS] = {
        {slot->slot, RP_STYLE_PLAIN},
        {dim, RP_STYLE_PLAIN},
        {n, RP_STYLE_PLAIN},
        {position, RP_STYLE_PLAIN},
        {rp_number_text(numbers[0], "%.3g", m->norm_ref), RP_STYLE_PLAIN},
        {rp_number_text(numbers[1], "%.3g", m->norm_engine), RP_STYLE_PLAIN},
        {rp_number_text(numbers[2], "%.3g", m->max_abs), RP_STYLE_PLAIN},
        {rp_number_text(numbers[3], "%.3g", m->l2_rel), RP_STYLE_STRONG},
        {rp_number_text(numbers[4], "%.6f", m->cosine), RP_STYLE_PLAIN},
        {rp_number_text(numbers[5], "%.4g", slot->limit), RP_STYLE_PLAIN},
        status_of(slot)};
    struct rp_cell not_compared[N_COLUMNS] = {cells[0]};
    for (size_t i = 1; i + 1 < N_COLUMNS; i++)
        not_compared[i] = (struct rp_cell){"-", RP_STYLE_FAINT};
    not_compared[N_COLUMNS - 1] = cells[N_COLUMNS - 1];
    rp_table_row(out, columns, N_COLUMNS, slot->n_compared == 0 ? not_compared : cells);
    write_reason(out, slot);
}

/* A required slot that fails, or what else is off in the layer that diverges first. */
static bool is_first(const struct rp_slot_result *slot, const struct rp_divergence *divergence)
{
    int layer;
    if (slot->verdict != RP_FAIL && slot->verdict != RP_ERROR)
        return false;
    (void)rp_slot_parse(slot->slot, &layer);
    return slot->required || (divergence->slot[0] && layer == divergence->layer);
}

/* Worth a line where many pass. */
static bool is_notable(const struct rp_slot_result *slot)
{
    return slot->required && slot->verdict != RP_PASS;
}

enum { MOST_FAILING = 20, MOST_PASSING = 24 };

static void write_failing(const struct rp_terminal *out, const struct rp_column columns[N_COLUMNS],
                          const struct rp_pair_result *pair, const struct rp_divergence *divergence)
{
    size_t n = 0;
    for (size_t i = 0; i < pair->n_slots; i++)
        if (is_first(&pair->slots[i], divergence) && n++ < MOST_FAILING)
            write_row(out, columns, &pair->slots[i]);
    if (n > MOST_FAILING)
        rp_print_line(out, "… and %zu more over their limits (--all shows them)", n - MOST_FAILING);
}

struct counts {
    size_t n_passing, n_over, n_none;
    double worst;
    const char *worst_slot;
};

static void count_slot(struct counts *counts, const struct rp_slot_result *slot)
{
    int layer;
    counts->n_passing += slot->verdict == RP_PASS;
    counts->n_none += slot->verdict == RP_SKIP;
    counts->n_over += slot->verdict == RP_FAIL || slot->verdict == RP_ERROR;
    if (slot->verdict == RP_PASS && rp_slot_parse(slot->slot, &layer) != RP_PART_LOGITS &&
        slot->worst.metrics.l2_rel > counts->worst) {
        counts->worst = slot->worst.metrics.l2_rel;
        counts->worst_slot = slot->slot;
    }
}

static void write_counts(const struct rp_terminal *out, const struct counts *counts)
{
    char over[64] = "", worst[RP_SLOT_NAME_SIZE + 64] = "";
    if (counts->worst_slot)
        snprintf(worst, sizeof worst, ", the largest L2_rel %.3g of %s", counts->worst,
                 counts->worst_slot);
    if (counts->n_over)
        snprintf(over, sizeof over, "; %zu downstream are over theirs", counts->n_over);
    if (counts->n_passing + counts->n_over)
        rp_print_marked_line(out, RP_STYLE_GOOD,
                             "… within their limits: ", "%zu slots%s%s (--all shows them)",
                             counts->n_passing, worst, over);
    if (counts->n_none)
        rp_print_marked_line(out, RP_STYLE_FAINT, "… not compared: ",
                             "%zu slots that only one of both has (--all shows them)",
                             counts->n_none);
}

static bool is_not_compared(const struct rp_slot_result *slot)
{
    return !slot->required && slot->verdict == RP_SKIP;
}

static void write_others(const struct rp_terminal *out, const struct rp_column columns[N_COLUMNS],
                         const struct rp_pair_result *pair, const struct rp_divergence *divergence)
{
    size_t n = 0;
    struct counts counts = {.n_passing = 0};
    for (size_t i = 0; i < pair->n_slots; i++)
        n += !is_first(&pair->slots[i], divergence) && !is_not_compared(&pair->slots[i]);
    for (size_t i = 0; i < pair->n_slots; i++) {
        const struct rp_slot_result *slot = &pair->slots[i];
        if (is_first(slot, divergence))
            continue;
        if (is_notable(slot) || (n <= MOST_PASSING && !is_not_compared(slot)))
            write_row(out, columns, slot);
        else
            count_slot(&counts, slot);
    }
    write_counts(out, &counts);
}

static void write_table(const struct rp_terminal *out, const struct rp_subject *subject,
                        const struct rp_pair_result *pair, const struct rp_divergence *divergence)
{
    struct rp_column columns[N_COLUMNS];
    make_columns(pair, columns);
    fputc('\n', out->out);
    rp_table_heading(out, columns, N_COLUMNS);
    if (subject->shows_all) {
        for (size_t i = 0; i < pair->n_slots; i++)
            write_row(out, columns, &pair->slots[i]);
        return;
    }
    write_failing(out, columns, pair, divergence);
    write_others(out, columns, pair, divergence);
}

/* ---- what stands around it ---- */

static void write_logits(const struct rp_terminal *out, const struct rp_slot_result *slot)
{
    int layer;
    if (rp_slot_parse(slot->slot, &layer) != RP_PART_LOGITS || slot->n_compared == 0)
        return;
    fputc('\n', out->out);
    rp_print_line(out,
                  "logits: top-1 agrees at %zu of %zu positions, top-%d overlap %.0f%%, KL at most "
                  "%.3g nats",
                  slot->n_top1_equal, slot->n_compared, RP_TOP_K, 100 * slot->top_k_overlap,
                  slot->kl_max);
}

static void write_notes(const struct rp_terminal *out, const struct rp_pair_result *pair)
{
    for (size_t i = 0; i < pair->n_slots; i++) {
        const struct rp_slot_result *slot = &pair->slots[i];
        if (slot->n_extra)
            rp_print_line(out, "note: %s: %zu positions that the reference lacks are ignored",
                          slot->slot, slot->n_extra);
    }
}

static void write_divergence(const struct rp_terminal *out, const struct rp_divergence *d)
{
    if (d->slot[0]) {
        fputc('\n', out->out);
        rp_print_marked_line(out, RP_STYLE_BAD, "first divergence: ", "%s at position %lld%s%s",
                             d->slot, (long long)d->position, d->inner_slot[0] ? ", slot " : "",
                             d->inner_slot);
        rp_print_line(out, "  %s", d->explanation);
        if (d->n_not_compared)
            rp_print_line(out, "  %zu required slots before it could not be compared",
                          d->n_not_compared);
    }
    if (d->departure.slot[0]) {
        fputc('\n', out->out);
        rp_print_line(out, "departure: %s at position %lld: here the error begins",
                      d->departure.slot, (long long)d->departure.position);
        rp_print_line(out, "  %s", d->departure.explanation);
    }
}

/* Replay fails a pair of its own, also where the comparison passes or could not be made; and so does what is
 * known and mended. */
static enum rp_verdict verdict_of(const struct rp_subject *subject, enum rp_verdict verdict,
                                  size_t n_failing, size_t n_known)
{
    size_t n_mended = 0;
    for (size_t i = 0; i < subject->n_known; i++)
        n_mended += rp_known_is_failure(&subject->known[i]);
    if (verdict != RP_ERROR && n_failing + n_mended > 0)
        return RP_FAIL;
    return n_known > 0 && (verdict == RP_PASS || verdict == RP_MARGINAL) ? RP_XFAIL : verdict;
}

static void write_known(const struct rp_terminal *out, const struct rp_subject *subject)
{
    for (size_t i = 0; i < subject->n_known; i++) {
        const struct rp_known_result *result = &subject->known[i];
        const struct rp_known *known = result->known;
        if (result->n_met > 0)
            rp_print_line(out, "known: %s%s%s: %zu slots, the first %s: %s%s%s", known->slot,
                          known->name ? ", " : "", known->name ? known->name : "", result->n_met,
                          result->first, known->reason, known->issue ? "; " : "",
                          known->issue ? known->issue : "");
        else if (result->message[0])
            rp_print_line(out, "%s", result->message);
    }
}

static void write_verdict(const struct rp_terminal *out, const struct rp_subject *subject,
                          const struct rp_pair_result *pair)
{
    size_t n_failing = 0, n_known = 0;
    for (size_t i = 0; i < subject->n_replay; i++) {
        n_failing += subject->replay[i].judgement.verdict == RP_FAIL;
        n_known += subject->replay[i].judgement.verdict == RP_XFAIL;
    }
    const char *name = rp_verdict_name(verdict_of(subject, pair->verdict, n_failing, n_known));
    fputc('\n', out->out);
    char mark[32], replay[80] = "", required[80] = "";
    snprintf(mark, sizeof mark, "verdict: %s", name);
    if (n_failing > 0)
        snprintf(replay, sizeof replay, " (replay: %zu of %zu fail)", n_failing, subject->n_replay);
    else if (n_known > 0)
        snprintf(replay, sizeof replay, " (replay: %zu of %zu are known to fail)", n_known,
                 subject->n_replay);
    if (pair->n_required_compared < pair->n_required)
        snprintf(required, sizeof required, " (%zu of %zu required slots compared)",
                 pair->n_required_compared, pair->n_required);
    const bool has_positions = subject->positions && subject->positions[0];
    rp_print_marked_line(out, rp_verdict_style(name), mark, "%s%s%s%s%s", replay, required,
                         has_positions ? " (" : "", has_positions ? subject->positions : "",
                         has_positions ? ")" : "");
}

void rp_report_text(const struct rp_terminal *out, const struct rp_subject *subject,
                    const struct rp_pair_result *pair, const struct rp_divergence *divergence)
{
    write_line(out, "pair", subject->title);
    write_line(out, "entry", subject->entry);
    write_line(out, "reference", subject->reference);
    write_line(out, "made by", subject->origin);
    write_line(out, "dump", subject->dump);
    write_line(out, "command", subject->command);
    write_line(out, "engine", subject->engine);
    rp_print_line(out, "%-10s %s: %s", "tokens", rp_verdict_name(pair->tokens.verdict),
                  pair->tokens.message);
    write_divergence(out, divergence);
    write_table(out, subject, pair, divergence);
    for (size_t i = 0; i < pair->n_slots; i++)
        write_logits(out, &pair->slots[i]);
    write_notes(out, pair);
    rp_report_replay_text(out, subject->replay, subject->n_replay);
    write_verdict(out, subject, pair);
    write_known(out, subject);
    for (size_t i = 0; subject->warnings && i < subject->warnings->n; i++)
        rp_print_line(out, "warning: %s: %s", subject->warnings->list[i].slot,
                      subject->warnings->list[i].message);
    write_line(out, "reproduce", subject->reproduce);
}

/* What is known of the slots before the first divergence. */
static void write_before(FILE *out, const struct rp_divergence *divergence)
{
    if (divergence->n_not_compared)
        fprintf(out,
                "  first divergence that is known: %zu required slots before %s could not be "
                "compared\n",
                divergence->n_not_compared, divergence->slot);
    else
        fprintf(out, "  first divergence: every required slot before %s passes\n",
                divergence->slot);
}

void rp_report_failure(FILE *out, const struct rp_slot_result *slot,
                       const struct rp_divergence *divergence)
{
    const struct rp_metrics *m = &slot->first.metrics;
    if (slot->downstream_of[0])
        fprintf(out, "  downstream of %s, which diverges first (position %lld): look there\n",
                slot->downstream_of, (long long)divergence->position);
    else
        write_before(out, divergence);
    if (!slot->downstream_of[0] && divergence->inner_slot[0])
        fprintf(out, "  slot: %s\n", divergence->inner_slot);
    if (!slot->downstream_of[0] && divergence->explanation[0])
        fprintf(out, "  %s\n", divergence->explanation);
    if (!slot->downstream_of[0] && divergence->departure.slot[0])
        fprintf(out, "  departure: %s at position %lld: %s\n", divergence->departure.slot,
                (long long)divergence->departure.position, divergence->departure.explanation);
    fprintf(out, "  positions: %zu of %zu over the limit, the first %lld, the worst %lld\n",
            slot->n_failing, slot->n_compared, (long long)slot->first.position,
            (long long)slot->worst.position);
    if (slot->n_missing)
        fprintf(out, "  not compared: %zu positions that the dump lacks\n", slot->n_missing);
    fprintf(out,
            "  at position %lld: |reference| %.6g, |engine| %.6g, max_abs %.4g, L2_rel %.4g, "
            "cosine %.6f\n",
            (long long)slot->first.position, m->norm_ref, m->norm_engine, m->max_abs, m->l2_rel,
            m->cosine);
}
