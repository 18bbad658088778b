/* What the tests of a pair have found, kept for its `report`: a file per test in the pair's folder,
 * verdicts/h7.json. A file is believed only while everything that its verdict rests on is the same; else
 * the report computes that verdict itself, as it does where none could be written. One that no test wrote
 * (seal.h) is an error. Not for results: that is result.json. */
#ifndef REFPARITY_RUN_STORED_H
#define REFPARITY_RUN_STORED_H

#include "base/json_fields.h"
#include "run/judge.h"
#include "run/judge_replay.h"

/* seconds: what the test took. The readers return RP_ERR_MISSING (not stored), RP_ERR_MISMATCH (stored of
 * another run, fixture, dump, model file or matrix), RP_ERR_FORMAT (damaged, forged, of another version). */
enum rp_status rp_store_engine(const struct rp_judge *judge, const struct rp_judgement *judgement,
                               double seconds, struct rp_error *err);
enum rp_status rp_stored_engine(const struct rp_judge *judge, struct rp_judgement *judgement,
                                double *seconds, struct rp_error *err);

enum rp_status rp_store_tokens(const struct rp_judge *judge, const struct rp_tokens_result *result,
                               double seconds, struct rp_error *err);
enum rp_status rp_stored_tokens(const struct rp_judge *judge, struct rp_tokens_result *result,
                                double *seconds, struct rp_error *err);

/* All that is compared for a slot's test; slot and result are not stored, they follow from it. What is
 * read is freed with rp_slot_test_free. */
enum rp_status rp_store_slot(const struct rp_judge *judge, const char *slot,
                             const struct rp_slot_test *test, struct rp_error *err);
enum rp_status rp_stored_slot(const struct rp_judge *judge, const char *slot,
                              struct rp_slot_test *test, struct rp_error *err);

/* What is read is freed with rp_replay_result_free. */
enum rp_status rp_store_replay(const struct rp_judge *judge, const struct rp_replay_result *result,
                               struct rp_error *err);
enum rp_status rp_stored_replay(const struct rp_judge *judge, const char *slot,
                                struct rp_replay_result *result, struct rp_error *err);

/* ---- the file itself, for the above ---- */

/* Takes content, which may be NULL where memory was short, and writes it as the verdict of test: "h7",
 * "replay-h7". */
enum rp_status rp_stored_write(const struct rp_judge *judge, const char *test, double seconds,
                               cJSON *content, struct rp_error *err);

/* *doc is to be freed with rp_json_free; *content is part of it. */
enum rp_status rp_stored_read(const struct rp_judge *judge, const char *test, double *seconds,
                              struct rp_json **doc, const cJSON **content, struct rp_error *err);

#endif
