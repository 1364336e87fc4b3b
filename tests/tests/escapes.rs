//! The suite of ways out of the box, against a listener that no grant names, in a workload that is granted
//! another destination.

use anyhow::{Result, ensure};
use grantd_e2e::escapes::Who;
use grantd_e2e::ways::only_the_named;
use grantd_e2e::world::{World, scenario};

/// Ways that have to be shown to work outside the box for the suite to mean something.
const ENOUGH: usize = 60;

#[test]
fn an_ordinary_user_brings_nothing_out_by_any_way_but_those_that_are_named() {
    scenario(|world| whole_suite(world, Who::User(world.coding.uid())));
}

#[test]
fn root_without_capabilities_brings_nothing_out_by_any_way_but_those_that_are_named() {
    scenario(|world| whole_suite(world, Who::Root));
}

#[test]
fn root_with_the_raw_capability_of_containers_brings_nothing_out_but_by_those_that_are_named() {
    scenario(|world| whole_suite(world, Who::Container));
}

fn whole_suite(world: &World, who: Who) -> Result<()> {
    let shown = only_the_named(world, who, None)?;
    let arrived = shown.outside.arrived.len();
    ensure!(arrived >= ENOUGH, "only {arrived} probes arrive outside the box");
    Ok(())
}
