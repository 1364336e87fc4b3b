//! Attached at the cgroup root itself, as in a real installation. Only in a machine of the run's own: on a
//! host the programs would run for every process on it.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use grantd_e2e::cgroup;
use grantd_e2e::check::{allowed, denied};
use grantd_e2e::issuer::Shape;
use grantd_e2e::machine;
use grantd_e2e::programs::not_run;
use grantd_e2e::server::Server;
use grantd_e2e::world::{A, A6, World, at, scenario, scenario_in};
use nix::mount::{MsFlags, mount, umount};

const AT_THE_ROOT: &str = "enforcement attached at the cgroup root itself";

#[test]
fn a01_attached_at_the_cgroup_root_a_workload_is_confined_and_nobody_else_is() -> Result<()> {
    if !machine::is_emulated() {
        let why = "the processes of this host are not the test's: `cargo xtask test --kernel 6.12` tries it";
        return not_run(AT_THE_ROOT, why);
    }
    scenario_in(World::assemble(Shape::okta()), |world| {
        let root = cgroup::mount_point()?;
        world.daemon.reconfigure(|config| config.cgroup_root = root.clone())?;
        world.daemon.start()?;
        let servers =
            [Server::tcp(&world.srv_a, at(A, 5432)?)?, Server::tcp(&world.srv_a, at(A6, 5432)?)?];
        let bystanders = [
            world.coding.moved_to(&root),
            world.coding.moved_to(&world.cgroups.outside()),
            world.coding.moved_to(&root).as_root(),
        ];
        for server in &servers {
            denied("a workload without a grant", &world.coding.tcp(server.address())?)?;
            for bystander in &bystanders {
                allowed("a bystander", &bystander.tcp(server.address())?)?;
            }
        }
        let draft = world.draft()?.tcp(A, 5432).tcp(A6, 5432);
        world.control_plane.push(&draft)?.in_force()?;
        // With nobody to serve it, what is attached at the root stays.
        world.daemon.kill9()?;
        for server in &servers {
            allowed("the workload that has a grant", &world.coding.tcp(server.address())?)?;
            denied("the one that has none", &world.research.tcp(server.address())?)?;
            denied("it as root", &world.research.as_root().tcp(server.address())?)?;
            allowed("a bystander", &bystanders[0].tcp(server.address())?)?;
        }
        Ok(())
    });
    Ok(())
}

#[test]
fn a10_classes_and_priorities_of_cgroup_v1_take_no_sockets_cgroup_away() -> Result<()> {
    const CLASSES: &str = "net_cls and net_prio of cgroup v1";
    if !machine::is_emulated() {
        let why = "a hierarchy of cgroup v1 is the whole host's: `cargo xtask test --kernel 6.12` tries it";
        return not_run(CLASSES, why);
    }
    let v1 = Path::new("/run/classes");
    fs::create_dir_all(v1)?;
    if mount(Some("none"), v1, Some("cgroup"), MsFlags::empty(), Some("net_cls,net_prio")).is_err()
    {
        return not_run(CLASSES, "this kernel has neither");
    }
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let other = Server::tcp(&world.srv_a, at(A, 5433)?)?;
        let class = v1.join("class");
        fs::create_dir_all(&class)?;
        fs::write(class.join("net_cls.classid"), "0x100001")?;
        fs::write(class.join("net_prio.ifpriomap"), "lo 5")?;
        world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
        let script = |to: &Server| {
            let probe = grantd_e2e::programs::find("probe")?;
            let enter = format!("echo 0 >{}/cgroup.procs", class.display());
            Ok::<_, anyhow::Error>(format!(
                "{enter} && exec {} tcp {}",
                probe.display(),
                to.address()
            ))
        };
        let said = |to: &Server| -> Result<String> {
            let output = world.coding.as_root().run("sh", &["-c", &script(to)?], &[])?;
            ensure!(output.status.success(), "{output:?}");
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let granted = said(&server)?;
        ensure!(!granted.contains("EPERM"), "what is granted: {granted}");
        let refused = said(&other)?;
        ensure!(refused.contains("EPERM"), "what is not granted: {refused}");
        Ok(())
    });
    umount(v1)?;
    Ok(())
}
