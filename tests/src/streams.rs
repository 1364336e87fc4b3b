//! Connections over which both sides send without a pause, so that the last byte of each direction tells
//! when access ended.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::clock::unix_micros;
use crate::netns::Netns;

/// How often each side sends.
const PERIOD: Duration = Duration::from_millis(2);
/// What it sends each time.
const BLOCK: [u8; 64] = [0x5a; 64];
/// How often a reader looks whether it should stop.
const POLL: Duration = Duration::from_millis(20);

/// What one side of a stream has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Bytes that came.
    pub received: u64,
    /// When the last of them came, microseconds since 1970.
    pub last_us: u64,
    /// Bytes that its own system took for sending.
    pub sent: u64,
    /// The first error of reading or writing, by name, and when it came.
    pub error: Option<(String, u64)>,
}

/// A side of a stream, which goes on until it is dropped.
pub struct Side {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
}

impl Side {
    /// What it has seen so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }

    fn new() -> Self {
        Self { seen: Arc::default(), stop: Arc::default() }
    }

    /// Sends and receives on a connection.
    ///
    /// # Errors
    /// When the socket cannot be set up.
    pub fn tcp(stream: TcpStream) -> Result<Self> {
        let side = Self::new();
        side.follow(stream)?;
        Ok(side)
    }

    fn follow(&self, mut stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(POLL))?;
        stream.set_write_timeout(Some(POLL))?;
        let mut writer = stream.try_clone()?;
        let (seen, stop) = (Arc::clone(&self.seen), Arc::clone(&self.stop));
        std::thread::spawn(move || pour(&seen, &stop, || writer.write(&BLOCK)));
        let (seen, stop) = (Arc::clone(&self.seen), Arc::clone(&self.stop));
        std::thread::spawn(move || drain(&seen, &stop, |buffer| stream.read(buffer)));
        Ok(())
    }

    /// Sends and receives on a connected datagram socket.
    ///
    /// # Errors
    /// When the socket cannot be set up.
    pub fn udp(socket: UdpSocket) -> Result<Self> {
        let side = Self::new();
        socket.set_read_timeout(Some(POLL))?;
        let writer = socket.try_clone()?;
        let (seen, stop) = (Arc::clone(&side.seen), Arc::clone(&side.stop));
        std::thread::spawn(move || pour(&seen, &stop, || writer.send(&BLOCK)));
        let (seen, stop) = (Arc::clone(&side.seen), Arc::clone(&side.stop));
        std::thread::spawn(move || drain(&seen, &stop, |buffer| socket.recv(buffer)));
        Ok(side)
    }

    /// The far side of one TCP stream: takes the first caller.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn await_tcp(netns: &Netns, at: SocketAddr) -> Result<Self> {
        let listener: TcpListener = netns.listen_tcp(at)?;
        let side = Self::new();
        let copy = Self { seen: Arc::clone(&side.seen), stop: Arc::clone(&side.stop) };
        std::thread::spawn(move || {
            if let Ok((stream, _)) = listener.accept() {
                let _ = copy.follow(stream);
            }
            // The listener stays, so that nobody else takes the port.
            while !copy.stop.load(Ordering::SeqCst) {
                std::thread::sleep(POLL);
            }
        });
        Ok(side)
    }

    /// The far side of one UDP stream: answers whoever sends first.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn await_udp(netns: &Netns, at: SocketAddr) -> Result<Self> {
        let socket = netns.bind_udp(at)?;
        socket.set_read_timeout(Some(POLL))?;
        let side = Self::new();
        let (seen, stop) = (Arc::clone(&side.seen), Arc::clone(&side.stop));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            let peer = loop {
                match socket.recv_from(&mut buffer) {
                    Ok((_, peer)) => break peer,
                    Err(_) if stop.load(Ordering::SeqCst) => return,
                    Err(_) => {}
                }
            };
            let Ok(writer) = socket.try_clone() else { return };
            let (out, ends) = (Arc::clone(&seen), Arc::clone(&stop));
            std::thread::spawn(move || pour(&out, &ends, || writer.send_to(&BLOCK, peer)));
            drain(&seen, &stop, |buffer| socket.recv(buffer));
        });
        Ok(side)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pour(seen: &Mutex<Seen>, stop: &AtomicBool, mut send: impl FnMut() -> std::io::Result<usize>) {
    while !stop.load(Ordering::SeqCst) {
        match send() {
            Ok(length) => lock(seen).sent += length as u64,
            Err(error) if is_pause(&error) => {}
            Err(error) => {
                failed(seen, &error);
                // A datagram socket may be refused once and go on.
                let number = error.raw_os_error().map(Errno::from_raw);
                if !matches!(number, Some(Errno::EPERM | Errno::ECONNREFUSED)) {
                    return;
                }
            }
        }
        std::thread::sleep(PERIOD);
    }
}

fn drain(
    seen: &Mutex<Seen>,
    stop: &AtomicBool,
    mut receive: impl FnMut(&mut [u8]) -> std::io::Result<usize>,
) {
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::SeqCst) {
        match receive(&mut buffer) {
            Ok(0) => {
                lock(seen).error.get_or_insert(("EOF".to_owned(), unix_micros()));
                return;
            }
            Ok(length) => {
                let mut seen = lock(seen);
                seen.received += length as u64;
                seen.last_us = unix_micros();
            }
            Err(error) if is_pause(&error) => {}
            Err(error) => {
                failed(seen, &error);
                return;
            }
        }
    }
}

fn is_pause(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn failed(seen: &Mutex<Seen>, error: &std::io::Error) {
    let name = match error.raw_os_error() {
        Some(number) => format!("{:?}", Errno::from_raw(number)),
        None => error.to_string(),
    };
    lock(seen).error.get_or_insert((name, unix_micros()));
}
