//! Enforcement is proven every few seconds, and not taken for granted: a denial is denied, a grant works,
//! and both leave their records. (F7)

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use grantd_common::WorkloadId;
use grantd_e2e::audit::{FINDING, Record};
use grantd_e2e::check::allowed;
use grantd_e2e::clock;
use grantd_e2e::server::Server;
use grantd_e2e::world::{A, World, at, scenario};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

/// How long an alarm may take: a round is begun every five seconds, and an attempt that hangs takes four.
const ALARM: Duration = Duration::from_secs(10);
/// Idle callers of each of the canary's ports.
const IDLE_CALLERS: usize = 300;
/// Who floods the ring of denials, and how often each tries at a time.
const AGENTS: usize = 4;
const DENIALS: u64 = 50_000;
/// A slot that nothing else uses.
const SLOT: u32 = 30_001;
/// A state of `/proc/net/tcp`.
const LISTEN: &str = "0A";

fn status(world: &World) -> Result<Value> {
    world.daemon.ask(&json!({"op": "status"}))
}

fn alarm(world: &World, what: &str) -> Result<()> {
    let said = |record: &Record| {
        record.kind() == FINDING
            && record.text("/finding_info/types/0") == "canary_failed"
            && record.text("/message").contains(what)
    };
    world.spool.wait_for(&format!("an alarm that says {what:?}"), 1, ALARM, said)?;
    Ok(())
}

/// Waits for a state of the canary, as the status tells it.
fn canary(world: &World, what: &str, is: impl Fn(&Value, &Value) -> bool) -> Result<Value> {
    clock::wait_until(what, 3 * ALARM, || {
        let status = status(world)?;
        let of = |name: &str| status.get(name).context("a member of the status");
        Ok(is(of("canary")?, of("enforcing")?).then_some(status))
    })
}

fn state_of_f7(status: &Value) -> Result<&Value> {
    let threats =
        status.get("threats").and_then(Value::as_array).context("threats in the status")?;
    let f7 = threats.iter().find(|t| t.get("id") == Some(&json!("F7"))).context("F7")?;
    f7.get("state").context("the state of F7")
}

#[test]
fn f07_a_denial_and_a_grant_are_tried_every_few_seconds_and_leave_nothing_behind() {
    scenario(|world| {
        let before = world.spool.records()?.len();
        let status = canary(world, "three rounds of the canary", |canary, enforcing| {
            canary["passed"].as_u64() >= Some(3) && enforcing == &json!(true)
        })?;
        let canary = &status["canary"];
        ensure!(canary["failed"] == json!(0) && canary["problem"].is_null(), "{canary}");
        assert_eq!(state_of_f7(&status)?, &json!("closed"));
        let text = world.daemon.run("grantctl", &["status"])?;
        let text = String::from_utf8_lossy(&text.stdout).into_owned();
        ensure!(text.contains("canary   passed, last tried "), "{text}");
        let records = world.spool.records()?;
        let kept: Vec<String> = records.iter().skip(before).map(Record::summary).collect();
        ensure!(kept.is_empty(), "a quiet host has records of its canary: {kept:?}");
        let left: Vec<_> = std::fs::read_dir(world.cgroups.slice())?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with("grantd-"))
            .collect();
        ensure!(left.len() <= 1, "cgroups stay behind: {left:?}");
        Ok(())
    });
}

#[test]
fn f07_a_granted_connection_that_does_not_go_through_is_an_alarm_until_one_does() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let draft = world.draft()?.tcp(A, 5432);
        world.host.set_link("lo", false)?;
        alarm(world, "a granted connection did not go through")?;
        let failing = status(world)?;
        ensure!(failing["enforcing"] == json!(false), "health is good: {failing}");
        assert_eq!(state_of_f7(&failing)?, &json!("partly"));
        let exit = world.daemon.run("grantctl", &["status"])?.status.code();
        ensure!(exit == Some(1), "grantctl status exits {exit:?}");
        // Nothing was let through: what is asked for is still given.
        world.control_plane.push(&draft)?.in_force()?;
        allowed("what is granted", &world.coding.tcp(server.address())?)?;
        world.host.set_link("lo", true)?;
        canary(world, "good health", |canary, enforcing| {
            canary["problem"].is_null() && enforcing == &json!(true)
        })?;
        Ok(())
    });
}

#[test]
fn f07_a_denial_that_is_not_denied_is_an_alarm_and_no_new_grant_is_taken() {
    scenario(|world| {
        let listening = world.host.enter(loopback_listeners)??;
        ensure!(listening.len() >= 2, "the canary listens nowhere: {listening:?}");
        let draft = world.draft()?.tcp(A, 5432);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Faster than the self-check puts it back.
            let forging = scope.spawn(|| -> Result<()> {
                while !stop.load(Ordering::Relaxed) {
                    for to in &listening {
                        world.kernel.forge(SLOT, WorkloadId::CANARY, *to)?;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            });
            let told = alarm(world, "a connection that nothing grants went through");
            let refused = world.control_plane.push(&draft).and_then(|a| a.refused("not_enforcing"));
            stop.store(true, Ordering::Relaxed);
            forging.join().map_err(|_| anyhow::anyhow!("the forger panicked"))??;
            told.and(refused.map(drop))
        })?;
        canary(world, "good health", |canary, enforcing| {
            canary["problem"].is_null() && enforcing == &json!(true)
        })?;
        world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
        Ok(())
    });
}

#[test]
fn f07_whoever_calls_the_canary_and_says_nothing_keeps_it_from_no_round() {
    scenario(|world| {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most).context("allowing more open files")?;
        let (idle, left_out) = world.host.enter(|| -> Result<_> {
            let callers = loopback_listeners()?.into_iter().flat_map(|to| [to; IDLE_CALLERS]);
            let (idle, left_out): (Vec<_>, Vec<_>) =
                callers.map(|to| TcpStream::connect_timeout(&to, ALARM)).partition(|c| c.is_ok());
            Ok((idle, left_out.len()))
        })??;
        ensure!(idle.len() >= 2 * IDLE_CALLERS, "{} stood, {left_out} did not", idle.len());
        let before = passed(&status(world)?);
        let status = canary(world, "three more rounds", |canary, _| {
            canary["passed"].as_u64() >= Some(before + 3)
        })?;
        ensure!(status["canary"]["failed"] == json!(0), "{}", status["canary"]);
        Ok(())
    });
}

#[test]
fn f07_an_agent_that_floods_the_ring_of_denials_is_no_host_that_does_not_enforce() {
    scenario(|world| {
        let before = status(world)?;
        let stop = AtomicBool::new(false);
        let flooded = std::thread::scope(|scope| -> Result<Value> {
            let flood = || -> Result<()> {
                while !stop.load(Ordering::Relaxed) {
                    world.coding.times(at(A, 5432)?, DENIALS)?;
                }
                Ok(())
            };
            let agents: Vec<_> = (0..AGENTS).map(|_| scope.spawn(flood)).collect();
            let rounds = |status: &Value| passed(status) + unclear(status);
            let flooded = canary(world, "four rounds during the flood", |canary, _| {
                let canary = json!({ "canary": canary });
                rounds(&canary) >= rounds(&before) + 4
            });
            stop.store(true, Ordering::Relaxed);
            for agent in agents {
                agent.join().map_err(|_| anyhow::anyhow!("an agent panicked"))??;
            }
            flooded
        })?;
        ensure!(lost_denials(&flooded) > 0, "nothing was lost, so nothing is proven: {flooded}");
        let canary = &flooded["canary"];
        ensure!(canary["failed"] == json!(0) && canary["problem"].is_null(), "{canary}");
        let alarms = |record: &Record| record.text("/finding_info/types/0") == "canary_failed";
        ensure!(!world.spool.records()?.iter().any(alarms), "the flood is an alarm");
        Ok(())
    });
}

fn passed(status: &Value) -> u64 {
    status.pointer("/canary/passed").and_then(Value::as_u64).unwrap_or_default()
}

fn unclear(status: &Value) -> u64 {
    status.pointer("/canary/unclear").and_then(Value::as_u64).unwrap_or_default()
}

fn lost_denials(status: &Value) -> u64 {
    let losses = status["losses"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of = losses.iter().find(|counter| counter["name"] == "kernel_ring_denials");
    of.and_then(|counter| counter["count"].as_u64()).unwrap_or_default()
}

/// Ports of 127.0.0.1 at which something of this namespace listens.
fn loopback_listeners() -> Result<Vec<SocketAddr>> {
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp")?;
    let fields = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listening = fields.filter(|fields| fields.get(3) == Some(&LISTEN));
    let ports = listening.filter_map(|fields| {
        let port = fields.get(1)?.strip_prefix("0100007F:")?;
        u16::from_str_radix(port, 16).ok()
    });
    Ok(ports.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).collect())
}
