//! The harness itself: what it makes works without grantd, and nothing of it is left behind. A test
//! against a harness that is wrong would prove nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use grantd_e2e::bpffs::Bpffs;
use grantd_e2e::ca::{Ca, Identity, Purpose};
use grantd_e2e::capture::Capture;
use grantd_e2e::cgroup::{self, CgroupTree};
use grantd_e2e::clock::wait_until;
use grantd_e2e::control_plane::Pusher;
use grantd_e2e::issuer::Shape;
use grantd_e2e::netns::Netns;
use grantd_e2e::server::Server;
use grantd_e2e::workdir::{self, Workdir};
use grantd_e2e::world::{self, World, at};
use grantd_e2e::{jose, programs};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_failed_test_leaves_no_process_cgroup_mount_or_file_behind() -> Result<()> {
    let mut made = None;
    let outcome = catch_unwind(AssertUnwindSafe(|| -> Result<()> {
        let workdir = Workdir::new()?;
        let cgroups = CgroupTree::new(workdir.name())?;
        let _bpffs = Bpffs::new(&workdir)?;
        let leaf = cgroups.workload("left")?;
        let mut probe = Command::new(programs::find("probe")?);
        probe.arg("--cgroup").arg(&leaf).args(["exec", "--", "sleep", "600"]);
        let child = probe.spawn()?;
        wait_until("the process to enter its cgroup", SOON, || {
            Ok((!cgroup::pids(&leaf)?.is_empty()).then_some(()))
        })?;
        made = Some((workdir.name().to_owned(), child));
        panic!("as a failing test would");
    }));
    ensure!(outcome.is_err(), "the panic was swallowed");
    let (name, mut child) = made.context("nothing was made")?;
    ensure!(child.wait()?.code().is_none(), "the process was not killed");
    assert_nothing_left(&name)
}

#[test]
fn an_interrupted_run_leaves_nothing_behind() -> Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (mut run, name, sleeper) = stand()?;
        kill(Pid::from_raw(i32::try_from(run.id())?), signal)?;
        let status = run.wait()?;
        assert_eq!(status.code(), Some(128 + signal as i32), "exit status after {signal}");
        assert_dead(sleeper)?;
        assert_nothing_left(&name)?;
    }
    Ok(())
}

#[test]
fn what_a_killed_run_leaves_is_removed_by_the_next_one() -> Result<()> {
    let (mut run, name, sleeper) = stand()?;
    let tree = cgroup::mount_point()?.join(&name);
    ensure!(tree.exists(), "the run has no cgroup, so this test would prove nothing");
    workdir::sweep();
    ensure!(tree.exists(), "a living run was swept away");
    run.kill()?;
    run.wait()?;
    // Its lock goes with the last of its threads.
    wait_until("the sweep to remove a dead run", SOON, || {
        workdir::sweep();
        Ok((!tree.exists()).then_some(()))
    })?;
    assert_dead(sleeper)?;
    assert_nothing_left(&name)
}

/// Starts a run in a process of its own; gives it, its name, and the pid of a process that it confined.
fn stand() -> Result<(Child, String, u32)> {
    let mut run = Command::new(programs::find("probe")?)
        .arg("stand")
        .stdout(Stdio::piped())
        .spawn()
        .context("starting a run")?;
    let mut line = String::new();
    BufReader::new(run.stdout.as_mut().context("its output")?).read_line(&mut line)?;
    let (name, sleeper): (String, u32) = serde_json::from_str(&line)?;
    Ok((run, name, sleeper))
}

fn assert_dead(pid: u32) -> Result<()> {
    wait_until("a confined process to be gone", SOON, || {
        Ok((!Path::new(&format!("/proc/{pid}/exe")).exists()).then_some(()))
    })
}

fn assert_nothing_left(name: &str) -> Result<()> {
    let directory: PathBuf = std::env::temp_dir().join(name);
    ensure!(!cgroup::mount_point()?.join(name).exists(), "cgroup {name} is left");
    ensure!(workdir::mounts_below(&directory)?.is_empty(), "a mount below {name} is left");
    ensure!(!directory.exists(), "{} is left", directory.display());
    Ok(())
}

#[test]
fn the_issuer_is_found_by_discovery_and_gives_tokens_only_to_who_proves_its_key() -> Result<()> {
    let world = World::assemble(Shape::okta())?;
    for document in ["oauth-authorization-server", "openid-configuration"] {
        let found = get(&world, &format!("{}/.well-known/{document}", world.issuer.url()))?;
        assert_eq!(found["issuer"], world.issuer.url());
        assert_eq!(found["jwks_uri"], format!("{}/v1/keys", world.issuer.url()));
    }
    let keys = get(&world, &format!("{}/v1/keys", world.issuer.url()))?;
    let token = world.token()?;
    let claims = jose::verify_rs256(token.reveal(), &keys["keys"][0])?;
    assert_eq!(claims["iss"], world.issuer.url());
    assert_eq!(claims["aud"], "api://grantd");
    assert_eq!(claims["cid"], world::CODING_CLIENT);
    assert_eq!(claims["uid"], world::PERSON);
    assert_eq!(claims["scp"], json!(world::SCOPES));

    let agent = &world.coding_agent;
    let assertion = agent.assertion()?;
    assert_eq!(agent.ask(&assertion, "net.test")?.0, 200);
    assert_eq!(agent.ask(&assertion, "net.test")?.0, 401, "an assertion was taken twice");
    assert_eq!(agent.ask(&agent.assertion()?, "net.other")?.0, 401, "a scope it may not have");
    let forged = jose::with_signature_changed(&agent.assertion()?)?;
    assert_eq!(agent.ask(&forged, "net.test")?.0, 401, "an assertion that does not verify");

    world.issuer.rotate("okta-key-2")?;
    world.issuer.withdraw_key("okta-key-1");
    let keys = get(&world, &format!("{}/v1/keys", world.issuer.url()))?;
    assert_eq!(keys["keys"].as_array().map(Vec::len), Some(1));
    assert_eq!(keys["keys"][0]["kid"], "okta-key-2");
    jose::verify_rs256(world.token()?.reveal(), &keys["keys"][0])?;
    Ok(())
}

fn get(world: &World, url: &str) -> Result<Value> {
    let request = reqwest::Client::builder().no_proxy().build()?.get(url);
    world.host.runtime()?.run(async move { Ok(request.send().await?.json().await?) })?
}

#[test]
fn mutual_tls_takes_the_control_plane_and_nobody_else() -> Result<()> {
    let ca = Ca::new("one")?;
    let other_ca = Ca::new("another")?;
    let netns = Netns::new("tls")?;
    let address = at("127.0.0.1", 7443)?;
    let good = ca.issue(2, &[world::PEER], Purpose::Client)?;
    let revoked = ca.issue(3, &[world::PEER], Purpose::Client)?;
    let foreign = other_ca.issue(2, &[world::PEER], Purpose::Client)?;
    let server = ca.issue(1, &[world::HOST_ID], Purpose::Server(address.ip()))?;
    let listener = netns.listen_tcp(address)?;
    let tls = tls_server(&ca, &server, &[&revoked])?;
    std::thread::spawn(move || answer_ok(&listener, &tls));

    let runtime = netns.runtime()?;
    let status = |identity: Option<&Identity>, root: &Ca| -> Result<u16> {
        let pusher = Pusher::new(address, &root.certificate(), identity)?;
        Ok(runtime.run(async move { pusher.get("/v1/host").await })??.status)
    };
    assert_eq!(status(Some(&good), &ca)?, 200);
    ensure!(status(None, &ca).is_err(), "a client without a certificate was served");
    ensure!(status(Some(&foreign), &ca).is_err(), "a client of another CA was served");
    ensure!(status(Some(&revoked), &ca).is_err(), "a client with a revoked certificate was served");
    ensure!(status(Some(&good), &other_ca).is_err(), "a client believed a server of another CA");
    assert_eq!(status(Some(&good), &ca)?, 200, "and it still serves");
    Ok(())
}

fn tls_server(ca: &Ca, server: &Identity, revoked: &[&Identity]) -> Result<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.certificate().as_bytes())?)?;
    let crl = CertificateRevocationListDer::from_pem_slice(ca.crl(1, revoked)?.as_bytes())?;
    let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::clone(&provider),
    )
    .with_crls([crl])
    .build()?;
    Ok(rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(clients)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(server.certificate.as_bytes())?],
            PrivateKeyDer::from_pem_slice(server.key.as_bytes())?,
        )?)
}

/// Answers every request on every connection that the handshake lets in with `200 {}`.
fn answer_ok(listener: &TcpListener, tls: &rustls::ServerConfig) {
    let tls = Arc::new(tls.clone());
    while let Ok((mut stream, _)) = listener.accept() {
        let Ok(mut session) = rustls::ServerConnection::new(Arc::clone(&tls)) else { return };
        let mut tls_stream = rustls::Stream::new(&mut session, &mut stream);
        let mut request = [0; 4096];
        if tls_stream.read(&mut request).is_ok() {
            let _ = tls_stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}");
        }
    }
}

#[test]
fn an_unconfined_process_reaches_every_server_and_the_capture_sees_it() -> Result<()> {
    let world = World::assemble(Shape::okta())?;
    let capture = Capture::start(&world.srv_a)?;
    for host in [world::A, world::A6] {
        let tcp = Server::tcp(&world.srv_a, at(host, 5432)?)?;
        let udp = Server::udp(&world.srv_a, at(host, 5353)?)?;
        let attempt = world.coding.tcp(tcp.address())?;
        ensure!(attempt.ok, "TCP to {host}: {attempt:?}");
        for attempt in
            [world.coding.udp(udp.address())?, world.coding.udp_connected(udp.address())?]
        {
            ensure!(attempt.ok, "UDP to {host}: {attempt:?}");
        }
        assert_eq!((tcp.count(), udp.count()), (1, 2));
        let closed = world.coding.tcp(at(host, 5433)?)?;
        assert_eq!(closed.error.as_deref(), Some("ECONNREFUSED"), "{closed:?}");
    }
    ensure!(capture.to_port(6, 5432) >= 6, "two handshakes: {:?}", capture.packets());
    assert_eq!(capture.to_port(17, 5353), 4, "four datagrams: {:?}", capture.packets());
    // The capture reads behind what it captures.
    wait_until("two attempts at a closed port", Duration::from_secs(2), || {
        Ok((capture.to_port(6, 5433) == 2).then_some(()))
    })?;
    Ok(())
}

#[test]
fn a_held_connection_reports_every_exchange_and_how_it_ends() -> Result<()> {
    let world = World::assemble(Shape::okta())?;
    let server = Server::tcp(&world.srv_a, at(world::A, 5432)?)?;
    let busy = world.coding.hold(server.address(), Some(10))?;
    let idle = world.coding.hold(server.address(), None)?;
    let (first, _) = busy.next_exchange(SOON)?;
    assert_eq!(first, 1);
    assert_eq!(world.host.label(), "host");
    // The link is cut for good: the server's machine vanishes with its sockets.
    let addresses: [SocketAddr; 2] = [busy.local, idle.local];
    drop(server);
    for (holding, local) in [busy, idle].into_iter().zip(addresses) {
        let broke = holding.wait_for_break(SOON)?;
        ensure!(
            ["EOF", "ECONNRESET", "EPIPE"].contains(&broke.error.as_str()),
            "{local} ended with {broke:?}"
        );
    }
    Ok(())
}
