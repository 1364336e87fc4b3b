/* Sockets that are neither TCP nor UDP: raw, ping, packet, and other transports. */
#include "escapes.h"

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/icmp6.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/ip_icmp.h>
#include <netinet/udp.h>

#define DCCP_ 33
#define SOCK_DCCP_ 6
#define L2TP_ 115

static char bytes[256];

static size_t with_marker(size_t header)
{
    memcpy(bytes + header, set.marker, strlen(set.marker));
    return header + strlen(set.marker);
}

static void send_bytes(int fd, size_t length, const void *to, socklen_t size)
{
    step("sendto", sendto(fd, bytes, length, 0, to, size));
}

static uint16_t checksum(const void *from, size_t length)
{
    const uint8_t *at = from;
    uint32_t sum = 0;
    for (size_t i = 0; i < length; i++)
        sum += (uint32_t)at[i] << (i % 2 ? 0 : 8);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return htons((uint16_t)~sum);
}

static size_t udp_packet(size_t before)
{
    size_t length = with_marker(before + sizeof(struct udphdr));
    struct udphdr *udp = (void *)(bytes + before);
    udp->source = htons(40000);
    udp->dest = htons((uint16_t)port_of_probe());
    udp->len = htons((uint16_t)(length - before));
    return length;
}

static size_t ip_packet(void)
{
    size_t length = udp_packet(sizeof(struct iphdr));
    struct iphdr *ip = (void *)bytes;
    ip->version = 4;
    ip->ihl = 5;
    ip->ttl = 64;
    ip->protocol = IPPROTO_UDP;
    ip->tot_len = htons((uint16_t)length);
    ip->daddr = set.target4.s_addr;
    ip->saddr = set.host4.s_addr;
    ip->check = checksum(ip, sizeof *ip);
    return length;
}

static size_t echo_request(int type)
{
    bytes[0] = (char)type;
    size_t length = with_marker(8);
    uint16_t sum = checksum(bytes, length);
    memcpy(bytes + 2, &sum, 2);
    return length;
}

static void raw_udp4(void)
{
    struct sockaddr_in to = at4(set.target4, 0);
    send_bytes(make(AF_INET, SOCK_RAW, IPPROTO_UDP), udp_packet(0), &to, sizeof to);
}

static void raw_header4(void)
{
    struct sockaddr_in to = at4(set.target4, 0);
    send_bytes(make(AF_INET, SOCK_RAW, IPPROTO_RAW), ip_packet(), &to, sizeof to);
}

static void raw_icmp4(void)
{
    struct sockaddr_in to = at4(set.target4, 0);
    send_bytes(make(AF_INET, SOCK_RAW, IPPROTO_ICMP), echo_request(ICMP_ECHO), &to, sizeof to);
}

static void raw_gre4(void)
{
    struct sockaddr_in to = at4(set.target4, 0);
    send_bytes(make(AF_INET, SOCK_RAW, IPPROTO_GRE), with_marker(4), &to, sizeof to);
}

static void raw_udp6(void)
{
    struct sockaddr_in6 to = at6(set.target6, 0);
    send_bytes(make(AF_INET6, SOCK_RAW, IPPROTO_UDP), udp_packet(0), &to, sizeof to);
}

static void raw_icmp6(void)
{
    struct sockaddr_in6 to = at6(set.target6, 0);
    send_bytes(
        make(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6), echo_request(ICMP6_ECHO_REQUEST), &to, sizeof to);
}

static void raw_header6(void)
{
    struct sockaddr_in6 to = at6(set.target6, 0);
    size_t length = udp_packet(sizeof(struct ip6_hdr));
    struct ip6_hdr *ip = (void *)bytes;
    ip->ip6_flow = htonl(6u << 28);
    ip->ip6_plen = htons((uint16_t)(length - sizeof *ip));
    ip->ip6_nxt = IPPROTO_UDP;
    ip->ip6_hlim = 64;
    ip->ip6_dst = set.target6;
    send_bytes(make(AF_INET6, SOCK_RAW, IPPROTO_RAW), length, &to, sizeof to);
}

static void ping4(void)
{
    struct sockaddr_in to = at4(set.target4, 0);
    send_bytes(make(AF_INET, SOCK_DGRAM, IPPROTO_ICMP), echo_request(ICMP_ECHO), &to, sizeof to);
}

static void ping6(void)
{
    struct sockaddr_in6 to = at6(set.target6, 0);
    send_bytes(
        make(AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6), echo_request(ICMP6_ECHO_REQUEST), &to, sizeof to);
}

static struct sockaddr_ll on_the_wire(int protocol)
{
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_protocol = htons((uint16_t)protocol),
        .sll_ifindex = (int)interface_index(), .sll_halen = 6};
    memset(to.sll_addr, 0xff, 6);
    return to;
}

static void packet_datagram(void)
{
    struct sockaddr_ll to = on_the_wire(ETH_P_IP);
    send_bytes(make(AF_PACKET, SOCK_DGRAM, htons(ETH_P_IP)), ip_packet(), &to, sizeof to);
}

static void packet_raw(void)
{
    struct sockaddr_ll to = on_the_wire(0x88b5);
    memset(bytes, 0xff, 12);
    bytes[12] = (char)0x88;
    bytes[13] = (char)0xb5;
    send_bytes(make(AF_PACKET, SOCK_RAW, htons(0x88b5)), with_marker(14), &to, sizeof to);
}

static void packet_old(void)
{
    struct sockaddr_ll to = on_the_wire(0x88b5);
    memset(bytes, 0xff, 12);
    send_bytes(make(AF_PACKET, SOCK_PACKET, htons(0x88b5)), with_marker(14), &to, sizeof to);
}

static void connected(int type, int protocol)
{
    struct sockaddr_in to = target4();
    tcp_to(make(AF_INET, type, protocol), &to, sizeof to);
}

static void sctp_stream(void) { connected(SOCK_STREAM, IPPROTO_SCTP); }
static void dccp_stream(void) { connected(SOCK_DCCP_, DCCP_); }

static void sctp_packets(void)
{
    struct sockaddr_in to = target4();
    say_to(make(AF_INET, SOCK_SEQPACKET, IPPROTO_SCTP), &to, sizeof to);
}

struct l2tp_address { /* struct sockaddr_l2tpip */
    sa_family_t family;
    uint16_t unused;
    struct in_addr address;
    uint32_t connection;
    char padding[4];
};

static void l2tp_datagram(void)
{
    struct l2tp_address to = {.family = AF_INET, .address = set.target4, .connection = 1};
    say_to(make(AF_INET, SOCK_DGRAM, L2TP_), &to, sizeof to);
}

const struct probe raw_probes[] = {
    {"raw_udp4", "C1", raw_udp4, NULL},
    {"raw_header4", "C1", raw_header4, NULL},
    {"raw_icmp4", "C1", raw_icmp4, NULL},
    {"raw_gre4", "C1", raw_gre4, NULL},
    {"raw_udp6", "C1", raw_udp6, NULL},
    {"raw_icmp6", "C1", raw_icmp6, NULL},
    {"raw_header6", "C1", raw_header6, NULL},
    {"ping4", "C2", ping4, NULL},
    {"ping6", "C2", ping6, NULL},
    {"packet_datagram", "C3", packet_datagram, NULL},
    {"packet_raw", "C3", packet_raw, NULL},
    {"packet_old", "C3", packet_old, NULL},
    {"sctp_stream", "C6", sctp_stream, NULL},
    {"sctp_packets", "C6", sctp_packets, NULL},
    {"dccp_stream", "C6", dccp_stream, NULL},
    {"l2tp_datagram", "C6", l2tp_datagram, NULL},
    {NULL, NULL, NULL, NULL},
};
