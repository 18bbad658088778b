/* How the commands open what people have: names of their own, folders of raw values; and what they say of
 * it. Not for what is then compared. */
#ifndef REFPARITY_CLI_READING_H
#define REFPARITY_CLI_READING_H

#include <cjson/cJSON.h>

#include "base/terminal.h"
#include "refparity/tensor_set.h"
#include "tensor/names.h"

/* "24": positions of each NAME.bin. */
bool rp_cli_parse_rows(const char *text, size_t *n_rows);

/* Width and number of logits of another set, by which the positions of raw files are counted. */
void rp_cli_take_widths(const struct rp_tensor_set *of, struct rp_tensor_set_options *options);

/* Opens reference and dump, each by its own options; one of them, a folder of raw values, by the widths of the
 * other. *reference and *dump are the caller's to close, also where it fails. */
enum rp_status rp_cli_open_both(const char *reference_path,
                                struct rp_tensor_set_options *of_reference, const char *dump_path,
                                struct rp_tensor_set_options *of_dump,
                                struct rp_tensor_set **reference, struct rp_tensor_set **dump,
                                struct rp_error *err);

/* RP_ERR_MISSING, with the line, where a rule of names fits no name of what was opened. names: NULL is allowed. */
enum rp_status rp_cli_check_names(const struct rp_names *names, struct rp_error *err);

/* What was read otherwise than it stands there, a line each: "dump: hidden_states.1 is read as h0". */
void rp_cli_print_notes(const struct rp_terminal *out, const char *side,
                        const struct rp_tensor_set *set);
void rp_cli_add_notes(cJSON *root, const char *key, const struct rp_tensor_set *set);
/* The names of set that are no slots and that other (NULL: none) has not either: "not compared: 3 names that
 * are no slots: …". */
void rp_cli_print_others(const struct rp_terminal *out, const char *side,
                         const struct rp_tensor_set *set, const struct rp_tensor_set *other);
void rp_cli_add_others(cJSON *root, const char *key, const struct rp_tensor_set *set,
                       const struct rp_tensor_set *other);

#endif
