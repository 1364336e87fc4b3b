/* The other system call interfaces of x86: numbers and layouts that a filter for the usual ones does not know. */
#include "escapes.h"

#include <sys/mman.h>

#ifdef __x86_64__
/* What the 32-bit interface is given has to lie below 4 GiB. */
static char *low(void)
{
    char *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static long call32(const char *what, long number, long a, long b, long c, long d, long e)
{
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
                     : "memory", "r8", "r9", "r10", "r11");
    result = (int)result;
    if (result < 0)
        errno = (int)-result;
    return step(what, result < 0 ? -1 : result);
}

static void int80_connect(void)
{
    struct sockaddr_in to = target4();
    char *memory = low();
    memcpy(memory, &to, sizeof to);
    memcpy(memory + 64, set.marker, strlen(set.marker));
    long fd = call32("socket32", 359, AF_INET, SOCK_STREAM, 0, 0, 0);
    call32("connect32", 362, fd, (long)memory, sizeof to, 0, 0);
    call32("write32", 4, fd, (long)memory + 64, (long)strlen(set.marker), 0, 0);
}

/* One number for all of them: socketcall(2). */
static void int80_socketcall(void)
{
    struct sockaddr_in to = target4();
    char *memory = low();
    uint32_t *words = (uint32_t *)(memory + 256);
    memcpy(memory, &to, sizeof to);
    memcpy(memory + 64, set.marker, strlen(set.marker));
    words[0] = AF_INET;
    words[1] = SOCK_DGRAM;
    words[2] = 0;
    long fd = call32("socketcall(socket)", 102, 1, (long)words, 0, 0, 0);
    uint32_t send[6] = {(uint32_t)fd, (uint32_t)(uintptr_t)memory + 64, (uint32_t)strlen(set.marker), 0,
        (uint32_t)(uintptr_t)memory, sizeof to};
    memcpy(words, send, sizeof send);
    call32("socketcall(sendto)", 102, 11, (long)words, 0, 0, 0);
}

static void int80_raw(void)
{
    struct sockaddr_in to = at4(set.target4, 0);
    long fd = call32("socket32", 359, AF_INET, SOCK_RAW, IPPROTO_UDP, 0, 0);
    if (fd >= 0)
        say_to((int)fd, &to, sizeof to);
}

/* The setsockopt hook is not asked for 32-bit calls: what the option would do has to be seen in the packet. */
static void int80_routing_header(void)
{
    struct sockaddr_in6 to = granted6();
    char *memory = low();
    memory[1] = 4;
    memory[2] = 4;
    memory[3] = 1;
    memory[4] = 1;
    memcpy(memory + 8, &set.granted6, 16);
    memcpy(memory + 24, &set.target6, 16);
    int fd = make(AF_INET6, SOCK_DGRAM, 0);
    call32("IPV6_RTHDR", 366, fd, IPPROTO_IPV6, 57, (long)memory, 40);
    say_to(fd, &to, sizeof to);
}

static void int80_source_route(void)
{
    struct sockaddr_in to = granted4();
    char *memory = low();
    memory[0] = (char)131;
    memory[1] = 11;
    memory[2] = 4;
    memcpy(memory + 3, &set.target4, 4);
    memcpy(memory + 7, &set.granted4, 4);
    int fd = make(AF_INET, SOCK_DGRAM, 0);
    call32("IP_OPTIONS", 366, fd, IPPROTO_IP, 4, (long)memory, 12);
    say_to(fd, &to, sizeof to);
}

static void int80_membership(void)
{
    char *memory = low();
    struct ip_mreq wish = {.imr_interface = set.host4, .imr_multiaddr = group4(1)};
    memcpy(memory, &wish, sizeof wish);
    int fd = make(AF_INET, SOCK_DGRAM, 0);
    call32("IP_ADD_MEMBERSHIP", 366, fd, IPPROTO_IP, 35, (long)memory, sizeof wish);
    sleep(1);
}

static void x32_connect(void)
{
    struct sockaddr_in to = target4();
    long fd = step("socket(x32)", syscall(0x40000000 + SYS_socket, AF_INET, SOCK_STREAM, 0));
    if (fd < 0)
        return;
    step("connect(x32)", syscall(0x40000000 + SYS_connect, fd, &to, sizeof to));
    say((int)fd);
}

const struct probe abi_probes[] = {
    {"int80_connect", "C8", int80_connect, NULL},
    {"int80_socketcall", "C8", int80_socketcall, NULL},
    {"int80_raw", "C8", int80_raw, NULL},
    {"int80_routing_header", "C8", int80_routing_header, NULL},
    {"int80_source_route", "C8", int80_source_route, NULL},
    {"int80_membership", "B6", int80_membership, NULL},
    {"x32_connect", "C8", x32_connect, NULL},
    {NULL, NULL, NULL, NULL},
};
#else
const struct probe abi_probes[] = {{NULL, NULL, NULL, NULL}};
#endif
