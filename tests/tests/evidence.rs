//! What is on record, and what must never be.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use grantd_e2e::audit::{ALLOWED, DENIED, FINDING, Record};
use grantd_e2e::check::{RECORD, allowed, refusals};
use grantd_e2e::clock::wait_until;
use grantd_e2e::jose;
use grantd_e2e::okta::AccessToken;
use grantd_e2e::probe::Tally;
use grantd_e2e::programs::not_run;
use grantd_e2e::server::Server;
use grantd_e2e::workload::Workload;
use grantd_e2e::world::{A, World, at, scenario};
use nix::sys::signal::Signal;
use serde_json::json;

/// Longer than an event may take to come before it counts as lost.
const SETTLED: std::time::Duration = std::time::Duration::from_secs(2);

#[test]
fn p26_every_allowed_and_every_denied_connection_is_accounted_for() {
    scenario(|world| {
        const GRANTED: u64 = 400;
        const REFUSED: u64 = 300;
        let open = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let shut = Server::tcp(&world.srv_a, at(A, 22)?)?;
        world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
        let tally: Tally = world.coding.times(open.address(), GRANTED)?;
        assert_eq!(tally.ok, GRANTED, "{tally:?}");
        let tally: Tally = world.coding.times(shut.address(), REFUSED)?;
        assert_eq!(tally.failed.get("EPERM"), Some(&REFUSED), "{tally:?}");
        let sum = |kind: u64, server: &Server| -> Result<u64> {
            let to = server.address().to_string();
            let records = world.spool.records()?;
            let fits = |record: &&Record| record.kind() == kind && record.destination() == to;
            Ok(records.iter().filter(fits).map(Record::count).sum())
        };
        wait_until("all connections to be on record", RECORD, || {
            let lost = lost(world)?;
            let seen = sum(ALLOWED, &open)? + sum(DENIED, &shut)? + lost;
            Ok((seen >= GRANTED + REFUSED).then_some(()))
        })?;
        let (allowed, denied, lost) = (sum(ALLOWED, &open)?, sum(DENIED, &shut)?, lost(world)?);
        assert_eq!(
            allowed + denied + lost,
            GRANTED + REFUSED,
            "{allowed} allowed, {denied} denied, {lost} lost"
        );
        assert_eq!((sum(DENIED, &open)?, sum(ALLOWED, &shut)?), (0, 0), "verdicts were mixed up");
        assert_eq!(lost, 0, "records were lost at a rate that loses none");
        sequence_has_no_gaps(world)
    });
}

#[test]
fn f09_a_process_that_takes_anothers_name_and_words_is_known_by_its_cgroup_and_its_file() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
        // The same name, words and user; another file and another workload.
        let disguise = world.workdir.subdir("disguise", 0o755)?.join("probe");
        fs::copy(grantd_e2e::programs::find("probe")?, &disguise)?;
        let disguised = disguise.to_str().context("a path")?;
        let words = ["tcp", &server.address().to_string()];
        let impostor = Workload::new(
            "research-agent",
            &world.host,
            world.research.cgroup(),
            world.coding.uid(),
        );
        allowed("the agent that has the grant", &world.coding.tcp(server.address())?)?;
        let output = impostor.run(disguised, &words, &[])?;
        ensure!(String::from_utf8_lossy(&output.stdout).contains("EPERM"), "{output:?}");
        let of_kind =
            |kind: u64| move |r: &Record| r.kind() == kind && r.destination().ends_with(":5432");
        let denial = world.spool.wait_for("the denial", 1, RECORD, of_kind(DENIED))?;
        let denial = denial.first().context("the denial")?;
        let passed = world.spool.wait_for("the connection", 1, RECORD, of_kind(ALLOWED))?;
        let passed = passed.first().context("the connection")?;
        let name = "/actor/process/name";
        ensure!(
            denial.text(name) == passed.text(name),
            "they have other names: {}",
            denial.summary()
        );
        assert_eq!((passed.workload(), denial.workload()), ("coding-agent", "research-agent"));
        let cgroup = "/unmapped/cgroup/uid";
        ensure!(denial.get(cgroup) != passed.get(cgroup), "one cgroup for both");
        ensure!(
            denial.get("/actor/process/pid") != passed.get("/actor/process/pid"),
            "one process"
        );
        Ok(())
    });
}

#[test]
fn p26_below_the_aggregation_rate_each_attempt_has_a_record_of_its_own() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        for _ in 0..5 {
            let attempt = world.coding.tcp(server.address())?;
            ensure!(attempt.denied(), "{attempt:?}");
        }
        let records = world.spool.wait_for("five denials", 5, RECORD, |record| {
            record.kind() == DENIED && record.destination() == server.address().to_string()
        })?;
        assert_eq!(records.len(), 5);
        ensure!(records.iter().all(|record| record.count() == 1), "{records:?}");
        let pids: BTreeSet<u64> =
            records.iter().filter_map(|record| record.get("/actor/process/pid").as_u64()).collect();
        assert_eq!(pids.len(), 5, "each attempt was made by a process of its own: {records:?}");
        Ok(())
    });
}

#[test]
fn p26_the_account_also_holds_when_the_daemon_is_killed_and_started_again() {
    scenario(|world| {
        const EACH: u64 = 50;
        let open = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let shut = Server::tcp(&world.srv_a, at(A, 22)?)?;
        world.control_plane.push(&world.draft()?.tcp(A, 5432).ttl(300))?.in_force()?;
        let attempt = |world: &World| -> Result<()> {
            let _: Tally = world.coding.times(open.address(), EACH)?;
            let _: Tally = world.coding.times(shut.address(), EACH)?;
            Ok(())
        };
        let on_record = |world: &World| -> Result<u64> {
            let records = world.spool.records()?;
            let verdicts = |record: &&Record| [ALLOWED, DENIED].contains(&record.kind());
            Ok(records.iter().filter(verdicts).map(Record::count).sum())
        };
        let settled = |world: &World, attempts: u64| {
            wait_until(&format!("{attempts} attempts to be on record"), RECORD, || {
                Ok((on_record(world)? + lost(world)? >= attempts).then_some(()))
            })
        };
        attempt(world)?;
        settled(world, 2 * EACH)?;
        world.daemon.kill9()?;
        attempt(world)?;
        world.daemon.start()?;
        attempt(world)?;
        settled(world, 6 * EACH)?;
        let (seen, lost) = (on_record(world)?, lost(world)?);
        assert_eq!(seen + lost, 6 * EACH, "{seen} on record and {lost} counted as lost");
        assert_eq!(
            lost, 0,
            "nothing was lost: what happened while grantd was dead waits in the kernel"
        );
        let unattributed = world
            .spool
            .records()?
            .into_iter()
            .filter(|record| record.kind() == ALLOWED && record.grant().is_empty())
            .count();
        assert_eq!(unattributed, 0, "allowed connections that name no grant");
        sequence_has_no_gaps(world)
    });
}

#[test]
fn p26_what_the_canary_did_just_before_the_daemon_was_killed_is_no_loss() {
    scenario(|world| {
        for _ in 0..5 {
            // A start waits for a round of the canary, so its events were taken a moment ago.
            world.daemon.kill9()?;
            world.daemon.start()?;
        }
        let server = Server::tcp(&world.srv_a, at(A, 22)?)?;
        let _: Tally = world.coding.times(server.address(), 1)?;
        world.spool.wait_for("a record after all that", 1, RECORD, |r| r.kind() == DENIED)?;
        // What is missing is called lost when it did not come for a while.
        std::thread::sleep(SETTLED);
        assert_eq!(lost(world)?, 0, "attempts that nobody made are counted as lost");
        Ok(())
    });
}

fn lost(world: &World) -> Result<u64> {
    let records = world.spool.records()?;
    Ok(records
        .iter()
        .filter(|record| record.kind() == FINDING)
        .filter_map(|record| record.get("/unmapped/loss/attempts").as_u64())
        .sum())
}

fn sequence_has_no_gaps(world: &World) -> Result<()> {
    let records = world.spool.records()?;
    let first = records.first().map(Record::sequence).context("an empty spool")?;
    for (expected, record) in (first..).zip(&records) {
        assert_eq!(record.sequence(), expected, "a gap or a repeat in the numbers");
    }
    Ok(())
}

#[test]
fn p27_subject_and_claims_are_on_record_but_no_token_is_in_any_file_log_or_core() {
    scenario(|world| {
        world.daemon.stop()?;
        world.daemon.allow_cores();
        world.daemon.log_everything();
        world.daemon.start()?;
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let secrets = use_and_abuse_tokens(world, &server)?;
        let records = world.spool.records()?;
        for expected in ["00u1mira", "0oa4coding"] {
            ensure!(
                records.iter().any(|record| record.0.to_string().contains(expected)),
                "the records do not name {expected}"
            );
        }
        let ath = jose::sha256_b64(&secrets[0]);
        ensure!(
            records.iter().any(|record| record.text("/unmapped/grant/ath") == ath),
            "no record names the token by its hash"
        );
        // Twice: as the state is while it runs, and with what a crash leaves.
        let log = fs::read_to_string(world.daemon.log_path())?;
        ensure!(log.contains("TRACE"), "the daemon and its libraries did not log all they can");
        let planted = world.workdir.write("planted", 0o600, secrets[0].as_bytes())?;
        ensure!(search(world.workdir.path(), &secrets).is_err(), "the search finds nothing");
        fs::remove_file(planted)?;
        search(world.workdir.path(), &secrets)?;
        world.daemon.end_with(Signal::SIGABRT)?;
        search(world.workdir.path(), &secrets)?;
        cores_would_be_found(world, &secrets[0])
    });
}

/// Pushes good and bad grants and gives every text that must not be found.
fn use_and_abuse_tokens(world: &World, server: &Server) -> Result<Vec<String>> {
    let mut secrets = Vec::new();
    let good = world.draft()?.tcp(A, 5432).sign()?;
    world.control_plane.push_signed(&good)?.in_force()?;
    allowed("a granted connection", &world.coding.tcp(server.address())?)?;
    let mut remember = |token: &AccessToken| -> Result<()> {
        let [_, claims, signature] = jose::parts(token.reveal())?;
        secrets.extend([token.reveal().to_owned(), claims.to_owned(), signature.to_owned()]);
        Ok(())
    };
    remember(&good.token)?;

    let other = world.token()?;
    remember(&other)?;
    let beside = world.draft()?.tcp(A, 5432).sign()?.beside(&other);
    world.control_plane.push_signed(&beside)?.refused("token_hash_mismatch")?;
    let forged = AccessToken::new(jose::with_signature_changed(other.reveal())?);
    remember(&forged)?;
    let draft = world.control_plane.draft(&world.coding.name, &forged)?.tcp(A, 5432);
    world.control_plane.push(&draft)?.refused("token_signature_invalid")?;
    // A body that is no push, with a token in it.
    let torn = good.body();
    let torn = torn.get(..torn.len() - 1).unwrap_or_default().to_vec();
    world.control_plane.push_body(torn)?.refused("push_malformed")?;
    let misplaced = json!({"grant": other.reveal(), "subject_token": good.jws}).to_string();
    let answer = world.control_plane.push_body(misplaced.into_bytes())?;
    ensure!(answer.status >= 400, "a token in place of a grant: {answer:?}");
    ensure!(
        secrets.iter().all(|secret| !answer.body.to_string().contains(secret)),
        "a refusal repeats a part of a token"
    );
    wait_until("four refusals to be on record", RECORD, || {
        Ok((refusals(world)?.len() >= 4).then_some(()))
    })?;
    Ok(secrets)
}

/// Fails if one of the texts is in any file below `directory`.
fn search(directory: &Path, secrets: &[String]) -> Result<()> {
    let mut grep = Command::new("grep")
        .args(["--recursive", "--text", "--fixed-strings", "--files-with-matches", "--file=-"])
        // Pins of maps and programs are no files that hold anything.
        .args(["--devices=skip", "--exclude-dir=bpffs", "--"])
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("running grep")?;
    let mut stdin = grep.stdin.take().context("grep's input")?;
    stdin.write_all(secrets.join("\n").as_bytes()).context("writing to grep")?;
    drop(stdin);
    let output = grep.wait_with_output().context("waiting for grep")?;
    let found = String::from_utf8_lossy(&output.stdout);
    ensure!(found.is_empty(), "a token, or a part of one, is in:\n{found}");
    ensure!(output.status.code() == Some(1), "grep did not search: {}", output.status);
    Ok(())
}

/// A program that holds the token and crashes in the same place leaves a core in which it is found:
/// otherwise the search above has proven nothing about cores.
fn cores_would_be_found(world: &World, secret: &str) -> Result<()> {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern")?;
    let directory = world.daemon.config().run.clone();
    let _ = Command::new(grantd_e2e::programs::find("probe")?)
        .args(["--cores", "crash", secret])
        .current_dir(&directory)
        .output()?;
    match search(&directory, &[secret.to_owned()]) {
        Err(_) => Ok(()),
        Ok(()) => not_run(
            "search of a core for tokens",
            &format!("this system leaves no core in the working directory ({})", pattern.trim()),
        ),
    }
}

#[test]
fn every_record_is_numbered_timed_and_says_who_where_and_why() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        ensure!(world.coding.tcp(server.address())?.denied());
        let signed = world.draft()?.tcp(A, 5432).sign()?;
        world.control_plane.push_signed(&signed)?.in_force()?;
        ensure!(world.coding.tcp(server.address())?.ok);
        world.control_plane.revoke(&json!([{"jti": signed.jti}]))?;
        world.spool.wait_for("the end of the grant", 1, RECORD, |record| {
            record.kind() == grantd_e2e::audit::GRANT_ENDED && record.reason() == "revoked"
        })?;
        let records = world.spool.records()?;
        let mut ids = BTreeSet::new();
        for record in &records {
            for member in ["/metadata/uid", "/metadata/version", "/metadata/product/name"] {
                ensure!(!record.text(member).is_empty(), "{member} is missing in {record:?}");
            }
            ensure!(record.get("/time").is_u64(), "no time in {record:?}");
            ensure!(ids.insert(record.text("/metadata/uid").to_owned()), "an id twice: {record:?}");
        }
        let story: Vec<&Record> =
            records.iter().filter(|record| record.grant() == signed.jti).collect();
        let kinds: Vec<u64> = story.iter().map(|record| record.kind()).collect();
        for kind in [grantd_e2e::audit::GRANT, ALLOWED, grantd_e2e::audit::GRANT_ENDED] {
            ensure!(kinds.contains(&kind), "no record of kind {kind} names the grant: {kinds:?}");
        }
        let txn: BTreeSet<&str> =
            story.iter().map(|record| record.text("/unmapped/grant/txn")).collect();
        assert_eq!(txn.len(), 1, "one run, one transaction: {txn:?}");
        sequence_has_no_gaps(world)
    });
}
