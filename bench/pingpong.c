/*
 * pingpong: what the kernel's own primitive costs, for the benchmarks to compare with
 *
 * Two processes exchange records: the client's CALL holds two integers, the
 * server's REPLY their sum.
 *
 *   kept     one SEQPACKET socketpair carries all calls and replies
 *   polling  the same, and each side tries to receive for up to POLL_NS before it sleeps
 *   fresh    the design of 2012: for each call the client makes a socketpair, passes
 *            one end with the CALL (SCM_RIGHTS), and gets the REPLY on the other;
 *            both sides close what they hold of it
 *   memfds, files
 *            as kept, and N descriptors travel with the CALL and come back with the
 *            REPLY; both sides close what they received, the server once it has answered
 *
 * 2012 had DGRAM sockets.  Here all modes have SEQPACKET, so that they differ in
 * nothing but what is named above, and either side notices when the other dies.
 *
 * Prints the nanoseconds per round trip.
 */
#include "measuring.h"

#include <string.h>

enum { RECORD_MAX = 4096, POLL_NS = 50000 };

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
static int64_t poll_ns;
static size_t call_size, reply_size, n_passed;
static int passed[DESCRIPTORS_MAX];

static void transmit(int socket, union record *record, size_t size, const int *descriptors, size_t n)
{
	struct iovec part = { .iov_base = record, .iov_len = size };

	send_record(socket, &part, 1, descriptors, n);
}

/* 0 at the end of file; else a record of exactly that size came, with so many descriptors */
static int receive(int socket, union record *record, size_t size, int *descriptors, size_t n)
{
	struct iovec part = { .iov_base = record, .iov_len = sizeof(*record) };
	size_t came = n, got = receive_record(socket, &part, 1, descriptors, &came, poll_ns);

	if (got == 0)
		return 0;
	if (got != size || came != n)
		die("a record of the wrong size came, or without its descriptors");
	return 1;
}

static void close_all(const int *descriptors, size_t n)
{
	for (size_t i = 0; i < n; i++)
		close_end(descriptors[i]);
}

static void serve(int channel, void *room)
{
	static union record record;
	int came[DESCRIPTORS_MAX];
	size_t n = fresh ? 1 : n_passed;

	(void)room;
	while (receive(channel, &record, call_size, came, n)) {
		record.reply.sum = record.call.a + record.call.b;
		transmit(fresh ? came[0] : channel, &record, reply_size, came, n_passed);
		close_all(came, n);
	}
}

static void call(int channel, int64_t a, int64_t b)
{
	static union record record;
	int came[DESCRIPTORS_MAX];
	int answer_from = channel;

	record.call.a = a;
	record.call.b = b;
	if (fresh) {
		int pair[2];

		make_pair(pair);
		transmit(channel, &record, call_size, &pair[1], 1);
		close_end(pair[1]);
		answer_from = pair[0];
	} else {
		transmit(channel, &record, call_size, passed, n_passed);
	}
	if (!receive(answer_from, &record, reply_size, came, n_passed))
		die("the server ended");
	if (record.reply.sum != a + b)
		die("a wrong result came");
	close_all(came, n_passed);
	if (fresh)
		close_end(answer_from);
}

static int64_t run(int channel, long calls)
{
	int64_t begin = now();

	for (long i = 0; i < calls; i++)
		call(channel, i, 2 * i);
	return now() - begin;
}

int main(int argc, char **argv)
{
	static const char usage[] = "usage: pingpong kept|polling|fresh|memfds|files CALLS CLIENT_CPU SERVER_CPU "
				    "CALL_BYTES REPLY_BYTES N";
	long calls;
	int channel;

	if (argc != 8)
		die(usage);
	calls = number(argv[2], 1, 1000000000);
	call_size = (size_t)number(argv[5], sizeof(struct call), RECORD_MAX);
	reply_size = (size_t)number(argv[6], sizeof(struct reply), RECORD_MAX);
	n_passed = (size_t)number(argv[7], 0, DESCRIPTORS_MAX);
	if (!strcmp(argv[1], "fresh"))
		fresh = 1;
	else if (!strcmp(argv[1], "polling"))
		poll_ns = POLL_NS;
	else if (!strcmp(argv[1], "memfds"))
		open_memfds(passed, n_passed);
	else if (!strcmp(argv[1], "files"))
		open_files(passed, n_passed);
	else if (strcmp(argv[1], "kept"))
		die(usage);
	if (n_passed && !passed[0])
		die("only memfds and files pass descriptors");

	channel = start_server(serve, NULL, cores(argv[3], argv[4]));
	/* untimed: the server has started, and the caches are warm */
	run(channel, calls / 10 + 1);
	print_figure(run(channel, calls), calls);
	end_server(channel);
	return 0;
}
