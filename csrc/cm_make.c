#include "lx.h"

#include <fcntl.h>

#include "cm_make.h"

/* include/uapi/linux/memfd.h and <sys/eventfd.h> */
enum {
	MEMFD_CLOEXEC = 1,
	MEMFD_ALLOW_SEALING = 2,
	FIRST_OF_OURS = 3,
};

int cm_above_standard(int *place)
{
	int low = *place, copy;

	if (low < 0 || low >= FIRST_OF_OURS)
		return 0;
	copy = lx_fcntl(low, F_DUPFD_CLOEXEC, FIRST_OF_OURS);
	if (copy < 0)
		return copy;
	*place = copy;
	/* a copy is open, so that this is not the last close, which alone can block */
	lx_close(low);
	return 0;
}

/* what has just been made: to its place, or closed again */
static int put(int *place, int made)
{
	int error;

	if (made < 0)
		return made;
	error = cm_above_standard(&made);
	if (error)
		lx_close(made);
	else
		*place = made;
	return error;
}

int cm_make_pair(int *pair)
{
	int made[2];
	int error = lx_socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, made);

	if (error)
		return error;
	error = cm_above_standard(&made[0]);
	if (!error)
		error = cm_above_standard(&made[1]);
	if (error) {
		lx_close(made[0]);
		lx_close(made[1]);
		return error;
	}
	pair[0] = made[0];
	pair[1] = made[1];
	return 0;
}

int cm_make_socket(int *place)
{
	return put(place, lx_socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
}

int cm_make_accepted(int *place, int listener)
{
	return put(place, lx_accept4(listener, NULL, NULL, SOCK_CLOEXEC));
}

int cm_make_epoll(int *place)
{
	return put(place, lx_epoll_create1(EPOLL_CLOEXEC));
}

int cm_make_event(int *place)
{
	return put(place, lx_eventfd2(0, O_CLOEXEC | O_NONBLOCK));
}

int cm_make_memfd(int *place, const char *name)
{
	return put(place, lx_memfd_create(name, MEMFD_CLOEXEC | MEMFD_ALLOW_SEALING));
}

int cm_make_pidfd(int *place, int process)
{
	return put(place, lx_pidfd_open(process, 0));
}

int cm_make_file(int *place, const char *path, int flags, unsigned int mode)
{
	return put(place, lx_openat(AT_FDCWD, path, flags | O_CLOEXEC, mode));
}

int cm_make_ruleset(int *place, const void *attributes, size_t size)
{
	return put(place, lx_landlock_create_ruleset(attributes, size, 0));
}

int cm_make_copy(int *place, int descriptor)
{
	int copy = lx_fcntl(descriptor, F_DUPFD_CLOEXEC, FIRST_OF_OURS);

	if (copy < 0)
		return copy;
	*place = copy;
	return 0;
}
