/* The warnings of results.json (compare/warnings.h), for those that print them. */
#ifndef REFPARITY_REPORT_WARNINGS_H
#define REFPARITY_REPORT_WARNINGS_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

/* Those of one kind and one entry. */
struct rp_warning_group {
    char name[320];    /* the pair's, or "<entry> (3 pairs)", or the entry's */
    const char *kind;  /* "logits-size" */
    char message[512]; /* of the first, with its slot */
};

/* Calls see for each group, in the order of results.json; returns the number of warnings. */
size_t rp_report_warnings(const cJSON *results,
                          void (*see)(void *context, const struct rp_warning_group *group),
                          void *context);

#endif
