//! Opening the ledger: an existing one, a first one, or a new one in place of one that is lost.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use grantd_grant::{HostId, UnixTime, ids::BootId};
use nix::{libc, unistd::geteuid};

use super::{
    EndCause, Ledger, LedgerError, LedgerGrant, State,
    index::Index,
    pending::Pending,
    store::{Change, Contents, Meta, Store, Unusable},
};
use crate::clock::Now;

const FILE: &str = "ledger.redb";
/// The store while it is being made: never opened, overwritten by the next attempt.
const NEW_FILE: &str = "ledger.redb.new";
/// Tells a ledger that is lost from one that never was.
const MARKER: &str = "ledger.created";
/// Stands while the host is frozen, so that the kill switch survives the loss of the ledger.
const FROZEN: &str = "frozen";

/// What [`Ledger::open`] found.
#[derive(Debug)]
pub enum Opened {
    /// There never was a ledger here.
    Fresh,
    /// This boot's ledger: [`Ledger::live`] is to be reconciled with the kernel.
    Restored {
        /// How many grants are live.
        live: usize,
    },
    /// An earlier boot's ledger: what was live has ended.
    NewBoot {
        /// The grants that were live.
        ended: Vec<LedgerGrant>,
    },
    /// The ledger was lost or cannot be trusted; a new one was begun. Nothing is live, and grants
    /// issued before `floor` are refused. To be raised as an alert.
    Corrupt {
        /// What was wrong.
        problem: String,
        /// Where the old file was moved; absent when there was none.
        moved_to: Option<PathBuf>,
        /// The new floor for `iat`.
        floor: UnixTime,
    },
}

impl Ledger {
    /// Opens the ledger in `directory`, making both where needed (0700, 0600).
    ///
    /// A file that is damaged, of another schema or of another host is moved aside to
    /// `ledger.redb.corrupt-<unix time>` and a new one is begun, with which every grant issued up to
    /// now is refused: what cannot be read may have been revoked.
    ///
    /// # Errors
    /// [`LedgerError`] when the disk or another process is in the way; the file is left as it is.
    pub fn open(
        directory: &Path,
        host: &HostId,
        boot: &BootId,
        now: Now,
    ) -> Result<(Self, Opened), LedgerError> {
        let place = Place { directory: directory.to_owned() };
        place.prepare()?;
        let Some(file) = place.existing()? else {
            return place.begin(host, boot, now);
        };
        match read(file, host) {
            Ok((store, contents)) => Self::resume(place, store, contents, boot, now),
            Err(Unusable::Corrupt(problem)) => {
                let moved_to = place.move_aside(now)?;
                place.begin_again(host, boot, now, problem, Some(moved_to))
            }
            Err(Unusable::InUse) => Err(LedgerError::InUse { path: place.file() }),
            Err(Unusable::Failed(source)) => {
                Err(LedgerError::Open { path: place.file(), source: Box::new(source) })
            }
        }
    }

    fn resume(
        place: Place,
        store: Store,
        contents: Contents,
        boot: &BootId,
        now: Now,
    ) -> Result<(Self, Opened), LedgerError> {
        let pending = Pending::default();
        let mut ledger = Self { index: Index::load(contents), place, store, pending };
        ledger.index.meta.frozen |= ledger.place.is_frozen();
        if ledger.index.meta.boot == *boot {
            let live = ledger.index.live.len();
            return Ok((ledger, Opened::Restored { live }));
        }
        let at_unix_ms = now.unix_ms();
        let state = State::Ended { cause: EndCause::Rebooted, at_unix_ms };
        let live = ledger.index.live.values().cloned();
        let ended: Vec<_> = live.map(|grant| LedgerGrant { state, ..grant }).collect();
        let meta = Meta { boot: boot.clone(), ..ledger.index.meta.clone() };
        let mut changes: Vec<_> = ended.iter().map(Change::PutGrant).collect();
        changes.push(Change::Meta(&meta));
        ledger.commit("end the grants of the last boot", &changes)?;
        ended.iter().cloned().for_each(|grant| ledger.index.put(grant));
        ledger.index.meta = meta;
        Ok((ledger, Opened::NewBoot { ended }))
    }
}

fn read(file: File, host: &HostId) -> Result<(Store, Contents), Unusable> {
    let empty = file.metadata().map_or(true, |metadata| metadata.len() == 0);
    if empty {
        return Err(Unusable::Corrupt("it is empty".to_owned()));
    }
    let (store, contents) = Store::open(file)?;
    if contents.meta.host != *host {
        let other = &contents.meta.host;
        return Err(Unusable::Corrupt(format!("it is the ledger of {other}, this host is {host}")));
    }
    Ok((store, contents))
}

#[derive(Clone, Debug)]
pub(super) struct Place {
    directory: PathBuf,
}

impl Place {
    fn file(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    /// Makes the directory, or makes sure that it is ours alone.
    fn prepare(&self) -> Result<(), LedgerError> {
        let path = &self.directory;
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(LedgerError::io("create", path)(e)),
        }
        let metadata = fs::symlink_metadata(path).map_err(LedgerError::io("examine", path))?;
        if !metadata.is_dir() || metadata.uid() != geteuid().as_raw() {
            return Err(LedgerError::NotOurs { path: path.clone() });
        }
        private(path, &metadata, 0o700)
    }

    /// The ledger's file, opened, if there is one.
    fn existing(&self) -> Result<Option<File>, LedgerError> {
        let path = self.file();
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = match options.open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(LedgerError::io("open", &path)(e)),
        };
        let metadata = file.metadata().map_err(LedgerError::io("examine", &path))?;
        if !metadata.is_file() || metadata.uid() != geteuid().as_raw() {
            return Err(LedgerError::NotOurs { path });
        }
        private(&path, &metadata, 0o600)?;
        Ok(Some(file))
    }

    /// There is no file: the first start, or one that somebody removed.
    fn begin(
        &self,
        host: &HostId,
        boot: &BootId,
        now: Now,
    ) -> Result<(Ledger, Opened), LedgerError> {
        let marker = self.directory.join(MARKER);
        if marker.try_exists().map_err(LedgerError::io("look for", &marker))? {
            return self.begin_again(host, boot, now, "the file is missing".to_owned(), None);
        }
        let ledger = self.create(Meta::new(host.clone(), boot.clone(), UnixTime(0)))?;
        Ok((ledger, Opened::Fresh))
    }

    fn begin_again(
        &self,
        host: &HostId,
        boot: &BootId,
        now: Now,
        problem: String,
        moved_to: Option<PathBuf>,
    ) -> Result<(Ledger, Opened), LedgerError> {
        // A grant issued within this second may have been in the lost ledger.
        let floor = UnixTime(now.unix().as_secs().saturating_add(1));
        // A kill switch outlives the file that it was written in.
        let frozen = self.is_frozen();
        let meta = Meta { frozen, ..Meta::new(host.clone(), boot.clone(), floor) };
        let ledger = self.create(meta)?;
        Ok((ledger, Opened::Corrupt { problem, moved_to, floor }))
    }

    /// Makes the store under another name first: a file with the ledger's name is always whole.
    fn create(&self, meta: Meta) -> Result<Ledger, LedgerError> {
        let (path, new) = (self.file(), self.directory.join(NEW_FILE));
        match fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(LedgerError::io("remove", &new)(e));
            }
            Ok(()) | Err(_) => {}
        }
        let file = create_private(&new)?;
        let store = Store::create(file, &meta)
            .map_err(|source| LedgerError::Write { operation: "begin a new store", source })?;
        // The marker comes first: after a crash in between, a ledger counts as lost, not as new.
        let marker = self.directory.join(MARKER);
        match create_private(&marker) {
            Ok(_) => {}
            Err(LedgerError::Io { source, .. })
                if source.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
        fs::rename(&new, &path).map_err(LedgerError::io("put in place", &path))?;
        self.sync()?;
        let pending = Pending::default();
        Ok(Ledger { place: self.clone(), store, index: Index::new(meta), pending })
    }

    /// Opens the store anew after a failure.
    pub(super) fn reopen(&self) -> Result<Store, LedgerError> {
        let path = self.file();
        let Some(file) = self.existing()? else {
            let source = io::Error::from(io::ErrorKind::NotFound);
            return Err(LedgerError::io("open", &path)(source));
        };
        match Store::open(file) {
            Ok((store, _)) => Ok(store),
            Err(Unusable::InUse) => Err(LedgerError::InUse { path }),
            Err(Unusable::Failed(source)) => {
                Err(LedgerError::Open { path, source: Box::new(source) })
            }
            Err(Unusable::Corrupt(why)) => {
                let source = super::StoreError::Damaged(why);
                Err(LedgerError::Write { operation: "open the store anew", source })
            }
        }
    }

    /// Whether the host was frozen, also as far as it cannot be told.
    fn is_frozen(&self) -> bool {
        self.directory.join(FROZEN).try_exists().unwrap_or(true)
    }

    pub(super) fn mark_frozen(&self) -> Result<(), LedgerError> {
        let marker = self.directory.join(FROZEN);
        match create_private(&marker) {
            Ok(_) => {}
            Err(LedgerError::Io { source, .. })
                if source.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
        self.sync()
    }

    pub(super) fn unmark_frozen(&self) -> Result<(), LedgerError> {
        let marker = self.directory.join(FROZEN);
        match fs::remove_file(&marker) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(LedgerError::io("remove", &marker)(e));
            }
            Ok(()) | Err(_) => {}
        }
        self.sync()
    }

    fn sync(&self) -> Result<(), LedgerError> {
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(LedgerError::io("sync", &self.directory))
    }

    /// Renames the file, never over another.
    fn move_aside(&self, now: Now) -> Result<PathBuf, LedgerError> {
        let path = self.file();
        let base = format!("{FILE}.corrupt-{}", now.unix());
        for attempt in 0_u32.. {
            let name = if attempt == 0 { base.clone() } else { format!("{base}-{attempt}") };
            let target = self.directory.join(name);
            if !target.try_exists().map_err(LedgerError::io("look for", &target))? {
                fs::rename(&path, &target).map_err(LedgerError::io("move aside", &path))?;
                return Ok(target);
            }
        }
        Err(LedgerError::NotOurs { path })
    }
}

fn create_private(path: &Path) -> Result<File, LedgerError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(LedgerError::io("create", path))
}

/// Takes away what others may do with it.
fn private(path: &Path, metadata: &fs::Metadata, mode: u32) -> Result<(), LedgerError> {
    if metadata.mode() & 0o7777 == mode {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(LedgerError::io("set the permissions of", path))
}
