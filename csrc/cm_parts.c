#include "cm_parts.h"

#include <errno.h>
#include <string.h>

#include "cm_clock.h"
#include "cm_record.h"

/* one part: the head and the next bytes, up to `stop` */
static int send_part(int socket, const struct cm_gathered *record, const void *head, size_t head_size, size_t stop,
		     const int *descriptors, unsigned int count)
{
	struct iovec parts[1 + CM_BUFFERS] = { { .iov_base = (void *)head, .iov_len = head_size } };
	size_t n_parts = 1, begin = 0;

	for (size_t i = 0; i < record->n_buffers; i++) {
		size_t end = begin + record->buffers[i].iov_len;
		size_t from = record->at > begin ? record->at : begin, to = stop < end ? stop : end;

		if (from < to) {
			parts[n_parts].iov_base = (char *)record->buffers[i].iov_base + (from - begin);
			parts[n_parts++].iov_len = to - from;
		}
		begin = end;
	}
	return cm_send(socket, parts, n_parts, descriptors, count, CM_NOW);
}

int cm_send_parts(int socket, struct cm_gathered *record, const void *head, size_t head_size, size_t stop,
		  const int *descriptors, unsigned int count, int listen)
{
	if (record->n_buffers > CM_BUFFERS)
		return -EINVAL;
	for (int sent = 0; sent < CM_PARTS; sent++) {
		size_t end = stop - record->at > record->most ? record->at + record->most : stop;
		int error;

		if (listen && cm_wait(socket, POLLIN, CM_NOW) > 0)
			return CM_HEARD;
		error = send_part(socket, record, head, head_size, end, descriptors, count);
		if (error)
			return error;
		record->at = end;
		count = 0;
		if (end == stop)
			return 0;
	}
	return -EINTR;
}

int cm_assembled(const struct cm_assembly *assembly)
{
	return assembly->at == assembly->size && assembly->awaited == 0;
}

/* whether what came is a part of data alone, all of which went to its place */
static int is_next(const struct cm_assembly *assembly, const struct cm_inbox *in, size_t room)
{
	struct cm_head head;

	if (in->lost || in->count > 0 || in->size <= sizeof(head) || in->size - sizeof(head) > room)
		return 0;
	memcpy(&head, in->data, sizeof(head));
	return head.version == CM_VERSION && head.kind == CM_KIND_PART && head.entries == 0 && head.descriptors == 0 &&
	       head.cpu == 0 && head.id == assembly->id;
}

int cm_receive_part(int socket, struct cm_assembly *assembly, struct cm_inbox *in, int64_t deadline)
{
	size_t head = sizeof(struct cm_head), most = in->capacity - head;
	size_t left = assembly->size - assembly->at;
	size_t room = left < most ? left : most;
	char *place = assembly->data + assembly->at, *payload = (char *)in->data + head;
	/* what is no part, and longer than one could be, goes on where it would in the inbox */
	struct iovec parts[] = {
		{ .iov_base = in->data, .iov_len = head },
		{ .iov_base = place, .iov_len = room },
		{ .iov_base = payload + room, .iov_len = most - room },
	};
	int result = cm_receive_into(socket, in, parts, 3, deadline);

	if (result <= 0)
		return result;
	if (is_next(assembly, in, room)) {
		assembly->at += in->size - head;
		assembly->moved = cm_now();
		return CM_PART;
	}
	if (in->size > head)
		memcpy(payload, place, in->size - head < room ? in->size - head : room);
	return result;
}
