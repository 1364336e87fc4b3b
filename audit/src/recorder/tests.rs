use std::sync::mpsc::sync_channel;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::event::{
    Connection, Finding, FindingKind, GrantInForce, GrantRefused, Lifecycle, LifecycleKind,
};
use crate::{Reader, SpoolConfig, StartAt, samples};

const LONG: Duration = Duration::from_secs(60);

fn allowed() -> Event {
    Event::ConnectionAllowed(Connection { count: 2, ..Connection::default() })
}

fn denied() -> Event {
    Event::ConnectionDenied(Connection::default())
}

fn limits(events: usize) -> QueueLimits {
    QueueLimits { events: [events; 4], ..QueueLimits::default() }
}

fn spool(dir: &TempDir) -> (Spool, SpoolConfig) {
    let config = SpoolConfig::new(dir.path().join("audit"));
    (Spool::open(config.clone(), samples::producer()).expect("opens").0, config)
}

fn records(config: &SpoolConfig) -> Vec<Value> {
    let mut reader = Reader::open(&config.dir, StartAt::Oldest).expect("opens");
    let mut records = Vec::new();
    while let Some(line) = reader.next_line().expect("reads") {
        records.push(serde_json::from_slice(&line.json).expect("json"));
    }
    records
}

#[test]
fn what_was_flushed_is_on_disk() {
    let dir = TempDir::new().expect("tempdir");
    let (spool, config) = spool(&dir);
    let (recorder, writer) = Recorder::start(spool).expect("starts");
    recorder.record(allowed(), 5);
    recorder.record(Event::GrantInForce(GrantInForce::default()), 6);
    recorder.flush(LONG).expect("flushed");
    assert_eq!(records(&config).len(), 2);
    let stats = recorder.stats();
    assert_eq!((stats.handed, stats.written, stats.waiting, stats.lost()), (2, 2, 0, 0));
    assert!(stats.writing);
    assert_eq!(stats.spool.durable_sequence, 2);
    writer.stop(LONG).expect("stops");
}

#[test]
fn an_allowed_connection_alone_is_on_disk_without_being_asked_for() {
    let dir = TempDir::new().expect("tempdir");
    let (spool, config) = spool(&dir);
    let (recorder, writer) = Recorder::start(spool).expect("starts");
    recorder.record(allowed(), 5);
    let mut tries = 0;
    while records(&config).is_empty() {
        tries += 1;
        assert!(tries < 1_000, "group commit never came");
        std::thread::sleep(Duration::from_millis(10));
    }
    writer.stop(LONG).expect("stops");
}

#[test]
fn a_flush_can_be_awaited_without_blocking() {
    let dir = TempDir::new().expect("tempdir");
    let (spool, config) = spool(&dir);
    let (recorder, writer) = Recorder::start(spool).expect("starts");
    recorder.record(allowed(), 5);
    let (done, outcome) = sync_channel(1);
    let at = config.clone();
    recorder.flush_then(move |result| {
        done.send((result, records(&at).len())).expect("someone waits");
    });
    assert_eq!(outcome.recv_timeout(LONG).expect("called"), (Ok(()), 1));
    writer.stop(LONG).expect("stops");
    assert_eq!(recorder.flush(LONG), Err(FlushError::Stopped));
}

#[test]
fn a_flood_of_connections_cannot_push_out_a_grant() {
    let shared = Shared::new(limits(100));
    let recorder = Recorder { shared: Arc::new(shared) };
    for _ in 0..10_000 {
        recorder.record(allowed(), 1);
        recorder.record(denied(), 1);
        recorder.record(Event::GrantRefused(GrantRefused::default()), 1);
    }
    recorder.record(Event::GrantInForce(GrantInForce::default()), 2);
    recorder.record(Event::Lifecycle(Lifecycle::new(LifecycleKind::Freeze)), 3);
    recorder.record(Event::Finding(Finding::new(FindingKind::Tamper, "")), 4);
    let stats = recorder.stats();
    assert_eq!(stats.lanes[Lane::Vital as usize].lost, 0, "{stats:?}");
    for lane in [Lane::Requests, Lane::Denied, Lane::Allowed] {
        assert_eq!(
            (stats.lanes[lane as usize].queued, stats.lanes[lane as usize].lost),
            (100, 9_900)
        );
    }
    assert_eq!(stats.lanes[Lane::Allowed as usize].lost_attempts, 19_800);
}

#[test]
fn a_flood_of_denials_cannot_push_out_what_was_allowed() {
    let recorder = Recorder { shared: Arc::new(Shared::new(limits(10))) };
    for _ in 0..1_000 {
        recorder.record(denied(), 1);
    }
    recorder.record(allowed(), 2);
    assert_eq!(recorder.stats().lanes[Lane::Allowed as usize].lost, 0);
}

#[test]
fn long_text_cannot_make_the_queue_take_all_memory() {
    let limits = QueueLimits { bytes: [100_000; 4], ..QueueLimits::default() };
    let recorder = Recorder { shared: Arc::new(Shared::new(limits)) };
    for _ in 0..100 {
        let destination_name = "x".repeat(10_000);
        let connection = Connection { destination_name, ..Connection::default() };
        recorder.record(Event::ConnectionDenied(connection), 1);
    }
    let lane = recorder.stats().lanes[Lane::Denied as usize];
    assert!((1..10).contains(&lane.queued), "{lane:?}");
    assert_eq!(lane.queued + lane.lost, 100);
}

#[test]
fn events_come_in_the_order_in_which_they_happened_whatever_their_lane() {
    let (recorder, collector) = Recorder::collecting();
    let events =
        [allowed(), denied(), Event::GrantInForce(GrantInForce::default()), denied(), allowed()];
    for (event, time_ms) in events.iter().zip(1..) {
        recorder.record(event.clone(), time_ms);
    }
    recorder.flush_then(|result| assert_eq!(result, Ok(())));
    let (taken, times): (Vec<_>, Vec<_>) = collector.take().into_iter().unzip();
    assert_eq!(taken, events);
    assert_eq!(times, [1, 2, 3, 4, 5]);
    assert!(collector.take().is_empty());
}

#[test]
fn records_and_counted_losses_together_are_what_was_handed_in() {
    const THREADS: u64 = 4;
    const EACH: u64 = 20_000;
    let dir = TempDir::new().expect("tempdir");
    let (spool, config) = spool(&dir);
    let (recorder, writer) = Recorder::start_with(spool, limits(64)).expect("starts");
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let recorder = recorder.clone();
            scope.spawn(move || {
                for time_ms in 0..EACH {
                    recorder.record(if time_ms % 2 == 0 { allowed() } else { denied() }, time_ms);
                }
            });
        }
    });
    let report = writer.stop(LONG).expect("stops");
    assert_eq!(report.handed, THREADS * EACH);
    assert_eq!((report.written + report.lost, report.unwritten), (report.handed, 0), "{report:?}");
    assert!(report.lost > 0, "queues of 64 overflow");

    let (mut attempts, mut events, mut lost, mut next) = (0, 0, 0, 1);
    for record in records(&config) {
        let sequence = record["metadata"]["sequence"].as_u64().expect("sequence");
        let loss = &record["unmapped"]["loss"];
        if loss.is_object() {
            let number = |name: &str| loss[name].as_u64().unwrap_or_else(|| panic!("{name}"));
            assert_eq!(number("first_sequence"), next, "the gap is what the Loss says");
            assert_eq!(number("last_sequence"), sequence - 1);
            assert_eq!(number("events"), sequence - next);
            lost += number("events");
            attempts += number("attempts");
        } else {
            assert_eq!(sequence, next, "no gap without a Loss");
            events += 1;
            attempts += record["count"].as_u64().expect("count");
        }
        next = sequence + 1;
    }
    assert_eq!((events, lost), (report.written, report.lost));
    assert_eq!(attempts, THREADS * EACH / 2 * 3, "counts over records + counted losses = attempts");
}

#[test]
fn what_comes_after_the_stop_is_counted_and_not_queued_for_nobody() {
    let dir = TempDir::new().expect("tempdir");
    let (spool, _) = spool(&dir);
    let (recorder, writer) = Recorder::start(spool).expect("starts");
    writer.stop(LONG).expect("stops");
    recorder.record(allowed(), 1);
    let stats = recorder.stats();
    assert_eq!((stats.lost(), stats.waiting, stats.writing), (1, 0, false));
}

#[test]
fn a_flood_that_goes_on_does_not_keep_the_daemon_from_stopping() {
    let dir = TempDir::new().expect("tempdir");
    let (spool, config) = spool(&dir);
    let (recorder, writer) = Recorder::start(spool).expect("starts");
    let (started, first) = sync_channel(1);
    let flooding = recorder.clone();
    let flood = std::thread::spawn(move || {
        flooding.record(Event::GrantInForce(GrantInForce::default()), 1);
        started.send(()).expect("someone waits");
        while !flooding.shared.state().stopped {
            flooding.record(denied(), 1);
        }
    });
    first.recv().expect("started");
    let report = writer.stop(LONG).expect("stops");
    flood.join().expect("no panic");
    assert_eq!(report.unwritten, 0, "{report:?}");
    assert_eq!(records(&config)[0]["type_uid"], 300_501, "what came before the stop is there");
}
