/* Address families beside the Internet's. A family that has a way to the target is tried by it; all of them
 * are tried with the target's address, in every type. */
#include "escapes.h"

#define AF_SMC_ 43
#define AF_RDS_ 21
#define AF_RXRPC_ 33
#define AF_PPPOX_ 24

static void smc(void)
{
    struct sockaddr_in to = target4();
    tcp_to(make(AF_SMC_, SOCK_STREAM, 0), &to, sizeof to);
}

static void smc6(void)
{
    struct sockaddr_in6 to = target6();
    tcp_to(make(AF_SMC_, SOCK_STREAM, 1), &to, sizeof to);
}

/* Binds to an own address first, as this family wants it. */
static void rds(void)
{
    struct sockaddr_in from = at4(set.host4, 18001), to = target4();
    int fd = make(AF_RDS_, SOCK_SEQPACKET, 0);
    if (fd < 0)
        return;
    step("bind", bind(fd, (void *)&from, sizeof from));
    say_to(fd, &to, sizeof to);
}

struct rxrpc_address { /* struct sockaddr_rxrpc */
    sa_family_t family;
    uint16_t service, transport_type, transport_length;
    struct sockaddr_in transport;
    char rest[12];
};

static void rxrpc(void)
{
    struct rxrpc_address to = {.family = AF_RXRPC_, .service = 1, .transport_type = SOCK_DGRAM,
        .transport_length = sizeof(struct sockaddr_in), .transport = target4()};
    unsigned long call = 1;
    char control[CMSG_SPACE(sizeof call)] = {0};
    struct iovec part = {set.marker, strlen(set.marker)};
    struct msghdr message = {.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &part, .msg_iovlen = 1,
        .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = 272;
    header->cmsg_type = 1;
    header->cmsg_len = CMSG_LEN(sizeof call);
    memcpy(CMSG_DATA(header), &call, sizeof call);
    int fd = make(AF_RXRPC_, SOCK_DGRAM, AF_INET);
    if (fd >= 0)
        step("sendmsg", sendmsg(fd, &message, 0));
}

/* PPP over Ethernet sends frames to any machine on the link. */
static void pppoe(void)
{
    struct __attribute__((packed)) {
        sa_family_t family;
        unsigned int protocol;
        uint16_t session;
        unsigned char remote[6];
        char device[16];
    } to = {.family = AF_PPPOX_, .protocol = 0, .session = htons(1)};
    memset(to.remote, 0xff, 6);
    snprintf(to.device, sizeof to.device, "%s", set.interface);
    tcp_to(make(AF_PPPOX_, SOCK_STREAM, 0), &to, sizeof to);
}

static void sweep(int family)
{
    struct sockaddr_in6 to = {.sin6_family = (sa_family_t)family};
    struct sockaddr_in inet = target4();
    for (int type = 1; type <= 10; type++) {
        int fd = socket(family, type, 0);
        if (fd < 0)
            continue;
        char what[48];
        snprintf(what, sizeof what, "family %d type %d", family, type);
        step(what, fd);
        fcntl(fd, F_SETFL, O_NONBLOCK);
        connect(fd, (void *)&inet, sizeof inet);
        sendto(fd, set.marker, strlen(set.marker), MSG_NOSIGNAL, (void *)&inet, sizeof inet);
        connect(fd, (void *)&to, sizeof to);
        sendto(fd, set.marker, strlen(set.marker), MSG_NOSIGNAL, (void *)&to, sizeof to);
        close(fd);
    }
}

/* What a kernel of tomorrow brings is met here first. */
static void every_family(void)
{
    for (int family = 3; family < 64; family++)
        /* Vsock would go to the hypervisor, which is not ours to talk to. */
        if (family != AF_INET6 && family != AF_VSOCK)
            sweep(family);
}

/* Every protocol number over v4 and v6, as a datagram and as a stream. */
static void every_protocol(void)
{
    struct sockaddr_in to4 = target4();
    struct sockaddr_in6 to6 = target6();
    for (int protocol = 0; protocol < 300; protocol++)
        /* IPPROTO_RAW would take the marker for a header; raw_header4 has a whole one. */
        for (int type = 1; type <= 6 && protocol != IPPROTO_RAW; type++)
            for (int family = AF_INET; family <= AF_INET6; family += AF_INET6 - AF_INET) {
                const void *to = family == AF_INET ? (void *)&to4 : (void *)&to6;
                socklen_t length = family == AF_INET ? sizeof to4 : sizeof to6;
                int fd = socket(family, type, protocol);
                if (fd < 0)
                    continue;
                fcntl(fd, F_SETFL, O_NONBLOCK);
                connect(fd, to, length);
                sendto(fd, set.marker, strlen(set.marker), MSG_NOSIGNAL, to, length);
                close(fd);
            }
}

const struct probe family_probes[] = {
    {"smc", "C6", smc, NULL},
    {"smc6", "C6", smc6, NULL},
    {"rds", "C6", rds, NULL},
    {"rxrpc", "C6", rxrpc, NULL},
    {"pppoe", "C4", pppoe, NULL},
    {"every_family", "C4", every_family, NULL},
    {"every_protocol", "C6", every_protocol, NULL},
    {NULL, NULL, NULL, NULL},
};
