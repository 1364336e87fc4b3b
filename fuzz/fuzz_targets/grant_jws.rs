//! A grant as a compact JWS: form, header, claims.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| grantd_grant::fuzzing::grant_jws(data));
