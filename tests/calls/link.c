/* What root may do to a BPF link that it did not make. */
#define _GNU_SOURCE
#include "calls.h"

#include <errno.h>
#include <linux/bpf.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

static long bpf(int command, union bpf_attr *attr)
{
    long result = syscall(SYS_bpf, command, attr, sizeof *attr);
    return result < 0 ? -errno : result;
}

void detach(const char *pin)
{
    union bpf_attr get = {.pathname = (uint64_t)(uintptr_t)pin};
    long link = bpf(BPF_OBJ_GET, &get);
    if (link < 0) {
        raw("detach", link);
        return;
    }
    union bpf_attr attr = {.link_detach.link_fd = (uint32_t)link};
    raw("detach", bpf(BPF_LINK_DETACH, &attr));
    close((int)link);
}
