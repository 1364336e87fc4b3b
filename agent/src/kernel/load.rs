//! Loading the object onto new or pinned maps, and the pins.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use aya::maps::{MapInfo, MapType};
use aya::{EbpfLoader, include_bytes_aligned};
use grantd_common::event::counter;
use grantd_common::{
    ABI_VERSION, ExactKey, ExactRule, GrantSlot, InboundKey, PortSet, RangeKey, RangeRule, Ring,
    SocketState, WorkloadEntry, capacity,
};

use super::attach::Programs;
use super::error::Error;
use super::maps::Maps;
use super::migrate::Others;

/// The kernel programs; empty where `cargo xtask build-ebpf` has not run.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/enforce.o"));

/// Name, kind, key size, value size and entries of every pinned map of this ABI.
pub(super) const SHAPES: [(&str, MapType, usize, usize, u32); 15] = [
    ("WORKLOADS", MapType::Hash, 8, size_of::<WorkloadEntry>(), capacity::WORKLOADS),
    ("GRANTS", MapType::Array, 4, size_of::<GrantSlot>(), capacity::GRANTS),
    ("EXACT", MapType::Hash, size_of::<ExactKey>(), size_of::<ExactRule>(), capacity::EXACT),
    (
        "RANGES",
        MapType::LpmTrie,
        4 + size_of::<RangeKey>(),
        size_of::<RangeRule>(),
        capacity::RANGES,
    ),
    ("PORTSETS", MapType::Array, 4, size_of::<PortSet>(), capacity::PORTSETS),
    ("DENIALS", MapType::RingBuf, 0, 0, capacity::RING_BYTES),
    ("FLOWS", MapType::RingBuf, 0, 0, capacity::RING_BYTES),
    ("WAKE", MapType::Array, 4, 4, Ring::COUNT),
    ("SEEN", MapType::Array, 4, 8, capacity::SEEN),
    ("ASIDE", MapType::Array, 4, 16, capacity::SEEN),
    ("COUNTERS", MapType::PerCpuArray, 4, 8, counter::COUNT),
    ("USAGE", MapType::Hash, 4, 8, capacity::WORKLOADS),
    ("LIMITS", MapType::Hash, 4, 8, capacity::WORKLOADS),
    ("INBOUND", MapType::LpmTrie, 4 + size_of::<InboundKey>(), 4, capacity::INBOUND),
    ("SOCKETS", MapType::SkStorage, 4, size_of::<SocketState>(), 0),
];

/// The pin directories of this ABI below one bpffs.
pub(super) struct Pins {
    root: PathBuf,
    /// Those of other ABIs beside it: until they are taken over, their links are what enforces.
    pub(super) others: Others,
}

impl Pins {
    pub(super) fn directory(bpffs: &Path) -> PathBuf {
        bpffs.join("grantd").join(format!("abi-{ABI_VERSION}"))
    }

    pub(super) fn open(bpffs: &Path) -> Self {
        let root = Self::directory(bpffs);
        Self { others: Others::beside(&root), root }
    }

    /// Makes the directories (0700), and takes over from pins of another ABI what live connections rest on.
    pub(super) fn prepare(bpffs: &Path) -> Result<Self, Error> {
        let pins = Self::open(bpffs);
        pins.make_directories()?;
        pins.others.share_maps(&pins)?;
        Ok(pins)
    }

    pub(super) fn make_directories(&self) -> Result<(), Error> {
        let family = self.root.parent().map(Path::to_owned);
        let below = [self.root.clone(), self.root.join("maps"), self.root.join("links")];
        for directory in family.into_iter().chain(below) {
            match fs::DirBuilder::new().mode(0o700).create(&directory) {
                Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                    let operation = "make the directory";
                    return Err(Error::Pin { operation, path: directory, source });
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.root.join("maps").join(name)
    }

    pub(super) fn link(&self, name: &str) -> PathBuf {
        self.root.join("links").join(name)
    }

    /// Where the link of this name is: ours, or another ABI's that is not taken over yet.
    pub(super) fn existing_link(&self, name: &str) -> PathBuf {
        let ours = self.link(name);
        if ours.exists() { ours } else { self.others.link(name).unwrap_or(ours) }
    }

    pub(super) fn any_link(&self) -> Result<bool, Error> {
        if self.others.any_link() {
            return Ok(true);
        }
        let path = self.root.join("links");
        match fs::read_dir(&path) {
            Ok(mut entries) => Ok(entries.next().is_some()),
            Err(source) => Err(Error::Pin { operation: "list", path, source }),
        }
    }
}

pub(super) struct Loaded {
    pub(super) maps: Maps,
    pub(super) programs: Programs,
}

pub(super) fn load(pins: &Pins, slice_level: u32) -> Result<Loaded, Error> {
    for shape in &SHAPES {
        check_shape_at(&pins.map(shape.0), shape)?;
    }
    let mut object = open_object(Some(pins), slice_level)?;
    let maps = Maps::take(&mut object)?;
    Ok(Loaded { maps, programs: Programs::load(object)? })
}

/// Loads everything on maps of its own, which go with it.
pub(super) fn try_load(slice_level: u32) -> Result<(), Error> {
    Programs::load(open_object(None, slice_level)?).map(|_| ())
}

fn open_object(pins: Option<&Pins>, slice_level: u32) -> Result<aya::Ebpf, Error> {
    if OBJECT.is_empty() {
        return Err(Error::NoObject);
    }
    let abi_symbol = format!("GRANTD_ABI_{ABI_VERSION}");
    let mut loader = EbpfLoader::new();
    loader.override_global("SLICE_LEVEL", &slice_level, true);
    // The symbol carries the version in its name: an object of another ABI does not have it.
    loader.override_global(&abi_symbol, &ABI_VERSION, true);
    if let Some(pins) = pins {
        for (name, ..) in &SHAPES {
            loader.map_pin_path(name, pins.map(name));
        }
    }
    loader.load(OBJECT).map_err(|e| {
        if matches!(e, aya::EbpfError::ParseError(_)) {
            Error::ObjectAbi { expected: ABI_VERSION }
        } else {
            Error::loading("create the kernel maps".into(), e)
        }
    })
}

/// aya takes a pinned map as it is; one of another shape would be read and written wrongly.
pub(super) fn check_shape_at(
    path: &Path,
    shape: &(&str, MapType, usize, usize, u32),
) -> Result<(), Error> {
    let (_, kind, key, value, entries) = *shape;
    if !path.exists() {
        return Ok(());
    }
    let describe = |kind: &dyn std::fmt::Debug, key: usize, value: usize, entries: u32| {
        format!("{kind:?} of {key}+{value} bytes, {entries} entries")
    };
    let expected = describe(&kind, key, value, entries);
    let mismatch =
        |found: String| Error::PinShape { path: path.into(), found, expected: expected.clone() };
    let info = MapInfo::from_pin(path).map_err(|e| mismatch(format!("unreadable ({e})")))?;
    let found_kind = info.map_type().map_err(|e| mismatch(format!("of unknown type ({e})")))?;
    let (found_key, found_value) = (info.key_size() as usize, info.value_size() as usize);
    if (found_kind, found_key, found_value, info.max_entries()) == (kind, key, value, entries) {
        Ok(())
    } else {
        Err(mismatch(describe(&found_kind, found_key, found_value, info.max_entries())))
    }
}

/// Removes every pin, of this ABI and of others, and with the links all enforcement. Returns what was removed.
///
/// # Errors
/// A pin that cannot be removed; those before it are gone.
pub fn disarm(bpffs: &Path) -> Result<Vec<PathBuf>, Error> {
    let pins = Pins::open(bpffs);
    let mut removed = pins.others.remove()?;
    let links = super::attach::HOOKS.iter().map(|h| h.name);
    let links = links.chain(super::watch::TRACEPOINTS).chain(super::guard::links());
    let maps = SHAPES.iter().chain(&super::watch::SHAPES).chain(&super::guard::SHAPES);
    let maps = maps.map(|(name, ..)| pins.map(name));
    for path in links.map(|name| pins.link(name)).chain(maps) {
        match fs::remove_file(&path) {
            Ok(()) => removed.push(path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Pin { operation: "remove", path, source }),
        }
    }
    for directory in
        [pins.root.join("links"), pins.root.join("maps"), pins.root.clone(), bpffs.join("grantd")]
    {
        match fs::remove_dir(&directory) {
            Ok(()) => removed.push(directory),
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                ) => {}
            Err(source) => return Err(Error::Pin { operation: "remove", path: directory, source }),
        }
    }
    Ok(removed)
}
