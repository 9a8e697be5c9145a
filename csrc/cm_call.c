#include "cm_call.h"

#include <errno.h>
#include <string.h>

#include "cm_clock.h"
#include "cm_record.h"

/* what a CALL carries as the time it has left */
static uint64_t time_left(int64_t deadline, int64_t at)
{
	if (deadline == CM_FOREVER)
		return CM_NO_LIMIT;
	return deadline > at ? (uint64_t)(deadline - at) : 0;
}

static uint64_t record_id(const struct cm_inbox *in)
{
	uint64_t id;

	memcpy(&id, (const char *)in->data + offsetof(struct cm_head, id), sizeof(id));
	return id;
}

/*
 * Where the server runs as soon as the CALL is sent, a signal of its may come before the sleep, and so interrupt none:
 * its handler runs when somebody returns to Python.  So the first sleep is short: -EINTR at its end.
 */
static int sleep_briefly(int channel, struct cm_inbox *in, int64_t deadline)
{
	int64_t until = deadline;
	int result;

	if (deadline == CM_FOREVER) {
		/* the socket has a timeout, by which no system call more is made */
		result = cm_receive(channel, in, CM_BRIEFLY);
		return result == -EAGAIN ? -EINTR : result;
	}
	if (deadline - cm_now() > CM_BRIEF)
		until = cm_now() + CM_BRIEF;
	result = cm_receive(channel, in, until);
	return result == -ETIMEDOUT && until != deadline ? -EINTR : result;
}

/* as cm_receive(), but polls first where that pays, for so many nanoseconds at most */
static int receive(int channel, struct cm_caller *caller, struct cm_inbox *in, int64_t poll, int64_t deadline,
		   int just_sent)
{
	if (poll > 0 && cm_polls(&caller->polling)) {
		int64_t until = cm_now() + poll;

		do {
			int result = cm_receive(channel, in, CM_NOW);

			if (result != -EAGAIN) {
				cm_poll_found(&caller->polling);
				return result;
			}
		} while (cm_now() < until);
		cm_poll_missed(&caller->polling);
		/* a signal that came meanwhile has interrupted nothing: its handler runs before anybody sleeps */
		return deadline == CM_NOW ? -EAGAIN : -EINTR;
	}
	return just_sent && deadline != CM_NOW ? sleep_briefly(channel, in, deadline) : cm_receive(channel, in, deadline);
}

int cm_send_call(int channel, struct cm_caller *caller, const void *key, const void *body, size_t size,
		 const int *attached, int64_t travels, int64_t deadline)
{
	unsigned int count = attached ? (unsigned int)attached[CM_COUNT] : 0;
	int entries = attached ? attached[CM_ENTRIES] : 0, result;
	size_t lines = entries == CM_MAKE_TABLE ? count * sizeof(struct cm_line) : 0;
	int64_t until = cm_until(travels), at = until == CM_FOREVER ? 0 : cm_now();
	struct cm_line table[CM_DESCRIPTORS];
	struct cm_call_head head = {
		.head = {
			.version = CM_VERSION,
			.kind = CM_KIND_CALL,
			.entries = (uint16_t)(entries == CM_MAKE_TABLE ? (int)count : entries),
			.descriptors = (uint16_t)count,
			.cpu = (uint16_t)cm_cpu(),
		},
		.time_left = time_left(until, at),
		.sent_at = (uint64_t)at,
	};
	struct iovec parts[] = {
		{ .iov_base = &head, .iov_len = CM_CALL_TIMES },
		{ .iov_base = (void *)key, .iov_len = CM_CALL_HEAD - CM_CALL_TIMES },
		{ .iov_base = table, .iov_len = lines },
		{ .iov_base = (void *)body, .iov_len = size },
	};
	uint16_t method_size;

	memcpy(&method_size, key, sizeof(method_size));
	parts[1].iov_len += method_size;
	caller->sent = 0;
	if (count > CM_DESCRIPTORS || CM_CALL_HEAD + method_size + lines + size > caller->room)
		return -EMSGSIZE;
	head.head.id = ++caller->id;
	if (lines > 0)
		cm_write_table(table, count);
	result = cm_send(channel, parts, 4, attached ? attached + CM_FIRST : NULL, count, deadline);
	if (result == 0)
		caller->sent = 1;
	return result;
}

static int answer(int channel, struct cm_caller *caller, struct cm_inbox *in, int64_t poll, int64_t deadline,
		  int just_sent)
{
	int result = receive(channel, caller, in, poll, deadline, just_sent);

	if (result <= 0)
		return result;
	cm_note_cpu(&caller->polling, in);
	/* a late answer to an earlier call is looked at closer */
	result = cm_completeness(in, CM_KIND_REPLY, sizeof(struct cm_head));
	if (result == CM_RECORD || record_id(in) != caller->id)
		return CM_RECORD;
	if (result == CM_WHOLE && cm_is_in_order(in, CM_HEAD))
		result = CM_IN_ORDER;
	return cm_told_size(in, result);
}

int cm_answer(int channel, struct cm_caller *caller, struct cm_inbox *in, int64_t poll, int64_t deadline)
{
	return answer(channel, caller, in, poll, deadline, 0);
}

int cm_call(int channel, struct cm_caller *caller, const void *key, const void *body, size_t size,
	    const int *attached, struct cm_inbox *in, int64_t deadline)
{
	int64_t until = cm_until(deadline);
	int error = cm_send_call(channel, caller, key, body, size, attached, until, until);

	return error ? error : answer(channel, caller, in, caller->poll, until, 1);
}
