/*
 * cm_close: closing what others sent
 *
 * The last close of a socket may linger, and so may that of one in the queue of a
 * unix socket; a file may be FUSE's.  A memfd waits for nobody, and a pipe for nobody but
 * a writer whose buffer is being paged in: it keeps the pipe's mutex (fs/pipe.c), which
 * close and F_GETPIPE_SZ take.  Only from FUSE, or by userfaultfd, can that take long.
 */
#ifndef CAPMARSHAL_CM_CLOSE_H
#define CAPMARSHAL_CM_CLOSE_H

/*
 * 1 if the last close of this descriptor does not wait for anybody, as said: a pipe, a memfd.
 * Freeing the memory of a memfd takes time too, some 0.2 ms a MiB, all of which its sender has to have.
 * Asks nothing that could itself block for longer, as fstat(2) could.
 */
int cm_closes_quickly(int descriptor);

/* Owns descriptors; -1 is none. */
struct cm_batch {
	unsigned int count;
	int descriptors[];
};

/*
 * Closes them one after the other.  Each is replaced by -1 before it is closed: whoever
 * forks meanwhile finds in the child's copy what the child still has to close, but for
 * the one that is being closed at that very moment.
 */
void cm_close_all(struct cm_batch *batch);

/* The same for those that close quickly.  Return: how many are left. */
unsigned int cm_close_quick(struct cm_batch *batch);

#endif
