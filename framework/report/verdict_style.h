/* The colour of a verdict, by its name. */
#ifndef REFPARITY_REPORT_VERDICT_STYLE_H
#define REFPARITY_REPORT_VERDICT_STYLE_H

#include <stddef.h>
#include <string.h>

#include "base/terminal.h"

/* Of "PASS", "FAIL" … as rp_verdict_name has them; RP_STYLE_PLAIN for another text. */
static inline enum rp_style rp_verdict_style(const char *name)
{
    static const struct {
        const char *name;
        enum rp_style style;
    } known[] = {{"PASS", RP_STYLE_GOOD},      {"FAIL", RP_STYLE_BAD},
                 {"ERROR", RP_STYLE_BAD},      {"MARGINAL", RP_STYLE_NOTABLE},
                 {"XFAIL", RP_STYLE_NOTABLE},  {"SKIP", RP_STYLE_NOTABLE},
                 {"WARNING", RP_STYLE_NOTABLE}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(name, known[i].name) == 0)
            return known[i].style;
    return RP_STYLE_PLAIN;
}

#endif
