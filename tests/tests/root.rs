//! Attached at the cgroup root itself, as in a real installation. Only in a machine of the run's own: on a
//! host the programs would run for every process on it.

use anyhow::Result;
use grantd_e2e::cgroup;
use grantd_e2e::check::{allowed, denied};
use grantd_e2e::issuer::Shape;
use grantd_e2e::machine;
use grantd_e2e::programs::not_run;
use grantd_e2e::server::Server;
use grantd_e2e::world::{A, A6, World, at, scenario_in};

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
