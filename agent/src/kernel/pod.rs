//! Lets the shared ABI types be keys and values of aya's maps.

/// A shared struct, byte for byte.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Pod<T>(pub(super) T);

// SAFETY: `Abi` is sealed and implemented only for `repr(C)` types without implicit padding, for
// which every bit pattern is a value; the wrapper is transparent.
unsafe impl<T: grantd_common::Abi> aya::Pod for Pod<T> {}
