//! `grantctl audit tail`: the records of the local spool.

use std::{path::PathBuf, thread, time::Duration};

use grantd_audit::{Line, Reader, StartAt};
use serde_json::Value;

use super::{
    args::TailArgs,
    error::CliError,
    ui::{Tone, Ui, plain, utc},
};

/// How often a followed spool is looked at when it is quiet.
const POLL: Duration = Duration::from_millis(200);
/// Records shown when nothing else is asked for.
const DEFAULT_LINES: usize = 20;

/// Prints records, and with `--follow` never comes back but by an error.
pub(super) fn tail(
    args: &TailArgs,
    default_dir: impl FnOnce() -> PathBuf,
    json: bool,
    ui: &mut Ui<'_>,
) -> Result<(), CliError> {
    let directory = args.dir.clone().unwrap_or_else(default_dir);
    let failed = |source: grantd_audit::ReadError| CliError::Audit {
        directory: directory.clone(),
        source: source.into(),
    };
    // A spool that is not there yet would read as an empty one.
    std::fs::read_dir(&directory)
        .map_err(|e| CliError::Audit { directory: directory.clone(), source: e.into() })?;
    let start = match args.from {
        Some(sequence) => StartAt::Sequence(sequence),
        None => StartAt::Last(args.lines.unwrap_or(DEFAULT_LINES) as u64),
    };
    let mut reader = Reader::open(&directory, start).map_err(failed)?;
    // With --from, -n bounds what is printed in all; without, it says where to begin.
    let mut left = args.from.and(args.lines).unwrap_or(usize::MAX);
    while left > 0 {
        match reader.next_line().map_err(failed)? {
            Some(line) => {
                print(&line, json, ui)?;
                left -= 1;
            }
            None if args.follow => {
                ui.out.flush()?;
                thread::sleep(POLL);
            }
            None => break,
        }
    }
    if reader.damaged() > 0 {
        writeln!(ui.err, "grantctl: {} lines were not records and were skipped", reader.damaged())?;
    }
    Ok(())
}

fn print(line: &Line, json: bool, ui: &mut Ui<'_>) -> Result<(), CliError> {
    match serde_json::from_slice::<Value>(&line.json) {
        Ok(record) if !json => {
            let text = summary(&record);
            let sequence = ui.paint(Tone::Faint, &format!("{:>8}", line.sequence));
            let text = if is_refusal(&record) { ui.paint(Tone::Bad, &text) } else { text };
            writeln!(ui.out, "{sequence}  {text}")?;
        }
        Ok(_) | Err(_) => {
            ui.out.write_all(&line.json)?;
            ui.out.write_all(b"\n")?;
        }
    }
    Ok(())
}

/// One line of a record: time, what happened, to whom, why. The whole record is what `--json` prints.
fn summary(record: &Value) -> String {
    let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str);
    let time = record.get("time").and_then(Value::as_u64).map_or_else(|| "-".to_owned(), utc);
    let class = text("/class_name").unwrap_or("record");
    let mut parts = vec![time, format!("{class}: {}", text("/activity_name").unwrap_or("-"))];
    let details = [
        ("workload", text("/unmapped/workload")),
        ("grant", text("/metadata/correlation_uid")),
        ("status", text("/status_code")),
    ];
    parts.extend(details.iter().filter_map(|(name, value)| Some(format!("{name}={}", (*value)?))));
    if let Some(to) = destination(record) {
        parts.push(format!("to={to}"));
    }
    parts.extend(text("/message").map(str::to_owned));
    plain(&parts.join("  "))
}

fn destination(record: &Value) -> Option<String> {
    let endpoint = record.get("dst_endpoint")?;
    let host = endpoint.get("hostname").or_else(|| endpoint.get("ip"))?.as_str()?;
    Some(match endpoint.get("port").and_then(Value::as_u64) {
        Some(port) if host.contains(':') => format!("[{host}]:{port}"),
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

/// OCSF `status_id` 2 is Failure, `action_id` 2 is Denied.
fn is_refusal(record: &Value) -> bool {
    ["status_id", "action_id"].iter().any(|key| record.get(key).and_then(Value::as_u64) == Some(2))
}
