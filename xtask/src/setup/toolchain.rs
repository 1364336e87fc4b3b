//! The compiler and the linker for the kernel programs.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use super::tools::{Tool, without_toolchain_variables};
use super::{apt, is_program, on_path};
use crate::command;
use crate::say::say;

/// The target of the kernel programs, for little-endian machines.
const TARGET: &str = "bpfel-unknown-none";

/// Debian's compiler with a `core` for the BPF target.
const DEBIAN_COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CLIPPY: &str = "/usr/bin/cargo-clippy";

/// Releases of LLVM that the pinned linker can be built with, and the build's cargo feature.
const LINKER_FEATURES: [(u32, &str, &str); 3] =
    [(21, "llvm-21", "-llvm-21"), (22, "llvm-22", "-llvm-22"), (23, "llvm-23", "-llvm-23")];

/// What builds the kernel programs.
pub(crate) struct BpfToolchain {
    compiler: Compiler,
    linker: PathBuf,
}

/// Where a compiler for the BPF target comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Compiler {
    /// Debian's packages: a stable compiler with a `core` built for the BPF target.
    Debian,
    /// Rustup's nightly, which builds `core` from rust-src.
    Nightly,
}

/// How the kernel programs can be linted.
pub(crate) enum Linter {
    /// This command is clippy for the BPF target.
    Clippy(Command),
    /// There is none, and why.
    Missing(String),
}

impl BpfToolchain {
    pub(super) fn find_or_install() -> Result<Self> {
        let compiler = match Compiler::find() {
            Some(compiler) => compiler,
            None => Compiler::install()?,
        };
        let llvm = compiler.llvm()?;
        let linker = match find_linker(llvm) {
            Some(linker) => linker,
            None => install_linker(llvm)?,
        };
        Ok(Self { compiler, linker })
    }

    pub(crate) fn compiler(&self) -> Compiler {
        self.compiler
    }

    pub(crate) fn linker(&self) -> &Path {
        &self.linker
    }

    /// Cargo for the BPF target, free of what an outer cargo set for the host.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut cargo = match self.compiler {
            Compiler::Debian => Command::new(DEBIAN_CARGO),
            Compiler::Nightly => nightly("cargo"),
        };
        cargo.arg(subcommand);
        if self.compiler == Compiler::Nightly {
            cargo.arg("-Zbuild-std=core");
        }
        self.prepare(cargo)
    }

    /// Clippy for the BPF target, installed first where that can be done.
    pub(crate) fn linter(&self) -> Result<Linter> {
        match self.compiler {
            Compiler::Debian => {
                if !is_program(Path::new(DEBIAN_CLIPPY)) {
                    let installed =
                        apt::install(&["rust-web-clippy"], "install clippy for the BPF target");
                    if let Err(error) = installed {
                        return Ok(Linter::Missing(format!("{error:#}")));
                    }
                }
                // Started through `cargo clippy`, rustup's would be found first.
                let mut clippy = Command::new(DEBIAN_CLIPPY);
                clippy.arg("clippy");
                let mut clippy = self.prepare(clippy);
                clippy.env("CARGO", DEBIAN_CARGO);
                Ok(Linter::Clippy(clippy))
            }
            Compiler::Nightly => {
                if command::probe(nightly("cargo").args(["clippy", "--version"])).is_none() {
                    let why = "add it with `rustup component add clippy --toolchain nightly`";
                    return Ok(Linter::Missing(why.to_owned()));
                }
                Ok(Linter::Clippy(self.cargo("clippy")))
            }
        }
    }

    fn prepare(&self, mut cargo: Command) -> Command {
        without_toolchain_variables(&mut cargo);
        // Rustc tells the linker's command line from its name, which is bpf-linker here.
        cargo.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker);
        match self.compiler {
            Compiler::Debian => {
                cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
            }
            Compiler::Nightly => {
                cargo.env("RUSTUP_TOOLCHAIN", "nightly");
            }
        }
        cargo.env("CARGO_BUILD_TARGET", TARGET);
        cargo
    }
}

impl Compiler {
    fn find() -> Option<Self> {
        if has_debian_compiler() {
            return Some(Self::Debian);
        }
        let source = nightly_sysroot()?.join("lib/rustlib/src/rust/library/core");
        source.is_dir().then_some(Self::Nightly)
    }

    fn install() -> Result<Self> {
        say!("    there is no compiler for {TARGET} yet");
        let purpose = "install a compiler for the kernel programs";
        let by_apt = if !apt::is_here() {
            Err(anyhow!("there is no apt-get here"))
        } else if apt::offers(&DEBIAN_COMPILER, purpose)? {
            apt::install(&DEBIAN_COMPILER, purpose)
        } else {
            Err(anyhow!("the package lists have no {}", DEBIAN_COMPILER.join(", ")))
        };
        let by_rustup = match by_apt {
            Ok(()) => return Ok(Self::Debian),
            Err(why) => {
                say!("    not by Debian's packages: {why:#}");
                install_nightly()
            }
        };
        match by_rustup {
            Ok(()) => {}
            Err(why) => bail!("no compiler for {TARGET}: {why:#}\n{}", compiler_by_hand()),
        }
        Self::find().with_context(|| format!("no compiler for {TARGET}\n{}", compiler_by_hand()))
    }

    /// The release of LLVM that the compiler's bitcode is for.
    fn llvm(self) -> Result<u32> {
        let mut rustc = match self {
            Self::Debian => Command::new(DEBIAN_RUSTC),
            Self::Nightly => nightly("rustc"),
        };
        let version = command::output(rustc.arg("-vV"))?;
        llvm_major(&version).with_context(|| format!("rustc names no LLVM version in: {version}"))
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debian => "Debian's rustc, with a core for the BPF target",
            Self::Nightly => "rustup's nightly, with rust-src",
        })
    }
}

fn has_debian_compiler() -> bool {
    let sysroot = || {
        let sysroot = command::probe(Command::new(DEBIAN_RUSTC).args(["--print", "sysroot"]))?;
        Some(Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET))
    };
    is_program(Path::new(DEBIAN_CARGO)) && sysroot().is_some_and(|directory| directory.is_dir())
}

/// Where rustup keeps its nightly, if it has one.
pub(super) fn nightly_sysroot() -> Option<PathBuf> {
    let sysroot = command::probe(nightly("rustc").args(["--print", "sysroot"]))?;
    Some(PathBuf::from(sysroot.trim()))
}

/// A program of rustup's nightly. Asking for one does not make rustup fetch it.
fn nightly(program: &str) -> Command {
    let mut command = Command::new("rustup");
    without_toolchain_variables(&mut command);
    command.env("RUSTUP_AUTO_INSTALL", "0").args(["run", "nightly", program]);
    command
}

fn install_nightly() -> Result<()> {
    if on_path("rustup").is_none() {
        bail!("there is no rustup here");
    }
    let mut rustup = Command::new("rustup");
    without_toolchain_variables(&mut rustup);
    if nightly_sysroot().is_some() {
        // A nightly that is there stays the one it is: somebody may rely on it.
        say!("    adding rust-src to rustup's nightly");
        rustup.args(["component", "add", "rust-src", "--toolchain", "nightly"]);
    } else {
        say!("    installing rustup's nightly with rust-src");
        let profile = ["--profile", "minimal", "--component", "rust-src"];
        rustup.args(["toolchain", "install", "nightly"]).args(profile);
    }
    command::run(&mut rustup)
}

fn compiler_by_hand() -> String {
    format!(
        "do one of these by hand, then run this again:\n    \
         apt-get update && apt-get install -y --no-install-recommends {}\n    \
         rustup toolchain install nightly --profile minimal --component rust-src",
        DEBIAN_COMPILER.join(" ")
    )
}

/// The linker at its pinned version, built for one release of LLVM.
fn pinned_linker(llvm: u32) -> Option<(Tool, &'static str)> {
    let (_, feature, variant) =
        LINKER_FEATURES.into_iter().find(|(release, ..)| *release == llvm)?;
    let tool = Tool { name: "bpf-linker", version: "0.13.0", variant, duration: "a minute or two" };
    Some((tool, feature))
}

fn find_linker(llvm: u32) -> Option<PathBuf> {
    let pinned = pinned_linker(llvm).and_then(|(tool, _)| tool.find());
    let any = || {
        on_path("bpf-linker")
            .filter(|linker| command::probe(Command::new(linker).arg("-V")).is_some())
    };
    pinned.or_else(any)
}

fn install_linker(llvm: u32) -> Result<PathBuf> {
    say!("    there is no bpf-linker yet");
    let by_hand =
        || format!("install a bpf-linker that was built with LLVM {llvm} or later on the path");
    let (tool, feature) = pinned_linker(llvm)
        .with_context(|| format!("the pinned bpf-linker knows no LLVM {llvm}: {}", by_hand()))?;
    let prefix = llvm_prefix(llvm).with_context(by_hand)?;
    let library = prefix.join("lib");
    let mut flags = OsString::from("-Lnative=");
    flags.push(&library);
    flags.push(" -Clink-arg=-Wl,-rpath,");
    flags.push(&library);
    let variables = [("LLVM_PREFIX", prefix.into_os_string()), ("RUSTFLAGS", flags)];
    tool.install(&["--no-default-features", "--features", feature], &variables)
}

/// Where LLVM's headers and library are: what LLVM_PREFIX names, or Debian's, installed first where missing.
fn llvm_prefix(llvm: u32) -> Result<PathBuf> {
    if let Some(prefix) = env::var_os("LLVM_PREFIX").filter(|prefix| !prefix.is_empty()) {
        return Ok(PathBuf::from(prefix));
    }
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    let complete =
        || prefix.join("bin/llvm-config").exists() && prefix.join("lib/libPolly.a").exists();
    if !complete() {
        let packages =
            [format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev"), "g++".to_owned()];
        apt::install(&packages.each_ref().map(String::as_str), "install LLVM for the BPF linker")?;
    }
    Ok(prefix)
}

/// The major release in the line `LLVM version: 22.1.8` of `rustc -vV`.
fn llvm_major(version: &str) -> Option<u32> {
    let release = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    release.split('.').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linker_is_built_for_the_llvm_of_the_compiler() {
        let version = "rustc 1.96.0\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.8\n";
        assert_eq!(llvm_major(version), Some(22));
        assert_eq!(pinned_linker(22).map(|(_, feature)| feature), Some("llvm-22"));
        assert!(pinned_linker(17).is_none(), "an unknown LLVM is refused, not guessed");
    }
}
