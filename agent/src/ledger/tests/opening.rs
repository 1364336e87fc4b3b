//! Files that are damaged, foreign, old or missing, and restarts at the worst moment.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::{FileExt, PermissionsExt, symlink},
};

use grantd_grant::{ReplayAnswer, UnixTime};

use super::{super::*, support::*};

fn corrupt(opened: Opened) -> (String, Option<std::path::PathBuf>, UnixTime) {
    let Opened::Corrupt { problem, moved_to, floor } = opened else {
        panic!("taken for sound: {opened:?}");
    };
    (problem, moved_to, floor)
}

/// Opens `home` after `damage` and checks everything that holds for a ledger that cannot be trusted.
fn is_replaced_after(mut home: Home, why: &str, damage: impl FnOnce(&std::path::Path)) {
    let file = home.path().join("ledger.redb");
    home.close();
    damage(&file);
    let before = fs::read(&file).unwrap();
    let (problem, moved_to, floor) = corrupt(home.open(&host(), &boot(1), at(NOW + 50)));
    assert!(problem.contains(why), "{problem:?} does not say {why:?}");
    let moved_to = moved_to.unwrap();
    let expected = format!("ledger.redb.corrupt-{}", NOW + 50);
    assert_eq!(moved_to.file_name().unwrap().to_str().unwrap(), expected);
    assert_eq!(fs::read(&moved_to).unwrap().len(), before.len(), "the evidence was altered");
    assert_eq!(floor, UnixTime(NOW + 51));
    assert_eq!(home.count(), 0, "a grant survived in a ledger that cannot be trusted");
    let old = grant("g1").issued(NOW + 50).make();
    assert_eq!(home.replay(&old), ReplayAnswer::BelowFloor, "a grant of before is accepted again");
    assert_eq!(home.replay(&grant("g2").issued(NOW + 51).make()), ReplayAnswer::New);
    let reopened = home.open(&host(), &boot(1), at(NOW + 60));
    assert!(matches!(reopened, Opened::Restored { live: 0 }), "{reopened:?}");
    assert_eq!(home.floor(), UnixTime(NOW + 51), "the floor is gone after a restart");
}

fn used() -> Home {
    let mut home = Home::fresh();
    for n in 0..50 {
        home.accept(grant(&format!("g{n}")).make()).unwrap();
    }
    home
}

#[test]
fn a_file_that_is_not_a_ledger_is_moved_aside() {
    is_replaced_after(used(), "", |file| fs::write(file, b"not a database at all").unwrap());
}

#[test]
fn an_empty_file_is_not_taken_for_a_fresh_start() {
    is_replaced_after(used(), "empty", |file| fs::write(file, b"").unwrap());
}

#[test]
fn a_truncated_file_is_moved_aside() {
    for part in [3, 10] {
        is_replaced_after(used(), "", |file| {
            let length = fs::metadata(file).unwrap().len();
            OpenOptions::new().write(true).open(file).unwrap().set_len(length / part).unwrap();
        });
    }
}

#[test]
fn one_flipped_bit_in_a_stored_grant_is_noticed() {
    is_replaced_after(used(), "", |file| {
        let bytes = fs::read(file).unwrap();
        // Every copy: which of them is current is the store's affair.
        let handle = OpenOptions::new().write(true).open(file).unwrap();
        let mut found = 0;
        for (at, _) in bytes.windows(6).enumerate().filter(|(_, w)| w == b"sub-z\"") {
            handle.write_at(b"sub-y\"", at as u64).unwrap();
            found += 1;
        }
        assert!(found > 0, "nothing was altered");
    });
}

#[test]
fn the_ledger_of_another_host_is_moved_aside() {
    let mut home = used();
    let other = "spiffe://example.org/host/other".parse().unwrap();
    let (problem, moved_to, _) = corrupt(home.open(&other, &boot(1), at(NOW)));
    assert!(problem.contains("host/build-7") && problem.contains("host/other"), "{problem}");
    assert!(moved_to.unwrap().exists());
    assert_eq!(home.count(), 0, "grants for another host are in force here");
}

#[test]
fn a_ledger_of_another_schema_is_moved_aside_unread() {
    let mut home = used();
    home.close();
    let path = home.path().join("ledger.redb");
    {
        let table = redb::TableDefinition::<&str, &[u8]>::new("meta");
        let database = redb::Database::open(&path).unwrap();
        let write = database.begin_write().unwrap();
        let row = br#"{"schema":99,"other":true}"#.as_slice();
        write.open_table(table).unwrap().insert("meta", row).unwrap();
        write.commit().unwrap();
    }
    let (problem, _, _) = corrupt(home.open(&host(), &boot(1), at(NOW)));
    assert!(problem.contains("schema 99"), "{problem}");
}

#[test]
fn a_missing_file_is_a_loss_once_there_was_one() {
    let mut home = used();
    home.close();
    fs::remove_file(home.path().join("ledger.redb")).unwrap();
    let (problem, moved_to, floor) = corrupt(home.open(&host(), &boot(1), at(NOW)));
    assert!(problem.contains("missing"), "{problem}");
    assert_eq!((moved_to, floor), (None, UnixTime(NOW + 1)));
    assert_eq!(home.replay(&grant("g1").make()), ReplayAnswer::BelowFloor);
}

#[test]
fn a_second_corrupt_file_in_the_same_second_does_not_overwrite_the_first() {
    let mut home = used();
    for _ in 0..2 {
        home.close();
        fs::write(home.path().join("ledger.redb"), b"x").unwrap();
        let (_, moved_to, _) = corrupt(home.open(&host(), &boot(1), at(NOW)));
        assert!(moved_to.unwrap().exists());
    }
    let names = fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().file_name());
    let kept = names.filter(|n| n.to_string_lossy().contains("corrupt")).count();
    assert_eq!(kept, 2);
}

#[test]
fn a_reboot_ends_every_grant_and_keeps_what_was_revoked() {
    let mut home = used();
    home.end(&id("g7"), EndCause::Revoked, at(NOW)).unwrap();
    home.freeze().unwrap();
    let opened = home.open(&host(), &boot(2), at(NOW + 5));
    let Opened::NewBoot { ended } = opened else { panic!("{opened:?}") };
    assert_eq!(ended.len(), 49);
    assert_eq!(home.count(), 0);
    let state = home.find(&id("g1")).unwrap().unwrap().state;
    let at_unix_ms = (NOW + 5) * 1000;
    assert_eq!(state, State::Ended { cause: EndCause::Rebooted, at_unix_ms });
    assert!(home.frozen(), "a reboot thawed the host");
    assert_eq!(home.replay(&grant("g7").make()), ReplayAnswer::Revoked);
    let again = home.open(&host(), &boot(2), at(NOW + 6));
    assert!(matches!(again, Opened::Restored { live: 0 }), "{again:?}");
}

#[test]
fn a_crash_between_acceptance_and_acknowledgement_leaves_the_grant_to_be_settled() {
    let mut home = Home::fresh();
    home.accept(grant("g1").make()).unwrap();
    // What a killed process leaves is the file as it is now, without a clean close.
    let file = home.path().join("ledger.redb");
    let killed = tempfile::tempdir().unwrap();
    fs::copy(&file, killed.path().join("ledger.redb")).unwrap();
    let (ledger, opened) = Ledger::open(killed.path(), &host(), &boot(1), at(NOW)).unwrap();
    assert!(matches!(opened, Opened::Restored { live: 1 }), "{opened:?}");
    let live: Vec<_> =
        ledger.live().map(|g| (g.id().as_str(), g.state, g.placement.slot)).collect();
    assert_eq!(live, [("g1", State::Accepted, 1)]);
}

#[test]
fn a_crash_before_the_mark_reached_the_disk_never_loses_the_grant() {
    let mut home = Home::fresh();
    home.accept(grant("g1").make()).unwrap();
    home.mark_in_force(&id("g1"), None, at(NOW)).unwrap();
    let killed = tempfile::tempdir().unwrap();
    fs::copy(home.path().join("ledger.redb"), killed.path().join("ledger.redb")).unwrap();
    let (ledger, _) = Ledger::open(killed.path(), &host(), &boot(1), at(NOW)).unwrap();
    assert_eq!(ledger.count(), 1);
}

#[test]
fn two_daemons_do_not_share_a_ledger() {
    let home = used();
    let second = Ledger::open(home.path(), &host(), &boot(1), at(NOW));
    assert!(matches!(second, Err(LedgerError::InUse { .. })), "{second:?}");
    assert_eq!(home.count(), 50);
    let names = fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().file_name());
    assert_eq!(names.filter(|n| n.to_string_lossy().contains("corrupt")).count(), 0);
}

#[test]
fn nobody_else_may_read_directory_or_files() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("state");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    drop(Ledger::open(&dir, &host(), &boot(1), at(NOW)).unwrap());
    assert_eq!(mode(&dir), 0o700);
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(dir.join("ledger.redb"), fs::Permissions::from_mode(0o644)).unwrap();
    drop(Ledger::open(&dir, &host(), &boot(1), at(NOW)).unwrap());
    assert_eq!((mode(&dir), mode(&dir.join("ledger.redb"))), (0o700, 0o600));
}

#[test]
fn a_link_in_place_of_the_file_or_the_directory_is_not_followed() {
    let parent = tempfile::tempdir().unwrap();
    let (real, link) = (parent.path().join("real"), parent.path().join("link"));
    drop(Ledger::open(&real, &host(), &boot(1), at(NOW)).unwrap());
    symlink(&real, &link).unwrap();
    assert!(Ledger::open(&link, &host(), &boot(1), at(NOW)).is_err());
    let other = parent.path().join("other");
    fs::create_dir(&other).unwrap();
    symlink(real.join("ledger.redb"), other.join("ledger.redb")).unwrap();
    assert!(Ledger::open(&other, &host(), &boot(1), at(NOW)).is_err());
}

#[test]
fn a_half_made_store_of_a_crashed_first_start_does_not_stop_the_next() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ledger.redb.new"), b"half").unwrap();
    let (_, opened) = Ledger::open(dir.path(), &host(), &boot(1), at(NOW)).unwrap();
    assert!(matches!(opened, Opened::Fresh), "{opened:?}");
    assert!(!dir.path().join("ledger.redb.new").exists());
}
