/* TCP, by every way of naming an address. */
#include "escapes.h"

#include <netinet/tcp.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif
#define IPPROTO_SMC_ 256
#define TCP_FASTOPEN_CONNECT_ 30

static void tcp4_connect(void)
{
    struct sockaddr_in to = target4();
    tcp_to(make(AF_INET, SOCK_STREAM, 0), &to, sizeof to);
}

static void tcp6_connect(void)
{
    struct sockaddr_in6 to = target6();
    tcp_to(make(AF_INET6, SOCK_STREAM, 0), &to, sizeof to);
}

static void through6(struct sockaddr_in6 to)
{
    tcp_to(make(AF_INET6, SOCK_STREAM, 0), &to, sizeof to);
}

static void tcp_mapped(void)
{
    through6(mapped(set.target4, port_of_probe()));
}

/* The same address in the other prefixes that hold a v4 address; the run routes them to the target. */
static void tcp_v4_compatible(void)
{
    through6(embedded("::", 12, set.target4, port_of_probe()));
}

static void tcp_nat64(void)
{
    through6(embedded("64:ff9b::", 12, set.target4, port_of_probe()));
}

static void tcp_6to4(void)
{
    through6(embedded("2002::1", 2, set.target4, port_of_probe()));
}

static void tcp_teredo(void)
{
    through6(embedded("2001::", 12, set.target4, port_of_probe()));
}

static void tcp_translated(void)
{
    through6(embedded("::ffff:0:0:0", 12, set.target4, port_of_probe()));
}

static void tcp_link_local(void)
{
    struct sockaddr_in6 to = at6(set.target_link_local, port_of_probe());
    to.sin6_scope_id = interface_index();
    tcp_to(make(AF_INET6, SOCK_STREAM, 0), &to, sizeof to);
}

/* The unspecified address means loopback, where the accomplice's proxy is. */
static void tcp_to_zero4(void)
{
    struct in_addr zero = {0};
    struct sockaddr_in to = at4(zero, PROXY);
    tcp_to(make(AF_INET, SOCK_STREAM, 0), &to, sizeof to);
}

static void tcp_to_zero6(void)
{
    through6(at6(in6addr_any, PROXY));
}

static void tcp_to_mapped_zero(void)
{
    struct in_addr zero = {0};
    through6(mapped(zero, PROXY));
}

static void tcp_fastopen_sendto(void)
{
    struct sockaddr_in to = target4();
    int fd = make(AF_INET, SOCK_STREAM, 0);
    step("sendto(MSG_FASTOPEN)",
        sendto(fd, set.marker, strlen(set.marker), MSG_FASTOPEN | MSG_NOSIGNAL, (void *)&to, sizeof to));
}

static void tcp_fastopen_connect(void)
{
    struct sockaddr_in to = target4();
    int fd = make(AF_INET, SOCK_STREAM, 0);
    flag(fd, "TCP_FASTOPEN_CONNECT", IPPROTO_TCP, TCP_FASTOPEN_CONNECT_, 1);
    tcp_to(fd, &to, sizeof to);
}

static void tcp_fastopen6_sendto(void)
{
    struct sockaddr_in6 to = mapped(set.target4, port_of_probe());
    int fd = make(AF_INET6, SOCK_STREAM, 0);
    step("sendto(MSG_FASTOPEN)",
        sendto(fd, set.marker, strlen(set.marker), MSG_FASTOPEN | MSG_NOSIGNAL, (void *)&to, sizeof to));
}

static void mptcp_connect(void)
{
    struct sockaddr_in to = target4();
    tcp_to(make(AF_INET, SOCK_STREAM, IPPROTO_MPTCP), &to, sizeof to);
}

static void mptcp6_connect(void)
{
    struct sockaddr_in6 to = target6();
    tcp_to(make(AF_INET6, SOCK_STREAM, IPPROTO_MPTCP), &to, sizeof to);
}

static void smc_by_protocol(void)
{
    struct sockaddr_in to = target4();
    tcp_to(make(AF_INET, SOCK_STREAM, IPPROTO_SMC_), &to, sizeof to);
}

static int granted_stream(void)
{
    struct sockaddr_in to = granted4();
    int fd = make(AF_INET, SOCK_STREAM, 0);
    step("granted", connect(fd, (void *)&to, sizeof to));
    return fd;
}

static void disconnect(int fd)
{
    struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    step("disconnect", connect(fd, &nowhere, sizeof nowhere));
}

/* A socket that was allowed once is turned elsewhere. */
static void tcp_disconnect_reconnect(void)
{
    struct sockaddr_in to = target4();
    int fd = granted_stream();
    disconnect(fd);
    tcp_to(fd, &to, sizeof to);
}

static void tcp_reconnect_while_connecting(void)
{
    struct sockaddr_in first = granted4(), to = target4();
    int fd = make(AF_INET, SOCK_STREAM, 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    step("granted", connect(fd, (void *)&first, sizeof first));
    disconnect(fd);
    reach(fd, &to, sizeof to);
    usleep(50000);
    say(fd);
}

static void tcp_tls_then_reconnect(void)
{
    struct sockaddr_in to = target4();
    int fd = granted_stream();
    step("TCP_ULP", setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", 3));
    disconnect(fd);
    tcp_to(fd, &to, sizeof to);
}

/* A v6 socket becomes a v4 one. */
static void tcp_addrform_reconnect(void)
{
    struct sockaddr_in6 first = mapped(set.granted4, set.granted_port);
    struct sockaddr_in to = target4();
    int fd = make(AF_INET6, SOCK_STREAM, 0);
    step("granted", connect(fd, (void *)&first, sizeof first));
    flag(fd, "IPV6_ADDRFORM", IPPROTO_IPV6, IPV6_ADDRFORM, AF_INET);
    disconnect(fd);
    tcp_to(fd, &to, sizeof to);
}

static void tcp_from_other_source(void)
{
    struct sockaddr_in from = at4(set.host4, 0), to = target4();
    int fd = make(AF_INET, SOCK_STREAM, 0);
    step("bind", bind(fd, (void *)&from, sizeof from));
    tcp_to(fd, &to, sizeof to);
}

static void tcp_listener_connects(void)
{
    struct sockaddr_in to = target4();
    int fd = make(AF_INET, SOCK_STREAM, 0);
    step("listen", listen(fd, 1));
    disconnect(fd);
    tcp_to(fd, &to, sizeof to);
}

static void tcp_shared_port(void)
{
    struct in_addr any = {0};
    struct sockaddr_in from = at4(any, 18000), to = target4(), first = granted4();
    int one = make(AF_INET, SOCK_STREAM, 0), two = make(AF_INET, SOCK_STREAM, 0);
    for (int fd = one; fd <= two; fd += two - one) {
        flag(fd, "SO_REUSEADDR", SOL_SOCKET, SO_REUSEADDR, 1);
        flag(fd, "SO_REUSEPORT", SOL_SOCKET, SO_REUSEPORT, 1);
        step("bind", bind(fd, (void *)&from, sizeof from));
    }
    step("granted", connect(one, (void *)&first, sizeof first));
    tcp_to(two, &to, sizeof to);
}

static void tcp_zerocopy(void)
{
    struct sockaddr_in to = target4();
    int fd = make(AF_INET, SOCK_STREAM, 0);
    flag(fd, "SO_ZEROCOPY", SOL_SOCKET, SO_ZEROCOPY, 1);
    reach(fd, &to, sizeof to);
    step("send(MSG_ZEROCOPY)", send(fd, set.marker, strlen(set.marker), MSG_ZEROCOPY | MSG_NOSIGNAL));
}

static void tcp_deferred_connect_sendmsg(void)
{
    struct sockaddr_in to = target4();
    int fd = make(AF_INET, SOCK_STREAM, 0);
    struct iovec part = {set.marker, strlen(set.marker)};
    struct msghdr message = {.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &part, .msg_iovlen = 1};
    step("sendmsg(MSG_FASTOPEN)", sendmsg(fd, &message, MSG_FASTOPEN | MSG_NOSIGNAL));
}

const struct probe tcp_probes[] = {
    {"tcp4_connect", "base", tcp4_connect, NULL},
    {"tcp6_connect", "base", tcp6_connect, NULL},
    {"tcp_mapped", "B1", tcp_mapped, NULL},
    {"tcp_v4_compatible", "B1", tcp_v4_compatible, NULL},
    {"tcp_nat64", "B1", tcp_nat64, NULL},
    {"tcp_6to4", "B1", tcp_6to4, NULL},
    {"tcp_teredo", "B1", tcp_teredo, NULL},
    {"tcp_translated", "B1", tcp_translated, NULL},
    {"tcp_link_local", "B6", tcp_link_local, NULL},
    {"tcp_to_zero4", "B3", tcp_to_zero4, NULL},
    {"tcp_to_zero6", "B3", tcp_to_zero6, NULL},
    {"tcp_to_mapped_zero", "B3", tcp_to_mapped_zero, NULL},
    {"tcp_fastopen_sendto", "base", tcp_fastopen_sendto, NULL},
    {"tcp_fastopen_connect", "base", tcp_fastopen_connect, NULL},
    {"tcp_fastopen6_sendto", "B1", tcp_fastopen6_sendto, NULL},
    {"tcp_fastopen_sendmsg", "base", tcp_deferred_connect_sendmsg, NULL},
    {"mptcp_connect", "B7", mptcp_connect, NULL},
    {"mptcp6_connect", "B7", mptcp6_connect, NULL},
    {"smc_by_protocol", "C6", smc_by_protocol, NULL},
    {"tcp_disconnect_reconnect", "base", tcp_disconnect_reconnect, NULL},
    {"tcp_reconnect_while_connecting", "base", tcp_reconnect_while_connecting, NULL},
    {"tcp_tls_then_reconnect", "base", tcp_tls_then_reconnect, NULL},
    {"tcp_addrform_reconnect", "B1", tcp_addrform_reconnect, NULL},
    {"tcp_from_other_source", "base", tcp_from_other_source, NULL},
    {"tcp_listener_connects", "B9", tcp_listener_connects, NULL},
    {"tcp_shared_port", "base", tcp_shared_port, NULL},
    {"tcp_zerocopy", "base", tcp_zerocopy, NULL},
    {NULL, NULL, NULL, NULL},
};
