#define _GNU_SOURCE
#include "measuring.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NANOSECONDS 1000000000LL

union control {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
};

static pid_t server;

void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", program_invocation_short_name, what);
	exit(1);
}

void die_errno(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
	exit(1);
}

long number(const char *text, long least, long most)
{
	char *end;
	long value;

	errno = 0;
	value = strtol(text, &end, 10);
	if (errno || end == text || *end || value < least || value > most) {
		fprintf(stderr, "%s: %s: not a number from %ld to %ld\n", program_invocation_short_name, text, least, most);
		exit(1);
	}
	return value;
}

struct cores cores(const char *client, const char *server_core)
{
	struct cores made = {
		.client = (size_t)number(client, 0, CPU_SETSIZE - 1),
		.server = (size_t)number(server_core, 0, CPU_SETSIZE - 1),
	};

	return made;
}

void make_pair(int pair[2])
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		die_errno("socketpair");
}

void close_end(int descriptor)
{
	if (close(descriptor) < 0)
		die_errno("close");
}

void open_memfds(int *descriptors, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		descriptors[i] = memfd_create("bench", MFD_CLOEXEC);
		if (descriptors[i] < 0)
			die_errno("memfd_create");
	}
}

void open_files(int *descriptors, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		descriptors[i] = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
		if (descriptors[i] < 0)
			die_errno("/proc/self/exe");
	}
}

uint64_t inode(int descriptor)
{
	struct stat status;

	if (fstat(descriptor, &status) < 0)
		die_errno("fstat");
	return status.st_ino;
}

int64_t now(void)
{
	struct timespec time;

	if (clock_gettime(CLOCK_MONOTONIC, &time) < 0)
		die_errno("clock_gettime");
	return time.tv_sec * NANOSECONDS + time.tv_nsec;
}

void send_record(int socket, struct iovec *parts, size_t n_parts, const int *descriptors, size_t n_descriptors)
{
	union control control;
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = n_parts };

	if (n_descriptors) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(n_descriptors * sizeof(int));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(n_descriptors * sizeof(int));
		memcpy(CMSG_DATA(&control.header), descriptors, n_descriptors * sizeof(int));
	}
	/* a record is sent whole or not at all */
	if (sendmsg(socket, &message, MSG_NOSIGNAL) < 0)
		die_errno("sendmsg");
}

/* recvmsg, after trying for a while without sleeping */
static ssize_t receive(int socket, struct msghdr *message, int64_t nanoseconds)
{
	if (nanoseconds) {
		int64_t give_up = now() + nanoseconds;

		do {
			ssize_t got = recvmsg(socket, message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

			if (got >= 0 || errno != EAGAIN)
				return got;
		} while (now() < give_up);
	}
	return recvmsg(socket, message, MSG_CMSG_CLOEXEC);
}

size_t receive_record(int socket, struct iovec *parts, size_t n_parts, int *descriptors, size_t *n_descriptors,
		      int64_t nanoseconds)
{
	union control control;
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = n_parts };
	const struct cmsghdr *rights;
	size_t came = 0;
	ssize_t got;

	if (*n_descriptors) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
	}
	got = receive(socket, &message, nanoseconds);
	if (got < 0)
		die_errno("recvmsg");
	if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
		die("a record came that is too large, or without all of its descriptors");
	rights = CMSG_FIRSTHDR(&message);
	if (rights && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
		came = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		if (came > *n_descriptors)
			die("too many descriptors came");
		memcpy(descriptors, CMSG_DATA(rights), came * sizeof(int));
	}
	*n_descriptors = came;
	return (size_t)got;
}

static void run_on(size_t cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		die_errno("sched_setaffinity");
}

int start_server(void (*serve)(int socket, void *room), void *room, struct cores cores)
{
	int pair[2];

	make_pair(pair);
	server = fork();
	if (server < 0)
		die_errno("fork");
	if (server == 0) {
		/* else it would hold its own end of file back */
		close_end(pair[0]);
		run_on(cores.server);
		serve(pair[1], room);
		_exit(0);
	}
	close_end(pair[1]);
	run_on(cores.client);
	return pair[0];
}

void end_server(int socket)
{
	int status;

	close_end(socket);
	if (waitpid(server, &status, 0) < 0)
		die_errno("waitpid");
	if (status != 0)
		die("the server failed");
}

void print_figure(int64_t nanoseconds, long count)
{
	printf("%.1f\n", (double)nanoseconds / (double)count);
	if (fflush(stdout) == EOF)
		die_errno("standard output");
}
