#include "cm_turn.h"

#include <errno.h>
#include <limits.h>

#include "cm_clock.h"
#include "cm_read.h"
#include "cm_record.h"

/* While polling: tries of the last channel between two looks at all of them, and records in a row. */
enum { TRIES = 4, IN_ROW_MAX = 16 };

/* Events taken from the kernel in one crossing, and crossings in a row. */
enum { EVENTS = 64, ROUNDS = 64 };

/* Where the kernel is not looked at in each turn: times that a slot is reported again while it waits, until it is not any more. */
enum { AGAIN_MAX = 4 };

static uint64_t event_data(unsigned int slot, unsigned int generation)
{
	return (uint64_t)generation << 32 | slot;
}

static int control(struct cm_turn *turn, unsigned int slot, int operation, unsigned int events)
{
	const struct cm_slot *watched = &turn->ring.slots[slot];
	struct epoll_event event = {
		.events = events,
		.data.u64 = event_data(slot, watched->generation),
	};

	return lx_epoll_ctl(turn->epoll, operation, watched->descriptor, &event);
}

static unsigned int interest(const struct cm_slot *slot)
{
	return slot->mode & CM_WRITES ? EPOLLOUT : EPOLLIN;
}

static int arm(struct cm_turn *turn, unsigned int slot)
{
	turn->ring.slots[slot].disarmed = 0;
	return control(turn, slot, EPOLL_CTL_MOD, interest(&turn->ring.slots[slot]));
}

/* reported at most once more: EPOLLONESHOT alone also ends the reports of a hang-up, which no mask of events does */
static void disarm(struct cm_turn *turn, unsigned int slot)
{
	struct cm_slot *disarmed = &turn->ring.slots[slot];

	if (disarmed->disarmed)
		return;
	disarmed->disarmed = 1;
	control(turn, slot, EPOLL_CTL_MOD, interest(disarmed) | EPOLLONESHOT);
}

/* a call is not read before another one may begin: nothing but its client's end is reported meanwhile */
static void set_aside(struct cm_turn *turn, unsigned int slot)
{
	turn->ring.slots[slot].disarmed = 1;
	control(turn, slot, EPOLL_CTL_MOD, EPOLLONESHOT);
	cm_set_aside(&turn->ring, slot);
}

/* whether what is reported of a slot is for anybody to deal with now */
static int heard(const struct cm_turn *turn, const struct cm_slot *slot)
{
	if (slot->kind == CM_OWN || slot->mode & (CM_WRITES | CM_WATCHES))
		return 1;
	if (!(slot->mode & CM_READS))
		return 0;
	return !(slot->mode & CM_CALLS && turn->ring.peers[slot->peer].held);
}

static void file(struct cm_turn *turn, unsigned int slot)
{
	if (heard(turn, &turn->ring.slots[slot]))
		cm_enqueue(&turn->ring, slot);
	else
		cm_deafen(&turn->ring, slot);
}

int cm_watch(struct cm_turn *turn, unsigned int slot)
{
	struct cm_slot *watched = &turn->ring.slots[slot];

	watched->place = CM_NOWHERE;
	watched->disarmed = 0;
	watched->again = 0;
	watched->events = 0;
	return control(turn, slot, EPOLL_CTL_ADD, interest(watched));
}

void cm_unwatch(struct cm_turn *turn, unsigned int slot)
{
	cm_unlist(&turn->ring, slot);
	if (turn->ring.slots[slot].descriptor >= 0)
		control(turn, slot, EPOLL_CTL_DEL, 0);
	cm_end_admission(&turn->ring, slot);
	turn->ring.slots[slot].descriptor = -1;
	turn->ring.slots[slot].assembly = NULL;
}

int cm_allow(struct cm_turn *turn, unsigned int slot, int mode)
{
	struct cm_slot *changed = &turn->ring.slots[slot];
	int turned = (changed->mode ^ mode) & CM_WRITES;

	changed->mode = mode;
	if (turned) {
		/* whatever there was, the kernel reports it anew */
		cm_unlist(&turn->ring, slot);
		changed->events = 0;
		return arm(turn, slot);
	}
	if (changed->place == CM_DEAF && heard(turn, changed)) {
		cm_unlist(&turn->ring, slot);
		cm_enqueue(&turn->ring, slot);
	}
	return 0;
}

void cm_hold(struct cm_turn *turn, unsigned int peer, int held)
{
	struct cm_ring *ring = &turn->ring;
	unsigned int slot = ring->peers[peer].deaf.first;

	ring->peers[peer].held = held;
	while (slot) {
		unsigned int next = ring->slots[slot].next;

		if (heard(turn, &ring->slots[slot])) {
			cm_unlist(ring, slot);
			cm_enqueue(ring, slot);
		}
		slot = next;
	}
}

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

/* 0: it was reported in this harvest before: so all that there is has been */
static int note(struct cm_turn *turn, const struct epoll_event *event)
{
	unsigned int slot = (unsigned int)event->data.u64;
	struct cm_slot *reported;
	int anew, waited;

	if (slot >= turn->ring.n_slots)
		return 1;
	reported = &turn->ring.slots[slot];
	if (reported->descriptor < 0 || reported->generation != event->data.u64 >> 32)
		return 1;
	anew = reported->harvest != turn->harvests;
	reported->harvest = turn->harvests;
	reported->events |= event->events;
	if (reported->place == CM_ASIDE && event->events & EPOLLHUP)
		cm_unlist(&turn->ring, slot);
	waited = reported->place != CM_NOWHERE;
	if (!waited)
		file(turn, slot);
	if (reported->place == CM_DEAF || (waited && anew && reported->again++ >= (turn->apart ? AGAIN_MAX : 0)))
		disarm(turn, slot);
	return anew;
}

/* Files what the kernel has to report: all of it, within reason, for the one that waits longest may be the last. */
static int harvest(struct cm_turn *turn, int milliseconds)
{
	struct epoll_event events[EVENTS];
	int ready = EVENTS, more = 1;

	turn->harvests++;
	for (int round = 0; round < ROUNDS && more && ready == EVENTS; round++) {
		ready = lx_epoll_pwait(turn->epoll, events, EVENTS, milliseconds);
		/* a signal that came after something was reported is seen at the next wait */
		if (ready < 0)
			return round > 0 ? 0 : ready;
		for (int i = 0; i < ready; i++)
			more &= note(turn, &events[i]);
		milliseconds = 0;
	}
	return 0;
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
	if (!heard(turn, dealt)) {
		cm_deafen(&turn->ring, slot);
		disarm(turn, slot);
		return CM_NOTHING;
	}
	dealt->events = 0;
	dealt->again = 0;
	if (dealt->disarmed) {
		turn->status = arm(turn, slot);
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
		set_aside(turn, slot);
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
	event = harvest(turn, anyone ? 0 : milliseconds);
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
	if (slot->kind != CM_CHANNEL || slot->descriptor < 0 || !(slot->mode & CM_PLAIN) || !heard(turn, slot))
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

int cm_reply_wait(struct cm_turn *turn, const void *payload, size_t size, int64_t deadline)
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
	if (event != CM_NOTHING)
		return event;
	turn->in_row = 0;
	return next_event(turn, milliseconds_until(cm_until(deadline)));
}
