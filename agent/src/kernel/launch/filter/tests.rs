//! The filter, run by an interpreter of the few instructions that it is made of.

use super::*;

const BOTH: [Arch; 2] = [Arch::X86_64, Arch::Aarch64];
const I386: u32 = 0x4000_0003;
const ARM: u32 = 0x4000_0028;

#[derive(Clone, Copy)]
struct Call {
    architecture: u32,
    number: u32,
    arguments: [u64; 6],
}

fn call(arch: Arch, number: u32, arguments: &[u64]) -> Call {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    Call { architecture: arch.audit(), number, arguments: all }
}

fn verdict(arch: Arch, call: Call) -> u32 {
    let program = Filter::assemble(arch).0;
    let (mut at, mut accumulator) = (0, 0_u32);
    loop {
        let instruction = program[at];
        at += 1;
        let k = instruction.k;
        let taken = match instruction.code {
            LOAD => {
                accumulator = match k {
                    NUMBER => call.number,
                    ARCHITECTURE => call.architecture,
                    _ => u32::try_from(call.arguments[(k - ARGUMENTS) as usize / 8] & 0xffff_ffff)
                        .unwrap(),
                };
                continue;
            }
            RETURN => return k,
            JUMP_EQUAL => accumulator == k,
            JUMP_GREATER => accumulator > k,
            JUMP_ANY_BIT => accumulator & k != 0,
            other => panic!("unknown instruction {other:#x}"),
        };
        at += usize::from(if taken { instruction.jt } else { instruction.jf });
    }
}

#[test]
fn every_family_but_the_allowed_ones_is_denied_in_every_way_to_make_a_socket() {
    for arch in BOTH {
        for family in (0..64).chain([0xffff_ffff]) {
            let listed = FAMILIES.iter().any(|(_, number)| *number == family);
            for kind in [1, 2, 3, 5] {
                let of = |judged: Judged, protocol| {
                    verdict(
                        arch,
                        call(arch, judged.number(arch), &[u64::from(family), kind, protocol]),
                    )
                };
                let expected = if listed { ALLOW } else { ERRNO | EAFNOSUPPORT };
                assert_eq!(of(SOCKETPAIR, 0), expected, "{arch:?}: a pair of family {family}");
                assert_eq!(of(SOCKET, 16), expected, "{arch:?}: family {family}");
                let route = if family == NETLINK { ALLOW } else { expected };
                assert_eq!(of(SOCKET, 0), route, "{arch:?}: family {family}, protocol 0");
            }
        }
        // The kernel takes an int: what lies above it does not hide a family.
        let high = call(arch, SOCKET.number(arch), &[(7 << 32) | 40]);
        assert_eq!(verdict(arch, high), ERRNO | EAFNOSUPPORT);
    }
}

#[test]
fn calls_of_another_architecture_or_abi_are_absent_whatever_they_are() {
    for arch in BOTH {
        for architecture in [I386, ARM, 0] {
            for number in [1, 4, 102, 359, 0x4000_0029] {
                let foreign = Call { architecture, ..call(arch, number, &[]) };
                assert_eq!(verdict(arch, foreign), ERRNO | ENOSYS, "{arch:?}: {number}");
            }
        }
    }
    for number in [X32, X32 | SOCKET.x86_64, X32 | 512, u32::MAX] {
        let x32 = call(Arch::X86_64, number, &[2, 1, 0]);
        assert_eq!(verdict(Arch::X86_64, x32), ERRNO | ENOSYS, "x32 call {number:#x}");
    }
}

#[test]
fn listed_calls_are_denied_and_calls_that_nobody_looked_at_are_absent() {
    for arch in BOTH {
        for denied in DENIED {
            let Some(number) = denied.number(arch) else { continue };
            let expected = match denied.answer {
                Answer::NotPermitted => EPERM,
                Answer::NoSuchCall => ENOSYS,
            };
            let name = denied.name;
            assert_eq!(
                verdict(arch, call(arch, number, &[])),
                ERRNO | expected,
                "{arch:?}: {name}"
            );
        }
        for number in [NEWEST + 1, 1000] {
            assert_eq!(verdict(arch, call(arch, number, &[])), ERRNO | ENOSYS, "{number}");
        }
    }
}

#[test]
fn what_ordinary_software_does_is_allowed() {
    for arch in BOTH {
        let allowed = |number, arguments: &[u64]| {
            assert_eq!(
                verdict(arch, call(arch, number, arguments)),
                ALLOW,
                "{arch:?}: {number} {arguments:x?}"
            );
        };
        // pthread_create, fork, vfork of glibc.
        for flags in [0x003d_0f00, 0x0120_0011, 0x4111] {
            allowed(CLONE.number(arch), &[flags]);
        }
        allowed(UNSHARE.number(arch), &[0x600]);
        allowed(IOCTL.number(arch), &[0, 0x5401]);
        allowed(IOCTL.number(arch), &[0, 0x540e]);
        allowed(PERSONALITY.number(arch), &[0xffff_ffff]);
        allowed(PERSONALITY.number(arch), &[0]);
        // futex_wait, landlock_restrict_self, seccomp's newest relatives.
        for number in [446, 449, 455, NEWEST] {
            allowed(number, &[]);
        }
    }
}

#[test]
fn namespaces_terminal_input_and_personalities_are_denied_by_argument() {
    for arch in BOTH {
        let denied = |number, arguments: &[u64]| {
            assert_eq!(
                verdict(arch, call(arch, number, arguments)),
                ERRNO | EPERM,
                "{arch:?}: {number} {arguments:x?}"
            );
        };
        for bit in [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000] {
            denied(CLONE.number(arch), &[bit | 17]);
            denied(UNSHARE.number(arch), &[bit]);
        }
        denied(CLONE.number(arch), &[0x4000_0011]);
        denied(UNSHARE.number(arch), &[0x4000_0000]);
        denied(UNSHARE.number(arch), &[0x80]);
        for command in TERMINAL_INPUT {
            denied(IOCTL.number(arch), &[0, u64::from(command)]);
            denied(IOCTL.number(arch), &[0, u64::from(command) | (1 << 32)]);
        }
        denied(PERSONALITY.number(arch), &[8]);
        denied(PERSONALITY.number(arch), &[0x40000]);
    }
}

#[test]
fn the_numbers_are_those_of_this_architecture() {
    let Ok(arch) = Arch::native() else { return };
    let known = [
        ("clone3", libc::SYS_clone3),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("keyctl", libc::SYS_keyctl),
        ("add_key", libc::SYS_add_key),
        ("request_key", libc::SYS_request_key),
        ("pidfd_getfd", libc::SYS_pidfd_getfd),
        ("process_vm_readv", libc::SYS_process_vm_readv),
        ("process_vm_writev", libc::SYS_process_vm_writev),
        ("bpf", libc::SYS_bpf),
        ("perf_event_open", libc::SYS_perf_event_open),
        ("userfaultfd", libc::SYS_userfaultfd),
        ("setns", libc::SYS_setns),
        ("mount", libc::SYS_mount),
        ("umount2", libc::SYS_umount2),
        ("pivot_root", libc::SYS_pivot_root),
        ("chroot", libc::SYS_chroot),
        ("move_mount", libc::SYS_move_mount),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("open_by_handle_at", libc::SYS_open_by_handle_at),
        ("init_module", libc::SYS_init_module),
        ("finit_module", libc::SYS_finit_module),
        ("delete_module", libc::SYS_delete_module),
        ("kexec_load", libc::SYS_kexec_load),
        ("kexec_file_load", libc::SYS_kexec_file_load),
        ("reboot", libc::SYS_reboot),
        ("syslog", libc::SYS_syslog),
        ("settimeofday", libc::SYS_settimeofday),
        ("clock_settime", libc::SYS_clock_settime),
        ("quotactl", libc::SYS_quotactl),
        ("kcmp", libc::SYS_kcmp),
    ];
    for (name, number) in known {
        let denied = DENIED.iter().find(|denied| denied.name == name);
        let ours = denied.and_then(|denied| denied.number(arch));
        assert_eq!(ours.map(i64::from), Some(number), "{name}");
    }
    let judged = [
        (SOCKET, libc::SYS_socket),
        (SOCKETPAIR, libc::SYS_socketpair),
        (CLONE, libc::SYS_clone),
        (UNSHARE, libc::SYS_unshare),
        (PERSONALITY, libc::SYS_personality),
        (IOCTL, libc::SYS_ioctl),
    ];
    for (ours, number) in judged {
        assert_eq!(i64::from(ours.number(arch)), number);
    }
}

/// Of the drop-in, every value of a setting.
fn drop_in(setting: &str) -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd/agent-drop-in.conf");
    let text = std::fs::read_to_string(path).unwrap();
    let values = text.lines().filter_map(|line| line.strip_prefix(setting)?.strip_prefix('='));
    values.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

#[test]
fn a_unit_with_the_drop_in_is_denied_the_same_calls_as_a_launched_command() {
    let mut ours: Vec<_> = DENIED
        .iter()
        .map(|denied| match denied.answer {
            Answer::NotPermitted => denied.name.to_owned(),
            Answer::NoSuchCall => format!("{}:ENOSYS", denied.name),
        })
        .collect();
    let mut units: Vec<_> = drop_in("SystemCallFilter")
        .iter()
        .map(|name| name.strip_prefix('~').unwrap_or(name).to_owned())
        .collect();
    ours.sort();
    units.sort();
    assert_eq!(ours, units, "write the one into the other");
    assert_eq!(drop_in("SystemCallErrorNumber"), ["EPERM"]);
    // What the filter judges by arguments, and other architectures.
    assert_eq!(drop_in("RestrictNamespaces"), ["yes"]);
    assert_eq!(drop_in("LockPersonality"), ["yes"]);
    assert_eq!(drop_in("SystemCallArchitectures"), ["native"]);
    assert_eq!(drop_in("StandardInput"), ["null"]);
}

#[test]
fn a_unit_with_the_drop_in_makes_no_socket_that_a_launched_command_may_not_make() {
    let mut ours: Vec<_> = FAMILIES.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut units = drop_in("RestrictAddressFamilies");
    ours.sort();
    units.sort();
    assert_eq!(ours, units, "NETLINK_ROUTE aside, which systemd cannot tell from other netlink");
}
