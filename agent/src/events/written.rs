//! Which kernel events the spool holds already: what a killed daemon wrote and could not note any more.

use std::collections::BTreeMap;
use std::path::Path;

use grantd_audit::{ReadError, Reader, StartAt};
use grantd_common::Ring;
use serde::Deserialize;

/// Records that are looked at: many times what one daemon leaves between writing and noting.
const RECORDS: u64 = 20_000;

/// Next sequence number by ring and CPU.
#[derive(Clone, Debug, Default)]
pub struct Written(BTreeMap<(u32, u32), u64>);

#[derive(Deserialize)]
struct Line {
    type_uid: u64,
    device: Device,
    #[serde(default)]
    unmapped: Unmapped,
}

#[derive(Deserialize)]
struct Device {
    boot_uid: String,
}

#[derive(Deserialize, Default)]
struct Unmapped {
    kernel: Option<Stamp>,
}

#[derive(Deserialize)]
struct Stamp {
    cpu: u32,
    sequence: u64,
}

impl Written {
    /// Reads the newest records of a spool. Only for rings that outlived the daemon: new rings count
    /// from zero again.
    ///
    /// # Errors
    /// The spool cannot be read.
    pub fn read(spool: &Path, boot_id: &str) -> Result<Self, ReadError> {
        let mut reader = Reader::open(spool, StartAt::Last(RECORDS))?;
        let mut written = Self::default();
        while let Some(line) = reader.next_line()? {
            // A line of another shape is none of ours to count.
            if let Ok(line) = serde_json::from_slice::<Line>(&line.json) {
                written.add(&line, boot_id);
            }
        }
        Ok(written)
    }

    fn add(&mut self, line: &Line, boot_id: &str) {
        let ring = match line.type_uid {
            400_101..=400_103 => Ring::Flows,
            400_105 => Ring::Denials,
            _ => return,
        };
        if let (Some(stamp), true) = (&line.unmapped.kernel, line.device.boot_uid == boot_id) {
            let next = self.0.entry((ring as u32, stamp.cpu)).or_insert(0);
            *next = (*next).max(stamp.sequence + 1);
        }
    }

    pub(super) fn next(&self, ring: Ring, cpu: u32) -> u64 {
        self.0.get(&(ring as u32, cpu)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_spool_is_not_reported_as_lost_and_another_boot_does_not_count() {
        let line = |kind: u64, boot: &str, cpu: u32, sequence: u64| {
            let text = format!(
                r#"{{"type_uid":{kind},"device":{{"boot_uid":"{boot}"}},"unmapped":{{"kernel":{{"boot_ns":"1","cpu":{cpu},"sequence":{sequence}}}}}}}"#
            );
            serde_json::from_str::<Line>(&text).unwrap()
        };
        let mut written = Written::default();
        written.add(&line(400_105, "b1", 0, 41), "b1");
        written.add(&line(400_105, "b1", 0, 40), "b1");
        written.add(&line(400_105, "b0", 0, 900), "b1");
        written.add(&line(400_101, "b1", 1, 5), "b1");
        written.add(&line(400_102, "b1", 1, 6), "b1");
        assert_eq!(written.next(Ring::Denials, 0), 42);
        assert_eq!(written.next(Ring::Flows, 1), 7);
        assert_eq!(written.next(Ring::Flows, 0), 0);
    }
}
