use super::*;

fn paths(source: &str) -> Vec<String> {
    let module = ["grantd", "ledger", "store"].map(str::to_owned);
    read(source, &module).named.iter().map(|named| named.path.join("::")).collect()
}

fn names(source: &str, path: &str) -> bool {
    paths(source).iter().any(|named| named == path)
}

#[test]
fn imports_are_found_in_every_form() {
    let source = "use std::{fs::{self, File}, io as stdio, net::*};";
    for path in ["std::fs", "std::fs::File", "std::io", "std::net::*"] {
        assert!(names(source, path), "{path} is missed");
    }
}

#[test]
fn a_path_through_an_import_is_followed() {
    assert!(names("use std::time; fn f() { time::Instant::now() }", "std::time::Instant::now"));
    assert!(names("use std::time::Instant as T; fn f() { T::now() }", "std::time::Instant::now"));
    assert!(names("use std::time; use time::Instant; f(Instant::now)", "std::time::Instant::now"));
    assert!(names("fn f() { ::aya::load() }", "aya::load"));
    assert!(names("select! { x = tokio::net::lookup_host(h) => {} }", "tokio::net::lookup_host"));
}

#[test]
fn own_modules_are_named_in_full() {
    assert!(names("use crate::kernel::maps;", "grantd::kernel::maps"));
    assert!(names("use super::other;", "grantd::ledger::other"));
    assert!(names("use super::super::kernel;", "grantd::kernel"));
    assert!(names("mod inner { use super::x; }", "grantd::ledger::store::x"));
    assert!(names("mod inner { } use super::x;", "grantd::ledger::x"));
}

#[test]
fn code_of_tests_is_left_out_and_what_follows_is_not() {
    let source = "#[cfg(test)] mod tests { use aya::Ebpf; } use tokio::net;";
    assert!(!names(source, "aya::Ebpf") && names(source, "tokio::net"));
    let source =
        "#[cfg(test)] use aya::{Ebpf}; #[cfg(all(test, unix))] fn f() { aya::x() } use std::fs;";
    assert!(!paths(source).iter().any(|p| p.starts_with("aya")) && names(source, "std::fs"));
    assert!(names("#[cfg(not(test))] use aya::Ebpf;", "aya::Ebpf"), "not a test's code");
    let module = ["grantd".to_owned()];
    assert_eq!(read("#[cfg(test)]\nmod model;", &module).test_modules, ["model"]);
}

#[test]
fn methods_and_fields_are_no_paths() {
    assert_eq!(paths("x.aya()"), ["x"]);
}

#[test]
fn reexports_are_told_from_imports() {
    let module = ["grantd".to_owned()];
    let named = read("pub(crate) use aya::Ebpf; use libc::c_int;", &module).named;
    let reexported: Vec<_> = named.iter().map(|named| named.reexported).collect();
    assert_eq!(reexported, [true, false]);
}

#[test]
fn broken_source_ends() {
    for source in
        ["use a::{b", "use a::<b>", "mod x {", "#[cfg(test)]", "use ;;", "use {{", "'", "\"", "r#"]
    {
        let _read = paths(source);
    }
}
