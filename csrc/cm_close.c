#include "lx.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "cm_close.h"
#include "cm_identity.h"
#include "cm_make.h"

/* include/uapi/linux/stat.h: what libc has of it depends on its age */
enum {
	STATX_TYPE_NLINK = 0x0005,
	STATX_INODE = 0x0100,
	STATX_MOUNT = 0x1000,             /* STATX_MNT_ID, Linux 5.8 */
	STATX_MOUNT_UNIQUE = 0x4000,      /* STATX_MNT_ID_UNIQUE, Linux 6.8 */
	STATX_OF_DESCRIPTOR = 0x1000,     /* AT_EMPTY_PATH */
	STATX_DONT_ASK = 0x4000,          /* AT_STATX_DONT_SYNC */
};

struct statx_answer {
	uint32_t mask;
	uint32_t block_size;
	uint64_t attributes;
	uint32_t links;
	uint32_t owner[2];
	uint16_t mode;
	uint16_t unused;
	uint64_t inode;
	uint64_t size[3];
	uint64_t times[8];
	uint32_t device_major;            /* of the device that this is */
	uint32_t device_minor;
	uint32_t on_device[2];
	uint64_t mount;
	uint64_t spare[13];
};

_Static_assert(sizeof(struct statx_answer) == 256, "struct statx has 256 bytes");
_Static_assert(offsetof(struct statx_answer, mount) == 0x90, "the kernel's layout");

/* Files that are closed in one system call, at most. */
enum { ROW_MAX = 16 };

/* drivers/char/mem.c: null, zero, full, random, ...; none has anything to do when it is closed */
enum { MEMORY_DEVICES = 1 };

/* Only TCP and UDP are known not to wait unless told to: SMC, which looks as TCP does, waits for its peer. */
static int closing_of_socket(int descriptor)
{
	struct linger linger;
	unsigned int length = sizeof(linger);
	int domain = cm_socket_option(descriptor, SO_DOMAIN);
	int protocol = cm_socket_option(descriptor, SO_PROTOCOL);

	if ((domain != AF_INET && domain != AF_INET6) || (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP))
		return CM_MAY_BLOCK;
	/* a listener never lingers: __tcp_close(), net/ipv4/tcp.c */
	if (cm_socket_option(descriptor, SO_ACCEPTCONN) == 1)
		return CM_CLOSES_SOCKET;
	if (lx_getsockopt(descriptor, SOL_SOCKET, SO_LINGER, &linger, &length) < 0 || linger.l_onoff)
		return CM_MAY_BLOCK;
	return CM_CLOSES_SOCKET;
}

/* 1: the list of mounts is what poll(2) has just said it to be; 0: there is none; -ESTALE */
static int up_to_date(struct cm_mounts *mounts)
{
	struct timespec at_once = { 0, 0 };
	struct pollfd polled = { .fd = mounts->mountinfo, .events = POLLPRI };
	int changed;

	if (mounts->unique)
		return 1;
	if (mounts->mountinfo < 0)
		return 0;
	changed = lx_ppoll(&polled, 1, &at_once);
	if (changed < 0 || polled.revents & POLLNVAL)
		return 0;
	/* poll(2) tells it once: whoever asks next is to know too */
	if (changed > 0)
		__atomic_store_n(&mounts->stale, 1, __ATOMIC_SEQ_CST);
	return __atomic_load_n(&mounts->stale, __ATOMIC_SEQ_CST) ? -ESTALE : 1;
}

static int listed(const struct cm_mounts *mounts, uint64_t id)
{
	unsigned int low = 0, high = mounts->count;

	while (low < high) {
		unsigned int middle = low + (high - low) / 2;

		if (mounts->ids[middle] < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low < mounts->count && mounts->ids[low] == id;
}

/* a memfd, or a file of tmpfs; freeing the memory of one that has no name takes some 0.2 ms a MiB */
static int has_seals(int descriptor)
{
	return lx_fcntl(descriptor, F_GET_SEALS, 0) >= 0;
}

/* `asked`: what up_to_date() said, which is asked once for a list; -1: not yet */
static int closing(int descriptor, struct cm_mounts *mounts, int *asked, int *is_directory)
{
	/* whether there are seals costs half as much to ask, and is the only thing to ask about a memfd */
	int met = __atomic_exchange_n(&mounts->met, 0, __ATOMIC_RELAXED);
	unsigned int id = mounts->unique ? STATX_MOUNT_UNIQUE : STATX_MOUNT;
	struct statx_answer answer;
	int error, known;

	if (!met && has_seals(descriptor))
		return CM_CLOSES_FILE;
	error = lx_statx(descriptor, "", STATX_OF_DESCRIPTOR | STATX_DONT_ASK, STATX_TYPE_NLINK | id, &answer);

	if (error == -EBADF)
		return CM_CLOSES_FILE;
	if (error < 0)
		return CM_MAY_BLOCK;
	switch (answer.mode & S_IFMT) {
	case S_IFDIR:
		*is_directory = 1;
		break;
	case S_IFREG:
		break;
	case S_IFCHR:
		return answer.device_major == MEMORY_DEVICES ? CM_CLOSES_FILE : CM_MAY_BLOCK;
	case S_IFSOCK:
		return closing_of_socket(descriptor);
	default:
		return CM_MAY_BLOCK;
	}
	if (!(answer.mask & id))
		return CM_MAY_BLOCK;
	if (*asked == -1)
		*asked = up_to_date(mounts);
	if (*asked == -ESTALE)
		return -ESTALE;
	known = *asked == 1 && listed(mounts, answer.mount);
	if (known) {
		__atomic_store_n(&mounts->met, 1, __ATOMIC_RELAXED);
		/* one without a name may be freed by this close, however large it is */
		if (!S_ISREG(answer.mode) || answer.links > 0)
			return CM_CLOSES_FILE;
	}
	if (met && has_seals(descriptor))
		return CM_CLOSES_FILE;
	return known ? CM_FREES_FILE : CM_MAY_BLOCK;
}

int cm_closing(int descriptor, struct cm_mounts *mounts)
{
	int asked = -1, is_directory;

	return closing(descriptor, mounts, &asked, &is_directory);
}

int cm_reads_own_file(int descriptor, struct cm_mounts *mounts)
{
	int flags = lx_fcntl(descriptor, F_GETFL, 0);
	int access = flags & O_ACCMODE;
	int asked = -1, is_directory = 0, how;

	/* the fourth one, 3, is for ioctl(2) alone: open(2) */
	if (flags < 0 || flags & O_PATH || (access != O_RDONLY && access != O_RDWR))
		return CM_MAY_BLOCK;
	how = closing(descriptor, mounts, &asked, &is_directory);
	return how == CM_CLOSES_SOCKET || is_directory ? CM_MAY_BLOCK : how;
}

int cm_closes_own_reader(int descriptor)
{
	struct statx_answer answer;
	int error = lx_statx(descriptor, "", STATX_OF_DESCRIPTOR | STATX_DONT_ASK, STATX_TYPE_NLINK, &answer);

	return error == 0 && S_ISREG(answer.mode) && answer.links > 0;
}

int cm_file_type(int descriptor)
{
	struct statx_answer answer;
	int error = lx_statx(descriptor, "", STATX_OF_DESCRIPTOR | STATX_DONT_ASK, STATX_TYPE_NLINK, &answer);

	return error < 0 ? error : answer.mode & S_IFMT;
}

uint64_t cm_socket_inode(int descriptor)
{
	struct statx_answer answer;
	int error = lx_statx(descriptor, "", STATX_OF_DESCRIPTOR | STATX_DONT_ASK, STATX_TYPE_NLINK | STATX_INODE, &answer);

	return error < 0 || !S_ISSOCK(answer.mode) ? 0 : answer.inode;
}

static void close_one(int *place)
{
	int descriptor = __atomic_exchange_n(place, -1, __ATOMIC_RELAXED);

	if (descriptor >= 0)
		lx_close(descriptor);
}

void cm_move(int *to, int *from, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		to[i] = from[i];
		from[i] = -1;
	}
}

/*
 * Whether so many were closed in one system call: all or none, for close_range(2) fails before it closes any, and
 * passes over what the close of one says (fs/file.c).  Where it is refused or not there, it is not tried again.
 */
static int closed_range(struct cm_mounts *mounts, int first, unsigned int count)
{
	if (count < 2 || __atomic_load_n(&mounts->one_by_one, __ATOMIC_RELAXED))
		return 0;
	if (lx_close_range((unsigned int)first, (unsigned int)first + count - 1, 0) == 0)
		return 1;
	__atomic_store_n(&mounts->one_by_one, 1, __ATOMIC_RELAXED);
	return 0;
}

/* places of numbers that follow one another; where another thread was faster, one may be none's by now */
static void close_row(struct cm_mounts *mounts, int *places, unsigned int count)
{
	/* taken as it is read: of one that is gone nothing says which number comes after it */
	int first = __atomic_exchange_n(&places[0], -1, __ATOMIC_RELAXED);
	unsigned int taken = 1;

	while (first >= 0 && taken < count &&
	       __atomic_exchange_n(&places[taken], -1, __ATOMIC_RELAXED) == first + (int)taken)
		taken++;
	if (first >= 0 && !closed_range(mounts, first, taken))
		for (unsigned int i = 0; i < taken; i++)
			lx_close(first + (int)i);
	for (unsigned int i = taken; i < count; i++)
		close_one(&places[i]);
}

int cm_close_quick(struct cm_descriptors *list, struct cm_mounts *mounts)
{
	int asked = -1, left = 0, is_directory;
	/* so many places before this one are to be closed yet */
	unsigned int row = 0;

	for (unsigned int i = 0; i < list->count; i++) {
		int number = list->numbers[i];
		int how = number < 0 ? CM_MAY_BLOCK : closing(number, mounts, &asked, &is_directory);

		if (row > 0 && (how != CM_CLOSES_FILE || row == ROW_MAX || number != list->numbers[i - 1] + 1)) {
			close_row(mounts, &list->numbers[i - row], row);
			row = 0;
		}
		if (how < 0)
			return how;
		if (how == CM_CLOSES_FILE)
			row++;
		else if (how == CM_CLOSES_SOCKET)
			close_one(&list->numbers[i]);
		else
			left += number >= 0;
	}
	if (row > 0)
		close_row(mounts, &list->numbers[list->count - row], row);
	return left;
}

/*
 * /proc/<pid>/fdinfo, net/unix/af_unix.c, Linux 5.6: 1 also where it does not tell.  Nothing else does: to a look into
 * the queue, an empty record with nothing, and descriptors behind it, is what the end is.
 */
static int is_laden(int socket)
{
	char path[64], told[512];
	int file = -1;
	long size;

	/* first: nothing comes after this, nor to what would have connected to a listener */
	if (lx_shutdown(socket, SHUT_RD) < 0 || cm_socket_option(socket, SO_ACCEPTCONN) != 0)
		return 1;
	snprintf(path, sizeof(path), "/proc/thread-self/fdinfo/%d", socket);
	if (cm_make_file(&file, path, O_RDONLY, 0) < 0)
		return 1;
	size = lx_read(file, told, sizeof(told) - 1);
	lx_close(file);
	if (size < 0)
		return 1;
	told[size] = 0;
	return strstr(told, "\nscm_fds: 0\n") == NULL;
}

void cm_move_unladen(struct cm_descriptors *to, struct cm_descriptors *from)
{
	for (unsigned int i = 0; i < from->count; i++)
		if (from->numbers[i] >= 0 && !is_laden(from->numbers[i]))
			cm_move(&to->numbers[i], &from->numbers[i], 1);
}

void cm_identify(struct cm_descriptors *const *lists, unsigned int count, int64_t *identities, unsigned int room)
{
	unsigned int done = 0;

	for (unsigned int i = 0; i < count; i++) {
		for (unsigned int place = 0; place < lists[i]->count && done < room; place++, done++) {
			int number = __atomic_load_n(&lists[i]->numbers[place], __ATOMIC_RELAXED);
			int64_t identity = number < 0 ? 0 : (int64_t)cm_cookie(number);

			if (identity == 0 && number >= 0)
				identity = -(int64_t)cm_socket_inode(number);
			/* another thread takes it out of its place before it closes it */
			if (__atomic_load_n(&lists[i]->numbers[place], __ATOMIC_SEQ_CST) != number)
				identity = 0;
			identities[done] = identity;
		}
	}
}

void cm_close_all(struct cm_descriptors *list)
{
	for (unsigned int i = 0; i < list->count; i++)
		close_one(&list->numbers[i]);
}

int cm_dup_all(struct cm_descriptors *list, const int *descriptors)
{
	for (unsigned int i = 0; i < list->count; i++) {
		int error = cm_make_copy(&list->numbers[i], descriptors[i]);

		if (error)
			return error;
	}
	return 0;
}
