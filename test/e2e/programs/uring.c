// uring ADDRESS PORT TEXT: connects, sends a line and prints the answer inside
// an io_uring, which no system call of the socket's shows.
#include <arpa/inet.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static int ring;
static struct io_uring_params p;
static char *sq, *cq;
static struct io_uring_sqe *sqes;

#define AT(base, off) (*(unsigned *)((base) + (off)))

// submit does one operation and gives its result.
static int submit(int op, int fd, const void *addr, unsigned len, unsigned long off)
{
	unsigned tail = AT(sq, p.sq_off.tail), at = tail & AT(sq, p.sq_off.ring_mask);
	sqes[at] = (struct io_uring_sqe){.opcode = op, .fd = fd, .addr = (unsigned long)addr, .len = len, .off = off};
	((unsigned *)(sq + p.sq_off.array))[at] = at;
	__atomic_store_n(&AT(sq, p.sq_off.tail), tail + 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0) {
		perror("io_uring_enter");
		exit(1);
	}
	unsigned head = AT(cq, p.cq_off.head);
	struct io_uring_cqe *done = (struct io_uring_cqe *)(cq + p.cq_off.cqes) + (head & AT(cq, p.cq_off.ring_mask));
	int res = done->res;
	__atomic_store_n(&AT(cq, p.cq_off.head), head + 1, __ATOMIC_RELEASE);
	return res;
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	ring = syscall(SYS_io_uring_setup, 4, &p);
	if (ring < 0) {
		perror("io_uring_setup");
		return 1;
	}
	sq = mmap(0, p.sq_off.array + p.sq_entries * sizeof(unsigned), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQ_RING);
	cq = mmap(0, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_CQ_RING);
	sqes = mmap(0, p.sq_entries * sizeof *sqes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
	inet_pton(AF_INET, argv[1], &a.sin_addr);
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int res = submit(IORING_OP_CONNECT, s, &a, 0, sizeof a);
	if (res < 0)
		return printf("connect: %s\n", strerror(-res)), 0;
	char line[200];
	int n = snprintf(line, sizeof line, "%s\n", argv[3]);
	if ((res = submit(IORING_OP_SEND, s, line, n, 0)) != n)
		return printf("send: %d\n", res), 1;
	if ((res = submit(IORING_OP_RECV, s, line, sizeof line, 0)) < 0)
		return printf("recv: %s\n", strerror(-res)), 1;
	printf("%.*s", res, line);
	return 0;
}
