/*
 * c_program: what the kernel's own primitive costs, for the benchmarks to compare with
 *
 * A client hands bytes and descriptors over to a server, a process of its own,
 * which answers what came.  Records are those of a SEQPACKET socketpair.
 *
 *   kept       one socketpair carries all records
 *   polling    the same, and each side tries to receive for up to POLL_NS before it sleeps
 *   fresh      the design of 2012: for each call the client makes a socketpair, passes
 *              one end along, and gets the answer on the other; both sides close what
 *              they hold of it
 *   memfds     as kept, with memfds, which come back with the answer; both sides close
 *              what they received, the server once it has answered
 *   files      the same with regular files
 *   there      as kept, with memfds, which the server closes before it answers
 *
 * 2012 had DGRAM sockets.  Here all modes have SEQPACKET, so that they differ in
 * nothing but what is named above, and either side notices when the other dies.
 * The server receives into memory that it uses again.
 *
 * Prints the nanoseconds per round trip.  Every failure ends the program with a
 * message and status 1.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	/* include/net/scm.h: SCM_MAX_FD */
	DESCRIPTORS_MAX = 253,
	/* of a record; fits, with its head, into the default send buffer of 212,992 bytes */
	BYTES_MAX = 192 * 1024,
	ANSWER_MAX = 4096,
	POLL_NS = 50000,
};

/*
 * what is handed over: all of it, in any number of records, or one record's share
 *
 * Each record has the head.  It says how many bytes and descriptors there are in all;
 * an answer's, how many of either came, and the last byte, or where there is none the
 * inode of the last descriptor.
 */
struct load {
	uint64_t head[2];
	char *bytes;
	size_t n_bytes;
	int *descriptors;
	size_t n_descriptors;
};

union control {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
};

static int fresh, back, polling;
/* what follows the head of an answer is padding */
static char padding[ANSWER_MAX];
static size_t n_padding;

/* ends the program where a system call failed */
static long check(long result, const char *call)
{
	if (result < 0)
		err(1, "%s", call);
	return result;
}

static int64_t now(void)
{
	struct timespec time;

	check(clock_gettime(CLOCK_MONOTONIC, &time), "clock_gettime");
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void run_on(const char *cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(strtoul(cpu, NULL, 10), &set);
	check(sched_setaffinity(0, sizeof(set), &set), "sched_setaffinity");
}

static void make_pair(int pair[2])
{
	check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), "socketpair");
}

static void close_all(const int *descriptors, size_t count)
{
	for (size_t i = 0; i < count; i++)
		check(close(descriptors[i]), "close");
}

/* borrows the descriptors; returns 1 */
static int send_record(int socket, struct load *record)
{
	union control control;
	struct iovec parts[] = { { record->head, sizeof(record->head) }, { record->bytes, record->n_bytes } };
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };
	size_t size = record->n_descriptors * sizeof(int);

	if (size) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(size);
		control.header = (struct cmsghdr){ CMSG_LEN(size), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(&control.header), record->descriptors, size);
	}
	/* a record is sent whole or not at all */
	check(sendmsg(socket, &message, MSG_NOSIGNAL), "sendmsg");
	return 1;
}

/* into as much as there is room for; 0 at the end of file */
static int receive_record(int socket, struct load *record)
{
	union control control;
	struct iovec parts[] = { { record->head, sizeof(record->head) }, { record->bytes, record->n_bytes } };
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };
	const struct cmsghdr *rights;
	int64_t give_up = polling ? now() + POLL_NS : 0;
	size_t came = 0;
	ssize_t got = -1;

	if (record->n_descriptors) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
	}
	errno = EAGAIN;
	while (got < 0 && errno == EAGAIN && polling && now() < give_up)
		got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (got < 0 && errno == EAGAIN)
		got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	check(got, "recvmsg");
	if (got == 0)
		return 0;
	rights = CMSG_FIRSTHDR(&message);
	if (rights)
		came = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC) || came > record->n_descriptors || got < (ssize_t)sizeof(record->head))
		errx(1, "a record came that is too small or too large, or without all of its descriptors");
	if (rights)
		memcpy(record->descriptors, CMSG_DATA(rights), came * sizeof(int));
	record->n_bytes = (size_t)got - sizeof(record->head);
	record->n_descriptors = came;
	return 1;
}

/*
 * all of it, record by record: sent, or received into as much as there is room for
 *
 * Return: 0 at the end of file
 */
static int each_record(int (*deed)(int, struct load *), int socket, struct load *load)
{
	struct load part = { .head = { load->n_bytes, load->n_descriptors } };
	size_t bytes = 0, descriptors = 0;

	do {
		part.bytes = load->bytes + bytes;
		part.n_bytes = MIN(load->n_bytes - bytes, BYTES_MAX);
		part.descriptors = load->descriptors + descriptors;
		part.n_descriptors = MIN(load->n_descriptors - descriptors, DESCRIPTORS_MAX);
		if (!deed(socket, &part))
			return 0;
		bytes += part.n_bytes;
		descriptors += part.n_descriptors;
	} while (bytes < part.head[0] || descriptors < part.head[1]);
	load->n_bytes = bytes;
	load->n_descriptors = descriptors;
	return 1;
}

/* to what came; with the descriptors, where they go back */
static struct load answer_to(const struct load *load)
{
	struct load answer = { { load->n_bytes + load->n_descriptors }, padding, n_padding, load->descriptors, 0 };
	struct stat status;

	if (load->n_bytes) {
		answer.head[1] = (unsigned char)load->bytes[load->n_bytes - 1];
	} else if (load->n_descriptors) {
		check(fstat(load->descriptors[load->n_descriptors - 1], &status), "fstat");
		answer.head[1] = status.st_ino;
	}
	if (back)
		answer.n_descriptors = load->n_descriptors;
	return answer;
}

static void serve(int channel, const struct load *room)
{
	struct load came = *room, answer;

	while (each_record(receive_record, channel, &came)) {
		answer = answer_to(&came);
		if (!fresh && !back)
			close_all(came.descriptors, came.n_descriptors);
		send_record(fresh ? came.descriptors[0] : channel, &answer);
		if (fresh || back)
			close_all(came.descriptors, came.n_descriptors);
		came = *room;
	}
}

static void call(int channel, struct load *load, const struct load *expected)
{
	int received[DESCRIPTORS_MAX], pair[2] = { channel, -1 };
	struct load answer = { { 0 }, padding, ANSWER_MAX, received, expected->n_descriptors };

	if (fresh) {
		make_pair(pair);
		load->descriptors[0] = pair[1];
	}
	each_record(send_record, channel, load);
	if (fresh)
		close_all(&pair[1], 1);
	if (!receive_record(pair[0], &answer))
		errx(1, "the server ended");
	if (memcmp(answer.head, expected->head, sizeof(answer.head)) || answer.n_bytes != expected->n_bytes ||
	    answer.n_descriptors != expected->n_descriptors)
		errx(1, "something else arrived than was sent");
	close_all(received, answer.n_descriptors);
	if (fresh)
		close_all(&pair[0], 1);
}

int main(int argc, char **argv)
{
	struct load load, expected;
	int pair[2], status, files;
	int64_t begin;
	long times;
	pid_t pid;

	if (argc != 8)
		errx(1, "kept|polling|fresh|memfds|files|there BYTES DESCRIPTORS ANSWER_BYTES TIMES CLIENT_CPU SERVER_CPU");
	fresh = !strcmp(argv[1], "fresh");
	polling = !strcmp(argv[1], "polling");
	files = !strcmp(argv[1], "files");
	back = files || !strcmp(argv[1], "memfds");
	load.n_bytes = strtoul(argv[2], NULL, 10);
	/* what is passed for the answer is a descriptor, too */
	load.n_descriptors = fresh ? 1 : strtoul(argv[3], NULL, 10);
	n_padding = strtoul(argv[4], NULL, 10) - sizeof(load.head);
	times = strtol(argv[5], NULL, 10);
	if (n_padding > ANSWER_MAX || times < 1 || (back && load.n_descriptors > DESCRIPTORS_MAX))
		errx(1, "too much, or nothing to do");
	load.bytes = calloc(load.n_bytes + 1, 1);
	load.descriptors = calloc(load.n_descriptors + 1, sizeof(int));
	check(load.bytes && load.descriptors ? 0 : -1, "calloc");

	make_pair(pair);
	/* before anything is filled in: the server has memory, and a table, of its own */
	pid = (pid_t)check(fork(), "fork");
	if (pid == 0) {
		/* else it would hold its own end of file back */
		close_all(&pair[0], 1);
		run_on(argv[7]);
		serve(pair[1], &load);
		_exit(0);
	}
	close_all(&pair[1], 1);
	run_on(argv[6]);
	for (size_t i = 0; i < load.n_bytes; i++)
		load.bytes[i] = (char)(i % 251);
	for (size_t i = 0; i < load.n_descriptors && !fresh; i++)
		load.descriptors[i] = (int)(files ? check(open("/proc/self/exe", O_RDONLY | O_CLOEXEC), "open")
						  : check(memfd_create("bench", MFD_CLOEXEC), "memfd_create"));

	expected = answer_to(&load);
	/* untimed: the server has started, and the caches are warm */
	for (long i = 0; i <= times / 10; i++)
		call(pair[0], &load, &expected);
	begin = now();
	for (long i = 0; i < times; i++)
		call(pair[0], &load, &expected);
	printf("%.1f\n", (double)(now() - begin) / (double)times);
	close_all(&pair[0], 1);
	check(waitpid(pid, &status, 0), "waitpid");
	if (status != 0)
		errx(1, "the server failed");
	return fflush(stdout) == EOF;
}
