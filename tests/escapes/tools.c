/* What the probes share. */
#include "escapes.h"

#include <sys/time.h>

static char notes[512];

/* Notes one step; gives its result back. */
long step(const char *what, long result)
{
    int error = errno;
    size_t used = strlen(notes);
    const char *name = result < 0 ? strerrorname_np(error) : "ok";
    snprintf(notes + used, sizeof notes - used, "%s%s=%s", used ? " " : "", what, name ? name : "?");
    errno = error;
    return result;
}

/* Notes a failure whose number did not come by errno. */
void fault(const char *what, int error)
{
    errno = error;
    step(what, -1);
}

void notes_take(char *buffer, size_t size)
{
    snprintf(buffer, size, "%s", notes);
}

/* A socket whose calls give up after a while. */
int make(int family, int type, int protocol)
{
    int fd = (int)step("socket", socket(family, type, protocol));
    struct timeval patience = {.tv_sec = 0, .tv_usec = 700000};
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    }
    return fd;
}

int reach(int fd, const void *address, socklen_t length)
{
    return (int)step("connect", connect(fd, address, length));
}

int say_to(int fd, const void *address, socklen_t length)
{
    return (int)step("sendto", sendto(fd, set.marker, strlen(set.marker), MSG_NOSIGNAL, address, length));
}

int say(int fd)
{
    return (int)step("send", send(fd, set.marker, strlen(set.marker), MSG_NOSIGNAL));
}

int flag(int fd, const char *what, int level, int option, int value)
{
    return (int)step(what, setsockopt(fd, level, option, &value, sizeof value));
}

struct sockaddr_in at4(struct in_addr address, int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = address};
    return to;
}

struct sockaddr_in6 at6(struct in6_addr address, int port)
{
    struct sockaddr_in6 to = {
        .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port), .sin6_addr = address};
    return to;
}

int port_of_probe(void)
{
    return BASE + set.number;
}

struct sockaddr_in target4(void) { return at4(set.target4, port_of_probe()); }
struct sockaddr_in6 target6(void) { return at6(set.target6, port_of_probe()); }
struct sockaddr_in granted4(void) { return at4(set.granted4, set.granted_port); }
struct sockaddr_in6 granted6(void) { return at6(set.granted6, set.granted_port); }

/* The v4 address `address` inside the v6 prefix, at byte `at`. */
struct sockaddr_in6 embedded(const char *prefix, int at, struct in_addr address, int port)
{
    struct in6_addr v6;
    inet_pton(AF_INET6, prefix, &v6);
    memcpy(&v6.s6_addr[at], &address, 4);
    return at6(v6, port);
}

struct sockaddr_in6 mapped(struct in_addr address, int port)
{
    return embedded("::ffff:0.0.0.0", 12, address, port);
}

/* The usual end of a TCP probe. */
void tcp_to(int fd, const void *address, socklen_t length)
{
    if (fd < 0)
        return;
    reach(fd, address, length);
    say(fd);
}

struct in_addr group4(int by32)
{
    struct in_addr group;
    group.s_addr = htonl(0xef677200u | (uint32_t)((by32 ? 128 : 0) | (run_name()[0] & 127)));
    return group;
}

struct in6_addr group6(void)
{
    struct in6_addr group;
    inet_pton(AF_INET6, "ff05::6772:616e:7400", &group);
    group.s6_addr[15] = (uint8_t)run_name()[0];
    return group;
}

/* if_nametoindex() asks by a socket; this asks no one. */
unsigned int interface_index(void)
{
    unsigned int index, found = 0;
    char name[32];
    FILE *file = fopen("/proc/self/net/dev_mcast", "r");
    while (file && fscanf(file, "%u %31s %*[^\n]", &index, name) == 2)
        if (strcmp(name, set.interface) == 0)
            found = index;
    if (file)
        fclose(file);
    return found;
}

int send_fd(int over, int fd)
{
    char byte = 'x', control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    return (int)sendmsg(over, &message, MSG_NOSIGNAL);
}

int receive_fd(int over)
{
    int fd = -1;
    char byte, control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (step("recvmsg", recvmsg(over, &message, 0)) < 0)
        return -1;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header && header->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(header), sizeof fd);
    step("descriptor", fd);
    return fd;
}

int enter_cgroup(const char *directory)
{
    char path[512];
    snprintf(path, sizeof path, "%s/cgroup.procs", directory);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int done = write(fd, "0", 1) == 1 ? 0 : -1;
    close(fd);
    return done;
}
