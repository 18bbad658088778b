/* The results of shards, as other machines have written them: finds shard.json and results.json, reads and
 * checks them. Their bytes are a stranger's. Not for putting them together: merge.h. */
#ifndef REFPARITY_REPORT_SHARD_FILE_H
#define REFPARITY_REPORT_SHARD_FILE_H

#include "base/json.h"
#include "run/context.h"

struct rp_shard_file {
    char path[RP_PATH_SIZE];
    char folder[RP_PATH_SIZE]; /* of it, where its .diff files are */
    struct rp_json *doc;       /* owned */
    struct rp_shard shard;     /* 0 of 0: of a run that was not divided */
};

struct rp_shard_files {
    struct rp_shard_file *list; /* [n]; owned */
    size_t n;
};

/* Adds what is in source: a file; or a folder, which is searched, 8 folders deep, a build tree in its reports
 * alone. Where there is a shard.json in it, every results.json is passed over: it says less, or is of another
 * run. The files of the folder out, which may be one of those searched, are left out. After an error, too, files
 * is to be freed with rp_shard_files_free. RP_ERR_MISSING: there is no such file; RP_ERR_FORMAT: it is not the
 * results of a run; RP_ERR_MISMATCH: of another matrix or version of refparity, or of another division into
 * shards than the first. */
enum rp_status rp_shard_files_add(struct rp_shard_files *files, const char *source, const char *out,
                                  struct rp_error *err);
void rp_shard_files_free(struct rp_shard_files *files);

#endif
