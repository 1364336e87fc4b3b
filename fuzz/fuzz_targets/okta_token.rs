//! An Okta access token: form, header, claims.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| grantd_grant::fuzzing::okta_token(data));
