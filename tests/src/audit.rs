//! The audit spool, read as anybody with the right to read it would: JSON lines.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::clock;

/// A connection was allowed.
pub const ALLOWED: u64 = 400_101;
/// A connection was denied.
pub const DENIED: u64 = 400_105;
/// A connection ended by itself.
pub const CLOSED: u64 = 400_102;
/// A connection was cut.
pub const CUT: u64 = 400_103;
/// A grant is in force, or was refused (`status` tells).
pub const GRANT: u64 = 300_501;
/// A grant ended.
pub const GRANT_ENDED: u64 = 300_502;

/// A Detection Finding: losses, tampering, an id used twice.
pub const FINDING: u64 = 200_401;

/// One record.
#[derive(Clone, Debug)]
pub struct Record(pub Value);

impl Record {
    /// A member by its path, such as `/metadata/sequence`.
    #[must_use]
    pub fn get(&self, pointer: &str) -> &Value {
        self.0.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// A text by its path; empty where there is none.
    #[must_use]
    pub fn text(&self, pointer: &str) -> &str {
        self.get(pointer).as_str().unwrap_or_default()
    }

    /// `type_uid`.
    #[must_use]
    pub fn kind(&self) -> u64 {
        self.get("/type_uid").as_u64().unwrap_or_default()
    }

    /// How many attempts it stands for.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.get("/count").as_u64().unwrap_or(1)
    }

    /// `metadata.sequence`.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.get("/metadata/sequence").as_u64().unwrap_or_default()
    }

    /// The reason code; of a finding, the one that its evidence names.
    #[must_use]
    pub fn reason(&self) -> &str {
        let evidence = self.get("/finding_info/tags").as_array();
        let named = evidence.and_then(|tags| {
            tags.iter().find(|tag| tag.get("name").and_then(Value::as_str) == Some("reason"))
        });
        match named.and_then(|tag| tag.get("value")).and_then(Value::as_str) {
            Some(reason) => reason,
            None => self.text("/status_code"),
        }
    }

    /// The id of the grant that it belongs to.
    #[must_use]
    pub fn grant(&self) -> &str {
        self.text("/metadata/correlation_uid")
    }

    /// The name of the workload that it is about.
    #[must_use]
    pub fn workload(&self) -> &str {
        self.text("/unmapped/workload")
    }

    /// Destination as `address:port`.
    #[must_use]
    pub fn destination(&self) -> String {
        format!("{}:{}", self.text("/dst_endpoint/ip"), self.get("/dst_endpoint/port"))
    }

    /// One line of it for a failure's message.
    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "{:>5} {} {:<40} {:<22} {:<16} {} {}",
            self.sequence(),
            self.get("/time"),
            self.text("/type_name"),
            self.reason(),
            self.workload(),
            self.destination(),
            self.grant()
        )
    }

    /// Whether it tells that a grant was refused: an Assign that failed, or for an id that was used
    /// for another grant before, the finding that takes its place.
    #[must_use]
    pub fn is_refused_grant(&self) -> bool {
        let failed = self.kind() == GRANT && self.text("/status") == "Failure";
        failed || (self.kind() == FINDING && self.reason() == "jti_reused")
    }

    /// Whether it tells that a grant is in force.
    #[must_use]
    pub fn is_grant_in_force(&self) -> bool {
        self.kind() == GRANT && self.text("/status") == "Success"
    }
}

/// A spool's directory.
#[derive(Clone, Debug)]
pub struct Spool {
    directory: PathBuf,
}

impl Spool {
    /// The spool below a daemon's state directory.
    #[must_use]
    pub fn of(state: &Path) -> Self {
        Self { directory: state.join("audit") }
    }

    /// The spool in this directory.
    #[must_use]
    pub fn at(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Every whole record so far, in order.
    ///
    /// # Errors
    /// When the spool cannot be read or a whole line is no JSON.
    pub fn records(&self) -> Result<Vec<Record>> {
        let mut segments: Vec<PathBuf> = match fs::read_dir(&self.directory) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            Err(_) => return Ok(Vec::new()),
        };
        segments.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
        segments.sort();
        let mut records = Vec::new();
        for segment in segments {
            let text = fs::read_to_string(&segment)
                .with_context(|| format!("reading {}", segment.display()))?;
            let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
            for line in whole.lines() {
                let value = serde_json::from_str(line)
                    .with_context(|| format!("a record in {}", segment.display()))?;
                records.push(Record(value));
            }
        }
        Ok(records)
    }

    /// The records that fit, once there are at least `least` of them.
    ///
    /// # Errors
    /// When there are fewer after `patience`; the message names `what`.
    pub fn wait_for(
        &self,
        what: &str,
        least: usize,
        patience: Duration,
        fits: impl Fn(&Record) -> bool,
    ) -> Result<Vec<Record>> {
        clock::wait_until(&format!("{least} audit records of {what}"), patience, || {
            let found: Vec<Record> =
                self.records()?.into_iter().filter(|record| fits(record)).collect();
            Ok((found.len() >= least).then_some(found))
        })
    }

    /// The last records as text, for a failure's message.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        let records = self.records().unwrap_or_default();
        let last = records.get(records.len().saturating_sub(lines)..).unwrap_or_default();
        last.iter().map(|record| format!("{}\n", record.summary())).collect()
    }
}
