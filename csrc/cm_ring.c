#include "cm_ring.h"

#include <stddef.h>
#include <string.h>

static void append(struct cm_ring *ring, struct cm_list *list, unsigned int slot, int place)
{
	struct cm_slot *added = &ring->slots[slot];

	added->place = place;
	added->previous = list->last;
	added->next = 0;
	if (list->last)
		ring->slots[list->last].next = slot;
	else
		list->first = slot;
	list->last = slot;
}

static void take_out(struct cm_ring *ring, struct cm_list *list, unsigned int slot)
{
	struct cm_slot *taken = &ring->slots[slot];

	if (taken->previous)
		ring->slots[taken->previous].next = taken->next;
	else
		list->first = taken->next;
	if (taken->next)
		ring->slots[taken->next].previous = taken->previous;
	else
		list->last = taken->previous;
	taken->previous = taken->next = 0;
	taken->place = CM_NOWHERE;
}

/* One of the two rings: its links, in each peer, and its first. */
struct ring {
	size_t links;
	size_t first;
};

static const struct ring turns = { offsetof(struct cm_peer, turns), offsetof(struct cm_ring, first) };
static const struct ring room = { offsetof(struct cm_peer, room), offsetof(struct cm_ring, waiting) };

static inline struct cm_links *links(struct cm_ring *ring, struct ring which, unsigned int peer)
{
	return (struct cm_links *)((char *)&ring->peers[peer] + which.links);
}

static inline unsigned int *first(struct cm_ring *ring, struct ring which)
{
	return (unsigned int *)((char *)ring + which.first);
}

static inline void enter(struct cm_ring *ring, struct ring which, unsigned int peer)
{
	struct cm_links *added = links(ring, which, peer);
	unsigned int next = *first(ring, which);

	if (added->next)
		return;
	if (!next) {
		added->previous = added->next = *first(ring, which) = peer;
		return;
	}
	/* behind all others: before the one whose turn is next */
	added->next = next;
	added->previous = links(ring, which, next)->previous;
	links(ring, which, added->previous)->next = peer;
	links(ring, which, next)->previous = peer;
}

static inline void leave(struct cm_ring *ring, struct ring which, unsigned int peer)
{
	struct cm_links *left = links(ring, which, peer);

	if (!left->next)
		return;
	if (*first(ring, which) == peer)
		*first(ring, which) = left->next == peer ? 0 : left->next;
	links(ring, which, left->previous)->next = left->next;
	links(ring, which, left->next)->previous = left->previous;
	left->previous = left->next = 0;
}

void cm_enqueue(struct cm_ring *ring, unsigned int slot)
{
	unsigned int peer = ring->slots[slot].peer;

	append(ring, &ring->peers[peer].queue, slot, CM_QUEUE);
	if (peer != ring->served)
		enter(ring, turns, peer);
}

void cm_deafen(struct cm_ring *ring, unsigned int slot)
{
	append(ring, &ring->peers[ring->slots[slot].peer].deaf, slot, CM_DEAF);
}

static void await_room(struct cm_ring *ring, unsigned int peer)
{
	if (!ring->peers[peer].aside.first || ring->peers[peer].full || ring->peers[peer].room.next)
		return;
	ring->bounds++;
	enter(ring, room, peer);
}

static void await_no_room(struct cm_ring *ring, unsigned int peer)
{
	if (!ring->peers[peer].room.next)
		return;
	ring->bounds--;
	leave(ring, room, peer);
}

void cm_fill(struct cm_ring *ring, unsigned int peer, int full)
{
	int *filled = peer ? &ring->peers[peer].full : &ring->full;

	if (*filled == !!full)
		return;
	*filled = !!full;
	if (full)
		ring->bounds++;
	else
		ring->bounds--;
	if (peer && full)
		await_no_room(ring, peer);
	else if (peer)
		await_room(ring, peer);
}

void cm_set_aside(struct cm_ring *ring, unsigned int slot)
{
	append(ring, &ring->peers[ring->slots[slot].peer].aside, slot, CM_ASIDE);
	await_room(ring, ring->slots[slot].peer);
}

void cm_take_in(struct cm_ring *ring)
{
	unsigned int peer = ring->waiting, slot = ring->peers[peer].aside.first;

	/* behind all others, if it has more */
	await_no_room(ring, peer);
	cm_unlist(ring, slot);
	await_room(ring, peer);
	ring->admitted = slot;
	ring->bounds++;
	cm_enqueue(ring, slot);
}

int cm_end_admission(struct cm_ring *ring, unsigned int slot)
{
	if (ring->admitted != slot)
		return 0;
	ring->admitted = 0;
	ring->bounds--;
	return 1;
}

void cm_unlist(struct cm_ring *ring, unsigned int slot)
{
	const struct cm_slot *listed = &ring->slots[slot];
	struct cm_peer *peer = &ring->peers[listed->peer];

	switch (listed->place) {
	case CM_QUEUE:
		take_out(ring, &peer->queue, slot);
		if (!peer->queue.first)
			leave(ring, turns, listed->peer);
		break;
	case CM_DEAF:
		take_out(ring, &peer->deaf, slot);
		break;
	case CM_ASIDE:
		take_out(ring, &peer->aside, slot);
		if (!peer->aside.first)
			await_no_room(ring, listed->peer);
		break;
	}
}

void cm_ring_forget(struct cm_ring *ring)
{
	for (unsigned int slot = 0; slot < ring->n_slots; slot++) {
		ring->slots[slot].previous = ring->slots[slot].next = 0;
		ring->slots[slot].place = CM_NOWHERE;
	}
	memset(ring->peers, 0, ring->n_peers * sizeof(*ring->peers));
	*ring = (struct cm_ring){ .slots = ring->slots, .peers = ring->peers };
}

unsigned int cm_next(struct cm_ring *ring)
{
	unsigned int served = ring->served, slot;
	struct cm_list *queue;

	/* whoever has come since is before it now */
	ring->served = 0;
	if (served && ring->peers[served].queue.first)
		enter(ring, turns, served);
	if (!ring->first)
		return 0;
	ring->served = ring->first;
	leave(ring, turns, ring->served);
	queue = &ring->peers[ring->served].queue;
	slot = queue->first;
	take_out(ring, queue, slot);
	return slot;
}

int cm_anyone(const struct cm_ring *ring)
{
	return ring->first || (ring->served && ring->peers[ring->served].queue.first);
}
