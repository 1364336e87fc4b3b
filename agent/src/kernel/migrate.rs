//! Pins of a daemon of another ABI: taken over, so that an upgrade opens nothing and cuts nothing.
//!
//! The old programs go on judging by their own rules until the new maps hold the same ones; what both
//! share from the first moment on is what live connections rest on ([`KEPT`]).

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use super::error::Error;
use super::load::{Pins, SHAPES, check_shape_at};
use super::sys;

/// Maps whose layout and meaning no ABI changes without giving them another name: sockets and what they
/// rest on, how many there are, and the numbers of the events.
const KEPT: [Kept; 6] = [
    Kept { map: "SOCKETS", needed: true },
    Kept { map: "GRANTS", needed: true },
    Kept { map: "USAGE", needed: false },
    Kept { map: "SEEN", needed: false },
    Kept { map: "ASIDE", needed: false },
    Kept { map: "COUNTERS", needed: false },
];

struct Kept {
    map: &'static str,
    /// Without it live connections would be cut.
    needed: bool,
}

/// The pin directories of other ABIs below one bpffs.
#[derive(Clone, Debug, Default)]
pub(super) struct Others(Vec<PathBuf>);

impl Others {
    /// Lists them; none where the directory cannot be read.
    pub(super) fn beside(own: &Path) -> Self {
        let listed = own.parent().and_then(|family| fs::read_dir(family).ok());
        let mut found: Vec<PathBuf> = listed
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("abi-"))
            .map(|entry| entry.path())
            .filter(|path| path != own)
            .collect();
        found.sort();
        Self(found)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where another ABI has the link of this name.
    pub(super) fn link(&self, name: &str) -> Option<PathBuf> {
        self.0.iter().map(|root| root.join("links").join(name)).find(|path| path.exists())
    }

    pub(super) fn any_link(&self) -> bool {
        self.0.iter().any(|root| {
            fs::read_dir(root.join("links")).is_ok_and(|mut entries| entries.next().is_some())
        })
    }

    /// Pins what live connections rest on under our own directory too, before anything is loaded.
    ///
    /// # Errors
    /// [`Error::OtherAbi`] where they cannot be taken over, because their shape is another.
    pub(super) fn share_maps(&self, pins: &Pins) -> Result<(), Error> {
        for root in &self.0 {
            for kept in &KEPT {
                let (theirs, ours) = (root.join("maps").join(kept.map), pins.map(kept.map));
                if ours.exists() || !theirs.exists() {
                    continue;
                }
                let shape = SHAPES.iter().find(|(name, ..)| *name == kept.map);
                let same = shape.is_some_and(|shape| check_shape_at(&theirs, shape).is_ok());
                if same {
                    let failed =
                        |operation, source| Error::Pin { operation, path: ours.clone(), source };
                    let map =
                        sys::open_pin(&theirs).map_err(|e| failed("open what belongs at", e))?;
                    sys::pin(map.as_fd(), &ours).map_err(|e| failed("pin", e))?;
                } else if kept.needed && self.any_link() {
                    return Err(Error::OtherAbi { path: root.clone() });
                }
            }
        }
        Ok(())
    }

    /// Removes what is left of them, once every hook runs our programs. What cannot be removed stays and
    /// is told; it enforces nothing that we do not.
    pub(super) fn remove(&self) -> Result<Vec<PathBuf>, Error> {
        let mut removed = Vec::new();
        for root in &self.0 {
            for directory in ["links", "maps"].map(|name| root.join(name)) {
                for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                    remove_one(&entry.path(), |path| fs::remove_file(path), &mut removed)?;
                }
                remove_one(&directory, |path| fs::remove_dir(path), &mut removed)?;
            }
            remove_one(root, |path| fs::remove_dir(path), &mut removed)?;
        }
        Ok(removed)
    }
}

fn remove_one(
    path: &Path,
    remove: impl FnOnce(&Path) -> io::Result<()>,
    removed: &mut Vec<PathBuf>,
) -> Result<(), Error> {
    match remove(path) {
        Ok(()) => removed.push(path.to_owned()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(Error::Pin { operation: "remove", path: path.into(), source }),
    }
    Ok(())
}
