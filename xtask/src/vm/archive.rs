//! An archive in the form that a kernel unpacks into its first root file system: cpio, "newc"
//! (Documentation/driver-api/early-userspace/buffer-format.rst). Everything in it belongs to root.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

const FILE: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
/// Headers, names and contents each end at a multiple of this.
const ALIGNMENT: u64 = 4;
const HEADER: u64 = 110;
/// Directories that systems of today merge into `/usr`.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// An archive that is being written.
pub(super) struct Archive<W: Write> {
    out: W,
    inode: u32,
    /// Paths that are in it already, without the leading slash.
    present: BTreeSet<PathBuf>,
}

impl Archive<BufWriter<File>> {
    /// Begins one in a file.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Self::new(BufWriter::new(file))
    }
}

impl<W: Write> Archive<W> {
    fn new(out: W) -> Result<Self> {
        let mut archive = Self { out, inode: 0, present: BTreeSet::new() };
        for directory in MERGED {
            let target = format!("usr/{directory}");
            archive.directory(&target)?;
            archive.entry(Path::new(directory), LINK | 0o777, target.as_bytes())?;
        }
        Ok(archive)
    }

    /// Whether a path is there already.
    pub(super) fn has(&self, path: impl AsRef<Path>) -> bool {
        self.present.contains(&place(path.as_ref()))
    }

    /// Makes a directory, and those above it.
    pub(super) fn directory(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = place(path.as_ref());
        let above: Vec<&Path> = path.ancestors().filter(|p| !p.as_os_str().is_empty()).collect();
        for directory in above.into_iter().rev() {
            if !self.present.contains(directory) {
                self.entry(directory, DIRECTORY | 0o755, b"")?;
            }
        }
        Ok(())
    }

    /// Adds a file; nothing where the path is taken.
    pub(super) fn file(&mut self, path: impl AsRef<Path>, mode: u32, content: &[u8]) -> Result<()> {
        self.new_entry(path.as_ref(), FILE | mode, content)
    }

    /// Adds a symbolic link; nothing where the path is taken.
    pub(super) fn link(&mut self, path: impl AsRef<Path>, target: &Path) -> Result<()> {
        self.new_entry(path.as_ref(), LINK | 0o777, target.as_os_str().as_bytes())
    }

    /// Adds a file of this machine, the file itself where it is named by a link.
    pub(super) fn copy(&mut self, from: &Path, path: impl AsRef<Path>) -> Result<()> {
        let reading = || format!("cannot read {}", from.display());
        let mut content = Vec::new();
        let mut file = File::open(from).with_context(reading)?;
        file.read_to_end(&mut content).with_context(reading)?;
        let mode = file.metadata().with_context(reading)?.permissions().mode() & 0o777;
        self.file(path, mode, &content)
    }

    /// Adds a directory of this machine with all that it holds, at the same path.
    pub(super) fn copy_tree(&mut self, path: &Path) -> Result<()> {
        self.directory(path)?;
        for entry in fs::read_dir(path).with_context(|| format!("listing {}", path.display()))? {
            let (entry, path) = (entry.as_ref().map(fs::DirEntry::file_type), entry.as_ref());
            let (Ok(kind), Ok(path)) = (entry, path.map(fs::DirEntry::path)) else { continue };
            let kind = kind.with_context(|| format!("looking at {}", path.display()))?;
            if kind.is_dir() {
                self.copy_tree(&path)?;
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).with_context(|| path.display().to_string())?;
                self.link(&path, &target)?;
            } else if kind.is_file() {
                self.copy(&path, &path)?;
            }
        }
        Ok(())
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> Result<()> {
        self.entry(Path::new("TRAILER!!!"), 0, b"")?;
        self.out.flush().context("writing the archive")
    }

    fn new_entry(&mut self, path: &Path, mode: u32, content: &[u8]) -> Result<()> {
        let path = place(path);
        if self.present.contains(&path) {
            return Ok(());
        }
        if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
            self.directory(above)?;
        }
        self.entry(&path, mode, content)
    }

    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) -> Result<()> {
        self.inode = self.inode.saturating_add(1);
        let header = [
            u64::from(self.inode),
            u64::from(mode),
            // User, group, links, time.
            0,
            0,
            1,
            0,
            content.len() as u64,
            // Devices.
            0,
            0,
            0,
            0,
            path.as_os_str().len() as u64 + 1,
            // No sum.
            0,
        ];
        ensure!(
            header.iter().all(|field| u32::try_from(*field).is_ok()),
            "{} is too large for a first root file system",
            path.display()
        );
        self.write(path, header, content).with_context(|| format!("adding {}", path.display()))?;
        self.present.insert(path.to_owned());
        Ok(())
    }

    fn write(&mut self, path: &Path, header: [u64; 13], content: &[u8]) -> io::Result<()> {
        self.out.write_all(b"070701")?;
        for field in header {
            write!(self.out, "{field:08x}")?;
        }
        let name = path.as_os_str().as_bytes();
        self.out.write_all(name)?;
        self.out.write_all(b"\0")?;
        self.pad(HEADER + name.len() as u64 + 1)?;
        self.out.write_all(content)?;
        self.pad(content.len() as u64)
    }

    fn pad(&mut self, written: u64) -> io::Result<()> {
        let missing = written.next_multiple_of(ALIGNMENT) - written;
        (0..missing).try_for_each(|_| self.out.write_all(b"\0"))
    }
}

/// Where a path of this machine lies in the archive.
fn place(path: &Path) -> PathBuf {
    let path = path.strip_prefix("/").unwrap_or(path);
    let is_merged = MERGED.iter().any(|directory| {
        path.strip_prefix(directory).is_ok_and(|rest| !rest.as_os_str().is_empty())
    });
    if is_merged { Path::new("usr").join(path) } else { path.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_where_merged_systems_have_it_and_its_directories_come_first() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes).unwrap();
        archive.file("/lib/x/libc.so", 0o755, b"code").unwrap();
        archive.file("/usr/lib/x/libc.so", 0o755, b"another").unwrap();
        assert!(archive.has("/usr/lib/x/libc.so") && !archive.has("/etc"));
        archive.finish().unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let (directory, file) = (text.find("usr/lib/x\0"), text.find("usr/lib/x/libc.so\0"));
        assert!(directory.is_some() && directory < file);
        assert!(text.contains("code") && !text.contains("another"));
        assert!(text.ends_with("TRAILER!!!\0\0\0\0") || text.contains("TRAILER!!!\0"));
        assert_eq!(bytes.len() % 4, 0);
    }
}
