#include "cm_identity.h"

#include "lx.h"

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

void cm_identify(const int *descriptors, unsigned int count, uint64_t *cookies)
{
	for (unsigned int i = 0; i < count; i++) {
		cookies[i] = 0;
		if (cm_socket_option(descriptors[i], SO_DOMAIN) != AF_UNIX)
			continue;
		if (cm_socket_option(descriptors[i], SO_TYPE) != SOCK_SEQPACKET)
			continue;
		cookies[i] = cm_cookie(descriptors[i]);
	}
}
