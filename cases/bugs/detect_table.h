/* The table of what detect's lines of CSV say (their format is in detect.c), and whether the goals are
 * met. Not for running trials. */
#ifndef REFPARITY_CASES_DETECT_TABLE_H
#define REFPARITY_CASES_DETECT_TABLE_H

#include <stdbool.h>
#include <stddef.h>

#define RP_DETECT_HEADER                                                               \
    "ground,slots,weights,arch,kind,magnitude,layer,mode,above,detected,layers_right," \
    "operation_right,position_right,name_given,name_right,ratio,pos0_rule,rule_5pct"

enum rp_detect_format {
    RP_DETECT_TEXT, /* everything, and the goals */
    RP_DETECT_JSON,
    RP_DETECT_MARKDOWN /* the totals */
};

/* Prints it to stdout. Returns an exit
 * code: 0; 1 for text with must_pass where a goal is missed; 2 where a file cannot be read or holds no trial. */
int rp_detect_table(char **files, size_t n_files, enum rp_detect_format format, bool must_pass);

#endif
