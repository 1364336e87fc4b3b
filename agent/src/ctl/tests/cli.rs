//! `grantctl` from its arguments to its output and exit code.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;
use serde_json::Value;

use super::support::*;
use crate::config::Config;
use crate::ctl::{
    Status,
    cli::{self, BoxError, EnforcementPaths, Host, Ui},
};
use crate::doctor::Finding;

/// Pins as a test wants them: what is missing, or that they cannot be examined.
struct Pins(Option<Vec<String>>);

impl Host for Pins {
    fn pins_not_enforcing(&self, _: &EnforcementPaths) -> Result<Vec<String>, BoxError> {
        self.0.clone().ok_or_else(|| "cannot be examined".into())
    }

    fn doctor(&self, _: &Config) -> Result<Vec<Finding>, BoxError> {
        Ok(Vec::new())
    }

    fn disarm(&self, bpffs: &Path) -> Result<Vec<PathBuf>, BoxError> {
        Ok(vec![bpffs.join("grantd/abi-1/GRANTS")])
    }
}

#[derive(Debug)]
struct Ran {
    code: u8,
    out: String,
    err: String,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

fn run_on(pins: &Pins, socket: &Path, line: &str) -> Ran {
    let socket = [OsString::from("--socket"), socket.into()];
    let words = line.split_whitespace().map(OsString::from);
    let argv: Vec<_> =
        [OsString::from("grantctl")].into_iter().chain(socket).chain(words).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = cli::run(&argv, pins, &mut Ui { out: &mut out, err: &mut err, colour: false });
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code, out: text(out), err: text(err) }
}

async fn run(daemon: &Daemon, line: &'static str) -> Ran {
    let socket = daemon.socket();
    blocking(move || run_on(&Pins(None), &socket, line)).await
}

fn without_daemon(pins: &Pins, line: &str) -> Ran {
    run_on(pins, Path::new("/nonexistent/ctl.sock"), line)
}

#[tokio::test]
async fn status_answers_people_and_programs_and_its_exit_code_says_whether() {
    let daemon = Daemon::start();
    daemon.fake.state().status = enforcing();
    let people = run(&daemon, "status").await;
    assert_eq!(people.code, 0, "{people:?}");
    assert!(people.out.starts_with("ENFORCING: 1 live grants"), "{}", people.out);
    for part in ["build-7", "coding-agent", "connect4", "allowed", "2026-11-22T01:44:47Z"] {
        assert!(people.out.contains(part), "{part} is missing from\n{}", people.out);
    }
    assert!(!people.out.contains('\u{1b}'), "escapes where no terminal is");
    let programs = run(&daemon, "status --json").await;
    let status: Status = serde_json::from_value(programs.json()).unwrap();
    assert_eq!(status, enforcing());

    let down = vec!["connect4 is not attached".to_owned()];
    daemon.fake.state().status = Status { not_enforcing: down, ..Status::default() };
    let not = run(&daemon, "status --require enforcing").await;
    assert_eq!(not.code, 1, "a unit would start its agents unconfined");
    assert!(not.out.starts_with("NOT ENFORCING"), "{}", not.out);
    assert!(not.out.contains("because  connect4 is not attached"), "{}", not.out);
    assert_eq!(run(&daemon, "status --json").await.code, 1);
}

#[test]
fn without_the_daemon_the_pins_answer_for_units_and_nothing_else_does() {
    let fine = without_daemon(&Pins(Some(Vec::new())), "status --require enforcing");
    assert_eq!(fine.code, 0, "{fine:?}");
    let lacking = Pins(Some(vec!["egress is not pinned".to_owned()]));
    let not = without_daemon(&lacking, "status --require enforcing --json");
    assert_eq!((not.code, &not.json()["enforcing"]), (1, &Value::Bool(false)));
    let unknown = without_daemon(&Pins(None), "status --require enforcing");
    assert_eq!(unknown.code, 69, "pins that cannot be examined passed for enforcing");
    assert_eq!(without_daemon(&Pins(Some(Vec::new())), "status").code, 69);
}

#[test]
fn a_daemon_that_is_down_is_an_error_with_what_to_do() {
    let ran = without_daemon(&Pins(None), "grants");
    assert_eq!(ran.code, 69);
    assert!(ran.err.contains("/nonexistent/ctl.sock"), "{}", ran.err);
    assert!(ran.err.contains("systemctl status grantd"), "{}", ran.err);
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    let json = without_daemon(&Pins(None), "grants --json").err;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["error"]["exit"], 69);
}

#[tokio::test]
async fn grants_are_listed_and_shown() {
    let daemon = Daemon::start();
    daemon.fake.state().grants = vec![grant("g1", "coding-agent"), grant("g2", "other")];
    let list = run(&daemon, "grants").await;
    assert_eq!((list.code, list.out.lines().count()), (0, 3), "{}", list.out);
    assert!(list.out.contains("14m 05s"), "{}", list.out);
    assert!(list.out.contains("tcp 10.0.0.7:5432 and 1 more"), "{}", list.out);
    let one = run(&daemon, "grants --workload other --json").await;
    assert_eq!(one.json().as_array().unwrap().len(), 1);
    let shown = run(&daemon, "grant show g1").await;
    for part in ["req-7781", "00u1ab", "slot 3, generation 2", "tcp 10.20.0.0/24:8000-8010"] {
        assert!(shown.out.contains(part), "{part} is missing from\n{}", shown.out);
    }
    assert_eq!(run(&daemon, "grant show nope").await.code, 1);
}

#[tokio::test]
async fn a_grant_that_differs_from_the_kernel_stands_out() {
    let daemon = Daemon::start();
    let mut differs = grant("g1", "w");
    differs.kernel = None;
    daemon.fake.state().grants = vec![differs];
    let list = run(&daemon, "grants").await;
    assert!(list.out.contains("NOT AS IN THE KERNEL"), "{}", list.out);
}

#[tokio::test]
async fn the_kill_switch_reaches_the_daemon_and_says_what_ended() {
    let daemon = Daemon::start();
    daemon.fake.state().grants = vec![grant("g1", "a"), grant("g2", "b")];
    let ran = run(&daemon, "revoke --workload a").await;
    if geteuid().is_root() {
        assert_eq!((ran.code, ran.out.as_str()), (0, "ended 1 grants\n  g1\n"));
        assert_eq!(run(&daemon, "revoke --all --json").await.json()["ids"][0], "g2");
        assert_eq!(run(&daemon, "freeze --json").await.json()["frozen"], true);
        assert_eq!(run(&daemon, "thaw").await.code, 74, "the fake's disk is full");
        assert_eq!(run(&daemon, "reload").await.code, 0);
    } else {
        assert_eq!(ran.code, 77);
    }
}

#[test]
fn usage_errors_exit_64_and_help_and_version_exit_0() {
    for wrong in ["", "nonsense", "revoke", "status --require perfection", "run --workload w"] {
        let ran = without_daemon(&Pins(None), wrong);
        assert_eq!(ran.code, 64, "`{wrong}`: {ran:?}");
        assert!(ran.out.is_empty() && !ran.err.is_empty(), "`{wrong}`");
    }
    for fine in ["--help", "--version", "run --help", "audit tail --help"] {
        let ran = without_daemon(&Pins(None), fine);
        assert_eq!(ran.code, 0, "`{fine}`: {ran:?}");
        assert!(!ran.out.is_empty() && ran.err.is_empty(), "`{fine}`");
    }
}

#[tokio::test]
async fn disarm_wants_root_a_confirmation_no_daemon_and_leaves_a_record() {
    let daemon = Daemon::start();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    let spool = dir.path().join("audit");
    std::fs::write(&config, format!("[audit]\ndir = {spool:?}\n")).unwrap();
    let alone =
        |rest: &str| without_daemon(&Pins(None), &format!("--config {} {rest}", config.display()));
    if !geteuid().is_root() {
        assert_eq!(alone("disarm --yes").code, 77);
        return;
    }
    assert_eq!(alone("disarm").code, 64, "enforcement was lifted without a confirmation");
    assert_eq!(run(&daemon, "disarm --yes").await.code, 75, "the daemon would put it back");
    assert!(!spool.exists());
    let done = alone("disarm --yes --json");
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(done.json()["removed"][0], "/sys/fs/bpf/grantd/abi-1/GRANTS");
    let tail = alone("audit tail");
    assert!(tail.out.contains("Application Lifecycle: Disable"), "{tail:?}");

    std::fs::write(&config, "[audit]\ndir = \"/nonexistent/audit\"\n").unwrap();
    let unaudited = alone("disarm --yes");
    assert_eq!(unaudited.code, 74, "{unaudited:?}");
    assert!(unaudited.out.is_empty(), "enforcement was lifted without a trace: {unaudited:?}");
}

#[test]
fn a_config_with_faults_exits_65_and_names_them() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, "host_id = 3\nnonsense = true\n").unwrap();
    let line = format!("config check {}", file.display());
    let ran = without_daemon(&Pins(None), &line);
    assert_eq!(ran.code, 65, "{ran:?}");
    assert!(ran.err.contains("host_id") && ran.err.contains("nonsense"), "{}", ran.err);
    let json = without_daemon(&Pins(None), &format!("{line} --json"));
    assert_eq!((json.code, &json.json()["valid"]), (65, &Value::Bool(false)));
    assert!(json.json()["faults"].as_array().unwrap().len() >= 2);
}

#[test]
fn a_spool_that_is_not_there_is_not_taken_for_an_empty_one() {
    let ran = without_daemon(&Pins(None), "audit tail --dir /nonexistent/audit");
    assert_eq!(ran.code, 66, "{ran:?}");
    assert!(ran.err.contains("/nonexistent/audit"), "{}", ran.err);
}

#[test]
fn an_output_that_nobody_reads_any_more_is_no_error() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let argv = ["grantctl", "--help"].map(OsString::from);
    let mut err = Vec::new();
    let mut ui = Ui { out: &mut Closed, err: &mut err, colour: false };
    assert_eq!(cli::run(&argv, &Pins(None), &mut ui), 0);
    assert_eq!(err, b"");
}
