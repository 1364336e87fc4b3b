//! Who gets in.

use rcgen::ExtendedKeyUsagePurpose;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::intake::TlsError;

impl Server {
    /// Whether a client with this configuration is answered.
    async fn lets_in(&self, config: rustls::ClientConfig) -> bool {
        // In TLS 1.3 the client learns of its refusal only when it reads.
        let Ok(mut connection) = Connection::open(self.address, config).await else { return false };
        let sent = connection.send(&get("/v1/host")).await;
        sent.is_ok() && connection.answer().await.is_ok()
    }
}

#[tokio::test]
async fn the_allowed_peer_gets_in() {
    let server = Server::start().await;
    let identity = server.pki.client(&[ALLOWED], 100);
    assert!(server.lets_in(server.pki.client_config(Some(identity))).await);
    assert_eq!(server.counters.snapshot().handshake_failed, 0);
}

#[tokio::test]
async fn without_a_certificate_of_the_private_ca_nobody_gets_in() {
    let server = Server::start().await;
    assert!(!server.lets_in(server.pki.client_config(None)).await, "without any certificate");
    let stranger = Pki::named("other CA").client(&[ALLOWED], 100);
    assert!(!server.lets_in(server.pki.client_config(Some(stranger))).await, "of another CA");
    let namesake = Pki::new().client(&[ALLOWED], 100);
    assert!(
        !server.lets_in(server.pki.client_config(Some(namesake))).await,
        "of a CA by that name"
    );
    let host = server.pki.issue(&[ALLOWED], 7, ExtendedKeyUsagePurpose::ServerAuth);
    assert!(!server.lets_in(server.pki.client_config(Some(host))).await, "a server's certificate");
    assert_eq!(server.admission.asked(), Vec::<String>::new());
    assert_eq!(server.counters.snapshot().handshake_failed, 4);
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_others_are_not() {
    let server = Server::with(Limits::default(), |pki| Some(pki.crl(&[66]))).await;
    let client = |serial| server.pki.client_config(Some(server.pki.client(&[ALLOWED], serial)));
    assert!(server.lets_in(client(65)).await);
    assert!(!server.lets_in(client(66)).await, "a revoked peer still pushes grants");
}

#[tokio::test]
async fn an_expired_revocation_list_lets_nobody_in() {
    let server = Server::with(Limits::default(), |pki| Some(pki.crl(&[]))).await;
    let client = || server.pki.client_config(Some(server.pki.client(&[ALLOWED], 65)));
    assert!(server.lets_in(client()).await);
    server.clock.set_year(2030);
    assert!(!server.lets_in(client()).await, "who was revoked since cannot be known");
}

#[tokio::test]
async fn a_revocation_list_of_another_ca_covers_nobody() {
    let other = Pki::named("other CA");
    let server = Server::with(Limits::default(), |_| Some(other.crl(&[]))).await;
    let identity = server.pki.client(&[ALLOWED], 65);
    assert!(!server.lets_in(server.pki.client_config(Some(identity))).await);
}

#[tokio::test]
async fn tls_1_2_is_not_spoken() {
    let server = Server::start().await;
    let client = |version| {
        let identity = server.pki.client(&[ALLOWED], 100);
        server.pki.client_config_for(Some(identity), &[version])
    };
    assert!(!server.lets_in(client(&rustls::version::TLS12)).await);
    assert!(server.lets_in(client(&rustls::version::TLS13)).await);
}

#[tokio::test]
async fn sessions_are_not_resumed_so_that_revocation_is_always_checked() {
    let server = Server::start().await;
    let mut connection = server.connect().await;
    assert_eq!(connection.ask(&get("/v1/host")).await.status, 200);
    assert_eq!(connection.tickets(), 0);
}

#[tokio::test]
async fn a_peer_that_is_not_listed_learns_and_does_nothing() {
    let server = Server::start().await;
    for uris in [
        &["spiffe://example.org/other"][..],
        &[],
        &[ALLOWED, "spiffe://example.org/other"],
        &["SPIFFE://example.org/control-plane"],
    ] {
        let mut connection = server.connect_as(uris).await;
        let body = post("/v1/grants", "g");
        // The body of the last one never comes: the answer must not wait for it.
        let endless = post("/v1/grants", "").replace("length: 0", "length: 60000");
        let revocation = post("/v1/revocations", "r");
        let questions = [get("/v1/host"), get("/v1/grants/g-1"), get("/nowhere")];
        for request in questions.into_iter().chain([revocation, body, endless]) {
            let answer = connection.ask(&request).await;
            assert_eq!(answer.status, 403, "{uris:?} {request}");
            let problem = answer.problem();
            assert_eq!(
                (problem["reason"].as_str(), problem["check"].as_u64()),
                (Some("peer_not_allowed"), Some(1))
            );
        }
        let (other, grant) = ("refused Other", "refused Push(Grant)");
        let expected = [other, other, other, "refused Push(Revocation)", grant, grant];
        assert_eq!(server.admission.asked(), expected, "refused as what it is, and no more");
    }
}

#[tokio::test]
async fn garbage_in_place_of_a_handshake_is_dropped() {
    let server = Server::start().await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096], &[0x16, 3, 1, 0xff, 0xff, 0xff]] {
        let mut stream = TcpStream::connect(server.address).await.expect("connected");
        stream.write_all(garbage).await.expect("sent");
        stream.shutdown().await.expect("shut down");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.len() < 64, "more than an alert: {rest:?}");
    }
    assert_eq!(server.ask(&get("/v1/host")).await.status, 200);
    assert_eq!(server.counters.snapshot().handshake_failed, 3);
}

#[tokio::test]
async fn reloaded_material_applies_to_new_connections_and_ends_old_ones() {
    let server = Server::with(Limits::default(), |pki| Some(pki.crl(&[]))).await;
    let client = || server.pki.client_config(Some(server.pki.client(&[ALLOWED], 66)));
    let mut old = Connection::open(server.address, client()).await.expect("connected");
    assert_eq!(old.ask(&get("/v1/host")).await.status, 200);
    let material = server.pki.material(Some(server.pki.crl(&[66])));
    let config = material.server_config(HOST, server.clock.clone()).expect("config");
    server.tls.send_replace(config);
    assert_eq!(old.closed().await, b"", "a revoked peer stays in on an old connection");
    assert!(!server.lets_in(client()).await);
    assert_eq!(server.ask(&get("/v1/host")).await.status, 200, "others are served");
}

fn fault(change: impl FnOnce(&Pki, &mut crate::intake::TlsMaterial)) -> TlsError {
    let pki = Pki::new();
    let mut material = pki.material(None);
    change(&pki, &mut material);
    material.server_config(HOST, Arc::new(FakeClock::default())).expect_err("unusable")
}

#[test]
fn a_host_certificate_of_another_identity_is_refused() {
    let pki = Pki::new();
    let error = pki
        .material(None)
        .server_config("spiffe://example.org/host/other", Arc::new(FakeClock::default()))
        .expect_err("not this host");
    assert!(matches!(&error, TlsError::Identity { found, .. } if found == &[HOST]), "{error}");
}

#[test]
fn unusable_files_are_named_by_their_key() {
    let cases: [(TlsError, &str); 7] = [
        (fault(|_, m| m.certificate = b"x".to_vec()), "tls.certificate: holds no PEM certificate"),
        (fault(|_, m| m.key = b"x".to_vec().into()), "tls.key: holds no unencrypted"),
        (fault(|_, m| m.client_ca = Vec::new()), "tls.client_ca: holds no PEM certificate"),
        (fault(|_, m| m.crl = Some(b"x".to_vec())), "tls.crl: holds no PEM revocation list"),
        (fault(|pki, m| m.crl = Some(pki.ca_pem().into())), "tls.crl: holds no PEM"),
        (
            fault(|_, m| {
                let garbage = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
                m.crl = Some(garbage.into());
            }),
            "tls.crl",
        ),
        (fault(|pki, m| m.key = Pki::material(pki, None).key), "control_plane.tls: "),
    ];
    for (error, says) in cases {
        assert!(error.to_string().contains(says), "{error} does not say {says:?}");
    }
}

#[test]
fn keys_are_never_printed() {
    let shown = format!("{:?}", Pki::new().material(None));
    assert_eq!(shown, "TlsMaterial { .. }");
}

#[test]
fn files_are_read_and_an_exposed_key_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let pki = Pki::new();
    let material = pki.material(Some(pki.crl(&[])));
    let directory = tempfile::tempdir().expect("directory");
    let write = |name: &str, bytes: &[u8], mode: u32| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("mode");
        path
    };
    let files = crate::config::TlsFiles {
        certificate: write("certificate", &material.certificate, 0o644),
        key: write("key", &material.key, 0o600),
        client_ca: write("ca", &material.client_ca, 0o644),
        crl: Some(write("crl", &material.crl.clone().expect("list"), 0o644)),
    };
    let read = crate::intake::TlsMaterial::read(&files).expect("read");
    assert!(read.server_config(HOST, Arc::new(FakeClock::default())).is_ok());
    write("key", &material.key, 0o644);
    let error = crate::intake::TlsMaterial::read(&files).expect_err("exposed");
    assert!(error.to_string().contains("chmod o-rwx"), "{error}");
    write("key", &material.key, 0o600);
    write("ca", &material.client_ca, 0o666);
    assert!(crate::intake::TlsMaterial::read(&files).is_err(), "anyone may add an authority");
}
