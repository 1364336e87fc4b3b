//! What tests assert again and again, with messages that say what a user would lose.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::audit::{FINDING, Record};
use crate::control_plane::Answer;
use crate::launch::{Launcher, expect};
use crate::machine;
use crate::probe::Attempt;
use crate::server::Server;
use crate::world::World;

/// How long a record may take from the event to the spool.
pub const RECORD: Duration = Duration::from_secs(5);

/// How long it may take until it is told that something was undone behind grantd's back.
pub const ALARM: Duration = Duration::from_secs(10);

/// Whether a record tells of that.
#[must_use]
pub fn is_alarm(record: &Record) -> bool {
    record.kind() == FINDING && record.text("/finding_info/types/0") == "tamper"
}

/// Waits for the alarm that says `what`, and for the status that fails with it.
///
/// # Errors
/// When it does not come in time, or health stays good.
pub fn alarm(world: &World, what: &str) -> Result<()> {
    let said = |record: &Record| is_alarm(record) && record.text("/message").contains(what);
    world.spool.wait_for(&format!("an alarm that says {what:?}"), 1, ALARM, said)?;
    let status = world.daemon.ask(&json!({"op": "status"}))?;
    ensure!(
        status.get("enforcing") == Some(&json!(false)),
        "health is good after {what:?}: {status}"
    );
    let why = status.get("not_enforcing").map(Value::to_string).unwrap_or_default();
    ensure!(why.contains(what), "the status does not say {what:?}: {why}");
    let exit = world.daemon.run("grantctl", &["status"])?.status.code();
    ensure!(exit == Some(1), "grantctl status exits {exit:?} after {what:?}");
    Ok(())
}

/// Detaches the link that is pinned there, as root may, and leaves the pin.
///
/// # Errors
/// When the kernel refuses.
pub fn detach(world: &World, pin: &Path) -> Result<()> {
    let pin = pin.to_str().context("a path")?;
    expect(&Launcher::new(world)?.as_root(&["detach", pin])?, "detach", "done")
}

/// Checks that an attempt reached its destination.
///
/// # Errors
/// When it did not.
pub fn allowed(what: &str, attempt: &Attempt) -> Result<()> {
    ensure!(attempt.ok, "{what} should work, and does not: {attempt:?}");
    Ok(())
}

/// Checks that an attempt was denied by the kernel at once.
///
/// # Errors
/// When it worked, or failed in another way or late.
pub fn denied(what: &str, attempt: &Attempt) -> Result<()> {
    ensure!(!attempt.ok, "{what} works, and must not: {attempt:?}");
    ensure!(attempt.denied(), "{what} fails, but not by our verdict (EPERM): {attempt:?}");
    let at_once = machine::patience(Duration::from_millis(500)).as_micros();
    ensure!(
        u128::from(attempt.elapsed_us) < at_once,
        "{what} hangs before it is denied: {attempt:?}"
    );
    Ok(())
}

/// Pushes something bad and checks all that must follow: its reason and check number in the answer,
/// exactly one audit record with that reason, and kernel maps as they were.
///
/// # Errors
/// When any of that does not hold.
pub fn refused_without_trace(
    world: &World,
    what: &str,
    reason: &str,
    push: impl FnOnce(&World) -> Result<Answer>,
) -> Result<Answer> {
    let maps = world.kernel.entries()?;
    let before = refusals(world)?.len();
    let answer = push(world).and_then(|answer| answer.refused(reason)).context(what.to_owned())?;
    let records =
        world.spool.wait_for("a refused grant", before + 1, RECORD, Record::is_refused_grant)?;
    ensure!(
        records.len() == before + 1,
        "{what}: {} records of one refusal",
        records.len() - before
    );
    let told = records.last().map(Record::reason);
    ensure!(told == Some(reason), "{what}: refused as {reason}, recorded as {told:?}");
    let after = world.kernel.entries()?;
    ensure!(
        after == maps,
        "{what}: a refused grant changed the kernel maps: {maps:?} -> {after:?}"
    );
    Ok(answer)
}

/// Checks that the server has heard nothing of a connection after an instant (microseconds since
/// 1970); gives how long before that it heard the last.
///
/// # Errors
/// When it has, or never saw the connection.
pub fn silent_after(server: &Server, local: SocketAddr, instant_us: u64) -> Result<Duration> {
    let visits = server.visits();
    let visit = visits.iter().find(|visit| visit.peer == local);
    let last = visit.context("the server never saw the connection")?.last_byte_us;
    let before = instant_us.checked_sub(last).with_context(|| {
        format!("a live connection delivered something {} µs too late", last - instant_us)
    })?;
    Ok(Duration::from_micros(before))
}

/// Every record of a refused grant so far.
///
/// # Errors
/// When the spool cannot be read.
pub fn refusals(world: &World) -> Result<Vec<Record>> {
    Ok(world.spool.records()?.into_iter().filter(Record::is_refused_grant).collect())
}
