/* Asks the kernel for things by bare system calls and prints each answer: `what answer`, a line each. C
 * because the tests have no unsafe code; static, so that it runs wherever the tests do. */
#define _GNU_SOURCE
#include "calls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* At the same place in every process of this program. */
static char shared;

static void answer(const char *what, long result)
{
    const char *name = strerrorname_np(errno);
    printf("%s %s\n", what, result >= 0 ? "done" : name ? name : "unknown");
    fflush(stdout);
}

void raw(const char *what, long result)
{
    errno = result < 0 ? (int)-result : 0;
    answer(what, result);
}

#define TRY(what, call)                                                                                        \
    do {                                                                                                       \
        errno = 0;                                                                                             \
        long result_ = (long)(call);                                                                           \
        answer(what, result_);                                                                                 \
    } while (0)

/* Every family and type, by socket and socketpair; netlink also by protocol. */
static void families(void)
{
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_RDM, SOCK_SEQPACKET, 6, 10};
    char what[64];
    for (int family = 0; family < 64; family++) {
        for (size_t type = 0; type < sizeof types / sizeof *types; type++) {
            int pair[2], flags = types[type] | SOCK_CLOEXEC;
            int fd = socket(family, flags, 0);
            snprintf(what, sizeof what, "socket-%d-%d", family, types[type]);
            answer(what, fd);
            if (fd >= 0)
                close(fd);
            int made = socketpair(family, flags, 0, pair);
            snprintf(what, sizeof what, "pair-%d-%d", family, types[type]);
            answer(what, made);
            if (made == 0)
                close(pair[0]), close(pair[1]);
        }
    }
    for (int protocol = 0; protocol < 24; protocol++) {
        int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
        snprintf(what, sizeof what, "netlink-%d", protocol);
        answer(what, fd);
        if (fd >= 0)
            close(fd);
    }
}

static long fork_with(unsigned long flags)
{
    long pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(0);
    if (pid > 0)
        waitpid((pid_t)pid, NULL, 0);
    return pid;
}

/* In a child, since what succeeds changes the process. */
static void unshared(const char *what, int flags)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        TRY(what, unshare(flags));
        _exit(0);
    }
    waitpid(pid, NULL, 0);
}

static void calls(void)
{
    char zeroes[256] = {0};
    TRY("io_uring_setup", syscall(SYS_io_uring_setup, 1, zeroes));
    TRY("io_uring_enter", syscall(SYS_io_uring_enter, -1, 0, 0, 0, NULL, 0));
    TRY("io_uring_register", syscall(SYS_io_uring_register, -1, 0, NULL, 0));
    TRY("keyctl", syscall(SYS_keyctl, 0 /* GET_KEYRING_ID */, -1 /* thread */, 1));
    TRY("add_key", syscall(SYS_add_key, "user", "grantd-test", "x", 1L, -1 /* thread */));
    TRY("request_key", syscall(SYS_request_key, "user", "grantd-test", NULL, -1));
    TRY("bpf", syscall(SYS_bpf, 0, zeroes, sizeof zeroes));
    TRY("perf_event_open", syscall(SYS_perf_event_open, zeroes, 0, -1, -1, 0));
    TRY("userfaultfd", syscall(SYS_userfaultfd, 1 /* USER_MODE_ONLY */));
    TRY("setns", setns(-1, 0));
    TRY("mount", syscall(SYS_mount, "none", "/nonexistent", "tmpfs", 0, NULL));
    TRY("umount2", syscall(SYS_umount2, "/nonexistent", 0));
    TRY("open_tree", syscall(428, -1, "/nonexistent", 0));
    TRY("fsopen", syscall(430, "tmpfs", 0));
    TRY("chroot", chroot("/nonexistent"));
    TRY("open_by_handle_at", syscall(SYS_open_by_handle_at, -1, zeroes, 0));
    TRY("pidfd_getfd", syscall(438, -1, 0, 0));
    TRY("kexec_load", syscall(SYS_kexec_load, 0, 0, NULL, ~0UL));
    TRY("init_module", syscall(SYS_init_module, NULL, 0, ""));
    TRY("personality", personality(ADDR_NO_RANDOMIZE));
    TRY("clone3", syscall(435, NULL, 0));
    TRY("of-tomorrow", syscall(500, 0, 0, 0));
    unshared("unshare-user", CLONE_NEWUSER);
    unshared("unshare-user-net", CLONE_NEWUSER | CLONE_NEWNET);
    TRY("clone-user", fork_with(CLONE_NEWUSER));
    TRY("clone-user-net", fork_with(CLONE_NEWUSER | CLONE_NEWNET));
    /* What software needs. */
    TRY("fork", fork_with(0));
    TRY("getpid", getpid());
    TRY("pty", open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC));
}

#if defined __x86_64__
static long by_int80(long number, long one, long two, long three)
{
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(one), "c"(two), "d"(three)
                     : "memory", "r8", "r9", "r10", "r11");
    return (int)result;
}

/* A kernel without 32-bit calls ends the process at the instruction. */
static void absent(int signal)
{
    (void)signal;
    static const char told[] = "int80 absent\n";
    if (write(1, told, sizeof told - 1) > 0)
        _exit(0);
    _exit(1);
}

static void abi(void)
{
    raw("x32-getpid", syscall(0x40000000L | SYS_getpid) < 0 ? -errno : 0);
    raw("x32-socket", syscall(0x40000000L | SYS_socket, AF_UNIX, SOCK_STREAM, 0) < 0 ? -errno : 0);
    fflush(stdout);
    signal(SIGSEGV, absent);
    raw("int80-getpid", by_int80(20, 0, 0, 0));
    /* Arguments of socketcall lie in memory that 32 bits can name. */
    int *arguments = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (arguments == MAP_FAILED)
        return;
    static const int families[] = {AF_UNIX, AF_INET, AF_NETLINK, AF_VSOCK, AF_PACKET, AF_ALG};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        char what[64];
        arguments[0] = families[i], arguments[1] = SOCK_DGRAM, arguments[2] = families[i] == AF_NETLINK ? 16 : 0;
        snprintf(what, sizeof what, "int80-socketcall-%d", families[i]);
        raw(what, by_int80(102, 1, (long)arguments, 0));
        snprintf(what, sizeof what, "int80-socket-%d", families[i]);
        raw(what, by_int80(359, families[i], SOCK_DGRAM, arguments[2]));
    }
}
#else
static void abi(void)
{
    puts("int80 absent");
}
#endif

static void unix_stream(const char *what, const char *name, int abstract)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    strncpy(to.sun_path + abstract, name, sizeof to.sun_path - 2);
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)abstract + strlen(name));
    TRY(what, connect(fd, (struct sockaddr *)&to, abstract ? length : sizeof to));
    close(fd);
}

/* What one process could do to another of the same user. */
static void outsider(pid_t pid)
{
    char path[64], byte;
    struct iovec here = {&byte, 1}, there = {&shared, 1};
    int handle = (int)syscall(SYS_pidfd_open, pid, 0);
    TRY("signal", kill(pid, 0));
    TRY("pidfd_getfd", syscall(438, handle, 0, 0));
    TRY("process_vm_readv", syscall(SYS_process_vm_readv, pid, &here, 1, &there, 1, 0));
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    TRY("memory", open(path, O_RDWR | O_CLOEXEC));
    snprintf(path, sizeof path, "/proc/%d/root/run", pid);
    TRY("root", open(path, O_RDONLY | O_CLOEXEC));
    snprintf(path, sizeof path, "/proc/%d/fd/0", pid);
    TRY("descriptor", open(path, O_RDONLY | O_CLOEXEC));
    TRY("ptrace", ptrace(PTRACE_SEIZE, pid, NULL, NULL));
}

/* What a debugger does to its own child. */
static void own_child(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    TRY("own-ptrace", ptrace(PTRACE_SEIZE, pid, NULL, NULL));
    TRY("own-signal", kill(pid, SIGKILL));
    waitpid(pid, NULL, 0);
}

static void descriptors(void)
{
    char what[32];
    for (int fd = 0; fd < 4096; fd++) {
        if (fcntl(fd, F_GETFD) >= 0) {
            snprintf(what, sizeof what, "descriptor-%d", fd);
            answer(what, 0);
        }
    }
}

static void tcp(const char *address, const char *port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    inet_pton(AF_INET, address, &to.sin_addr);
    long fd = syscall(SYS_socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    TRY("tcp", syscall(SYS_connect, fd, &to, sizeof to));
    syscall(SYS_close, fd);
}

static void wait_for_a_line(void)
{
    char line[16];
    answer("ready", 0);
    if (!fgets(line, sizeof line, stdin))
        exit(1);
}

int main(int count, char **words)
{
    const char *verb = count > 1 ? words[1] : "";
    if (!strcmp(verb, "families")) {
        families();
    } else if (!strcmp(verb, "calls")) {
        calls();
        own_child();
    } else if (!strcmp(verb, "abi")) {
        abi();
    } else if (!strcmp(verb, "rings")) {
        rings();
    } else if (!strcmp(verb, "terminal")) {
        TRY("open-tty", open("/dev/tty", O_RDWR | O_CLOEXEC));
        TRY("push-input", ioctl(0, TIOCSTI, "\n"));
    } else if (!strcmp(verb, "descriptors")) {
        descriptors();
    } else if (!strcmp(verb, "euid")) {
        printf("euid %d\n", (int)geteuid());
    } else if (!strcmp(verb, "landlock")) {
        printf("landlock %ld\n", syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION));
    } else if (!strcmp(verb, "open") && count > 2) {
        for (int i = 2; i < count; i++)
            TRY(words[i], open(words[i], O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    } else if (!strcmp(verb, "unix") && count > 2) {
        for (int i = 2; i < count; i++)
            unix_stream(words[i], words[i], 0);
    } else if (!strcmp(verb, "abstract") && count > 2) {
        unix_stream("abstract", words[2], 1);
    } else if (!strcmp(verb, "outsider") && count > 2) {
        outsider((pid_t)atoi(words[2]));
    } else if (!strcmp(verb, "detach") && count > 2) {
        detach(words[2]);
    } else if (!strcmp(verb, "tcp") && count > 3) {
        tcp(words[2], words[3]);
    } else if (!strcmp(verb, "later") && count > 3) {
        wait_for_a_line();
        tcp(words[2], words[3]);
    } else {
        fprintf(stderr, "calls: no such verb: %s\n", verb);
        return 64;
    }
    return 0;
}
