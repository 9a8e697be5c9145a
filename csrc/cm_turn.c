#include "cm_turn.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "cm_clock.h"
#include "cm_read.h"
#include "cm_record.h"
#include "cm_watch.h"

/* While polling: tries of the last channel between two looks at all of them, and records in a row. */
enum { TRIES = 4, IN_ROW_MAX = 16 };

static int milliseconds_until(int64_t deadline)
{
	int64_t left;

	if (deadline == CM_FOREVER)
		return -1;
	left = deadline - cm_now();
	if (left <= 0)
		return 0;
	/* rounded up: who woke before it would come again, and again */
	left = (left + CM_MILLISECOND - 1) / CM_MILLISECOND;
	return left > INT_MAX ? INT_MAX : (int)left;
}

/* 0: all of the list is closed; -EBUSY, -ESTALE: something in it may block, or is not known not to */
static int close_here(struct cm_turn *turn, struct cm_descriptors *list)
{
	int left;

	if (list->count == 0)
		return 0;
	left = cm_close_quick(list, turn->mounts);
	if (left == 0)
		list->count = 0;
	return left > 0 ? -EBUSY : left;
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
	struct cm_descriptors *results = turn->results;
	struct cm_line table[CM_DESCRIPTORS];
	struct iovec parts[] = {
		{ .iov_base = &head, .iov_len = sizeof(head) },
		{ .iov_base = table, .iov_len = results->count * sizeof(*table) },
		{ .iov_base = (void *)payload, .iov_len = size },
	};
	int error;

	if (turn->taken == 0 || turn->taken >= turn->ring.n_slots)
		return -EBADF;
	error = close_here(turn, turn->arguments);
	if (error)
		return error;
	slot = &turn->ring.slots[turn->taken];
	/* in one record, or not here */
	if (results->count > CM_DESCRIPTORS || sizeof(head) + parts[1].iov_len + size > slot->room)
		return -EMSGSIZE;
	head.entries = head.descriptors = (uint16_t)results->count;
	cm_write_table(table, results->count);
	return cm_send(slot->descriptor, parts, 3, results->numbers, results->count, CM_NOW);
}

int cm_reply_beside(struct cm_turn *turn, unsigned int slot, uint64_t id, const void *payload, size_t size, int mode)
{
	struct cm_head head = {
		.version = CM_VERSION,
		.kind = CM_KIND_REPLY,
		.cpu = (uint16_t)cm_cpu(),
		.id = id,
	};
	struct iovec parts[] = {
		{ .iov_base = &head, .iov_len = sizeof(head) },
		{ .iov_base = (void *)payload, .iov_len = size },
	};
	int error;

	/* none is there in a forked child */
	if (slot >= turn->ring.n_slots)
		return -EBADF;
	if (sizeof(head) + size > turn->ring.slots[slot].room)
		return -EMSGSIZE;
	error = cm_send(turn->ring.slots[slot].descriptor, parts, 2, NULL, 0, CM_NOW);
	return error ? error : cm_allow(turn, slot, mode);
}

/* what has happened on a channel that is written to, or only watched */
static int happened(const struct cm_slot *slot, unsigned int events)
{
	if (slot->mode & CM_WRITES)
		return events & (EPOLLOUT | EPOLLHUP | EPOLLERR) ? CM_READY : CM_NOTHING;
	return events & EPOLLHUP ? CM_ENDED : CM_SPOKEN;
}

static int deal_with(struct cm_turn *turn, unsigned int slot)
{
	struct cm_slot *dealt = &turn->ring.slots[slot];
	unsigned int events = dealt->events;

	turn->slot = slot;
	if (!cm_is_heard(turn, dealt)) {
		cm_deafen(&turn->ring, slot);
		cm_disarm(turn, slot);
		return CM_NOTHING;
	}
	dealt->events = 0;
	dealt->again = 0;
	if (dealt->disarmed) {
		turn->status = cm_arm(turn, slot);
		if (turn->status < 0)
			return CM_ENDED;
	}
	if (dealt->kind == CM_OWN)
		return CM_READY;
	if (dealt->mode & (CM_WRITES | CM_WATCHES))
		return happened(dealt, events);
	/* nobody is there any more for an answer */
	if (events & EPOLLHUP)
		return CM_ENDED;
	return cm_read_channel(turn, slot);
}

/* whether a channel's next record is not read before another call may begin; one whose client has gone is not read at all */
static int waits(const struct cm_turn *turn, unsigned int slot, int admitted)
{
	const struct cm_slot *asked = &turn->ring.slots[slot];
	const struct cm_peer *peer = &turn->ring.peers[asked->peer];

	if (!(asked->mode & CM_CALLS) || asked->kind == CM_OWN || asked->events & EPOLLHUP || peer->exempt)
		return 0;
	return turn->ring.full || peer->full || !admitted;
}

/* as cm_next(), but what waits for room is taken in where there is some, and what has none is set aside */
static unsigned int next_with_room(struct cm_turn *turn)
{
	struct cm_ring *ring = &turn->ring;

	for (;;) {
		unsigned int slot;

		if (ring->waiting && !ring->full && !ring->admitted)
			cm_take_in(ring);
		slot = cm_next(ring);
		if (slot == 0 || !waits(turn, slot, cm_end_admission(ring, slot)))
			return slot;
		cm_disarm_aside(turn, slot);
	}
}

/* CM_NOTHING: nobody of those who wait has anything */
static int next_waiting(struct cm_turn *turn)
{
	int event;

	do {
		unsigned int slot = turn->ring.bounds ? next_with_room(turn) : cm_next(&turn->ring);

		if (slot == 0)
			return CM_NOTHING;
		event = deal_with(turn, slot);
	} while (event == CM_NOTHING);
	return event;
}

/* CM_NOTHING: nobody has anything */
static int next_event(struct cm_turn *turn, int milliseconds)
{
	int anyone = cm_anyone(&turn->ring), event;

	if (anyone && turn->since < turn->apart) {
		turn->since++;
		event = next_waiting(turn);
		if (event != CM_NOTHING)
			return event;
		anyone = 0;
	}
	turn->since = 0;
	event = cm_harvest(turn, anyone ? 0 : milliseconds);
	return event < 0 ? event : next_waiting(turn);
}

/* CM_NOTHING: polling does not pay, or found nothing */
static int poll_last(struct cm_turn *turn)
{
	unsigned int last = turn->slot;
	struct cm_slot *slot = &turn->ring.slots[last];
	int64_t until;

	if (turn->polled) {
		turn->polled = 0;
		return CM_NOTHING;
	}
	if (turn->poll == 0 || cm_anyone(&turn->ring) || last >= turn->ring.n_slots)
		return CM_NOTHING;
	if (slot->kind != CM_CHANNEL || slot->descriptor < 0 || !(slot->mode & CM_PLAIN) || !cm_is_heard(turn, slot))
		return CM_NOTHING;
	if (!cm_polls(&slot->polling))
		return CM_NOTHING;
	until = cm_now() + turn->poll;
	do {
		int event;

		/* calls that take long are few in a row, however their sender sets the CPU in his heads */
		if (turn->in_row == 0)
			turn->row_began = until - turn->poll;
		else if (until - turn->poll - turn->row_began > 2 * turn->poll)
			turn->in_row = IN_ROW_MAX;
		for (unsigned int i = 0; i < TRIES && turn->in_row < IN_ROW_MAX; i++) {
			event = cm_read_channel(turn, last);
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

/* whether the CALL in the inbox is of what its server knows, and has no deadline */
static int is_known(const struct cm_turn *turn, const void *known, size_t known_size)
{
	return turn->deadline == CM_FOREVER && turn->table == CM_CALL_KEY + known_size &&
	       memcmp((const char *)turn->inbox.data + CM_CALL_KEY, known, known_size) == 0;
}

int cm_reply_wait(struct cm_turn *turn, const void *payload, size_t size, const void *known, size_t known_size,
		  int64_t deadline)
{
	int event;

	turn->status = 0;
	if (payload) {
		turn->status = reply(turn, payload, size);
		if (turn->status)
			return CM_UNSENT;
		if (close_here(turn, turn->results))
			return CM_UNSETTLED;
		turn->taken = 0;
	}
	event = poll_last(turn);
	if (event == CM_NOTHING) {
		turn->in_row = 0;
		event = next_event(turn, milliseconds_until(cm_until(deadline)));
	}
	if ((event == CM_DATA || event == CM_IN_ORDER || event == CM_WHOLE) && is_known(turn, known, known_size))
		return cm_told_size(&turn->inbox, event);
	return event;
}
