#include "cm_turn.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "cm_record.h"

/* While polling: tries of the last channel between two looks at all of them, and records in a row. */
enum { TRIES = 4, IN_ROW_MAX = 16 };

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
	int64_t left;

	if (deadline == CM_FOREVER)
		return -1;
	left = deadline - cm_now();
	if (left <= 0)
		return 0;
	left = (left + 999999) / 1000000;
	return left > INT_MAX ? INT_MAX : (int)left;
}

/*
 * Until when a call may take: what it had left when it was sent, less the time since.
 * One that seems to come from the future has its time from now on: its sender may
 * be in another time namespace.  0: that has passed.
 */
static int64_t call_deadline(uint64_t left, uint64_t sent_at)
{
	uint64_t at, waited;

	if (left == CM_NO_LIMIT)
		return CM_FOREVER;
	at = (uint64_t)cm_now();
	waited = at > sent_at ? at - sent_at : 0;
	if (waited >= left)
		return 0;
	left -= waited;
	return left > CM_FOREVER - at ? CM_FOREVER : (int64_t)(at + left);
}

/* what the record in the inbox is to whoever asked, who looks closer at a CM_RECORD */
static int kind_of_record(struct cm_turn *turn)
{
	const struct cm_slot *slot = &turn->slots[turn->slot];
	const struct cm_inbox *in = &turn->inbox;
	struct cm_call_head head;
	int kind;

	if (slot->busy || in->size > slot->room)
		return CM_RECORD;
	kind = cm_completeness(in, CM_KIND_CALL, sizeof(head));
	if (kind == CM_RECORD)
		return CM_RECORD;
	memcpy(&head, in->data, sizeof(head));
	if (head.method_size > in->size - sizeof(head))
		return CM_RECORD;
	turn->deadline = call_deadline(head.time_left, head.sent_at);
	turn->id = head.head.id;
	turn->entries = head.head.entries;
	turn->payload = (unsigned int)sizeof(head) + head.method_size;
	if (turn->deadline == 0)
		return CM_RECORD;
	return kind == CM_DATA && turn->deadline != CM_FOREVER ? CM_DATA_LIMITED : kind;
}

static int read_channel(struct cm_turn *turn, int channel)
{
	int got = cm_receive(channel, &turn->inbox, CM_NOW);

	if (got == -EAGAIN || got == -EINTR)
		return CM_NOTHING;
	if (got < 0)
		turn->status = got;
	if (got <= 0)
		return CM_ENDED;
	turn->taken = turn->slot;
	turn->slots[turn->slot].used = ++turn->records;
	cm_note_cpu(&turn->slots[turn->slot].polling, &turn->inbox);
	return kind_of_record(turn);
}

static int reply(struct cm_turn *turn, const void *payload, size_t size)
{
	const struct cm_slot *slot;
	struct cm_head head = {
		.version = CM_VERSION,
		.kind = CM_KIND_REPLY,
		.cpu = (uint16_t)cm_cpu(),
		.id = turn->id,
	};
	struct iovec parts[] = {
		{ .iov_base = &head, .iov_len = sizeof(head) },
		{ .iov_base = (void *)payload, .iov_len = size },
	};
	int error;

	if (turn->taken < CM_FIRST_CHANNEL || turn->taken >= turn->n_slots)
		return -EBADF;
	slot = &turn->slots[turn->taken];
	/* in one record, or not here */
	if (size + sizeof(head) > slot->room)
		return -EMSGSIZE;
	error = cm_send(slot->descriptor, parts, 2, NULL, 0, CM_NOW);
	if (!error)
		turn->taken = 0;
	return error;
}

/* one event at a time: the kernel queues the ready ones in turn, and nothing here can go stale */
static int next_event(struct cm_turn *turn, int milliseconds)
{
	struct epoll_event event;
	struct cm_slot *slot;
	int ready = lx_epoll_pwait(turn->epoll, &event, 1, milliseconds);

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

/* CM_NOTHING: polling does not pay, or found nothing */
static int poll_last(struct cm_turn *turn)
{
	unsigned int last = turn->slot;
	struct cm_slot *slot = &turn->slots[last];
	int64_t until;

	if (turn->polled) {
		turn->polled = 0;
		return CM_NOTHING;
	}
	if (turn->poll == 0 || last < CM_FIRST_CHANNEL || last >= turn->n_slots)
		return CM_NOTHING;
	if (slot->descriptor < 0 || slot->busy || !cm_polls(&slot->polling))
		return CM_NOTHING;
	until = cm_now() + turn->poll;
	do {
		int event;

		for (unsigned int i = 0; i < TRIES && turn->in_row < IN_ROW_MAX; i++) {
			turn->slot = last;
			event = read_channel(turn, slot->descriptor);
			if (event != CM_NOTHING) {
				cm_poll_found(&slot->polling);
				turn->in_row++;
				return event;
			}
		}
		turn->in_row = 0;
		event = next_event(turn, 0);
		if (event != CM_NOTHING) {
			if (turn->slot == last)
				cm_poll_found(&slot->polling);
			return event;
		}
	} while (cm_now() < until);
	cm_poll_missed(&slot->polling);
	turn->polled = 1;
	return -EINTR;
}

int cm_reply_wait(struct cm_turn *turn, const void *payload, size_t size, int64_t deadline)
{
	int event;

	turn->status = 0;
	if (payload) {
		turn->status = reply(turn, payload, size);
		if (turn->status)
			return CM_UNSENT;
	}
	event = poll_last(turn);
	if (event != CM_NOTHING)
		return event;
	turn->in_row = 0;
	return next_event(turn, milliseconds_until(deadline));
}
