#include "lx.h"

#include <fcntl.h>

#include "cm_close.h"

int cm_closes_quickly(int descriptor)
{
	return lx_fcntl(descriptor, F_GETPIPE_SZ, 0) >= 0 || lx_fcntl(descriptor, F_GET_SEALS, 0) >= 0;
}

static void close_one(int *place)
{
	int descriptor = __atomic_exchange_n(place, -1, __ATOMIC_RELAXED);

	if (descriptor >= 0)
		lx_close(descriptor);
}

void cm_close_all(int *descriptors, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		close_one(&descriptors[i]);
}

unsigned int cm_close_quick(int *descriptors, unsigned int count)
{
	unsigned int left = 0;

	for (unsigned int i = 0; i < count; i++) {
		if (descriptors[i] < 0)
			continue;
		if (cm_closes_quickly(descriptors[i]))
			close_one(&descriptors[i]);
		else
			left++;
	}
	return left;
}
