//! The part of `docs/audit.md` that is made from the code.

use std::fmt::Write;

use grantd_audit::{ocsf, samples};

const BEGIN: &str = "<!-- examples: made by `cargo run -p grantd-audit --example docs` -->\n";
const END: &str = "<!-- end of examples -->\n";

/// The page before, in and after the examples.
pub(crate) fn split(page: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = page.split_at_checked(page.find(BEGIN)? + BEGIN.len())?;
    let (examples, after) = rest.split_at_checked(rest.find(END)?)?;
    Some((before, examples, after))
}

/// One section for every event.
pub(crate) fn examples() -> Result<String, Box<dyn std::error::Error>> {
    let producer = samples::producer();
    let mut page = String::new();
    for (sample, sequence) in samples::all().into_iter().zip(1..) {
        let mut line = Vec::new();
        ocsf::encode(&sample.event, &samples::stamp(sequence), &producer, &mut line)?;
        let record: serde_json::Value = serde_json::from_slice(&line)?;
        let shown = String::from_utf8(ocsf::pretty(&line))?;
        let (name, when) = (sample.name, sample.when);
        let member = |name| record.get(name).cloned().unwrap_or_default();
        let (uid, kind) = (member("type_uid"), member("type_name"));
        let kind = kind.as_str().unwrap_or_default();
        write!(page, "\n### {name}\n\n")?;
        writeln!(page, "`{uid}`, {kind}. Written when {when}.\n")?;
        write!(page, "```json\n{shown}```\n")?;
    }
    page.push('\n');
    Ok(page)
}
