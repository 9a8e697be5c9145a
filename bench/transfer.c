/*
 * transfer: what handing bytes or descriptors over costs in C, for bench/transfer.py to compare with
 *
 *   bytes        the client hands N bytes over
 *   descriptors  the client hands N descriptors over, each of a memfd of its own
 *
 * Both on one SEQPACKET socketpair, as many records as it takes: each has up to
 * BYTES_MAX bytes behind its head and up to DESCRIPTORS_MAX descriptors.  The server
 * puts the bytes together in memory that it uses again, closes the descriptors, and
 * says in one record what it saw; the client checks that.
 *
 * Prints the nanoseconds per hand-over.
 */
#define _GNU_SOURCE
#include "measuring.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum {
	/* fits, with its head, into the default send buffer of 212,992 bytes */
	BYTES_MAX = 192 * 1024,
	/* include/net/scm.h: SCM_MAX_FD */
	DESCRIPTORS_MAX = 253,
};

/* of each record: all that is handed over, not the record's share */
struct head {
	uint64_t bytes, descriptors;
};

/* what arrived */
struct seen {
	uint64_t count;
	/* the last byte, or the inode of the last descriptor; 0 if there is none */
	uint64_t mark;
};

struct load {
	struct head all;
	char *bytes;
	int *descriptors;
};

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

static uint64_t inode(int descriptor)
{
	struct stat status;

	if (fstat(descriptor, &status) < 0)
		die_errno("fstat");
	return status.st_ino;
}

static struct seen look(const struct load *load)
{
	struct seen seen = { .count = load->all.bytes + load->all.descriptors };

	if (load->all.bytes)
		seen.mark = (unsigned char)load->bytes[load->all.bytes - 1];
	else if (load->all.descriptors)
		seen.mark = inode(load->descriptors[load->all.descriptors - 1]);
	return seen;
}

static void send_load(int socket, const struct load *load)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))] = { 0 };
	size_t bytes = 0, descriptors = 0;

	do {
		size_t n_bytes = smaller(load->all.bytes - bytes, BYTES_MAX);
		size_t n_descriptors = smaller(load->all.descriptors - descriptors, DESCRIPTORS_MAX);
		struct iovec parts[] = {
			{ .iov_base = (void *)&load->all, .iov_len = sizeof(load->all) },
			{ .iov_base = load->bytes + bytes, .iov_len = n_bytes },
		};
		struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };

		if (n_descriptors) {
			struct cmsghdr *rights = (struct cmsghdr *)control;

			message.msg_control = control;
			message.msg_controllen = CMSG_SPACE(n_descriptors * sizeof(int));
			rights->cmsg_level = SOL_SOCKET;
			rights->cmsg_type = SCM_RIGHTS;
			rights->cmsg_len = CMSG_LEN(n_descriptors * sizeof(int));
			memcpy(CMSG_DATA(rights), load->descriptors + descriptors, n_descriptors * sizeof(int));
		}
		/* a record is sent whole or not at all */
		if (sendmsg(socket, &message, MSG_NOSIGNAL) < 0)
			die_errno("sendmsg");
		bytes += n_bytes;
		descriptors += n_descriptors;
	} while (bytes < load->all.bytes || descriptors < load->all.descriptors);
}

/*
 * Receives a load of up to load->all into its memory; the caller owns the descriptors.
 *
 * Return: what came, or a count of UINT64_MAX at the end of file
 */
static struct head receive_load(int socket, const struct load *load)
{
	static const struct head end = { UINT64_MAX, UINT64_MAX };
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
	size_t bytes = 0, descriptors = 0;
	struct head all;

	do {
		struct iovec parts[] = {
			{ .iov_base = &all, .iov_len = sizeof(all) },
			{ .iov_base = load->bytes + bytes, .iov_len = load->all.bytes - bytes },
		};
		struct msghdr message = {
			.msg_iov = parts,
			.msg_iovlen = 2,
			.msg_control = control,
			.msg_controllen = sizeof(control),
		};
		const struct cmsghdr *rights;
		ssize_t got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);

		if (got < 0)
			die_errno("recvmsg");
		if (got == 0)
			return end;
		if ((size_t)got < sizeof(all) || message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
			die("a record of the wrong size came, or without all of its descriptors");
		bytes += (size_t)got - sizeof(all);
		rights = CMSG_FIRSTHDR(&message);
		if (rights && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
			size_t count = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);

			if (count > load->all.descriptors - descriptors)
				die("too many descriptors came");
			memcpy(load->descriptors + descriptors, CMSG_DATA(rights), count * sizeof(int));
			descriptors += count;
		}
	} while (bytes < all.bytes || descriptors < all.descriptors);
	return all;
}

static void serve(int channel, const struct load *room)
{
	struct load came = *room;

	for (;;) {
		struct seen seen;

		came.all = receive_load(channel, room);
		if (came.all.bytes == UINT64_MAX)
			return;
		seen = look(&came);
		for (size_t i = 0; i < came.all.descriptors; i++)
			close_end(came.descriptors[i]);
		if (send(channel, &seen, sizeof(seen), MSG_NOSIGNAL) < 0)
			die_errno("send");
	}
}

static void hand_over(int channel, const struct load *load, const struct seen *expected)
{
	struct seen seen;
	ssize_t got;

	send_load(channel, load);
	got = recv(channel, &seen, sizeof(seen), 0);
	if (got < 0)
		die_errno("recv");
	if (got != sizeof(seen))
		die("the server ended");
	if (seen.count != expected->count || seen.mark != expected->mark)
		die("something else arrived than was sent");
}

static int64_t hand_over_often(int channel, const struct load *load, long repeats)
{
	struct seen expected = look(load);
	int64_t begin = now();

	for (long i = 0; i < repeats; i++)
		hand_over(channel, load, &expected);
	return now() - begin;
}

static void *allocate(size_t count, size_t size)
{
	void *memory = calloc(count ? count : 1, size);

	if (!memory)
		die_errno("calloc");
	return memory;
}

static struct load make_load(int of_bytes, size_t n)
{
	struct load load = { .all = { of_bytes ? n : 0, of_bytes ? 0 : n } };

	load.bytes = allocate(load.all.bytes, 1);
	load.descriptors = allocate(load.all.descriptors, sizeof(int));
	return load;
}

static void fill_load(struct load *load)
{
	for (size_t i = 0; i < load->all.bytes; i++)
		load->bytes[i] = (char)(i % 251);
	for (size_t i = 0; i < load->all.descriptors; i++) {
		load->descriptors[i] = memfd_create("transfer", MFD_CLOEXEC);
		if (load->descriptors[i] < 0)
			die_errno("memfd_create");
	}
}

int main(int argc, char **argv)
{
	size_t client_cpu, server_cpu;
	struct load load;
	long repeats;
	int pair[2], status;
	pid_t server;

	if (argc != 6 || (strcmp(argv[1], "bytes") && strcmp(argv[1], "descriptors")))
		die("usage: transfer bytes|descriptors N REPEATS CLIENT_CPU SERVER_CPU");
	load = make_load(strcmp(argv[1], "bytes") == 0, (size_t)number(argv[2], 0, 1L << 40));
	repeats = number(argv[3], 1, 1000000);
	client_cpu = (size_t)number(argv[4], 0, CPU_SETSIZE - 1);
	server_cpu = (size_t)number(argv[5], 0, CPU_SETSIZE - 1);

	make_pair(pair);
	server = fork();
	if (server < 0)
		die_errno("fork");
	if (server == 0) {
		/* else it would hold its own end of file back */
		close_end(pair[0]);
		run_on(server_cpu);
		serve(pair[1], &load);
		return 0;
	}
	close_end(pair[1]);
	run_on(client_cpu);
	fill_load(&load);

	/* untimed: the server has started, and the caches are warm */
	hand_over_often(pair[0], &load, repeats / 10 + 1);
	printf("%.1f\n", (double)hand_over_often(pair[0], &load, repeats) / (double)repeats);

	close_end(pair[0]);
	if (waitpid(server, &status, 0) < 0)
		die_errno("waitpid");
	if (status != 0)
		die("the server failed");
	if (fflush(stdout) == EOF)
		die_errno("standard output");
	return 0;
}
