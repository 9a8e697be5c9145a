/*
 * cm_layout: where in a record what C reads and makes stands
 *
 * capmarshal/_protocol/wire.py draws the layout; a test holds these against it.
 */
#ifndef CAPMARSHAL_CM_LAYOUT_H
#define CAPMARSHAL_CM_LAYOUT_H

/*
 * Bytes that one record can have, at most: SO_SNDBUF - 32, measured; 212,960 by default.  A sender with a larger
 * buffer can send more, which then arrives truncated, and is answered as such.
 */
#define CM_RECORD_MAX 0x40000
/* bytes of every record's head */
#define CM_HEAD 16
/* bytes of a CALL up to the length of the method's name, up to the badge, and up to the name */
#define CM_CALL_TIMES 32
#define CM_CALL_KEY 34
#define CM_CALL_HEAD 50
/* bytes of one line of a table */
#define CM_LINE 18

#endif
