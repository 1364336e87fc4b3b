//! A confined process that is connected to, and one that makes more sockets than it needs.

use std::io::{BufRead, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::mpsc::sync_channel;

use anyhow::{Context, Result};
use grantd_e2e::probe::{Came, Hoarded};

/// Callers that may wait to be told.
const QUEUE: usize = 64;

pub(crate) fn answer(
    at: SocketAddr,
    udp: bool,
    say: &mut impl FnMut(&Came) -> Result<()>,
) -> Result<()> {
    if udp { answer_datagrams(at, say) } else { answer_calls(at, say) }
}

fn answer_calls(at: SocketAddr, say: &mut impl FnMut(&Came) -> Result<()>) -> Result<()> {
    let listener = TcpListener::bind(at).context("listening")?;
    say(&Came::Listening { at: listener.local_addr()? })?;
    let (sender, came) = sync_channel(QUEUE);
    std::thread::spawn(move || {
        while let Ok((mut stream, from)) = listener.accept() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let _ = sender.send(Came::Caller { from, bytes: 0 });
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    let echoed = buffer.get(..length).unwrap_or_default();
                    if stream.write_all(echoed).is_err() {
                        break;
                    }
                    let _ = sender.send(Came::Caller { from, bytes: length });
                }
            });
        }
    });
    came.into_iter().try_for_each(|event| say(&event))
}

fn answer_datagrams(at: SocketAddr, say: &mut impl FnMut(&Came) -> Result<()>) -> Result<()> {
    let socket = UdpSocket::bind(at).context("binding")?;
    say(&Came::Listening { at: socket.local_addr()? })?;
    let mut buffer = [0; 4096];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).context("receiving")?;
        // What may not be answered is reported all the same.
        let _ = socket.send_to(buffer.get(..length).unwrap_or_default(), from);
        say(&Came::Caller { from, bytes: length })?;
    }
}

pub(crate) fn hoard(count: usize, say: &mut impl FnMut(&Hoarded) -> Result<()>) -> Result<()> {
    let mut held: Vec<UdpSocket> = Vec::new();
    let mut lines = std::io::stdin().lock().lines();
    loop {
        let mut error = None;
        while held.len() < count && error.is_none() {
            match UdpSocket::bind("0.0.0.0:0") {
                Ok(socket) => held.push(socket),
                Err(refused) => error = Some(refused.raw_os_error().unwrap_or_default()),
            }
        }
        say(&Hoarded { held: held.len(), error })?;
        if lines.next().is_none() {
            return Ok(());
        }
        held.truncate(held.len() / 2);
    }
}
