/* JUnit XML in the form of Jenkins' junit-10.xsd, which GitLab and others read too: a testsuite per
 * pair, a testcase per required slot; then one per entry, with its weights test, and where it is _disabled. A
 * warning is its slot's system-out. That form has no place for metrics, file or line in a
 * testcase: those of required slots are properties of the suite ("h07.L2_rel"), and file and line open
 * the failure's text. All other slots' metrics are in results.json alone. A testcase's time is what its
 * test took, to which `engine` adds the engine's run. */
#ifndef REFPARITY_REPORT_JUNIT_H
#define REFPARITY_REPORT_JUNIT_H

#include <cjson/cJSON.h>
#include <stdio.h>

/* results: the root of results.json. The caller checks ferror(out). */
void rp_report_junit(FILE *out, const cJSON *results);

#endif
