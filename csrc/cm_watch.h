/*
 * cm_watch: what the kernel reports of a server's slots, and who then waits for a turn
 *
 * For cm_turn.c, beside what all of the server has of it: cm_watch(), cm_unwatch(),
 * cm_allow() and cm_hold(), which cm_turn.h documents.
 *
 * A slot that is reported again while it waits, or whose channel is not to be read
 * now (it is then deaf), is reported no more until its turn, or until that changes:
 * so the work for an event does not grow with the number of channels, and a channel
 * that is not read needs no system call.  Where turns take no time, since methods run
 * beside others, the kernel is looked at every few turns, and a slot may be reported
 * again some times: that costs less than two system calls.
 */
#ifndef CAPMARSHAL_CM_WATCH_H
#define CAPMARSHAL_CM_WATCH_H

#include "cm_turn.h"

/*
 * Puts every slot of which the kernel has something to report into its peer's queue, or
 * among its deaf ones: all of them, within reason, for the one that waits longest may be
 * the last.
 *
 * Return: 0, -errno of epoll_pwait(2)
 */
int cm_harvest(struct cm_turn *turn, int milliseconds);

/* Whether what is reported of a slot is for anybody to deal with now. */
int cm_is_heard(const struct cm_turn *turn, const struct cm_slot *slot);

/*
 * Has a slot reported again that was disarmed.
 *
 * Return: 0, -errno of epoll_ctl(2): it will not be reported any more
 */
int cm_arm(struct cm_turn *turn, unsigned int slot);

/* Has a slot reported at most once more, until it is armed. */
void cm_disarm(struct cm_turn *turn, unsigned int slot);

/* Sets a slot aside whose call is not to be read before another one may begin: nothing but its client's end is reported meanwhile. */
void cm_disarm_aside(struct cm_turn *turn, unsigned int slot);

#endif
