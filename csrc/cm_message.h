/*
 * cm_message: one record of bytes and descriptors over an AF_UNIX socket
 *
 * Nothing here owns memory or logs, and all that is kept is that sendto(2) was
 * refused.  Errors are negative errnos.
 * A failed send sent nothing; a failed receive left nothing behind: no record
 * taken, no descriptor made.  EINTR goes back to the caller, whose signal
 * handlers run before it calls again with the same deadline.  It is also said of
 * each second that was waited in vain: a signal that came before the sleep, and
 * after Python looked last, has interrupted nothing.
 *
 * A deadline is a reading of CLOCK_MONOTONIC in nanoseconds, so that a retry
 * needs no arithmetic.
 */
#ifndef CAPMARSHAL_CM_MESSAGE_H
#define CAPMARSHAL_CM_MESSAGE_H

#include "lx.h"

/* SCM_MAX_FD, include/net/scm.h: no record carries more descriptors */
#define CM_DESCRIPTORS 253

/* do not wait at all: -EAGAIN where a wait would begin */
#define CM_NOW 0
/* wait until it happens */
#define CM_FOREVER 0x7fffffffffffffff
/* the same, where it is passed with each call: Python takes long to pass what has more than 30 bits */
#define CM_UNLIMITED -1
/* And one for what receives: as the socket's own timeout says, SO_RCVTIMEO (socket(7)); for ever where it has none. */
#define CM_BRIEFLY -2

/* no user's number: (uid_t)-1 */
#define CM_NOBODY 0xffffffff

/* bits of cm_inbox.lost */
#define CM_LOST_BYTES 1
#define CM_LOST_DESCRIPTORS 2

/*
 * Where a received record goes.  The caller sets data, capacity and wants_pidfd, the rest
 * is written by every receive that succeeds.  There is room for all descriptors that a
 * record can have: what the kernel withheld it would close in this thread, for as long as
 * the sender of a lingering socket likes.
 */
struct cm_inbox {
	void *data;                       /* room for the bytes: the caller's */
	size_t capacity;                  /* bytes of that room */
	int wants_pidfd;                  /* a pidfd of the sender (SO_PASSPIDFD) is kept */
	size_t size;                      /* bytes received */
	unsigned int lost;                /* what did not fit: CM_LOST_* */
	int pid;                          /* of the sender; 0 unless the socket has SO_PASSCRED, or where it lives in another pid namespace */
	unsigned int uid;                 /* likewise; CM_NOBODY unless the socket has SO_PASSCRED */
	unsigned int gid;                 /* likewise */
	int pidfd;                        /* of the sender, where that is wanted and came: the caller owns it; else -1 */
	unsigned int count;               /* descriptors received, CLOEXEC: the caller owns them */
	int descriptors[CM_DESCRIPTORS];  /* a struct cm_descriptors begins with the count before it */
};

/*
 * Sends one record.  Descriptors are borrowed: the kernel takes references of
 * its own.  Never raises SIGPIPE, and trusts no O_NONBLOCK of the socket.
 *
 * Return: 0, the record is in the peer's queue
 *         -EAGAIN (CM_NOW), -ETIMEDOUT: its queue stayed full
 *         -EINVAL: more than CM_DESCRIPTORS
 *         -errno of sendmsg(2) otherwise
 *
 * Where sendto(2) is refused, as filters do, sendmsg(2) alone is used.
 */
int cm_send(int socket, const struct iovec *parts, size_t n_parts,
	    const int *descriptors, unsigned int count, int64_t deadline);

/* The same for bytes that lie together, without waiting. */
int cm_send_record(int socket, const void *data, size_t size, const int *descriptors, unsigned int count);

/*
 * Whether a record of so many bytes would fit into a socket's send buffer, for where the
 * size of that may not be asked; 0 also where nothing can be sent now.  Nothing is sent.
 */
int cm_fits(int socket, size_t size);

/*
 * Receives one record.  Every SCM_RIGHTS header is gathered; a pidfd of SCM_PIDFD
 * that is not wanted is closed, whoever switched that on; other control messages are
 * passed over.  On truncation the record is delivered with what did come, and
 * `lost` says so: the caller must close it, at a place where closing may block.
 *
 * Return: 1, a record
 *         0, no bytes and no control message: the end, or an empty record; also, unless
 *            CM_NOW, a DGRAM socket that is shut down for receiving (shutdown(2))
 *         -EAGAIN (CM_NOW, CM_BRIEFLY), -ETIMEDOUT: nothing came
 *         -errno of recvmsg(2) otherwise
 */
int cm_receive(int socket, struct cm_inbox *in, int64_t deadline);

/* The same with the bytes elsewhere than in in->data. */
int cm_receive_into(int socket, struct cm_inbox *in, const struct iovec *parts, size_t n_parts, int64_t deadline);

/*
 * The user who has sent the record that comes next, on a socket with SO_PASSCRED: none of it
 * is taken, and no descriptor made.
 *
 * Return: the user; CM_NOBODY where the kernel does not tell
 *         -EAGAIN: none has come
 *         -errno of recvmsg(2) otherwise
 */
int64_t cm_next_user(int socket);

/*
 * Waits until poll(2) reports one of `events`, an error or a hang-up.
 *
 * Return: the reported events, -EAGAIN (CM_NOW), -ETIMEDOUT, -EINTR also after a second, -errno of ppoll(2)
 */
int cm_wait(int descriptor, short events, int64_t deadline);

#endif
