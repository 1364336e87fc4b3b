//! What the watch programs see of cgroups and of tasks that change theirs.

use crate::tables::WorkloadId;

/// Bytes of a cgroup's path that the watch compares, the closing zero included. One that is longer is
/// followed by the daemon alone.
pub const PATH_BYTES: usize = 512;

/// Key of `PATHS`: a cgroup's path from the root of its hierarchy, `/` first, zeroes behind.
pub type PathKey = [u8; PATH_BYTES];

/// What happened.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MoveKind {
    /// The slice, or a workload's cgroup, was made; it is known before anything can be in it.
    Made = 1,
    /// A cgroup that was known is gone.
    Removed = 2,
    /// A task was moved into the slice, or inside it to another workload.
    Entered = 3,
    /// A task of the slice was moved out of it.
    Left = 4,
}

impl MoveKind {
    /// From the number in an event; `None` for one that this version does not know.
    #[must_use]
    pub const fn from_u32(value: u32) -> Option<Self> {
        match value {
            1 => Some(Self::Made),
            2 => Some(Self::Removed),
            3 => Some(Self::Entered),
            4 => Some(Self::Left),
            _ => None,
        }
    }
}

/// One event of the ring `MOVES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// A [`MoveKind`].
    pub kind: u32,
    /// The process that was moved; 0 where a cgroup was made or removed.
    pub pid: u32,
    /// Where it was: [`WorkloadId::NONE`] for outside the slice, or where that is not known.
    pub from: WorkloadId,
    /// Where it is now; of a cgroup that was made or removed, whose it is.
    pub to: WorkloadId,
    /// The cgroup's id; of a task, that of the cgroup that it was moved to.
    pub cgroup: u64,
    /// When, `CLOCK_BOOTTIME`.
    pub boot_ns: u64,
    /// When the process was started, `CLOCK_BOOTTIME`: tells it from another with its number.
    pub start_boot_ns: u64,
    /// Who moved it.
    pub by_pid: u32,
    /// That one's user.
    pub by_uid: u32,
    /// The process's name.
    pub comm: [u8; 16],
}

/// The key of a path; `None` for one that is too long.
#[must_use]
pub fn path_key(path: &[u8]) -> Option<PathKey> {
    let mut key = [0; PATH_BYTES];
    // The last byte stays zero: the kernel's copy ends with one.
    if path.len() >= PATH_BYTES {
        return None;
    }
    key.get_mut(..path.len())?.copy_from_slice(path);
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_does_not_fit_is_no_prefix_of_itself() {
        assert!(path_key(&[b'a'; PATH_BYTES - 1]).is_some_and(|key| key[PATH_BYTES - 1] == 0));
        assert_eq!(path_key(&[b'a'; PATH_BYTES]), None);
    }

    #[test]
    fn every_kind_survives_the_crossing() {
        for kind in [MoveKind::Made, MoveKind::Removed, MoveKind::Entered, MoveKind::Left] {
            assert_eq!(MoveKind::from_u32(kind as u32), Some(kind));
        }
        assert_eq!(MoveKind::from_u32(0), None);
    }
}
