/*
 * cm_identity: which socket a descriptor is, by the kernel's own identity of it
 *
 * A filter may refuse getsockopt(2), which tells it.  What else does is said here.
 */
#ifndef CAPMARSHAL_CM_IDENTITY_H
#define CAPMARSHAL_CM_IDENTITY_H

#include <stdint.h>

/* What an option of a socket's own is set to (SOL_SOCKET, an int that is never negative), or -errno of getsockopt(2). */
int cm_socket_option(int descriptor, int option);

/*
 * The cookie of any socket, 0 for what is none, or where it is refused.  It proves
 * nothing of the kind: TCP sockets have one, too.
 */
uint64_t cm_cookie(int descriptor);

/*
 * Whether two descriptors are of the same open file: 1 if the kernel says so, 0 also where it does not tell:
 * before Linux 6.10, where a filter refuses kcmp(2), too.
 */
int cm_is_same(int descriptor, int other);

/*
 * Whether a descriptor is an AF_UNIX SEQPACKET socket.  Where that may not be asked, by
 * what it says to a record that no socket sends; then one that was never connected is none.
 */
int cm_is_seqpacket(int descriptor);

/*
 * Whether a descriptor may be the client end of a door; which end of a pair it is cannot be told.
 *
 * Return: 1
 *         0: it is no AF_UNIX SEQPACKET socket
 *         -ENOTCONN: it is one, connected to nothing; where that may not be asked, it is taken to be connected
 */
int cm_is_door(int descriptor);

#endif
