/* Ways out of the box, each a small function that tries to bring its marker to a target that no grant names.
 *
 * The same program is the target (it counts what arrives), the accomplice (a process of the same user outside
 * the box) and the probes. It needs nothing but libc, so that it runs in a bare virtual machine as well.
 */
#ifndef ESCAPES_H
#define ESCAPES_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* Ports of the target: BASE + number of the probe. Beside them: */
#define BASE 20000
#define CONTACT (BASE - 2)  /* where outsiders are connected to before their sockets are passed on */
#define END (BASE - 1)      /* the runner's last word: what was sent before it has arrived before it */
#define PROXY 19000         /* the accomplice's proxies on loopback */
#define CALLED 19001        /* the accomplice calls whoever listens here */
#define ASKED 19002         /* the accomplice sends datagrams to whoever is bound here */


struct probe {
    const char *name;
    const char *threat;     /* ID in docs/threats.md */
    void (*run)(void);      /* inside the box */
    int (*before)(void);    /* outside, as the same process: gives a descriptor to inherit; may be NULL */
};

extern const struct probe tcp_probes[], udp_probes[], raw_probes[], option_probes[], source_probes[],
    family_probes[], uring_probes[], passed_probes[], outsider_probes[], process_probes[], inbound_probes[],
    local_probes[], abi_probes[];

/* What the command line says, and which probe this is. */
struct setting {
    const char *outside, *inside;   /* cgroup directories */
    const char *directory;          /* of the accomplice's sockets */
    int uid;
    int keep_raw;                   /* keep CAP_NET_RAW, as containers do */
    struct in_addr target4, granted4, host4;
    struct in6_addr target6, granted6, target_link_local;
    const char *interface;          /* towards the target */
    int granted_port;
    int number;                     /* of this probe */
    const char *name;
    int inherited;                  /* what `before` gave, or -1 */
    char marker[64];
};
extern struct setting set;

/* Pids of the accomplice's processes, for those who look for them. */
struct accomplices {
    int holder;         /* idle; holds descriptors 50 (TCP, unconnected) and 51 (TCP, connected to CONTACT) */
    int victim[2];      /* idle, calling victim_tick() again and again */
    int netlink;        /* its port number as a netlink user socket */
    int vsock;          /* there is a vsock that stays on this machine */
    int call_port;      /* a port that it should call; written by the probe */
    int number;         /* the probe on whose behalf a victim should speak; written by the probe */
};
extern struct accomplices *others;

/* main.c */
const struct probe *probe_by_number(int number);
int probe_count(void);
/* A run's markers differ from those of another one, of which a retransmission may still be under way. */
const char *run_name(void);
void make_marker(char *buffer, size_t size, const char *name);

/* tools.c: every one notes its result, so that a report says how far the probe came */
long step(const char *what, long result);
void fault(const char *what, int error);
void notes_take(char *buffer, size_t size);
int make(int family, int type, int protocol);
int reach(int fd, const void *address, socklen_t length);
int say_to(int fd, const void *address, socklen_t length);
int say(int fd);
int flag(int fd, const char *what, int level, int option, int value);
struct sockaddr_in at4(struct in_addr address, int port);
struct sockaddr_in6 at6(struct in6_addr address, int port);
struct sockaddr_in target4(void);
struct sockaddr_in6 target6(void);
struct sockaddr_in granted4(void);
struct sockaddr_in6 granted6(void);
struct sockaddr_in6 mapped(struct in_addr address, int port);
struct sockaddr_in6 embedded(const char *prefix, int at, struct in_addr address, int port);
int port_of_probe(void);
/* Sent instead of a payload where a process can only choose a group address. */
struct in_addr group4(int by32);
struct in6_addr group6(void);
unsigned int interface_index(void);
void tcp_to(int fd, const void *address, socklen_t length);
int send_fd(int over, int fd);
int receive_fd(int over);
int enter_cgroup(const char *directory);

/* target.c, accomplice.c */
int target_main(void);
void accomplices_start(void);
void deliver_for(const char *bytes, size_t length);
int abstract_address(struct sockaddr_un *address, const char *name);
int path_address(struct sockaddr_un *address, const char *name);
void victim_tick(void);
void victim_escape(void);

#endif
