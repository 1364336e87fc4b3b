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
    let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let time = record.get("time").and_then(Value::as_u64).map_or_else(|| "-".to_owned(), utc);
    let what = text("/type_name").unwrap_or_else(|| "record of an unknown type".to_owned());
    let mut line = format!("{time}  {what}");
    let count = record.get("count").and_then(Value::as_u64).filter(|count| *count > 1);
    let details = [
        ("workload", text("/unmapped/workload")),
        ("grant", text("/metadata/correlation_uid")),
        ("to", destination(record)),
        ("opens", opens(record)),
        ("call", text("/api/operation")),
        ("reason", text("/status_code")),
        ("count", count.map(|count| count.to_string())),
        ("finding", text("/finding_info/title")),
        ("detail", text("/status_detail").or_else(|| text("/message"))),
    ];
    for (name, value) in details {
        if let Some(value) = value {
            line.push_str(&format!("  {name}={value}"));
        }
    }
    plain(&line)
}

/// The destinations of a grant: the first and how many more.
fn opens(record: &Value) -> Option<String> {
    let all = record.get("privileges")?.as_array()?;
    let first = all.first()?.as_str()?;
    let more = all.len() - 1;
    Some(if more == 0 { first.to_owned() } else { format!("{first} and {more} more") })
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    /// A spool of `count` records, as it lies on disk.
    fn spool(count: u64) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        let lines = (1..=count).map(|sequence| {
            let record = json!({
                "metadata": {"sequence": sequence, "correlation_uid": "g1"},
                "time": 1_795_310_987_000_u64, "type_name": "Network Activity: Refuse",
                "status_id": 2, "status_code": "no_grant", "count": 3,
                "dst_endpoint": {"ip": "fd00::7", "port": 22},
                "unmapped": {"workload": "coding-agent\u{1b}[2J"},
            });
            format!("{record}\n")
        });
        std::fs::write(dir.path().join(format!("{:020}.jsonl", 1)), lines.collect::<String>())
            .unwrap();
        dir
    }

    fn tailed(dir: &TempDir, from: Option<u64>, lines: Option<usize>, json: bool) -> String {
        let args = TailArgs { follow: false, from, lines, dir: Some(dir.path().to_owned()) };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut ui = Ui { out: &mut out, err: &mut err, colour: false };
        tail(&args, PathBuf::new, json, &mut ui).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn numbers(text: &str) -> Vec<u64> {
        text.lines().map(|l| l.split_whitespace().next().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn the_newest_records_are_shown_unless_another_start_is_asked_for() {
        let dir = spool(50);
        assert_eq!(numbers(&tailed(&dir, None, None, false)), (31..=50).collect::<Vec<_>>());
        assert_eq!(numbers(&tailed(&dir, None, Some(2), false)), [49, 50]);
        assert_eq!(numbers(&tailed(&dir, Some(48), None, false)), [48, 49, 50]);
        assert_eq!(numbers(&tailed(&dir, Some(10), Some(2), false)), [10, 11]);
    }

    #[test]
    fn a_line_says_what_was_denied_to_whom_and_why_and_steers_no_terminal() {
        let line = tailed(&spool(1), None, None, false);
        let expected = "       1  2026-11-22T01:29:47Z  Network Activity: Refuse  \
                        workload=coding-agent?[2J  grant=g1  to=[fd00::7]:22  reason=no_grant  \
                        count=3\n";
        assert_eq!(line, expected);
    }

    #[test]
    fn as_json_records_come_whole_and_one_a_line() {
        let text = tailed(&spool(3), None, None, true);
        let records = text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
        let sequences: Vec<_> = records.map(|r| r["metadata"]["sequence"].as_u64()).collect();
        assert_eq!(sequences, [Some(1), Some(2), Some(3)]);
    }
}
