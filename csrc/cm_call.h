/*
 * cm_call: the path of a call, one crossing into C per message
 *
 * The client sends its CALL and waits for the answer: cm_call().  The server
 * sends its answer and waits for whichever channel speaks next: cm_reply_wait(),
 * as L4's reply-and-wait does.  What a record means is none of C's business.
 */
#ifndef CAPMARSHAL_CM_CALL_H
#define CAPMARSHAL_CM_CALL_H

#include "cm_message.h"
#include "cm_poll.h"

/* What a client keeps for each channel of its own. */
struct cm_caller {
	uint64_t id;                      /* of the last call */
	int64_t poll;                     /* nanoseconds to poll at most before it sleeps; 0: never */
	struct cm_polling polling;
};

/*
 * Beside what cm_receive() returns.  CM_WHOLE: the REPLY came, with all the descriptors
 * that it announces.  CM_DATA: the REPLY came, and is data alone: its payload stands in
 * in->data from CM_HEAD to in->size.
 */
#define CM_WHOLE 7
#define CM_DATA 8
/* bytes of every record's head, and of a CALL's up to the badge: capmarshal/_wire.py */
#define CM_HEAD 16
#define CM_CALL_KEY 34

/*
 * Client: sends one CALL, whose head it makes, and receives the next record.
 *
 * `table` and `payload` stand one after the other in `body`.  A CALL carries the
 * time that it has left until `deadline`; its ID is the caller's, plus one for each
 * call, counted also where the send fails.
 *
 * in->sent tells how far it got: 0, the failure is that of the send, and nothing
 * was sent; 1, the record is sent, and what remains is to cm_receive().
 *
 * Return: CM_WHOLE, CM_DATA, as cm_receive(), or, with in->sent == 0, as cm_send();
 * -EINTR with in->sent == 1 also after polling in vain: see cm_reply_wait()
 */
int cm_call(int channel, struct cm_caller *caller, const void *badge, const void *method, size_t method_size,
	    const void *body, size_t body_size, unsigned int entries,
	    const int *descriptors, unsigned int count, struct cm_inbox *in, int64_t deadline);

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
 * What cm_reply_wait() saw happen.  CM_WHOLE: the slot's channel brought a CALL in one
 * record, with all the descriptors that it announces, and not too late: it has until
 * turn.deadline.  In the inbox, badge and method stand from CM_CALL_KEY to
 * turn.payload, table and payload from there to inbox.size.  CM_DATA: such a CALL that
 * is data alone and has no deadline; CM_DATA_LIMITED: that is data alone and has one.
 * No other event is greater.
 */
#define CM_ENDED 0                        /* the slot's channel ended */
#define CM_RECORD 1                       /* the slot's channel brought any other record, now in the inbox */
#define CM_READY 2                        /* an own slot is readable, or a channel is writable again */
#define CM_UNSENT 3                       /* the reply was not sent, nothing was waited for: `status` */
#define CM_NOTHING 4                      /* the deadline passed, or somebody else took what there was */
#define CM_DATA_LIMITED 9

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
 * Return: CM_*, or -errno of epoll_pwait(2): the reply, if any, was sent then.  -EINTR
 * also after polling in vain: a signal that came meanwhile has interrupted nothing, and
 * its handler is to run before anybody sleeps.
 */
int cm_reply_wait(struct cm_turn *turn, const void *payload, size_t size, int64_t deadline);

/* The data of an epoll event for a slot. */
int cm_watch(const struct cm_turn *turn, unsigned int slot, int operation, unsigned int events);

/*
 * Who is behind each descriptor: the cookie of an AF_UNIX SEQPACKET socket, 0 for
 * anything else.  A cookie alone proves nothing of the kind: files have none, but
 * TCP sockets do.
 */
void cm_identify(const int *descriptors, unsigned int count, uint64_t *cookies);

/* The cookie of any socket, 0 for what is none. */
uint64_t cm_cookie(int descriptor);

#endif
