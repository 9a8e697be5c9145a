/*
 * cm_close: lists of descriptors, and closing what others sent
 *
 * The last close of a socket may linger, and so may that of one in the queue of a
 * unix socket; FUSE, NFS and CIFS are asked at every close.  What cannot wait for
 * anybody is closed on the spot, all else where waiting delays nobody.
 */
#ifndef CAPMARSHAL_CM_CLOSE_H
#define CAPMARSHAL_CM_CLOSE_H

#include <stdint.h>

/* Owns descriptors; -1 is none. */
struct cm_descriptors {
	unsigned int count;
	int numbers[];
};

/*
 * The mounts of this machine's own file systems, by the IDs that /proc/self/mountinfo gives them, which are used again,
 * or by unique ones; and what has been learned since of closing files on them.
 */
struct cm_mounts {
	int mountinfo;                    /* open, for poll(2) tells that mounts changed: proc(5); else -1 */
	int unique;                       /* the IDs are unique, so what is listed is right for ever, without mountinfo */
	int stale;                        /* they did, and the list was made before */
	int met;                          /* the last file that was asked about is on one of them, and so may be the next */
	int one_by_one;                   /* close_range(2) was refused, or is not there: close(2) is used for all */
	unsigned int count;
	uint64_t ids[];                   /* ascending */
};

/* What closing a descriptor means for the thread that does it. */
enum cm_closing {
	CM_MAY_BLOCK = 0,                 /* a pipe, a unix socket, a file of a server's, what is unknown */
	CM_CLOSES_FILE = 1,               /* waits for nobody, and nor does writing to it */
	CM_CLOSES_SOCKET = 2,             /* waits for nobody, but writing to it may */
	CM_FREES_FILE = 3,                /* waits for nobody, and may have much to do */
};

/*
 * Asks nothing that could itself block: statx(2) takes what the kernel knows, and pipes are
 * not asked at all, since whoever writes to one may keep its mutex for long (fs/pipe.c).
 *
 * Return: enum cm_closing, or -ESTALE: the list of mounts is to be made anew first
 */
int cm_closing(int descriptor, struct cm_mounts *mounts);

/*
 * For a file of this machine's own that is open for reading, and no directory, what
 * closing it means, as above; CM_MAY_BLOCK for all else, or -ESTALE.
 */
int cm_reads_own_file(int descriptor, struct cm_mounts *mounts);

/*
 * Whether a descriptor is CM_CLOSES_FILE, in one system call, of which cm_closing() makes up to three.
 *
 * To be asked only of what cm_reads_own_file() has passed since it came, and of pipes, sockets and devices, of which
 * it says 0.  Which mount a file is on cannot change as long as it is open, and is not asked again: it would say 1 of a
 * file of another machine's, too.  Whether it has a name still can change.
 */
int cm_closes_own_reader(int descriptor);

/* What kind of file it is, as st_mode has it (S_IFIFO and so on), or -errno; asked as above. */
int cm_file_type(int descriptor);

/*
 * The inode of a socket, 0 for what is none; asked as above.  The kernel counts them with 32 bits, and so gives one
 * again after some hours: two sockets that are open at the same time may have the same.
 */
uint64_t cm_socket_inode(int descriptor);

/* Moves numbers from one place to another; -1 is left where they were. */
void cm_move(int *to, int *from, unsigned int count);

/*
 * Closes those that wait for nobody, the others stay.  Each is replaced by -1 before it is
 * closed: whoever forks meanwhile finds in the child's copy what the child has to close.
 * Files whose numbers follow one another are closed in one system call, 16 at most, for a
 * child that is forked just then keeps these open.
 *
 * Return: how many are left, or -ESTALE as said; some may be closed by then
 */
int cm_close_quick(struct cm_descriptors *list, struct cm_mounts *mounts);

/*
 * What tells the sockets of some lists from those that may have their numbers next, for all
 * places one after the other: the cookie; negative, the inode, where that may not be asked.
 * 0 for what is no socket, or was closed before it was looked at; the lists are as they were.
 */
void cm_identify(struct cm_descriptors *const *lists, unsigned int count, int64_t *identities, unsigned int room);

/*
 * For unix sockets that nobody needs to send to any more: moves those whose close is known not to block, for
 * no descriptor lies in their queues and none can come, to another list, which has as many places, all empty.
 * Whoever forks meanwhile would leave the child a descriptor more: the caller sees to it that nobody does.
 */
void cm_move_unladen(struct cm_descriptors *to, struct cm_descriptors *from);

/* Closes them all, one after the other, as said. */
void cm_close_all(struct cm_descriptors *list);

/*
 * Fills the list, whose places are empty, with copies of as many descriptors, which are
 * borrowed; as cm_make_copy() makes them.
 *
 * Return: 0, or -errno of fcntl(2): the list owns the copies made until then
 */
int cm_dup_all(struct cm_descriptors *list, const int *descriptors);

#endif
