/* What refparity keeps in a build tree is sealed with a key of that tree: a file that something else wrote,
 * or changed, is told from its own. An engine is not given the key, but runs as the same user, and may
 * look for it: this is for accidents and simple forgeries, not for secrets. */
#ifndef REFPARITY_RUN_SEAL_H
#define REFPARITY_RUN_SEAL_H

#include "base/json.h"

#define RP_SEAL_KEY_SIZE 65

/* The key of the build tree whose folder this is, made where there is none; of several processes that make it at
 * once, all get the same. RP_ERR_IO. */
enum rp_status rp_seal_make_key(const char *work_dir, char key[RP_SEAL_KEY_SIZE],
                                struct rp_error *err);
/* "" where there is none: nothing has begun in this tree. */
void rp_seal_read_key(const char *work_dir, char key[RP_SEAL_KEY_SIZE]);

/* The seal of text as that of what, which says which of the files it is: "result of tiny/p0". */
void rp_seal_of(const char *key, const char *what, const char *text, size_t length, char seal[65]);

/* Writes text, a JSON object as cJSON prints it, with the seal as its first member. Takes text, which may
 * be NULL where memory was short. */
enum rp_status rp_seal_write(const char *key, const char *what, const char *path, char *text,
                             struct rp_error *err);

/* *doc is to be freed with rp_json_free. RP_ERR_MISSING: no such file. RP_ERR_MISMATCH: refparity did not
 * write it, or it has been changed since. */
enum rp_status rp_seal_read(const char *key, const char *what, const char *path,
                            struct rp_json **doc, struct rp_error *err);

#endif
