#include "cm_message.h"

#include <errno.h>
#include <string.h>

#include "cm_clock.h"

/* include/linux/socket.h; libc headers older than Linux 6.5 lack it */
#ifndef SCM_PIDFD
#define SCM_PIDFD 0x04
#endif

/*
 * Room for what a socket can be switched to deliver beside descriptors, by
 * whoever holds a copy of it: credentials, a pidfd, timestamps, a security label.
 * The label has no bound of its own; one that does not fit costs only its sender.
 */
enum {
	CONTROL_RIGHTS = CMSG_SPACE(CM_DESCRIPTORS * sizeof(int)),
	CONTROL_OTHERS = 512,
};

/*
 * A record of up to so many bytes is copied together, for sendto(2): the kernel takes it 0.15 us sooner than in parts.
 * None any more, once sendto(2) was refused to this process, as by a filter that lets sendmsg(2) pass: such a filter stays.
 */
enum { FLAT_ROOM = 512 };
static size_t flat_max = FLAT_ROOM;

/* Nanoseconds for which it sleeps at a time; of waiting.py's AT_A_TIME. */
#define CM_TURN CM_SECOND

int cm_wait(int descriptor, short events, int64_t deadline)
{
	struct pollfd polled = { .fd = descriptor, .events = events };
	struct timespec left = { 0, 0 };
	int64_t nanoseconds = 0;
	int ready;

	if (deadline != CM_NOW)
		nanoseconds = deadline == CM_FOREVER ? CM_FOREVER : deadline - cm_now();
	if (nanoseconds >= CM_TURN)
		left.tv_sec = CM_TURN / CM_SECOND;
	else if (nanoseconds > 0)
		left.tv_nsec = nanoseconds;
	ready = lx_ppoll(&polled, 1, &left);
	if (ready < 0)
		return ready;
	if (ready == 0)
		return deadline == CM_NOW ? -EAGAIN : nanoseconds >= CM_TURN ? -EINTR : -ETIMEDOUT;
	return polled.revents;
}

/* what a filter or a security module says of a system call that it does not let pass */
static int is_refusal(long error)
{
	return error == -EPERM || error == -EACCES || error == -ENOSYS;
}

/* The parts, one after the other; 0 if there is not so much room. */
static size_t flatten(char *flat, const struct iovec *parts, size_t n_parts)
{
	size_t size = 0, most = __atomic_load_n(&flat_max, __ATOMIC_RELAXED);

	for (size_t i = 0; i < n_parts; i++) {
		if (parts[i].iov_len > most - size)
			return 0;
		/* an empty part may be NULL, which memcpy() must not see */
		if (parts[i].iov_len > 0)
			memcpy(flat + size, parts[i].iov_base, parts[i].iov_len);
		size += parts[i].iov_len;
	}
	return size;
}

int cm_send(int socket, const struct iovec *parts, size_t n_parts,
	    const int *descriptors, unsigned int count, int64_t deadline)
{
	_Alignas(struct cmsghdr) char control[CONTROL_RIGHTS];
	struct msghdr message = { .msg_iov = (struct iovec *)parts, .msg_iovlen = n_parts };
	char flat[FLAT_ROOM];
	size_t flat_size = count == 0 ? flatten(flat, parts, n_parts) : 0;

	if (count > CM_DESCRIPTORS)
		return -EINVAL;
	if (count > 0) {
		size_t bytes = count * sizeof(int);
		struct cmsghdr *rights = (struct cmsghdr *)control;

		message.msg_control = control;
		message.msg_controllen = CMSG_SPACE(bytes);
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(bytes);
		memcpy(CMSG_DATA(rights), descriptors, bytes);
	}
	for (;;) {
		int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
		long sent = flat_size > 0 ? lx_sendto(socket, flat, flat_size, flags, NULL, 0)
					  : lx_sendmsg(socket, &message, flags);
		int ready;

		if (sent >= 0)
			return 0;
		if (flat_size > 0 && is_refusal(sent)) {
			__atomic_store_n(&flat_max, 0, __ATOMIC_RELAXED);
			flat_size = 0;
			continue;
		}
		if (sent != -EAGAIN || deadline == CM_NOW)
			return (int)sent;
		ready = cm_wait(socket, POLLOUT, deadline);
		if (ready < 0)
			return ready;
	}
}

int cm_send_record(int socket, const void *data, size_t size, const int *descriptors, unsigned int count)
{
	struct iovec part = { .iov_base = (void *)data, .iov_len = size };

	return cm_send(socket, &part, 1, descriptors, count, CM_NOW);
}

int cm_fits(int socket, size_t size)
{
	/* the kernel has found room for it before it looks where it is: unix_dgram_sendmsg(), net/unix/af_unix.c */
	struct iovec nowhere = { .iov_base = NULL, .iov_len = size };
	struct msghdr message = { .msg_iov = &nowhere, .msg_iovlen = 1 };

	return lx_sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == -EFAULT;
}

static void take_rights(struct cm_inbox *in, const struct cmsghdr *header)
{
	size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);

	/* the kernel sends one header of at most CM_DESCRIPTORS; never trust an array's length to that */
	if (count > CM_DESCRIPTORS - in->count)
		count = CM_DESCRIPTORS - in->count;
	memcpy(in->descriptors + in->count, CMSG_DATA(header), count * sizeof(int));
	in->count += (unsigned int)count;
}

/* 1 if there was any control message */
static int take_control(struct cm_inbox *in, struct msghdr *message)
{
	struct cmsghdr *header;
	int any = 0;

	in->count = 0;
	in->pid = 0;
	in->uid = in->gid = CM_NOBODY;
	in->pidfd = -1;
	for (header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) {
		any = 1;
		if (header->cmsg_level != SOL_SOCKET)
			continue;
		if (header->cmsg_type == SCM_RIGHTS) {
			take_rights(in, header);
		} else if (header->cmsg_type == SCM_CREDENTIALS) {
			struct ucred sender;

			memcpy(&sender, CMSG_DATA(header), sizeof(sender));
			in->pid = sender.pid;
			in->uid = sender.uid;
			in->gid = sender.gid;
		} else if (header->cmsg_type == SCM_PIDFD) {
			int pidfd;

			/* carries an error in place of a descriptor where there was no room: net/core/scm.c */
			memcpy(&pidfd, CMSG_DATA(header), sizeof(pidfd));
			if (in->wants_pidfd && in->pidfd < 0)
				in->pidfd = pidfd < 0 ? -1 : pidfd;
			else if (pidfd >= 0)
				lx_close(pidfd);
		}
	}
	return any;
}

int64_t cm_next_user(int socket)
{
	/* room for that alone, which comes first; what else there is stays in the queue, so that nothing is closed */
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(struct ucred))];
	struct msghdr message = { .msg_control = control, .msg_controllen = sizeof(control) };
	struct ucred sender = { .uid = CM_NOBODY };
	struct cmsghdr *header;
	long size = lx_recvmsg(socket, &message, MSG_PEEK | MSG_DONTWAIT);

	if (size < 0)
		return size;
	header = CMSG_FIRSTHDR(&message);
	if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_CREDENTIALS)
		memcpy(&sender, CMSG_DATA(header), sizeof(sender));
	return sender.uid;
}

int cm_receive(int socket, struct cm_inbox *in, int64_t deadline)
{
	struct iovec part = { .iov_base = in->data, .iov_len = in->capacity };

	return cm_receive_into(socket, in, &part, 1, deadline);
}

int cm_receive_into(int socket, struct cm_inbox *in, const struct iovec *parts, size_t n_parts, int64_t deadline)
{
	_Alignas(struct cmsghdr) char control[CONTROL_RIGHTS + CONTROL_OTHERS];
	int flags = MSG_CMSG_CLOEXEC | (deadline == CM_BRIEFLY ? 0 : MSG_DONTWAIT);
	int wait_first = deadline != CM_NOW && deadline != CM_BRIEFLY;

	for (;;) {
		struct msghdr message = {
			.msg_iov = (struct iovec *)parts,
			.msg_iovlen = n_parts,
			.msg_control = control,
			.msg_controllen = sizeof(control),
		};
		long size;

		if (wait_first) {
			int ready = cm_wait(socket, POLLIN, deadline);

			if (ready < 0)
				return ready;
		}
		size = lx_recvmsg(socket, &message, flags);
		if (size == -EAGAIN && deadline != CM_NOW && deadline != CM_BRIEFLY) {
			/* poll(2) reports a DGRAM socket that was shut down as readable for ever, and it is not */
			int ready = cm_wait(socket, POLLRDHUP, CM_NOW);

			if (ready > 0 && ready & POLLRDHUP) {
				size = 0;
				message.msg_controllen = 0;
				message.msg_flags = 0;
			} else {
				/* O_NONBLOCK, or somebody else took the record */
				wait_first = 1;
				continue;
			}
		}
		if (size < 0)
			return (int)size;

		in->size = (size_t)size;
		in->lost = 0;
		if (message.msg_flags & MSG_TRUNC)
			in->lost |= CM_LOST_BYTES;
		if (message.msg_flags & MSG_CTRUNC)
			in->lost |= CM_LOST_DESCRIPTORS;
		return take_control(in, &message) || size > 0 || in->lost;
	}
}
