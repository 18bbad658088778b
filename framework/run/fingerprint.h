/* Has a file, or anything in a folder, changed? By name, size, times and inode, not by content: it
 * is asked by every test. Not for telling contents apart: that is sha256. */
#ifndef REFPARITY_RUN_FINGERPRINT_H
#define REFPARITY_RUN_FINGERPRINT_H

#define RP_FINGERPRINT_SIZE 65

/* Of the file, or of the folder's list of files, at path: hex, or "" when there is nothing to
 * read. ctime counts, which cannot be set by hand. Folders below the folder are not looked into. */
void rp_fingerprint(const char *path, char out[RP_FINGERPRINT_SIZE]);

#endif
