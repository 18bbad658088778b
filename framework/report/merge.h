/* Results of many machines as those of one: what each shard found, put together by the names of pairs. Nothing
 * is lost and nothing counts twice: a pair that no shard has is an ERROR, and so is one that two shards have
 * with different verdicts. Not for reading their files: shard_file.h. */
#ifndef REFPARITY_REPORT_MERGE_H
#define REFPARITY_REPORT_MERGE_H

#include "report/results.h"
#include "report/shard_file.h"

/* Puts the files, at least one, together and writes all reports into the folder out; .diff files are copied
 * there. filter: which tests there should be, as rp_shards_open takes it. results is to be freed with
 * rp_results_free, also after an error, where results->root is NULL or as whole as it could be made. RP_ERR_IO,
 * RP_ERR_MEMORY, RP_ERR_ARGUMENT. */
enum rp_status rp_results_merge(const struct rp_shard_files *files, const char *filter,
                                const char *out, struct rp_results *results, struct rp_error *err);

#endif
