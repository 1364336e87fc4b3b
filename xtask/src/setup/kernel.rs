//! What boots another kernel: an emulator, and kernels of Debian in the directory of the tools.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{apt, on_path, tools};
use crate::command;
use crate::say::{say, step};

/// The emulator.
const QEMU: &str = "qemu-system-x86_64";
/// What the virtual machine's own programs are, in one.
const BUSYBOX: &str = "/bin/busybox";
/// What booting takes, and the packages that have it.
const PROGRAMS: [(&str, &str); 4] = [
    (QEMU, "qemu-system-x86"),
    (BUSYBOX, "busybox-static"),
    ("xz", "xz-utils"),
    ("strip", "binutils"),
];

/// A kernel that the tests can be run on.
pub(crate) struct Kernel {
    /// What it calls itself: `6.12.117+deb12-cloud-amd64`.
    pub(crate) release: String,
    /// The series that it was asked for by: `6.12`.
    pub(crate) series: String,
    /// The bootable image.
    pub(crate) image: PathBuf,
    /// The directory below which its modules are.
    pub(crate) modules: PathBuf,
}

/// The emulator and the rest of what boots a kernel.
pub(crate) struct Machine {
    pub(crate) qemu: PathBuf,
    pub(crate) busybox: PathBuf,
}

/// The emulator, installed first where it is missing.
pub(crate) fn machine() -> Result<Machine> {
    step!("virtual machine");
    if !cfg!(target_arch = "x86_64") {
        bail!("other kernels are known for x86-64 only: run the tests on this machine's kernel");
    }
    let missing = PROGRAMS.iter().filter(|(program, _)| find(program).is_none());
    let packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if !packages.is_empty() {
        apt::install(&packages, "install what boots other kernels")?;
    }
    for (program, package) in PROGRAMS {
        if find(program).is_none() {
            bail!("{program} is not there although {package} is installed");
        }
    }
    let qemu = find(QEMU).with_context(|| format!("no {QEMU}"))?;
    say!("    emulator: {}", qemu.display());
    Ok(Machine { qemu, busybox: PathBuf::from(BUSYBOX) })
}

fn find(program: &str) -> Option<PathBuf> {
    if Path::new(program).is_absolute() {
        return Path::new(program).exists().then(|| PathBuf::from(program));
    }
    on_path(program)
}

/// The newest kernel of a series (`6.1`, `6.12`) that this system's repositories offer, fetched first where
/// it is not there yet. A system that is offline gets the newest of those that it has fetched before.
pub(crate) fn kernel(series: &str) -> Result<Kernel> {
    step!("kernel {series}");
    let home = tools::directory().join("kernels");
    let newest = match offered(series) {
        Ok(packages) => packages.into_iter().next_back(),
        Err(error) => {
            say!("    no package list: {error:#}");
            None
        }
    };
    let fetched = || newest_of(fetched(&home).into_iter().filter(|name| is_of(name, series)));
    let package = match newest {
        Some(package) if fetch(&home, &package).is_ok() => package,
        Some(_) | None => fetched().with_context(|| by_hand(series, &home))?,
    };
    let kernel = unpacked(&home.join(&package), &package, series)?;
    say!("    {}", kernel.image.display());
    Ok(kernel)
}

/// Packages of a series that the repositories offer, oldest first.
fn offered(series: &str) -> Result<Vec<String>> {
    if !apt::is_here() {
        bail!("there is no apt-get here");
    }
    let ask = || {
        let pattern = format!("^linux-image-{}[.].*cloud-amd64$", series.replace('.', "[.]"));
        let found =
            command::probe(Command::new("apt-cache").args(["search", "--names-only", &pattern]));
        let names = found.unwrap_or_default();
        let names = names.lines().filter_map(|line| line.split(' ').next().map(str::to_owned));
        let mut names: Vec<String> = names.filter(|name| is_of(name, series)).collect();
        names.sort_by_key(|name| numbers(name));
        names
    };
    let known = ask();
    if !known.is_empty() {
        return Ok(known);
    }
    apt::update("fetch other kernels")?;
    Ok(ask())
}

/// Fetches and unpacks a package below `home`, unless it is there. Nothing is installed.
fn fetch(home: &Path, package: &str) -> Result<()> {
    let place = home.join(package);
    if place.is_dir() {
        return Ok(());
    }
    say!("    fetching {package} into {}", home.display());
    let staging = home.join(format!(".{package}.{}", std::process::id()));
    fs::create_dir_all(&staging).with_context(|| format!("cannot make {}", staging.display()))?;
    let outcome = download(&staging, package);
    if outcome.is_ok() && !place.is_dir() {
        let tree = staging.join("tree");
        fs::rename(&tree, &place).with_context(|| format!("cannot make {}", place.display()))?;
    }
    // What is left of a failed attempt is only in the way of nobody.
    let _left = fs::remove_dir_all(&staging);
    outcome.inspect_err(|error| say!("    cannot fetch {package}: {error:#}"))
}

fn download(staging: &Path, package: &str) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.args(["-qq", "download", package]).current_dir(staging).stdout(std::io::stderr());
    if command::run(&mut apt).is_err() {
        // The lists name a version that is no longer there.
        apt::update("fetch other kernels")?;
        command::run(&mut apt)?;
    }
    let listed = fs::read_dir(staging).with_context(|| format!("listing {}", staging.display()))?;
    let mut files = listed.flatten().map(|entry| entry.path());
    let archive = files
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get download {package} left no package"))?;
    command::run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(staging.join("tree")))
}

/// What was fetched before.
fn fetched(home: &Path) -> Vec<String> {
    let Ok(listed) = fs::read_dir(home) else { return Vec::new() };
    listed.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn newest_of(names: impl Iterator<Item = String>) -> Option<String> {
    names.max_by_key(|name| numbers(name))
}

fn unpacked(tree: &Path, package: &str, series: &str) -> Result<Kernel> {
    let release = package.strip_prefix(PREFIX).context("a package of a kernel")?.to_owned();
    let image = tree.join("boot").join(format!("vmlinuz-{release}"));
    let modules = ["lib/modules", "usr/lib/modules"]
        .map(|directory| tree.join(directory).join(&release))
        .into_iter()
        .find(|directory| directory.is_dir());
    match (image.is_file(), modules) {
        (true, Some(modules)) => Ok(Kernel { release, series: series.to_owned(), image, modules }),
        _ => bail!("{} holds no bootable kernel: remove it, then run this again", tree.display()),
    }
}

const PREFIX: &str = "linux-image-";

/// Whether a package is of a series, and one of its plain builds for virtual machines.
fn is_of(package: &str, series: &str) -> bool {
    let Some(release) = package.strip_prefix(PREFIX) else { return false };
    let plain = release.ends_with("-cloud-amd64") && !release.contains("unsigned");
    plain && release.strip_prefix(series).is_some_and(|rest| rest.starts_with('.'))
}

/// The numbers in a name, by which versions are ordered.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

fn by_hand(series: &str, home: &Path) -> String {
    format!(
        "there is no kernel {series} for a virtual machine: unpack a Debian package \
         linux-image-{series}.…-cloud-amd64 (`dpkg-deb -x`) into a directory of the package's name below {}",
        home.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_of_a_series_is_told_by_its_numbers() {
        let names = ["6.1.0-9", "6.1.0-56", "6.1.0-48"]
            .map(|release| format!("linux-image-{release}-cloud-amd64"));
        let newest = newest_of(names.into_iter());
        assert_eq!(newest.as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
    }

    #[test]
    fn a_series_is_not_taken_for_another_that_begins_alike() {
        assert!(is_of("linux-image-6.12.117+deb12-cloud-amd64", "6.12"));
        assert!(!is_of("linux-image-6.12.117+deb12-cloud-amd64", "6.1"));
        assert!(!is_of("linux-image-6.1.0-56-amd64", "6.1"));
        assert!(!is_of("linux-image-6.1.0-56-cloud-amd64-unsigned", "6.1"));
    }
}
