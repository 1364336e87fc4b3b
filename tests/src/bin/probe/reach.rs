//! Attempts to reach something.

use std::io::{BufRead, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use grantd_e2e::clock::{now, since, unix_micros};
pub(crate) use grantd_e2e::pool::error_name as name;
use grantd_e2e::probe::{Attempt, Held, Latency, Tally};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long [`talk`] waits for an answer: several times what TCP needs to send a lost one again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn attempt<T>(action: impl FnOnce() -> std::io::Result<T>) -> (Attempt, Option<T>) {
    let (at_us, start) = (unix_micros(), now());
    let outcome = action();
    let elapsed_us = micros(since(start));
    let error = outcome.as_ref().err().map(name);
    (Attempt { ok: outcome.is_ok(), error, elapsed_us, at_us }, outcome.ok())
}

/// Connects once and closes.
pub(crate) fn tcp(to: SocketAddr, timeout: Duration) -> Attempt {
    attempt(|| TcpStream::connect_timeout(&to, timeout)).0
}

/// Sends one datagram and waits for its echo.
pub(crate) fn udp(to: SocketAddr, connected: bool, timeout: Duration) -> Attempt {
    attempt(|| {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_read_timeout(Some(timeout))?;
        if connected {
            socket.connect(to)?;
            socket.send(b"ping")?;
        } else {
            socket.send_to(b"ping", to)?;
        }
        let mut buffer = [0; 64];
        match socket.recv(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
            other => other,
        }
    })
    .0
}

/// Holds a connection until it breaks. With an interval, sends a request at each and waits for the
/// answer; without, only waits for the end.
pub(crate) fn hold(
    to: SocketAddr,
    interval: Option<Duration>,
    report: &mut dyn FnMut(&Held) -> Result<()>,
) -> Result<()> {
    let stream = match TcpStream::connect_timeout(&to, CONNECT_TIMEOUT) {
        Ok(stream) => stream,
        Err(error) => return report(&broke(name(&error), 0)),
    };
    stream.set_nodelay(true)?;
    hold_one(stream.into(), interval, report)
}

/// The same with a connected datagram socket.
pub(crate) fn hold_udp(
    to: SocketAddr,
    interval: Option<Duration>,
    report: &mut dyn FnMut(&Held) -> Result<()>,
) -> Result<()> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    if let Err(error) = socket.connect(to) {
        return report(&broke(name(&error), 0));
    }
    hold_one(socket.into(), interval, report)
}

fn hold_one(
    held: OwnedFd,
    interval: Option<Duration>,
    report: &mut dyn FnMut(&Held) -> Result<()>,
) -> Result<()> {
    // Reading and writing do the same to either kind.
    let mut held = TcpStream::from(held);
    report(&Held::Connected { at_us: unix_micros(), local: held.local_addr()? })?;
    let mut exchanges = 0;
    let error = loop {
        if let Some(interval) = interval {
            if let Err(error) = held.write_all(b"ping") {
                break name(&error);
            }
            std::thread::sleep(interval);
        }
        match held.read(&mut [0; 64]) {
            Ok(0) => break "EOF".to_owned(),
            Ok(_) => {
                exchanges += 1;
                report(&Held::Exchange { number: exchanges, at_us: unix_micros() })?;
            }
            Err(error) => break name(&error),
        }
    };
    report(&broke(error, exchanges))
}

/// Holds a connection that says nothing but what it is asked to: a request and the wait for its answer
/// at each line on standard input.
pub(crate) fn talk(to: SocketAddr, report: &mut dyn FnMut(&Held) -> Result<()>) -> Result<()> {
    let mut stream = match TcpStream::connect_timeout(&to, CONNECT_TIMEOUT) {
        Ok(stream) => stream,
        Err(error) => return report(&broke(name(&error), 0)),
    };
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    report(&Held::Connected { at_us: unix_micros(), local: stream.local_addr()? })?;
    let mut number = 0;
    for line in std::io::stdin().lock().lines() {
        line?;
        let answered = stream.write_all(b"ping").and_then(|()| stream.read(&mut [0; 64]));
        number += u64::from(answered.is_ok());
        report(&match answered {
            Ok(0) => broke("EOF".to_owned(), number),
            Ok(_) => Held::Exchange { number, at_us: unix_micros() },
            Err(error) => broke(name(&error), number),
        })?;
    }
    Ok(())
}

fn broke(error: String, exchanges: u64) -> Held {
    Held::Broke { at_us: unix_micros(), error, exchanges }
}

/// Connects `count` times, or until standard input ends.
pub(crate) fn repeat(to: SocketAddr, count: Option<u64>, interval: Duration) -> Tally {
    let stop = Arc::new(AtomicBool::new(false));
    if count.is_none() {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            stop.store(true, Ordering::SeqCst);
        });
    }
    let mut counting = Counting::default();
    while !stop.load(Ordering::SeqCst) && count.is_none_or(|count| counting.tally.attempts < count)
    {
        counting.connect(to);
        if !interval.is_zero() {
            std::thread::sleep(interval);
        }
    }
    counting.finish()
}

/// Connects to each address once.
pub(crate) fn each(to: &[SocketAddr]) -> Tally {
    let mut counting = Counting::default();
    for address in to {
        counting.connect(*address);
    }
    counting.finish()
}

#[derive(Default)]
struct Counting {
    tally: Tally,
    samples: Vec<u64>,
}

impl Counting {
    fn connect(&mut self, to: SocketAddr) {
        let (at_us, start) = (unix_micros(), now());
        let outcome = TcpStream::connect(to);
        let elapsed = since(start);
        self.tally.attempts += 1;
        match outcome {
            Ok(_) => {
                self.tally.ok += 1;
                self.tally.last_ok_us = Some(at_us);
                self.samples.push(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
            }
            Err(error) => {
                *self.tally.failed.entry(name(&error)).or_default() += 1;
                self.tally.first_failure_us.get_or_insert(at_us);
            }
        }
    }

    fn finish(mut self) -> Tally {
        self.tally.latency_ns = Latency::of(self.samples);
        self.tally
    }
}
