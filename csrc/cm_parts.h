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

/* What a record on its way out may lie in. */
enum { CM_BUFFERS = 4 };

/*
 * Sends a head and the bytes from `start` up to `stop` of a record that lies in up to
 * CM_BUFFERS buffers, as one record, without waiting.
 *
 * Return: as cm_send()
 */
int cm_send_part(int socket, const void *head, size_t head_size, const struct iovec *buffers, size_t n_buffers,
		 size_t start, size_t stop, const int *descriptors, unsigned int count);

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
