/*
 * pingpong: what the kernel's own primitive costs, for bench/call.py to compare with
 *
 * Two processes exchange records: the client's CALL holds two integers, the
 * server's REPLY their sum.
 *
 *   kept    one SEQPACKET socketpair carries all calls and replies
 *   fresh   the design of 2012: for each call the client makes a socketpair, passes
 *           one end with the CALL (SCM_RIGHTS), and gets the REPLY on the other;
 *           both sides close what they hold of it
 *
 * 2012 had DGRAM sockets.  Here both modes have SEQPACKET, so that they differ in
 * nothing but the reply socket, and either side notices when the other dies.
 *
 * Prints the nanoseconds per round trip of each block, one block a line.  Every
 * failure ends the program with a message and status 1.
 */
#define _GNU_SOURCE
#include "measuring.h"

#include <sys/wait.h>

enum { RECORD_MAX = 4096 };

struct call {
	int64_t a, b;
};

struct reply {
	int64_t sum;
};

/* a record is as long as the caller says; what follows its struct is padding */
union record {
	struct call call;
	struct reply reply;
	char bytes[RECORD_MAX];
};

static int fresh;
static size_t call_size, reply_size;

/* borrows `passed`; -1: passes nothing */
static void send_record(int socket, const union record *record, size_t size, int passed)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec part = { .iov_base = (void *)record, .iov_len = size };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

	if (passed >= 0) {
		struct cmsghdr *rights = (struct cmsghdr *)control;

		message.msg_control = control;
		message.msg_controllen = sizeof(control);
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(rights), &passed, sizeof(int));
	}
	/* a record is sent whole or not at all */
	if (sendmsg(socket, &message, MSG_NOSIGNAL) < 0)
		die_errno("sendmsg");
}

/*
 * Receives a record of exactly `size` bytes.  If `passed` is not NULL, it brings
 * one descriptor, which the caller then owns.
 *
 * Return: 1, or 0 at the end of file
 */
static int receive_record(int socket, union record *record, size_t size, int *passed)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
	struct iovec part = { .iov_base = record, .iov_len = sizeof(*record) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	ssize_t got;

	if (passed) {
		message.msg_control = control;
		message.msg_controllen = sizeof(control);
	}
	got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	if (got < 0)
		die_errno("recvmsg");
	if (got == 0)
		return 0;
	if ((size_t)got != size || message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
		die("a record of the wrong size came");
	if (passed) {
		const struct cmsghdr *rights = CMSG_FIRSTHDR(&message);

		if (!rights || rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS ||
		    rights->cmsg_len != CMSG_LEN(sizeof(int)))
			die("a CALL came without its reply socket");
		memcpy(passed, CMSG_DATA(rights), sizeof(int));
	}
	return 1;
}

static void serve(int channel)
{
	static union record record;
	int answer_to = channel;

	while (receive_record(channel, &record, call_size, fresh ? &answer_to : NULL)) {
		record.reply.sum = record.call.a + record.call.b;
		send_record(answer_to, &record, reply_size, -1);
		if (fresh)
			close_end(answer_to);
	}
}

static void call(int channel, int64_t a, int64_t b)
{
	static union record record;
	int answer_from = channel;

	record.call.a = a;
	record.call.b = b;
	if (fresh) {
		int pair[2];

		make_pair(pair);
		send_record(channel, &record, call_size, pair[1]);
		close_end(pair[1]);
		answer_from = pair[0];
	} else {
		send_record(channel, &record, call_size, -1);
	}
	if (!receive_record(answer_from, &record, reply_size, NULL))
		die("the server ended");
	if (record.reply.sum != a + b)
		die("a wrong result came");
	if (fresh)
		close_end(answer_from);
}

static int64_t run_block(int channel, long calls)
{
	int64_t begin = now();

	for (long i = 0; i < calls; i++)
		call(channel, i, 2 * i);
	return now() - begin;
}

int main(int argc, char **argv)
{
	long calls, blocks;
	size_t client_cpu, server_cpu;
	int pair[2], status;
	pid_t server;

	if (argc != 8 || (strcmp(argv[1], "kept") && strcmp(argv[1], "fresh")))
		die("usage: pingpong kept|fresh CALLS BLOCKS CLIENT_CPU SERVER_CPU CALL_BYTES REPLY_BYTES");
	fresh = strcmp(argv[1], "fresh") == 0;
	calls = number(argv[2], 1, 1000000000);
	blocks = number(argv[3], 1, 1000000);
	client_cpu = (size_t)number(argv[4], 0, CPU_SETSIZE - 1);
	server_cpu = (size_t)number(argv[5], 0, CPU_SETSIZE - 1);
	call_size = (size_t)number(argv[6], sizeof(struct call), RECORD_MAX);
	reply_size = (size_t)number(argv[7], sizeof(struct reply), RECORD_MAX);

	make_pair(pair);
	server = fork();
	if (server < 0)
		die_errno("fork");
	if (server == 0) {
		/* else it would hold its own end of file back */
		close_end(pair[0]);
		run_on(server_cpu);
		serve(pair[1]);
		return 0;
	}
	close_end(pair[1]);
	run_on(client_cpu);

	/* untimed: the server has started, and the caches are warm */
	run_block(pair[0], calls / 10 + 1);
	for (long i = 0; i < blocks; i++)
		printf("%.1f\n", (double)run_block(pair[0], calls) / (double)calls);

	close_end(pair[0]);
	if (waitpid(server, &status, 0) < 0)
		die_errno("waitpid");
	if (status != 0)
		die("the server failed");
	if (fflush(stdout) == EOF)
		die_errno("standard output");
	return 0;
}
