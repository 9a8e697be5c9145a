/*
 * A client in C, of nothing but the C library: what one needs of docs/protocol.md
 *
 * It takes the capability that waits in its standard input, calls the object behind
 * it with data and a descriptor, and gets both back; then an error that the interface
 * declares; and at last it learns that its grant was revoked.
 *
 *     cc -Wall -o c_client c_client.c && python c_server.py ./c_client c_client.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { VERSION = 3, KNOCK = 1, CALL = 2, REPLY = 3, FAIL = 4, GONE = 8, REVOKED = 9, DECLARED = 1 };
enum { RECORD_MAX = 262144, DESCRIPTORS_MAX = 253, REASON_MAX = 1000, HANDOVER = 32, BADGE = 16, PATIENCE = 10 };
/* what comes of a record that is waited for, or of a call; else -errno */
enum { ENDED = 0, CAME = 1 };

/* they lie in a record as they lie here */
struct head { uint8_t version, kind; uint16_t entries, descriptors, cpu; uint64_t id; };
struct __attribute__((packed)) call {
	struct head head;
	uint64_t time_left, sent_at;
	uint16_t method;
	uint8_t badge[BADGE];
};
struct __attribute__((packed)) line { uint16_t slot; uint8_t badge[BADGE]; };
_Static_assert(sizeof(struct head) == 16 && sizeof(struct call) == 50 && sizeof(struct line) == 18, "the layout");

struct capability { int door; uint8_t badge[BADGE]; };
struct record { uint8_t data[RECORD_MAX]; size_t size; int descriptors[DESCRIPTORS_MAX]; unsigned int count; };

static const int64_t SECOND = 1000000000;

static _Noreturn void stop(const char *words)
{
	fprintf(stderr, "c_client: %s\n", words);
	exit(1);
}

static int64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * SECOND + time.tv_nsec;
}

/* Records -------------------------------------------------------------------------------------------------------- */

/* whether a socket is ready for that, or the other side has gone, before it is too late */
static int is_ready(int sock, short events, int64_t until)
{
	struct pollfd polled = { .fd = sock, .events = events };
	int64_t left = until - now();

	return poll(&polled, 1, left > 0 ? (int)(left / 1000000) + 1 : 0) > 0;
}

static int receive(int sock, struct record *in, int64_t until)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(in->descriptors))];
	struct iovec part = { in->data, sizeof(in->data) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	ssize_t size;

	while ((size = recvmsg(sock, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)) < 0) {
		if (errno != EAGAIN)
			return -errno;
		if (!is_ready(sock, POLLIN, until))
			return -ETIMEDOUT;
	}
	in->size = (size_t)size;
	in->count = 0;
	for (struct cmsghdr *each = CMSG_FIRSTHDR(&message); each; each = CMSG_NXTHDR(&message, each)) {
		if (each->cmsg_level != SOL_SOCKET || each->cmsg_type != SCM_RIGHTS)
			continue;
		in->count = (unsigned int)((each->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(in->descriptors, CMSG_DATA(each), in->count * sizeof(int));
	}
	/* what came would have to be closed, if this went on */
	if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
		stop("something of a record was lost");
	return size > 0 ? CAME : ENDED;
}

/* sends a record, with a descriptor unless that is -1: 0, or -errno */
static int send_record(int sock, struct iovec *parts, size_t n_parts, int descriptor, int64_t until)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct cmsghdr *rights = (struct cmsghdr *)control;
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = n_parts };

	if (descriptor >= 0) {
		*rights = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int)) };
		memcpy(CMSG_DATA(rights), &descriptor, sizeof(int));
		message.msg_control = control;
		message.msg_controllen = sizeof(control);
	}
	while (sendmsg(sock, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
		/* of the last, others have to receive first */
		if (errno != EAGAIN && errno != ETOOMANYREFS)
			return -errno;
		if (errno == ETOOMANYREFS && now() < until)
			poll(NULL, 0, 10);
		else if (!is_ready(sock, POLLOUT, until))
			return -ETIMEDOUT;
	}
	return 0;
}

/* MessagePack: what this client needs of it ----------------------------------------------------------------------- */

struct rest { const uint8_t *at, *end; };        /* of a payload that came */

/* an integer, of so many bytes, the highest first */
static uint64_t get_bytes(struct rest *from, size_t size)
{
	uint64_t value = 0;

	if ((size_t)(from->end - from->at) < size)
		stop("a payload is cut short");
	while (size-- > 0)
		value = value << 8 | *from->at++;
	return value;
}

/* what stands in the low bits of a head; or behind it, in as many bytes as the head says, which is one of several */
static uint64_t get(struct rest *from, uint8_t fix, uint8_t bits, uint8_t first, unsigned int several, unsigned int fewest)
{
	unsigned int head = (unsigned int)get_bytes(from, 1);

	if ((head & ~(unsigned int)bits) == fix)
		return head & bits;
	if (head < first || head >= first + several)
		stop("a payload is not what the interface says");
	return get_bytes(from, fewest << ((head - first) & 3));
}

/* of 1, 2, 4 or 8 bytes, with a sign or without */
static uint64_t get_int(struct rest *from)   { return get(from, 0x00, 0x7f, 0xcc, 8, 1); }
static uint64_t get_array(struct rest *from) { return get(from, 0x90, 0x0f, 0xdc, 2, 2); }

/* a text of up to 999 bytes, to be used until the next one is had */
static const char *get_text(struct rest *from)
{
	static char text[1000];
	uint64_t size = get(from, 0xa0, 0x1f, 0xd9, 3, 1);

	if (size > (uint64_t)(from->end - from->at) || size >= sizeof(text))
		stop("a text is cut short, or long");
	memcpy(text, from->at, size);
	text[size] = 0;
	from->at += size;
	return text;
}

/* Capabilities --------------------------------------------------------------------------------------------------- */

/* takes the capability that waits in a socket */
static struct capability take(int sock, struct record *in)
{
	static const char magic[] = "\xfe" "capmshl";
	struct capability taken;
	uint32_t version;

	if (receive(sock, in, now() + PATIENCE * SECOND) != CAME || in->size < HANDOVER || memcmp(in->data, magic, 8) != 0)
		stop("no capability waits in standard input: c_server.py starts it with one");
	memcpy(&version, in->data + 8, sizeof(version));
	if (version != VERSION || in->size != HANDOVER || in->count != 1)
		stop("the capability in standard input is of another version");
	taken.door = in->descriptors[0];
	memcpy(taken.badge, in->data + 16, BADGE);
	return taken;
}

/* a new channel; or -errno */
static int knock(const struct capability *to, int64_t until)
{
	struct head head = { .version = VERSION, .kind = KNOCK, .descriptors = 1 };
	struct iovec part = { &head, sizeof(head) };
	int ends[2], error;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	error = send_record(to->door, &part, 1, ends[1], until);
	close(ends[1]);                          /* else nothing would tell that the server has gone */
	if (error)
		close(ends[0]);
	return error ? error : ends[0];
}

/* why a door is shut that has hung up; NULL where nobody has said so */
static const char *epitaph(const struct capability *to)
{
	static char reason[REASON_MAX + 1];
	struct head head;
	struct iovec parts[] = { { &head, sizeof(head) }, { reason, REASON_MAX } };
	int from_the_start = -1;

	setsockopt(to->door, SOL_SOCKET, SO_PEEK_OFF, &from_the_start, sizeof(from_the_start));
	for (int look = 0; look < 2; look++) {   /* the first may find an ECONNRESET */
		struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };
		ssize_t size = recvmsg(to->door, &message, MSG_PEEK | MSG_DONTWAIT);

		if (size < (ssize_t)sizeof(head) || head.kind != REVOKED)
			continue;
		reason[size - (ssize_t)sizeof(head)] = 0;
		return reason;
	}
	return NULL;
}

/* what is called with one text and one descriptor; or with nothing, where that is -1 */
struct arguments { const char *text; int descriptor; };

/* sends a call, and waits for its answer: CAME; ENDED, it may have run; -ECONNRESET, it has not */
static int try_on(int channel, const struct capability *to, uint64_t id, const char *method, struct arguments with,
		  struct record *in, int64_t until)
{
	int any = with.descriptor >= 0, unread = 0, result;
	struct call call = {
		.head = { .version = VERSION, .kind = CALL, .entries = (uint16_t)any, .descriptors = (uint16_t)any, .id = id },
		.method = (uint16_t)strlen(method),
	};
	struct line table = { .slot = 0 };       /* without a badge: the descriptor itself */
	/* an array of 2, a text whose length has one byte, and 0, the first entry of the table; or an array of 0 */
	uint8_t before[] = { 0x92, 0xd9, (uint8_t)strlen(with.text) }, behind[] = { 0 }, none[] = { 0x90 };
	struct iovec parts[] = {
		{ &call, sizeof(call) }, { (void *)method, call.method }, { &table, sizeof(table) },
		{ before, sizeof(before) }, { (void *)with.text, before[2] }, { behind, sizeof(behind) },
	};
	struct head head;

	call.sent_at = (uint64_t)now();
	call.time_left = (uint64_t)until - call.sent_at;
	memcpy(call.badge, to->badge, BADGE);
	if (!any)
		parts[2] = (struct iovec){ none, sizeof(none) };
	result = send_record(channel, parts, any ? 6 : 3, with.descriptor, until);
	if (result)
		return result == -EPIPE ? -ECONNRESET : result;
	while ((result = receive(channel, in, until)) == -ECONNRESET)
		unread = 1;                      /* said before what is queued, so go on to the end of file */
	if (result != CAME)
		return unread && result == ENDED ? -ECONNRESET : result;
	if (in->size < sizeof(head))
		stop("what came is no record");
	memcpy(&head, in->data, sizeof(head));
	if (head.version == VERSION && head.kind == GONE)
		return -ECONNRESET;
	/* no answer to an earlier call: a channel of which one was given up is not used again */
	if (head.version != VERSION || head.id != id || (head.kind != REPLY && head.kind != FAIL) || head.descriptors != in->count)
		stop("what came is no answer, or one in parts, which this client does not take");
	return CAME;
}

/* makes a call; where its capability was revoked, NULL, else what stands behind the answer's head */
static const struct head *call(const struct capability *to, const char *method, struct arguments with, struct record *in,
			       struct rest *rest)
{
	static struct head head;
	static int channel = -1;                 /* kept from call to call */
	static uint64_t id;
	int64_t until = now() + PATIENCE * SECOND;
	int result = -ECONNRESET, backoff = 1;   /* ms */

	if (strlen(with.text) > 255)
		stop("the name is too long");
	while (result == -ECONNRESET && now() < until) {
		int is_new = channel < 0;

		if (is_new && (channel = knock(to, until)) < 0) {
			if (channel != -EPIPE && channel != -ECONNRESET)
				stop("no channel could be made");
			if (!epitaph(to))
				stop("the server has gone, and has not run the call");
			return NULL;
		}
		result = try_on(channel, to, ++id, method, with, in, until);
		if (result == CAME) {
			memcpy(&head, in->data, sizeof(head));
			*rest = (struct rest){ in->data + sizeof(head), in->data + in->size };
			return &head;
		}
		close(channel);
		channel = -1;
		if (is_new && result == -ECONNRESET) {
			poll(NULL, 0, backoff);      /* the server had no room for it */
			backoff = backoff < 64 ? 2 * backoff : backoff;
		}
	}
	stop(result == ENDED ? "the server has gone, and may have run the call" : "no answer in time");
}

/* What it is for ------------------------------------------------------------------------------------------------- */

/* upper(name: str, file: Descriptor) -> tuple[int, Descriptor] */
static void print_in_capitals(const struct capability *letters, const char *name, int file, struct record *in)
{
	struct rest rest;
	const struct head *head = call(letters, "upper", (struct arguments){ name, file }, in, &rest);
	struct line line;
	char text[4096];
	ssize_t size;

	if (!head)
		stop("revoked too early");
	if (head->kind == FAIL) {
		uint64_t code;
		const char *message;

		get_array(&rest);
		code = get_int(&rest);
		message = get_text(&rest);
		if (code > DECLARED) {
			printf("error %d: %s\n", (int)code, message);
			return;
		}
		/* what was raised, by its class, and the bases of that; and its text */
		get_array(&rest);
		for (uint64_t count = get_array(&rest), i = 0; i < count; i++) {
			const char *name = get_text(&rest);

			if (i == 0)
				printf("%s: ", name);
		}
		printf("%s\n", get_text(&rest));
		return;
	}
	if (head->entries != 1 || in->count != 1 || in->size < sizeof(*head) + sizeof(line))
		stop("the answer has no descriptor");
	memcpy(&line, rest.at, sizeof(line));
	rest.at += sizeof(line);
	if (get_array(&rest) != 2)
		stop("the answer is no pair");
	printf("%d bytes: ", (int)get_int(&rest));
	if (get_int(&rest) != 0 || line.slot != 0)
		stop("the answer refers to no descriptor of its own");
	for (off_t at = 0; (size = pread(in->descriptors[0], text, sizeof(text), at)) > 0; at += size)
		fwrite(text, 1, (size_t)size, stdout);
	close(in->descriptors[0]);
}

int main(int argc, char **argv)
{
	static struct record in;
	struct capability letters = take(STDIN_FILENO, &in);
	const struct arguments nothing = { "", -1 };
	int file = argc == 2 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1, empty = memfd_create("empty", MFD_CLOEXEC);
	struct rest rest;

	if (file < 0 || empty < 0)
		stop("it is given a file that it can read");
	print_in_capitals(&letters, argv[1], file, &in);
	print_in_capitals(&letters, "nothing", empty, &in);
	/* leave() -> None: the server revokes the grant, and answers calls in progress */
	if (!call(&letters, "leave", nothing, &in, &rest) || call(&letters, "leave", nothing, &in, &rest))
		stop("the grant was revoked too early, or was not");
	printf("revoked: %s\n", epitaph(&letters));
	close(empty);
	close(file);
	close(letters.door);
	return 0;
}
