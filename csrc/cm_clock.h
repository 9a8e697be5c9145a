/*
 * cm_clock: the clock of all deadlines
 *
 * Python reads the same one by time.monotonic_ns(); this header is for C alone.
 */
#ifndef CAPMARSHAL_CM_CLOCK_H
#define CAPMARSHAL_CM_CLOCK_H

#include <stdint.h>
#include <time.h>

#include "cm_message.h"

#define CM_SECOND 1000000000
#define CM_MILLISECOND 1000000

/* A reading of CLOCK_MONOTONIC, in nanoseconds. */
static inline int64_t cm_now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (int64_t)time.tv_sec * CM_SECOND + time.tv_nsec;
}

/* A deadline that may be CM_UNLIMITED. */
static inline int64_t cm_until(int64_t deadline)
{
	return deadline == CM_UNLIMITED ? CM_FOREVER : deadline;
}

#endif
