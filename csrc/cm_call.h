/*
 * cm_call: a call as its client makes it
 *
 * It sends its CALL and waits for the answer: in one crossing into C, or, where
 * C must not wait, in two.  What a record means is none of C's business.
 */
#ifndef CAPMARSHAL_CM_CALL_H
#define CAPMARSHAL_CM_CALL_H

#include "cm_event.h"
#include "cm_layout.h"
#include "cm_message.h"
#include "cm_poll.h"

/* What a client keeps for each channel of its own; never its descriptor's number, which a fork makes another's. */
struct cm_caller {
	uint64_t id;                      /* of the last call */
	int64_t poll;                     /* nanoseconds to poll at most before it sleeps; 0: never */
	size_t room;                      /* bytes that one record may have */
	int sent;                         /* out: the last call's record is in the server's queue */
	struct cm_polling polling;
};

/* Nanoseconds for which a call sleeps at first: see cm_call(). */
#define CM_BRIEF 50000000

/*
 * What a CALL brings besides data, in one array: how many lines its table has, how many
 * descriptors go with it, and from CM_FIRST on these.  CM_MAKE_TABLE in place of a number
 * of lines: the table that says of each descriptor that it is one, in their order, is made here.
 */
enum { CM_ENTRIES = 0, CM_COUNT = 1, CM_FIRST = 2, CM_MAKE_TABLE = -1 };

/*
 * Sends one CALL, whose head it makes.
 *
 * `key` is a part of the record: the length of the method's name, the badge, and the
 * name.  `body` is the rest of it, of `size` bytes: table, unless that is made here, and payload; it is not looked at
 * where it does not fit.  `attached` is NULL where that is data alone.  The CALL carries the time that
 * it has left until `travels`, which may be CM_UNLIMITED; its ID is the caller's, plus one for each call, counted
 * also where the send fails, but for -EMSGSIZE.
 *
 * Return: 0, the record is sent, and caller->sent 1; else as cm_send(), and that is 0; -EMSGSIZE, nothing was tried: more
 * bytes than caller->room, or more than CM_DESCRIPTORS
 */
int cm_send_call(int channel, struct cm_caller *caller, const void *key, const void *body, size_t size,
		 const int *attached, int64_t travels, int64_t deadline);

/*
 * Receives the next record after a CALL that is sent.  Polls for `poll` nanoseconds
 * at most before it sleeps, where that pays.
 *
 * Return: the REPLY, told by its size (cm_event.h).  Data alone: its payload stands in in->data from CM_HEAD on;
 * CM_IN_ORDER: a table of in->count lines stands before that; CM_WHOLE: it is to be unpacked.
 * CM_RECORD: a record to be looked at closer; else as cm_receive(); -EINTR also after polling in vain, where a
 * wait would begin: see cm_reply_wait()
 */
int cm_answer(int channel, struct cm_caller *caller, struct cm_inbox *in, int64_t poll, int64_t deadline);

/*
 * Both in one crossing; the deadline may be CM_UNLIMITED.
 *
 * caller->sent tells how far it got: 0, the failure is that of the send, and nothing
 * was sent; 1, the record is sent, and what remains is to cm_answer().
 *
 * It sleeps for CM_BRIEF at most, and says -EINTR then: a signal that came between the two has interrupted nothing, and
 * its handler is to run.  Without a deadline it is the channel's own SO_RCVTIMEO that ends the sleep.
 *
 * Return: as cm_answer(), or, with caller->sent == 0, as cm_send_call()
 */
int cm_call(int channel, struct cm_caller *caller, const void *key, const void *body, size_t size,
	    const int *attached, struct cm_inbox *in, int64_t deadline);

#endif
