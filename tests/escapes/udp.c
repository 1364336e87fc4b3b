/* UDP, by every call that sends a datagram. */
#include "escapes.h"

#include <linux/udp.h>
#include <pthread.h>

#define IPPROTO_UDPLITE_ 136
#define UDP_SEGMENT_ 103

static void send4(int family, int to_family)
{
    struct sockaddr_in to = target4();
    to.sin_family = (sa_family_t)to_family;
    say_to(make(family, SOCK_DGRAM, 0), &to, sizeof to);
}

static void send6(struct sockaddr_in6 to)
{
    say_to(make(AF_INET6, SOCK_DGRAM, 0), &to, sizeof to);
}

static void udp4_sendto(void) { send4(AF_INET, AF_INET); }
static void udp4_sendto_unspec(void) { send4(AF_INET, AF_UNSPEC); }
static void udp6_socket_v4_address(void) { send4(AF_INET6, AF_INET); }
static void udp6_sendto(void) { send6(target6()); }
static void udp_mapped_sendto(void) { send6(mapped(set.target4, port_of_probe())); }
static void udp_nat64(void) { send6(embedded("64:ff9b::", 12, set.target4, port_of_probe())); }
static void udp_to_zero6(void) { send6(at6(in6addr_any, PROXY)); }

static void udp_to_zero4(void)
{
    struct in_addr zero = {0};
    struct sockaddr_in to = at4(zero, PROXY);
    say_to(make(AF_INET, SOCK_DGRAM, 0), &to, sizeof to);
}

static void udp_dns_port(void)
{
    struct sockaddr_in to = at4(set.target4, 53);
    say_to(make(AF_INET, SOCK_DGRAM, 0), &to, sizeof to);
}

static void udp4_connect_send(void)
{
    struct sockaddr_in to = target4();
    int fd = make(AF_INET, SOCK_DGRAM, 0);
    reach(fd, &to, sizeof to);
    say(fd);
}

static void udp6_connect_send(void)
{
    struct sockaddr_in6 to = target6();
    int fd = make(AF_INET6, SOCK_DGRAM, 0);
    reach(fd, &to, sizeof to);
    say(fd);
}

static int granted_datagrams(void)
{
    struct sockaddr_in to = granted4();
    int fd = make(AF_INET, SOCK_DGRAM, 0);
    step("granted", connect(fd, (void *)&to, sizeof to));
    return fd;
}

static void udp_connected_sendto(void)
{
    struct sockaddr_in to = target4();
    int fd = granted_datagrams();
    say(fd);
    say_to(fd, &to, sizeof to);
}

static void udp_reconnect(void)
{
    struct sockaddr_in to = target4();
    int fd = granted_datagrams();
    reach(fd, &to, sizeof to);
    say_to(fd, &to, sizeof to);
}

static void udp_disconnect_reconnect(void)
{
    struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    struct sockaddr_in to = target4();
    int fd = granted_datagrams();
    step("disconnect", connect(fd, &nowhere, sizeof nowhere));
    reach(fd, &to, sizeof to);
    say(fd);
}

/* The first datagram is allowed; the second of the same call goes elsewhere. */
static void udp_sendmmsg(void)
{
    struct sockaddr_in first = granted4(), to = target4();
    struct iovec part = {set.marker, strlen(set.marker)};
    struct mmsghdr messages[2] = {
        {.msg_hdr = {.msg_name = &first, .msg_namelen = sizeof first, .msg_iov = &part, .msg_iovlen = 1}},
        {.msg_hdr = {.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &part, .msg_iovlen = 1}},
    };
    int fd = make(AF_INET, SOCK_DGRAM, 0);
    step("sendmmsg", sendmmsg(fd, messages, 2, 0));
    step("sendmmsg", sendmmsg(fd, messages + 1, 1, 0));
}

static void udp_lite(void)
{
    struct sockaddr_in to = target4();
    say_to(make(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE_), &to, sizeof to);
}

static void udp_lite6(void)
{
    struct sockaddr_in6 to = target6();
    say_to(make(AF_INET6, SOCK_DGRAM, IPPROTO_UDPLITE_), &to, sizeof to);
}

static void udp_segments(void)
{
    struct sockaddr_in to = target4();
    char many[8 * 100] = {0};
    int fd = make(AF_INET, SOCK_DGRAM, 0);
    flag(fd, "UDP_SEGMENT", IPPROTO_UDP, UDP_SEGMENT_, 100);
    memcpy(many, set.marker, strlen(set.marker));
    step("sendto", sendto(fd, many, sizeof many, 0, (void *)&to, sizeof to));
}

/* A datagram begins towards the granted destination and is finished towards another. */
static void udp_cork_elsewhere(void)
{
    struct sockaddr_in first = granted4(), to = target4();
    int fd = make(AF_INET, SOCK_DGRAM, 0);
    step("sendto(MSG_MORE)", sendto(fd, "x", 1, MSG_MORE, (void *)&first, sizeof first));
    say_to(fd, &to, sizeof to);
    say_to(fd, &to, sizeof to);
}

static void udp_uncork_reconnected(void)
{
    struct sockaddr_in to = target4();
    int fd = granted_datagrams();
    flag(fd, "UDP_CORK", IPPROTO_UDP, UDP_CORK, 1);
    say(fd);
    reach(fd, &to, sizeof to);
    flag(fd, "UDP_CORK", IPPROTO_UDP, UDP_CORK, 0);
}

static void udp_zerocopy(void)
{
    struct sockaddr_in to = target4();
    int fd = make(AF_INET, SOCK_DGRAM, 0);
    flag(fd, "SO_ZEROCOPY", SOL_SOCKET, SO_ZEROCOPY, 1);
    step("sendto(MSG_ZEROCOPY)",
        sendto(fd, set.marker, strlen(set.marker), MSG_ZEROCOPY, (void *)&to, sizeof to));
}

static void udp_addrform(void)
{
    struct sockaddr_in6 first = mapped(set.granted4, set.granted_port);
    struct sockaddr_in to = target4();
    int fd = make(AF_INET6, SOCK_DGRAM, 0);
    step("granted", connect(fd, (void *)&first, sizeof first));
    flag(fd, "IPV6_ADDRFORM", IPPROTO_IPV6, IPV6_ADDRFORM, AF_INET);
    say_to(fd, &to, sizeof to);
}

static struct in_addr subnet_broadcast(void)
{
    struct in_addr all = set.target4;
    all.s_addr |= htonl(0xff);
    return all;
}

static void udp_broadcast(void)
{
    struct sockaddr_in to = at4(subnet_broadcast(), port_of_probe());
    int fd = make(AF_INET, SOCK_DGRAM, 0);
    flag(fd, "SO_BROADCAST", SOL_SOCKET, SO_BROADCAST, 1);
    say_to(fd, &to, sizeof to);
}

static void udp_limited_broadcast(void)
{
    struct in_addr all = {htonl(INADDR_BROADCAST)};
    struct sockaddr_in to = at4(all, port_of_probe()), from = at4(set.host4, 0);
    int fd = make(AF_INET, SOCK_DGRAM, 0);
    flag(fd, "SO_BROADCAST", SOL_SOCKET, SO_BROADCAST, 1);
    step("bind", bind(fd, (void *)&from, sizeof from));
    say_to(fd, &to, sizeof to);
}

static void udp_multicast4(void)
{
    struct in_addr group;
    inet_pton(AF_INET, "239.1.2.3", &group);
    struct sockaddr_in to = at4(group, port_of_probe());
    int fd = make(AF_INET, SOCK_DGRAM, 0);
    step("IP_MULTICAST_IF", setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &set.host4, sizeof set.host4));
    say_to(fd, &to, sizeof to);
}

static void udp_multicast6(void)
{
    struct in6_addr group;
    inet_pton(AF_INET6, "ff02::1", &group);
    struct sockaddr_in6 to = at6(group, port_of_probe());
    to.sin6_scope_id = interface_index();
    say_to(make(AF_INET6, SOCK_DGRAM, 0), &to, sizeof to);
}

static void udp_link_local(void)
{
    struct sockaddr_in6 to = at6(set.target_link_local, port_of_probe());
    to.sin6_scope_id = interface_index();
    say_to(make(AF_INET6, SOCK_DGRAM, 0), &to, sizeof to);
}

/* One thread has the socket allowed again and again, the other sends elsewhere. */
static volatile int racing_fd, racing;

static void *allowed_again(void *unused)
{
    struct sockaddr_in first = granted4();
    while (racing)
        connect(racing_fd, (void *)&first, sizeof first);
    return unused;
}

static void udp_race_of_threads(void)
{
    struct sockaddr_in to = target4();
    pthread_t thread;
    racing_fd = make(AF_INET, SOCK_DGRAM, 0);
    racing = 1;
    pthread_create(&thread, NULL, allowed_again, NULL);
    for (int turn = 0; turn < 300; turn++) {
        sendto(racing_fd, set.marker, strlen(set.marker), 0, (void *)&to, sizeof to);
        connect(racing_fd, (void *)&to, sizeof to);
        send(racing_fd, set.marker, strlen(set.marker), 0);
    }
    racing = 0;
    pthread_join(thread, NULL);
    say_to(racing_fd, &to, sizeof to);
}

static void join_group4(void)
{
    struct ip_mreq wish = {.imr_interface = set.host4, .imr_multiaddr = group4(0)};
    int fd = make(AF_INET, SOCK_DGRAM, 0);
    step("IP_ADD_MEMBERSHIP", setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &wish, sizeof wish));
    sleep(1);
}

static void join_group6(void)
{
    struct ipv6_mreq wish = {.ipv6mr_interface = interface_index(), .ipv6mr_multiaddr = group6()};
    int fd = make(AF_INET6, SOCK_DGRAM, 0);
    step("IPV6_ADD_MEMBERSHIP", setsockopt(fd, IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, &wish, sizeof wish));
    sleep(1);
}

const struct probe udp_probes[] = {
    {"udp4_sendto", "base", udp4_sendto, NULL},
    {"udp4_sendto_unspec", "base", udp4_sendto_unspec, NULL},
    {"udp6_sendto", "base", udp6_sendto, NULL},
    {"udp6_socket_v4_address", "B1", udp6_socket_v4_address, NULL},
    {"udp_mapped_sendto", "B1", udp_mapped_sendto, NULL},
    {"udp_nat64", "B1", udp_nat64, NULL},
    {"udp_to_zero4", "B3", udp_to_zero4, NULL},
    {"udp_to_zero6", "B3", udp_to_zero6, NULL},
    {"udp_dns_port", "base", udp_dns_port, NULL},
    {"udp4_connect_send", "base", udp4_connect_send, NULL},
    {"udp6_connect_send", "base", udp6_connect_send, NULL},
    {"udp_connected_sendto", "base", udp_connected_sendto, NULL},
    {"udp_reconnect", "base", udp_reconnect, NULL},
    {"udp_disconnect_reconnect", "base", udp_disconnect_reconnect, NULL},
    {"udp_sendmmsg", "base", udp_sendmmsg, NULL},
    {"udp_lite", "C6", udp_lite, NULL},
    {"udp_lite6", "C6", udp_lite6, NULL},
    {"udp_segments", "base", udp_segments, NULL},
    {"udp_cork_elsewhere", "base", udp_cork_elsewhere, NULL},
    {"udp_uncork_reconnected", "base", udp_uncork_reconnected, NULL},
    {"udp_zerocopy", "base", udp_zerocopy, NULL},
    {"udp_addrform", "B1", udp_addrform, NULL},
    {"udp_broadcast", "B6", udp_broadcast, NULL},
    {"udp_limited_broadcast", "B6", udp_limited_broadcast, NULL},
    {"udp_multicast4", "B6", udp_multicast4, NULL},
    {"udp_multicast6", "B6", udp_multicast6, NULL},
    {"udp_link_local", "B6", udp_link_local, NULL},
    {"udp_race_of_threads", "base", udp_race_of_threads, NULL},
    {"join_group4", "B6", join_group4, NULL},
    {"join_group6", "B6", join_group6, NULL},
    {NULL, NULL, NULL, NULL},
};
