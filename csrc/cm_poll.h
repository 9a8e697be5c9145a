/*
 * cm_poll: whether to poll for a while before going to sleep
 *
 * To wake a process on another CPU takes some 65 us, to find its record by polling
 * 4.  On the same CPU, polling only keeps the peer from running.  So every CALL and
 * REPLY says which CPU it was sent from, and a waiter polls only for a peer that last
 * ran on another one; and ever more rarely while that does not pay.
 */
#ifndef CAPMARSHAL_CM_POLL_H
#define CAPMARSHAL_CM_POLL_H

#include <stdint.h>

/* What a waiter knows of one peer; all 0: nothing. */
struct cm_polling {
	uint16_t peer;                    /* 1 + the CPU that the peer last sent from; 0: it did not say */
	uint16_t misses;                  /* how often it polled in vain, in a row */
	uint16_t skip;                    /* how often it sleeps without polling from here on */
};

/* 1 + the CPU that this thread runs on, as a head carries it; 0 if it cannot be told. */
unsigned int cm_cpu(void);

/* Whether to poll now.  Counts as a wait. */
int cm_polls(struct cm_polling *polling);

/* Polling found something, or did not. */
void cm_poll_found(struct cm_polling *polling);
void cm_poll_missed(struct cm_polling *polling);

#endif
