/* Which keys each position sees: masks, windows, and what an engine that takes its prompt in chunks may
 * do to them. Every one is a range of keys for each position. Where none fits, the ranges are
 * measured, position by position. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "operations/attention_changes.h"

#define MAX_MEASURED 128 /* positions: each range that begins or ends at one is a trial */
#define N_RANGES 5

enum range {
    ALL,            /* every key */
    LATER,          /* those up to `c` positions later */
    WINDOW,         /* the last c */
    NOT_LAST,       /* all but the last c, itself among them */
    NOT_FIRST,      /* all but the first c */
    FIRST_ONLY,     /* of the first c */
    OWN_CHUNK,      /* those of its own chunk of c */
    EARLIER_CHUNKS, /* those of earlier chunks */
    WHOLE_CHUNK,    /* earlier ones and all of its own chunk */
    BLOCK,          /* all of its own chunk alone */
    FIRST_GEOMETRY, /* as many as its place in the chunk has in the first one, from the first on */
    GEOMETRY_OF_FIRST /* earlier chunks' but the last, and itself: a chunk behind */
};

/* p and what is seen are places in the sequence, n of them. */
static void range_of(enum range range, int64_t c, int64_t p, int64_t n, float seen[2])
{
    const int64_t chunk = c > 0 ? p - p % c : p;
    int64_t first = 0, last = p;
    switch (range) {
    case ALL: last = n; break;
    case LATER: last = p + c; break;
    case WINDOW: first = p - c + 1; break;
    case NOT_LAST: last = p - c; break;
    case NOT_FIRST: first = c; break;
    case FIRST_ONLY: last = p < c ? p : c - 1; break;
    case OWN_CHUNK: first = chunk; break;
    case EARLIER_CHUNKS: last = chunk > 0 ? chunk - 1 : p; break;
    case WHOLE_CHUNK: last = chunk + c - 1; break;
    case BLOCK:
        first = chunk;
        last = chunk + c - 1;
        break;
    case FIRST_GEOMETRY: last = p % c; break;
    case GEOMETRY_OF_FIRST: last = p < c ? p : p - c; break;
    }
    seen[0] = (float)first;
    seen[1] = (float)last;
}

static void add_range(struct rp_search *search, enum range range, int64_t c, const char *name,
                      const char *text)
{
    const int64_t *positions = search->slot.positions;
    float *table = rp_search_new_rows(search); /* dim is at least 2 */
    if (!table)
        return;
    for (size_t i = 0; i < search->n; i++)
        range_of(range, c, positions[i] - positions[0], positions[search->n - 1] - positions[0],
                 table + 2 * i);
    struct rp_candidate candidate =
        rp_candidate_make(name, rp_attention_install, RP_ATTENTION_KEYS, RP_N_WEIGHTS);
    candidate.rows = table;
    candidate.value = (double)c;
    candidate.reports_value = range != ALL;
    if (range == NOT_LAST) /* so many are seen too many */
        candidate.parameter = -(double)c;
    rp_search_add(search, candidate, "%s", text);
}

/* The first position that is right again, counted from the first one; 0: there is none. */
static int64_t right_again(const struct rp_search *search)
{
    const int64_t *positions = search->slot.positions;
    for (size_t i = search->first + 1; i < search->n; i++) {
        if (!search->is_failing[i])
            return positions[i] - positions[0];
    }
    return 0;
}

/* Chunks: the first failing position begins the second one; where a whole chunk is seen, its last
 * position is right. */
static void collect_chunks(struct rp_search *search, int64_t c)
{
    static const struct {
        enum range range;
        const char *text;
    } chunks[] = {
        {OWN_CHUNK, "chunks of %v: a position sees keys of its own chunk only"},
        {FIRST_GEOMETRY,
         "chunks of %v: later chunks see the keys that the first one sees, position "
         "p those up to p modulo %v"},
        {FIRST_ONLY, "keys from position %v on are not seen"},
        {EARLIER_CHUNKS, "chunks of %v: a position sees keys of earlier chunks only"},
        {GEOMETRY_OF_FIRST, "chunks of %v: later chunks do not see the last %v keys"},
    };
    const int64_t again = right_again(search);
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks && c > 0; i++)
        add_range(search, chunks[i].range, c, "attention-chunk", chunks[i].text);
    if (again > 0)
        add_range(search, WHOLE_CHUNK, again + 1, "attention-chunk",
                  "chunks of %v: a position sees all keys of its own chunk, later ones too");
    if (again > 0)
        add_range(search, BLOCK, again + 1, "attention-chunk",
                  "chunks of %v: a position sees all keys of its own chunk, later ones "
                  "too, and none of earlier chunks");
}

void rp_collect_attention_keys(struct rp_search *search)
{
    static const struct {
        enum range range;
        int64_t c;
        const char *name, *text;
    } plain[] = {
        {ALL, 0, "attention-mask", "attention is not causal"},
        {LATER, 1, "attention-mask", "attention's mask is off by one: the next position is seen"},
        {LATER, -1, "attention-mask",
         "attention's mask is off by one: the current position is not seen"},
        {LATER, 2, "attention-mask", "the next %v positions are seen"},
        {NOT_LAST, 2, "attention-mask", "the last %v positions are not seen"},
        {NOT_LAST, 4, "attention-mask", "the last %v positions are not seen"},
        {NOT_LAST, 8, "attention-mask", "the last %v positions are not seen"},
        {NOT_FIRST, 1, "attention-mask", "the first position is not seen"},
        {NOT_FIRST, 2, "attention-mask", "the first %v positions are not seen"},
        {NOT_FIRST, 4, "attention-mask", "the first %v positions are not seen"},
    };
    static const char window[] = "attention sees the last %v positions only";
    static const char off_by_one[] = "attention's window is %v positions, one off the model's";
    const int64_t *positions = search->slot.positions;
    const int64_t first = positions[search->first] - positions[0];
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        add_range(search, plain[i].range, plain[i].c, plain[i].name, plain[i].text);
    for (int64_t c = 1; c <= 32; c *= 2)
        add_range(search, WINDOW, c, "attention-window", window);
    if (first > 2)
        add_range(search, WINDOW, first, "attention-window", window);
    if (search->kind == RP_LAYER_SLIDING_ATTENTION) {
        const int64_t own = (int64_t)search->config->window;
        add_range(search, WINDOW, own + 1, "attention-window", off_by_one);
        add_range(search, WINDOW, own - 1, "attention-window", off_by_one);
        add_range(search, WINDOW, INT32_MAX, "attention-window",
                  "attention has no window; the model's sees the last positions only");
    }
    if (first > 1)
        add_range(search, NOT_FIRST, first - 1, "attention-mask",
                  "the first %v positions are not seen");
    collect_chunks(search, first);
}

/* ---- measured ---- */

struct measuring {
    float *table;  /* [n][2], of the trial */
    float *found;  /* [n][2] */
    double *least; /* [n] the error with what was found */
    double *error; /* [n] of the trial */
};

static enum rp_status try_table(struct rp_search *search, struct measuring *measuring,
                                struct rp_error *err)
{
    struct rp_candidate candidate =
        rp_candidate_make("attention-keys", rp_attention_install, RP_ATTENTION_KEYS, RP_N_WEIGHTS);
    candidate.rows = measuring->table;
    const enum rp_status status = search->try_rows(search, &candidate, measuring->error, err);
    for (size_t i = 0; i < search->n && status == RP_OK; i++) {
        if (measuring->error[i] < measuring->least[i]) {
            measuring->least[i] = measuring->error[i];
            memcpy(measuring->found + 2 * i, measuring->table + 2 * i, 2 * sizeof(float));
        }
    }
    return status;
}

/* Each position's keys begin at c, end at c, are the last c, or end c before or after it. */
static enum rp_status try_ranges(struct rp_search *search, struct measuring *measuring,
                                 struct rp_error *err)
{
    static const enum range ranges[N_RANGES] = {LATER, NOT_FIRST, FIRST_ONLY, WINDOW, NOT_LAST};
    const int64_t *positions = search->slot.positions;
    const int64_t n = positions[search->n - 1] - positions[0] + 1;
    enum rp_status status = RP_OK;
    for (size_t k = 0; k < N_RANGES; k++) {
        for (int64_t c = 0; c < n && status == RP_OK; c++) {
            for (size_t i = 0; i < search->n; i++)
                range_of(ranges[k], c, positions[i] - positions[0], n, measuring->table + 2 * i);
            status = try_table(search, measuring, err);
        }
    }
    return status;
}

/* The first failing position, what it sees and how many others there are, as text. */
static void describe(const struct rp_search *search, const struct measuring *measuring, char *out,
                     size_t size)
{
    size_t n = 0, n_others = 0;
    for (size_t i = search->first; i < search->n; i++) {
        const long long first = (long long)measuring->found[2 * i];
        const long long last = (long long)measuring->found[2 * i + 1];
        if (!search->is_failing[i])
            continue;
        if (n < size / 2)
            n += (size_t)snprintf(out + n, size - n, "%sposition %lld sees keys %lld to %lld",
                                  n ? ", " : "", (long long)search->slot.positions[i],
                                  first < 0 ? 0 : first, last);
        else
            n_others++;
    }
    if (n_others > 0)
        snprintf(out + n, size - n, "; and so %zu others", n_others);
}

enum rp_status rp_measure_attention_keys(struct rp_search *search, struct rp_candidate *candidate,
                                         struct rp_error *err)
{
    struct measuring measuring = {.table = NULL};
    *candidate = rp_candidate_make(NULL, rp_attention_install, RP_ATTENTION_KEYS, RP_N_WEIGHTS);
    if (!rp_search_has_step(search, RP_STEP_ATTENTION, RP_N_WEIGHTS) || search->n > MAX_MEASURED ||
        N_RANGES * (double)search->n * rp_search_work(search) > RP_MOST_WORK)
        return RP_OK;
    measuring.table = rp_search_new_rows(search);
    measuring.found = rp_search_new_rows(search);
    if (search->status != RP_OK)
        return search->status;
    measuring.least = calloc(2 * search->n + 1, sizeof *measuring.least);
    if (!measuring.least)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows", search->n);
    measuring.error = measuring.least + search->n;
    for (size_t i = 0; i < search->n; i++)
        measuring.least[i] = HUGE_VAL;
    const enum rp_status status = try_ranges(search, &measuring, err);
    bool is_found = status == RP_OK;
    for (size_t i = 0; i < search->n; i++)
        is_found &= measuring.least[i] <= 2 * search->limit[i];
    if (is_found) {
        candidate->name = "attention-keys";
        candidate->rows = measuring.found;
        describe(search, &measuring, candidate->text, sizeof candidate->text);
    }
    free(measuring.least);
    return status;
}
