#include "cm_fork.h"

#include <signal.h>
#include <stddef.h>

/* of the thread that forks, in which all of it happens */
static _Thread_local sigset_t before;

void cm_hold_signals(void)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
}

void cm_release_signals(void)
{
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}
