/* The accomplice: processes of the same user outside the box, which send on what they are given. Each is what
 * some ordinary program is: a proxy, a socket activator, a bus, a debugger's victim. */
#include "escapes.h"

#include <linux/netlink.h>
#include <linux/vm_sockets.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <poll.h>

static pid_t one(void (*role)(void))
{
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGPIPE, SIG_IGN);
        role();
        _exit(0);
    }
    return child;
}

/* Sends on to the target what a probe has handed over. Who hands over nothing has still got through. */
void deliver_for(const char *bytes, size_t length)
{
    char nobody[64];
    make_marker(nobody, sizeof nobody, "contact-without-marker");
    if (!memmem(bytes, length, "escape-", 7)) {
        bytes = nobody;
        length = strlen(nobody);
    }
    struct sockaddr_in to = at4(set.target4, CONTACT);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    sendto(fd, bytes, length, 0, (void *)&to, sizeof to);
    close(fd);
}

int abstract_address(struct sockaddr_un *address, const char *name)
{
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    int length = snprintf(address->sun_path + 1, sizeof address->sun_path - 1, "escapes-%s", name);
    return (int)offsetof(struct sockaddr_un, sun_path) + 1 + length;
}

int path_address(struct sockaddr_un *address, const char *name)
{
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    snprintf(address->sun_path, sizeof address->sun_path, "%s/%s", set.directory, name);
    return sizeof *address;
}

static int here(int type, const void *address, int length)
{
    int fd = socket(*(const sa_family_t *)address, type, 0), on = 1;
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(fd, address, (socklen_t)length) < 0 || (type != SOCK_DGRAM && listen(fd, 8) < 0)) {
        perror("accomplice");
        close(fd);
        return -1;
    }
    return fd;
}

static void serve_streams(int listener)
{
    struct timeval patience = {.tv_sec = 1, .tv_usec = 0};
    char bytes[4096];
    for (int fd; listener >= 0 && (fd = accept(listener, NULL, NULL)) >= 0; close(fd)) {
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        ssize_t got = recv(fd, bytes, sizeof bytes, 0);
        deliver_for(bytes, got > 0 ? (size_t)got : 0);
    }
}

static void serve_datagrams(int fd)
{
    char bytes[4096];
    for (ssize_t got; fd >= 0 && (got = recv(fd, bytes, sizeof bytes, 0)) >= 0;)
        deliver_for(bytes, (size_t)got);
}

/* An earlier run has left its sockets there. */
static int free_path(struct sockaddr_un *address, const char *name)
{
    int length = path_address(address, name);
    unlink(address->sun_path);
    umask(0);
    return length;
}

static void unix_path(void)
{
    struct sockaddr_un address;
    serve_streams(here(SOCK_STREAM, &address, free_path(&address, "proxy")));
}

static void unix_path_packets(void)
{
    struct sockaddr_un address;
    serve_streams(here(SOCK_SEQPACKET, &address, free_path(&address, "packets")));
}

static void unix_abstract(void)
{
    struct sockaddr_un address;
    serve_streams(here(SOCK_STREAM, &address, abstract_address(&address, "proxy")));
}

static void unix_datagrams(void)
{
    struct sockaddr_un address;
    serve_datagrams(here(SOCK_DGRAM, &address, abstract_address(&address, "datagrams")));
}

static void tcp4(void)
{
    struct in_addr any = {0};
    struct sockaddr_in address = at4(any, PROXY);
    serve_streams(here(SOCK_STREAM, &address, sizeof address));
}

static void tcp6(void)
{
    struct sockaddr_in6 address = at6(in6addr_any, PROXY);
    serve_streams(here(SOCK_STREAM, &address, sizeof address));
}

static void udp4(void)
{
    struct in_addr any = {0};
    struct sockaddr_in address = at4(any, PROXY);
    serve_datagrams(here(SOCK_DGRAM, &address, sizeof address));
}

static void udp6(void)
{
    struct sockaddr_in6 address = at6(in6addr_any, PROXY);
    serve_datagrams(here(SOCK_DGRAM, &address, sizeof address));
}

static void vsock(void)
{
    struct sockaddr_vm address = {
        .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_LOCAL, .svm_port = PROXY};
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
    /* Not there on most kernels; then the probe does not get through without a box either. */
    if (fd >= 0 && bind(fd, (void *)&address, sizeof address) == 0 && listen(fd, 8) == 0) {
        others->vsock = 1;
        serve_streams(fd);
    }
}

static void netlink(void)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_pid = (uint32_t)getpid()};
    int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_USERSOCK);
    if (fd >= 0 && bind(fd, (void *)&address, sizeof address) == 0) {
        others->netlink = getpid();
        serve_datagrams(fd);
    }
}

static int outsider(int type, int connected)
{
    struct sockaddr_in to = at4(set.target4, CONTACT);
    int fd = socket(AF_INET, type, 0);
    if (connected)
        connect(fd, (void *)&to, sizeof to);
    return fd;
}

/* Passes sockets on: what a service manager, an editor or a bus does. */
static void passer(void)
{
    struct sockaddr_un address;
    int listener = here(SOCK_STREAM, &address, free_path(&address, "passer"));
    char wish;
    for (int fd; (fd = accept(listener, NULL, NULL)) >= 0; close(fd)) {
        if (read(fd, &wish, 1) != 1)
            continue;
        int type = wish == 't' || wish == 'T' ? SOCK_STREAM : SOCK_DGRAM;
        int passed = outsider(type, wish == 'T' || wish == 'U');
        send_fd(fd, passed);
        close(passed);
    }
}

/* Calls the box, and asks it, without being asked to; what it answers goes to the target. */
static void call(const void *to, socklen_t length)
{
    struct timeval patience = {.tv_sec = 0, .tv_usec = 200000};
    char bytes[512];
    int fd = socket(*(const sa_family_t *)to, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(fd, to, length) == 0) {
        ssize_t got = recv(fd, bytes, sizeof bytes, 0);
        if (got > 0)
            deliver_for(bytes, (size_t)got);
    }
    close(fd);
}

static void caller(void)
{
    struct in_addr loopback = {htonl(INADDR_LOOPBACK)};
    for (;; usleep(20000)) {
        struct sockaddr_in here4 = at4(loopback, CALLED), wide4 = at4(set.host4, CALLED);
        struct sockaddr_in6 here6 = at6(in6addr_loopback, CALLED);
        call(&here4, sizeof here4);
        call(&here6, sizeof here6);
        call(&wide4, sizeof wide4);
        if (others->call_port) {
            here4.sin_port = htons((uint16_t)others->call_port);
            call(&here4, sizeof here4);
        }
    }
}

static void asker(void)
{
    struct in_addr loopback = {htonl(INADDR_LOOPBACK)};
    int fd = outsider(SOCK_DGRAM, 0);
    struct pollfd answer = {.fd = fd, .events = POLLIN};
    char bytes[512];
    for (;;) {
        struct sockaddr_in to = at4(loopback, ASKED);
        sendto(fd, "?", 1, 0, (void *)&to, sizeof to);
        if (poll(&answer, 1, 20) > 0) {
            ssize_t got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
            if (got > 0)
                deliver_for(bytes, (size_t)got);
        }
        /* A closed port is told by ICMP: not so often. */
        usleep(20000);
    }
}

static void holder(void)
{
    dup2(outsider(SOCK_STREAM, 0), 50);
    dup2(outsider(SOCK_STREAM, 1), 51);
    for (;;)
        pause();
}

/* Where a victim goes when somebody has taken it over. */
void victim_escape(void)
{
    char marker[64];
    const struct probe *probe = probe_by_number(others->number);
    make_marker(marker, sizeof marker, probe ? probe->name : "victim");
    deliver_for(marker, strlen(marker));
    for (;;)
        pause();
}

__attribute__((noinline)) void victim_tick(void)
{
    /* Room for the code of whoever writes over it. */
    __asm__ volatile(".rept 32\n nop\n .endr" ::: "memory");
}

static void victim(void)
{
    for (;;) {
        usleep(5000);
        victim_tick();
    }
}

void accomplices_start(void)
{
    void (*const roles[])(void) = {unix_path, unix_path_packets, unix_abstract, unix_datagrams, tcp4, tcp6, udp4,
        udp6, vsock, netlink, passer, caller, asker};
    for (size_t role = 0; role < sizeof roles / sizeof *roles; role++)
        one(roles[role]);
    others->holder = one(holder);
    others->victim[0] = one(victim);
    /* They have to listen before the first probe comes. */
    usleep(100000);
    others->victim[1] = one(victim);
    for (;;)
        pause();
}
