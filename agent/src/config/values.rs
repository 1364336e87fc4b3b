//! Kinds of value that several sections have.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use grantd_grant::policy::HARD_MAX_TTL;
use grantd_grant::{PortRange, Protocol};

use super::reader::Value;
use super::units::{self, DURATION};

/// Longest path, in bytes (`PATH_MAX`).
const MAX_PATH: usize = 4096;

/// A path from the root, without `.` and `..`.
pub(super) fn absolute_path(value: &Value<'_>) -> Option<PathBuf> {
    value.parse("a path from the root, such as \"/etc/grantd/control-plane.jwks\"", |text| {
        if plain_absolute(Path::new(text)) && text.len() < MAX_PATH && !text.contains('\0') {
            Ok(PathBuf::from(text))
        } else {
            Err("is not an absolute path, or holds . or ..")
        }
    })
}

fn plain_absolute(path: &Path) -> bool {
    // `components` swallows `.`, so that part of the text is compared as well.
    path.is_absolute()
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
        && !path.as_os_str().as_encoded_bytes().split(|b| *b == b'/').any(|part| part == b".")
}

/// A duration of at most `max`, which reads as `shown`.
pub(super) fn bounded_duration(value: &Value<'_>, max: Duration, shown: &str) -> Option<Duration> {
    let duration = value.parse(DURATION, units::duration)?;
    if duration > max {
        value.fault("is too long", format!("expected at most \"{shown}\""));
        return None;
    }
    Some(duration)
}

/// The life of a grant.
pub(super) fn ttl(value: &Value<'_>) -> Option<Duration> {
    bounded_duration(value, HARD_MAX_TTL, "60m")
}

/// `ports = [443, { from = 8000, to = 8010 }]`.
pub(super) fn ports(value: &Value<'_>) -> Option<Vec<PortRange>> {
    value.each("ports, such as [443, { from = 8000, to = 8010 }]", |port| {
        if port.is_integer() {
            return PortRange::single(port_number(port)?).ok();
        }
        port.table("a port or { from = …, to = … }", |range| {
            let from = range.required("from", "the first port").and_then(|v| port_number(&v));
            let to = range.required("to", "the last port").and_then(|v| port_number(&v));
            let (from, to) = (from?, to?);
            PortRange::new(from, to)
                .map_err(|_| range.fault("from is above to", "write the lower port as from"))
                .ok()
        })
    })
}

/// A port, never 0.
pub(super) fn port_number(value: &Value<'_>) -> Option<u16> {
    value.integer(1..=u64::from(u16::MAX)).and_then(|port| u16::try_from(port).ok())
}

/// `protocol = "tcp"` or `"udp"`.
pub(super) fn protocol(value: &Value<'_>) -> Option<Protocol> {
    value.parse("\"tcp\" or \"udp\"", |text| Protocol::parse(text).ok_or("is no such protocol"))
}
