/* The same through io_uring: no system call of the task itself connects or sends. */
#include "escapes.h"

#include <linux/io_uring.h>
#include <sys/mman.h>

#ifndef IORING_OP_SOCKET
#define IORING_OP_SOCKET 45
#endif
#define IORING_OP_SEND_ZC_ 47

struct ring {
    int fd;
    unsigned int *sq_tail, *sq_mask, *sq_array, *sq_flags, *cq_head, *cq_tail, *cq_mask;
    struct io_uring_sqe *entries;
    struct io_uring_cqe *answers;
    int polled;
};

static int ring_open(struct ring *ring, unsigned int flags)
{
    struct io_uring_params p = {.flags = flags, .sq_thread_idle = 2000};
    ring->fd = (int)step("io_uring_setup", syscall(SYS_io_uring_setup, 8, &p));
    if (ring->fd < 0)
        return -1;
    ring->polled = (flags & IORING_SETUP_SQPOLL) != 0;
    size_t size = p.sq_off.array + p.sq_entries * sizeof(unsigned int);
    size_t answers = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    char *sq = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, IORING_OFF_SQ_RING);
    char *cq = mmap(NULL, answers, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, IORING_OFF_CQ_RING);
    ring->entries = mmap(NULL, p.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE,
        MAP_SHARED, ring->fd, IORING_OFF_SQES);
    if (sq == MAP_FAILED || cq == MAP_FAILED || ring->entries == MAP_FAILED)
        return (int)step("mmap", -1);
    ring->sq_tail = (void *)(sq + p.sq_off.tail);
    ring->sq_mask = (void *)(sq + p.sq_off.ring_mask);
    ring->sq_array = (void *)(sq + p.sq_off.array);
    ring->sq_flags = (void *)(sq + p.sq_off.flags);
    ring->cq_head = (void *)(cq + p.cq_off.head);
    ring->cq_tail = (void *)(cq + p.cq_off.tail);
    ring->cq_mask = (void *)(cq + p.cq_off.ring_mask);
    ring->answers = (void *)(cq + p.cq_off.cqes);
    return 0;
}

/* Submits one request and waits for its answer, a second at most. */
static int ring_do(struct ring *ring, const char *what, const struct io_uring_sqe *request)
{
    unsigned int tail = *ring->sq_tail, at = tail & *ring->sq_mask;
    ring->entries[at] = *request;
    ring->sq_array[at] = at;
    __atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
    unsigned int flags = ring->polled ? IORING_ENTER_SQ_WAKEUP : 0;
    if (syscall(SYS_io_uring_enter, ring->fd, 1, 0, flags, NULL, 0) < 0)
        return (int)step("io_uring_enter", -1);
    for (int wait = 0; wait < 200; wait++, usleep(5000)) {
        unsigned int head = *ring->cq_head;
        if (head == __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE))
            continue;
        int result = ring->answers[head & *ring->cq_mask].res;
        __atomic_store_n(ring->cq_head, head + 1, __ATOMIC_RELEASE);
        if (result < 0)
            errno = -result;
        return (int)step(what, result < 0 ? -1 : result);
    }
    errno = ETIMEDOUT;
    return (int)step(what, -1);
}

static void ring_connect_send(struct ring *ring, int fd)
{
    struct sockaddr_in to = target4();
    struct io_uring_sqe request = {.opcode = IORING_OP_CONNECT, .fd = fd};
    request.addr = (uint64_t)(uintptr_t)&to;
    request.off = sizeof to;
    ring_do(ring, "ring connect", &request);
    struct io_uring_sqe send = {.opcode = IORING_OP_SEND, .fd = fd, .len = (uint32_t)strlen(set.marker)};
    send.addr = (uint64_t)(uintptr_t)set.marker;
    send.msg_flags = MSG_NOSIGNAL;
    ring_do(ring, "ring send", &send);
}

static void uring_connect(void)
{
    struct ring ring;
    if (ring_open(&ring, 0) == 0)
        ring_connect_send(&ring, make(AF_INET, SOCK_STREAM, 0));
}

static void uring_polled(void)
{
    struct ring ring;
    if (ring_open(&ring, IORING_SETUP_SQPOLL) == 0)
        ring_connect_send(&ring, make(AF_INET, SOCK_STREAM, 0));
}

static int ring_socket(struct ring *ring, int family, int type, int protocol)
{
    struct io_uring_sqe request = {.opcode = IORING_OP_SOCKET, .fd = family, .len = (uint32_t)protocol};
    request.off = (uint64_t)type;
    return ring_do(ring, "ring socket", &request);
}

static void uring_socket(void)
{
    struct ring ring;
    if (ring_open(&ring, 0) < 0)
        return;
    int fd = ring_socket(&ring, AF_INET, SOCK_STREAM, 0);
    if (fd >= 0)
        ring_connect_send(&ring, fd);
}

static void uring_raw_socket(void)
{
    struct sockaddr_in to = at4(set.target4, 0);
    struct ring ring;
    if (ring_open(&ring, 0) < 0)
        return;
    int fd = ring_socket(&ring, AF_INET, SOCK_RAW, IPPROTO_UDP);
    if (fd >= 0)
        say_to(fd, &to, sizeof to);
}

static void ring_sendmsg(unsigned int flags)
{
    struct sockaddr_in to = target4();
    struct iovec part = {set.marker, strlen(set.marker)};
    struct msghdr message = {.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &part, .msg_iovlen = 1};
    struct io_uring_sqe request = {.opcode = IORING_OP_SENDMSG, .len = 1};
    struct ring ring;
    if (ring_open(&ring, flags) < 0)
        return;
    request.fd = make(AF_INET, SOCK_DGRAM, 0);
    request.addr = (uint64_t)(uintptr_t)&message;
    ring_do(&ring, "ring sendmsg", &request);
}

static void uring_sendmsg(void) { ring_sendmsg(0); }
static void uring_sendmsg_polled(void) { ring_sendmsg(IORING_SETUP_SQPOLL); }

static void uring_send_zerocopy(void)
{
    struct sockaddr_in to = target4();
    struct io_uring_sqe request = {.opcode = IORING_OP_SEND_ZC_, .len = (uint32_t)strlen(set.marker)};
    struct ring ring;
    if (ring_open(&ring, 0) < 0)
        return;
    request.fd = make(AF_INET, SOCK_DGRAM, 0);
    request.addr = (uint64_t)(uintptr_t)set.marker;
    request.off = (uint64_t)(uintptr_t)&to; /* addr2 */
    request.splice_fd_in = sizeof to;       /* addr_len, in the first half of the word */
    ring_do(&ring, "ring send_zc", &request);
}

static int before_tcp(void) { return socket(AF_INET, SOCK_STREAM, 0); }

static int before_connected(void)
{
    struct sockaddr_in to = at4(set.target4, CONTACT);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    connect(fd, (void *)&to, sizeof to);
    return fd;
}

static void uring_inherited(void)
{
    struct ring ring;
    if (ring_open(&ring, 0) == 0)
        ring_connect_send(&ring, set.inherited);
}

static void uring_inherited_connected(void)
{
    struct io_uring_sqe send = {.opcode = IORING_OP_SEND, .len = (uint32_t)strlen(set.marker)};
    struct ring ring;
    if (ring_open(&ring, 0) < 0)
        return;
    send.fd = set.inherited;
    send.addr = (uint64_t)(uintptr_t)set.marker;
    ring_do(&ring, "ring send", &send);
}

const struct probe uring_probes[] = {
    {"uring_connect", "C7", uring_connect, NULL},
    {"uring_polled", "C7", uring_polled, NULL},
    {"uring_socket", "C7", uring_socket, NULL},
    {"uring_raw_socket", "C7", uring_raw_socket, NULL},
    {"uring_sendmsg", "C7", uring_sendmsg, NULL},
    {"uring_sendmsg_polled", "C7", uring_sendmsg_polled, NULL},
    {"uring_send_zerocopy", "C7", uring_send_zerocopy, NULL},
    {"uring_inherited", "A1", uring_inherited, before_tcp},
    {"uring_inherited_connected", "A2", uring_inherited_connected, before_connected},
    {NULL, NULL, NULL, NULL},
};
