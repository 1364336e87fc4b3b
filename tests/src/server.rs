//! Real servers in other namespaces: they echo what they are sent and remember who came and how each
//! connection ended.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use nix::sys::socket;

use crate::clock::{self, unix_micros};
use crate::netns::Netns;

/// How often a UDP server looks whether it should stop.
const UDP_POLL: Duration = Duration::from_millis(50);

/// One connection, or one datagram of a UDP server.
#[derive(Clone, Debug)]
pub struct Visit {
    /// Who came.
    pub peer: SocketAddr,
    /// When, in microseconds since 1970.
    pub opened_us: u64,
    /// Bytes received.
    pub bytes: u64,
    /// When it last sent something, in microseconds since 1970.
    pub last_byte_us: u64,
    /// How it ended, once it has.
    pub end: Option<End>,
}

/// How a connection ended, as the server saw it.
#[derive(Clone, Debug)]
pub struct End {
    /// When, in microseconds since 1970.
    pub at_us: u64,
    /// The peer closed in order; otherwise it was reset or failed.
    pub orderly: bool,
    /// The error, where there was one.
    pub error: Option<String>,
}

/// A running echo server. Dropping it stops it and cuts its connections.
pub struct Server {
    address: SocketAddr,
    visits: Visits,
    stop: Arc<AtomicBool>,
    listener: Option<Arc<TcpListener>>,
    streams: Streams,
}

type Visits = Arc<Mutex<Vec<Visit>>>;
/// Open connections by their index in the visits.
type Streams = Arc<Mutex<HashMap<usize, TcpStream>>>;

impl Server {
    /// A TCP server at `address` inside `netns`.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn tcp(netns: &Netns, address: SocketAddr) -> Result<Self> {
        let listener = Arc::new(netns.listen_tcp(address)?);
        let server = Self::bare(listener.local_addr()?, Some(Arc::clone(&listener)));
        let (visits, streams) = (Arc::clone(&server.visits), Arc::clone(&server.streams));
        let stop = Arc::clone(&server.stop);
        std::thread::spawn(move || accept(&listener, &visits, &streams, &stop));
        Ok(server)
    }

    /// A UDP server at `address` inside `netns`.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn udp(netns: &Netns, address: SocketAddr) -> Result<Self> {
        let socket = netns.bind_udp(address)?;
        socket.set_read_timeout(Some(UDP_POLL))?;
        let server = Self::bare(socket.local_addr()?, None);
        let (visits, stop) = (Arc::clone(&server.visits), Arc::clone(&server.stop));
        std::thread::spawn(move || echo_datagrams(&socket, &visits, &stop));
        Ok(server)
    }

    fn bare(address: SocketAddr, listener: Option<Arc<TcpListener>>) -> Self {
        Self {
            address,
            visits: Visits::default(),
            stop: Arc::default(),
            listener,
            streams: Streams::default(),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who came so far.
    #[must_use]
    pub fn visits(&self) -> Vec<Visit> {
        lock(&self.visits).clone()
    }

    /// How many came so far.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.visits).len()
    }

    /// Waits until the connection from `peer` has ended and tells how.
    ///
    /// # Errors
    /// When it has not ended after `patience`.
    pub fn wait_for_end(&self, peer: SocketAddr, patience: Duration) -> Result<End> {
        clock::wait_until(&format!("the server to see {peer} end"), patience, || {
            let visits = lock(&self.visits);
            Ok(visits.iter().find(|visit| visit.peer == peer).and_then(|visit| visit.end.clone()))
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(listener) = &self.listener {
            // Wakes accept() up for the last time.
            let _ = socket::shutdown(listener.as_raw_fd(), socket::Shutdown::Both);
        }
        for (_, stream) in lock(&self.streams).drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, visits: &Visits, streams: &Streams, stop: &AtomicBool) {
    while let Ok((stream, peer)) = listener.accept() {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let index = record(visits, peer);
        if let Ok(copy) = stream.try_clone() {
            lock(streams).insert(index, copy);
        }
        let (visits, streams) = (Arc::clone(visits), Arc::clone(streams));
        std::thread::spawn(move || {
            echo_stream(stream, &visits, index);
            lock(&streams).remove(&index);
        });
    }
}

fn record(visits: &Visits, peer: SocketAddr) -> usize {
    let mut visits = lock(visits);
    let now = unix_micros();
    visits.push(Visit { peer, opened_us: now, bytes: 0, last_byte_us: now, end: None });
    visits.len() - 1
}

fn echo_stream(mut stream: TcpStream, visits: &Visits, index: usize) {
    let _ = stream.set_nodelay(true);
    let mut buffer = [0; 4096];
    let end = loop {
        let length = match stream.read(&mut buffer) {
            Ok(0) => break End { at_us: unix_micros(), orderly: true, error: None },
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => break failed(&error),
        };
        count(visits, index, length);
        let received = buffer.get(..length).unwrap_or_default();
        if let Err(error) = stream.write_all(received) {
            break failed(&error);
        }
    };
    if let Some(visit) = lock(visits).get_mut(index) {
        visit.end = Some(end);
    }
}

fn failed(error: &std::io::Error) -> End {
    End { at_us: unix_micros(), orderly: false, error: Some(error.to_string()) }
}

fn count(visits: &Visits, index: usize, length: usize) {
    if let Some(visit) = lock(visits).get_mut(index) {
        visit.bytes += length as u64;
        visit.last_byte_us = unix_micros();
    }
}

fn echo_datagrams(socket: &UdpSocket, visits: &Visits, stop: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::SeqCst) {
        let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
        let index = record(visits, peer);
        count(visits, index, length);
        let _ = socket.send_to(buffer.get(..length).unwrap_or_default(), peer);
    }
}
