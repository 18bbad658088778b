/* A part of the matrix for one of several machines or jobs: shard 2/5 is the second of five. What a shard has
 * follows from the matrix alone, so that all machines agree without talking to each other: each pair is in
 * exactly one. Not for putting their results together: report/merge.h. */
#ifndef REFPARITY_RUN_SHARD_H
#define REFPARITY_RUN_SHARD_H

#include <stdbool.h>

#include "refparity/matrix.h"

#define RP_MAX_SHARDS 10000

struct rp_shard {
    size_t index, count; /* 1 <= index <= count <= RP_MAX_SHARDS; 0 of 0: all of the matrix */
};

/* "2/5". RP_ERR_ARGUMENT; what names where the text comes from. */
enum rp_status rp_shard_parse(const char *text, const char *what, struct rp_shard *shard,
                              struct rp_error *err);

struct rp_shard_part {
    size_t n_pairs;
    const struct rp_slurm *resources; /* the matrix's; NULL: the shard has nothing to run */
};

/* Which shard each pair and each weights test belongs to. An entry's prompt stays whole, with all of its
 * modes, which are compared with each other; entries that ask for the same resources share shards, others do
 * not. A test that is not to be run is in none, 0. */
struct rp_shards {
    size_t count;
    size_t n_pairs, n_entries;
    size_t *of_pair;             /* [n_pairs] of the matrix, from 1; owned */
    size_t *of_entry;            /* [n_entries], of the test <entry>/weights */
    struct rp_shard_part *parts; /* [count + 1], by the shard's number; owned */
};

/* filter: an extended regular expression that has to match somewhere in "<entry>/<prompt>",
 * "<entry>/<mode>/<prompt>" or "<entry>/weights"; NULL or "": all are wanted. To be freed with
 * rp_shards_free. RP_ERR_ARGUMENT: the filter is none, or matches nothing, or there are more kinds of resources
 * than shards. RP_ERR_MEMORY. */
enum rp_status rp_shards_open(const struct rp_matrix *matrix, size_t count, const char *filter,
                              struct rp_shards *shards, struct rp_error *err);
void rp_shards_free(struct rp_shards *shards);

/* Does the filter want the test of this name? Compiled once for many names. */
struct rp_test_filter;
enum rp_status rp_test_filter_open(const char *text, struct rp_test_filter **filter,
                                   struct rp_error *err);
bool rp_test_filter_wants(const struct rp_test_filter *filter, const char *name);
void rp_test_filter_close(struct rp_test_filter *filter);

#endif
