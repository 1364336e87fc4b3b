//! Builds the programs of the tests that are C: what they do is bare system calls, and this crate has no
//! unsafe code.

use std::path::Path;
use std::process::{Command, exit};

/// Directories with the sources of one program each, which is called as its directory.
const PROGRAMS: [&str; 3] = ["calls", "escapes", "neighbour"];

fn main() {
    println!("cargo::rerun-if-env-changed=CC");
    let out = std::env::var("OUT_DIR").unwrap_or_default();
    for name in PROGRAMS {
        println!("cargo::rerun-if-changed={name}");
        let program = Path::new(&out).join(name);
        // Static where the system has a static libc: the same program then runs in a bare virtual machine.
        let built = compile(name, &program, &["-static"]).or_else(|_| compile(name, &program, &[]));
        if let Err(why) = built {
            complain(&why);
            exit(1);
        }
    }
}

#[expect(clippy::print_stderr, reason = "cargo shows what a build script says when it fails")]
fn complain(why: &str) {
    eprintln!("{why}");
}

fn compile(name: &str, program: &Path, link: &[&str]) -> Result<(), String> {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let mut sources: Vec<_> = std::fs::read_dir(name)
        .map_err(|error| format!("reading tests/{name}: {error}"))?
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
    Err(format!("building tests/{name}: {}", String::from_utf8_lossy(&output.stderr)))
}
