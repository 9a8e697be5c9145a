/*
 * cm_turn: a server's turn, one crossing into C per message
 *
 * The server sends its answer and waits for whichever channel speaks next, as
 * L4's reply-and-wait does.  What a record means is none of C's business.
 *
 * While the ring is full, or a peer is, a record that begins a call, or goes on with one,
 * is not read: it waits in its channel, its descriptors in flight on its sender's
 * account, and is gone if its client goes.  What has waited so is read in the order in
 * which it came, one of each peer in its turn.  Whoever has calls wait never polls.
 */
#ifndef CAPMARSHAL_CM_TURN_H
#define CAPMARSHAL_CM_TURN_H

#include "cm_close.h"
#include "cm_event.h"
#include "cm_message.h"
#include "cm_ring.h"

struct cm_turn {
	int epoll;
	int probe;                        /* a descriptor of which a copy does no harm, should somebody fork just then */
	struct cm_ring ring;
	unsigned int slot;                /* out: whose event it is */
	int status;                       /* out: 0, or the -errno of the reply or of the channel that ended */
	unsigned int taken;               /* out: the slot whose record was taken; 0 once that is answered: here, or by the caller, who writes it then */
	int64_t poll;                     /* nanoseconds to poll at most before it sleeps; 0: never */
	int polled;                       /* in vain, and came back for signal handlers to run: sleeps next */
	unsigned int apart;               /* turns between two looks at the kernel while somebody waits for one; 0: it is looked at in each */
	unsigned int since;               /* turns since the last */
	unsigned int harvests;            /* how many looks there were */
	unsigned int most;                /* descriptors that a call may bring which needs no closer look */
	int scarce;                       /* what is being closed may fill the table: look whether there is room before a record is read */
	unsigned int in_row;              /* records that polling found one after the other, without a look at the other channels */
	int64_t row_began;                /* when the first of them was found */
	uint64_t records;                 /* out: how many were taken in all */
	uint64_t id;                      /* out: of the CALL that came last and needs no closer look */
	unsigned int table;               /* out: where in the inbox its table begins, or its payload if it is data alone */
	unsigned int payload;             /* out: where its payload begins */
	int64_t deadline;                 /* out: until when it may take */
	struct cm_descriptors *arguments; /* to be closed before the reply is sent */
	struct cm_descriptors *results;   /* to be sent with it, and closed then; of both lists the places are free when count is 0 */
	struct cm_mounts *mounts;         /* says what may be closed here */
	struct cm_inbox inbox;
};

/*
 * Unless `payload` is NULL: closes the arguments, and sends the REPLY to the call that
 * came last, with the results, without ever waiting for its reader; closes the results.
 * Then waits for the next event.  What may block is not closed: the reply is CM_UNSENT
 * then, with -EBUSY or -ESTALE, or the call is CM_UNSETTLED, and the lists have what is
 * left.  It is CM_UNSENT also with -EMSGSIZE, where it would not fit into one record,
 * with -EBADF, where no record is taken, and with what cm_send() returns.
 *
 * Where it polls, it polls the channel that spoke last, but looks at all of them every
 * few microseconds, and after 16 records in a row.
 *
 * A CALL that is CM_WHOLE, CM_IN_ORDER or data alone is not too late: it has until
 * turn.deadline.  In the inbox, the badge, combined with the slot's secret, and the method
 * stand from CM_CALL_KEY to turn.table,
 * a table in which each line is of a descriptor that came from there to turn.payload,
 * and the payload from there to inbox.size.
 *
 * `known` is what one that came before has from CM_CALL_KEY to turn.table, `known_size` bytes.
 * A CALL of just that which has no deadline and is CM_WHOLE, CM_IN_ORDER or data alone is told
 * by its size (cm_event.h) in place of that.
 *
 * The deadline may be CM_UNLIMITED.
 *
 * Return: enum cm_event, or what tells that size, or -errno of epoll_pwait(2): the reply, if any, was sent then.
 * -EINTR also after polling in vain: a signal that came meanwhile has interrupted
 * nothing, and its handler is to run before anybody sleeps.
 */
int cm_reply_wait(struct cm_turn *turn, const void *payload, size_t size, const void *known, size_t known_size,
		  int64_t deadline);

/*
 * Has a slot's descriptor reported when it is readable; descriptor, kind, mode, room,
 * peer and secret are set, and the generation is new.
 *
 * Return: 0, -errno of epoll_ctl(2)
 */
int cm_watch(struct cm_turn *turn, unsigned int slot);

/* Ends that, before the descriptor is closed, or it would be reported for as long as somebody else holds the socket.  The slot is free then. */
void cm_unwatch(struct cm_turn *turn, unsigned int slot);

/*
 * Changes what a channel's state allows.
 *
 * Return: 0, -errno of epoll_ctl(2): it will not be reported any more
 */
int cm_allow(struct cm_turn *turn, unsigned int slot, int mode);

/*
 * Sends the REPLY to a call whose method ran beside others, where that is data alone
 * and fits into one record, without ever waiting for its reader, and changes what its
 * channel's state allows.
 *
 * Return: 0, or -errno: it was not sent, and nothing has changed
 */
int cm_reply_beside(struct cm_turn *turn, unsigned int slot, uint64_t id, const void *payload, size_t size, int mode);

/* Has a peer begin no calls for now or, where `held` is 0, begin them again: what its channels have brought meanwhile waits for their turns. */
void cm_hold(struct cm_turn *turn, unsigned int peer, int held);

#endif
