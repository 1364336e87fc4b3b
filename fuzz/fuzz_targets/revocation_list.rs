//! The signed revocation list.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| grantd_grant::fuzzing::revocation_list(data));
