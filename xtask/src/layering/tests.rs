use super::*;

/// A tree with one file and what is found in it.
fn findings(file: &str, source: &str) -> Vec<String> {
    findings_in(&[(file, source)])
}

fn findings_in(files: &[(&str, &str)]) -> Vec<String> {
    let root = tempfile::tempdir().unwrap();
    for (file, source) in files {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, source).unwrap();
    }
    let checked = check(root.path()).unwrap();
    assert_eq!(checked.files, files.len(), "a file was not looked at");
    checked.findings.iter().map(Finding::to_string).collect()
}

#[test]
fn the_tree_as_it_is_respects_the_architecture() {
    let Checked { files, findings } = check(&workspace::root()).unwrap();
    assert!(files > 10, "only {files} files were found");
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}

#[test]
fn an_added_import_that_the_table_forbids_is_found() {
    for (file, import) in [
        ("grant/src/verify.rs", "use std::time::Instant;"),
        ("grant/src/verify.rs", "use tokio::sync::watch;"),
        ("grant/src/verify.rs", "use std::net::TcpStream;"),
        ("grant/src/verify.rs", "use std::{fs, fmt};"),
        ("agent/src/config/mod.rs", "use tokio::fs;"),
        ("agent/src/config/mod.rs", "use aya::Ebpf;"),
        ("agent/src/intake/routes.rs", "use grantd_grant::VerifiedGrant;"),
        ("agent/src/intake/routes.rs", "use crate::ledger::Ledger;"),
        ("agent/src/keys/fetch.rs", "use grantd_grant::HostPolicy;"),
        ("agent/src/ledger/mod.rs", "use axum::Router;"),
        ("agent/src/ledger/mod.rs", "fn f() { reqwest::get(x) }"),
        ("agent/src/compile/mod.rs", "use std::net::UdpSocket;"),
        ("agent/src/kernel/maps.rs", "use grantd_grant::{Destination, Push};"),
        ("agent/src/kernel/maps.rs", "use hyper::body;"),
        ("agent/src/kernel/maps.rs", "use super::super::ledger::Ledger;"),
        ("agent/src/events/mod.rs", "use axum::http;"),
        ("agent/src/ctl/mod.rs", "use aya::maps::MapData;"),
        ("agent/src/admission/mod.rs", "use axum::http::StatusCode;"),
        ("agent/src/enforcer/mod.rs", "use crate::intake::Outcome;"),
        ("agent/src/bin/grantctl.rs", "fn main() { aya::programs::links() }"),
        ("agent/src/runtime/mod.rs", "use toml::Value;"),
        ("agent/src/runtime/mod.rs", "use grantd_grant::mint::GrantSigner;"),
        ("agent-common/src/lib.rs", "use std::net::IpAddr;"),
        ("audit/src/lib.rs", "use grantd_grant::GrantId;"),
    ] {
        assert_eq!(findings(file, import).len(), 1, "{file}: {import}");
    }
}

#[test]
fn what_the_table_does_not_forbid_is_left_alone() {
    for (file, source) in [
        ("grant/src/verify.rs", "use std::net::IpAddr; use std::time::Duration;"),
        ("agent/src/kernel/load.rs", "use aya::Ebpf; use grantd_grant::Destination; unsafe {}"),
        ("agent/src/intake/routes.rs", "use axum::Router; use grantd_grant::{Push, Refusal};"),
        ("agent/src/clock.rs", "fn now() { std::time::Instant::now() }"),
        ("agent/src/ledger/mod.rs", "use tokio::sync::mpsc; fn f() { mpsc::channel(8) }"),
        ("agent/src/ledger/mod.rs", "// use axum;\nconst A: &str = \"aya::Ebpf\";"),
        ("grant/src/verify.rs", "#[cfg(test)] mod tests { use std::fs; }"),
    ] {
        assert_eq!(findings(file, source), Vec::<String>::new(), "{file}: {source}");
    }
}

#[test]
fn a_clock_is_read_in_one_file_only() {
    for source in [
        "use std::time::Instant;\nfn f() { Instant::now() }",
        "use std::time;\nfn f() { time::SystemTime::now() }",
        "use tokio::time::Instant as Now;\nfn f() { select! { _ = g(Now::now()) => {} } }",
        "\nfn f() { libc::clock_gettime(1, p) }",
        "use uuid::Uuid;\nfn f() { Uuid::now_v7() }",
    ] {
        let found = findings("agent/src/ctl/mod.rs", source);
        assert_eq!(found.len(), 1, "{source}");
        assert!(found[0].starts_with("agent/src/ctl/mod.rs:2: "), "{found:?}");
    }
}

#[test]
fn channels_without_a_bound_are_found_under_any_name() {
    for source in [
        "use tokio::sync::mpsc; fn f() { mpsc::unbounded_channel() }",
        "use std::sync::mpsc; fn f() { mpsc::channel() }",
        "use tokio::sync::mpsc::UnboundedSender;",
        "use tokio::sync::mpsc::*;",
    ] {
        assert!(!findings("agent/src/events/mod.rs", source).is_empty(), "{source}");
    }
}

#[test]
fn unsafe_is_found_in_tests_too() {
    let source = "#[cfg(test)] mod tests { fn f() { unsafe { g() } } }";
    assert_eq!(findings("agent/src/ledger/mod.rs", source).len(), 1);
    assert_eq!(findings("agent-ebpf/src/main.rs", source).len(), 0);
}

#[test]
fn a_forbidden_crate_cannot_be_passed_on_by_the_module_that_may_use_it() {
    assert_eq!(findings("agent/src/kernel/mod.rs", "pub(crate) use aya::maps::Array;").len(), 1);
}

#[test]
fn files_of_tests_may_import_what_they_like() {
    let found = findings_in(&[
        ("agent/src/ledger/mod.rs", "#[cfg(test)]\nmod model;"),
        ("agent/src/ledger/model.rs", "use axum::Router;"),
        ("agent/src/ledger/model/more.rs", "use aya::Ebpf;"),
        ("agent/src/ledger/store.rs", "use axum::Router;"),
    ]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("agent/src/ledger/store.rs:1"), "{found:?}");
}
