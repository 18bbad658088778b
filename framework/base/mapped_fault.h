/* A mapped file that another process makes shorter while it is read raises SIGBUS. For the programs of
 * the project; not for the library, which leaves signals to its caller. */
#ifndef REFPARITY_BASE_MAPPED_FAULT_H
#define REFPARITY_BASE_MAPPED_FAULT_H

/* From now on such a fault ends the process with exit code 2 and, on stderr, the file's name (on Linux).
 * Any other SIGBUS does what it did before. What is still buffered in stdout is lost. */
void rp_report_mapped_faults(void);

#endif
