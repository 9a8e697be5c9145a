/*
 * cm_read: the next record of a channel, and whether it is a call that needs no closer look
 *
 * For cm_turn.c alone, which says whose channel is read, and when.
 */
#ifndef CAPMARSHAL_CM_READ_H
#define CAPMARSHAL_CM_READ_H

#include "cm_turn.h"

/*
 * Takes the next record of a channel into the inbox, and what it says of itself into
 * the turn; never waits.  While the turn is `scarce`, a record whose descriptors would
 * find no room stays where it is.
 *
 * Return: CM_ENDED (turn.status: why), CM_NOTHING, CM_SCARCE, CM_RECORD, CM_WHOLE,
 * whose table is checked, CM_IN_ORDER, CM_DATA, CM_DATA_LIMITED, CM_ASSEMBLED; CM_NOTHING also
 * where it was one of several parts
 */
int cm_read_channel(struct cm_turn *turn, unsigned int slot);

#endif
