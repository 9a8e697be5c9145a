#include "lx.h"

#include <sys/syscall.h>

#include "lx_syscall.h"

/* libc headers older than Linux 5.9 lack it; the same on all architectures */
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
/* Linux 5.13, the same on every architecture */
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif

/* what the kernel takes as the size of a signal set: _NSIG / 8, not libc's sizeof(sigset_t) */
enum { KERNEL_SIGSET_SIZE = 8 };

int lx_socket(int domain, int type, int protocol)
{
	return (int)lx_enter(SYS_socket, domain, type, protocol, 0, 0, 0);
}

int lx_socketpair(int domain, int type, int protocol, int *pair)
{
	return (int)lx_enter(SYS_socketpair, domain, type, protocol, (long)pair, 0, 0);
}

int lx_bind(int socket, const void *address, unsigned int length)
{
	return (int)lx_enter(SYS_bind, socket, (long)address, length, 0, 0, 0);
}

int lx_connect(int socket, const void *address, unsigned int length)
{
	return (int)lx_enter(SYS_connect, socket, (long)address, length, 0, 0, 0);
}

int lx_listen(int socket, int backlog)
{
	return (int)lx_enter(SYS_listen, socket, backlog, 0, 0, 0, 0);
}

int lx_accept4(int socket, void *address, unsigned int *length, int flags)
{
	return (int)lx_enter(SYS_accept4, socket, (long)address, (long)length, flags, 0, 0);
}

int lx_getsockname(int socket, void *address, unsigned int *length)
{
	return (int)lx_enter(SYS_getsockname, socket, (long)address, (long)length, 0, 0, 0);
}

int lx_getpeername(int socket, void *address, unsigned int *length)
{
	return (int)lx_enter(SYS_getpeername, socket, (long)address, (long)length, 0, 0, 0);
}

long lx_sendto(int socket, const void *data, size_t size, int flags, const void *address, unsigned int length)
{
	return lx_enter(SYS_sendto, socket, (long)data, (long)size, flags, (long)address, length);
}

long lx_sendmsg(int socket, const struct msghdr *message, int flags)
{
	return lx_enter(SYS_sendmsg, socket, (long)message, flags, 0, 0, 0);
}

long lx_recvmsg(int socket, struct msghdr *message, int flags)
{
	return lx_enter(SYS_recvmsg, socket, (long)message, flags, 0, 0, 0);
}

int lx_getsockopt(int socket, int level, int option, void *value, unsigned int *length)
{
	return (int)lx_enter(SYS_getsockopt, socket, level, option, (long)value, (long)length, 0);
}

int lx_setsockopt(int socket, int level, int option, const void *value, unsigned int length)
{
	return (int)lx_enter(SYS_setsockopt, socket, level, option, (long)value, length, 0);
}

int lx_shutdown(int socket, int how)
{
	return (int)lx_enter(SYS_shutdown, socket, how, 0, 0, 0, 0);
}

int lx_openat(int directory, const char *path, int flags, unsigned int mode)
{
	return (int)lx_enter(SYS_openat, directory, (long)path, flags, mode, 0, 0);
}

long lx_read(int descriptor, void *data, size_t size)
{
	return lx_enter(SYS_read, descriptor, (long)data, (long)size, 0, 0, 0);
}

int lx_memfd_create(const char *name, unsigned int flags)
{
	return (int)lx_enter(SYS_memfd_create, (long)name, flags, 0, 0, 0, 0);
}

int lx_eventfd2(unsigned int count, int flags)
{
	return (int)lx_enter(SYS_eventfd2, count, flags, 0, 0, 0, 0);
}

int lx_pidfd_open(int process, unsigned int flags)
{
	return (int)lx_enter(SYS_pidfd_open, process, flags, 0, 0, 0, 0);
}

int lx_fcntl(int descriptor, int command, long argument)
{
	return (int)lx_enter(SYS_fcntl, descriptor, command, argument, 0, 0, 0);
}

/* on the architectures of lx_syscall.h, libc's struct stat is the kernel's */
int lx_fstat(int descriptor, struct stat *status)
{
	return (int)lx_enter(SYS_fstat, descriptor, (long)status, 0, 0, 0, 0);
}

int lx_statx(int directory, const char *path, int flags, unsigned int mask, void *status)
{
	return (int)lx_enter(SYS_statx, directory, (long)path, flags, mask, (long)status, 0);
}

int lx_close(int descriptor)
{
	return (int)lx_enter(SYS_close, descriptor, 0, 0, 0, 0, 0);
}

int lx_close_range(unsigned int first, unsigned int last, unsigned int flags)
{
	return (int)lx_enter(SYS_close_range, first, last, flags, 0, 0, 0);
}

int lx_kcmp(int pid, int other_pid, int type, unsigned long index, unsigned long other_index)
{
	return (int)lx_enter(SYS_kcmp, pid, other_pid, type, (long)index, (long)other_index, 0);
}

int lx_landlock_create_ruleset(const void *attributes, size_t size, unsigned int flags)
{
	return (int)lx_enter(SYS_landlock_create_ruleset, (long)attributes, (long)size, flags, 0, 0, 0);
}

int lx_landlock_add_rule(int ruleset, int type, const void *rule, unsigned int flags)
{
	return (int)lx_enter(SYS_landlock_add_rule, ruleset, type, (long)rule, flags, 0, 0);
}

int lx_landlock_restrict_self(int ruleset, unsigned int flags)
{
	return (int)lx_enter(SYS_landlock_restrict_self, ruleset, flags, 0, 0, 0, 0);
}

int lx_seccomp(unsigned int operation, unsigned int flags, const void *program)
{
	return (int)lx_enter(SYS_seccomp, operation, flags, (long)program, 0, 0, 0);
}

int lx_prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)
{
	return (int)lx_enter(SYS_prctl, option, (long)a, (long)b, (long)c, (long)d, 0);
}

int lx_capset(void *header, const void *data)
{
	return (int)lx_enter(SYS_capset, (long)header, (long)data, 0, 0, 0, 0);
}

int lx_unshare(int flags)
{
	return (int)lx_enter(SYS_unshare, flags, 0, 0, 0, 0, 0);
}

long lx_mmap(void *address, size_t length, int protection, int flags, int descriptor, long offset)
{
	return lx_enter(SYS_mmap, (long)address, (long)length, protection, flags, descriptor, offset);
}

int lx_munmap(void *address, size_t length)
{
	return (int)lx_enter(SYS_munmap, (long)address, (long)length, 0, 0, 0, 0);
}

int lx_epoll_create1(int flags)
{
	return (int)lx_enter(SYS_epoll_create1, flags, 0, 0, 0, 0, 0);
}

int lx_epoll_ctl(int epoll, int operation, int descriptor, struct epoll_event *event)
{
	return (int)lx_enter(SYS_epoll_ctl, epoll, operation, descriptor, (long)event, 0, 0);
}

int lx_epoll_pwait(int epoll, struct epoll_event *events, int room, int milliseconds)
{
	return (int)lx_enter(SYS_epoll_pwait, epoll, (long)events, room, milliseconds, 0, KERNEL_SIGSET_SIZE);
}

int lx_ppoll(struct pollfd *polled, unsigned int count, struct timespec *timeout)
{
	return (int)lx_enter(SYS_ppoll, (long)polled, count, (long)timeout, 0, KERNEL_SIGSET_SIZE, 0);
}
