use std::fs::{self, OpenOptions};
use std::io::Write;

use tempfile::TempDir;

use super::*;
use crate::event::{Connection, Event};
use crate::{Spool, SpoolConfig, samples};

struct Fixture {
    _dir: TempDir,
    config: SpoolConfig,
    spool: Spool,
}

fn fixture() -> Fixture {
    let dir = TempDir::new().expect("tempdir");
    let config =
        SpoolConfig { dir: dir.path().join("audit"), segment_bytes: 8_192, max_bytes: 65_536 };
    let (spool, _) = Spool::open(config.clone(), samples::producer()).expect("opens");
    Fixture { _dir: dir, config, spool }
}

impl Fixture {
    fn append(&mut self, count: usize) {
        for _ in 0..count {
            let event = Event::ConnectionAllowed(Connection::default());
            self.spool.append(&event, samples::TIME_MS).expect("appended");
        }
        self.spool.commit().expect("committed");
    }

    fn reader(&self, from: StartAt) -> Reader {
        Reader::open(&self.config.dir, from).expect("opens")
    }
}

fn rest(reader: &mut Reader) -> Vec<u64> {
    let mut sequences = Vec::new();
    while let Some(line) = reader.next_line().expect("reads") {
        sequences.push(line.sequence);
    }
    sequences
}

#[test]
fn following_shows_every_record_once_across_segments() {
    let mut spool = fixture();
    let mut reader = spool.reader(StartAt::Oldest);
    let mut seen = Vec::new();
    for _ in 0..18 {
        spool.append(3);
        seen.extend(rest(&mut reader));
    }
    assert_eq!(seen, (1..=54).collect::<Vec<_>>());
    assert!(spool.spool.status().segments > 2, "it followed from segment to segment");
    assert_eq!(reader.damaged(), 0);
}

#[test]
fn a_reader_that_starts_before_the_spool_waits_for_it() {
    let dir = TempDir::new().expect("tempdir");
    let mut reader = Reader::open(dir.path().join("none"), StartAt::Last(10)).expect("opens");
    assert_eq!(reader.next_line().expect("reads"), None);
}

#[test]
fn reading_starts_where_it_is_asked_to() {
    let mut spool = fixture();
    spool.append(20);
    spool.append(20);
    assert_eq!(rest(&mut spool.reader(StartAt::Sequence(38))), [38, 39, 40]);
    assert_eq!(rest(&mut spool.reader(StartAt::Last(2))), [39, 40]);
    assert_eq!(rest(&mut spool.reader(StartAt::Last(25))).len(), 25);
    assert_eq!(rest(&mut spool.reader(StartAt::Last(99))).len(), 40);
    let mut later = spool.reader(StartAt::Sequence(42));
    assert!(rest(&mut later).is_empty());
    spool.append(3);
    assert_eq!(rest(&mut later), [42, 43]);
}

#[test]
fn a_slow_reader_goes_on_with_what_is_kept() {
    let mut spool = fixture();
    spool.append(1);
    let mut reader = spool.reader(StartAt::Oldest);
    assert_eq!(rest(&mut reader), [1]);
    for _ in 0..60 {
        spool.append(5);
    }
    let seen = rest(&mut reader);
    assert!(spool.spool.status().removed > 0, "the oldest segments went meanwhile");
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "in order: {seen:?}");
    assert_eq!(seen.last(), Some(&(spool.spool.status().next_sequence - 1)), "up to the newest");
}

#[test]
fn half_a_line_is_not_a_record_until_the_rest_is_there() {
    let mut spool = fixture();
    spool.append(1);
    let path = segment_path(&spool.config.dir, 1);
    let record =
        fs::read_to_string(&path).expect("reads").replace("\"sequence\":1,", "\"sequence\":2,");
    let (begin, end) = record.split_at(100);
    let mut file = OpenOptions::new().append(true).open(&path).expect("opens");
    let mut reader = spool.reader(StartAt::Oldest);
    file.write_all(begin.as_bytes()).expect("written");
    assert_eq!(rest(&mut reader), [1]);
    file.write_all(end.as_bytes()).expect("written");
    assert_eq!(rest(&mut reader), [2]);
}

#[test]
fn what_the_writer_took_back_and_wrote_again_comes_once() {
    let mut spool = fixture();
    spool.append(2);
    let path = segment_path(&spool.config.dir, 1);
    let mut reader = spool.reader(StartAt::Oldest);
    assert_eq!(rest(&mut reader), [1, 2]);
    let content = fs::read(&path).expect("reads");
    let half = content.len() as u64 / 2;
    let file = OpenOptions::new().append(true).open(&path).expect("opens");
    file.set_len(half).expect("taken back");
    assert!(rest(&mut reader).is_empty());
    fs::copy(&path, segment_path(&spool.config.dir, 1)).expect("same");
    (&file).write_all(&content[half as usize..]).expect("written again");
    // A second copy in the next segment, as after a take-back that failed.
    fs::write(segment_path(&spool.config.dir, 2), &content).expect("written");
    assert!(rest(&mut reader).is_empty(), "both records were seen before");
    assert_eq!(reader.damaged(), 0);
}

#[test]
fn a_line_that_is_no_record_is_counted_and_the_next_one_shown() {
    let mut spool = fixture();
    spool.append(1);
    let path = segment_path(&spool.config.dir, 1);
    let mut file = OpenOptions::new().append(true).open(&path).expect("opens");
    file.write_all(b"not a record\n").expect("written");
    let mut reader = spool.reader(StartAt::Oldest);
    assert_eq!(rest(&mut reader), [1]);
    assert_eq!(reader.damaged(), 1);
}
