/* Being called from outside, and answering. */
#include "escapes.h"

static void answer(int fd)
{
    int called = (int)step("accept", accept(fd, NULL, NULL));
    if (called >= 0)
        say(called);
}

static void bound_and_listening(const void *here, socklen_t length)
{
    int fd = make(*(const sa_family_t *)here, SOCK_STREAM, 0);
    flag(fd, "SO_REUSEADDR", SOL_SOCKET, SO_REUSEADDR, 1);
    step("bind", bind(fd, here, length));
    step("listen", listen(fd, 8));
    answer(fd);
}

static void listen_loopback4(void)
{
    struct in_addr loopback = {htonl(INADDR_LOOPBACK)};
    struct sockaddr_in here = at4(loopback, CALLED);
    bound_and_listening(&here, sizeof here);
}

static void listen_any4(void)
{
    struct in_addr any = {0};
    struct sockaddr_in here = at4(any, CALLED);
    bound_and_listening(&here, sizeof here);
}

static void listen_wide4(void)
{
    struct sockaddr_in here = at4(set.host4, CALLED);
    bound_and_listening(&here, sizeof here);
}

static void listen_any6(void)
{
    struct sockaddr_in6 here = at6(in6addr_any, CALLED);
    bound_and_listening(&here, sizeof here);
}

static void listen_without_bind(void)
{
    struct sockaddr_in here;
    socklen_t length = sizeof here;
    int fd = make(AF_INET, SOCK_STREAM, 0);
    step("listen", listen(fd, 8));
    if (getsockname(fd, (void *)&here, &length) == 0)
        others->call_port = ntohs(here.sin_port);
    answer(fd);
    others->call_port = 0;
}

static int asked(void)
{
    struct in_addr any = {0};
    struct sockaddr_in here = at4(any, ASKED);
    int fd = make(AF_INET, SOCK_DGRAM, 0);
    step("bind", bind(fd, (void *)&here, sizeof here));
    return fd;
}

static void answer_datagram(void)
{
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    char byte;
    int fd = asked();
    if (step("recvfrom", recvfrom(fd, &byte, 1, 0, (void *)&from, &length)) > 0)
        say_to(fd, &from, length);
}

static void answer_datagram_connected(void)
{
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    char byte;
    int fd = asked();
    if (step("recvfrom", recvfrom(fd, &byte, 1, MSG_PEEK, (void *)&from, &length)) > 0) {
        reach(fd, &from, length);
        say(fd);
    }
}

/* Standing in for an outsider's listener at the same port. */
static void share_outsiders_port(void)
{
    struct in_addr loopback = {htonl(INADDR_LOOPBACK)};
    struct sockaddr_in here = at4(loopback, CALLED);
    int fd = make(AF_INET, SOCK_STREAM, 0);
    flag(fd, "SO_REUSEPORT", SOL_SOCKET, SO_REUSEPORT, 1);
    step("bind", bind(fd, (void *)&here, sizeof here));
    step("listen", listen(fd, 8));
    answer(fd);
}

const struct probe inbound_probes[] = {
    {"listen_loopback4", "B9", listen_loopback4, NULL},
    {"listen_any4", "B9", listen_any4, NULL},
    {"listen_wide4", "B9", listen_wide4, NULL},
    {"listen_any6", "B9", listen_any6, NULL},
    {"listen_without_bind", "B9", listen_without_bind, NULL},
    {"answer_datagram", "B9", answer_datagram, NULL},
    {"answer_datagram_connected", "B9", answer_datagram_connected, NULL},
    {"share_outsiders_port", "B9", share_outsiders_port, NULL},
    {NULL, NULL, NULL, NULL},
};
