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

void cm_close_all(struct cm_batch *batch)
{
	for (unsigned int i = 0; i < batch->count; i++)
		close_one(&batch->descriptors[i]);
}

unsigned int cm_close_quick(struct cm_batch *batch)
{
	unsigned int left = 0;

	for (unsigned int i = 0; i < batch->count; i++) {
		if (batch->descriptors[i] < 0)
			continue;
		if (cm_closes_quickly(batch->descriptors[i]))
			close_one(&batch->descriptors[i]);
		else
			left++;
	}
	return left;
}
