/*
 * cm_parts: long records, which travel in parts
 *
 * A PART of data alone goes from the kernel to where it belongs in its record, and
 * is nobody's business until the record is whole.  Whatever else comes is left in
 * the inbox, as if nothing were on its way.
 */
#ifndef CAPMARSHAL_CM_PARTS_H
#define CAPMARSHAL_CM_PARTS_H

#include <stdint.h>

#include "cm_event.h"
#include "cm_message.h"

/* A long record on its way in. */
struct cm_assembly {
	char *data;                       /* room for all of it: the caller's */
	size_t size;                      /* bytes of the whole record */
	size_t at;                        /* of these have come */
	unsigned int awaited;             /* descriptors that have not been announced by any part */
	uint64_t id;                      /* of the call */
	int64_t moved;                    /* when the last part came; CLOCK_MONOTONIC, nanoseconds */
};

/* How many buffers a long record on its way out may lie in, and parts of it that are sent in one crossing. */
enum { CM_BUFFERS = 4, CM_PARTS = 16 };

/* A long record on its way out. */
struct cm_gathered {
	const struct iovec *buffers;      /* its bytes lie in these, one after the other: the caller's */
	size_t n_buffers;
	size_t most;                      /* bytes of a part, without its head */
	size_t at;                        /* of the record's bytes, these are sent */
};

/*
 * Sends the bytes up to `stop`, without waiting: in one part, or in more where they
 * are more than one may have.  Each has the same head; the descriptors, which are
 * borrowed, go with the first.  `listen`: only as long as nothing is to be received.
 *
 * record->at tells how far it got; on a failure, the rest is for another call.
 *
 * Return: 0: all of them are sent
 *         CM_HEARD: something is to be received, or the channel has ended
 *         -EINTR: CM_PARTS parts are sent, and the caller may have something else to do
 *         -EINVAL: more than CM_BUFFERS
 *         -errno as cm_send() else
 */
int cm_send_parts(int socket, struct cm_gathered *record, const void *head, size_t head_size, size_t stop,
		  const int *descriptors, unsigned int count, int listen);

/* Whether all of a record has come. */
int cm_assembled(const struct cm_assembly *assembly);

/*
 * Receives one record of a channel that a long record comes by.
 *
 * Return: CM_PART: it was the next part, of data alone, and is where it belongs
 *         else as cm_receive(): 1 is a record, in the inbox
 */
int cm_receive_part(int socket, struct cm_assembly *assembly, struct cm_inbox *in, int64_t deadline);

#endif
