/* Recognises what happened to the rows of a file between the engine's memory and us: bytes swapped,
 * another float format, rows in other places, parts never written. Rows against rows alone: whether
 * that makes it the file's fault, and not the engine's, is decided in dump_damage.h. */
#ifndef REFPARITY_COMPARE_DAMAGE_ROWS_H
#define REFPARITY_COMPARE_DAMAGE_ROWS_H

#include "refparity/tensor_set.h"

/* By chance a row of d values lies within 5% of another with a probability of about 0.05^(d-1); in
 * fewer than so many dimensions nothing is recognised. */
#define RP_DAMAGE_MIN_VALUES 16
/* Undoing the damage has to bring a row so many times nearer than it was. */
#define RP_DAMAGE_GAIN 4.0

/* A position that both sides have. */
struct rp_damage_pair {
    int64_t position;
    size_t right;  /* row of what is right */
    size_t engine; /* row of the engine's */
    double l2_rel; /* as it stands; NaN where a row is not finite */
    double error;  /* ||engine - right||; NaN likewise */
    int fails;     /* !(l2_rel < limit) */
};

/* One slot on both sides. The tensors stay the caller's. */
struct rp_damage_rows {
    struct rp_tensor right;       /* [n][dim], what the engine ought to have dumped */
    struct rp_tensor engine;      /* [m][dim] */
    double limit;                 /* on L2_rel, of a row that is right */
    struct rp_damage_pair *pairs; /* [n_pairs], ascending positions; owned */
    size_t n_pairs, n_failing;
};

/* Pairs the rows of two tensors of the same dim and measures them. positions [n_positions] ascending,
 * or NULL: all. RP_ERR_MISMATCH, RP_ERR_MEMORY. End with rp_damage_rows_close. */
enum rp_status rp_damage_rows_open(struct rp_damage_rows *rows, const struct rp_tensor *right,
                                   const struct rp_tensor *engine, const int64_t *positions,
                                   size_t n_positions, double limit);
void rp_damage_rows_close(struct rp_damage_rows *rows);

enum rp_damage_kind {
    RP_DAMAGE_NONE,
    RP_DAMAGE_SWAPPED,    /* byte order */
    RP_DAMAGE_FORMAT,     /* F16, BF16 or F64 read as F32 */
    RP_DAMAGE_TRANSPOSED, /* written column by column */
    RP_DAMAGE_DISPLACED,  /* rows of the same slot at other positions */
    RP_DAMAGE_UNWRITTEN,  /* a part holds zeros, one value, or what was in memory */
    RP_DAMAGE_OTHER_SLOT  /* another slot's rows */
};

struct rp_damage {
    enum rp_damage_kind kind;
    double l2_rel;   /* the largest, once undone */
    size_t n_undone; /* rows that this was measured at */
    /* RP_DAMAGE_DISPLACED: [n_pairs] the position whose row stands there, -1 where none was found;
     * owned, end with rp_damage_free. */
    int64_t *source;
    int each_once;  /* of these sources, none comes twice */
    char text[256]; /* "its bytes are swapped" */
};
void rp_damage_free(struct rp_damage *damage); /* a zeroed one is allowed */

/* Swapped bytes, another format, or transposed: no arithmetic makes these. damage->kind is
 * RP_DAMAGE_NONE when it is none of them, or nothing fails. RP_ERR_MEMORY. */
enum rp_status rp_damage_find_encoding(const struct rp_damage_rows *rows, struct rp_damage *damage);
/* Rows of half or twice as many values: F16, BF16 or F64, whose sizes were taken for FP32's. */
enum rp_status rp_damage_find_width(const struct rp_tensor *right, const struct rp_tensor *engine,
                                    double limit, struct rp_damage *damage);
/* Rows at other positions. At most about 1e9 operations, see damage_rows.c. */
enum rp_status rp_damage_find_displaced(const struct rp_damage_rows *rows,
                                        struct rp_damage *damage);
enum rp_status rp_damage_find_unwritten(const struct rp_damage_rows *rows,
                                        struct rp_damage *damage);
/* Are the engine's rows, at the positions of rows->pairs, those of other [n][dim]? */
void rp_damage_match_other(const struct rp_damage_rows *rows, const struct rp_tensor *other,
                           struct rp_damage *damage);
/* The three in turn, of two arrays with the same positions [n]: what the engine ought to have dumped, and
 * what it did, each [n][dim]. A caller that has no reference, as replay, asks this of a slot that fails.
 * RP_DAMAGE_SWAPPED and RP_DAMAGE_FORMAT stand for themselves; for the rest something that follows from
 * the slot has to be right: see the rule in dump_damage.h. End with rp_damage_free. RP_ERR_MEMORY. */
enum rp_status rp_damage_of_arrays(const float *right, const float *engine,
                                   const int64_t *positions, size_t n, size_t dim, double limit,
                                   struct rp_damage *damage);

/* How many of the engine's rows that damage found a source for are unlike all other right rows, by an
 * L2_rel of limit or more: a prompt that repeats a token may have equal rows in every slot. 0 also when it
 * would take too long. */
size_t rp_damage_count_distinct(const struct rp_damage_rows *rows, const struct rp_damage *damage,
                                double limit);
/* Do all of the engine's rows stand where source [n_sources] says, for the position that
 * positions [n_sources] (ascending) says, within limit? n_found: rows that do. False when one does
 * not, or is at a position that has no source. */
int rp_damage_stand_at(const struct rp_damage_rows *rows, const int64_t *positions,
                       const int64_t *source, size_t n_sources, double limit, size_t *n_found);

#endif
