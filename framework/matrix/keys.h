/* Reading a JSON object of the matrix: are its keys known, is a value of the type it should be?
 * Every error says where, what was expected and what was found. Knows no key of its own. */
#ifndef REFPARITY_MATRIX_KEYS_H
#define REFPARITY_MATRIX_KEYS_H

#include "base/json.h"

#define RP_SUGGESTION_SIZE 512

/* "an array", "a string", … */
const char *rp_json_type(const cJSON *value);

/* value as a message shows it: its type, and of a string or number what it is. out is
 * [RP_SUGGESTION_SIZE]; returns out. */
const char *rp_json_shown(const cJSON *value, char *out);

/* Writes `; did you mean "x"?` for the nearest of names[n], or else `; there is: a, b, c`, cut to
 * fit out[RP_SUGGESTION_SIZE]; names that are NULL are passed over. Returns out. */
const char *rp_suggest(const char *found, const char *const *names, size_t n, char *out);
/* The same of a key's few values: they are listed in either case. */
const char *rp_suggest_value(const char *found, const char *const *names, size_t n, char *out);

/* Is object an object, and are all of its keys among keys[n]? what names it: "an entry". */
enum rp_status rp_check_keys(const struct rp_json *json, const cJSON *object, const char *what,
                             const char *const *keys, size_t n, struct rp_error *err);

/* object's member key as a non-empty string; *out keeps its value when there is none. *out belongs
 * to json. */
enum rp_status rp_read_string(const struct rp_json *json, const cJSON *object, const char *key,
                              const char **out, struct rp_error *err);
/* The same for true and false, as 1 and 0. */
enum rp_status rp_read_flag(const struct rp_json *json, const cJSON *object, const char *key,
                            int *out, struct rp_error *err);
/* The same for a whole number in [low, high]. */
enum rp_status rp_read_int(const struct rp_json *json, const cJSON *object, const char *key,
                           int low, int high, int *out, struct rp_error *err);

/* Is value an array of min to max elements? */
enum rp_status rp_check_array(const struct rp_json *json, const cJSON *value, const char *key,
                              size_t min, size_t max, size_t *n, struct rp_error *err);

/* Is text a name as the matrix has them: 1 to RP_MATRIX_NAME_MAX bytes of [A-Za-z0-9._-] and
 * those in extra, beginning with a letter or digit, not ending with "_", without "__"? Pairs and
 * reports are named after it, so two different names never give the same file. value is where an
 * error points; what is "the name of an entry". */
enum rp_status rp_check_name(const struct rp_json *json, const cJSON *value, const char *what,
                             const char *text, const char *extra, struct rp_error *err);

/* Index of the first of names[n] that equals an earlier one; n when all differ. *repeated is that
 * index. RP_ERR_MEMORY. */
enum rp_status rp_find_repeated(const char *const *names, size_t n, size_t *repeated,
                                struct rp_error *err);

#endif
