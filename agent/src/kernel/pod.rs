//! Lets the shared ABI types be keys and values of aya's maps.

/// A shared struct, byte for byte.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Pod<T>(pub(super) T);

// SAFETY: `Abi` is sealed and implemented only for `repr(C)` types without implicit padding, for
// which every bit pattern is a value; the wrapper is transparent.
unsafe impl<T: grantd_common::Abi> aya::Pod for Pod<T> {}

/// Reads a shared struct by copy; `None` where there are not exactly as many bytes.
pub(super) fn read<T: grantd_common::Abi>(bytes: &[u8]) -> Option<T> {
    if bytes.len() != size_of::<T>() {
        return None;
    }
    // SAFETY: there are as many bytes as the type has, they are copied without regard to alignment, and
    // `Abi` is implemented only for types of which every bit pattern is a value.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}
