/*
 * cm_make: descriptors of this package's own
 *
 * Each is written to where its owner looks for it, so that no interrupt can come between
 * its making and its having an owner; all of them are CLOEXEC, and from 3 up.  Below that
 * are the standard streams: where those are closed, the lowest free number is one of
 * theirs, and whoever opens them anew by dup2(2) would replace what stands there.
 *
 * Return: 0, or -errno of the system call; nothing is made then, and the places stay as they are
 */
#ifndef CAPMARSHAL_CM_MAKE_H
#define CAPMARSHAL_CM_MAKE_H

#include <stddef.h>

/* two sockets, AF_UNIX SEQPACKET, connected to each other */
int cm_make_pair(int *pair);
/* one, AF_UNIX SEQPACKET, connected to nothing */
int cm_make_socket(int *place);
/* the next connection of a listening socket */
int cm_make_accepted(int *place, int listener);
int cm_make_epoll(int *place);
/* an eventfd that does not block */
int cm_make_event(int *place);
/* a memfd that can be sealed */
int cm_make_memfd(int *place, const char *name);
/* one that polls readable when a process has ended; it is closed in an exec (pidfd_open(2)) */
int cm_make_pidfd(int *place, int process);
/* a file, opened as openat(2) opens it; where the flags say so it is made, with that mode */
int cm_make_file(int *place, const char *path, int flags, unsigned int mode);
/* a ruleset of Landlock's: as lx_landlock_create_ruleset() */
int cm_make_ruleset(int *place, const void *attributes, size_t size);
/* a copy of a descriptor, which is borrowed */
int cm_make_copy(int *place, int descriptor);

/* The same for what was not made here: moves what stands at the place from 3 up, if it is not there. */
int cm_above_standard(int *place);

#endif
