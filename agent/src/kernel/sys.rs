//! System calls that neither aya nor nix offers.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::{size_of, size_of_val, zeroed};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_ITER_CREATE: libc::c_int = 33;
/// `BPF_CGROUP_SETSOCKOPT` of `enum bpf_attach_type`.
const CGROUP_SETSOCKOPT: u32 = 22;
/// `BPF_TRACE_ITER`.
const TRACE_ITER: u32 = 28;

/// `union bpf_attr`, the member for `BPF_OBJ_GET` and `BPF_OBJ_PIN`.
#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// `union bpf_attr`, the member for `BPF_LINK_UPDATE`.
#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// `union bpf_attr`, the member for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// The same for an iterator over a map: `iter_info` points to a `union bpf_iter_link_info`, of which the
/// map's descriptor is the first word.
#[repr(C)]
struct IterLinkCreate {
    base: LinkCreate,
    iter_info: u64,
    iter_info_len: u32,
    padding: u32,
}

/// `union bpf_attr`, the member for `BPF_ITER_CREATE`.
#[repr(C)]
struct IterCreate {
    link_fd: u32,
    flags: u32,
}

/// `union bpf_attr`, the member for `BPF_PROG_QUERY`.
#[repr(C)]
struct ProgQuery {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
    prog_attach_flags: u64,
}

/// Ids of the programs that run for what is in a cgroup, its ancestors' included.
pub(super) fn effective_programs(cgroup: &std::fs::File, attach_type: u32) -> io::Result<Vec<u32>> {
    const BPF_F_QUERY_EFFECTIVE: u32 = 1;
    let mut ids = [0_u32; 64];
    let mut attribute = ProgQuery {
        target_fd: number(std::os::fd::AsFd::as_fd(cgroup))?,
        attach_type,
        query_flags: BPF_F_QUERY_EFFECTIVE,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: 64,
        padding: 0,
        prog_attach_flags: 0,
    };
    bpf(BPF_PROG_QUERY, &mut attribute)?;
    let count = usize::try_from(attribute.prog_cnt).unwrap_or(0);
    Ok(ids.iter().take(count).copied().collect())
}

/// `union bpf_attr`, the member for `BPF_MAP_LOOKUP_BATCH`.
#[repr(C)]
struct MapBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Reads every entry of an array or hash map, thousands with each call, as key and value in bytes.
pub(super) fn lookup_all(
    map: BorrowedFd<'_>,
    key_size: usize,
    value_size: usize,
    mut each: impl FnMut(&[u8], &[u8]),
) -> io::Result<()> {
    const ENTRIES: u32 = 4096;
    let entries = usize::try_from(ENTRIES).map_err(io::Error::other)?;
    let (mut keys, mut values) = (vec![0_u8; entries * key_size], vec![0_u8; entries * value_size]);
    // Where the next call goes on: a bucket's number or a key, at most as long as the longest key.
    let (mut from, mut to) = ([0_u8; 64], [0_u8; 64]);
    let mut first = true;
    loop {
        let mut attribute = MapBatch {
            in_batch: if first { 0 } else { from.as_mut_ptr() as u64 },
            out_batch: to.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: ENTRIES,
            map_fd: number(map)?,
            elem_flags: 0,
            flags: 0,
        };
        let result = bpf(BPF_MAP_LOOKUP_BATCH, &mut attribute);
        let end = match result {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) => return Err(error),
        };
        let count = usize::try_from(attribute.count).unwrap_or(0).min(entries);
        let both = keys.chunks_exact(key_size).zip(values.chunks_exact(value_size));
        both.take(count).for_each(|(key, value)| each(key, value));
        if end {
            return Ok(());
        }
        std::mem::swap(&mut from, &mut to);
        first = false;
    }
}

/// A failed call as aya tells it.
pub(super) fn map_error(call: &'static str, source: io::Error) -> aya::maps::MapError {
    aya::maps::MapError::SyscallError(aya::sys::SyscallError { call, io_error: source })
}

fn bpf<T>(command: libc::c_int, attribute: &mut T) -> io::Result<libc::c_int> {
    let size = libc::c_uint::try_from(size_of::<T>()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `attribute` is a live, exclusively borrowed struct of `size` bytes laid out as the
    // kernel's union member for `command`; the kernel takes shorter attributes as zero-extended.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        libc::c_int::try_from(result).map_err(io::Error::other)
    }
}

/// Opens a pinned object. aya's links expose no descriptor, and an update needs one.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attribute = ObjGet { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    let fd = bpf(BPF_OBJ_GET, &mut attribute)?;
    // SAFETY: a fresh descriptor that the kernel just gave to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a program to `setsockopt` of a cgroup. aya makes such a link but gives nobody its descriptor.
pub(super) fn link_setsockopt(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
) -> io::Result<OwnedFd> {
    let mut attribute = LinkCreate {
        prog_fd: number(program)?,
        target_fd: number(cgroup)?,
        attach_type: CGROUP_SETSOCKOPT,
        flags: 0,
    };
    let fd = bpf(BPF_LINK_CREATE, &mut attribute)?;
    // SAFETY: a fresh descriptor that the kernel just gave to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Runs an iterator program over every element of a map; what it writes is read from the file.
pub(super) fn iterate(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<File> {
    // The union is as large as its largest member, and the kernel checks that the rest is zero.
    let info: [u32; 4] = [number(map)?, 0, 0, 0];
    let base =
        LinkCreate { prog_fd: number(program)?, target_fd: 0, attach_type: TRACE_ITER, flags: 0 };
    let iter_info_len = u32::try_from(size_of_val(&info)).map_err(io::Error::other)?;
    let mut attribute =
        IterLinkCreate { base, iter_info: info.as_ptr() as u64, iter_info_len, padding: 0 };
    let link = bpf(BPF_LINK_CREATE, &mut attribute)?;
    // SAFETY: a fresh descriptor that the kernel just gave to us alone.
    let link = unsafe { OwnedFd::from_raw_fd(link) };
    let mut attribute = IterCreate { link_fd: number(link.as_fd())?, flags: 0 };
    let file = bpf(BPF_ITER_CREATE, &mut attribute)?;
    // SAFETY: as above.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(file) }))
}

/// Pins an object under a path that is free.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attribute =
        ObjGet { pathname: path.as_ptr() as u64, bpf_fd: number(object)?, file_flags: 0 };
    bpf(BPF_OBJ_PIN, &mut attribute).map(|_| ())
}

fn number(fd: BorrowedFd<'_>) -> io::Result<u32> {
    u32::try_from(fd.as_raw_fd()).map_err(io::Error::other)
}

/// Replaces the program of a link in one step: no packet meets neither the old nor the new.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attribute = LinkUpdate {
        link_fd: number(link)?,
        new_prog_fd: number(program)?,
        flags: 0,
        old_prog_fd: 0,
    };
    bpf(BPF_LINK_UPDATE, &mut attribute).map(|_| ())
}

/// A wait for a descriptor to become readable, on a duplicate that it owns.
///
/// # Errors
/// The descriptor cannot be duplicated or polled.
pub fn watch(fd: BorrowedFd<'_>) -> io::Result<AsyncFd<OwnedFd>> {
    let own = fd.try_clone_to_owned()?;
    // SAFETY: the descriptor is owned by the AsyncFd from here on, so it stays open and the same for
    // as long as it is registered.
    unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) }.map_err(io::Error::from)
}

/// Whether the kernel holds the wall clock to be synchronised (adjtimex(2)).
#[must_use]
pub fn clock_synchronised() -> bool {
    // SAFETY: `timex` is plain data for which all zeroes is a value.
    let mut query: libc::timex = unsafe { zeroed() };
    // SAFETY: `modes` is zero: nothing is changed, the kernel only fills the struct.
    let state = unsafe { libc::adjtimex(&raw mut query) };
    state >= 0 && state != libc::TIME_ERROR && query.status & libc::STA_UNSYNC == 0
}

/// One extended attribute of at most 255 bytes; `None` when there is none.
pub(super) fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let name = CString::new(name).ok()?;
    let mut value = vec![0u8; 255];
    // SAFETY: both strings are NUL-terminated and live; the buffer is as long as stated.
    let n = unsafe {
        libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    value.truncate(usize::try_from(n).ok()?);
    Some(value)
}

/// The cookie of the network namespace that a socket is in (`SO_NETNS_COOKIE`, Linux 5.14).
pub(super) fn netns_cookie(socket: &OwnedFd) -> io::Result<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).map_err(io::Error::other)?;
    // SAFETY: the value and its length are live and exclusively borrowed, and the length is that of the
    // value.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}
