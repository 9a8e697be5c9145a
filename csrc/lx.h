/*
 * lx: raw Linux system calls
 *
 * Each function is one system call, entered by number: no libc in between, no
 * retry, no state, libc's errno untouched.  Each returns what the kernel
 * returns: a result of 0 or more, or the negative errno.  Retry policy (EINTR,
 * EAGAIN) lives with the caller.
 *
 * All pointers are borrowed for the time of the call.  A descriptor that a call
 * returns belongs to the caller, and has the flags that the caller asked for:
 * nothing here adds CLOEXEC.
 *
 * This header feeds the compiler and, without its preprocessor lines, cffi.
 */
#ifndef CAPMARSHAL_LX_H
#define CAPMARSHAL_LX_H

/* Python's own headers define it too */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>

int lx_socket(int domain, int type, int protocol);
int lx_socketpair(int domain, int type, int protocol, int *pair);
int lx_bind(int socket, const void *address, unsigned int length);
int lx_connect(int socket, const void *address, unsigned int length);
int lx_listen(int socket, int backlog);
int lx_accept4(int socket, void *address, unsigned int *length, int flags);
int lx_getsockname(int socket, void *address, unsigned int *length);
int lx_getpeername(int socket, void *address, unsigned int *length);
long lx_sendto(int socket, const void *data, size_t size, int flags, const void *address, unsigned int length);
long lx_sendmsg(int socket, const struct msghdr *message, int flags);
long lx_recvmsg(int socket, struct msghdr *message, int flags);
int lx_getsockopt(int socket, int level, int option, void *value, unsigned int *length);
int lx_setsockopt(int socket, int level, int option, const void *value, unsigned int length);
int lx_shutdown(int socket, int how);

int lx_openat(int directory, const char *path, int flags, unsigned int mode);
long lx_read(int descriptor, void *data, size_t size);
int lx_memfd_create(const char *name, unsigned int flags);
int lx_eventfd2(unsigned int count, int flags);
int lx_pidfd_open(int process, unsigned int flags);
int lx_fcntl(int descriptor, int command, long argument);
int lx_fstat(int descriptor, struct stat *status);
/* status: 256 bytes, struct statx of include/uapi/linux/stat.h */
int lx_statx(int directory, const char *path, int flags, unsigned int mask, void *status);
/* The descriptor is gone whatever this returns, EINTR included. */
int lx_close(int descriptor);
/* from Linux 5.9 on; those from the first to the last */
int lx_close_range(unsigned int first, unsigned int last, unsigned int flags);
/* type: enum kcmp_type of include/uapi/linux/kcmp.h */
int lx_kcmp(int pid, int other_pid, int type, unsigned long index, unsigned long other_index);

/*
 * What binds this process and can't be undone.  attributes, rule: struct
 * landlock_ruleset_attr and the like of include/uapi/linux/landlock.h, which the
 * kernel headers of the machine that builds may be too old to have; program:
 * struct sock_fprog.  header, data: capset(2).
 */
int lx_landlock_create_ruleset(const void *attributes, size_t size, unsigned int flags);
int lx_landlock_add_rule(int ruleset, int type, const void *rule, unsigned int flags);
int lx_landlock_restrict_self(int ruleset, unsigned int flags);
int lx_seccomp(unsigned int operation, unsigned int flags, const void *program);
int lx_prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d);
int lx_capset(void *header, const void *data);
int lx_unshare(int flags);

/* The address, or -errno: addresses of user space are never negative. */
long lx_mmap(void *address, size_t length, int protection, int flags, int descriptor, long offset);
int lx_munmap(void *address, size_t length);

int lx_epoll_create1(int flags);
int lx_epoll_ctl(int epoll, int operation, int descriptor, struct epoll_event *event);
/* milliseconds: -1 waits for ever.  The signal mask stays as it is. */
int lx_epoll_pwait(int epoll, struct epoll_event *events, int room, int milliseconds);
/* The kernel writes the time that was left into *timeout; NULL waits for ever. */
int lx_ppoll(struct pollfd *polled, unsigned int count, struct timespec *timeout);

#endif
