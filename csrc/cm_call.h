/*
 * cm_call: a call as its client makes it, one crossing into C
 *
 * It sends its CALL and waits for the answer.  What a record means is none of
 * C's business.
 */
#ifndef CAPMARSHAL_CM_CALL_H
#define CAPMARSHAL_CM_CALL_H

#include "cm_event.h"
#include "cm_message.h"
#include "cm_poll.h"

/* What a client keeps for each channel of its own. */
struct cm_caller {
	uint64_t id;                      /* of the last call */
	int64_t poll;                     /* nanoseconds to poll at most before it sleeps; 0: never */
	struct cm_polling polling;
};

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
 * Return: CM_WHOLE, or CM_DATA, whose payload stands in in->data from CM_HEAD to in->size;
 * else as cm_receive(), or, with in->sent == 0, as cm_send();
 * -EINTR with in->sent == 1 also after polling in vain: see cm_reply_wait()
 */
int cm_call(int channel, struct cm_caller *caller, const void *badge, const void *method, size_t method_size,
	    const void *body, size_t body_size, unsigned int entries,
	    const int *descriptors, unsigned int count, struct cm_inbox *in, int64_t deadline);

#endif
