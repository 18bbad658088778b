/* See text.h. */
#include "report/text.h"

#include <math.h>
#include <string.h>

#include "report/replay.h"

static void write_line(FILE *out, const char *label, const char *value)
{
    if (value && value[0])
        fprintf(out, "%-10s %s\n", label, value);
}

/* Evidence never fails a test, so it is never called FAIL. */
static const char *status_text(const struct rp_slot_result *slot)
{
    if (slot->required)
        return rp_verdict_name(slot->verdict);
    switch (slot->verdict) {
    case RP_PASS: return "(ok)";
    case RP_XFAIL:
    case RP_FAIL: return "(over)";
    case RP_SKIP: return "(none)";
    default: return "(error)";
    }
}

static void write_number(FILE *out, int width, const char *format, double value)
{
    char text[64];
    if (isnan(value))
        snprintf(text, sizeof text, "nan");
    else
        snprintf(text, sizeof text, format, value);
    fprintf(out, " %*s", width, text);
}

static void write_row(FILE *out, const struct rp_slot_result *slot)
{
    fprintf(out, "%-12s", slot->slot);
    if (slot->n_compared == 0) {
        fprintf(out, " %6s %5s %8s %11s %11s %10s %10s %10s %6s", "-", "-", "-", "-", "-", "-", "-",
                "-", "-");
    } else {
        const struct rp_metrics *m = &slot->worst.metrics;
        fprintf(out, " %6zu %5zu %8lld", slot->dim, slot->n_compared,
                (long long)slot->worst.position);
        write_number(out, 11, "%.5g", m->norm_ref);
        write_number(out, 11, "%.5g", m->norm_engine);
        write_number(out, 10, "%.3g", m->max_abs);
        write_number(out, 10, "%.3g", m->l2_rel);
        write_number(out, 10, "%.7f", m->cosine);
        fprintf(out, " %6.4g", slot->limit);
    }
    fprintf(out, "  %s", status_text(slot));
    if (slot->downstream_of[0] && slot->verdict != RP_XFAIL)
        fprintf(out, " downstream of %s", slot->downstream_of);
    else if (slot->verdict != RP_PASS && slot->required)
        fprintf(out, ": %s", slot->message);
    if (slot->n_missing)
        fprintf(out, " [%zu positions not in the dump]", slot->n_missing);
    fputc('\n', out);
}

static void write_logits(FILE *out, const struct rp_slot_result *slot)
{
    int layer;
    if (rp_slot_parse(slot->slot, &layer) != RP_PART_LOGITS || slot->n_compared == 0)
        return;
    fprintf(out,
            "\nlogits: top-1 agrees at %zu of %zu positions, top-%d overlap %.0f%%, KL at most "
            "%.3g nats\n",
            slot->n_top1_equal, slot->n_compared, RP_TOP_K, 100 * slot->top_k_overlap,
            slot->kl_max);
}

static void write_notes(FILE *out, const struct rp_pair_result *pair)
{
    for (size_t i = 0; i < pair->n_slots; i++) {
        const struct rp_slot_result *slot = &pair->slots[i];
        if (slot->n_extra)
            fprintf(out, "note: %s: %zu positions that the reference lacks are ignored\n",
                    slot->slot, slot->n_extra);
    }
}

static void write_divergence(FILE *out, const struct rp_divergence *d)
{
    if (d->departure.slot[0])
        fprintf(out, "\ndeparture: %s at position %lld: here the error begins\n  %s\n",
                d->departure.slot, (long long)d->departure.position, d->departure.explanation);
    if (!d->slot[0])
        return;
    fprintf(out, "\nfirst divergence: %s at position %lld", d->slot, (long long)d->position);
    if (d->inner_slot[0])
        fprintf(out, ", slot %s", d->inner_slot);
    fprintf(out, "\n  %s\n", d->explanation);
    if (d->n_not_compared)
        fprintf(out, "  %zu required slots before it could not be compared\n", d->n_not_compared);
}

/* Replay fails a pair of its own, also where the comparison passes or could not be made; and so does what is
 * known and mended. */
static void write_verdict(FILE *out, const struct rp_subject *subject,
                          const struct rp_pair_result *pair)
{
    size_t n_failing = 0, n_known = 0, n_mended = 0;
    enum rp_verdict verdict = pair->verdict;
    for (size_t i = 0; i < subject->n_replay; i++) {
        n_failing += subject->replay[i].judgement.verdict == RP_FAIL;
        n_known += subject->replay[i].judgement.verdict == RP_XFAIL;
    }
    for (size_t i = 0; i < subject->n_known; i++)
        n_mended += rp_known_is_failure(&subject->known[i]);
    if (verdict != RP_ERROR && n_failing + n_mended > 0)
        verdict = RP_FAIL;
    else if (n_known > 0 && (verdict == RP_PASS || verdict == RP_MARGINAL))
        verdict = RP_XFAIL;
    fprintf(out, "\nverdict: %s", rp_verdict_name(verdict));
    if (n_failing > 0)
        fprintf(out, " (replay: %zu of %zu fail)", n_failing, subject->n_replay);
    if (n_known > 0)
        fprintf(out, " (replay: %zu of %zu are known to fail)", n_known, subject->n_replay);
}

static void write_known(FILE *out, const struct rp_subject *subject)
{
    for (size_t i = 0; i < subject->n_known; i++) {
        const struct rp_known_result *result = &subject->known[i];
        const struct rp_known *known = result->known;
        if (result->n_met > 0)
            fprintf(out, "known: %s%s%s: %zu slots, the first %s: %s%s%s\n", known->slot,
                    known->name ? ", " : "", known->name ? known->name : "", result->n_met,
                    result->first, known->reason, known->issue ? "; " : "",
                    known->issue ? known->issue : "");
        else if (result->message[0])
            fprintf(out, "%s\n", result->message);
    }
}

void rp_report_text(FILE *out, const struct rp_subject *subject, const struct rp_pair_result *pair,
                    const struct rp_divergence *divergence)
{
    write_line(out, "pair", subject->title);
    write_line(out, "entry", subject->entry);
    write_line(out, "reference", subject->reference);
    write_line(out, "made by", subject->origin);
    write_line(out, "dump", subject->dump);
    write_line(out, "command", subject->command);
    write_line(out, "engine", subject->engine);
    fprintf(out, "%-10s %s: %s\n", "tokens", rp_verdict_name(pair->tokens.verdict),
            pair->tokens.message);
    fprintf(out, "\n%-12s %6s %5s %8s %11s %11s %10s %10s %10s %6s  %s\n", "slot", "dim", "n",
            "worst at", "|reference|", "|engine|", "max_abs", "L2_rel", "cosine", "limit",
            "status");
    for (size_t i = 0; i < pair->n_slots; i++)
        write_row(out, &pair->slots[i]);
    for (size_t i = 0; i < pair->n_slots; i++)
        write_logits(out, &pair->slots[i]);
    write_notes(out, pair);
    write_divergence(out, divergence);
    rp_report_replay_text(out, subject->replay, subject->n_replay);
    write_verdict(out, subject, pair);
    if (pair->n_required_compared < pair->n_required)
        fprintf(out, " (%zu of %zu required slots compared)", pair->n_required_compared,
                pair->n_required);
    if (subject->positions && subject->positions[0])
        fprintf(out, " (%s)", subject->positions);
    fputc('\n', out);
    write_known(out, subject);
    for (size_t i = 0; subject->warnings && i < subject->warnings->n; i++)
        fprintf(out, "warning: %s: %s\n", subject->warnings->list[i].slot,
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
