/*
 * transfer: what handing bytes or descriptors over costs in C, for the benchmark `transfer` to compare with
 *
 *   bytes        the client hands N bytes over
 *   descriptors  the client hands N descriptors over, each of a memfd of its own
 *
 * Both on one SEQPACKET socketpair, as many records as it takes: each has up to
 * BYTES_MAX bytes behind its head and up to DESCRIPTORS_MAX descriptors.  The server
 * puts the bytes together in memory that it uses again, closes the descriptors, and
 * says in one record what it saw; the client checks that.
 *
 * Prints the nanoseconds per hand-over.
 */
#include "measuring.h"

#include <stdlib.h>
#include <string.h>

enum {
	/* fits, with its head, into the default send buffer of 212,992 bytes */
	BYTES_MAX = 192 * 1024,
};

/* of each record: all that is handed over, not the record's share */
struct head {
	uint64_t bytes, descriptors;
};

/* what arrived */
struct seen {
	uint64_t count;
	/* the last byte, or the inode of the last descriptor; 0 if there is none */
	uint64_t mark;
};

struct load {
	struct head all;
	char *bytes;
	int *descriptors;
};

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

static struct seen look(const struct load *load)
{
	struct seen seen = { .count = load->all.bytes + load->all.descriptors };

	if (load->all.bytes)
		seen.mark = (unsigned char)load->bytes[load->all.bytes - 1];
	else if (load->all.descriptors)
		seen.mark = inode(load->descriptors[load->all.descriptors - 1]);
	return seen;
}

static void send_load(int socket, const struct load *load)
{
	struct head all = load->all;
	size_t bytes = 0, descriptors = 0;

	do {
		size_t n_bytes = smaller(all.bytes - bytes, BYTES_MAX);
		size_t n_descriptors = smaller(all.descriptors - descriptors, DESCRIPTORS_MAX);
		struct iovec parts[] = {
			{ .iov_base = &all, .iov_len = sizeof(all) },
			{ .iov_base = load->bytes + bytes, .iov_len = n_bytes },
		};

		send_record(socket, parts, 2, load->descriptors + descriptors, n_descriptors);
		bytes += n_bytes;
		descriptors += n_descriptors;
	} while (bytes < all.bytes || descriptors < all.descriptors);
}

/*
 * Receives a load of up to load->all into its memory; the caller owns the descriptors.
 *
 * Return: 1, or 0 at the end of file
 */
static int receive_load(int socket, const struct load *load, struct head *all)
{
	size_t bytes = 0, descriptors = 0;

	do {
		struct iovec parts[] = {
			{ .iov_base = all, .iov_len = sizeof(*all) },
			{ .iov_base = load->bytes + bytes, .iov_len = load->all.bytes - bytes },
		};
		size_t came = load->all.descriptors - descriptors;
		size_t got = receive_record(socket, parts, 2, load->descriptors + descriptors, &came, 0);

		if (got == 0)
			return 0;
		if (got < sizeof(*all))
			die("a record came that is too small");
		bytes += got - sizeof(*all);
		descriptors += came;
	} while (bytes < all->bytes || descriptors < all->descriptors);
	return 1;
}

static void serve(int channel, void *room)
{
	struct load came = *(const struct load *)room;

	while (receive_load(channel, room, &came.all)) {
		struct seen seen = look(&came);
		struct iovec part = { .iov_base = &seen, .iov_len = sizeof(seen) };

		for (size_t i = 0; i < came.all.descriptors; i++)
			close_end(came.descriptors[i]);
		send_record(channel, &part, 1, NULL, 0);
	}
}

static void hand_over(int channel, const struct load *load, const struct seen *expected)
{
	struct seen seen;
	struct iovec part = { .iov_base = &seen, .iov_len = sizeof(seen) };
	size_t none = 0;

	send_load(channel, load);
	if (receive_record(channel, &part, 1, NULL, &none, 0) != sizeof(seen))
		die("the server ended");
	if (seen.count != expected->count || seen.mark != expected->mark)
		die("something else arrived than was sent");
}

static int64_t run(int channel, const struct load *load, long repeats)
{
	struct seen expected = look(load);
	int64_t begin = now();

	for (long i = 0; i < repeats; i++)
		hand_over(channel, load, &expected);
	return now() - begin;
}

static void *allocate(size_t count, size_t size)
{
	void *memory = calloc(count ? count : 1, size);

	if (!memory)
		die_errno("calloc");
	return memory;
}

int main(int argc, char **argv)
{
	struct load load = { .all = { 0, 0 } };
	long repeats;
	size_t n;
	int channel;

	if (argc != 6 || (strcmp(argv[1], "bytes") && strcmp(argv[1], "descriptors")))
		die("usage: transfer bytes|descriptors N REPEATS CLIENT_CPU SERVER_CPU");
	n = (size_t)number(argv[2], 0, 1L << 40);
	repeats = number(argv[3], 1, 1000000);
	if (strcmp(argv[1], "bytes"))
		load.all.descriptors = n;
	else
		load.all.bytes = n;
	load.bytes = allocate(load.all.bytes, 1);
	load.descriptors = allocate(load.all.descriptors, sizeof(int));

	/* before anything is filled in: the server has memory, and a table, of its own */
	channel = start_server(serve, &load, cores(argv[4], argv[5]));
	for (size_t i = 0; i < load.all.bytes; i++)
		load.bytes[i] = (char)(i % 251);
	open_memfds(load.descriptors, load.all.descriptors);

	/* untimed: the server has started, and the caches are warm */
	run(channel, &load, repeats / 10 + 1);
	print_figure(run(channel, &load, repeats), repeats);
	end_server(channel);
	return 0;
}
