/* `escapes list`: names and threats. `escapes target`: counts arrivals until it is killed.
 * `escapes run …`: every probe in a process of its own, one JSON object a line. */
#include "escapes.h"

#include <linux/capability.h>
#include <grp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

struct setting set = {.uid = -1, .inherited = -1};
struct accomplices *others;

static const struct probe *const groups[] = {tcp_probes, udp_probes, raw_probes, option_probes, source_probes,
    family_probes, uring_probes, passed_probes, outsider_probes, process_probes, inbound_probes, local_probes,
    abi_probes};

const struct probe *probe_by_number(int number)
{
    for (size_t group = 0; group < sizeof groups / sizeof *groups; group++)
        for (const struct probe *probe = groups[group]; probe->name; probe++)
            if (number-- == 0)
                return probe;
    return NULL;
}

int probe_count(void)
{
    int count = 0;
    while (probe_by_number(count))
        count++;
    return count;
}

const char *run_name(void)
{
    const char *name = getenv("ESCAPES_RUN");
    return name && *name ? name : "x";
}

void make_marker(char *buffer, size_t size, const char *name)
{
    snprintf(buffer, size, "escape-%s:%s;", run_name(), name);
}

static void die(const char *what)
{
    perror(what);
    exit(70);
}

/* No capability is left, nor can be had again; uid 0 stays uid 0. */
static void give_up_capabilities(void)
{
    uint32_t kept = set.keep_raw ? 1u << CAP_NET_RAW : 0;
    for (int capability = 0; capability <= 63; capability++)
        if (!(capability < 32 && kept >> capability & 1))
            prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        die("no new privileges");
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2] = {{kept, kept, 0}, {0, 0, 0}};
    if (syscall(SYS_capset, &header, sets) < 0)
        die("giving up capabilities");
}

static void become_user(void)
{
    if (set.uid > 0) {
        gid_t id = (gid_t)set.uid;
        if (setgroups(0, NULL) < 0 || setresgid(id, id, id) < 0 || setresuid(id, id, id) < 0)
            die("becoming the user");
    }
    give_up_capabilities();
    /* Otherwise nobody of the same user could look at it. */
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static void report(const char *outcome)
{
    char notes[512], line[1024];
    notes_take(notes, sizeof notes);
    const struct probe *probe = probe_by_number(set.number);
    int length = snprintf(line, sizeof line,
        "{\"probe\":\"%s\",\"threat\":\"%s\",\"outcome\":\"%s\",\"steps\":\"%s\"}\n", probe->name,
        probe->threat, outcome, notes);
    if (write(STDOUT_FILENO, line, (size_t)length) != length)
        _exit(70);
}

static void on_signal(int number)
{
    report(number == SIGALRM ? "hung" : "crashed");
    _exit(0);
}

static void prepare(int number)
{
    const struct probe *probe = probe_by_number(number);
    set.number = number;
    set.name = probe->name;
    make_marker(set.marker, sizeof set.marker, probe->name);
}

static void run_in_this_process(const struct probe *probe)
{
    signal(SIGALRM, on_signal);
    signal(SIGSEGV, on_signal);
    signal(SIGILL, on_signal);
    signal(SIGPIPE, SIG_IGN);
    alarm(4);
    probe->run();
    report("tried");
    /* What is on its way should not die with its socket. */
    usleep(20000);
    _exit(0);
}

static void run_one(int number)
{
    prepare(number);
    const struct probe *probe = probe_by_number(number);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        if (probe->before)
            set.inherited = probe->before();
        if (set.inside && enter_cgroup(set.inside) < 0)
            die(set.inside);
        become_user();
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        run_in_this_process(probe);
    }
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        report("died");
}

static int wanted(const char *only, const char *name)
{
    if (!only)
        return 1;
    size_t length = strlen(name);
    for (const char *at = only; (at = strstr(at, name)); at += length)
        if ((at == only || at[-1] == ',') && (at[length] == 0 || at[length] == ','))
            return 1;
    return 0;
}

static void last_word(void)
{
    char marker[64];
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in to = at4(set.target4, END);
    make_marker(marker, sizeof marker, "end");
    if (fd < 0 || sendto(fd, marker, strlen(marker), 0, (void *)&to, sizeof to) < 0)
        die("the last word");
    close(fd);
}

static void address(int family, const char *text, void *into)
{
    if (inet_pton(family, text, into) != 1) {
        fprintf(stderr, "%s is no address\n", text);
        exit(64);
    }
}

static void share_accomplices(void)
{
    others = mmap(NULL, sizeof *others, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (others == MAP_FAILED)
        die("shared memory");
    pid_t child = fork();
    if (child == 0) {
        /* Who reads the reports waits for their end, which is not the accomplices'. */
        int nowhere = open("/dev/null", O_WRONLY);
        dup2(nowhere, STDOUT_FILENO);
        become_user();
        /* Not before: becoming somebody else forgets it. */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        accomplices_start();
    }
    for (int wait = 0; others->victim[1] == 0 && wait < 200; wait++)
        usleep(10000);
    if (others->victim[1] == 0)
        die("the accomplice does not come up");
}

static const char *option(int count, char **words, const char *name)
{
    for (int at = 2; at + 1 < count; at += 2)
        if (strcmp(words[at], name) == 0)
            return words[at + 1];
    return NULL;
}

static const char *needed(int count, char **words, const char *name)
{
    const char *value = option(count, words, name);
    if (!value) {
        fprintf(stderr, "%s is missing\n", name);
        exit(64);
    }
    return value;
}

static void read_setting(int count, char **words)
{
    set.outside = needed(count, words, "--outside");
    set.inside = option(count, words, "--inside");
    set.directory = needed(count, words, "--directory");
    set.uid = atoi(needed(count, words, "--uid"));
    set.keep_raw = option(count, words, "--keep-raw") != NULL;
    set.interface = needed(count, words, "--interface");
    set.granted_port = atoi(needed(count, words, "--granted-port"));
    address(AF_INET, needed(count, words, "--target4"), &set.target4);
    address(AF_INET6, needed(count, words, "--target6"), &set.target6);
    address(AF_INET6, needed(count, words, "--target-link-local"), &set.target_link_local);
    address(AF_INET, needed(count, words, "--granted4"), &set.granted4);
    address(AF_INET6, needed(count, words, "--granted6"), &set.granted6);
    address(AF_INET, needed(count, words, "--host4"), &set.host4);
}

int main(int count, char **words)
{
    const char *verb = count > 1 ? words[1] : "";
    if (strcmp(verb, "target") == 0)
        return target_main();
    if (strcmp(verb, "list") == 0) {
        for (int number = 0; number < probe_count(); number++)
            printf("%s %s\n", probe_by_number(number)->name, probe_by_number(number)->threat);
        return 0;
    }
    if (strcmp(verb, "run") != 0) {
        fprintf(stderr, "escapes list | target | run OPTIONS\n");
        return 64;
    }
    read_setting(count, words);
    if (enter_cgroup(set.outside) < 0)
        die(set.outside);
    share_accomplices();
    for (int number = 0; number < probe_count(); number++)
        if (wanted(option(count, words, "--only"), probe_by_number(number)->name))
            run_one(number);
    last_word();
    return 0;
}
