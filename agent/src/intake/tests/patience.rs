//! Peers that take their time, and the end of the listener.

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::*;

#[tokio::test]
async fn a_handshake_that_never_comes_is_given_up_on() {
    let limits = Limits { handshake: Duration::from_millis(300), ..Limits::default() };
    let server = Server::with(limits, |_| None).await;
    let mut stream = TcpStream::connect(server.address).await.expect("connected");
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_u8()).await;
    assert!(read.expect("it is waited for without end").is_err());
    assert_eq!(server.counters.snapshot().handshake_timed_out, 1);
}

#[tokio::test]
async fn headers_that_trickle_are_given_up_on() {
    let server = Server::with(impatient(), |_| None).await;
    let mut connection = server.connect().await;
    let trickle = async {
        for byte in "GET /v1/host HTTP/1.1\r\nhost: hhhhhhhhhhhhhhhhhhhhh".chars() {
            if connection.send(&byte.to_string()).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        connection.closed().await
    };
    let rest = tokio::time::timeout(Duration::from_secs(10), trickle).await.expect("held open");
    assert!(!rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
    assert_eq!(server.admission.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_connection_without_requests_is_closed_whatever_it_speaks() {
    let server = Server::with(impatient(), |_| None).await;
    for protocol in [&b"h2"[..], b"http/1.1"] {
        let identity = server.pki.client(&[ALLOWED], 100);
        let mut config = server.pki.client_config(Some(identity));
        config.alpn_protocols = vec![protocol.to_vec()];
        let mut connection = Connection::open(server.address, config).await.expect("connected");
        connection.closed().await;
    }
}

#[tokio::test]
async fn an_http_2_connection_that_does_nothing_after_its_preface_is_closed() {
    let server = Server::with(impatient(), |_| None).await;
    let identity = server.pki.client(&[ALLOWED], 100);
    let mut config = server.pki.client_config(Some(identity));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut connection = Connection::open(server.address, config).await.expect("connected");
    let settings = "\0\0\0\x04\0\0\0\0\0";
    connection.send(&format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{settings}")).await.expect("sent");
    connection.closed().await;
}

#[tokio::test]
async fn a_connection_between_requests_is_kept_for_a_while_and_then_closed() {
    let limits = Limits { idle: Duration::from_secs(2), ..Limits::default() };
    let server = Server::with(limits, |_| None).await;
    let mut connection = server.connect().await;
    for _ in 0..3 {
        assert_eq!(connection.ask(&get("/v1/host")).await.status, 200);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(connection.closed().await, b"");
}

#[tokio::test]
async fn a_body_that_stalls_is_a_problem_and_is_not_decided_on() {
    let server = Server::with(impatient(), |_| None).await;
    let stalled = post("/v1/grants", "").replace("length: 0", "length: 100");
    let answer = server.ask(&format!("{stalled}abc")).await;
    assert_eq!((answer.status, answer.problem()["reason"].as_str()), (408, Some("body_timeout")));
    let mut connection = server.connect().await;
    let broken =
        post("/v1/grants", "zz\r\n").replace("content-length: 4", "transfer-encoding: chunked");
    let answer = connection.ask(&broken).await;
    assert_eq!((answer.status, answer.problem()["reason"].as_str()), (400, Some("body_broken")));
    let audited = ["turned away Grant: body_timeout", "turned away Grant: body_broken"];
    assert_eq!(server.admission.asked(), audited, "audited, not decided");
}

#[tokio::test]
async fn a_decision_may_take_longer_than_a_peer_may() {
    let limits = Limits { idle: Duration::from_millis(50), ..impatient() };
    let server = Server::with(limits, |_| None).await;
    let mut connection = server.connect().await;
    assert_eq!(connection.ask(&post("/v1/grants", "slow")).await.status, 201);
}

#[tokio::test]
async fn an_old_connection_is_ended_so_that_its_certificate_is_checked_anew() {
    let limits = Limits { max_age: Duration::from_secs(1), ..Limits::default() };
    let server = Server::with(limits, |_| None).await;
    let mut connection = server.connect().await;
    assert_eq!(connection.ask(&get("/v1/host")).await.status, 200);
    assert_eq!(connection.closed().await, b"");
}

#[tokio::test]
async fn one_connection_more_than_allowed_is_dropped_and_counted() {
    let limits = Limits { max_connections: 2, ..Limits::default() };
    let server = Server::with(limits, |_| None).await;
    let mut first = server.connect().await;
    let second = server.connect().await;
    let mut third = server.connect().await;
    let _ = third.send(&get("/v1/host")).await;
    assert!(third.answer().await.is_err(), "it is served all the same");
    assert_eq!(server.counters.snapshot().over_capacity, 1);
    assert_eq!(first.ask(&get("/v1/host")).await.status, 200, "those inside are not disturbed");
    drop(second);
    for attempt in 0.. {
        assert!(attempt < 250, "the place stays taken");
        let identity = server.pki.client(&[ALLOWED], 100);
        let config = server.pki.client_config(Some(identity));
        let mut next = Connection::open(server.address, config).await.expect("connected");
        let _ = next.send(&get("/v1/host")).await;
        if next.answer().await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn silent_strangers_of_one_address_keep_no_peer_of_another_out() {
    let limits = Limits { handshake: Duration::from_secs(60), ..Limits::default() };
    let server = Server::with(limits, |_| None).await;
    let mut silent = Vec::new();
    for _ in 0..2 * limits.max_handshakes {
        silent.push(TcpStream::connect(server.address).await.expect("accepted by the kernel"));
    }
    let dropped = (2 * limits.max_handshakes - limits.max_handshakes_per_source) as u64;
    for attempt in 0.. {
        assert!(attempt < 500, "{:?}", server.counters.snapshot());
        if server.counters.snapshot().source_over_capacity == dropped {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The revocation that the strangers mean to starve.
    let identity = server.pki.client(&[ALLOWED], 100);
    let config = server.pki.client_config(Some(identity));
    let mut peer = Connection::open_from([127, 0, 0, 2], server.address, config).await.expect("in");
    assert_eq!(peer.ask(&post("/v1/revocations", "x")).await.status, 200);
    let counted = server.counters.snapshot();
    assert_eq!((counted.accepted, counted.over_capacity), (1, 0));
    drop(silent);
}

#[tokio::test]
async fn more_handshakes_than_there_are_places_are_dropped_and_counted() {
    let limits = Limits {
        handshake: Duration::from_secs(60),
        max_handshakes: 2,
        max_handshakes_per_source: 2,
        ..Limits::default()
    };
    let server = Server::with(limits, |_| None).await;
    let mut inside = server.connect().await;
    let silent = [
        TcpStream::connect(server.address).await.expect("accepted by the kernel"),
        TcpStream::connect(server.address).await.expect("accepted by the kernel"),
    ];
    let identity = server.pki.client(&[ALLOWED], 100);
    let config = server.pki.client_config(Some(identity));
    let late = Connection::open_from([127, 0, 0, 2], server.address, config).await;
    assert!(late.is_err(), "there is no bound");
    assert_eq!(server.counters.snapshot().handshakes_over_capacity, 1);
    assert_eq!(inside.ask(&get("/v1/host")).await.status, 200, "those inside are disturbed");
    drop(silent);
}

#[tokio::test]
async fn at_shutdown_requests_in_hand_are_answered_and_new_connections_refused() {
    let server = Server::start().await;
    let (mut busy, mut idle) = (server.connect().await, server.connect().await);
    assert_eq!(idle.ask(&get("/v1/host")).await.status, 200);
    busy.send(&post("/v1/grants", "wait")).await.expect("sent");
    while !server.admission.asked().iter().any(|asked| asked.starts_with("grant")) {
        tokio::task::yield_now().await;
    }
    server.stop.send_replace(true);
    assert_eq!(idle.closed().await, b"");
    assert!(TcpStream::connect(server.address).await.is_err(), "still listening");
    server.admission.gate.add_permits(1);
    assert_eq!(busy.answer().await.expect("answer").status, 201);
    let ended = tokio::time::timeout(Duration::from_secs(5), server.task).await;
    assert!(ended.is_ok(), "the listener does not end");
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever() {
    let server = Server::with(impatient(), |_| None).await;
    let mut stuck = server.connect().await;
    stuck.send(&post("/v1/grants", "wait")).await.expect("sent");
    while server.admission.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    server.stop.send_replace(true);
    let ended = tokio::time::timeout(Duration::from_secs(5), server.task).await;
    assert!(ended.is_ok(), "one stuck decision keeps the daemon from stopping");
    drop(stuck);
}
