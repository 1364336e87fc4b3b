//! Where keys may come from, and what is not taken for keys.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use url::Url;

use super::super::fetch::{FetchError, Fetcher};
use super::issuer::{FakeIssuer, KEYS, OAUTH, OPENID, Reply};
use super::{jwks, kid};

async fn fetch(issuer: &FakeIssuer) -> Result<super::super::fetch::Fetched, FetchError> {
    Fetcher::new(&issuer.config()).expect("client").fetch().await
}

async fn refused(issuer: &FakeIssuer) -> FetchError {
    fetch(issuer).await.expect_err("this must not be taken for keys")
}

#[tokio::test]
async fn keys_are_found_through_oauth_metadata() {
    let issuer = FakeIssuer::start(&["a", "b"]).await;
    let fetched = fetch(&issuer).await.expect("keys");
    assert!(fetched.keys.contains(&kid("a")) && fetched.keys.contains(&kid("b")));
    assert_eq!(issuer.asked(), [OAUTH, KEYS]);
}

#[tokio::test]
async fn openid_metadata_is_asked_only_if_there_is_no_oauth_metadata() {
    let issuer = FakeIssuer::start(&["a"]).await;
    let metadata = issuer.metadata(&issuer.url(""), &issuer.url("/v1/keys"));
    issuer.set(OAUTH, Reply::status(404));
    issuer.set(OPENID, Reply::ok(metadata));
    assert!(fetch(&issuer).await.is_ok());
    assert_eq!(issuer.asked(), [OAUTH, OPENID, KEYS]);

    issuer.set(OAUTH, Reply::status(500));
    let error = refused(&issuer).await;
    assert!(matches!(&error, FetchError::Status { status, .. } if status.as_u16() == 500));
    assert_eq!(issuer.asked(), [OAUTH], "an issuer in trouble is no reason to look elsewhere");
}

#[tokio::test]
async fn an_issuer_without_any_metadata_is_told_with_the_url_that_is_missing() {
    let issuer = FakeIssuer::start(&["a"]).await;
    issuer.set(OAUTH, Reply::status(404));
    let error = refused(&issuer).await;
    assert!(matches!(&error, FetchError::Status { status, .. } if status.as_u16() == 404));
    assert!(error.to_string().contains(OPENID), "{error}");
    assert_eq!(issuer.asked(), [OAUTH, OPENID]);
}

#[tokio::test]
async fn metadata_of_any_other_issuer_is_refused() {
    let issuer = FakeIssuer::start(&["a"]).await;
    let own = issuer.url("");
    let upper = own.replace("aus1", "AUS1");
    for other in
        [format!("{own}/"), format!("{own}x"), upper, "http://127.0.0.1".into(), String::new()]
    {
        issuer.set(OAUTH, Reply::ok(issuer.metadata(&other, &issuer.url("/v1/keys"))));
        let error = refused(&issuer).await;
        assert!(matches!(&error, FetchError::Issuer { found, .. } if *found == other), "{error}");
        assert_eq!(issuer.asked(), [OAUTH], "the key set of {other:?} was fetched");
    }
}

#[tokio::test]
async fn metadata_without_an_issuer_or_key_set_is_refused() {
    let issuer = FakeIssuer::start(&["a"]).await;
    let own = issuer.url("");
    for document in [
        String::new(),
        "null".to_owned(),
        "{}".to_owned(),
        format!(r#"{{"issuer":"{own}"}}"#),
        format!(r#"{{"issuer":["{own}"],"jwks_uri":"{own}/v1/keys"}}"#),
        format!(r#"{{"issuer":"x","issuer":"{own}","jwks_uri":"{own}/v1/keys"}}"#),
    ] {
        issuer.set(OAUTH, Reply::ok(document.clone()));
        let error = refused(&issuer).await;
        assert!(matches!(error, FetchError::Metadata { .. }), "{document}: {error}");
    }
}

#[tokio::test]
async fn a_key_set_on_another_host_port_or_scheme_is_refused_without_asking_there() {
    let issuer = FakeIssuer::start(&["a"]).await;
    let other = FakeIssuer::start(&["evil"]).await;
    let port = issuer.address.port();
    for uri in [
        other.url("/v1/keys"),
        format!("http://localhost:{port}{KEYS}"),
        format!("https://127.0.0.1:{port}{KEYS}"),
        format!("http://127.0.0.1:{port}@{}/keys", other.address),
        "/v1/keys".to_owned(),
        "file:///etc/passwd".to_owned(),
    ] {
        issuer.set(OAUTH, Reply::ok(issuer.metadata(&issuer.url(""), &uri)));
        let error = refused(&issuer).await;
        assert!(matches!(error, FetchError::ForeignKeySet { .. }), "{uri}: {error}");
    }
    assert_eq!(other.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let issuer = FakeIssuer::start(&["a"]).await;
    let other = FakeIssuer::start(&["evil"]).await;
    let elsewhere =
        Reply { headers: vec![("location", other.url("/v1/keys"))], ..Reply::status(302) };
    issuer.set(KEYS, elsewhere.clone());
    let error = refused(&issuer).await;
    assert!(
        matches!(&error, FetchError::Status { status, .. } if status.as_u16() == 302),
        "{error}"
    );
    issuer.set(OAUTH, elsewhere);
    assert!(matches!(refused(&issuer).await, FetchError::Status { .. }));
    assert_eq!(other.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn an_answer_that_never_ends_is_cut_off() {
    let issuer = FakeIssuer::start(&["a"]).await;
    let mut large = jwks(&["a"]);
    large.resize(256 * 1024, b' ');
    issuer.set(KEYS, Reply::ok(large.clone()));
    assert!(fetch(&issuer).await.is_ok(), "256 KiB are within bounds");
    large.push(b' ');
    issuer.set(KEYS, Reply::ok(large));
    assert!(matches!(refused(&issuer).await, FetchError::TooLarge { .. }));
    issuer.set(OAUTH, Reply::ok(vec![b' '; 1 << 20]));
    assert!(matches!(refused(&issuer).await, FetchError::TooLarge { .. }));
}

#[tokio::test]
async fn a_document_that_is_no_key_set_is_refused() {
    let issuer = FakeIssuer::start(&["a"]).await;
    for document in ["", "[]", "{}", r#"{"keys":{}}"#, "<html>"] {
        issuer.set(KEYS, Reply::ok(document));
        let error = refused(&issuer).await;
        assert!(matches!(error, FetchError::KeySet { .. }), "{document}: {error}");
    }
    issuer.set(KEYS, Reply::ok(jwks(&["a", "a"])));
    assert!(matches!(refused(&issuer).await, FetchError::KeySet { .. }), "duplicate kid");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stalls_is_given_up_on() {
    // Accepts and never answers. With time paused, the round's limit passes at once.
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("bound");
    let issuer = FakeIssuer::start(&["a"]).await;
    let stalled = issuer.seen_at(listener.local_addr().expect("address"));
    let error = refused(&stalled).await;
    let timed_out = matches!(&error, FetchError::TimedOut)
        || matches!(&error, FetchError::Request { source, .. } if source.is_timeout());
    assert!(timed_out, "{error:?}");
}

#[tokio::test]
async fn an_issuer_that_cannot_be_reached_is_named() {
    let issuer = FakeIssuer::start(&["a"]).await;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("bound");
    let address = listener.local_addr().expect("address");
    drop(listener);
    let error = refused(&issuer.seen_at(address)).await;
    assert!(matches!(error, FetchError::Request { .. }), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn a_configured_key_set_needs_no_discovery() {
    let issuer = FakeIssuer::start(&["a"]).await;
    let mut config = issuer.config();
    config.jwks_uri = Some(Url::parse(&issuer.url("/v1/keys")).expect("url"));
    Fetcher::new(&config).expect("client").fetch().await.expect("keys");
    assert_eq!(issuer.asked(), [KEYS]);
}

#[tokio::test]
async fn discovery_is_repeated_only_after_a_failure() {
    let issuer = FakeIssuer::start(&["a"]).await;
    let mut fetcher = Fetcher::new(&issuer.config()).expect("client");
    fetcher.fetch().await.expect("keys");
    fetcher.fetch().await.expect("keys");
    assert_eq!(issuer.asked(), [OAUTH, KEYS, KEYS]);
    issuer.set(KEYS, Reply::status(404));
    fetcher.fetch().await.expect_err("no keys there");
    issuer.set(OAUTH, Reply::ok(issuer.metadata(&issuer.url(""), &issuer.url("/moved"))));
    issuer.set("/oauth2/aus1/moved", Reply::ok(jwks(&["a"])));
    fetcher.fetch().await.expect("keys that have moved are found");
    assert_eq!(issuer.asked(), [KEYS, OAUTH, "/oauth2/aus1/moved"]);
}

#[tokio::test]
async fn the_issuers_max_age_is_heeded() {
    let issuer = FakeIssuer::start(&["a"]).await;
    for (headers, expected) in [
        (vec![], None),
        (vec![("cache-control", "public, max-age=600")], Some(600)),
        (vec![("cache-control", "Max-Age=\"600\""), ("age", "100")], Some(500)),
        (vec![("cache-control", "max-age=600, no-store")], Some(0)),
        (vec![("cache-control", "max-age=-1")], None),
        (vec![("cache-control", "private")], None),
    ] {
        let headers: Vec<_> = headers.into_iter().map(|(n, v)| (n, v.to_owned())).collect();
        issuer.set(KEYS, Reply { headers: headers.clone(), ..Reply::ok(jwks(&["a"])) });
        let fetched = fetch(&issuer).await.expect("keys");
        assert_eq!(fetched.max_age, expected.map(Duration::from_secs), "{headers:?}");
    }
}

#[tokio::test]
async fn a_private_issuer_is_believed_only_with_its_own_authority() {
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("authority")
    };
    let (own, other) = (authority("own"), authority("other"));
    let key = KeyPair::generate().expect("key");
    let mut params = CertificateParams::new(Vec::<String>::new()).expect("params");
    params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
    let certificate = params.signed_by(&key, &own).expect("certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .expect("server");
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("bound");
    let address = listener.local_addr().expect("address");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 4096]).await;
            let body = String::from_utf8(jwks(&["a"])).expect("text");
            let length = body.len();
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });

    let directory = tempfile::tempdir().expect("directory");
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("own.pem"), own.pem()).expect("written");
    std::fs::write(path("other.pem"), other.pem()).expect("written");
    std::fs::write(path("none.pem"), "no certificate").expect("written");
    let issuer = FakeIssuer::start(&[]).await;
    let with_ca = |name: &str| {
        let mut config = issuer.config();
        config.issuer =
            grantd_grant::ids::Issuer::new(format!("https://{address}")).expect("issuer");
        config.jwks_uri = Some(Url::parse(&format!("https://{address}/keys")).expect("url"));
        config.development_http = false;
        config.ca = Some(path(name));
        Fetcher::new(&config)
    };
    let fetched = with_ca("own.pem").expect("client").fetch().await.expect("its authority vouches");
    assert!(fetched.keys.contains(&kid("a")));
    let error = with_ca("other.pem").expect("client").fetch().await.expect_err("a stranger");
    assert!(matches!(error, FetchError::Request { .. }), "{error}");
    assert!(with_ca("none.pem").is_err(), "a file without certificates believes nobody, quietly");
    assert!(matches!(with_ca("absent.pem"), Err(FetchError::Ca(_))));
}
