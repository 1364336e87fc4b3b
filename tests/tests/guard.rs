//! What cgroup hooks do not see, where the kernel has BPF LSM: other families, sockets that were made
//! elsewhere, whoever would send for the agent, and other processes. Everything is tried as root, so that
//! nothing but the guard refuses it, and by a bystander outside the slice, to whom it is allowed.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use grantd_e2e::audit::DENIED;
use grantd_e2e::check::RECORD;
use grantd_e2e::issuer::Shape;
use grantd_e2e::probe::Attack;
use grantd_e2e::server::Server;
use grantd_e2e::workload::Workload;
use grantd_e2e::world::{A, World, at, scenario_in};
use grantd_e2e::{clock, ctl, machine, programs};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

/// Runs a test where the guard is in effect; where it is not, says so.
fn guarded(
    name: &str,
    prepare: impl FnOnce(&mut World) -> Result<()>,
    test: impl FnOnce(&mut World) -> Result<()>,
) {
    scenario_in(World::assemble(Shape::okta()), |world| {
        prepare(world)?;
        world.daemon.start()?;
        if in_effect(world)? {
            return test(world);
        }
        let log = fs::read_to_string(world.daemon.log_path()).context("the daemon's log")?;
        let missing = log.lines().find_map(|line| line.split_once("of the guard is missing: "));
        let why = missing.map_or("the daemon does not say why", |(_, why)| why);
        // The kernels that are emulated have it: there its absence is a defect.
        ensure!(!machine::is_emulated(), "the guard is not in effect: {why}");
        programs::not_run(name, &why.chars().take(200).collect::<String>())
    });
}

fn in_effect(world: &World) -> Result<bool> {
    let status = ctl::ask(&world.daemon.socket(), &json!({"op": "status"}))?;
    let threats = [status.pointer("/threats"), status.pointer("/status/threats")];
    let threats = threats.into_iter().flatten().find_map(Value::as_array);
    let threats = threats.with_context(|| format!("a status without threats: {status}"))?;
    let state = |id: &str| threats.iter().find(|t| t["id"] == id).map(|t| t["state"].clone());
    Ok(["A2", "A4", "C5", "D1"].iter().all(|id| state(id) == Some(json!("closed"))))
}

fn nothing(_: &mut World) -> Result<()> {
    Ok(())
}

/// What the workload and a bystander get, both as root.
fn both(world: &World, arguments: &[&str]) -> Result<(Vec<Attack>, Vec<Attack>)> {
    Ok((escape(&world.coding.as_root(), arguments)?, escape(&bystander(world), arguments)?))
}

fn bystander(world: &World) -> Workload {
    world.coding.as_root().moved_to(&world.cgroups.outside())
}

fn escape(who: &Workload, arguments: &[&str]) -> Result<Vec<Attack>> {
    let mut all = vec!["escape"];
    all.extend(arguments);
    who.many(&all)
}

fn refused(attack: &Attack) -> bool {
    let answer = &attack.answer;
    !attack.succeeded && (answer.starts_with("EPERM") || answer.starts_with("EACCES"))
}

fn all_refused(attacks: &[Attack]) -> Result<()> {
    ensure!(!attacks.is_empty(), "nothing was tried");
    for attack in attacks {
        ensure!(refused(attack), "{} should be refused: {attack:?}", attack.what);
    }
    Ok(())
}

/// It may fail for want of a kernel module, but not by a verdict.
fn none_refused(attacks: &[Attack]) -> Result<()> {
    ensure!(!attacks.is_empty(), "nothing was tried");
    for attack in attacks {
        ensure!(!refused(attack), "{} should not be refused: {attack:?}", attack.what);
    }
    Ok(())
}

fn all_allowed(attacks: &[Attack]) -> Result<()> {
    ensure!(!attacks.is_empty(), "nothing was tried");
    for attack in attacks {
        ensure!(attack.succeeded, "{} should work: {attack:?}", attack.what);
    }
    Ok(())
}

fn recorded(world: &World, reason: &str, least: usize) -> Result<()> {
    let what = format!("what was refused as {reason}");
    world.spool.wait_for(&what, least, RECORD, |record| {
        record.kind() == DENIED && record.reason() == reason && record.workload() == "coding-agent"
    })?;
    Ok(())
}

#[test]
fn a02_a03_a_socket_connected_outside_carries_nothing_for_the_agent_and_is_not_handed_in() {
    guarded("a02_a03_a_socket_connected_outside", nothing, |world| {
        let tcp = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let udp = Server::udp(&world.srv_a, at(A, 5353)?)?;
        let (tcp, udp) = (tcp.address().to_string(), udp.address().to_string());
        // Even where the destination is granted: nothing would end it.
        let draft = world.draft()?.tcp(A, 5432).udp(A, 5353);
        world.control_plane.push(&draft)?.in_force()?;
        let outside = bystander(world);
        let late =
            |cgroup: &Path| escape(&outside, &["late", &cgroup.display().to_string(), &tcp, &udp]);
        let attacks = late(world.coding.cgroup())?;
        let [before, foreign @ .., file] = &attacks[..] else { anyhow::bail!("{attacks:?}") };
        all_allowed(&[before.clone(), file.clone()])?;
        ensure!(foreign.len() == 4, "{foreign:?}");
        all_refused(foreign)?;
        recorded(world, "foreign_socket", 3)?;
        recorded(world, "foreign_descriptor", 1)?;
        none_refused(&late(&world.cgroups.outside())?)
    });
}

#[test]
fn c03_c05_c06_no_family_beside_ip_local_and_route_netlink_can_be_opened() {
    guarded("c03_c05_c06_families", nothing, |world| {
        let (agent, outsider) = both(world, &["families"])?;
        all_refused(&agent)?;
        none_refused(&outsider)?;
        recorded(world, "address_family", agent.len())
    });
}

#[test]
fn a04_processes_outside_the_workload_cannot_be_looked_into_and_its_own_can() {
    guarded("a04_processes_outside", nothing, |world| {
        let target = bystander(world).start(&["serve"])?;
        let (agent, outsider) = both(world, &["look", &target.pid().to_string()])?;
        all_refused(&agent)?;
        all_allowed(&outsider)?;
        recorded(world, "ptrace", 3)?;
        let neighbour = world.research.as_root().start(&["serve"])?;
        all_refused(&escape(&world.coding.as_root(), &["look", &neighbour.pid().to_string()])?)?;
        all_allowed(&escape(&world.coding.as_root(), &["look-at-child"])?)
    });
}

#[test]
fn bpf_and_user_namespaces_are_refused_and_the_latter_open_by_a_word_of_config() {
    let prepare = |world: &mut World| {
        world.daemon.reconfigure(|config| {
            if let Some(research) = config.workloads.last_mut() {
                research.more.push("user_namespaces = true".to_owned());
            }
        })
    };
    guarded("bpf_and_user_namespaces", prepare, |world| {
        let pin = fs::read_dir(world.bpffs.path().join("grantd"))?.next().context("pins")??.path();
        let pin = pin.join("maps/WORKLOADS").display().to_string();
        let (agent, outsider) = both(world, &["bpf", &pin])?;
        ensure!(!agent.iter().any(|attack| attack.succeeded), "{agent:?}");
        all_allowed(&outsider)?;
        recorded(world, "bpf", 1)?;
        let (agent, outsider) = both(world, &["namespace"])?;
        all_refused(&agent)?;
        all_allowed(&outsider)?;
        recorded(world, "user_namespace", 1)?;
        all_allowed(&escape(&world.research.as_root(), &["namespace"])?)
    });
}

/// Services outside, each at a path of the run's own directory.
struct Services {
    directory: PathBuf,
    _docker: UnixListener,
    _log: UnixDatagram,
    _abstract: UnixListener,
    abstract_name: String,
}

impl Services {
    fn start(world: &World) -> Result<Self> {
        use std::os::linux::net::SocketAddrExt as _;
        let directory = world.workdir.subdir("services", 0o755)?;
        let abstract_name = format!("{}-bus", world.workdir.name());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&abstract_name)?;
        Ok(Self {
            _docker: UnixListener::bind(directory.join("docker.sock"))?,
            _log: UnixDatagram::bind(directory.join("log.sock"))?,
            // Abstract names belong to a network namespace.
            _abstract: world.host.enter(|| UnixListener::bind_addr(&address))??,
            directory,
            abstract_name,
        })
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }
}

#[test]
fn d01_d03_services_outside_cannot_be_talked_to_by_any_path_or_abstract_name() {
    guarded("d01_d03_services_outside", nothing, |world| {
        let services = Services::start(world)?;
        symlink(services.path("docker.sock"), services.path("link.sock"))?;
        fs::write(services.path("bound.sock"), "")?;
        let (from, to) = (services.path("docker.sock"), services.path("bound.sock"));
        mount(Some(from.as_str()), to.as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        let names = [
            from,
            services.path("link.sock"),
            to.clone(),
            format!("datagram:{}", services.path("log.sock")),
            format!("@{}", services.abstract_name),
        ];
        let mut arguments = vec!["local"];
        arguments.extend(names.iter().map(String::as_str));
        let result = both(world, &arguments);
        umount2(to.as_str(), MntFlags::MNT_DETACH)?;
        let (agent, outsider) = result?;
        all_refused(&agent)?;
        all_allowed(&outsider)?;
        recorded(world, "local_socket", names.len())
    });
}

#[test]
fn local_sockets_of_its_own_and_those_that_the_config_names_work() {
    let prepare = |world: &mut World| {
        let listed = world.workdir.path().join("listed.sock").display().to_string();
        world.daemon.reconfigure(|config| {
            if let Some(coding) = config.workloads.first_mut() {
                coding.more.push(format!("unix_sockets = [{listed:?}]"));
            }
        })
    };
    guarded("local_sockets_of_its_own", prepare, |world| {
        let own = world.workdir.subdir("own", 0o777)?.display().to_string();
        all_allowed(&escape(&world.coding.as_root(), &["own-local", &own])?)?;
        let listed = world.workdir.path().join("listed.sock");
        let path = listed.display().to_string();
        // A service that starts, and one that starts again, is found at the next look.
        for _ in 0..2 {
            drop(fs::remove_file(&listed));
            let _service = UnixListener::bind(&listed)?;
            clock::wait_until("the listed socket to open", Duration::from_secs(5), || {
                let attacks = escape(&world.coding.as_root(), &["local", &path])?;
                Ok(attacks.iter().all(|attack| attack.succeeded).then_some(()))
            })?;
            all_refused(&escape(&world.research.as_root(), &["local", &path])?)?;
        }
        Ok(())
    });
}

#[test]
fn f10_a_host_that_requires_the_guard_starts_only_where_all_of_it_was_seen_to_refuse() {
    scenario_in(World::assemble(Shape::okta()), |world| {
        world.daemon.start()?;
        let has = in_effect(world)?;
        world.daemon.reconfigure(|config| config.guard = "required")?;
        let restarted = world.daemon.restart();
        ensure!(restarted.is_ok() == has, "required, in effect {has}: {restarted:?}");
        if !has {
            let log = fs::read_to_string(world.daemon.log_path())?;
            ensure!(log.contains("[guard] mode is \"required\""), "no reason in the log");
        }
        world.daemon.reconfigure(|config| config.guard = "off")?;
        if has {
            world.daemon.restart()?;
        } else {
            world.daemon.start()?;
        }
        ensure!(!in_effect(world)?, "it was switched off");
        Ok(())
    });
}
