/*
 * cm_record: the heads of records, as capmarshal/_wire.py lays them out
 *
 * C makes the heads of CALLs and of plain REPLYs, and reads them as far as it has
 * to in order to know that a record is data alone.  All else is Python's.
 */
#ifndef CAPMARSHAL_CM_RECORD_H
#define CAPMARSHAL_CM_RECORD_H

#include <stdint.h>

enum { CM_VERSION = 1, CM_KIND_CALL = 2, CM_KIND_REPLY = 3, CM_BADGE = 16 };

#define CM_NO_LIMIT UINT64_MAX

struct cm_head {
	uint8_t version;
	uint8_t kind;
	uint16_t entries;
	uint16_t descriptors;
	uint16_t cpu;
	uint64_t id;
};

struct __attribute__((packed)) cm_call_head {
	struct cm_head head;
	uint64_t time_left;
	uint64_t sent_at;
	uint16_t method_size;
	char badge[CM_BADGE];
};

#endif
