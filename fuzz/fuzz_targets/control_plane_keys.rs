//! The control plane's pinned keys.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| grantd_grant::fuzzing::control_plane_keys(data));
