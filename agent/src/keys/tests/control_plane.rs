//! The file of pinned keys.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use grantd_grant::UnixTime;
use grantd_grant::mint::{self, GrantSigner, SigningAlgorithm};

use super::super::{ControlPlaneKeyFile, KeyFileError};
use super::kid;

fn signer(id: &str) -> GrantSigner {
    GrantSigner::generate(SigningAlgorithm::EdDsa, kid(id)).expect("key")
}

fn file(directory: &tempfile::TempDir, name: &str, signers: &[&GrantSigner], exp: u64) -> PathBuf {
    let path = directory.path().join(name);
    let keys = signers.iter().map(|signer| signer.jwk(UnixTime(1), UnixTime(exp)));
    fs::write(&path, mint::jwks(keys)).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("mode");
    path
}

#[test]
fn pinned_keys_are_read() {
    let directory = tempfile::tempdir().expect("directory");
    let path = file(&directory, "keys", &[&signer("now"), &signer("next")], 9);
    let keys = ControlPlaneKeyFile::open(&path).expect("good");
    assert!(keys.keys().contains(&kid("now")) && keys.keys().contains(&kid("next")));
    assert_eq!(keys.path(), path);
}

#[test]
fn a_key_file_that_others_can_write_is_refused() {
    let directory = tempfile::tempdir().expect("directory");
    let path = file(&directory, "keys", &[&signer("now")], 9);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("mode");
    assert!(matches!(ControlPlaneKeyFile::open(&path), Err(KeyFileError::File(_))));
}

#[test]
fn a_key_file_that_is_too_large_absent_or_no_key_set_is_refused() {
    let directory = tempfile::tempdir().expect("directory");
    let path = file(&directory, "keys", &[&signer("now")], 9);
    let absent = directory.path().join("absent");
    assert!(matches!(ControlPlaneKeyFile::open(&absent), Err(KeyFileError::File(_))));
    fs::write(&path, vec![b' '; 64 * 1024 + 1]).expect("written");
    assert!(matches!(ControlPlaneKeyFile::open(&path), Err(KeyFileError::File(_))));
    fs::write(&path, r#"{"keys":[]}"#).expect("written");
    let error = ControlPlaneKeyFile::open(&path).expect_err("empty");
    assert!(error.to_string().contains("the key set is empty"), "{error}");
}

#[test]
fn a_removed_or_replaced_key_is_told_and_a_kept_one_is_not() {
    let directory = tempfile::tempdir().expect("directory");
    let (kept, removed, replaced) = (signer("kept"), signer("removed"), signer("replaced"));
    let before = file(&directory, "before", &[&kept, &removed, &replaced], 9);
    let after = file(&directory, "after", &[&kept, &signer("replaced"), &signer("new")], 10);
    let before = ControlPlaneKeyFile::open(&before).expect("good");
    let after = ControlPlaneKeyFile::open(&after).expect("good");
    let gone: Vec<_> = before.removed_in(&after).into_iter().collect();
    assert_eq!(gone, [kid("removed"), kid("replaced")]);
    assert!(before.removed_in(&before).is_empty());
}
