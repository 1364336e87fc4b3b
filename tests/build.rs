//! Builds `escapes/`, the program that tries to get out of the box. It is C because most of what it does
//! is a bare system call, and this crate has no unsafe code.

use std::path::Path;
use std::process::{Command, exit};

fn main() {
    println!("cargo::rerun-if-changed=escapes");
    println!("cargo::rerun-if-env-changed=CC");
    let out = std::env::var("OUT_DIR").unwrap_or_default();
    let program = Path::new(&out).join("escapes");
    // Static where the system has a static libc: the same program then runs in a bare virtual machine.
    if let Err(why) = compile(&program, &["-static"]).or_else(|_| compile(&program, &[])) {
        eprintln!("{why}");
        exit(1);
    }
}

fn compile(program: &Path, link: &[&str]) -> Result<(), String> {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let mut sources: Vec<_> = std::fs::read_dir("escapes")
        .map_err(|error| format!("reading tests/escapes: {error}"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
        .collect();
    sources.sort();
    let output = Command::new(&compiler)
        .args(["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fno-pie", "-no-pie"])
        .args(["-pthread", "-o"])
        .arg(program)
        .args(&sources)
        .args(link)
        .output()
        .map_err(|error| {
            format!("cannot start {compiler}: {error}; install a C compiler (apt-get install gcc libc6-dev)")
        })?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("building tests/escapes: {}", String::from_utf8_lossy(&output.stderr)))
}
