//! The socket: permissions, bounds, refusals, many callers at once.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    time::Duration,
};

use nix::unistd::geteuid;

use super::support::*;
use crate::ctl::{
    BindError, Client, ClientError, ErrorCode, MAX_REQUEST_LINE, Reply, ReplyLine, Request,
    RevokeSelector, bind,
};

/// Sends bytes and reads what comes until the daemon hangs up or answers with a line.
fn raw(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The daemon may hang up before it has read everything.
    let _ = stream.write_all(bytes);
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

fn error_code(line: &str) -> ErrorCode {
    let Reply::Error(error) = serde_json::from_str::<ReplyLine>(line).unwrap().reply else {
        panic!("answered {line}");
    };
    error.code
}

fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>) -> ErrorCode {
    let error = result.unwrap_err();
    let ClientError::Refused(error) = error else { panic!("{error:?}") };
    error.code
}

#[tokio::test]
async fn a_question_is_answered_and_the_connection_takes_the_next() {
    let daemon = Daemon::start();
    daemon.fake.state().status = enforcing();
    daemon.fake.state().grants = vec![grant("g1", "coding-agent")];
    let socket = daemon.socket();
    blocking(move || {
        let mut client = Client::connect(&socket).unwrap();
        assert_eq!(client.status().unwrap(), enforcing());
        assert_eq!(client.grant("g1".to_owned()).unwrap(), grant("g1", "coding-agent"));
        assert_eq!(refused(client.grant("g2".to_owned())), ErrorCode::NotFound);
        assert_eq!(client.grants(Some("other")).unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn only_root_changes_anything_and_refusals_are_reported() {
    let daemon = Daemon::start();
    daemon.fake.state().grants = vec![grant("g1", "coding-agent")];
    let socket = daemon.socket();
    let (revoked, thawed) = blocking(move || {
        let mut client = Client::connect(&socket).unwrap();
        (client.revoke(RevokeSelector::All), client.thaw())
    })
    .await;
    let state = daemon.fake.state();
    if geteuid().is_root() {
        assert_eq!(revoked.unwrap().ids, ["g1"]);
        assert_eq!(refused(thawed), ErrorCode::LedgerFailed);
        assert_eq!(state.changes, ["revoke All by 0", "thaw by 0"]);
        assert_eq!(state.refusals.len(), 0);
    } else {
        assert_eq!(refused(revoked), ErrorCode::NotPermitted);
        assert_eq!(refused(thawed), ErrorCode::NotPermitted);
        assert_eq!(state.changes.len(), 0, "a change by someone other than root got through");
        assert_eq!(state.refusals.len(), 2);
    }
}

#[tokio::test]
async fn a_caller_inside_the_slice_is_refused_even_to_read() {
    // The root of the hierarchy as slice: then this very process is inside it.
    let daemon = Daemon::start_with("/");
    let socket = daemon.socket();
    let (status, frozen) = blocking(move || {
        let asked = || Client::connect(&socket).unwrap();
        (asked().status(), asked().freeze())
    })
    .await;
    assert_eq!(refused(status), ErrorCode::NotPermitted);
    assert_eq!(refused(frozen), ErrorCode::NotPermitted);
    let state = daemon.fake.state();
    assert_eq!(state.changes.len(), 0, "a confined caller changed something");
    assert_eq!(state.refusals.len(), 2, "a confined caller at the socket left no trace");
}

#[tokio::test]
async fn confined_callers_take_no_seat_of_roots_kill_switch() {
    let daemon = Daemon::start_with("/");
    let socket = daemon.socket();
    blocking(move || {
        let held: Vec<_> = (0..20).map(|_| UnixStream::connect(&socket).unwrap()).collect();
        let mut one_more = Client::connect(&socket).unwrap();
        assert_eq!(refused(one_more.status()), ErrorCode::NotPermitted, "the seats were taken");
        drop(held);
    })
    .await;
}

#[tokio::test]
async fn a_change_is_finished_although_its_caller_hung_up() {
    let daemon = Daemon::start();
    daemon.fake.state().delay = Duration::from_millis(300);
    let socket = daemon.socket();
    blocking(move || {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(b"{\"v\":1,\"request\":{\"op\":\"reload\"}}\n").unwrap();
        std::thread::sleep(Duration::from_millis(100));
    })
    .await;
    daemon.stop.send_replace(true);
    let Daemon { fake, .. } = &daemon;
    let mut ended = false;
    for _ in 0..500 {
        ended = daemon.task.is_finished();
        if ended {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(ended, "the socket does not end");
    let expected = usize::from(geteuid().is_root());
    assert_eq!(fake.state().changes.len(), expected, "the reload was left half-done");
}

#[tokio::test(start_paused = true)]
async fn a_change_that_takes_too_long_is_done_all_the_same() {
    let daemon = Daemon::start();
    daemon.fake.state().delay = Duration::from_secs(90);
    let mut stream = tokio::net::UnixStream::connect(daemon.socket()).await.unwrap();
    let request = b"{\"v\":1,\"request\":{\"op\":\"reload\"}}\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, request).await.unwrap();
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(stream);
    tokio::io::AsyncBufReadExt::read_line(&mut reader, &mut line).await.unwrap();
    let (answered, done): (_, &[&str]) = if geteuid().is_root() {
        (ErrorCode::Internal, &["reload by 0"])
    } else {
        (ErrorCode::NotPermitted, &[])
    };
    assert_eq!(error_code(&line), answered);
    assert_eq!(daemon.fake.state().changes.len(), 0, "it was answered before its time");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(daemon.fake.state().changes, done, "a timeout left a reload half-done");
}

#[tokio::test]
async fn what_is_not_a_request_is_refused_with_its_reason() {
    let daemon = Daemon::start();
    let cases: [(&[u8], ErrorCode); 7] = [
        (b"\n", ErrorCode::BadRequest),
        (b"hello\n", ErrorCode::BadRequest),
        (b"{\"v\":1}\n", ErrorCode::BadRequest),
        (b"{\"v\":1,\"request\":{\"op\":\"no_such\"}}\n", ErrorCode::BadRequest),
        (b"{\"v\":1,\"request\":{\"op\":\"freeze\",\"x\":1}}\n", ErrorCode::BadRequest),
        (b"{\"v\":1,\"request\":{\"op\":\"freeze\"},\"x\":1}\n", ErrorCode::BadRequest),
        (b"{\"v\":2,\"request\":{\"op\":\"status\"}}\n", ErrorCode::Version),
    ];
    for (bytes, expected) in cases {
        let socket = daemon.socket();
        let line = blocking(move || raw(&socket, bytes)).await;
        assert_eq!(error_code(&line), expected, "{}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(daemon.fake.state().changes.len(), 0);
}

#[tokio::test]
async fn a_line_beyond_the_bound_is_refused_and_the_connection_closed() {
    let daemon = Daemon::start();
    let socket = daemon.socket();
    let rest = blocking(move || {
        let mut stream = UnixStream::connect(&socket).unwrap();
        let _ = stream.write_all(&vec![b' '; MAX_REQUEST_LINE + 1]);
        let mut all = String::new();
        // A hang-up with bytes unread may show as a reset after the answer.
        let _ = stream.read_to_string(&mut all);
        all
    })
    .await;
    assert_eq!(error_code(&rest), ErrorCode::BadRequest);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_says_nothing_does_not_keep_its_seat() {
    let daemon = Daemon::start();
    let stream = tokio::net::UnixStream::connect(daemon.socket()).await.unwrap();
    let (mut read, _write) = stream.into_split();
    let mut buffer = Vec::new();
    let closed = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut buffer);
    let closed = tokio::time::timeout(Duration::from_secs(60), closed).await;
    assert!(matches!(closed, Ok(Ok(0))), "{closed:?}");
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_seats_come_free_again() {
    let daemon = Daemon::start();
    let socket = daemon.socket();
    blocking(move || {
        let mut held: Vec<_> = (0..16).map(|_| Client::connect(&socket).unwrap()).collect();
        for client in &mut held {
            client.status().unwrap();
        }
        let mut extra = Client::connect(&socket).unwrap();
        assert_eq!(refused(extra.status()), ErrorCode::Busy);
        held.clear();
        let freed = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            Client::connect(&socket).unwrap().status().is_ok()
        });
        assert!(freed, "seats were not given back");
    })
    .await;
}

#[tokio::test]
async fn a_slow_answer_holds_up_nobody_else() {
    let daemon = Daemon::start();
    daemon.fake.state().delay = Duration::from_secs(5);
    daemon.fake.state().grants = vec![grant("g1", "w")];
    let socket = daemon.socket();
    let slow = {
        let socket = socket.clone();
        blocking(move || Client::connect(&socket).unwrap().status())
    };
    let quick = tokio::time::timeout(
        Duration::from_secs(3),
        blocking(move || Client::connect(&socket).unwrap().grants(None).unwrap().len()),
    );
    let (slow, quick) = tokio::join!(slow, quick);
    assert_eq!(quick.unwrap(), 1);
    slow.unwrap();
}

#[tokio::test]
async fn a_list_longer_than_one_reply_arrives_whole_and_in_order() {
    let daemon = Daemon::start();
    // So large that the size cuts pages, not the number of grants.
    let wide = |n: usize| {
        let destinations = vec![format!("tcp {}:1-65535", "x".repeat(250)); 64];
        crate::ctl::GrantView { destinations, ..grant(&format!("g{n:05}"), "w") }
    };
    daemon.fake.state().grants = (0..500).map(wide).collect();
    let socket = daemon.socket();
    let got = blocking(move || Client::connect(&socket).unwrap().grants(None).unwrap()).await;
    let ids: Vec<_> = got.iter().map(|g| g.id.clone()).collect();
    assert_eq!(ids, (0..500).map(|n| format!("g{n:05}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn callers_at_once_each_get_their_own_answers() {
    let daemon = Daemon::start();
    daemon.fake.state().grants = (0..8).map(|n| grant(&format!("g{n}"), "w")).collect();
    let callers = (0..8).map(|n| {
        let socket = daemon.socket();
        blocking(move || {
            let mut client = Client::connect(&socket).unwrap();
            for _ in 0..50 {
                assert_eq!(client.grant(format!("g{n}")).unwrap().id, format!("g{n}"));
            }
        })
    });
    for caller in callers.map(tokio::spawn).collect::<Vec<_>>() {
        caller.await.unwrap();
    }
}

#[tokio::test]
async fn the_socket_is_for_root_alone_where_its_group_does_not_exist() {
    let daemon = Daemon::start();
    let mode = std::fs::metadata(daemon.socket()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
}

#[tokio::test]
async fn the_socket_of_a_dead_daemon_is_replaced_and_that_of_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ctl.sock");
    drop(bind(&config(&path)).unwrap());
    let _listener = bind(&config(&path)).unwrap();
    assert!(matches!(bind(&config(&path)), Err(BindError::InUse { .. })));
}

#[tokio::test]
async fn a_file_in_the_place_of_the_socket_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ctl.sock");
    std::fs::write(&path, b"precious").unwrap();
    assert!(matches!(bind(&config(&path)), Err(BindError::NotASocket { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn a_path_that_no_socket_address_holds_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x".repeat(120));
    let error = bind(&config(&path)).unwrap_err();
    assert!(error.to_string().contains("107 bytes"), "{error}");
}

#[tokio::test]
async fn a_directory_in_which_others_may_write_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let error = bind(&config(&dir.path().join("ctl.sock"))).unwrap_err();
    assert!(matches!(error, BindError::OpenDirectory { mode: 0o777, .. }), "{error}");
}

#[test]
fn a_daemon_that_is_not_there_is_told_from_one_that_may_not_be_asked() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Client::connect(&dir.path().join("ctl.sock")).unwrap_err();
    assert!(matches!(missing, ClientError::Unavailable { .. }), "{missing:?}");
}

#[test]
fn every_request_survives_the_wire() {
    let requests = [
        Request::Status {},
        Request::Grants { workload: Some("w".to_owned()), after: None },
        Request::GrantShow { id: "g".to_owned() },
        Request::Revoke { selector: RevokeSelector::Cid("c".to_owned()) },
        Request::Revoke { selector: RevokeSelector::All },
        Request::Freeze {},
        Request::Thaw {},
        Request::Enrol { workload: "w".to_owned() },
        Request::Reload {},
    ];
    for request in requests {
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request, "{text}");
    }
}
