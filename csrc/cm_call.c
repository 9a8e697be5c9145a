#include "cm_call.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>

int cm_call(int channel, const void *data, size_t size,
	    const int *descriptors, unsigned int count, struct cm_inbox *in, int64_t deadline)
{
	struct iovec part = { .iov_base = (void *)data, .iov_len = size };
	int error;

	in->sent = 0;
	error = cm_send(channel, &part, 1, descriptors, count, deadline);
	if (error)
		return error;
	in->sent = 1;
	return cm_receive(channel, in, deadline);
}

static uint64_t event_data(unsigned int slot, unsigned int generation)
{
	return (uint64_t)generation << 32 | slot;
}

int cm_watch(const struct cm_turn *turn, unsigned int slot, int operation, unsigned int events)
{
	const struct cm_slot *watched = &turn->slots[slot];
	struct epoll_event event = {
		.events = events,
		.data.u64 = event_data(slot, watched->generation),
	};

	return lx_epoll_ctl(turn->epoll, operation, watched->descriptor, &event);
}

static int milliseconds_until(int64_t deadline)
{
	struct timespec time;
	int64_t left;

	if (deadline == CM_FOREVER)
		return -1;
	clock_gettime(CLOCK_MONOTONIC, &time);
	left = deadline - ((int64_t)time.tv_sec * 1000000000 + time.tv_nsec);
	if (left <= 0)
		return 0;
	left = (left + 999999) / 1000000;
	return left > INT_MAX ? INT_MAX : (int)left;
}

static int read_channel(struct cm_turn *turn, int channel)
{
	int got = cm_receive(channel, &turn->inbox, CM_NOW);

	if (got == -EAGAIN || got == -EINTR)
		return CM_NOTHING;
	if (got < 0)
		turn->status = got;
	if (got > 0)
		turn->taken = turn->slot;
	return got > 0 ? CM_RECORD : CM_ENDED;
}

int cm_reply_wait(int channel, const void *data, size_t size,
		  const int *descriptors, unsigned int count, struct cm_turn *turn, int64_t deadline)
{
	struct epoll_event event;
	struct cm_slot *slot;
	int ready;

	turn->status = 0;
	if (data) {
		struct iovec part = { .iov_base = (void *)data, .iov_len = size };

		turn->status = cm_send(channel, &part, 1, descriptors, count, CM_NOW);
		if (turn->status)
			return CM_UNSENT;
	}

	/* one event at a time: the kernel queues the ready ones in turn, and nothing here can go stale */
	ready = lx_epoll_pwait(turn->epoll, &event, 1, milliseconds_until(deadline));
	if (ready < 0)
		return ready;
	if (ready == 0)
		return CM_NOTHING;

	turn->slot = (unsigned int)event.data.u64;
	if (turn->slot >= turn->n_slots)
		return CM_NOTHING;
	slot = &turn->slots[turn->slot];
	if (slot->descriptor < 0 || slot->generation != event.data.u64 >> 32)
		return CM_NOTHING;
	if (turn->slot < CM_FIRST_CHANNEL || event.events & EPOLLOUT)
		return CM_READY;
	return read_channel(turn, slot->descriptor);
}

static int integer_option(int descriptor, int option)
{
	int value = 0;
	unsigned int length = sizeof(value);
	int error = lx_getsockopt(descriptor, SOL_SOCKET, option, &value, &length);

	return error < 0 ? error : value;
}

void cm_identify(const int *descriptors, unsigned int count, uint64_t *cookies)
{
	for (unsigned int i = 0; i < count; i++) {
		unsigned int length = sizeof(cookies[i]);

		cookies[i] = 0;
		if (integer_option(descriptors[i], SO_DOMAIN) != AF_UNIX)
			continue;
		if (integer_option(descriptors[i], SO_TYPE) != SOCK_SEQPACKET)
			continue;
		if (lx_getsockopt(descriptors[i], SOL_SOCKET, SO_COOKIE, &cookies[i], &length) < 0)
			cookies[i] = 0;
	}
}

int cm_closes_quickly(int descriptor)
{
	return lx_fcntl(descriptor, F_GETPIPE_SZ, 0) >= 0 || lx_fcntl(descriptor, F_GET_SEALS, 0) >= 0;
}
