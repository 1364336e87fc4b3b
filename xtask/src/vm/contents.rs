//! What a virtual machine has: the programs under test, the tests, and as little of this machine as they
//! start.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Selected;
use super::archive::Archive;
use super::modules;
use crate::command;
use crate::setup::{Kernel, Machine};

/// The programs under test, and what the tests start of this workspace.
const OWN: [&str; 4] = ["grantd", "grantctl", "probe", "demo"];

/// Programs of this machine that tests start, each with the directories that it needs; one that is not here
/// is not there, and a test that needs it says so. What is not listed comes from busybox.
const PROGRAMS: [(&str, &[&str]); 18] = [
    ("ip", &[]),
    // Busybox's own prefers what it has to the programs below.
    ("sh", &[]),
    ("unshare", &[]),
    ("setpriv", &[]),
    ("nsenter", &[]),
    ("mount", &[]),
    ("umount", &[]),
    ("grep", &[]),
    ("git", &["/usr/lib/git-core", "/usr/share/git-core/templates"]),
    ("curl", &[]),
    ("ssh", &[]),
    ("ssh-keygen", &[]),
    ("dropbear", &[]),
    ("dropbearkey", &[]),
    ("sshd", &[]),
    ("nft", &[]),
    ("iptables", &[]),
    ("bash", &[]),
];
/// Where those are looked for: not on this shell's path, which may have wrappers.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Files of this machine that programs read, as far as they are here.
const FILES: [&str; 3] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/services", "/etc/protocols"];

/// Files of the machine's own.
const TEXTS: [(&str, &str); 5] = [
    (
        "/etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n",
    ),
    ("/etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("/etc/nsswitch.conf", "hosts: files dns\n"),
    ("/grantd/tests/.keep", ""),
];

const MOUNT_POINTS: [&str; 7] = ["/proc", "/sys", "/dev", "/run", "/tmp", "/root", "/var/tmp"];

/// What [`write`] puts together.
pub(super) struct Contents<'a> {
    pub(super) machine: &'a Machine,
    pub(super) kernel: &'a Kernel,
    /// Where grantd and the rest were built.
    pub(super) programs: &'a Path,
    pub(super) selected: &'a [Selected],
    /// What each machine runs: a part of `init.sh`.
    pub(super) lists: &'a [String],
}

/// Writes the first root file system of a machine into `directory`, and says where it is.
pub(super) fn write(contents: &Contents<'_>, directory: &Path) -> Result<PathBuf> {
    let path = directory.join(format!("initramfs-{}.cpio", contents.kernel.series));
    let mut archive = Archive::create(&path)?;
    for mount_point in MOUNT_POINTS {
        archive.directory(mount_point)?;
    }
    archive.file("/init", 0o755, include_bytes!("init.sh"))?;
    for (number, list) in contents.lists.iter().enumerate() {
        archive.file(format!("/grantd/list.{number}"), 0o644, list.as_bytes())?;
    }
    for (file, text) in TEXTS {
        archive.file(file, 0o644, text.as_bytes())?;
    }
    let modules = modules::wanted(&contents.kernel.modules)?;
    let order: String = modules.iter().map(|module| format!("{}\n", module.name)).collect();
    archive.file("/grantd/modules.order", 0o644, order.as_bytes())?;
    for module in &modules {
        archive.file(format!("/grantd/modules/{}.ko", module.name), 0o644, &module.bytes)?;
    }

    let mut linked = Vec::new();
    let own = OWN.iter().map(|name| (contents.programs.join(name), format!("/grantd/bin/{name}")));
    let tests = contents.selected.iter();
    let tests = tests.map(|test| (test.path.clone(), format!("/grantd/tests/{}", test.file)));
    for (built, place) in own.chain(tests) {
        let stripped = stripped(&built, directory)?;
        archive.copy(&stripped, place)?;
        linked.push(stripped);
    }
    linked.extend(programs(&mut archive)?);
    for library in libraries(&linked)? {
        archive.copy(&library, &library)?;
    }
    for file in FILES.iter().map(Path::new).filter(|file| file.exists()) {
        archive.copy(file, file)?;
    }
    busybox(&mut archive, &contents.machine.busybox)?;
    archive.finish()?;
    Ok(path)
}

/// A program without its debugging information, which is most of it.
fn stripped(built: &Path, directory: &Path) -> Result<PathBuf> {
    let name = built.file_name().context("a program has a name")?;
    let path = directory.join(name);
    let modified = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    if modified(&path) < modified(built) {
        command::run(Command::new("strip").arg("-o").arg(&path).arg(built))?;
    }
    Ok(path)
}

/// Adds the programs of this machine that tests start; gives them, for their libraries.
fn programs<W: std::io::Write>(archive: &mut Archive<W>) -> Result<Vec<PathBuf>> {
    let mut added = Vec::new();
    for (name, directories) in PROGRAMS {
        let mut found = DIRECTORIES.iter().map(|directory| Path::new(directory).join(name));
        let Some(path) = found.find(|path| path.exists()) else { continue };
        archive.copy(&path, &path)?;
        added.push(path);
        for directory in directories.iter().map(Path::new).filter(|path| path.is_dir()) {
            archive.copy_tree(directory)?;
            added.extend(programs_in(directory)?);
        }
    }
    Ok(added)
}

/// What may be started in a directory, and is no other name of something else.
fn programs_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// The shared libraries that programs are started with.
fn libraries(programs: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let mut libraries = BTreeSet::new();
    for program in programs {
        // It fails for a script, which has none.
        let listed = command::probe(Command::new("ldd").arg(program)).unwrap_or_default();
        libraries.extend(listed.lines().filter_map(library));
    }
    Ok(libraries)
}

/// The path in one line of what ldd prints: `libc.so.6 => /lib/libc.so.6 (0x7f…)`, `/lib64/ld.so (0x7f…)`.
fn library(line: &str) -> Option<PathBuf> {
    line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from)
}

/// Adds busybox, under every name that nothing else has.
fn busybox<W: std::io::Write>(archive: &mut Archive<W>, busybox: &Path) -> Result<()> {
    let place = Path::new("/usr/bin/busybox");
    archive.copy(busybox, place)?;
    let names = command::output(Command::new(busybox).arg("--list"))?;
    for name in names.lines() {
        let taken = ["/usr/bin", "/usr/sbin"].iter().any(|d| archive.has(Path::new(d).join(name)));
        if !taken {
            archive.link(Path::new("/usr/bin").join(name), place)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_the_loader_says() {
        assert_eq!(
            library("\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)"),
            Some("/lib/x86_64-linux-gnu/libc.so.6".into())
        );
        assert_eq!(library("\t/lib64/ld.so (0x00007f)"), Some("/lib64/ld.so".into()));
        assert_eq!(library("\tlinux-vdso.so.1 (0x00007f)"), None);
        assert_eq!(library("\tstatically linked"), None);
    }
}
