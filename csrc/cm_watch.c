#include "cm_watch.h"

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

int cm_arm(struct cm_turn *turn, unsigned int slot)
{
	turn->ring.slots[slot].disarmed = 0;
	return control(turn, slot, EPOLL_CTL_MOD, interest(&turn->ring.slots[slot]));
}

/* EPOLLONESHOT alone also ends the reports of a hang-up, which no mask of events does */
void cm_disarm(struct cm_turn *turn, unsigned int slot)
{
	struct cm_slot *disarmed = &turn->ring.slots[slot];

	if (disarmed->disarmed)
		return;
	disarmed->disarmed = 1;
	control(turn, slot, EPOLL_CTL_MOD, interest(disarmed) | EPOLLONESHOT);
}

void cm_disarm_aside(struct cm_turn *turn, unsigned int slot)
{
	turn->ring.slots[slot].disarmed = 1;
	control(turn, slot, EPOLL_CTL_MOD, EPOLLONESHOT);
	cm_set_aside(&turn->ring, slot);
}

int cm_is_heard(const struct cm_turn *turn, const struct cm_slot *slot)
{
	if (slot->kind == CM_OWN || slot->mode & (CM_WRITES | CM_WATCHES))
		return 1;
	if (!(slot->mode & CM_READS))
		return 0;
	return !(slot->mode & CM_CALLS && turn->ring.peers[slot->peer].held);
}

static void file(struct cm_turn *turn, unsigned int slot)
{
	if (cm_is_heard(turn, &turn->ring.slots[slot]))
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
		return cm_arm(turn, slot);
	}
	if (changed->place == CM_DEAF && cm_is_heard(turn, changed)) {
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

		if (cm_is_heard(turn, &ring->slots[slot])) {
			cm_unlist(ring, slot);
			cm_enqueue(ring, slot);
		}
		slot = next;
	}
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
		cm_disarm(turn, slot);
	return anew;
}

int cm_harvest(struct cm_turn *turn, int milliseconds)
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
