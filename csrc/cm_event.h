/*
 * cm_event: what a crossing into C saw happen
 *
 * It says one int.  A record of which there is no more to be told is told by its size, `size` here, from CM_HEAD
 * to CM_RECORD_MAX bytes:
 *
 *     result                    meaning                               cm_answer()    cm_reply_wait()   others
 *     below 0                   -errno                                yes            yes               yes
 *     0 to CM_HEAD - 1          enum cm_event                         the first two  as said there     as they say
 *     size                      what CM_DATA means                    yes            if it is known    no
 *     CM_IN_ORDER_SIZE + size   what CM_IN_ORDER means                yes            if it is known    no
 *     CM_WHOLE_SIZE + size      what CM_WHOLE means                   yes            if it is known    no
 *
 * cm_call() says what cm_answer() does.  The first two events are what cm_receive() returns; the order of the others
 * means nothing.  Python's names for where each range begins are in capmarshal/_kernel/native.py.
 */
#ifndef CAPMARSHAL_CM_EVENT_H
#define CAPMARSHAL_CM_EVENT_H

/* each more bytes than what stands before it can have: CM_RECORD_MAX, at most */
#define CM_IN_ORDER_SIZE 0x1000000
#define CM_WHOLE_SIZE 0x2000000

enum cm_event {
	CM_ENDED = 0,          /* the channel ended */
	CM_RECORD = 1,         /* a record that is to be looked at closer, now in the inbox */
	CM_READY = 2,          /* an own slot of the server is readable, or a channel is writable again */
	CM_UNSENT = 3,         /* the reply was not sent, nothing was waited for: `status` */
	CM_NOTHING = 4,        /* the deadline passed, or somebody else took what there was */
	CM_SCARCE = 5,         /* the next record's descriptors would be lost: the table is full, and something is being closed */
	CM_WHOLE = 6,          /* a CALL or REPLY in one record, with all the descriptors that it announces */
	CM_DATA = 7,           /* the same, data alone; a CALL of that kind has no deadline */
	CM_DATA_LIMITED = 8,   /* a CALL that is data alone and has a deadline */
	CM_PART = 9,           /* a part of a long record, put where it belongs */
	CM_ASSEMBLED = 10,     /* the last one: the long record is whole */
	CM_HEARD = 11,         /* something is to be received before more is sent */
	CM_IN_ORDER = 12,      /* as CM_WHOLE, and its table has one line for each of its descriptors, in their order, and no capability */
	CM_UNSETTLED = 13,     /* the reply is sent, nothing was waited for: closing what went with it may block */
	CM_SPOKEN = 14,        /* something has come on a channel whose method runs: it is watched, and not read */
};

#endif
