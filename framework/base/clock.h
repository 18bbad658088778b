/* How long something takes. Not for the time of day. */
#ifndef REFPARITY_BASE_CLOCK_H
#define REFPARITY_BASE_CLOCK_H

/* Seconds since some moment that stays the same while the machine runs; never goes back. */
double rp_clock_seconds(void);

#endif
