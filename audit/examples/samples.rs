//! Prints one record of every event, as a collector would receive them: `cargo run -p grantd-audit --example samples`.
//! With `--extremes`, every kind of every event, also with nothing known about it.

use std::io::Write;

use grantd_audit::{ocsf, samples};

fn main() -> std::io::Result<()> {
    let events = if std::env::args().any(|argument| argument == "--extremes") {
        samples::extremes()
    } else {
        samples::all().into_iter().map(|sample| sample.event).collect()
    };
    let producer = samples::producer();
    let mut lines = Vec::new();
    for (event, sequence) in events.iter().zip(1..) {
        ocsf::encode(event, &samples::stamp(sequence), &producer, &mut lines)?;
    }
    std::io::stdout().lock().write_all(&lines)
}
