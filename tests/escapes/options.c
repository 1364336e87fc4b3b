/* Options and ancillary data that send a packet elsewhere than its socket says: source routes, marks, devices,
 * sources. Where a route is given, the socket's own destination is the granted one. */
#include "escapes.h"

#include <linux/in6.h>
#include <linux/seg6.h>
#include <sys/uio.h>

#ifndef IP_PKTINFO
#define IP_PKTINFO 8
#endif
#define IPV6_FLOWLABEL_MGR_ 32
#define IPV6_FLOWINFO_SEND_ 33

static char route[64];

/* A segment routing header: first to the target, then to the granted host. */
static socklen_t segments(void)
{
    struct ipv6_sr_hdr *header = (void *)route;
    memset(route, 0, sizeof route);
    header->type = 4;
    header->hdrlen = 4;
    header->segments_left = 1;
    header->first_segment = 1;
    header->segments[0] = set.granted6;
    header->segments[1] = set.target6;
    return 40;
}

/* The older kind, of mobile hosts: one more hop. */
static socklen_t home_route(void)
{
    memset(route, 0, sizeof route);
    route[1] = 2;
    route[2] = 2;
    route[3] = 1;
    memcpy(route + 8, &set.target6, 16);
    return 24;
}

static void sticky6(int type, const char *what, int option, socklen_t length)
{
    struct sockaddr_in6 to = granted6();
    int fd = make(AF_INET6, type, 0);
    step(what, setsockopt(fd, IPPROTO_IPV6, option, route, length));
    if (type == SOCK_STREAM)
        tcp_to(fd, &to, sizeof to);
    else
        say_to(fd, &to, sizeof to);
}

static void rthdr_sticky_udp(void) { sticky6(SOCK_DGRAM, "IPV6_RTHDR", IPV6_RTHDR, segments()); }
static void rthdr_sticky_tcp(void) { sticky6(SOCK_STREAM, "IPV6_RTHDR", IPV6_RTHDR, segments()); }
static void rthdr2_sticky_udp(void) { sticky6(SOCK_DGRAM, "IPV6_RTHDR", IPV6_RTHDR, home_route()); }
static void rthdr_2292_sticky(void) { sticky6(SOCK_DGRAM, "IPV6_2292RTHDR", IPV6_2292RTHDR, segments()); }

static void rthdr_after_connect(void)
{
    struct sockaddr_in6 to = granted6();
    int fd = make(AF_INET6, SOCK_STREAM, 0);
    step("granted", connect(fd, (void *)&to, sizeof to));
    step("IPV6_RTHDR", setsockopt(fd, IPPROTO_IPV6, IPV6_RTHDR, route, segments()));
    say(fd);
}

/* All ancillary data of one kind in one message. */
static void with_ancillary(int fd, const void *to, socklen_t size, int level, int type, const void *value,
    size_t length)
{
    char control[256] = {0};
    struct iovec part = {set.marker, strlen(set.marker)};
    struct msghdr message = {.msg_name = (void *)to, .msg_namelen = size, .msg_iov = &part,
        .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(length)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = level;
    header->cmsg_type = type;
    header->cmsg_len = CMSG_LEN(length);
    memcpy(CMSG_DATA(header), value, length);
    step("sendmsg", sendmsg(fd, &message, MSG_NOSIGNAL));
}

static void ancillary6(int type, socklen_t length)
{
    struct sockaddr_in6 to = granted6();
    with_ancillary(make(AF_INET6, SOCK_DGRAM, 0), &to, sizeof to, IPPROTO_IPV6, type, route, length);
}

static void rthdr_cmsg(void) { ancillary6(IPV6_RTHDR, segments()); }
static void rthdr2_cmsg(void) { ancillary6(IPV6_RTHDR, home_route()); }
static void rthdr_2292_cmsg(void) { ancillary6(IPV6_2292RTHDR, segments()); }

static void rthdr_cmsg_connected(void)
{
    struct sockaddr_in6 to = granted6();
    int fd = make(AF_INET6, SOCK_DGRAM, 0);
    step("granted", connect(fd, (void *)&to, sizeof to));
    with_ancillary(fd, NULL, 0, IPPROTO_IPV6, IPV6_RTHDR, route, segments());
}

/* Options that are set all at once, as the older interface has it. */
static void pktoptions_2292(void)
{
    struct sockaddr_in6 to = granted6();
    char control[128] = {0};
    struct cmsghdr *header = (void *)control;
    socklen_t length = segments();
    header->cmsg_level = IPPROTO_IPV6;
    header->cmsg_type = IPV6_RTHDR;
    header->cmsg_len = CMSG_LEN(length);
    memcpy(CMSG_DATA(header), route, length);
    int fd = make(AF_INET6, SOCK_DGRAM, 0);
    step("IPV6_2292PKTOPTIONS",
        setsockopt(fd, IPPROTO_IPV6, IPV6_2292PKTOPTIONS, control, (socklen_t)CMSG_SPACE(length)));
    say_to(fd, &to, sizeof to);
}

/* A flow label may carry options, which are added to every packet that has it. */
static void flow_label(void)
{
    struct sockaddr_in6 to = granted6();
    char request[sizeof(struct in6_flowlabel_req) + 128] = {0};
    struct in6_flowlabel_req *label = (void *)request;
    struct cmsghdr *header = (void *)(request + CMSG_ALIGN(sizeof *label));
    socklen_t length = segments();
    label->flr_dst = set.granted6;
    label->flr_label = htonl(0x4242);
    label->flr_action = IPV6_FL_A_GET;
    label->flr_flags = IPV6_FL_F_CREATE;
    label->flr_share = IPV6_FL_S_PROCESS;
    header->cmsg_level = IPPROTO_IPV6;
    header->cmsg_type = IPV6_RTHDR;
    header->cmsg_len = CMSG_LEN(length);
    memcpy(CMSG_DATA(header), route, length);
    int fd = make(AF_INET6, SOCK_DGRAM, 0);
    size_t whole = CMSG_ALIGN(sizeof *label) + CMSG_SPACE(length);
    step("IPV6_FLOWLABEL_MGR",
        setsockopt(fd, IPPROTO_IPV6, IPV6_FLOWLABEL_MGR_, request, (socklen_t)whole));
    flag(fd, "IPV6_FLOWINFO_SEND", IPPROTO_IPV6, IPV6_FLOWINFO_SEND_, 1);
    to.sin6_flowinfo = htonl(0x4242);
    say_to(fd, &to, sizeof to);
}

/* Loose (131) or strict (137) source route: first to the target, then on. */
static socklen_t source_route(int kind)
{
    memset(route, 0, sizeof route);
    route[0] = (char)kind;
    route[1] = 11;
    route[2] = 4;
    memcpy(route + 3, &set.target4, 4);
    memcpy(route + 7, &set.granted4, 4);
    return 12;
}

static void sticky4(int type, int kind)
{
    struct sockaddr_in to = granted4();
    int fd = make(AF_INET, type, 0);
    step("IP_OPTIONS", setsockopt(fd, IPPROTO_IP, IP_OPTIONS, route, source_route(kind)));
    if (type == SOCK_STREAM)
        tcp_to(fd, &to, sizeof to);
    else
        say_to(fd, &to, sizeof to);
}

static void lsrr_sticky_udp(void) { sticky4(SOCK_DGRAM, 131); }
static void lsrr_sticky_tcp(void) { sticky4(SOCK_STREAM, 131); }
static void ssrr_sticky_udp(void) { sticky4(SOCK_DGRAM, 137); }

static void ancillary4(int kind)
{
    struct sockaddr_in to = granted4();
    socklen_t length = source_route(kind);
    with_ancillary(make(AF_INET, SOCK_DGRAM, 0), &to, sizeof to, IPPROTO_IP, IP_RETOPTS, route, length);
}

static void lsrr_cmsg(void) { ancillary4(131); }
static void ssrr_cmsg(void) { ancillary4(137); }

const struct probe option_probes[] = {
    {"rthdr_sticky_udp", "B4", rthdr_sticky_udp, NULL},
    {"rthdr_sticky_tcp", "B4", rthdr_sticky_tcp, NULL},
    {"rthdr2_sticky_udp", "B4", rthdr2_sticky_udp, NULL},
    {"rthdr_2292_sticky", "B4", rthdr_2292_sticky, NULL},
    {"rthdr_after_connect", "B4", rthdr_after_connect, NULL},
    {"rthdr_cmsg", "B4", rthdr_cmsg, NULL},
    {"rthdr2_cmsg", "B4", rthdr2_cmsg, NULL},
    {"rthdr_2292_cmsg", "B4", rthdr_2292_cmsg, NULL},
    {"rthdr_cmsg_connected", "B4", rthdr_cmsg_connected, NULL},
    {"pktoptions_2292", "B4", pktoptions_2292, NULL},
    {"flow_label", "B4", flow_label, NULL},
    {"lsrr_sticky_udp", "B5", lsrr_sticky_udp, NULL},
    {"lsrr_sticky_tcp", "B5", lsrr_sticky_tcp, NULL},
    {"ssrr_sticky_udp", "B5", ssrr_sticky_udp, NULL},
    {"lsrr_cmsg", "B5", lsrr_cmsg, NULL},
    {"ssrr_cmsg", "B5", ssrr_cmsg, NULL},
    {NULL, NULL, NULL, NULL},
};

/* What else an option can change about a socket that then goes to the target. */
static void with_option(int type, const char *what, int level, int option, const void *value, socklen_t length)
{
    struct sockaddr_in to = target4();
    int fd = make(AF_INET, type, 0);
    step(what, setsockopt(fd, level, option, value, length));
    if (type == SOCK_STREAM)
        tcp_to(fd, &to, sizeof to);
    else
        say_to(fd, &to, sizeof to);
}

static void bind_to_device(void)
{
    with_option(SOCK_STREAM, "SO_BINDTODEVICE", SOL_SOCKET, SO_BINDTODEVICE, set.interface,
        (socklen_t)strlen(set.interface));
}

static void mark(void)
{
    int value = 1;
    with_option(SOCK_STREAM, "SO_MARK", SOL_SOCKET, SO_MARK, &value, sizeof value);
}

static void unicast_interface(void)
{
    uint32_t index = htonl(interface_index());
    with_option(SOCK_DGRAM, "IP_UNICAST_IF", IPPROTO_IP, IP_UNICAST_IF, &index, sizeof index);
}

static void priority(void)
{
    int value = 6;
    with_option(SOCK_DGRAM, "SO_PRIORITY", SOL_SOCKET, SO_PRIORITY, &value, sizeof value);
}

static void transparent_source(void)
{
    int on = 1;
    struct sockaddr_in from = at4(set.granted4, 0), to = target4();
    int fd = make(AF_INET, SOCK_DGRAM, 0);
    step("IP_FREEBIND", setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof on));
    step("IP_TRANSPARENT", setsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &on, sizeof on));
    step("bind", bind(fd, (void *)&from, sizeof from));
    say_to(fd, &to, sizeof to);
}

static void pktinfo4(void)
{
    struct sockaddr_in to = target4();
    struct in_pktinfo source = {.ipi_ifindex = (int)interface_index(), .ipi_spec_dst = set.host4};
    with_ancillary(
        make(AF_INET, SOCK_DGRAM, 0), &to, sizeof to, IPPROTO_IP, IP_PKTINFO, &source, sizeof source);
}

static void pktinfo6(void)
{
    struct sockaddr_in6 to = target6();
    struct in6_pktinfo source = {.ipi6_ifindex = (int)interface_index()};
    with_ancillary(
        make(AF_INET6, SOCK_DGRAM, 0), &to, sizeof to, IPPROTO_IPV6, IPV6_PKTINFO, &source, sizeof source);
}

static void udp_encapsulated(void)
{
    int kind = 2;
    with_option(SOCK_DGRAM, "UDP_ENCAP", IPPROTO_UDP, 100, &kind, sizeof kind);
}

const struct probe source_probes[] = {
    {"bind_to_device", "B6", bind_to_device, NULL},
    {"mark", "C10", mark, NULL},
    {"unicast_interface", "B6", unicast_interface, NULL},
    {"priority", "C10", priority, NULL},
    {"transparent_source", "B5", transparent_source, NULL},
    {"pktinfo4", "B5", pktinfo4, NULL},
    {"pktinfo6", "B5", pktinfo6, NULL},
    {"udp_encapsulated", "C6", udp_encapsulated, NULL},
    {NULL, NULL, NULL, NULL},
};
