/* Removes the reports of an earlier session, which would be taken for this one's. Only what refparity
 * wrote goes: a file is known by its name and by how it begins. Not for writing them: results.h. */
#ifndef REFPARITY_REPORT_OLD_REPORTS_H
#define REFPARITY_REPORT_OLD_REPORTS_H

/* Files that cannot be read or removed stay. */
void rp_remove_old_reports(const char *reports_dir);

#endif
