/* How tests are called, and run again. */
#ifndef REFPARITY_REPORT_TEST_NAME_H
#define REFPARITY_REPORT_TEST_NAME_H

#include <stddef.h>

#include "run/context.h"

/* A slot's name in test names: h7 is h07, padded to the width of the last layer's number, at least
 * two digits, so that test runners sort them. out is [RP_SLOT_NAME_SIZE]; returns out. */
char *rp_slot_test_name(const char *slot, int n_layers, char *out);

/* The command that runs a test of the pair or entry of that name again, for a shell, or all of them where
 * test is NULL. Returns buf. */
char *rp_test_command(const struct rp_context *context, const char *name, const char *test,
                      char *buf, size_t size);

#endif
