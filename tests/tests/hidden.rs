//! What a command started by `grantctl run` does not see: sockets of those who would send for it, and
//! devices that are networks.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use grantd_e2e::launch::{Answers, Launcher, expect, text};
use grantd_e2e::programs;
use grantd_e2e::world::{World, scenario, unguarded_scenario};
use serde_json::json;

/// A directory below /run with a socket in it that everybody may use, as a container engine's or a bus's.
struct Engine {
    directory: PathBuf,
    socket: String,
    _listener: UnixListener,
}

impl Engine {
    fn start(directory: PathBuf) -> Result<Self> {
        fs::create_dir_all(&directory)?;
        let socket = directory.join("engine.sock");
        let listener = UnixListener::bind(&socket)?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o777))?;
        let socket = socket.to_str().context("a path")?.to_owned();
        Ok(Self { directory, socket, _listener: listener })
    }

    fn below_run(world: &World) -> Result<Self> {
        Self::start(Path::new("/run").join(world.workdir.name()))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Has the coding workload's section say these lines, too.
fn reload_with(world: &mut World, lines: Vec<String>) -> Result<()> {
    world.daemon.reconfigure(|config| {
        if let Some(coding) = config.workloads.first_mut() {
            coding.more = lines;
        }
    })?;
    world.daemon.ask(&json!({"op": "reload"})).map(drop)
}

fn connected(launcher: &Launcher<'_>, socket: &str) -> Result<Answers> {
    launcher.inside(&["unix", socket])
}

#[test]
fn d01_d02_d04_a_socket_of_an_engine_or_a_bus_is_not_there() {
    unguarded_scenario(|world| {
        let engine = Engine::below_run(world)?;
        let socket = engine.socket.clone();
        {
            let launcher = Launcher::new(world)?;
            expect(&launcher.outside(&["unix", &socket])?, &socket, "done")?;
            expect(&connected(&launcher, &socket)?, &socket, "ENOENT")?;
            // Not by the directory that the caller stood in, nor by the old name of /run.
            let mut command = launcher.command(&[
                launcher.calls.to_str().context("a path")?,
                "unix",
                "engine.sock",
                "./engine.sock",
                "../engine.sock",
            ])?;
            command.current_dir(&engine.directory);
            let output = world.host.enter(|| command.output())??;
            ensure!(output.status.success(), "{}", text(&output.stderr));
            ensure!(!text(&output.stdout).contains("done"), "{}", text(&output.stdout));
            let old = format!("/var{socket}");
            ensure!(connected(&launcher, &old)?[&old] != "done", "{old} leads there");
            // A socket of its own works.
            let own = format!(
                "import socket,os; p='/tmp/{0}.own'; s=socket.socket(socket.AF_UNIX); s.bind(p); s.listen(); \
                 c=socket.socket(socket.AF_UNIX); c.connect(p); os.unlink(p)",
                world.workdir.name()
            );
            if Path::new("/usr/bin/python3").exists() {
                let output = launcher.run(&["/usr/bin/python3", "-c", &own])?;
                ensure!(output.status.success(), "{}", text(&output.stderr));
            }
            // One that is made later is not there either.
            let late =
                Engine::start(Path::new("/run").join(format!("{}-late", world.workdir.name())))?;
            expect(&connected(&launcher, &late.socket)?, &late.socket, "ENOENT")?;
        }
        let unhide = format!("unhide = [{:?}]", engine.directory);
        reload_with(world, vec![unhide])?;
        let launcher = Launcher::new(world)?;
        expect(&connected(&launcher, &socket)?, &socket, "done")?;
        let listed = launcher.run(&["ls", "/run"])?;
        assert_eq!(text(&listed.stdout).lines().count(), kept_below_run() + 1, "{listed:?}");
        Ok(())
    });
}

/// Entries of /run that stay on this host.
fn kept_below_run() -> usize {
    let kept = ["systemd/resolve", "resolvconf/resolv.conf", "NetworkManager/resolv.conf"];
    let names = kept.iter().filter(|kept| Path::new("/run").join(kept).exists());
    names.filter_map(|kept| kept.split('/').next()).collect::<std::collections::BTreeSet<_>>().len()
}

#[test]
fn d03_what_the_config_hides_is_not_reached_wherever_it_is() {
    unguarded_scenario(|world| {
        let engine = Engine::start(world.workdir.path().join("engine"))?;
        let socket = engine.socket.clone();
        let before = connected(&Launcher::new(world)?, &socket)?;
        expect(&before, &socket, "done")?;
        reload_with(world, vec![format!("hide = [{socket:?}]")])?;
        let launcher = Launcher::new(world)?;
        expect(&connected(&launcher, &socket)?, &socket, "ECONNREFUSED")?;
        expect(&launcher.outside(&["unix", &socket])?, &socket, "done")?;
        reload_with(world, vec![format!("hide = [{:?}, \"/nonexistent/x\"]", engine.directory)])?;
        let launcher = Launcher::new(world)?;
        expect(&connected(&launcher, &socket)?, &socket, "ENOENT")?;
        expect(&launcher.outside(&["unix", &socket])?, &socket, "done")
    });
}

#[test]
fn c04_no_device_is_there_that_leads_to_a_network() {
    scenario(|world| {
        let launcher = Launcher::new(world)?;
        let networks =
            ["/dev/net/tun", "/dev/vhost-net", "/dev/vsock", "/dev/vhost-vsock", "/dev/kvm"];
        let mut words = vec!["open"];
        words.extend(networks);
        let inside = launcher.inside(&words)?;
        for device in networks {
            expect(&inside, device, "ENOENT")?;
        }
        if !networks.iter().any(|device| Path::new(device).exists()) {
            programs::not_run("c04: the control outside", "this host has none of these devices")?;
        }
        let needed = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];
        let mut words = vec!["open"];
        words.extend(needed);
        let inside = launcher.inside(&words)?;
        for device in needed {
            expect(&inside, device, "done")?;
        }
        expect(&launcher.inside(&["calls"])?, "pty", "done")?;
        let listed = text(&launcher.run(&["ls", "/dev"])?.stdout);
        ensure!(listed.lines().count() < 16, "more than a few devices are left: {listed}");
        Ok(())
    });
}
