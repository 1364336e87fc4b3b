//! Requests of a peer that got in: routes, bodies, outcomes, problems.

use grantd_grant::Reason;
use reqwest::Version;
use serde_json::json;

use super::*;

fn client(server: &Server, http1: bool) -> reqwest::Client {
    let identity = server.pki.client(&[ALLOWED], 100).pem();
    let ca = reqwest::Certificate::from_pem(server.pki.ca_pem().as_bytes()).expect("CA");
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([ca])
        .identity(reqwest::Identity::from_pem(identity.as_bytes()).expect("identity"));
    if http1 { client.http1_only() } else { client }.build().expect("client")
}

#[tokio::test]
async fn a_grant_is_acknowledged_over_http_1_and_http_2() {
    let server = Server::start().await;
    let url = format!("https://127.0.0.1:{}/v1/grants", server.address.port());
    for (http1, version) in [(true, Version::HTTP_11), (false, Version::HTTP_2)] {
        let request = client(&server, http1).post(&url).body("grant");
        let request = request.header("content-type", "application/json");
        let answer = request.send().await.expect("answer");
        assert_eq!(answer.version(), version);
        assert_eq!(answer.status(), 201);
        assert_eq!(answer.headers()["location"], "/v1/grants/g-1");
        let body: serde_json::Value =
            serde_json::from_slice(&answer.bytes().await.expect("body")).expect("JSON");
        let expected = json!({
            "id": "g-1", "deadline_unix_ms": 1_814_400_900_000u64,
            "coverage": { "connect": "enforced" },
        });
        assert_eq!(body, expected);
    }
    assert_eq!(server.admission.asked(), ["grant of 5 bytes", "grant of 5 bytes"]);
}

#[tokio::test]
async fn every_endpoint_answers() {
    let server = Server::start().await;
    let mut connection = server.connect().await;
    let again = connection.ask(&post("/v1/grants", "again")).await;
    assert_eq!((again.status, again.json()["id"].as_str()), (200, Some("g-1")));
    let revoked = connection.ask(&post("/v1/revocations", "r")).await;
    assert_eq!((revoked.status, revoked.json()), (200, json!({ "ended": 3 })));
    let shown = connection.ask(&get("/v1/grants/g-1")).await;
    assert_eq!((shown.status, shown.json()), (200, json!({ "id": "g-1" })));
    let host = connection.ask(&get("/v1/host")).await;
    assert_eq!(host.status, 200);
    assert_eq!(host.json()["host_id"], HOST);
    assert_eq!(host.json()["workloads"], json!(["coding-agent"]));
    assert_eq!(server.counters.snapshot().requests, 4);
    assert_eq!(server.counters.snapshot().problems, 0);
}

#[tokio::test]
async fn every_refusal_is_told_with_its_code_check_and_status() {
    let server = Server::start().await;
    let mut connection = server.connect().await;
    for reason in Reason::ALL {
        let answer = connection.ask(&post("/v1/grants", reason.as_str())).await;
        let problem = answer.problem();
        assert_eq!(answer.status, reason.http_status(), "{reason}");
        assert_eq!(problem["reason"], reason.as_str());
        assert_eq!(problem["detail"], "because");
        assert_eq!(problem["instance"], "/v1/grants");
        match reason.check() {
            0 => assert_eq!(problem.get("check"), None, "{reason}"),
            check => assert_eq!(problem["check"], check, "{reason}"),
        }
    }
    let expired = connection.ask(&post("/v1/grants", "token_expired")).await.problem();
    assert_eq!(expired["title"], "Token expired");
    let old = connection.ask(&post("/v1/revocations", "old")).await;
    assert_eq!((old.status, old.problem()["reason"].as_str()), (409, Some("revocation_not_newer")));
    let broken = connection.ask(&get("/v1/grants/broken")).await;
    assert_eq!((broken.status, broken.problem()["check"].as_u64()), (503, Some(17)));
}

#[tokio::test]
async fn what_does_not_exist_is_a_problem_and_is_not_decided_on() {
    let server = Server::start().await;
    let mut connection = server.connect().await;
    let long = format!("/v1/grants/{}", "x".repeat(257));
    for path in ["/", "/v1", "/v1/grants/", "/v2/host", "/v1/grants/a/b", "/v1/grants/%ff", &long] {
        let answer = connection.ask(&get(path)).await;
        assert_eq!(
            (answer.status, answer.problem()["reason"].as_str()),
            (404, Some("not_found")),
            "{path}"
        );
    }
    assert_eq!(server.admission.asked(), Vec::<String>::new());
    assert_eq!(connection.ask(&get("/v1/grants/other")).await.status, 404);
    assert_eq!(server.admission.asked(), ["show other"]);
}

#[tokio::test]
async fn a_wrong_method_is_told_which_are_right() {
    let server = Server::start().await;
    let mut connection = server.connect().await;
    for (request, allow) in [
        (get("/v1/grants"), "POST"),
        (get("/v1/revocations"), "POST"),
        (post("/v1/host", "x"), "GET,HEAD"),
        (post("/v1/grants/g-1", "x"), "GET,HEAD"),
        (get("/v1/grants").replace("GET", "DELETE"), "POST"),
    ] {
        let answer = connection.ask(&request).await;
        assert_eq!(answer.status, 405, "{request}");
        assert_eq!(answer.problem()["reason"], "method_not_allowed");
        assert_eq!(answer.headers["allow"], allow, "{request}");
    }
    assert_eq!(server.admission.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn only_json_is_taken() {
    let server = Server::start().await;
    let mut connection = server.connect().await;
    let header = "content-type: application/json";
    for good in [
        "content-type: application/json",
        "Content-Type: Application/JSON",
        "content-type: application/json; charset=utf-8",
    ] {
        let request = post("/v1/grants", "g").replace(header, good);
        assert_eq!(connection.ask(&request).await.status, 201, "{good}");
    }
    server.admission.asked();
    for bad in [
        "x-none: x",
        "content-type: text/plain",
        "content-type: application/jsonp",
        "content-type: application/json; charset=utf-16",
        "content-type: application/x-www-form-urlencoded",
        "content-type: application/json\r\ncontent-type: application/json",
        "content-type: application/json\r\ncontent-encoding: gzip",
    ] {
        let request = post("/v1/grants", "g").replace(header, bad);
        let answer = connection.ask(&request).await;
        assert_eq!(answer.status, 415, "{bad}");
        assert_eq!(answer.problem()["reason"], "unsupported_media_type");
    }
    let turned_away = server.admission.asked();
    assert!(
        turned_away.iter().all(|what| what == "turned away Grant: unsupported_media_type"),
        "audited, not decided: {turned_away:?}"
    );
}

#[tokio::test]
async fn a_body_of_64_kib_is_taken_and_one_byte_more_is_not() {
    let server = Server::start().await;
    let largest = "x".repeat(64 * 1024);
    assert_eq!(server.ask(&post("/v1/grants", &largest)).await.status, 201);
    assert_eq!(server.admission.asked(), ["grant of 65536 bytes"]);
    let chunked = |body: &str| {
        let head =
            post("/v1/revocations", "").replace("content-length: 0", "transfer-encoding: chunked");
        format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
    };
    assert_eq!(server.ask(&chunked(&largest)).await.status, 200);
    server.admission.asked();
    let larger = format!("{largest}x");
    let announced = post("/v1/grants", "").replace("length: 0", "length: 65537");
    let absurd = post("/v1/grants", "").replace("length: 0", "length: 9999999999999");
    for request in [post("/v1/grants", &larger), announced, absurd, chunked(&larger)] {
        let answer = server.ask(&request).await;
        assert_eq!(answer.status, 413, "{}", &request[..80]);
        assert_eq!(answer.problem()["reason"], "push_too_large");
    }
    let (grant, revocation) =
        ("turned away Grant: push_too_large", "turned away Revocation: push_too_large");
    assert_eq!(server.admission.asked(), [grant, grant, grant, revocation], "audited, not decided");
}

#[tokio::test]
async fn headers_without_end_are_refused() {
    let server = Server::start().await;
    for filler in [format!("x: {}\r\n", "y".repeat(20_000)), "x: y\r\n".repeat(100)] {
        let request = get("/v1/host").replace("host: h\r\n", &format!("host: h\r\n{filler}"));
        assert_eq!(server.ask(&request).await.status, 431);
    }
    assert_eq!(server.admission.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_defect_in_one_decision_is_an_error_and_costs_nobody_else_anything() {
    let server = Server::start().await;
    let mut connection = server.connect().await;
    let answer = connection.ask(&post("/v1/grants", "panic")).await;
    assert_eq!((answer.status, answer.problem()["reason"].as_str()), (500, Some("internal")));
    assert_eq!(connection.ask(&post("/v1/grants", "g")).await.status, 201);
}

#[tokio::test]
async fn more_requests_than_the_host_takes_are_told_to_come_back() {
    let limits = Limits { max_requests: 1, ..Limits::default() };
    let server = Server::with(limits, |_| None).await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    first.send(&post("/v1/grants", "wait")).await.expect("sent");
    while server.admission.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    let answer = second.ask(&post("/v1/grants", "g")).await;
    assert_eq!((answer.status, answer.problem()["reason"].as_str()), (503, Some("busy")));
    assert_eq!(answer.headers["retry-after"], "1");
    server.admission.gate.add_permits(1);
    assert_eq!(first.answer().await.expect("answer").status, 201);
    assert_eq!(second.ask(&post("/v1/grants", "g")).await.status, 201);
}

#[tokio::test]
async fn a_peer_that_hangs_up_does_not_stop_the_decision() {
    let server = Server::start().await;
    let mut connection = server.connect().await;
    connection.send(&post("/v1/grants", "wait")).await.expect("sent");
    while server.admission.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(connection);
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.admission.gate.add_permits(1);
    let finished =
        tokio::time::timeout(Duration::from_secs(5), server.admission.finished.acquire());
    assert!(finished.await.is_ok(), "hanging up leaves a decision half done and unaudited");
}

#[test]
fn a_body_is_never_printed() {
    let body = crate::intake::PushBody::new(b"eyJhbGciOi.token".to_vec());
    assert_eq!(format!("{body:?}"), "PushBody(16 bytes)");
}
