/* Sockets made through io_uring: no system call of the task itself names a family. */
#include "calls.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Since Linux 5.19; older headers lack it. */
#define RING_SOCKET 45

/* One request on a ring of its own: what the kernel answered, or minus the error. */
static long ring_once(const struct io_uring_sqe *request)
{
    struct io_uring_params p = {0};
    int fd = (int)syscall(SYS_io_uring_setup, 1, &p);
    if (fd < 0)
        return -errno;
    size_t sq_size = p.sq_off.array + p.sq_entries * sizeof(unsigned int);
    size_t cq_size = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    char *sq = mmap(NULL, sq_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING);
    char *cq = mmap(NULL, cq_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_CQ_RING);
    struct io_uring_sqe *entries = mmap(NULL, p.sq_entries * sizeof *entries, PROT_READ | PROT_WRITE,
        MAP_SHARED, fd, IORING_OFF_SQES);
    if (sq == MAP_FAILED || cq == MAP_FAILED || entries == MAP_FAILED)
        return -ENOMEM;
    entries[0] = *request;
    *(unsigned int *)(void *)(sq + p.sq_off.array) = 0;
    __atomic_store_n((unsigned int *)(void *)(sq + p.sq_off.tail), 1, __ATOMIC_RELEASE);
    long entered = syscall(SYS_io_uring_enter, fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0);
    long result = entered < 0 ? -errno : ((struct io_uring_cqe *)(void *)(cq + p.cq_off.cqes))->res;
    munmap(entries, p.sq_entries * sizeof *entries);
    munmap(cq, cq_size);
    munmap(sq, sq_size);
    close(fd);
    return result;
}

void rings(void)
{
    static const int families[] = {AF_UNIX, AF_INET, AF_VSOCK, AF_PACKET, AF_ALG};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        char what[64];
        struct io_uring_sqe request = {.opcode = RING_SOCKET, .fd = families[i]};
        request.off = families[i] == AF_ALG ? SOCK_SEQPACKET : SOCK_DGRAM;
        long made = ring_once(&request);
        snprintf(what, sizeof what, "ring-socket-%d", families[i]);
        raw(what, made);
        if (made > 0)
            close((int)made);
    }
}
