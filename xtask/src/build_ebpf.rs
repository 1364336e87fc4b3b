//! `cargo xtask build-ebpf`: the kernel programs.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::say::{say, step};
use crate::setup::{self, BpfToolchain};
use crate::{command, workspace};

/// The objects: the names of the binaries of agent-ebpf.
const OBJECTS: [&str; 3] = ["enforce", "guard", "watch"];
/// Where agent/build.rs looks for them, below the root.
const DIRECTORY: &str = "target/bpf";

/// The machine number of BPF in an ELF header (elf.h: EM_BPF), and where it lies.
const ELF_MACHINE_BPF: [u8; 2] = 247_u16.to_le_bytes();
const ELF_MACHINE: std::ops::Range<usize> = 18..20;

/// Builds the kernel programs into target/bpf, where the daemon's build picks them up.
#[derive(Args)]
pub(crate) struct BuildEbpfArgs {}

pub(crate) fn run(_args: &BuildEbpfArgs) -> Result<()> {
    let toolchain = setup::bpf_toolchain()?;
    step!("kernel programs");
    let target_directory = workspace::root().join("target/ebpf");
    for object in OBJECTS {
        let mut cargo = cargo(&toolchain, "build")?;
        cargo.args(["--bin", object]);
        command::run(&mut cargo)?;
        let built = target_directory.join("bpfel-unknown-none/release").join(object);
        install(&built, object)?;
    }
    Ok(())
}

/// Cargo for the kernel programs, with the settings that their object is built with.
pub(crate) fn cargo(toolchain: &BpfToolchain, subcommand: &str) -> Result<Command> {
    prepared(toolchain.cargo(subcommand))
}

/// Aims a cargo of the BPF toolchain at the kernel programs, with a profile and a target directory of their
/// own: another compiler than the host's builds them.
pub(crate) fn prepared(mut cargo: Command) -> Result<Command> {
    // The target is little-endian BPF; a big-endian host needs bpfeb, and a core for it.
    ensure!(
        cfg!(target_endian = "little"),
        "kernel programs are built for little-endian hosts only"
    );
    let flags = [
        // aya-ebpf reads the registers of the architecture that the programs will run on.
        format!("--cfg=bpf_target_arch=\"{ARCH}\""),
        // Atomic instructions that return a value (kernel 5.12), which counters are made with.
        "-Ctarget-cpu=v3".to_owned(),
        // The kernel's type information (BTF) is made from the debugging information.
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
    ];
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    cargo.current_dir(workspace::root()).args([
        "--locked",
        "--package",
        "grantd-ebpf",
        "--release",
    ]);
    cargo.arg("--target-dir").arg(workspace::root().join("target/ebpf"));
    // The host's release profile strips debugging information, and panics where numbers wrap around: a
    // kernel program has nowhere to go then, and the verifier refuses one that could.
    for setting in [
        "lto=true",
        "panic=\"abort\"",
        "codegen-units=1",
        "strip=\"none\"",
        "debug=2",
        "overflow-checks=false",
    ] {
        cargo.arg("--config").arg(format!("profile.release.{setting}"));
    }
    Ok(cargo)
}

/// Puts a built object where it is embedded from. An object that did not change keeps its time, so that the
/// daemon is not built again.
fn install(built: &Path, object: &str) -> Result<()> {
    let bytes =
        fs::read(built).with_context(|| format!("cannot read the object {}", built.display()))?;
    if let Some(fault) = fault(&bytes) {
        bail!("{} is no object for the kernel: {fault}", built.display());
    }
    let directory = workspace::root().join(DIRECTORY);
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let place: PathBuf = directory.join(format!("{object}.o"));
    if fs::read(&place).is_ok_and(|there| there == bytes) {
        say!("    {} is up to date", place.display());
        return Ok(());
    }
    let new = directory.join(format!(".{object}.o.new"));
    fs::write(&new, &bytes).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, &place).with_context(|| format!("cannot write {}", place.display()))?;
    say!("    {} ({} bytes)", place.display(), bytes.len());
    Ok(())
}

/// What the kernel, or the loader, would miss in an object.
fn fault(object: &[u8]) -> Option<&'static str> {
    if !object.starts_with(b"\x7fELF") {
        return Some("it is not an ELF file");
    }
    if object.get(ELF_MACHINE) != Some(&ELF_MACHINE_BPF) {
        return Some("it is for another machine than BPF");
    }
    // The string table shares its tails: the name may be the end of `.rel.BTF`.
    let has = |section: &[u8]| object.windows(section.len()).any(|window| window == section);
    (!has(b".BTF\0")).then_some("it has no type information (.BTF)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_for_the_host_or_without_types_is_not_embedded() {
        let mut object = vec![0_u8; 64];
        assert_eq!(fault(&object), Some("it is not an ELF file"));
        object[..4].copy_from_slice(b"\x7fELF");
        object[ELF_MACHINE].copy_from_slice(&62_u16.to_le_bytes());
        assert_eq!(fault(&object), Some("it is for another machine than BPF"));
        object[ELF_MACHINE].copy_from_slice(&ELF_MACHINE_BPF);
        assert_eq!(fault(&object), Some("it has no type information (.BTF)"));
        object.extend(b".BTF\0");
        assert_eq!(fault(&object), None);
    }
}
