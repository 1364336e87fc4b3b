//! The claims of a grant.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| grantd_grant::fuzzing::grant_claims(data));
