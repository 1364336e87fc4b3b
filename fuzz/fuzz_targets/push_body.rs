//! Body of a pushed grant.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| grantd_grant::fuzzing::push_body(data));
