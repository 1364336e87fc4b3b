//! What tests assert again and again, with messages that say what a user would lose.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::audit::Record;
use crate::control_plane::Answer;
use crate::machine;
use crate::probe::Attempt;
use crate::server::Server;
use crate::world::World;

/// How long a record may take from the event to the spool.
pub const RECORD: Duration = Duration::from_secs(5);

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
