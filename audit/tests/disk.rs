//! What becomes of events while the disk takes nothing, or takes half of a write. Alone in its file, since
//! the limit that plays the full disk is the whole process's.

#![cfg(test)]

use std::time::Duration;

use grantd_audit::event::{Connection, Event};
use grantd_audit::{
    FlushError, QueueLimits, Reader, Recorder, Spool, SpoolConfig, StartAt, samples,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use serde_json::Value;

const LONG: Duration = Duration::from_secs(60);
const QUEUE: usize = 50;

/// Writes beyond so many bytes of a file fail; the write that crosses the limit is cut short by it.
fn limit_files(bytes: Option<u64>) {
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).expect("getrlimit");
    setrlimit(Resource::RLIMIT_FSIZE, bytes.unwrap_or(hard), hard).expect("setrlimit");
}

fn record(recorder: &Recorder, count: u64) {
    for time_ms in 0..count {
        recorder.record(Event::ConnectionDenied(Connection::default()), time_ms);
    }
}

#[test]
fn a_full_disk_costs_only_what_is_counted_and_half_a_write_costs_nothing() {
    // The writer's thread inherits this; the limit's signal would end the process.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGXFSZ);
    signals.thread_block().expect("blocked");
    let dir = tempfile::TempDir::new().expect("tempdir");
    let config = SpoolConfig::new(dir.path().join("audit"));
    let (spool, _) = Spool::open(config.clone(), samples::producer()).expect("opens");
    let limits = QueueLimits { events: [QUEUE; 4], ..QueueLimits::default() };
    let (recorder, writer) = Recorder::start_with(spool, limits).expect("starts");

    // A file may not grow beyond 20 kB: writes are cut short, and go to a new segment at the next try.
    limit_files(Some(20_000));
    for _ in 0..10 {
        record(&recorder, 10);
        while recorder.flush(LONG).is_err() {}
    }
    let stats = recorder.stats();
    assert!(stats.disk_errors > 0, "the limit was met: {stats:?}");
    assert_eq!((stats.written, stats.lost(), stats.waiting), (100, 0, 0));

    // Nothing goes at all: what does not fit into the queue is counted.
    limit_files(Some(0));
    record(&recorder, 1);
    assert!(matches!(recorder.flush(LONG), Err(FlushError::Disk(_))));
    let stats = recorder.stats();
    assert!(!stats.writing && stats.last_error.is_some(), "status shows it: {stats:?}");
    record(&recorder, 1_000);
    let stats = recorder.stats();
    assert!(stats.lost() >= 1_000 - QUEUE as u64 - 1, "{stats:?}");
    assert_eq!(stats.handed, stats.written + stats.lost() + stats.waiting);

    limit_files(None);
    recorder.flush(LONG).expect("the disk works again");
    assert!(recorder.stats().writing);

    // A disk that fails at the end does not keep the daemon from stopping, and the report says so.
    limit_files(Some(0));
    record(&recorder, 3);
    let report = writer.stop(LONG).expect("stops");
    limit_files(None);
    assert_eq!((report.handed, report.unwritten), (1_104, 3), "{report:?}");
    assert!(report.last_error.is_some());

    let (mut events, mut lost, mut next) = (0, 0, 1);
    let mut reader = Reader::open(&config.dir, StartAt::Oldest).expect("opens");
    while let Some(line) = reader.next_line().expect("reads") {
        let record: Value = serde_json::from_slice(&line.json).expect("json");
        match record["unmapped"]["loss"]["events"].as_u64() {
            Some(count) => {
                assert_eq!(line.sequence, next + count, "the gap is the loss");
                lost += count;
            }
            None => {
                assert_eq!(line.sequence, next, "no record is missing or there twice");
                events += 1;
            }
        }
        next = line.sequence + 1;
    }
    assert_eq!((events, lost), (report.written, report.lost));
    assert_eq!(events + lost + report.unwritten, report.handed);
    assert_eq!(reader.damaged(), 0, "half a write was taken back");
}
