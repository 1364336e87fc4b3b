//! Records fit the published OCSF schema: a collector that validates would otherwise drop the evidence.

#![cfg(test)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use grantd_audit::{event::Event, ocsf, samples};
use serde_json::{Map, Value};

/// What the schema says about every member that records use, as `ocsf.py table` printed it.
const TABLE: &str = include_str!("schema/ocsf-1.8.0.json");
const PACKAGES: [&str; 2] = ["ocsf-json-schema==1.2.0", "jsonschema==4.26.0"];

fn lines(events: &[Event]) -> Vec<u8> {
    let producer = samples::producer();
    let mut lines = Vec::new();
    for (event, sequence) in events.iter().zip(1..) {
        ocsf::encode(event, &samples::stamp(sequence), &producer, &mut lines).expect("encodes");
    }
    lines
}

fn records(lines: &[u8]) -> Vec<Value> {
    lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("a record is JSON"))
        .collect()
}

#[test]
fn no_record_lacks_what_its_class_requires_or_has_what_the_schema_does_not_know() {
    let table: Value = serde_json::from_str(TABLE).expect("the table is JSON");
    let mut faults = Vec::new();
    let records = records(&lines(&samples::extremes()));
    for record in &records {
        let class = record["class_uid"].to_string();
        let name = record["type_name"].as_str().expect("type_name");
        check(&table, &table["classes"][&class], record, name, &mut faults);
    }
    assert!(records.len() > 40, "there are samples of every kind");
    assert!(faults.is_empty(), "a collector would refuse these:\n{}", faults.join("\n"));
}

#[test]
fn the_ids_of_a_record_agree_with_each_other() {
    for record in records(&lines(&samples::extremes())) {
        let number =
            |name: &str| record[name].as_u64().unwrap_or_else(|| panic!("{name} in {record}"));
        assert_eq!(number("type_uid"), number("class_uid") * 100 + number("activity_id"));
        assert_eq!(number("category_uid"), number("class_uid") / 1000);
        assert_eq!(record["metadata"]["version"], "1.8.0");
    }
}

#[test]
fn a_record_that_does_not_fit_is_found() {
    let table: Value = serde_json::from_str(TABLE).expect("the table is JSON");
    let good = records(&lines(&samples::extremes())).remove(0);
    let broken = [
        ("class_uid", Value::Null),
        ("severity_id", 77.into()),
        ("time", "yesterday".into()),
        ("actor", serde_json::json!({})),
        ("surprise", 1.into()),
    ];
    for (name, value) in broken {
        let mut record = good.clone();
        let members = record.as_object_mut().expect("an object");
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.to_owned(), value);
        }
        let mut faults = Vec::new();
        check(&table, &table["classes"]["4001"], &record, "record", &mut faults);
        assert!(!faults.is_empty(), "a bad {name} went unnoticed");
    }
}

fn check(table: &Value, definition: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
    let Some(members) = value.as_object() else {
        faults.push(format!("{at} is not an object"));
        return;
    };
    if definition.is_null() {
        faults.push(format!("{at}: the table does not know this class or object"));
        return;
    }
    let empty = Vec::new();
    let names = |key: &str| definition[key].as_array().unwrap_or(&empty).clone();
    for name in names("required") {
        if !members.contains_key(name.as_str().expect("a name")) {
            faults.push(format!("{at} lacks {name}"));
        }
    }
    let one = names("at_least_one");
    if !one.is_empty()
        && !one.iter().any(|name| members.contains_key(name.as_str().expect("a name")))
    {
        faults.push(format!("{at} has none of {}", definition["at_least_one"]));
    }
    check_members(table, &definition["attributes"], members, at, faults);
}

fn check_members(
    table: &Value,
    attributes: &Value,
    members: &Map<String, Value>,
    at: &str,
    faults: &mut Vec<String>,
) {
    for (name, value) in members {
        let at = format!("{at}/{name}");
        let attribute = &attributes[name];
        let Some(kind) = attribute["type"].as_str() else {
            faults.push(format!("{at} is not in the table: run ocsf.py table"));
            continue;
        };
        let is_array = attribute["array"] == true;
        if is_array != value.is_array() {
            faults.push(format!("{at}: an array, or not one"));
            continue;
        }
        let single = std::slice::from_ref(value);
        for item in value.as_array().map_or(single, Vec::as_slice) {
            let fits = match kind {
                "integer_t" | "long_t" | "timestamp_t" => item.is_u64(),
                "port_t" => item.as_u64().is_some_and(|port| port <= 65_535),
                "boolean_t" => item.is_boolean(),
                "object" => item.is_object(),
                text if text.ends_with("_t") => item.is_string(),
                object => {
                    check(table, &table["objects"][object], item, &at, faults);
                    true
                }
            };
            let listed = attribute["enum"].as_array().is_none_or(|values| values.contains(item));
            if !fits || !listed {
                faults.push(format!("{at}: {item} is not a {kind} of the schema"));
            }
        }
    }
}

#[test]
#[ignore = "long: needs PyPI ocsf-json-schema"]
fn every_sample_validates_against_the_published_schema() {
    let python = python();
    let lines = lines(&samples::extremes());
    let (ok, output) = run(&python, "check", &lines);
    assert!(ok, "the published schema refuses records:\n{output}");
    let (ok, table) = run(&python, "table", &lines);
    assert!(ok, "{table}");
    assert_eq!(
        table.trim(),
        TABLE.trim(),
        "the table that the quick test uses is not what the schema says: write this to tests/schema/ocsf-1.8.0.json"
    );
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schema/ocsf.py")
}

/// A Python with the packages, made once below the target directory.
fn python() -> PathBuf {
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ocsf-schema");
    let python = environment.join("bin/python");
    let ready = environment.join("ready");
    if !ready.exists() {
        succeed(Command::new("python3").args(["-m", "venv"]).arg(&environment));
        succeed(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES));
        std::fs::write(&ready, PACKAGES.join("\n")).expect("the target directory is writable");
    }
    python
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?} failed, so records were not validated:\n{errors}"
    );
}

fn run(python: &Path, what: &str, lines: &[u8]) -> (bool, String) {
    let mut child = Command::new(python)
        .arg(script())
        .arg(what)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("python starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let lines = lines.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&lines));
    let output = child.wait_with_output().expect("python ends");
    feeder.join().expect("no panic").expect("python reads everything");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}
