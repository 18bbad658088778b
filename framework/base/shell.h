/* Words for a shell, in command lines that a message offers. Nothing here runs one. */
#ifndef REFPARITY_BASE_SHELL_H
#define REFPARITY_BASE_SHELL_H

#include <stddef.h>

/* Appends text as one word at buf[*used], in quotes where a shell would read anything into it, on one
 * line whatever it holds; cut to fit buf[size]. */
void rp_shell_append(char *buf, size_t size, size_t *used, const char *text);

/* The same into an empty buf; returns it. */
char *rp_shell_quote(const char *text, char *buf, size_t size);

#endif
