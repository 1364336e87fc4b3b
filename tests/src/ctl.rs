//! The daemon's control socket, spoken by hand: one JSON object a line.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::machine;

/// Longer than any honest answer takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks the daemon and gives its reply: an object with `kind` and what belongs to it.
///
/// # Errors
/// When the daemon cannot be reached or answers with an error.
pub fn ask(socket: &Path, request: &Value) -> Result<Value> {
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("connecting to {}", socket.display()))?;
    stream.set_read_timeout(Some(machine::patience(PATIENCE)))?;
    let mut line = json!({"v": 1, "request": request}).to_string();
    line.push('\n');
    stream.write_all(line.as_bytes()).context("writing to the control socket")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).context("reading from the control socket")?;
    let mut answer: Value = serde_json::from_str(&answer)
        .with_context(|| format!("the control socket's answer {answer:?}"))?;
    let reply = answer.get_mut("reply").map(Value::take).context("an answer without a reply")?;
    if reply.get("kind").and_then(Value::as_str) == Some("error") {
        bail!("the daemon answered {reply}");
    }
    Ok(reply)
}

/// Live grants as the kernel was read back for them, all pages.
///
/// # Errors
/// As [`ask`].
pub fn grants(socket: &Path) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    let mut request = json!({"op": "grants"});
    loop {
        let mut page = ask(socket, &request)?;
        if let Some(Value::Array(grants)) = page.get_mut("grants").map(Value::take) {
            all.extend(grants);
        }
        match page.get("next") {
            Some(Value::String(next)) => request = json!({"op": "grants", "after": next}),
            _ => return Ok(all),
        }
    }
}
