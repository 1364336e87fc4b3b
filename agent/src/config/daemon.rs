//! `[audit]`, `[time]`, `[paths]`, and the sections of later releases.

use std::path::PathBuf;

use super::reader::{Section, Value};
use super::units::{self, SIZE};
use super::values::absolute_path;

const DEFAULT_STATE: &str = "/var/lib/grantd";
const DEFAULT_RUN: &str = "/run/grantd";
/// Bytes of spool where the file says nothing: 1 GiB.
const DEFAULT_SPOOL_BYTES: u64 = 1 << 30;
/// Bytes of one segment where the file says nothing: 16 MiB.
const DEFAULT_SEGMENT_BYTES: u64 = 16 << 20;
/// Least bytes of a segment: a few hundred records.
const MIN_SEGMENT_BYTES: u64 = 64 << 10;

/// Where the daemon keeps what it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathsConfig {
    /// What outlives a reboot: ledger, spool. 0700.
    pub state: PathBuf,
    /// What does not: sockets.
    pub run: PathBuf,
}

/// The audit spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditConfig {
    /// Whether new grants are refused while no audit record can be written.
    pub required: bool,
    /// Directory of the spool's segments.
    pub dir: PathBuf,
    /// Most bytes of the spool.
    pub max_bytes: u64,
    /// Bytes at which a segment is closed and the next begun.
    pub segment_bytes: u64,
}

/// What an unsynchronised clock means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynchronised {
    /// New grants are refused until the clock is synchronised.
    Refuse,
    /// New grants are accepted all the same.
    Allow,
}

/// Reads `[paths]`, which may be absent.
pub(super) fn read_paths(root: &mut Section<'_>) -> Option<PathsConfig> {
    let Some(value) = root.optional("paths") else {
        return Some(PathsConfig { state: DEFAULT_STATE.into(), run: DEFAULT_RUN.into() });
    };
    value.table("[paths]", |section| {
        let state = path_or(section.optional("state"), DEFAULT_STATE);
        let run = path_or(section.optional("run"), DEFAULT_RUN);
        Some(PathsConfig { state: state?, run: run? })
    })
}

fn path_or(value: Option<Value<'_>>, default: &str) -> Option<PathBuf> {
    value.map_or_else(|| Some(default.into()), |value| absolute_path(&value))
}

/// Reads `[audit]`, which may be absent. The spool is in the state directory unless it says otherwise.
pub(super) fn read_audit(
    root: &mut Section<'_>,
    paths: Option<&PathsConfig>,
) -> Option<AuditConfig> {
    let default_dir = || paths.map(|paths| paths.state.join("audit"));
    let Some(value) = root.optional("audit") else {
        return Some(AuditConfig {
            required: true,
            dir: default_dir()?,
            max_bytes: DEFAULT_SPOOL_BYTES,
            segment_bytes: DEFAULT_SEGMENT_BYTES,
        });
    };
    value.table("[audit]", |section| {
        section.refuse(
            "sink",
            "sinks arrive with a later release: records would stay in the spool unnoticed",
            "remove every [[audit.sink]]; records are in the spool",
        );
        let required = section.optional("required").map_or(Some(true), |value| value.boolean());
        let dir = section.optional("dir").map_or_else(default_dir, |value| absolute_path(&value));
        let max = section
            .optional("max_bytes")
            .map_or(Some(DEFAULT_SPOOL_BYTES), |value| size(&value, 2 * MIN_SEGMENT_BYTES));
        let segment = section
            .optional("segment_bytes")
            .map_or(Some(DEFAULT_SEGMENT_BYTES), |value| size(&value, MIN_SEGMENT_BYTES));
        if let (Some(max), Some(segment)) = (max, segment)
            && segment > max / 2
        {
            section.fault(
                "max_bytes is less than two segments",
                "raise max_bytes or lower segment_bytes",
            );
        }
        Some(AuditConfig {
            required: required?,
            dir: dir?,
            max_bytes: max?,
            segment_bytes: segment?,
        })
    })
}

fn size(value: &Value<'_>, least: u64) -> Option<u64> {
    let bytes = value.parse(SIZE, units::size)?;
    if bytes < least {
        value.fault("is too small", format!("expected at least \"{}KiB\"", least >> 10));
        return None;
    }
    Some(bytes)
}

/// Reads `[time]`, which may be absent.
pub(super) fn read_time(root: &mut Section<'_>) -> Option<Unsynchronised> {
    let Some(value) = root.optional("time") else { return Some(Unsynchronised::Refuse) };
    value.table("[time]", |section| {
        let Some(value) = section.optional("unsynchronised") else {
            return Some(Unsynchronised::Refuse);
        };
        value.parse("\"refuse\" or \"allow\"", |text| match text {
            "refuse" => Ok(Unsynchronised::Refuse),
            "allow" => Ok(Unsynchronised::Allow),
            _ => Err("is no such rule"),
        })
    })
}

/// Sections that the design has and this release does not: refused, because a reader of the file would
/// take them for being in effect.
pub(super) fn refuse_later(root: &mut Section<'_>) {
    for key in ["dns", "metrics", "learn"] {
        root.refuse(key, "arrives with a later release and would have no effect", "remove it");
    }
}
