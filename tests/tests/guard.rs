//! What cgroup hooks do not see, where the kernel has BPF LSM: other families, sockets that were made
//! elsewhere, whoever would send for the agent, and other processes. Everything is tried as root, so that
//! nothing but the guard refuses it, and by a bystander outside the slice, to whom it is allowed.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use grantd_e2e::guarded::{
    Services, all_allowed, all_refused, both, bystander, escape, guarded, none_refused, nothing,
    recorded,
};
use grantd_e2e::launch::{Answers, Launcher, answers, expect};
use grantd_e2e::server::Server;
use grantd_e2e::workload::Workload;
use grantd_e2e::world::{A, World, at};
use grantd_e2e::{clock, programs};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

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

/// What `calls` is answered as the workload, and as a bystander.
fn calls(world: &World, verb: &str) -> Result<(Answers, Answers)> {
    let program = Launcher::new(world)?.calls.display().to_string();
    let asked = |who: &Workload| answers(&who.run(&program, &[verb], &[])?);
    Ok((asked(&world.coding.as_root())?, asked(&bystander(world))?))
}

/// Families of `calls` by number: those that the guard refuses, and those that are the workload's to have.
fn only_its_families(prefix: &str, agent: &Answers, outsider: &Answers) -> Result<()> {
    for closed in [libc::AF_VSOCK, libc::AF_PACKET, libc::AF_ALG] {
        let what = format!("{prefix}-{closed}");
        expect(agent, &what, "EPERM")?;
        ensure!(
            outsider.get(&what).is_some_and(|answer| answer != "EPERM"),
            "{what}: {outsider:?}"
        );
    }
    for open in [libc::AF_UNIX, libc::AF_INET] {
        expect(agent, &format!("{prefix}-{open}"), "done")?;
    }
    Ok(())
}

#[test]
fn c07_io_uring_makes_no_socket_of_another_family() {
    guarded("c07_io_uring", nothing, |world| {
        let (agent, outsider) = calls(world, "rings")?;
        expect(&outsider, "ring-socket-2", "done")?;
        only_its_families("ring-socket", &agent, &outsider)?;
        recorded(world, "address_family", 3)
    });
}

#[test]
fn c08_32_bit_calls_make_no_socket_of_another_family() {
    guarded("c08_32_bit_calls", nothing, |world| {
        let (agent, outsider) = calls(world, "abi")?;
        if outsider.contains_key("int80") {
            return programs::not_run("c08_32_bit_calls", "this kernel has no 32-bit system calls");
        }
        only_its_families("int80-socket", &agent, &outsider)?;
        only_its_families("int80-socketcall", &agent, &outsider)?;
        recorded(world, "address_family", 6)
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
