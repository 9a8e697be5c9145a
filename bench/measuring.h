/*
 * What the benchmarks' C programs share: records on a SEQPACKET socket, two
 * processes that are pinned, the time.  Every failure ends the program with a
 * message and status 1.
 */
#ifndef MEASURING_H
#define MEASURING_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* include/net/scm.h: SCM_MAX_FD */
enum { DESCRIPTORS_MAX = 253 };

/* where the two processes run */
struct cores {
	size_t client, server;
};

_Noreturn void die(const char *what);
_Noreturn void die_errno(const char *what);

/* a number from `least` to `most` */
long number(const char *text, long least, long most);
struct cores cores(const char *client, const char *server);

void make_pair(int pair[2]);
void close_end(int descriptor);

/* of a memfd each, or of the program's own file, opened anew; the caller owns them */
void open_memfds(int *descriptors, size_t count);
void open_files(int *descriptors, size_t count);
uint64_t inode(int descriptor);

/* nanoseconds */
int64_t now(void);

/* sends one record; borrows the descriptors, at most DESCRIPTORS_MAX */
void send_record(int socket, struct iovec *parts, size_t n_parts, const int *descriptors, size_t n_descriptors);

/*
 * Receives one record.  Descriptors are the caller's from then on.
 *
 * @n_descriptors: room for so many; on return, how many came
 * @nanoseconds:   tries again and again for so long before it sleeps
 *
 * Return: its size in bytes, 0 at the end of file
 */
size_t receive_record(int socket, struct iovec *parts, size_t n_parts, int *descriptors, size_t *n_descriptors,
		      int64_t nanoseconds);

/*
 * Forks a process that runs `serve` on one end of a new socketpair, and pins both.
 *
 * @room: what `serve` is given
 *
 * Return: the client's end
 */
int start_server(void (*serve)(int socket, void *room), void *room, struct cores cores);

/* closes the client's end, and waits for the server to end for that */
void end_server(int socket);

/* prints one figure: nanoseconds for one of `count` */
void print_figure(int64_t nanoseconds, long count);

#endif
