/* Others on the same machine who would send for the box. */
#include "escapes.h"

#include <linux/netlink.h>
#include <linux/vm_sockets.h>

static void through_path(int type, const char *name)
{
    struct sockaddr_un address;
    socklen_t length = (socklen_t)path_address(&address, name);
    tcp_to(make(AF_UNIX, type, 0), &address, length);
}

static void unix_stream_path(void) { through_path(SOCK_STREAM, "proxy"); }
static void unix_packets_path(void) { through_path(SOCK_SEQPACKET, "packets"); }

/* Names in the file system can be reached by another name. */
static void unix_stream_symlink(void)
{
    struct sockaddr_un address;
    char from[128], to[128];
    snprintf(from, sizeof from, "%s/proxy", set.directory);
    snprintf(to, sizeof to, "%s/link-%d", set.directory, getpid());
    step("symlink", symlink(from, to));
    snprintf(from, sizeof from, "link-%d", getpid());
    socklen_t length = (socklen_t)path_address(&address, from);
    tcp_to(make(AF_UNIX, SOCK_STREAM, 0), &address, length);
    unlink(to);
}

static void unix_stream_abstract(void)
{
    struct sockaddr_un address;
    socklen_t length = (socklen_t)abstract_address(&address, "proxy");
    tcp_to(make(AF_UNIX, SOCK_STREAM, 0), &address, length);
}

static void unix_datagram_sendto(void)
{
    struct sockaddr_un address;
    socklen_t length = (socklen_t)abstract_address(&address, "datagrams");
    say_to(make(AF_UNIX, SOCK_DGRAM, 0), &address, length);
}

static void unix_datagram_connect(void)
{
    struct sockaddr_un address;
    socklen_t length = (socklen_t)abstract_address(&address, "datagrams");
    tcp_to(make(AF_UNIX, SOCK_DGRAM, 0), &address, length);
}

static void loopback_proxy4(void)
{
    struct in_addr loopback = {htonl(INADDR_LOOPBACK)};
    struct sockaddr_in to = at4(loopback, PROXY);
    tcp_to(make(AF_INET, SOCK_STREAM, 0), &to, sizeof to);
}

/* Every address of 127.0.0.0/8, and the host's own, ends at the same listener if it is bound to all. */
static void own_address(void)
{
    struct sockaddr_in to = at4(set.host4, PROXY);
    say_to(make(AF_INET, SOCK_DGRAM, 0), &to, sizeof to);
    tcp_to(make(AF_INET, SOCK_STREAM, 0), &to, sizeof to);
}

static void loopback_proxy6(void)
{
    struct sockaddr_in6 to = at6(in6addr_loopback, PROXY);
    tcp_to(make(AF_INET6, SOCK_STREAM, 0), &to, sizeof to);
}

static void loopback_mapped(void)
{
    struct in_addr loopback = {htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 to = mapped(loopback, PROXY);
    tcp_to(make(AF_INET6, SOCK_STREAM, 0), &to, sizeof to);
}

static void loopback_datagrams4(void)
{
    struct in_addr loopback = {htonl(INADDR_LOOPBACK)};
    struct sockaddr_in to = at4(loopback, PROXY);
    say_to(make(AF_INET, SOCK_DGRAM, 0), &to, sizeof to);
}

static void loopback_datagrams6(void)
{
    struct sockaddr_in6 to = at6(in6addr_loopback, PROXY);
    say_to(make(AF_INET6, SOCK_DGRAM, 0), &to, sizeof to);
}

static void netlink_user(void)
{
    struct sockaddr_nl to = {.nl_family = AF_NETLINK, .nl_pid = (uint32_t)others->netlink};
    say_to(make(AF_NETLINK, SOCK_RAW, NETLINK_USERSOCK), &to, sizeof to);
}

static void vsock_loopback(void)
{
    struct sockaddr_vm to = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_LOCAL, .svm_port = PROXY};
    int fd = make(AF_VSOCK, SOCK_STREAM, 0);
    /* Otherwise it would go to the hypervisor, which is not ours to talk to. */
    if (others->vsock)
        tcp_to(fd, &to, sizeof to);
    else
        fault("vsock on this machine", ENODEV);
}

const struct probe local_probes[] = {
    {"unix_stream_path", "D1", unix_stream_path, NULL},
    {"unix_packets_path", "D3", unix_packets_path, NULL},
    {"unix_stream_symlink", "D1", unix_stream_symlink, NULL},
    {"unix_stream_abstract", "D3", unix_stream_abstract, NULL},
    {"unix_datagram_sendto", "D3", unix_datagram_sendto, NULL},
    {"unix_datagram_connect", "D3", unix_datagram_connect, NULL},
    {"loopback_proxy4", "D6", loopback_proxy4, NULL},
    {"own_address", "D6", own_address, NULL},
    {"loopback_proxy6", "D6", loopback_proxy6, NULL},
    {"loopback_mapped", "D6", loopback_mapped, NULL},
    {"loopback_datagrams4", "D6", loopback_datagrams4, NULL},
    {"loopback_datagrams6", "D6", loopback_datagrams6, NULL},
    {"netlink_user", "C6", netlink_user, NULL},
    {"vsock_loopback", "C5", vsock_loopback, NULL},
    {NULL, NULL, NULL, NULL},
};
