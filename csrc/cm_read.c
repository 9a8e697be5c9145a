#include "cm_read.h"

#include <errno.h>
#include <string.h>

#include "cm_clock.h"
#include "cm_make.h"
#include "cm_record.h"

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

/*
 * Whether there is a table in the record in the inbox, from `start` on: each line is of one of
 * its descriptors, and nothing else is of one that is there as a plain descriptor.
 */
static int table_is_sound(const struct cm_inbox *in, size_t start, unsigned int entries)
{
	static const char no_badge[CM_BADGE];
	enum { NONE, PLAIN, DOOR } uses[CM_DESCRIPTORS] = { NONE };

	if (in->size < start + entries * sizeof(struct cm_line) || in->count > CM_DESCRIPTORS)
		return 0;
	for (unsigned int i = 0; i < entries; i++) {
		struct cm_line line;
		int use;

		memcpy(&line, (const char *)in->data + start + i * sizeof(line), sizeof(line));
		use = memcmp(line.badge, no_badge, sizeof(no_badge)) == 0 ? PLAIN : DOOR;
		if (line.slot >= in->count)
			return 0;
		if (uses[line.slot] != NONE && (use == PLAIN || uses[line.slot] == PLAIN))
			return 0;
		uses[line.slot] = use;
	}
	return 1;
}

/* what the record in the inbox is, by itself */
static int look_at_record(struct cm_turn *turn)
{
	const struct cm_slot *slot = &turn->ring.slots[turn->slot];
	const struct cm_inbox *in = &turn->inbox;
	struct cm_call_head head;
	int kind;

	if (!(slot->mode & CM_PLAIN) || in->size > slot->room || in->count > turn->most)
		return CM_RECORD;
	kind = cm_completeness(in, CM_KIND_CALL, sizeof(head));
	if (kind == CM_RECORD)
		return CM_RECORD;
	memcpy(&head, in->data, sizeof(head));
	if (head.method_size > in->size - sizeof(head))
		return CM_RECORD;
	turn->deadline = call_deadline(head.time_left, head.sent_at);
	turn->id = head.head.id;
	turn->table = turn->payload = (unsigned int)sizeof(head) + head.method_size;
	if (turn->deadline == 0)
		return CM_RECORD;
	if (kind == CM_WHOLE) {
		turn->payload += head.head.entries * CM_LINE;
		if (cm_is_in_order(in, turn->table))
			return CM_IN_ORDER;
		return table_is_sound(in, turn->table, head.head.entries) ? CM_WHOLE : CM_RECORD;
	}
	return kind == CM_DATA && turn->deadline != CM_FOREVER ? CM_DATA_LIMITED : kind;
}

/* makes of the badge in the CALL in the inbox what its server keeps the object under */
static void combine_badge(struct cm_turn *turn)
{
	const uint64_t *secret = turn->ring.slots[turn->slot].secret;
	char *badge = (char *)turn->inbox.data + offsetof(struct cm_call_head, badge);
	uint64_t combined[2];

	memcpy(combined, badge, sizeof(combined));
	combined[0] ^= secret[0];
	combined[1] ^= secret[1];
	memcpy(badge, combined, sizeof(combined));
}

/* what the record in the inbox is to whoever asked, who looks closer at a CM_RECORD, which is as it came */
static int kind_of_record(struct cm_turn *turn)
{
	int kind = look_at_record(turn);

	if (kind != CM_RECORD)
		combine_badge(turn);
	return kind;
}

/* whether the table has room for so many more descriptors, from 3 up: below that another thread may just open a standard stream */
static int table_has_room(int probe, unsigned int count)
{
	int copies[CM_DESCRIPTORS];
	unsigned int made = 0;

	/* so many come by no record */
	if (count > CM_DESCRIPTORS)
		return 1;
	while (made < count && cm_make_copy(&copies[made], probe) == 0)
		made++;
	for (unsigned int i = 0; i < made; i++)
		lx_close(copies[i]);
	return made == count;
}

/* Whether the next record's descriptors would be lost: it is looked at without control room, which takes none of them. */
static int would_lose(int probe, int channel)
{
	struct cm_head head;
	struct iovec part = { .iov_base = &head, .iov_len = sizeof(head) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	long size = lx_recvmsg(channel, &message, MSG_PEEK | MSG_DONTWAIT);

	return size >= (long)sizeof(head) && head.descriptors > 0 && !table_has_room(probe, head.descriptors);
}

int cm_read_channel(struct cm_turn *turn, unsigned int slot)
{
	struct cm_slot *read = &turn->ring.slots[slot];
	int got;

	turn->slot = slot;
	/* what neither begins a call nor goes on with one, a GO, brings no descriptors */
	if (turn->scarce && read->mode & CM_CALLS && would_lose(turn->probe, read->descriptor))
		return CM_SCARCE;
	got = read->assembly ? cm_receive_part(read->descriptor, read->assembly, &turn->inbox, CM_NOW)
			     : cm_receive(read->descriptor, &turn->inbox, CM_NOW);
	if (got == -EAGAIN || got == -EINTR)
		return CM_NOTHING;
	if (got < 0)
		turn->status = got;
	if (got <= 0)
		return CM_ENDED;
	read->used = ++turn->records;
	if (got == CM_PART && !cm_assembled(read->assembly))
		return CM_NOTHING;
	turn->taken = slot;
	if (got == CM_PART)
		return CM_ASSEMBLED;
	cm_note_cpu(&read->polling, &turn->inbox);
	return kind_of_record(turn);
}
