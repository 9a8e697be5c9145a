/*
 * cm_fork: a fork as one step to signal handlers
 *
 * What a handler raises in a function that os.fork() calls is swallowed, and the rest of that
 * function is not done: a child would keep what is its parent's, and a lock for ever.  So signals
 * wait from before the fork until these functions have run, and their handlers run when os.fork()
 * returns.  In C, for signal.pthread_sigmask() would run them itself.
 */
#ifndef CAPMARSHAL_CM_FORK_H
#define CAPMARSHAL_CM_FORK_H

/* In the thread that forks, before it does. */
void cm_hold_signals(void);

/* Ends that, in the parent and in the child. */
void cm_release_signals(void);

#endif
