use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use proptest::prelude::*;
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::event::{Connection, FindingKind};
use crate::{Reader, StartAt, samples};

fn small(dir: &Path) -> SpoolConfig {
    SpoolConfig { dir: dir.join("audit"), segment_bytes: 8_192, max_bytes: 1 << 20 }
}

fn open(config: &SpoolConfig) -> (Spool, Recovery) {
    Spool::open(config.clone(), samples::producer()).expect("the spool opens")
}

fn event() -> Event {
    Event::ConnectionAllowed(Connection::default())
}

fn append(spool: &mut Spool, count: usize) {
    for _ in 0..count {
        spool.append(&event(), samples::TIME_MS).expect("appended");
    }
    spool.commit().expect("committed");
}

fn sequences(config: &SpoolConfig) -> Vec<u64> {
    let mut reader = Reader::open(&config.dir, StartAt::Oldest).expect("opens");
    let mut sequences = Vec::new();
    while let Some(line) = reader.next_line().expect("reads") {
        sequences.push(line.sequence);
    }
    sequences
}

fn files(config: &SpoolConfig) -> Vec<PathBuf> {
    let segments = list_segments(&config.dir).expect("lists");
    segments.into_iter().map(|first| segment_path(&config.dir, first)).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("exists").mode() & 0o7777
}

#[test]
fn numbers_go_on_after_a_restart() {
    let dir = TempDir::new().expect("tempdir");
    let config = small(dir.path());
    let (mut spool, recovery) = open(&config);
    assert_eq!(recovery.next_sequence, 1);
    append(&mut spool, 3);
    drop(spool);
    let (mut spool, recovery) = open(&config);
    assert_eq!((recovery.next_sequence, recovery.segments), (4, 1));
    assert!(recovery.events().is_empty(), "a clean end needs no finding: {recovery:?}");
    append(&mut spool, 2);
    assert_eq!(sequences(&config), [1, 2, 3, 4, 5]);
    assert_eq!(spool.status().durable_sequence, 5);
}

#[test]
fn nothing_is_on_disk_before_commit_and_everything_after() {
    let dir = TempDir::new().expect("tempdir");
    let config = small(dir.path());
    let (mut spool, _) = open(&config);
    spool.append(&event(), 1).expect("appended");
    assert!(sequences(&config).is_empty());
    assert_eq!(spool.status().durable_sequence, 0);
    spool.commit().expect("committed");
    assert_eq!(sequences(&config), [1]);
}

#[test]
fn others_on_the_host_cannot_read_the_evidence() {
    let dir = TempDir::new().expect("tempdir");
    let config = small(dir.path());
    let (mut spool, _) = open(&config);
    (0..20).for_each(|_| append(&mut spool, 2));
    assert!(files(&config).len() > 1, "more than one segment");
    assert_eq!(mode(&config.dir), 0o700);
    for file in files(&config) {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[test]
fn modes_that_somebody_widened_are_set_right_and_reported() {
    let dir = TempDir::new().expect("tempdir");
    let config = small(dir.path());
    append(&mut open(&config).0, 1);
    let segment = files(&config).remove(0);
    fs::set_permissions(&config.dir, fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::set_permissions(&segment, fs::Permissions::from_mode(0o666)).expect("chmod");
    let (_spool, recovery) = open(&config);
    assert_eq!((mode(&config.dir), mode(&segment)), (0o700, 0o600));
    let found: Vec<u32> = recovery.corrected.iter().map(|corrected| corrected.found).collect();
    assert_eq!(found, [0o755, 0o666]);
    let tampered = recovery.events().into_iter().filter(
        |event| matches!(event, Event::Finding(finding) if finding.kind == FindingKind::Tamper),
    );
    assert_eq!(tampered.count(), 2, "each is a finding");
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    let dir = TempDir::new().expect("tempdir");
    let config = small(dir.path());
    let result = if nix::unistd::geteuid().is_root() {
        fs::create_dir(&config.dir).expect("mkdir");
        std::os::unix::fs::chown(&config.dir, Some(65_534), None).expect("chown");
        Spool::open(config, samples::producer())
    } else {
        Spool::open(SpoolConfig { dir: "/".into(), ..config }, samples::producer())
    };
    assert!(matches!(result, Err(SpoolError::ForeignOwner { .. })), "{result:?}");
}

#[test]
fn a_symlink_in_place_of_directory_or_segment_is_refused() {
    let dir = TempDir::new().expect("tempdir");
    let target = dir.path().join("elsewhere");
    fs::create_dir(&target).expect("mkdir");
    let config = small(dir.path());
    symlink(&target, &config.dir).expect("symlink");
    let result = Spool::open(config.clone(), samples::producer());
    assert!(matches!(result, Err(SpoolError::NotA { .. })), "{result:?}");
    fs::remove_file(&config.dir).expect("removed");

    append(&mut open(&config).0, 1);
    let segment = files(&config).remove(0);
    fs::rename(&segment, target.join("moved")).expect("moved");
    symlink(target.join("moved"), &segment).expect("symlink");
    let result = Spool::open(config, samples::producer());
    assert!(matches!(result, Err(SpoolError::NotA { .. })), "{result:?}");
}

#[test]
fn two_writers_at_once_are_refused() {
    let dir = TempDir::new().expect("tempdir");
    let config = small(dir.path());
    let first = open(&config);
    let second = Spool::open(config.clone(), samples::producer());
    assert!(matches!(second, Err(SpoolError::InUse { .. })), "{second:?}");
    drop(first);
    open(&config);
}

#[test]
fn sizes_that_make_no_sense_are_refused() {
    let dir = TempDir::new().expect("tempdir");
    let config = SpoolConfig { max_bytes: 8_192, ..small(dir.path()) };
    let result = Spool::open(config, samples::producer());
    assert!(matches!(result, Err(SpoolError::Sizes { .. })), "{result:?}");
}

#[test]
fn what_makes_room_for_new_records_is_counted_to_the_last_one() {
    let dir = TempDir::new().expect("tempdir");
    let config = SpoolConfig { max_bytes: 32_768, ..small(dir.path()) };
    let (mut spool, _) = open(&config);
    let mut appended = 0;
    for round in 0..60 {
        append(&mut spool, 1 + round % 7);
        appended += 1 + round % 7;
        assert!(spool.status().bytes <= config.max_bytes + config.segment_bytes);
    }
    let (mut kept, mut lost, mut first, mut gone_to) = (0, 0, None, 0);
    let mut reader = Reader::open(&config.dir, StartAt::Oldest).expect("opens");
    while let Some(line) = reader.next_line().expect("reads") {
        first.get_or_insert(line.sequence);
        let record: Value = serde_json::from_slice(&line.json).expect("json");
        let loss = &record["unmapped"]["loss"];
        if loss.is_object() {
            assert_eq!(loss["source"], "retention");
            lost += loss["events"].as_u64().expect("events");
            gone_to = gone_to.max(loss["last_sequence"].as_u64().expect("last"));
        } else {
            kept += 1;
        }
    }
    // Loss records were themselves removed later: what they said is part of what was removed.
    assert!(lost > 0 && gone_to + 1 == first.expect("records"), "{gone_to} {first:?}");
    assert!(spool.status().removed >= lost);
    let numbers = spool.status().next_sequence - 1;
    assert_eq!(numbers, spool.status().removed + sequences(&config).len() as u64);
    assert!(appended as u64 >= kept);
}

#[test]
fn a_disk_that_refuses_costs_no_record_once_it_works_again() {
    let dir = TempDir::new().expect("tempdir");
    let config = small(dir.path());
    let (mut spool, _) = open(&config);
    append(&mut spool, 10);
    let away = dir.path().join("away");
    fs::rename(&config.dir, &away).expect("moved");
    let mut failures = 0;
    for _ in 0..20 {
        spool.append(&event(), 1).expect("appended");
        failures += u32::from(spool.commit().is_err());
    }
    assert!(failures > 0, "a new segment cannot be made in a directory that is gone");
    fs::rename(&away, &config.dir).expect("moved back");
    spool.commit().expect("committed");
    assert_eq!(sequences(&config), (1..=30).collect::<Vec<_>>());
}

#[test]
fn records_that_could_not_be_taken_back_keep_their_numbers() {
    let dir = TempDir::new().expect("tempdir");
    let config = small(dir.path());
    append(&mut open(&config).0, 5);
    // As a failed batch leaves it: its new segment is there and empty.
    fs::write(segment_path(&config.dir, 4), b"").expect("written");
    let (mut spool, recovery) = open(&config);
    assert_eq!(recovery.next_sequence, 6, "numbers 4 and 5 are in use");
    append(&mut spool, 1);
    assert_eq!(sequences(&config), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_damaged_line_is_kept_counted_and_its_number_not_used_again() {
    let dir = TempDir::new().expect("tempdir");
    let config = small(dir.path());
    append(&mut open(&config).0, 2);
    let mut segment = OpenOptions::new().append(true).open(&files(&config)[0]).expect("opens");
    segment.write_all(b"\0\0\0\n").expect("written");
    let (mut spool, recovery) = open(&config);
    assert_eq!((recovery.damaged_lines, recovery.next_sequence), (1, 4));
    assert!(matches!(recovery.events().as_slice(), [Event::Loss(loss)] if loss.events == 1));
    append(&mut spool, 1);
    assert_eq!(sequences(&config), [1, 2, 4]);
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Commit,
    /// Ends without a commit and loses the newest segment from somewhere on: so many thousandths of it.
    Crash(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_usize..20).prop_map(Step::Append),
        3 => Just(Step::Commit),
        2 => (0_usize..=1000).prop_map(Step::Crash),
    ]
}

/// Cuts the newest segment, and returns the whole lines that all segments then hold.
fn crash(config: &SpoolConfig, thousandths: usize) -> (Vec<String>, bool) {
    let mut lines = Vec::new();
    let mut torn = false;
    let files = files(config);
    for (index, file) in files.iter().enumerate() {
        let mut content = fs::read(file).expect("reads");
        if index + 1 == files.len() {
            content.truncate(content.len() * thousandths / 1000);
            fs::write(file, &content).expect("written");
            torn = content.last().is_some_and(|byte| *byte != b'\n');
        }
        let text = String::from_utf8(content).expect("utf-8");
        lines.extend(text.split_inclusive('\n').filter(|it| it.ends_with('\n')).map(str::to_owned));
    }
    (lines, torn)
}

fn all_lines(config: &SpoolConfig) -> Vec<String> {
    let contents = files(config).into_iter().map(|file| fs::read_to_string(file).expect("reads"));
    contents
        .flat_map(|text| text.lines().map(|line| format!("{line}\n")).collect::<Vec<_>>())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_crash_cuts_every_whole_record_stays_and_no_number_comes_twice(
        steps in proptest::collection::vec(step(), 1..24),
    ) {
        let dir = TempDir::new().expect("tempdir");
        let config = small(dir.path());
        let (mut spool, _) = open(&config);
        for step in steps {
            match step {
                Step::Append(count) => {
                    for _ in 0..count {
                        spool.append(&event(), 7).expect("appended");
                    }
                }
                Step::Commit => spool.commit().expect("committed"),
                Step::Crash(thousandths) => {
                    drop(spool);
                    let (whole, torn) = crash(&config, thousandths);
                    let (reopened, recovery) = open(&config);
                    prop_assert_eq!(all_lines(&config), whole);
                    prop_assert_eq!(recovery.torn.is_some(), torn);
                    prop_assert_eq!(recovery.damaged_lines, 0);
                    spool = reopened;
                }
            }
        }
        spool.commit().expect("committed");
        let sequences = sequences(&config);
        prop_assert!(sequences.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", sequences);
        prop_assert_eq!(sequences.len(), all_lines(&config).len(), "the reader shows every record");
        prop_assert_eq!(sequences.last().map_or(0, |last| *last) + 1, spool.status().next_sequence.max(1));
    }
}
