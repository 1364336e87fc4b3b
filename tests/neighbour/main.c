/* A process that tries to reach, over loopback, what is not its own, by way of what is: or that is reached.
 *
 * Every report is one line, {"count": N}: the first when it is ready, the last when it is done.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char WORD[] = "neighbour";
static const int ROUNDS = 50;

static void report(long count)
{
    printf("{\"count\": %ld}\n", count);
    fflush(stdout);
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static struct sockaddr_in at(const char *address, int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, address, &to.sin_addr) != 1)
        die(address);
    return to;
}

static void set(int fd, const char *what, int level, int option, int value)
{
    if (setsockopt(fd, level, option, &value, sizeof value) < 0)
        die(what);
}

/* A socket at an address and port, which it shares as `how` says: "addr", "port" or "none". */
static int bound(int type, const char *address, int port, const char *how)
{
    int fd = socket(AF_INET, type, 0);
    struct sockaddr_in own = at(address, port);
    if (fd < 0)
        die("socket");
    if (strcmp(how, "addr") == 0)
        set(fd, "SO_REUSEADDR", SOL_SOCKET, SO_REUSEADDR, 1);
    if (strcmp(how, "port") == 0)
        set(fd, "SO_REUSEPORT", SOL_SOCKET, SO_REUSEPORT, 1);
    if (bind(fd, (void *)&own, sizeof own) < 0)
        die("bind");
    return fd;
}

/* Counts datagrams until its input is closed. */
static void hear(int fd)
{
    struct pollfd both[2] = {{.fd = fd, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
    char buffer[64];
    long count = 0;
    report(0);
    for (;;) {
        /* What has arrived counts before the end is looked at. */
        while (recv(fd, buffer, sizeof buffer, MSG_DONTWAIT) > 0)
            count++;
        if (both[1].revents)
            break;
        poll(both, 2, -1);
    }
    report(count);
}

/* Sends datagrams to an address, each from a socket of its own; the report says how many were taken. */
static void send_all(const char *address, int port, const char *from, int from_port, const char *how)
{
    struct sockaddr_in to = at(address, port);
    long taken = 0;
    for (int round = 0; round < ROUNDS; round++) {
        int fd = bound(SOCK_DGRAM, from, from_port, how);
        set(fd, "SO_BROADCAST", SOL_SOCKET, SO_BROADCAST, 1);
        taken += sendto(fd, WORD, sizeof WORD, 0, (void *)&to, sizeof to) == sizeof WORD;
        close(fd);
    }
    report(taken);
}

/* Connects from an address; the kernel itself may have something against that. */
static void call(const char *address, int port, const char *from)
{
    int fd = bound(SOCK_STREAM, from, 0, "none");
    struct sockaddr_in to = at(address, port);
    int refused = connect(fd, (void *)&to, sizeof to) < 0;
    close(fd);
    report(!refused);
}

/* Lets the port's first socket get everything; refused or not, what counts is what arrives. */
static void steer(int fd)
{
    struct sock_filter first[] = {{0x06, 0, 0, 0}};
    struct sock_fprog program = {1, first};
    setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program);
}

/* A connection within the process that is still calling when its far end goes away, and another one may come in
 * its place. Packets with an ordinary time to live are ignored meanwhile, so that nobody answers. */
static int caller(int port, int own, int quiet)
{
    struct sockaddr_in to = at("127.0.0.1", port);
    int fd = bound(SOCK_STREAM, "127.0.0.1", own, "addr");
    set(fd, "IP_MINTTL", IPPROTO_IP, IP_MINTTL, quiet);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    if (connect(fd, (void *)&to, sizeof to) < 0 && errno != EINPROGRESS)
        die("connect");
    return fd;
}

static void park(int port, int own)
{
    const int quiet = 255, patience = 40000;
    int first = bound(SOCK_STREAM, "127.0.0.1", port, "addr");
    set(first, "IP_MINTTL", IPPROTO_IP, IP_MINTTL, quiet);
    if (listen(first, 5) < 0)
        die("listen");
    int calls = caller(port, own, quiet);
    close(first);
    int second = caller(own, port, quiet);
    /* Long enough for the first one to call again. */
    usleep(1500000);
    close(second);
    report(0);
    char line[16];
    if (read(STDIN_FILENO, line, sizeof line) < 0)
        die("waiting");
    set(calls, "IP_MINTTL", IPPROTO_IP, IP_MINTTL, 0);
    struct pollfd open = {.fd = calls, .events = POLLOUT};
    int error = 0;
    socklen_t length = sizeof error;
    long written = 0;
    if (poll(&open, 1, patience) > 0 && getsockopt(calls, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0)
        written = write(calls, WORD, sizeof WORD);
    report(written);
    /* Until it has arrived. */
    if (read(STDIN_FILENO, line, sizeof line) < 0)
        die("waiting");
}

int main(int count, char **words)
{
    const char *verb = count > 1 ? words[1] : "";
    if (strcmp(verb, "hear") == 0 && count == 5) {
        hear(bound(SOCK_DGRAM, words[2], atoi(words[3]), words[4]));
    } else if (strcmp(verb, "hear-beside") == 0 && count == 5) {
        /* It has one port of its own, and shares another. */
        bound(SOCK_DGRAM, words[2], atoi(words[4]), "addr");
        hear(bound(SOCK_DGRAM, words[2], atoi(words[3]), "none"));
    } else if (strcmp(verb, "send") == 0 && count == 7) {
        send_all(words[2], atoi(words[3]), words[4], atoi(words[5]), words[6]);
    } else if (strcmp(verb, "send-own") == 0 && count == 6) {
        /* The port that it sends to is its own as well. */
        int fd = bound(SOCK_DGRAM, words[4], atoi(words[3]), words[5]);
        if (strcmp(words[5], "port") == 0)
            steer(fd);
        send_all(words[2], atoi(words[3]), "0.0.0.0", 0, "none");
    } else if (strcmp(verb, "call") == 0 && count == 5) {
        call(words[2], atoi(words[3]), words[4]);
    } else if (strcmp(verb, "park") == 0 && count == 4) {
        park(atoi(words[2]), atoi(words[3]));
    } else {
        fprintf(stderr, "neighbour hear|hear-beside|send|send-own|call|park ...\n");
        return 64;
    }
    return 0;
}
