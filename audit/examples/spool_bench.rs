//! How many records a second go through the spool, with and without the recorder in front, every batch
//! synced: `cargo run --release -p grantd-audit --example spool_bench [DIR [RECORDS]]`.
//!
//! DIR is the directory below which the spool is made, on the disk that is to be measured.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use grantd_audit::event::Event;
use grantd_audit::{Recorder, Spool, SpoolConfig, ocsf, samples};

/// Records between two syncs when the spool is driven directly.
const BATCH: u64 = 1_000;

type Fault = Box<dyn std::error::Error>;

fn main() -> Result<(), Fault> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let records: u64 = arguments.next().map_or(Ok(200_000), |count| count.parse())?;
    let dir = dir.join(format!("spool-bench-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let outcome = measure(&dir, records);
    std::fs::remove_dir_all(&dir)?;
    outcome
}

fn measure(dir: &Path, records: u64) -> Result<(), Fault> {
    let mut out = std::io::stdout().lock();
    let event = Event::ConnectionAllowed(samples::connection());

    let mut line = Vec::new();
    let encoded = timed(|| {
        for sequence in 0..records {
            line.clear();
            ocsf::encode(&event, &ocsf::Stamp::new(sequence, 1), &samples::producer(), &mut line)?;
        }
        Ok(())
    })?;
    writeln!(out, "encode only     {}", rate(records, encoded))?;

    let (mut spool, _) = Spool::open(SpoolConfig::new(dir.join("direct")), samples::producer())?;
    let direct = timed(|| {
        for number in 1..=records {
            spool.append(&event, number)?;
            if number % BATCH == 0 {
                spool.commit()?;
            }
        }
        Ok(spool.commit()?)
    })?;
    writeln!(out, "spool, synced   {}  ({BATCH} records a sync)", rate(records, direct))?;
    let bytes = spool.status().bytes;
    writeln!(out, "size            {} bytes a record", bytes / records.max(1))?;

    let (spool, _) = Spool::open(SpoolConfig::new(dir.join("recorder")), samples::producer())?;
    let (recorder, writer) = Recorder::start(spool)?;
    let mut longest = Duration::ZERO;
    let start = now();
    for number in 0..records {
        let event = event.clone();
        // A real source is paced by the kernel's rings; here it waits instead of losing events.
        while recorder.stats().waiting > 16_384 {
            std::thread::sleep(Duration::from_micros(200));
        }
        let before = now();
        recorder.record(event, number);
        longest = longest.max(now() - before);
    }
    let report = writer.stop(Duration::from_secs(600))?;
    writeln!(
        out,
        "recorder        {}  (longest record() {longest:?})",
        rate(records, now() - start)
    )?;
    writeln!(out, "                {report:?}")?;
    Ok(())
}

fn timed(work: impl FnOnce() -> Result<(), Fault>) -> Result<Duration, Fault> {
    let start = now();
    work()?;
    Ok(now() - start)
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures how long things take")]
fn now() -> Instant {
    Instant::now()
}

fn rate(records: u64, time: Duration) -> String {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
    let each = time / u32::try_from(records.max(1)).unwrap_or(u32::MAX);
    format!("{:>9} records/s  {each:>10.2?} each", records.saturating_mul(1_000_000) / micros)
}
