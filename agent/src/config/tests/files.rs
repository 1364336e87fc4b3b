//! Who could have written the file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::config::{FileError, Untrusted, read_secret, read_trusted};

fn file(directory: &tempfile::TempDir, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode set");
    path
}

#[test]
fn a_file_that_others_can_write_is_refused_even_if_its_content_is_good() {
    for mode in [0o664, 0o646, 0o666, 0o620, 0o602] {
        let faults = parse_as(GOOD, FileFacts { mode, ..ROOTS }).expect_err("refused").faults;
        assert_eq!(faults.len(), 1, "{mode:o}: {faults:?}");
        assert!(faults[0].problem.contains("chmod go-w"), "{}", faults[0]);
    }
    for mode in [0o644, 0o640, 0o600, 0o444] {
        assert!(parse_as(GOOD, FileFacts { mode, ..ROOTS }).is_ok(), "{mode:o} is strict enough");
    }
}

#[test]
fn only_root_and_the_daemons_own_user_may_own_the_file() {
    let owned = |uid, euid| parse_as(GOOD, FileFacts { uid, euid, ..ROOTS });
    assert!(owned(0, 0).is_ok());
    assert!(owned(0, 991).is_ok(), "a daemon without privileges reads root's file");
    assert!(owned(991, 991).is_ok());
    for (uid, euid) in [(1000, 0), (1000, 991)] {
        let faults = owned(uid, euid).expect_err("refused").faults;
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].problem.contains("owned by uid 1000"), "{}", faults[0]);
    }
}

#[test]
fn faults_of_the_file_and_of_its_text_come_in_one_run() {
    let facts = FileFacts { uid: 1000, mode: 0o666, ..ROOTS };
    let text = changed(r#""api://grantd""#, r#""api://default""#);
    let faults = parse_as(&text, facts).expect_err("refused").faults;
    assert_eq!(faults.len(), 3, "{faults:?}");
}

#[test]
fn what_is_not_a_regular_file_is_refused_and_does_not_hang_the_daemon() {
    let directory = tempfile::tempdir().expect("directory");
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).expect("pipe");
    for path in [directory.path(), pipe.as_path()] {
        let faults = Config::load(path).expect_err("refused");
        assert!(faults.to_string().contains("not a regular file"), "{faults}");
    }
}

#[test]
fn a_file_that_is_absent_too_large_or_not_text_is_named() {
    let directory = tempfile::tempdir().expect("directory");
    let absent = directory.path().join("absent.toml");
    let faults = Config::load(&absent).expect_err("refused").to_string();
    assert!(faults.contains("absent.toml") && faults.contains("No such file"), "{faults}");
    let large = file(&directory, "large", &"#".repeat(1024 * 1024 + 1), 0o600);
    assert!(Config::load(&large).expect_err("refused").to_string().contains("larger than"));
    let binary = directory.path().join("binary");
    fs::write(&binary, b"host_id = \"\xff\"").expect("written");
    assert!(Config::load(&binary).expect_err("refused").to_string().contains("not UTF-8"));
}

#[test]
fn a_good_file_is_loaded_from_disk_with_the_hash_of_its_bytes() {
    let directory = tempfile::tempdir().expect("directory");
    let path = file(&directory, "config.toml", GOOD, 0o644);
    let config = Config::load(&path).expect("good");
    assert_eq!(config.file, path);
    let sum = std::process::Command::new("sha256sum").arg(&path).output().expect("sha256sum");
    let sum = String::from_utf8(sum.stdout).expect("text");
    assert_eq!(sum.split_whitespace().next(), Some(config.hash.to_string().as_str()));
}

#[test]
fn a_secret_that_others_can_read_is_refused() {
    let directory = tempfile::tempdir().expect("directory");
    for mode in [0o644, 0o604, 0o601] {
        let path = file(&directory, "key", "secret", mode);
        let error = read_secret(&path, 100).expect_err("exposed");
        let exposed = FileError::Untrusted { path, reason: Untrusted::Exposed { mode } };
        assert_eq!(error.to_string(), exposed.to_string());
    }
    let path = file(&directory, "key", "secret", 0o600);
    assert_eq!(read_secret(&path, 100).expect("read").as_slice(), b"secret");
    assert!(matches!(read_secret(&path, 5), Err(FileError::TooLarge { max: 5, .. })));
    let writable = file(&directory, "ca", "public", 0o666);
    assert!(matches!(read_trusted(&writable, 100), Err(FileError::Untrusted { .. })));
}
