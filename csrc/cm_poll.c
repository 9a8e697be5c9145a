#define _GNU_SOURCE
#include "cm_poll.h"

#include <sched.h>

/* after the second miss in a row 2 waits without polling, then 4, 8... up to 1,024 */
enum { MISSES_MAX = 10 };

unsigned int cm_cpu(void)
{
	int cpu = sched_getcpu();

	return cpu < 0 || cpu >= UINT16_MAX ? 0 : (unsigned int)cpu + 1;
}

int cm_polls(struct cm_polling *polling)
{
	if (polling->peer == 0 || polling->peer == cm_cpu())
		return 0;
	if (polling->skip > 0) {
		polling->skip--;
		return 0;
	}
	return 1;
}

void cm_poll_found(struct cm_polling *polling)
{
	polling->misses = 0;
}

void cm_poll_missed(struct cm_polling *polling)
{
	if (polling->misses > 0)
		polling->skip = (uint16_t)(1u << polling->misses);
	if (polling->misses < MISSES_MAX)
		polling->misses++;
}
