use serde_json::Value;

use super::*;
use crate::event::{Connection, Finding, FindingKind, KernelStamp, Process, Traffic};
use crate::samples;

fn line(event: &Event) -> Vec<u8> {
    let mut line = Vec::new();
    encode(event, &samples::stamp(7), &samples::producer(), &mut line).expect("encodes");
    line
}

fn record(event: &Event) -> Value {
    serde_json::from_slice(&line(event)).expect("json")
}

fn named(comm: &str) -> Event {
    let process = Process { pid: 1, comm: comm.to_owned(), ..Process::default() };
    Event::ConnectionDenied(Connection { process: Some(process), ..Connection::default() })
}

#[test]
fn the_uid_is_made_from_the_time_that_was_given_and_never_twice() {
    let (one, two) = (Stamp::new(1, 1_795_339_800_123), Stamp::new(1, 1_795_339_800_123));
    assert_ne!(one.uid, two.uid);
    assert_eq!(one.uid.get_version_num(), 7);
    let (seconds, nanos) = one.uid.get_timestamp().expect("a time").to_unix();
    assert_eq!(seconds * 1000 + u64::from(nanos) / 1_000_000, 1_795_339_800_123);
}

#[test]
fn a_process_name_cannot_break_a_line_or_steer_a_terminal() {
    for nasty in
        ["a\nb", "a\u{1b}[2Jb", "a\u{9b}2Jb", "\u{202e}txt.exe", "\u{7f}", "\u{feff}", "\u{2028}"]
    {
        let line = line(&named(nasty));
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1, "{nasty:?}");
        let text = std::str::from_utf8(&line).expect("utf-8").trim_end();
        assert!(text.is_ascii() && !text.contains(|c: char| c.is_ascii_control()), "{text}");
        assert_eq!(record(&named(nasty))["actor"]["process"]["name"], nasty, "nothing is lost");
    }
    let letters = "Übergröße 日本";
    assert!(String::from_utf8(line(&named(letters))).expect("utf-8").contains(letters));
}

#[test]
fn long_text_costs_no_record_and_is_said_to_be_cut() {
    let finding = Finding::new(FindingKind::Tamper, "x".repeat(1 << 20));
    let record = record(&Event::Finding(finding));
    assert_eq!(record["metadata"]["is_truncated"], true);
    assert_eq!(record["message"].as_str().expect("text").len(), crate::text::DETAIL);
    let short = self::record(&Event::Finding(Finding::new(FindingKind::Tamper, "x")));
    assert_eq!(short["metadata"].get("is_truncated"), None);
}

#[test]
fn no_number_is_too_large_for_a_reader_that_uses_doubles() {
    let event = Event::ConnectionClosed(Connection {
        cookie: u64::MAX,
        kernel: Some(KernelStamp { cpu: 0, sequence: 1, boot_ns: u64::MAX }),
        process: Some(Process {
            pid: 1,
            start_boot_ns: Some(u64::MAX),
            exe: String::from("/x"),
            exe_inode: Some(u64::MAX),
            ..Process::default()
        }),
        traffic: Some(Traffic { bytes_in: 1, ..Traffic::default() }),
        ..samples::connection()
    });
    fn numbers(value: &Value, found: &mut Vec<u64>) {
        match value {
            Value::Number(number) => found.extend(number.as_u64()),
            Value::Array(items) => items.iter().for_each(|item| numbers(item, found)),
            Value::Object(members) => members.values().for_each(|item| numbers(item, found)),
            Value::Null | Value::Bool(_) | Value::String(_) => {}
        }
    }
    let mut found = Vec::new();
    numbers(&record(&event), &mut found);
    assert!(found.len() > 20);
    assert!(found.iter().all(|number| *number < 1 << 53), "{found:?}");
}

#[test]
fn no_record_has_a_member_for_a_token_and_none_lets_one_through() {
    let token = "eyJhbGciOiJFZERTQSJ9.eyJqdGkiOiIxIn0.c2lnbmF0dXJlLWJ5dGVz";
    for sample in samples::all() {
        let text = String::from_utf8(line(&sample.event)).expect("utf-8");
        for name in ["token", "jws\"", "signature", "secret", "password", "credential", "eyJ"] {
            assert!(!text.contains(name), "{} has {name}: {text}", sample.name);
        }
    }
    let finding = Finding {
        evidence: vec![("argument".into(), format!("--token={token}"))],
        ..Finding::new(FindingKind::Tamper, format!("saw {token}"))
    };
    let text = String::from_utf8(line(&Event::Finding(finding))).expect("utf-8");
    assert!(!text.contains("c2lnbmF0dXJl") && !text.contains("eyJ"), "{text}");
}

#[test]
fn the_number_of_a_line_is_found_and_other_text_is_no_record() {
    assert_eq!(sequence_of(&line(&named("x"))), Some(7));
    for text in ["", "{}", "null", "{\"metadata\":{}}", "{\"metadata\":{\"sequence\":-1}}", "\0\0"]
    {
        assert_eq!(sequence_of(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn a_record_is_the_same_when_it_is_laid_out_for_a_person() {
    for event in samples::extremes().iter().chain([&named("a\"b\\\n{,}: ")]) {
        let line = line(event);
        let shown: Value = serde_json::from_slice(&pretty(&line)).expect("json");
        assert_eq!(shown, serde_json::from_slice::<Value>(&line).expect("json"));
    }
    assert_eq!(
        pretty(b"{\"a\":[],\"b\":{\"c\":1}}"),
        b"{\n  \"a\": [],\n  \"b\": {\n    \"c\": 1\n  }\n}\n"
    );
}
