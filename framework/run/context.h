/* What a build tree knows of its matrix: where things lie and what the environment asks for.
 * One file, config.json, carries it from CMake to every program that ctest starts. */
#ifndef REFPARITY_RUN_CONTEXT_H
#define REFPARITY_RUN_CONTEXT_H

#include "refparity/matrix.h"
#include "run/fingerprint.h"
#include "run/seal.h"
#include "run/shard.h"

#define RP_PATH_SIZE 4096

struct rp_target {
    const char *name; /* of a CMake target */
    const char *path; /* of the program that it builds */
};

/* What was there when the ctest run under way began: session_inputs.h. */
struct rp_begun {
    char session[40];
    char state[RP_FINGERPRINT_SIZE]; /* as the context's */
    char matrix_sha256[65], config_sha256[65];
};

/* Open with rp_context_open, close with rp_context_close; everything in it is owned by it. */
struct rp_context {
    char config_path[RP_PATH_SIZE];
    struct rp_matrix *matrix;
    const char *prefix;    /* of test names, "" or ending in '/' */
    const char *build_dir; /* for `ctest --test-dir` */
    /* a folder per pair below it. Each shard has its own, shards/2-of-5 below that of config.json, with a
     * session of its own: shards of one tree may run at once. Likewise its reports. */
    const char *work_dir;
    const char *reports_dir;
    struct rp_shard shard;      /* REFPARITY_SHARD; 0 of 0: all */
    const char *record_command; /* what records a fixture, for messages */
    const char *tool;           /* the program refparity; NULL when config.json has none */
    const char **stores;        /* [n_stores] roots, in the order in which they are looked into */
    size_t n_stores;
    struct rp_target *targets; /* [n_targets] */
    size_t n_targets;
    const char *models_dir; /* where GGUFs are looked for first: user_models; NULL when not known */
    int require;            /* REFPARITY_REQUIRE: what is missing is an ERROR, not a SKIP */
    int reuse;              /* REFPARITY_REUSE_DUMPS: keep a dump whose inputs are the same */
    char session[40];       /* of the ctest run under way; "" when there is none */
    char state[RP_FINGERPRINT_SIZE]; /* of config.json and the matrix, before they were read */
    char key[RP_SEAL_KEY_SIZE];      /* of the build tree; "" when there is none: seal.h */
    struct rp_begun begun;           /* private: of the session */
    struct rp_json *config;          /* private */
    char shard_work[RP_PATH_SIZE], shard_reports[RP_PATH_SIZE]; /* private */
    char user_store[RP_PATH_SIZE];  /* private: REFPARITY_STORE or its default */
    char user_models[RP_PATH_SIZE]; /* private: REFPARITY_MODELS or its default */
};

/* config.json: {"matrix", "matrix_sha256" (not required), "prefix", "build_dir", "work_dir", "reports_dir", "record_command",
 * "tool" (not required), "stores": [...], "targets": {name: path}}, all paths absolute. Errors: those of
 * the JSON and of the matrix; RP_ERR_ARGUMENT: REFPARITY_SHARD is none; RP_ERR_MISMATCH where it does not lie in its build_dir, or where something
 * else has written the session under way. */
enum rp_status rp_context_open(const char *config_path, struct rp_context *context,
                               struct rp_error *err);
void rp_context_close(struct rp_context *context);

/* Begins a session: results of earlier ctest runs no longer count in summaries. RP_ERR_MISMATCH when the
 * matrix is not the one that was configured. One that cannot be read is no error here: every test of it
 * reports that. reports_dir[RP_PATH_SIZE] is where reports of earlier runs are. */
enum rp_status rp_context_begin_session(const char *config_path, char *reports_dir,
                                        struct rp_error *err);

/* The entry's GGUF, path[RP_PATH_SIZE], and its fingerprint; "" and "" where there is none. */
void rp_context_model_file(const struct rp_context *context, const struct rp_entry *entry,
                           char *path, char state[RP_FINGERPRINT_SIZE]);

/* The files of one pair. */
struct rp_pair_paths {
    char dir[RP_PATH_SIZE];
    char dump[RP_PATH_SIZE];        /* folder of the last run's dump, once that run is over */
    char record[RP_PATH_SIZE];      /* run.json: what happened when the engine ran */
    char result[RP_PATH_SIZE];      /* result.json: what the comparison found */
    char verdicts[RP_PATH_SIZE];    /* folder: what each test found, see stored.h */
    char log[RP_PATH_SIZE];         /* what the engine printed */
    char tokens_file[RP_PATH_SIZE]; /* a decimal id per line */
    char prompt_file[RP_PATH_SIZE];
    char diff[RP_PATH_SIZE]; /* reports/<entry>__p<idx>.diff */
};
/* RP_ERR_ARGUMENT when a path gets too long. */
enum rp_status rp_pair_paths(const struct rp_context *context, const struct rp_pair *pair,
                             struct rp_pair_paths *paths, struct rp_error *err);

/* A boolean environment variable: unset, "" and "0" are false. */
int rp_env_flag(const char *name);

#endif
