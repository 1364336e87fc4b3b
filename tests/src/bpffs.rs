//! A BPF filesystem of the run's own, so that its pins never meet those of an installed grantd.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use grantd_common::ABI_VERSION;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::cleanup::{self, Undo};
use crate::workdir::Workdir;

/// A mounted BPF filesystem. Dropping it removes the pins, which detaches the programs once no
/// process holds them, and unmounts it.
#[derive(Debug)]
pub struct Bpffs {
    path: PathBuf,
    _undo: Undo,
}

impl Bpffs {
    /// Mounts one at `bpffs` below the run's directory.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn new(workdir: &Workdir) -> Result<Self> {
        let path = workdir.subdir("bpffs", 0o700)?;
        mount(Some("bpf"), &path, Some("bpf"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mounting a BPF filesystem at {}", path.display()))?;
        let doomed = path.clone();
        let undo = cleanup::register(format!("BPF filesystem {}", path.display()), move || {
            remove_pins(&doomed);
            umount2(&doomed, MntFlags::MNT_DETACH)
                .with_context(|| format!("unmounting {}", doomed.display()))
        });
        Ok(Self { path, _undo: undo })
    }

    /// Where it is mounted: `bpffs` in the daemon's config.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the pins of this version the name that the kernel ABI before it has, as the version before an
    /// upgrade leaves them. Where they are now.
    ///
    /// # Errors
    /// When there are none.
    pub fn age_pins(&self) -> Result<PathBuf> {
        let family = self.path.join("grantd");
        let older = family.join(format!("abi-{}", ABI_VERSION - 1));
        fs::rename(family.join(format!("abi-{ABI_VERSION}")), &older)
            .context("giving the pins another ABI's name")?;
        Ok(older)
    }
}

/// Every pin below `path`, as paths relative to it, sorted.
///
/// # Errors
/// When the tree cannot be read.
pub fn pins(path: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    collect(path, path, &mut found)?;
    found.sort();
    Ok(found)
}

fn collect(root: &Path, path: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(path).with_context(|| format!("listing {}", path.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(root, &entry.path(), found)?;
        } else if let Ok(relative) = entry.path().strip_prefix(root) {
            found.push(relative.to_path_buf());
        }
    }
    Ok(())
}

/// Some kernels put files of their own into every BPF filesystem that cannot be removed; those go
/// with the unmount.
fn remove_pins(path: &Path) {
    for pin in pins(path).unwrap_or_default() {
        let _ = fs::remove_file(path.join(pin));
    }
}
