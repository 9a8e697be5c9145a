#include "cm_identity.h"

#include <errno.h>
#include <unistd.h>

#include "lx.h"

/* include/uapi/linux/fcntl.h, Linux 6.10; include/uapi/linux/kcmp.h */
enum { DUPFD_QUERY = 1024 + 3, KCMP_FILE = 0 };

/* MAX_RW_COUNT, include/linux/fs.h: more bytes than the kernel takes of any write, and than any record has */
#define TOO_MANY 0x7ffff000

int cm_socket_option(int descriptor, int option)
{
	int value = 0;
	unsigned int length = sizeof(value);
	int error = lx_getsockopt(descriptor, SOL_SOCKET, option, &value, &length);

	return error < 0 ? error : value;
}

uint64_t cm_cookie(int descriptor)
{
	uint64_t cookie = 0;
	unsigned int length = sizeof(cookie);

	return lx_getsockopt(descriptor, SOL_SOCKET, SO_COOKIE, &cookie, &length) < 0 ? 0 : cookie;
}

int cm_is_same(int descriptor, int other)
{
	int pid, same = lx_fcntl(descriptor, DUPFD_QUERY, other);

	if (same >= 0)
		return same;
	pid = getpid();
	return lx_kcmp(pid, pid, KCMP_FILE, (unsigned int)descriptor, (unsigned int)other) == 0;
}

/*
 * By the errors of net/unix/af_unix.c, which have been these since before Linux 4.12.  No AF_UNIX socket with records has
 * urgent data.  Of those, SEQPACKET alone takes no notice of an address; then the record is too long.  Nothing else
 * that an ordinary user can make says both, and none takes bytes from an address that is nobody's.
 */
static int behaves_as_seqpacket(int descriptor)
{
	char no_address = 0;
	struct iovec too_many = { .iov_base = NULL, .iov_len = TOO_MANY };
	struct msghdr nothing = { .msg_iov = NULL };
	struct msghdr message = {
		.msg_name = &no_address,
		.msg_namelen = sizeof(no_address),
		.msg_iov = &too_many,
		.msg_iovlen = 1,
	};
	long error;

	if (lx_recvmsg(descriptor, &nothing, MSG_OOB | MSG_PEEK | MSG_DONTWAIT) != -EOPNOTSUPP)
		return 0;
	error = lx_sendmsg(descriptor, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	/* once, where the other end was closed with something unread */
	if (error == -ECONNRESET)
		error = lx_sendmsg(descriptor, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	return error == -EMSGSIZE;
}

int cm_is_seqpacket(int descriptor)
{
	int domain = cm_socket_option(descriptor, SO_DOMAIN);
	int type = cm_socket_option(descriptor, SO_TYPE);

	if (domain >= 0 && type >= 0)
		return domain == AF_UNIX && type == SOCK_SEQPACKET;
	return behaves_as_seqpacket(descriptor);
}

int cm_is_door(int descriptor)
{
	char family[2];
	unsigned int length = sizeof(family);

	if (!cm_is_seqpacket(descriptor))
		return 0;
	return lx_getpeername(descriptor, family, &length) == -ENOTCONN ? -ENOTCONN : 1;
}
