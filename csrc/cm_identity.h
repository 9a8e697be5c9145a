/*
 * cm_identity: which socket a descriptor is, by the kernel's own identity of it
 */
#ifndef CAPMARSHAL_CM_IDENTITY_H
#define CAPMARSHAL_CM_IDENTITY_H

#include <stdint.h>

/*
 * Who is behind each descriptor: the cookie of an AF_UNIX SEQPACKET socket, 0 for
 * anything else.  A cookie alone proves nothing of the kind: files have none, but
 * TCP sockets do.
 */
void cm_identify(const int *descriptors, unsigned int count, uint64_t *cookies);

/* What an option of a socket's own is set to (SOL_SOCKET, an int that is never negative), or -errno of getsockopt(2). */
int cm_socket_option(int descriptor, int option);

/* The cookie of any socket, 0 for what is none. */
uint64_t cm_cookie(int descriptor);

#endif
