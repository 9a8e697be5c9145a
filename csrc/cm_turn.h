/*
 * cm_turn: a server's turn, one crossing into C per message
 *
 * The server sends its answer and waits for whichever channel speaks next, as
 * L4's reply-and-wait does.  What a record means is none of C's business.
 */
#ifndef CAPMARSHAL_CM_TURN_H
#define CAPMARSHAL_CM_TURN_H

#include "cm_event.h"
#include "cm_message.h"
#include "cm_poll.h"

/* Where a server keeps a channel.  An event names slot and generation, never a descriptor, whose number may be another's by then. */
struct cm_slot {
	int descriptor;                   /* -1: free */
	unsigned int generation;
	unsigned int room;                /* bytes that a record to it, and a CALL of it, may have */
	struct cm_polling polling;
	int busy;                         /* not read, or more than single records is going on: not polled, and no record is CM_WHOLE */
	uint64_t used;                    /* when it was last heard of: a reading of cm_turn.records */
};

/* Slots below this one are the entrypoint's own (its door, its wake-up): reported, never read here. */
#define CM_FIRST_CHANNEL 2

/*
 * A CALL that is CM_WHOLE is not too late: it has until turn.deadline.  In the inbox,
 * badge and method stand from CM_CALL_KEY to turn.payload, table and payload from there
 * to inbox.size.
 */
struct cm_turn {
	int epoll;
	struct cm_slot *slots;
	unsigned int n_slots;
	unsigned int slot;                /* out: whose event it is */
	int status;                       /* out: 0, or the -errno of the reply or of the channel that ended */
	unsigned int taken;               /* out: the slot whose record was taken; 0 when that is answered, by a reply sent here or the caller */
	int64_t poll;                     /* nanoseconds to poll at most before it sleeps; 0: never */
	int polled;                       /* in vain, and came back for signal handlers to run: sleeps next */
	unsigned int in_row;              /* records that polling found one after the other, without a look at the other channels */
	uint64_t records;                 /* out: how many were taken in all */
	uint64_t id;                      /* out: of the CALL that is whole */
	unsigned int entries;             /* out: of its table */
	unsigned int payload;             /* out: where its table begins, or its payload if it is data alone */
	int64_t deadline;                 /* out: until when that may take */
	struct cm_inbox inbox;
};

/*
 * Server: sends the REPLY to the call that came last, if that was data alone, unless
 * `payload` is NULL, without ever waiting for its reader; then waits for the next
 * event.  Where it polls, it polls the channel that spoke last, but looks at all of
 * them every few microseconds, and after 16 records in a row.
 *
 * Return: enum cm_event, or -errno of epoll_pwait(2): the reply, if any, was sent then.  -EINTR
 * also after polling in vain: a signal that came meanwhile has interrupted nothing, and
 * its handler is to run before anybody sleeps.
 */
int cm_reply_wait(struct cm_turn *turn, const void *payload, size_t size, int64_t deadline);

/* The data of an epoll event for a slot. */
int cm_watch(const struct cm_turn *turn, unsigned int slot, int operation, unsigned int events);

#endif
