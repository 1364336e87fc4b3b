/* Sockets that were made outside the box and come in by inheritance, by passing, or by taking. */
#include "escapes.h"

#include <sys/sendfile.h>
#include <sys/uio.h>

#define SYS_pidfd_open_ 434
#define SYS_pidfd_getfd_ 438

static int contact(int type)
{
    struct sockaddr_in to = at4(set.target4, CONTACT);
    int fd = socket(AF_INET, type, 0);
    if (fd >= 0)
        connect(fd, (void *)&to, sizeof to);
    return fd;
}

static int before_tcp(void) { return socket(AF_INET, SOCK_STREAM, 0); }
static int before_tcp6(void) { return socket(AF_INET6, SOCK_STREAM, 0); }
static int before_udp(void) { return socket(AF_INET, SOCK_DGRAM, 0); }
static int before_raw(void) { return socket(AF_INET, SOCK_RAW, IPPROTO_UDP); }
static int before_packet(void) { return socket(AF_PACKET, SOCK_DGRAM, 0); }
static int before_connected(void) { return contact(SOCK_STREAM); }
static int before_datagrams(void) { return contact(SOCK_DGRAM); }

static int before_listener(void)
{
    struct in_addr any = {0};
    struct sockaddr_in here = at4(any, CALLED);
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (void *)&here, sizeof here) < 0 || listen(fd, 8) < 0)
        return -1;
    return fd;
}

static void inherited_tcp(void)
{
    struct sockaddr_in to = target4();
    tcp_to(set.inherited, &to, sizeof to);
}

static void inherited_tcp6(void)
{
    struct sockaddr_in6 to = target6();
    tcp_to(set.inherited, &to, sizeof to);
}

/* Not to the target but to where the box may go: such a connection would never end with its grant. */
static void foreign_to_granted(void)
{
    struct sockaddr_in to = granted4();
    tcp_to(set.inherited, &to, sizeof to);
}

static void inherited_udp_sendto(void)
{
    struct sockaddr_in to = target4();
    say_to(set.inherited, &to, sizeof to);
}

static void inherited_udp_connect(void)
{
    struct sockaddr_in to = target4();
    reach(set.inherited, &to, sizeof to);
    say(set.inherited);
}

static void inherited_raw(void)
{
    struct sockaddr_in to = at4(set.target4, 0);
    say_to(set.inherited, &to, sizeof to);
}

static void inherited_packet(void)
{
    unsigned char to[20] = {AF_PACKET, 0, 8, 0};
    unsigned int index = interface_index();
    memcpy(to + 4, &index, 4);
    to[11] = 6;
    memset(to + 12, 0xff, 6);
    say_to(set.inherited, to, sizeof to);
}

static void inherited_connected_send(void) { say(set.inherited); }

static void inherited_connected_write(void)
{
    step("write", write(set.inherited, set.marker, strlen(set.marker)));
}

static int file_with_marker(void)
{
    int fd = (int)step("memfd_create", syscall(SYS_memfd_create, "marker", 0));
    if (write(fd, set.marker, strlen(set.marker)) < 0)
        step("write", -1);
    lseek(fd, 0, SEEK_SET);
    return fd;
}

static void inherited_connected_sendfile(void)
{
    step("sendfile", sendfile(set.inherited, file_with_marker(), NULL, strlen(set.marker)));
}

static void inherited_connected_splice(void)
{
    int ends[2];
    if (step("pipe", pipe(ends)) < 0)
        return;
    step("write", write(ends[1], set.marker, strlen(set.marker)));
    step("splice", splice(ends[0], NULL, set.inherited, NULL, strlen(set.marker), 0));
}

static void inherited_connected_vmsplice(void)
{
    int ends[2], twin[2];
    struct iovec part = {set.marker, strlen(set.marker)};
    if (step("pipe", pipe(ends)) < 0 || pipe(twin) < 0)
        return;
    step("vmsplice", vmsplice(ends[1], &part, 1, SPLICE_F_GIFT));
    step("tee", tee(ends[0], twin[1], strlen(set.marker), 0));
    step("splice", splice(twin[0], NULL, set.inherited, NULL, strlen(set.marker), 0));
}

static void inherited_connected_zerocopy(void)
{
    flag(set.inherited, "SO_ZEROCOPY", SOL_SOCKET, SO_ZEROCOPY, 1);
    step("send(MSG_ZEROCOPY)",
        send(set.inherited, set.marker, strlen(set.marker), MSG_ZEROCOPY | MSG_NOSIGNAL));
}

static void inherited_connected_reconnect(void)
{
    struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    struct sockaddr_in to = target4();
    step("disconnect", connect(set.inherited, &nowhere, sizeof nowhere));
    tcp_to(set.inherited, &to, sizeof to);
}

static void inherited_listener(void)
{
    int fd = (int)step("accept", accept(set.inherited, NULL, NULL));
    if (fd >= 0)
        say(fd);
}

/* A second open file for the same socket. */
static void inherited_by_proc(void)
{
    char path[64];
    struct sockaddr_in to = target4();
    snprintf(path, sizeof path, "/proc/self/fd/%d", set.inherited);
    int fd = (int)step("open", open(path, O_RDWR));
    say_to(fd >= 0 ? fd : set.inherited, &to, sizeof to);
}

static int passed(char wish)
{
    struct sockaddr_un address;
    socklen_t length = (socklen_t)path_address(&address, "passer");
    int over = make(AF_UNIX, SOCK_STREAM, 0);
    if (reach(over, &address, length) < 0 || step("ask", write(over, &wish, 1)) < 0)
        return -1;
    return receive_fd(over);
}

static void passed_tcp(void)
{
    struct sockaddr_in to = target4();
    tcp_to(passed('t'), &to, sizeof to);
}

static void passed_udp(void)
{
    struct sockaddr_in to = target4();
    int fd = passed('u');
    if (fd >= 0)
        say_to(fd, &to, sizeof to);
}

static void passed_connected_tcp(void)
{
    int fd = passed('T');
    if (fd >= 0)
        say(fd);
}

static void passed_connected_udp(void)
{
    int fd = passed('U');
    if (fd >= 0)
        say(fd);
}

const struct probe passed_probes[] = {
    {"inherited_tcp", "A1", inherited_tcp, before_tcp},
    {"inherited_tcp6", "A1", inherited_tcp6, before_tcp6},
    {"foreign_to_granted", "A9", foreign_to_granted, before_tcp},
    {"inherited_udp_sendto", "A1", inherited_udp_sendto, before_udp},
    {"inherited_udp_connect", "A1", inherited_udp_connect, before_udp},
    {"inherited_by_proc", "A1", inherited_by_proc, before_udp},
    {"inherited_raw", "A2", inherited_raw, before_raw},
    {"inherited_packet", "A2", inherited_packet, before_packet},
    {"inherited_connected_send", "A2", inherited_connected_send, before_connected},
    {"inherited_connected_write", "A2", inherited_connected_write, before_connected},
    {"inherited_connected_udp", "A2", inherited_connected_send, before_datagrams},
    {"inherited_connected_sendfile", "A2", inherited_connected_sendfile, before_connected},
    {"inherited_connected_splice", "A2", inherited_connected_splice, before_connected},
    {"inherited_connected_vmsplice", "A2", inherited_connected_vmsplice, before_connected},
    {"inherited_connected_zerocopy", "A2", inherited_connected_zerocopy, before_connected},
    {"inherited_connected_reconnect", "A1", inherited_connected_reconnect, before_connected},
    {"inherited_listener", "A2", inherited_listener, before_listener},
    {"passed_tcp", "A1", passed_tcp, NULL},
    {"passed_udp", "A1", passed_udp, NULL},
    {"passed_connected_tcp", "A2", passed_connected_tcp, NULL},
    {"passed_connected_udp", "A2", passed_connected_udp, NULL},
    {NULL, NULL, NULL, NULL},
};

/* From a process of the same user that never meant to give anything away. */
static int taken(int number)
{
    int process = (int)step("pidfd_open", syscall(SYS_pidfd_open_, others->holder, 0));
    return process < 0 ? -1 : (int)step("pidfd_getfd", syscall(SYS_pidfd_getfd_, process, number, 0));
}

static void taken_tcp(void)
{
    struct sockaddr_in to = target4();
    int fd = taken(50);
    if (fd >= 0)
        tcp_to(fd, &to, sizeof to);
}

static void taken_connected_tcp(void)
{
    int fd = taken(51);
    if (fd >= 0)
        say(fd);
}

static void opened_in_proc(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/51", others->holder);
    int fd = (int)step("open", open(path, O_RDWR));
    if (fd >= 0)
        say(fd);
}

const struct probe outsider_probes[] = {
    {"taken_tcp", "A4", taken_tcp, NULL},
    {"taken_connected_tcp", "A4", taken_connected_tcp, NULL},
    {"opened_in_proc", "A4", opened_in_proc, NULL},
    {NULL, NULL, NULL, NULL},
};
