//! The file: tables, transactions, and what is in them.

use std::{
    fs::File,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
};

use grantd_grant::{GrantId, HostId, Selector, UnixTime, WorkloadName, ids::BootId};
use redb::{
    Builder, Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, ReadableTable,
    StorageError, TableDefinition, WriteTransaction, backends::FileBackend,
};
use serde::{Deserialize, Serialize};

use super::{
    record::{InvalidRow, LedgerGrant},
    replay::Floor,
};

/// Version of tables and rows. A file of another version is moved aside, never read.
const SCHEMA: u32 = 1;
/// The memory mirror answers reads, so that the store needs little of its own.
const CACHE_BYTES: usize = 4 << 20;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const GRANTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("grants");
const FLOORS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("floors");
const REVOCATIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("revocations");
const WORKLOADS: TableDefinition<'_, &str, u32> = TableDefinition::new("workloads");
/// The one row of [`META`].
const META_KEY: &str = "meta";

/// What the ledger keeps beside the grants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Meta {
    pub(super) schema: u32,
    pub(super) host: HostId,
    pub(super) boot: BootId,
    /// Grants with an earlier `iat` are refused.
    pub(super) min_iat: UnixTime,
    pub(super) frozen: bool,
    /// Highest `seq` of a revocation.
    pub(super) revocation_seq: u64,
}

impl Meta {
    pub(super) fn new(host: HostId, boot: BootId, min_iat: UnixTime) -> Self {
        Self { schema: SCHEMA, host, boot, min_iat, frozen: false, revocation_seq: 0 }
    }
}

/// A pushed revocation that was applied, remembered so that it can be pushed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Applied {
    pub(super) seq: u64,
    pub(super) jws_sha256: [u8; 32],
    pub(super) until: UnixTime,
}

/// One row to be written; a transaction is a list of these.
pub(super) enum Change<'a> {
    Meta(&'a Meta),
    PutGrant(&'a LedgerGrant),
    DropGrant(&'a GrantId),
    PutFloor(&'a Selector, Floor),
    DropFloor(&'a Selector),
    PutRevocation(&'a GrantId, Applied),
    DropRevocation(&'a GrantId),
    Workload(&'a WorkloadName, u32),
}

/// Everything in the file.
pub(super) struct Contents {
    pub(super) meta: Meta,
    pub(super) grants: Vec<LedgerGrant>,
    pub(super) floors: Vec<(Selector, Floor)>,
    pub(super) revocations: Vec<(GrantId, Applied)>,
    pub(super) workloads: Vec<(WorkloadName, u32)>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    /// Not what was written, or not for this version: move it aside.
    #[error("{0}")]
    Corrupt(String),
    /// Another process has it open.
    #[error("another process has it open")]
    InUse,
    /// The disk failed; the file may be sound.
    #[error(transparent)]
    Failed(#[from] redb::Error),
}

/// Why a transaction was not made. Nothing of it is to be relied on, and the store takes no further one.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store failed.
    #[error(transparent)]
    Redb(Box<redb::Error>),
    /// A row could not be encoded.
    #[error("cannot encode a row")]
    Encode(#[source] serde_json::Error),
    /// It failed before and could not be opened anew.
    #[error("the store is closed after a failure")]
    Closed,
    /// A row is not what was written.
    #[error("a row is damaged: {0}")]
    Damaged(String),
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self::Redb(Box::new(error.into()))
    }
}

fn encoded<T: Serialize>(row: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(row).map_err(StoreError::Encode)
}

/// Keys are text: a selector's JSON, which is the same for the same selector.
fn key(selector: &Selector) -> Result<String, StoreError> {
    serde_json::to_string(selector).map_err(StoreError::Encode)
}

#[derive(Debug)]
pub(super) struct Store {
    /// Absent once closed.
    database: Option<Database>,
    /// A failed store answers every later transaction with an error.
    failed: bool,
}

impl Store {
    /// Makes a store in an empty file.
    pub(super) fn create(file: File, meta: &Meta) -> Result<Self, StoreError> {
        let database = builder().create_with_backend(FileBackend::new(file)?)?;
        let mut store = Self { database: Some(database), failed: false };
        store.commit([&Change::Meta(meta)])?;
        Ok(store)
    }

    /// Opens a store and reads all of it; every page's checksum and every row must be right.
    pub(super) fn open(file: File) -> Result<(Self, Contents), Unusable> {
        // On a damaged file the library may panic rather than answer: that file is corrupt as well.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let database = builder()
                .set_check_integrity_on_open(true)
                .create_with_backend(FileBackend::new(file).map_err(classify)?)
                .map_err(classify)?;
            let store = Self { database: Some(database), failed: false };
            let contents = store.read_all()?;
            Ok((store, contents))
        }));
        opened.unwrap_or_else(|_| Err(Unusable::Corrupt("the store's structure is broken".into())))
    }

    /// Whether a transaction has failed: then the store has to be opened anew.
    pub(super) const fn failed(&self) -> bool {
        self.failed || self.database.is_none()
    }

    /// Gives the file free.
    pub(super) fn close(&mut self) {
        self.database = None;
    }

    /// Writes all of `changes` or none; on disk when this returns.
    pub(super) fn commit<'c, 'd: 'c>(
        &mut self,
        changes: impl IntoIterator<Item = &'c Change<'d>>,
    ) -> Result<(), StoreError> {
        let written = self.try_commit(changes);
        self.failed |= written.is_err();
        written
    }

    fn try_commit<'c, 'd: 'c>(
        &self,
        changes: impl IntoIterator<Item = &'c Change<'d>>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.database()?.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        write(&transaction, changes)?;
        transaction.commit()?;
        Ok(())
    }

    fn database(&self) -> Result<&Database, StoreError> {
        self.database.as_ref().ok_or(StoreError::Closed)
    }

    /// One grant, ended ones too.
    pub(super) fn grant(&self, id: &GrantId) -> Result<Option<LedgerGrant>, StoreError> {
        let table = self.database()?.begin_read()?.open_table(GRANTS)?;
        let Some(row) = table.get(id.as_str())? else { return Ok(None) };
        LedgerGrant::decode(row.value()).map(Some).map_err(|e| StoreError::Damaged(e.to_string()))
    }

    fn read_all(&self) -> Result<Contents, Unusable> {
        let database = self.database().map_err(|e| Unusable::Corrupt(e.to_string()))?;
        let read = database.begin_read().map_err(redb::Error::from)?;
        let meta = {
            let table = read.open_table(META).map_err(missing)?;
            let row = table.get(META_KEY).map_err(storage)?;
            let row = row.ok_or_else(|| Unusable::Corrupt("it holds no meta row".into()))?;
            read_meta(row.value())?
        };
        let rows = |table| rows(&read, table);
        let grants = rows(GRANTS)?
            .iter()
            .map(|(key, value)| match LedgerGrant::decode(value) {
                Ok(grant) if grant.id().as_str() == key => Ok(grant),
                Ok(_) => Err(damaged("a grant is stored under another id")),
                Err(InvalidRow::Json(e)) => Err(damaged(e)),
                Err(InvalidRow::Grant(e)) => Err(damaged(e)),
            })
            .collect::<Result<_, _>>()?;
        let floors = rows(FLOORS)?.into_iter();
        let floors = floors.map(|(key, value)| Ok((json(key.as_bytes())?, json(&value)?)));
        let floors = floors.collect::<Result<_, Unusable>>()?;
        let revocations = rows(REVOCATIONS)?
            .into_iter()
            .map(|(key, value)| Ok((GrantId::new(key).map_err(damaged)?, json(&value)?)));
        let revocations = revocations.collect::<Result<_, Unusable>>()?;
        let table = read.open_table(WORKLOADS).map_err(missing)?;
        let workloads = table.iter().map_err(storage)?.map(|row| {
            let (name, id) = row.map_err(storage)?;
            Ok((WorkloadName::new(name.value()).map_err(damaged)?, id.value()))
        });
        let workloads = workloads.collect::<Result<_, Unusable>>()?;
        Ok(Contents { meta, grants, floors, revocations, workloads })
    }
}

fn rows(
    read: &ReadTransaction,
    table: TableDefinition<'_, &str, &[u8]>,
) -> Result<Vec<(String, Vec<u8>)>, Unusable> {
    let table = read.open_table(table).map_err(missing)?;
    let rows = table.iter().map_err(storage)?;
    rows.map(|row| {
        let (key, value) = row.map_err(storage)?;
        Ok((key.value().to_owned(), value.value().to_owned()))
    })
    .collect()
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn write<'c, 'd: 'c>(
    transaction: &WriteTransaction,
    changes: impl IntoIterator<Item = &'c Change<'d>>,
) -> Result<(), StoreError> {
    let mut meta = transaction.open_table(META)?;
    let mut grants = transaction.open_table(GRANTS)?;
    let mut floors = transaction.open_table(FLOORS)?;
    let mut revocations = transaction.open_table(REVOCATIONS)?;
    let mut workloads = transaction.open_table(WORKLOADS)?;
    for change in changes {
        match change {
            Change::Meta(row) => drop(meta.insert(META_KEY, encoded(row)?.as_slice())?),
            Change::PutGrant(grant) => {
                let row = grant.encode().map_err(StoreError::Encode)?;
                drop(grants.insert(grant.id().as_str(), row.as_slice())?);
            }
            Change::DropGrant(id) => drop(grants.remove(id.as_str())?),
            Change::PutFloor(selector, floor) => {
                drop(floors.insert(key(selector)?.as_str(), encoded(floor)?.as_slice())?);
            }
            Change::DropFloor(selector) => drop(floors.remove(key(selector)?.as_str())?),
            Change::PutRevocation(id, applied) => {
                drop(revocations.insert(id.as_str(), encoded(applied)?.as_slice())?);
            }
            Change::DropRevocation(id) => drop(revocations.remove(id.as_str())?),
            Change::Workload(name, id) => drop(workloads.insert(name.as_str(), id)?),
        }
    }
    Ok(())
}

/// The schema is looked at before the rest is parsed: another version may have other fields.
fn read_meta(bytes: &[u8]) -> Result<Meta, Unusable> {
    #[derive(Deserialize)]
    struct Version {
        schema: u32,
    }
    let Version { schema } = json(bytes)?;
    if schema != SCHEMA {
        return Err(Unusable::Corrupt(format!("it has schema {schema}, this version {SCHEMA}")));
    }
    json(bytes)
}

fn json<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, Unusable> {
    serde_json::from_slice(bytes).map_err(damaged)
}

fn damaged(error: impl std::fmt::Display) -> Unusable {
    Unusable::Corrupt(format!("a row is damaged: {error}"))
}

/// Every table is made with the file, so one that is not there or of other types is damage.
fn missing(error: redb::TableError) -> Unusable {
    if let redb::TableError::Storage(error) = error {
        return storage(error);
    }
    Unusable::Corrupt(error.to_string())
}

fn storage(error: StorageError) -> Unusable {
    if let StorageError::Corrupted(why) = error {
        return Unusable::Corrupt(why);
    }
    // A file that is shorter than its header says.
    if let StorageError::Io(cause) = &error
        && matches!(cause.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData)
    {
        return Unusable::Corrupt(cause.to_string());
    }
    Unusable::Failed(error.into())
}

fn classify(error: DatabaseError) -> Unusable {
    if let DatabaseError::Storage(error) = error {
        return storage(error);
    }
    if let DatabaseError::UpgradeRequired(version) = error {
        return Unusable::Corrupt(format!("its file format is version {version}"));
    }
    if let DatabaseError::DatabaseAlreadyOpen = error {
        return Unusable::InUse;
    }
    Unusable::Failed(error.into())
}
