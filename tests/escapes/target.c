/* The target: listens at the port of every probe, and watches every packet that comes in. What arrives is a
 * marker anywhere in a packet, or a packet to the port of a probe, or one of a protocol that nobody should be
 * able to speak. Each probe is named once. */
#include "escapes.h"

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <sys/resource.h>

#define MOST 2048

static struct pollfd watched[MOST];
static int watched_count;
static char seen[MOST][48];
static int seen_count;

static void watch(int fd)
{
    if (fd < 0 || watched_count == MOST) {
        perror("target");
        exit(70);
    }
    watched[watched_count].fd = fd;
    watched[watched_count++].events = POLLIN;
}

static void arrived(const char *name, size_t length, const char *by)
{
    if (length >= sizeof seen[0] || seen_count == MOST)
        return;
    for (int at = 0; at < seen_count; at++)
        if (strlen(seen[at]) == length && memcmp(seen[at], name, length) == 0)
            return;
    memcpy(seen[seen_count++], name, length);
    printf("{\"arrived\":\"%.*s\",\"by\":\"%s\"}\n", (int)length, name, by);
    fflush(stdout);
}

static int any_marker(const uint8_t *bytes, size_t length)
{
    int found = 0;
    char prefix[64];
    size_t before = (size_t)snprintf(prefix, sizeof prefix, "escape-%s:", run_name());
    const uint8_t *end = bytes + length;
    for (const uint8_t *at = bytes; (at = memmem(at, (size_t)(end - at), prefix, before)); at += before) {
        const uint8_t *stop = memchr(at, ';', (size_t)(end - at));
        if (stop) {
            arrived((const char *)at + before, (size_t)(stop - at) - before, "marker");
            found = 1;
        }
    }
    return found;
}

static void by_port(int protocol, const uint8_t *transport, size_t length)
{
    /* TCP, UDP, DCCP, SCTP and UDP-Lite all have their port here. */
    if (protocol == 6 || protocol == 17 || protocol == 33 || protocol == 132 || protocol == 136) {
        if (length < 4)
            return;
        const struct probe *probe = probe_by_number((transport[2] << 8 | transport[3]) - BASE);
        if ((transport[2] << 8 | transport[3]) >= BASE && probe)
            arrived(probe->name, strlen(probe->name), "port");
        return;
    }
    char name[32];
    int printed = snprintf(name, sizeof name, "protocol-%d", protocol);
    /* ICMP, IGMP and ICMPv6 are the kernel's own business: only a marker counts. */
    if (protocol != 1 && protocol != 2 && protocol != 58)
        arrived(name, (size_t)printed, "protocol");
}

static void packet4(const uint8_t *bytes, size_t length)
{
    size_t header = (size_t)(bytes[0] & 15) * 4;
    struct in_addr usual = group4(0), by32 = group4(1);
    if (bytes[9] == 2 && memmem(bytes, length, &usual, sizeof usual))
        arrived("join_group4", 11, "membership");
    if (bytes[9] == 2 && memmem(bytes, length, &by32, sizeof by32))
        arrived("int80_membership", 16, "membership");
    if (length > header)
        by_port(bytes[9], bytes + header, length - header);
}

static void packet6(const uint8_t *bytes, size_t length)
{
    int next = bytes[6];
    size_t at = 40;
    struct in6_addr group = group6();
    while ((next == 0 || next == 43 || next == 44 || next == 60) && at + 8 <= length) {
        size_t size = next == 44 ? 8 : ((size_t)bytes[at + 1] + 1) * 8;
        next = bytes[at];
        at += size;
    }
    if (next == 58 && memmem(bytes, length, &group, sizeof group))
        arrived("join_group6", 11, "membership");
    if (next != 59 && length > at)
        by_port(next, bytes + at, length - at);
}

static void packet(int fd)
{
    uint8_t bytes[4096];
    struct sockaddr_ll from;
    socklen_t size = sizeof from;
    ssize_t got = recvfrom(fd, bytes, sizeof bytes, MSG_DONTWAIT, (void *)&from, &size);
    if (got < 20 || from.sll_pkttype == PACKET_OUTGOING)
        return;
    if (any_marker(bytes, (size_t)got))
        return;
    if (from.sll_protocol == htons(ETH_P_IP))
        packet4(bytes, (size_t)got);
    if (from.sll_protocol == htons(ETH_P_IPV6) && got >= 40)
        packet6(bytes, (size_t)got);
}

static void listen_at(int port)
{
    struct sockaddr_in6 here = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    for (int type = SOCK_STREAM; type <= SOCK_DGRAM; type++) {
        int fd = socket(AF_INET6, type | SOCK_NONBLOCK, 0);
        if (fd < 0 || bind(fd, (void *)&here, sizeof here) < 0 || (type == SOCK_STREAM && listen(fd, 8) < 0)) {
            perror("target: listening");
            exit(70);
        }
        watch(fd);
    }
}

static int listens(int fd)
{
    int answer = 0;
    socklen_t size = sizeof answer;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &answer, &size) == 0 && answer;
}

int target_main(void)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int capture = socket(AF_PACKET, SOCK_DGRAM, htons(ETH_P_ALL));
    int room = 4 << 20;
    setsockopt(capture, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    watch(capture);
    for (int port = CONTACT; port < BASE + probe_count(); port++)
        listen_at(port);
    printf("{\"arrived\":\"ready\",\"by\":\"target\"}\n");
    fflush(stdout);
    for (;;) {
        if (poll(watched, (nfds_t)watched_count, -1) < 0)
            return 70;
        if (watched[0].revents)
            packet(capture);
        for (int at = 1, count = watched_count; at < count; at++) {
            char bytes[4096];
            if (!watched[at].revents)
                continue;
            if (listens(watched[at].fd)) {
                int fd = accept4(watched[at].fd, NULL, NULL, SOCK_NONBLOCK);
                if (fd >= 0)
                    watch(fd);
            } else if (read(watched[at].fd, bytes, sizeof bytes) == 0) {
                watched[at].events = 0;
            }
        }
    }
}
