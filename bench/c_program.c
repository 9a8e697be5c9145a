/*
 * c_program: what the kernel's own primitive costs, for the benchmarks to compare with
 *
 * A client hands bytes and descriptors over to a server, a process of its own,
 * which answers what came.  Records are those of a SEQPACKET socketpair: each has
 * a head, up to BYTES_MAX bytes and up to DESCRIPTORS_MAX descriptors.
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
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	/* include/net/scm.h: SCM_MAX_FD */
	DESCRIPTORS_MAX = 253,
	/* fits, with its head, into the default send buffer of 212,992 bytes */
	BYTES_MAX = 192 * 1024,
	ANSWER_MAX = 4096,
	POLL_NS = 50000,
};

/* of each record: all that is handed over, not the record's share */
struct head {
	uint64_t bytes, descriptors;
};

struct load {
	struct head all;
	char *bytes;
	int *descriptors;
};

/* what arrived; as long as the command line says, what follows the two numbers is padding */
struct answer {
	uint64_t count;
	/* the last byte, or where there is none the inode of the last descriptor */
	uint64_t mark;
	char padding[ANSWER_MAX];
};

union control {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
};

static int fresh, back, polling;
static size_t answer_size;

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

/* one record; borrows the descriptors */
static void send_record(int socket, struct iovec *parts, size_t n_parts, const int *descriptors, size_t count)
{
	union control control;
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = n_parts };

	if (count) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(&control.header), descriptors, count * sizeof(int));
	}
	/* a record is sent whole or not at all */
	check(sendmsg(socket, &message, MSG_NOSIGNAL), "sendmsg");
}

/*
 * Receives one record.  Descriptors are the caller's from then on.
 *
 * @count: room for so many; on return, how many came
 *
 * Return: its size in bytes, 0 at the end of file
 */
static size_t receive_record(int socket, struct iovec *parts, size_t n_parts, int *descriptors, size_t *count)
{
	union control control;
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = n_parts };
	const struct cmsghdr *rights;
	int64_t give_up = polling ? now() + POLL_NS : 0;
	size_t came = 0;
	ssize_t got = -1;

	if (*count) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
	}
	errno = EAGAIN;
	while (got < 0 && errno == EAGAIN && polling && now() < give_up)
		got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (got < 0 && errno == EAGAIN)
		got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	check(got, "recvmsg");
	if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
		errx(1, "a record came that is too large, or without all of its descriptors");
	rights = CMSG_FIRSTHDR(&message);
	if (rights) {
		came = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		if (came > *count)
			errx(1, "too many descriptors came");
		memcpy(descriptors, CMSG_DATA(rights), came * sizeof(int));
	}
	*count = came;
	return (size_t)got;
}

static void look(const struct load *load, struct answer *answer)
{
	const struct head *all = &load->all;
	struct stat status;

	answer->count = all->bytes + all->descriptors;
	answer->mark = all->bytes ? (unsigned char)load->bytes[all->bytes - 1] : 0;
	if (!all->bytes && all->descriptors) {
		check(fstat(load->descriptors[all->descriptors - 1], &status), "fstat");
		answer->mark = status.st_ino;
	}
}

static void send_load(int socket, const struct load *load)
{
	struct head all = load->all;
	size_t bytes = 0, descriptors = 0;

	do {
		size_t n_bytes = MIN(all.bytes - bytes, BYTES_MAX);
		size_t n_descriptors = MIN(all.descriptors - descriptors, DESCRIPTORS_MAX);
		struct iovec parts[] = { { &all, sizeof(all) }, { load->bytes + bytes, n_bytes } };

		send_record(socket, parts, 2, load->descriptors + descriptors, n_descriptors);
		bytes += n_bytes;
		descriptors += n_descriptors;
	} while (bytes < all.bytes || descriptors < all.descriptors);
}

/* a load of up to `room` into its memory; 0 at the end of file */
static int receive_load(int socket, const struct load *room, struct head *all)
{
	size_t bytes = 0, descriptors = 0;

	do {
		struct iovec parts[] = { { all, sizeof(*all) }, { room->bytes + bytes, room->all.bytes - bytes } };
		size_t came = room->all.descriptors - descriptors;
		size_t got = receive_record(socket, parts, 2, room->descriptors + descriptors, &came);

		if (got == 0)
			return 0;
		if (got < sizeof(*all))
			errx(1, "a record came that is too small");
		bytes += got - sizeof(*all);
		descriptors += came;
	} while (bytes < all->bytes || descriptors < all->descriptors);
	return 1;
}

static void serve(int channel, const struct load *room)
{
	static struct answer answer;
	struct iovec part = { &answer, answer_size };
	struct load came = *room;

	while (receive_load(channel, room, &came.all)) {
		size_t count = came.all.descriptors;

		look(&came, &answer);
		if (!fresh && !back)
			close_all(came.descriptors, count);
		send_record(fresh ? came.descriptors[0] : channel, &part, 1, came.descriptors, back ? count : 0);
		if (fresh || back)
			close_all(came.descriptors, count);
	}
}

static void call(int channel, const struct load *load, const struct answer *expected)
{
	static struct answer answer;
	struct iovec part = { &answer, sizeof(answer) };
	size_t count = back ? load->all.descriptors : 0, came = count;
	int received[DESCRIPTORS_MAX], pair[2] = { channel, -1 };

	if (fresh) {
		make_pair(pair);
		load->descriptors[0] = pair[1];
	}
	send_load(channel, load);
	if (fresh)
		close_all(&pair[1], 1);
	if (receive_record(pair[0], &part, 1, received, &came) != answer_size)
		errx(1, "the server ended, or an answer of the wrong size came");
	if (came != count || answer.count != expected->count || answer.mark != expected->mark)
		errx(1, "something else arrived than was sent");
	close_all(received, came);
	if (fresh)
		close_all(&pair[0], 1);
}

int main(int argc, char **argv)
{
	struct load load;
	struct answer expected;
	int pair[2], status;
	int64_t begin;
	long times, warming;
	pid_t pid;

	if (argc != 8)
		errx(1, "kept|polling|fresh|memfds|files|there BYTES DESCRIPTORS ANSWER_BYTES TIMES CLIENT_CPU SERVER_CPU");
	fresh = !strcmp(argv[1], "fresh");
	polling = !strcmp(argv[1], "polling");
	back = !strcmp(argv[1], "memfds") || !strcmp(argv[1], "files");
	load.all.bytes = strtoul(argv[2], NULL, 10);
	/* what is passed for the answer is a descriptor, too */
	load.all.descriptors = fresh ? 1 : strtoul(argv[3], NULL, 10);
	answer_size = strtoul(argv[4], NULL, 10);
	times = strtol(argv[5], NULL, 10);
	if (answer_size > ANSWER_MAX || times < 1 || (back && load.all.descriptors > DESCRIPTORS_MAX))
		errx(1, "too much, or nothing to do");
	load.bytes = calloc(load.all.bytes + 1, 1);
	load.descriptors = calloc(load.all.descriptors + 1, sizeof(int));
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
	for (size_t i = 0; i < load.all.bytes; i++)
		load.bytes[i] = (char)(i % 251);
	for (size_t i = 0; i < load.all.descriptors && !fresh; i++)
		load.descriptors[i] = (int)(strcmp(argv[1], "files") ? check(memfd_create("bench", MFD_CLOEXEC), "memfd_create")
								     : check(open("/proc/self/exe", O_RDONLY | O_CLOEXEC), "open"));

	look(&load, &expected);
	/* untimed: the server has started, and the caches are warm */
	for (warming = times / 10 + 1; warming > 0; warming--)
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
