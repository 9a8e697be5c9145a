#include "cm_ring.h"

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

static void enter_ring(struct cm_ring *ring, unsigned int peer)
{
	struct cm_peer *added = &ring->peers[peer];

	if (added->next)
		return;
	if (!ring->first) {
		added->previous = added->next = ring->first = peer;
		return;
	}
	/* behind all others: before the one whose turn is next */
	added->next = ring->first;
	added->previous = ring->peers[ring->first].previous;
	ring->peers[added->previous].next = peer;
	ring->peers[added->next].previous = peer;
}

static void leave_ring(struct cm_ring *ring, unsigned int peer)
{
	struct cm_peer *left = &ring->peers[peer];

	if (!left->next)
		return;
	if (ring->first == peer)
		ring->first = left->next == peer ? 0 : left->next;
	ring->peers[left->previous].next = left->next;
	ring->peers[left->next].previous = left->previous;
	left->previous = left->next = 0;
}

void cm_enqueue(struct cm_ring *ring, unsigned int slot)
{
	unsigned int peer = ring->slots[slot].peer;

	append(ring, &ring->peers[peer].queue, slot, CM_QUEUE);
	if (peer != ring->served)
		enter_ring(ring, peer);
}

void cm_deafen(struct cm_ring *ring, unsigned int slot)
{
	append(ring, &ring->peers[ring->slots[slot].peer].deaf, slot, CM_DEAF);
}

void cm_unlist(struct cm_ring *ring, unsigned int slot)
{
	struct cm_slot *taken = &ring->slots[slot];
	struct cm_peer *peer = &ring->peers[taken->peer];
	struct cm_list *list = taken->place == CM_QUEUE ? &peer->queue : &peer->deaf;

	if (taken->place == CM_NOWHERE)
		return;
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
	if (!peer->queue.first)
		leave_ring(ring, (unsigned int)(peer - ring->peers));
}

unsigned int cm_next(struct cm_ring *ring)
{
	unsigned int served = ring->served, slot;

	/* whoever has come since is before it now */
	ring->served = 0;
	if (served && ring->peers[served].queue.first)
		enter_ring(ring, served);
	if (!ring->first)
		return 0;
	ring->served = ring->first;
	slot = ring->peers[ring->served].queue.first;
	leave_ring(ring, ring->served);
	cm_unlist(ring, slot);
	return slot;
}

int cm_anyone(const struct cm_ring *ring)
{
	return ring->first || (ring->served && ring->peers[ring->served].queue.first);
}
