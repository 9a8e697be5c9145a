/*
 * cm_record: the heads of records, as capmarshal/_protocol/wire.py lays them out
 *
 * C makes the heads of CALLs, and of REPLYs to them in one record, with the tables of
 * plain descriptors.  It reads them as far as it has to in order to know that a record
 * needs no closer look, or is a part that goes to its place.  All else is Python's.
 */
#ifndef CAPMARSHAL_CM_RECORD_H
#define CAPMARSHAL_CM_RECORD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cm_event.h"
#include "cm_layout.h"
#include "cm_message.h"
#include "cm_poll.h"

enum { CM_VERSION = 3, CM_KIND_CALL = 2, CM_KIND_REPLY = 3, CM_KIND_PART = 6, CM_BADGE = 16 };

#define CM_NO_LIMIT UINT64_MAX

struct cm_head {
	uint8_t version;
	uint8_t kind;
	uint16_t entries;
	uint16_t descriptors;
	uint16_t cpu;
	uint64_t id;
};

struct __attribute__((packed)) cm_call_head {
	struct cm_head head;
	uint64_t time_left;
	uint64_t sent_at;
	uint16_t method_size;
	char badge[CM_BADGE];
};

_Static_assert(sizeof(struct cm_head) == CM_HEAD, "the head of every record");
_Static_assert(offsetof(struct cm_head, entries) == 2, "entries");
_Static_assert(offsetof(struct cm_head, descriptors) == 4, "descriptors");
_Static_assert(offsetof(struct cm_head, cpu) == 6, "cpu");
_Static_assert(offsetof(struct cm_head, id) == 8, "id");
_Static_assert(sizeof(struct cm_call_head) == CM_CALL_HEAD, "the head of a CALL");
_Static_assert(offsetof(struct cm_call_head, time_left) == 16, "time left");
_Static_assert(offsetof(struct cm_call_head, sent_at) == 24, "sent at");
_Static_assert(offsetof(struct cm_call_head, method_size) == CM_CALL_TIMES, "method");
_Static_assert(offsetof(struct cm_call_head, badge) == CM_CALL_KEY, "badge");

/*
 * Whether the record in the inbox is of this kind and came with all that its head
 * announces: CM_WHOLE, or CM_DATA if that is nothing; else CM_RECORD, for a closer look.
 */
static inline int cm_completeness(const struct cm_inbox *in, uint8_t kind, size_t head_size)
{
	struct cm_head head;

	if (in->size < head_size || in->lost)
		return CM_RECORD;
	memcpy(&head, in->data, sizeof(head));
	if (head.version != CM_VERSION || head.kind != kind || head.descriptors != in->count)
		return CM_RECORD;
	return head.entries > 0 || in->count > 0 ? CM_WHOLE : CM_DATA;
}

/* One line of a table. */
struct __attribute__((packed)) cm_line {
	uint16_t slot;
	char badge[CM_BADGE];             /* all zero: the slot is a plain descriptor */
};

_Static_assert(sizeof(struct cm_line) == CM_LINE, "a line of a table");

/* The table of so many plain descriptors, in their order. */
static inline void cm_write_table(struct cm_line *table, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		table[i] = (struct cm_line){ .slot = (uint16_t)i };
}

/* Whether the table of the record in the inbox, which begins at `start`, is that of its descriptors. */
static inline int cm_is_in_order(const struct cm_inbox *in, size_t start)
{
	struct cm_head head;

	memcpy(&head, in->data, sizeof(head));
	if (head.entries != in->count || in->size < start + head.entries * sizeof(struct cm_line))
		return 0;
	for (unsigned int i = 0; i < in->count; i++) {
		struct cm_line due = { .slot = (uint16_t)i };

		if (memcmp((const char *)in->data + start + i * sizeof(due), &due, sizeof(due)) != 0)
			return 0;
	}
	return 1;
}

_Static_assert((int)CM_SPOKEN < CM_HEAD, "the size of a record is no event");
_Static_assert(CM_RECORD_MAX < CM_IN_ORDER_SIZE, "nor is it that of one in order");
_Static_assert(CM_IN_ORDER_SIZE + CM_RECORD_MAX < CM_WHOLE_SIZE, "nor that that of another");

/* The size of the record in the inbox, as it is told in place of an event: CM_DATA, CM_IN_ORDER, CM_WHOLE. */
static inline int cm_told_size(const struct cm_inbox *in, int event)
{
	int size = (int)in->size;

	return event == CM_DATA ? size : size + (event == CM_WHOLE ? CM_WHOLE_SIZE : CM_IN_ORDER_SIZE);
}

/* Keeps where the peer last sent from, as its head says. */
static inline void cm_note_cpu(struct cm_polling *polling, const struct cm_inbox *in)
{
	struct cm_head head;

	if (in->size < sizeof(head))
		return;
	memcpy(&head, in->data, sizeof(head));
	if (head.version == CM_VERSION && (head.kind == CM_KIND_CALL || head.kind == CM_KIND_REPLY) && head.cpu != 0)
		polling->peer = head.cpu;
}

#endif
