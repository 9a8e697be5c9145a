/*
 * cm_ring: whose turn it is
 *
 * Turns are dealt by peer, not by channel.  What epoll reports goes into the queue
 * of its peer, and the peers that have something in their queues stand in a ring:
 * each gets one turn, for one record of one channel, and then it is the next one's.
 * Whoever has had a turn stands behind all that have come by the time of the next.
 *
 *     ring.first -> peer 3 <-> peer 7 <-> peer 4 -> (peer 3)
 *                     |          |
 *                   slot 9     slot 5
 *                   slot 12
 *
 * Where no more calls may begin, the slots that bring some are set aside, by peer again,
 * and the peers that have such stand in a second ring, but for those that are full: one
 * slot is taken in for each call that may begin.
 */
#ifndef CAPMARSHAL_CM_RING_H
#define CAPMARSHAL_CM_RING_H

#include <stdint.h>

#include "cm_parts.h"
#include "cm_poll.h"

/* What a slot is. */
enum cm_kind {
	CM_OWN = 0,                       /* the server's own (door, wake-up, a peer's end): reported, never read here */
	CM_CHANNEL = 1,
};

/* Bits of cm_slot.mode: what the channel's state allows, _protocol/states.py. */
enum cm_mode {
	CM_READS = 1,                     /* records are read */
	CM_CALLS = 2,                     /* what is read begins a call or goes on with one: not while its peer is held */
	CM_PLAIN = 4,                     /* nothing but calls in single records is going on: polled, and may be CM_WHOLE */
	CM_WRITES = 8,                    /* an answer waits for the client to make room */
	CM_WATCHES = 16,                  /* nothing is read: that there is something, or that it has ended, is reported */
};

/* In which list a slot is. */
enum cm_place {
	CM_NOWHERE = 0,
	CM_QUEUE = 1,                     /* of its peer: waits for a turn */
	CM_DEAF = 2,                      /* of its peer: has something to be read, and is not to be read now */
	CM_ASIDE = 3,                     /* of its peer: waits until another call may begin */
};

/* Where a server keeps a channel.  An event names slot and generation, never a descriptor, whose number may be another's by then. */
struct cm_slot {
	int descriptor;                   /* -1: free */
	unsigned int generation;
	int kind;                         /* enum cm_kind */
	int mode;                         /* enum cm_mode; of a channel */
	unsigned int room;                /* bytes that a record to it, and a CALL of it, may have */
	struct cm_polling polling;
	struct cm_assembly *assembly;     /* the long CALL that comes by it: the caller's; NULL: none */
	uint64_t used;                    /* when it was last heard of: a reading of cm_turn.records */
	unsigned int peer;                /* whose it is */
	uint64_t secret[2];               /* of the door that it was made through: combined with the badge of each CALL, so that a badge works through its own door only; 0: the entrypoint's */
	unsigned int previous, next;      /* in its list; 0: none */
	int place;                        /* enum cm_place */
	int disarmed;                     /* reported at most once more */
	unsigned int again;               /* how often it was reported while it waited */
	unsigned int harvest;             /* the last look at the kernel in which it was reported: a reading of cm_turn.harvests */
	unsigned int events;              /* reported by epoll and not dealt with */
};

struct cm_list {
	unsigned int first, last;         /* slots; 0: none */
};

/* In a ring of peers; 0: not in it. */
struct cm_links {
	unsigned int previous, next;
};

/* Who is dealt turns.  All 0: nothing of it waits. */
struct cm_peer {
	struct cm_list queue, deaf, aside;
	struct cm_links turns, room;      /* in the first ring, and in the second */
	int held;                         /* begins no calls for now */
	int exempt;                       /* may always begin one: nothing of it is set aside */
	int full;                         /* may begin no more: what it says is set aside, and not taken in */
};

struct cm_ring {
	struct cm_slot *slots;            /* slot 0 is none */
	unsigned int n_slots;
	struct cm_peer *peers;            /* peer 0 is none */
	unsigned int n_peers;
	unsigned int first;               /* the peer whose turn is next; 0: nobody waits for one but perhaps `served` */
	unsigned int served;              /* the peer that had the last turn, and is not in the ring; 0: none */
	unsigned int waiting;             /* of the second ring, the peer whose call is taken in next; 0: none */
	unsigned int admitted;            /* the slot that was taken in, until it has its turn or is watched no more; 0: none */
	int full;                         /* nobody may begin one but who is exempt */
	unsigned int bounds;              /* how many: `full`, full peers, peers in the second ring, `admitted`; 0, as mostly: no call is to wait for room */
};

/* Puts a slot that is nowhere at the end of its peer's queue, or among its deaf ones. */
void cm_enqueue(struct cm_ring *ring, unsigned int slot);
void cm_deafen(struct cm_ring *ring, unsigned int slot);

/* Puts one at the end of those of its peer that are set aside. */
void cm_set_aside(struct cm_ring *ring, unsigned int slot);

/* Has one of them wait for its turn, of each peer in its turn; there is one, and none that was taken in waits still. */
void cm_take_in(struct cm_ring *ring);

/* Ends that a slot is the one that was taken in; whether it was. */
int cm_end_admission(struct cm_ring *ring, unsigned int slot);

/* Has a peer begin no more calls or, where `full` is 0, begin them again; peer 0: all that are not exempt. */
void cm_fill(struct cm_ring *ring, unsigned int peer, int full);

/* Takes a slot out of whatever list it is in. */
void cm_unlist(struct cm_ring *ring, unsigned int slot);

/* In a forked child, where all of it is the parent's: slots are nowhere, peers neither wait nor are full, and there are none of both. */
void cm_ring_forget(struct cm_ring *ring);

/* The slot whose turn it is, taken out of its queue; 0: none. */
unsigned int cm_next(struct cm_ring *ring);

/* Whether anybody waits for a turn. */
int cm_anyone(const struct cm_ring *ring);

#endif
