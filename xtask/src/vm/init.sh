#!/usr/bin/busybox sh
# The first process of a virtual machine: makes it look like a host, runs the tests, and ends it.
# What begins with @@vm is read by xtask/src/vm.

export PATH=/usr/sbin:/usr/bin HOME=/root

if [ -z "$second" ]; then
    # The first root file system cannot be left by pivot_root(2); one that is mounted over it can.
    mkdir /newroot
    mount -o bind / /newroot
    cd /newroot
    mount -o move . /
    export second=1
    exec chroot . /init
fi

mount -t devtmpfs devtmpfs /dev
exec </dev/null >/dev/ttyS1 2>&1
stty -onlcr </dev/ttyS1

mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
chmod 1777 /tmp /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t securityfs securityfs /sys/kernel/security
mount -t tracefs tracefs /sys/kernel/tracing
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
hostname grantd-vm
ip link set lo up
for module in $(cat /grantd/modules.order); do
    insmod "/grantd/modules/$module.ko" || echo "@@vm problem the module $module does not load"
done
# As systemd leaves it to a service.
ulimit -Hn 524288
ulimit -Sn 1024

echo "@@vm kernel $(uname -r)"
echo "@@vm lsm $(cat /sys/kernel/security/lsm)"

export GRANTD_BIN_DIR=/grantd/bin GRANTD_NOT_RUN=/grantd/not-run GRANTD_EMULATED=1
export GRANTD_TEST_KEYS=/grantd/keys CARGO_MANIFEST_DIR=/grantd/tests
mkdir "$GRANTD_TEST_KEYS"
: >"$GRANTD_NOT_RUN"

# run NAME SECONDS PROGRAM ARGUMENT...
run() {
    echo "@@vm program $1"
    limit=$2
    shift 2
    timeout -s KILL "$limit" "$@"
    status=$?
    echo
    echo "@@vm status $status"
}

cd /grantd/tests
# The list for this machine; the number comes from the kernel's command line.
. "/grantd/list.$grantd_shard"

sed 's/^/@@vm note /' "$GRANTD_NOT_RUN"
echo "@@vm end $(cut -d. -f1 /proc/uptime)"
stty -F /dev/ttyS1 sane 2>/dev/null
sync
poweroff -f
