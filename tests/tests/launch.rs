//! What a command started by `grantctl run` cannot do although no kernel program of ours judges it: each
//! with the same operation of the same user outside, which works.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use grantd_e2e::clock::wait_until;
use grantd_e2e::launch::{Launcher, UID, USER, expect, text};
use grantd_e2e::programs;
use grantd_e2e::server::Server;
use grantd_e2e::world::{A, B, at, scenario};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SOON: Duration = Duration::from_secs(10);
/// `AF_UNIX`, `AF_INET`, `AF_INET6`.
const ALLOWED: [&str; 3] = ["1", "2", "10"];

fn pid(child: &Child) -> Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(child.id())?))
}

/// Kills what a test started outside, however the test ends.
struct Outsider(Child);

impl Drop for Outsider {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn c03_c05_c06_no_socket_but_of_the_three_families_is_made_in_any_way() {
    scenario(|world| {
        let launcher = Launcher::new(world)?;
        let outside = launcher.outside(&["families"])?;
        let inside = launcher.inside(&["families"])?;
        let mut denied_although_there = Vec::new();
        for (what, answer) in &inside {
            let mut parts = what.split('-');
            let (kind, family) = (parts.next(), parts.next().context("a family")?);
            let route = (kind == Some("netlink") && family == "0")
                || (kind == Some("socket") && family == "16");
            if ALLOWED.contains(&family) && kind != Some("netlink") || route {
                continue;
            }
            ensure!(answer == "EAFNOSUPPORT", "{what} was answered {answer}");
            if outside.get(what).is_some_and(|answer| answer == "done") {
                denied_although_there.push(what.clone());
            }
        }
        ensure!(inside.len() == outside.len(), "{} of {} were tried", inside.len(), outside.len());
        // Otherwise the kernel would have refused them by itself.
        ensure!(denied_although_there.len() > 3, "only {denied_although_there:?} work outside");
        for works in ["socket-1-1", "pair-1-1", "pair-1-2", "netlink-0"] {
            expect(&inside, works, "done")?;
        }
        // What kernel programs judge further is not hidden by the filter.
        world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
        expect(&inside, "socket-2-1", "done")?;
        expect(&inside, "socket-2-2", "done")
    });
}

#[test]
fn c07_io_uring_is_absent() {
    scenario(|world| {
        let launcher = Launcher::new(world)?;
        let inside = launcher.inside(&["calls"])?;
        for what in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
            expect(&inside, what, "ENOSYS")?;
        }
        let outside = launcher.outside(&["calls"])?;
        ensure!(outside["io_uring_enter"] != "ENOSYS", "it is absent outside as well: {outside:?}");
        expect(&inside, "fork", "done")
    });
}

#[test]
fn c08_a_32_bit_system_call_opens_no_socket() {
    scenario(|world| {
        let launcher = Launcher::new(world)?;
        let outside = launcher.outside(&["abi"])?;
        let inside = launcher.inside(&["abi"])?;
        for (what, answer) in inside.iter().filter(|(what, _)| *what != "int80") {
            ensure!(answer == "ENOSYS", "{what} was answered {answer}");
        }
        if outside.contains_key("int80") {
            return programs::not_run("c08: int 0x80", "this kernel has no 32-bit system calls");
        }
        for what in ["int80-getpid", "int80-socketcall-1", "int80-socket-16"] {
            expect(&outside, what, "done")?;
            expect(&inside, what, "ENOSYS")?;
        }
        Ok(())
    });
}

#[test]
fn c09_no_namespace_of_its_own_and_none_of_others() {
    scenario(|world| {
        let launcher = Launcher::new(world)?;
        let inside = launcher.inside(&["calls"])?;
        for what in ["unshare-user", "unshare-user-net", "clone-user", "clone-user-net", "setns"] {
            expect(&inside, what, "EPERM")?;
        }
        expect(&inside, "clone3", "ENOSYS")?;
        expect(&inside, "fork", "done")?;
        let outside = launcher.outside(&["calls"])?;
        if outside["unshare-user"] != "done" {
            let why = "this kernel gives ordinary users no user namespaces";
            return programs::not_run("c09: the control outside", why);
        }
        expect(&outside, "clone-user-net", "done")
    });
}

#[test]
fn c11_c12_no_capability_is_left_and_nothing_of_the_kernel_opens() {
    scenario(|world| {
        let launcher = Launcher::new(world)?;
        let sets = |status: &str| -> Vec<String> {
            let lines = status.lines().filter(|line| line.starts_with("Cap"));
            lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
        };
        let own = fs::read_to_string("/proc/self/status")?;
        ensure!(!sets(&own).contains(&format!("CapBnd: {:016x}", 0)), "the tests have none either");
        let status = launcher.run(&["cat", "/proc/self/status"])?;
        let status = text(&status.stdout);
        let expected: Vec<String> =
            ["Inh", "Prm", "Eff", "Bnd", "Amb"].map(|set| format!("Cap{set}: {:016x}", 0)).into();
        assert_eq!(sets(&status), expected, "{status}");
        ensure!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
        ensure!(status.contains("Groups:\t \n") || status.contains("Groups:\t\n"), "{status}");
        let inside = launcher.inside(&["calls"])?;
        let closed = ["bpf", "perf_event_open", "userfaultfd", "mount", "umount2", "open_tree"];
        for what in closed.into_iter().chain([
            "fsopen",
            "chroot",
            "open_by_handle_at",
            "kexec_load",
            "init_module",
            "personality",
        ]) {
            expect(&inside, what, "EPERM")?;
        }
        expect(&inside, "of-tomorrow", "ENOSYS")?;
        expect(&launcher.outside(&["calls"])?, "personality", "done")
    });
}

#[test]
fn d05_the_kernel_starts_nothing_for_a_key() {
    scenario(|world| {
        let launcher = Launcher::new(world)?;
        let (inside, outside) = (launcher.inside(&["calls"])?, launcher.outside(&["calls"])?);
        for what in ["keyctl", "add_key", "request_key"] {
            expect(&inside, what, "EPERM")?;
        }
        if outside["add_key"] == "ENOSYS" {
            return programs::not_run("d05: the control outside", "this kernel has no keys");
        }
        expect(&outside, "add_key", "done")?;
        expect(&outside, "request_key", "done")
    });
}

#[test]
fn a04_no_other_process_lends_its_descriptors_memory_or_view() {
    scenario(|world| {
        let launcher = Launcher::new(world)?;
        let mut other = launcher.unconfined("sleep");
        let other = Outsider(other.arg("600").spawn()?);
        let number = pid(&other.0)?.to_string();
        let outside = launcher.outside(&["outsider", &number])?;
        let inside = launcher.inside(&["outsider", &number])?;
        // Tracing is not asked of the system first: a policy such as Yama's may close more outside.
        expect(&outside, "signal", "done")?;
        expect(&outside, "root", "done")?;
        for what in ["pidfd_getfd", "process_vm_readv"] {
            expect(&inside, what, "EPERM")?;
        }
        if !has_landlock(&launcher)? {
            let why = "this kernel has no Landlock: [A4] stays open, and --verbose says so";
            return programs::not_run("a04: /proc and ptrace", why);
        }
        for what in ["memory", "root", "descriptor"] {
            expect(&inside, what, "EACCES")?;
        }
        expect(&inside, "ptrace", "EPERM")?;
        // What a debugger does to its own child goes on.
        let own = launcher.inside(&["calls"])?;
        expect(&own, "own-ptrace", "done")?;
        expect(&own, "own-signal", "done")
    });
}

/// The kernel's version of it, not what the launcher says.
fn landlock(launcher: &Launcher<'_>) -> Result<i32> {
    let answers = launcher.outside(&["landlock"])?;
    Ok(answers.get("landlock").context("a version")?.parse()?)
}

fn has_landlock(launcher: &Launcher<'_>) -> Result<bool> {
    Ok(landlock(launcher)? > 0)
}

#[test]
fn d03_no_abstract_socket_of_others_is_reached_and_none_of_them_signalled() {
    scenario(|world| {
        let launcher = Launcher::new(world)?;
        let name = world.workdir.name().to_owned();
        let address = SocketAddr::from_abstract_name(&name)?;
        let _listener = world.host.enter(|| UnixListener::bind_addr(&address))??;
        let mut other = launcher.unconfined("sleep");
        let other = Outsider(other.arg("600").spawn()?);
        let number = pid(&other.0)?.to_string();
        expect(&launcher.outside(&["abstract", &name])?, "abstract", "done")?;
        let arguments =
            ["run", "--verbose", "--workload", "coding-agent", "--user", USER, "--", "true"];
        let told = text(&world.daemon.run("grantctl", &arguments)?.stderr);
        if landlock(&launcher)? < 6 {
            ensure!(told.contains("open: [") && told.contains("D3]"), "nothing says so: {told}");
            return programs::not_run("d03", "this kernel's Landlock has no scopes (Linux 6.12)");
        }
        ensure!(told.contains("Landlock domain with scopes"), "{told}");
        expect(&launcher.inside(&["abstract", &name])?, "abstract", "EPERM")?;
        expect(&launcher.inside(&["outsider", &number])?, "signal", "EPERM")?;
        expect(&launcher.outside(&["outsider", &number])?, "signal", "done")
    });
}

#[test]
fn d08_a_setuid_program_gains_nothing() {
    scenario(|world| {
        let launcher = Launcher::new(world)?;
        let program = world.workdir.path().join("setuid");
        fs::copy(&launcher.calls, &program)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o4755))?;
        let program = program.to_str().context("a path")?;
        let outside = launcher.unconfined(program).arg("euid").output()?;
        assert_eq!(text(&outside.stdout), "euid 0\n", "it gains nothing outside either");
        let inside = launcher.run(&[program, "euid"])?;
        assert_eq!(text(&inside.stdout), format!("euid {UID}\n"));
        Ok(())
    });
}

#[test]
fn d08_no_input_is_pushed_into_the_callers_terminal() {
    scenario(|world| {
        let launcher = Launcher::new(world)?;
        let calls = launcher.calls.display().to_string();
        // script(1) gives its command a controlling terminal.
        let on_a_terminal = |words: &str| -> Result<String> {
            let mut script = Command::new("script");
            script.args(["-qec", words, "/dev/null"]).stdin(Stdio::null());
            Ok(text(&world.host.enter(|| script.output())??.stdout))
        };
        if on_a_terminal("true").is_err() {
            return programs::not_run("d08: TIOCSTI", "there is no script(1) here");
        }
        let command = launcher.command(&[&calls, "terminal"])?;
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        let grantctl = command.get_program().to_string_lossy();
        let inside = on_a_terminal(&format!("{grantctl} {}", words.join(" ")))?;
        ensure!(inside.contains("push-input EPERM"), "{inside}");
        ensure!(inside.contains("open-tty ENXIO"), "it has a controlling terminal: {inside}");
        let outside = on_a_terminal(&format!("{calls} terminal"))?;
        ensure!(outside.contains("open-tty done"), "no terminal outside either: {outside}");
        if !outside.contains("push-input done") {
            let why = "this kernel lets nobody push input (dev.tty.legacy_tiocsti)";
            return programs::not_run("d08: TIOCSTI, the control outside", why);
        }
        Ok(())
    });
}

#[test]
fn a02_no_socket_made_outside_reaches_the_command() {
    scenario(|world| {
        let launcher = Launcher::new(world)?;
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let calls = launcher.calls.to_str().context("a path")?;
        // A connected socket on 3 is closed, whoever has to live without it.
        let command = launcher.command(&[calls, "descriptors"])?;
        let mut bash = Command::new("bash");
        bash.args(["-c", &format!("exec 3<>/dev/tcp/{A}/5432; exec \"$@\""), "bash"]);
        bash.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
        let inside = world.host.enter(|| bash.output())?.context("bash")?;
        ensure!(inside.status.success(), "{}", text(&inside.stderr));
        assert_eq!(
            text(&inside.stdout),
            "descriptor-0 done\ndescriptor-1 done\ndescriptor-2 done\n"
        );
        ensure!(server.count() == 1, "bash had no connection to pass on");
        // On 0 to 2 it is refused by number.
        let connected = world.host.enter(|| std::net::TcpStream::connect(server.address()))??;
        let (pair, _other) = UnixStream::pair()?;
        let directory = File::open("/run")?;
        let given: [(&str, OwnedFd); 3] = [
            ("a socket", connected.into()),
            ("a socket", pair.into()),
            ("a directory", directory.into()),
        ];
        for (kind, fd) in given {
            let mut command = launcher.command(&["true"])?;
            command.stdin(Stdio::from(fd));
            let refused = world.host.enter(|| command.output())??;
            assert_eq!(refused.status.code(), Some(64), "{kind} on 0");
            let said = text(&refused.stderr);
            ensure!(said.contains(&format!("descriptor 0 is {kind}")), "{said}");
        }
        let mut command = launcher.command(&["cat"])?;
        command.stdin(Stdio::from(File::open("/etc/hostname").or(File::open("/etc/passwd"))?));
        let fine = world.host.enter(|| command.output())??;
        ensure!(fine.status.success() && !fine.stdout.is_empty(), "a file on 0 should pass");
        Ok(())
    });
}

#[test]
fn p14_confinement_outlives_its_launcher_and_needs_no_proxy_settings() {
    scenario(|world| {
        let launcher = Launcher::new(world)?;
        let granted = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let other = Server::tcp(&world.srv_b, at(B, 5432)?)?;
        world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
        let calls = launcher.calls.to_str().context("a path")?;
        for (host, kill_it, expected) in [(A, false, "done"), (A, true, "done"), (B, true, "EPERM")]
        {
            let mut command = launcher.command(&[calls, "later", host, "5432"])?;
            command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = world.host.spawn(&mut command)?;
            let mut stdout = child.stdout.take().context("its output")?;
            // Waiting for the launcher would close it.
            let mut stdin = child.stdin.take().context("its input")?;
            let mut ready = [0; 11];
            stdout.read_exact(&mut ready)?;
            assert_eq!(&ready, b"ready done\n");
            if kill_it {
                child.kill()?;
                child.wait()?;
            }
            stdin.write_all(b"go\n")?;
            let mut rest = String::new();
            stdout.read_to_string(&mut rest)?;
            assert_eq!(rest, format!("tcp {expected}\n"), "to {host}, launcher killed: {kill_it}");
            let _ = child.wait();
        }
        assert_eq!((granted.count(), other.count()), (2, 0));
        Ok(())
    });
}

#[test]
fn the_commands_end_is_the_launchers_and_signals_reach_it() {
    scenario(|world| {
        let launcher = Launcher::new(world)?;
        assert_eq!(launcher.run(&["sh", "-c", "exit 7"])?.status.code(), Some(7));
        assert_eq!(launcher.run(&["sh", "-c", "kill -9 $$"])?.status.code(), Some(137));
        assert_eq!(launcher.run(&["/nonexistent"])?.status.code(), Some(127));
        assert_eq!(launcher.run(&["/etc/passwd"])?.status.code(), Some(126));
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1] {
            let name = signal.as_str().trim_start_matches("SIG");
            let script = format!("trap 'exit 9' {name}; echo ready; while :; do sleep 0.05; done");
            let mut command = launcher.command(&["sh", "-c", &script])?;
            command.stdout(Stdio::piped());
            let mut child = world.host.spawn(&mut command)?;
            child.stdout.as_mut().context("its output")?.read_exact(&mut [0; 6])?;
            kill(pid(&child)?, signal)?;
            let status = wait_until("the command to end", SOON, || Ok(child.try_wait()?))?;
            assert_eq!(status.code(), Some(9), "{signal} did not reach the command");
        }
        world.daemon.kill9()?;
        let launcher = Launcher::new(world)?;
        let refused = launcher.run(&["true"])?;
        assert_eq!(refused.status.code(), Some(69), "{}", text(&refused.stderr));
        Ok(())
    });
}
