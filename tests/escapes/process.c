/* Becoming another process, thread, namespace or control group; taking over a process outside. */
#include "escapes.h"

#include <elf.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>

#define SYS_clone3_ 435
#define CLONE_INTO_CGROUP_ 0x200000000ULL

static void to_target(void)
{
    struct sockaddr_in to = target4();
    tcp_to(make(AF_INET, SOCK_STREAM, 0), &to, sizeof to);
}

static void wait_for(pid_t child)
{
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
}

static void forked(void)
{
    pid_t child = fork();
    if (child == 0) {
        to_target();
        _exit(0);
    }
    wait_for(child);
}

static void daemonized(void)
{
    pid_t child = fork();
    if (child == 0) {
        setsid();
        if (fork() == 0) {
            /* The parent is gone, and init is the parent now. */
            usleep(50000);
            to_target();
        }
        _exit(0);
    }
    wait_for(child);
    usleep(300000);
}

static void after_exec(void)
{
    char where[64], command[256];
    inet_ntop(AF_INET, &set.target4, where, sizeof where);
    snprintf(command, sizeof command, "exec 3<>/dev/tcp/%s/%d; printf '%s' >&3", where, port_of_probe(),
        set.marker);
    pid_t child = vfork();
    if (child == 0) {
        execl("/bin/bash", "bash", "-c", command, (char *)NULL);
        _exit(127);
    }
    wait_for(child);
}

static void *on_thread(void *unused)
{
    to_target();
    return unused;
}

static void in_a_thread(void)
{
    pthread_t thread;
    fault("pthread_create", pthread_create(&thread, NULL, on_thread, NULL));
    pthread_join(thread, NULL);
}

static void in_user_namespace(void)
{
    step("unshare(user)", unshare(CLONE_NEWUSER));
    to_target();
}

/* In a user namespace of its own the process holds every capability, as far as the namespace goes. */
static void raw_in_user_namespace(void)
{
    struct sockaddr_in to = at4(set.target4, 0);
    step("unshare(user)", unshare(CLONE_NEWUSER));
    say_to(make(AF_INET, SOCK_RAW, IPPROTO_UDP), &to, sizeof to);
    to_target();
}

static void in_every_other_namespace(void)
{
    step("unshare", unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC |
        CLONE_NEWCGROUP));
    forked();
}

static void cgroups_mounted_anew(void)
{
    char path[512];
    step("unshare", unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP));
    snprintf(path, sizeof path, "%s/cgroups", set.directory);
    mkdir(path, 0777);
    step("mount", mount("none", path, "cgroup2", 0, NULL));
    step("move", enter_cgroup(path));
    snprintf(path, sizeof path, "%s/cgroups/mine", set.directory);
    step("mkdir", mkdir(path, 0755));
    step("move", enter_cgroup(path));
    to_target();
}

static void moved_out(void)
{
    step("move", enter_cgroup(set.outside));
    to_target();
}

static void born_outside(void)
{
    struct clone_args arguments = {.flags = CLONE_INTO_CGROUP_, .exit_signal = SIGCHLD};
    int directory = (int)step("open", open(set.outside, O_PATH | O_DIRECTORY));
    arguments.cgroup = (uint64_t)directory;
    long child = step("clone3", syscall(SYS_clone3_, &arguments, sizeof arguments));
    if (child == 0) {
        to_target();
        _exit(0);
    }
    if (child > 0)
        wait_for((pid_t)child);
    else
        to_target();
}

static void in_child_cgroup(void)
{
    char path[512];
    snprintf(path, sizeof path, "%s/mine", set.inside ? set.inside : set.outside);
    step("mkdir", mkdir(path, 0755));
    step("move", enter_cgroup(path));
    to_target();
}

#if defined __x86_64__ || defined __aarch64__
static void victim_by_ptrace(void)
{
    pid_t victim = others->victim[0];
    struct user_regs_struct registers;
    struct iovec all = {&registers, sizeof registers};
    int status;
    others->number = set.number;
    if (step("PTRACE_ATTACH", ptrace(PTRACE_ATTACH, victim, 0, 0)) < 0)
        return;
    waitpid(victim, &status, 0);
    step("PTRACE_GETREGSET", ptrace(PTRACE_GETREGSET, victim, (void *)NT_PRSTATUS, &all));
#ifdef __x86_64__
    registers.rip = (unsigned long long)(uintptr_t)victim_escape;
    registers.rsp = ((registers.rsp - 1024) & ~15ULL) - 8;
    registers.orig_rax = ~0ULL;
#else
    registers.pc = (unsigned long long)(uintptr_t)victim_escape;
#endif
    step("PTRACE_SETREGSET", ptrace(PTRACE_SETREGSET, victim, (void *)NT_PRSTATUS, &all));
    step("PTRACE_DETACH", ptrace(PTRACE_DETACH, victim, 0, 0));
    usleep(200000);
}

/* Code is written over that of a running process. */
static void victim_by_memory(void)
{
    char path[64];
    uint64_t to = (uint64_t)(uintptr_t)victim_escape;
    unsigned char code[16];
    others->number = set.number;
#ifdef __x86_64__
    static const unsigned char jump[12] = {0x48, 0xb8, [10] = 0xff, [11] = 0xe0};
    memcpy(code, jump, sizeof jump);
    memcpy(code + 2, &to, sizeof to);
    size_t length = sizeof jump;
#else
    static const unsigned char jump[8] = {0x50, 0x00, 0x00, 0x58, 0x00, 0x02, 0x1f, 0xd6};
    memcpy(code, jump, sizeof jump);
    memcpy(code + 8, &to, sizeof to);
    size_t length = 16;
#endif
    snprintf(path, sizeof path, "/proc/%d/mem", others->victim[1]);
    int memory = (int)step("open", open(path, O_RDWR));
    if (memory < 0)
        return;
    step("pwrite", pwrite(memory, code, length, (off_t)(uintptr_t)victim_tick));
    usleep(200000);
}
#else
static void victim_by_ptrace(void) { fault("registers of this machine", ENOSYS); }
static void victim_by_memory(void) { fault("code of this machine", ENOSYS); }
#endif

const struct probe process_probes[] = {
    {"forked", "base", forked, NULL},
    {"daemonized", "base", daemonized, NULL},
    {"after_exec", "base", after_exec, NULL},
    {"in_a_thread", "base", in_a_thread, NULL},
    {"in_user_namespace", "C9", in_user_namespace, NULL},
    {"raw_in_user_namespace", "C9", raw_in_user_namespace, NULL},
    {"in_every_other_namespace", "C9", in_every_other_namespace, NULL},
    {"cgroups_mounted_anew", "A6", cgroups_mounted_anew, NULL},
    {"moved_out", "A6", moved_out, NULL},
    {"born_outside", "A6", born_outside, NULL},
    {"in_child_cgroup", "A7", in_child_cgroup, NULL},
    {"victim_by_ptrace", "A4", victim_by_ptrace, NULL},
    {"victim_by_memory", "A4", victim_by_memory, NULL},
    {NULL, NULL, NULL, NULL},
};
