//! Somebody with root undoes what grantd did: it is told within ten seconds, and put back. (C11)

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use grantd_common::{WorkloadEntry, WorkloadId};
use grantd_e2e::audit::Record;
use grantd_e2e::check::{ALARM, alarm, allowed, denied, detach, is_alarm};
use grantd_e2e::programs;
use grantd_e2e::server::Server;
use grantd_e2e::world::{A, World, at, scenario};
use serde_json::{Value, json};

/// How long an untouched host is watched for false alarms: two rounds over the maps and more.
const QUIET: Duration = Duration::from_secs(12);

fn status_is_good_again(world: &World) -> Result<()> {
    grantd_e2e::clock::wait_until("good health after a repair", 3 * ALARM, || {
        let status = world.daemon.ask(&json!({"op": "status"}))?;
        Ok((status.get("enforcing") == Some(&json!(true))).then_some(()))
    })
}

/// A granted and an ungranted destination, both answered by a server.
fn two_servers(world: &World) -> Result<(Server, Server)> {
    let granted = Server::tcp(&world.srv_a, at(A, 5432)?)?;
    let other = Server::tcp(&world.srv_a, at(A, 5433)?)?;
    world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
    works(world, &granted, &other)?;
    Ok((granted, other))
}

fn works(world: &World, granted: &Server, other: &Server) -> Result<()> {
    allowed("what is granted", &world.coding.tcp(granted.address())?)?;
    denied("what is not granted", &world.coding.tcp(other.address())?)
}

#[test]
fn c11_a_host_that_nobody_touches_raises_no_alarm() {
    scenario(|world| {
        let (granted, other) = two_servers(world)?;
        std::thread::sleep(QUIET);
        works(world, &granted, &other)?;
        let false_alarms: Vec<String> =
            world.spool.records()?.iter().filter(|r| is_alarm(r)).map(Record::summary).collect();
        ensure!(false_alarms.is_empty(), "{false_alarms:?}");
        status_is_good_again(world)
    });
}

#[test]
fn c11_a_removed_pin_of_a_link_opens_nothing_and_is_put_back_with_an_alarm() {
    scenario(|world| {
        let (granted, other) = two_servers(world)?;
        for hook in ["connect4", "egress"] {
            let pin = world.daemon.link_pin(hook)?;
            fs::remove_file(&pin)?;
            // The daemon holds the link itself: not even for a moment.
            works(world, &granted, &other)?;
            alarm(world, &format!("the pin of the link {hook} was removed"))?;
            ensure!(pin.exists(), "{} is not back", pin.display());
        }
        status_is_good_again(world)?;
        // What was put back is what enforces without the daemon.
        world.daemon.kill9()?;
        works(world, &granted, &other)
    });
}

#[test]
fn c11_a_detached_program_is_attached_again_with_an_alarm() {
    scenario(|world| {
        let (granted, other) = two_servers(world)?;
        for hook in ["connect4", "egress", "sock_create"] {
            detach(world, &world.daemon.link_pin(hook)?)?;
            alarm(world, &format!("the program {hook} was detached"))?;
            works(world, &granted, &other)?;
        }
        status_is_good_again(world)
    });
}

#[test]
fn c11_a_removed_pin_of_the_watch_is_put_back_with_an_alarm() {
    scenario(|world| {
        let (granted, other) = two_servers(world)?;
        let Ok(pin) = world.daemon.link_pin("cgroup_mkdir") else {
            return programs::not_run("a removed pin of the watch", "this kernel takes no watch");
        };
        for hook in ["cgroup_mkdir", "cgroup_attach_task"] {
            fs::remove_file(world.daemon.link_pin(hook)?)?;
            alarm(world, &format!("the pin of the link {hook} was removed"))?;
        }
        fs::remove_file(world.kernel.pin("PATHS"))?;
        alarm(world, "the pin of the map PATHS was removed")?;
        ensure!(pin.exists() && world.kernel.pin("PATHS").exists(), "the pins are not back");
        works(world, &granted, &other)?;
        status_is_good_again(world)
    });
}

#[test]
fn c11_a_removed_pin_of_a_map_is_put_back_with_an_alarm_and_adopted_by_the_next_daemon() {
    scenario(|world| {
        let (granted, other) = two_servers(world)?;
        for map in ["GRANTS", "SOCKETS"] {
            fs::remove_file(world.kernel.pin(map))?;
            alarm(world, &format!("the pin of the map {map} was removed"))?;
            ensure!(world.kernel.pin(map).exists(), "the pin of {map} is not back");
        }
        let talking = world.coding.hold(granted.address(), Some(50))?;
        world.daemon.restart()?;
        works(world, &granted, &other)?;
        talking.still_stands()?;
        Ok(())
    });
}

#[test]
fn c11_a_workload_or_slice_that_is_forgotten_is_known_again_with_an_alarm() {
    scenario(|world| {
        let (granted, other) = two_servers(world)?;
        let workload = fs::metadata(world.coding.cgroup())?.ino();
        world.kernel.forget_cgroup(workload)?;
        denied(
            "what is granted, to a task of no known workload",
            &world.coding.tcp(granted.address())?,
        )?;
        alarm(world, &format!("the entry of the cgroup {workload} in WORKLOADS"))?;
        works(world, &granted, &other)?;
        let slice = fs::metadata(world.cgroups.slice())?.ino();
        world.kernel.forget_cgroup(slice)?;
        alarm(world, &format!("the entry of the cgroup {slice} in WORKLOADS"))?;
        let entry = world.kernel.workload(slice)?;
        assert_eq!(entry.flags, WorkloadEntry::SLICE | WorkloadEntry::ATTACHED);
        works(world, &granted, &other)?;
        status_is_good_again(world)
    });
}

#[test]
fn c11_a_grant_that_was_forged_in_the_maps_is_ended_with_an_alarm() {
    scenario(|world| {
        let (granted, other) = two_servers(world)?;
        let workload: WorkloadId =
            world.kernel.workload(fs::metadata(world.coding.cgroup())?.ino())?.workload;
        world.kernel.forge(30_000, workload, other.address())?;
        // Positive control: the forgery would have worked.
        let through = world.coding.hold(other.address(), Some(50))?;
        alarm(world, "slot 30000 of GRANTS was written")?;
        alarm(world, ":5433 was put into EXACT")?;
        through.wait_for_break(Duration::from_secs(10)).context("the forged connection goes on")?;
        works(world, &granted, &other)?;
        status_is_good_again(world)
    });
}

#[test]
fn every_known_way_out_is_in_status_host_view_and_the_record_of_a_start() {
    scenario(|world| {
        let status = world.daemon.ask(&json!({"op": "status"}))?;
        let listed = status["threats"].as_array().context("threats in the status")?;
        ensure!(listed.len() == 57, "{} known ways out", listed.len());
        let state = |id: &str| {
            listed.iter().find(|t| t["id"] == json!(id)).map_or(&Value::Null, |t| &t["state"])
        };
        assert_eq!((state("A1"), state("E7")), (&json!("closed"), &json!("open")));
        let text = world.daemon.run("grantctl", &["status"])?;
        let text = String::from_utf8_lossy(&text.stdout).into_owned();
        ensure!(text.contains("Known ways out: ") && text.contains("\n  E7 "), "{text}");
        ensure!(!text.contains("\n  A1 "), "closed ones are not listed: {text}");
        let started = |record: &Record| record.kind() / 100 == 6002;
        let records = world.spool.wait_for("a start", 1, ALARM, started)?;
        let record = records.first().context("a start")?;
        let coverage = record.get("/unmapped/state/coverage").to_string();
        for id in ["\"name\":\"A1\"", "\"name\":\"F10\"", "\"name\":\"connect4\""] {
            ensure!(
                coverage.contains(id),
                "the record of the start does not name {id}: {coverage}"
            );
        }
        Ok(())
    });
}
