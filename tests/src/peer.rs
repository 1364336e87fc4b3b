//! The far end of a workload's connections, read and written by the test itself.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::Result;

use crate::world::{A, World, at};

/// Longer than TCP waits until it sends something lost for the third time.
pub const RETRIES: Duration = Duration::from_secs(2);

/// A listener of [`A`] whose connections the test reads and writes by itself.
///
/// # Errors
/// It cannot listen.
pub fn listener(world: &World, port: u16) -> Result<TcpListener> {
    world.srv_a.listen_tcp(at(A, port)?)
}

/// The next connection, which sends at once and does not wait.
///
/// # Errors
/// There is none to come.
pub fn accept(listener: &TcpListener) -> Result<TcpStream> {
    let (stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Everything that is there to be read within `patience`, and whether it was reset.
///
/// # Errors
/// The connection cannot be waited for.
pub fn read_out(stream: &mut TcpStream, patience: Duration) -> Result<(Vec<u8>, bool)> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(patience))?;
    let (mut all, mut buffer) = (Vec::new(), [0; 65_536]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok((all, false)),
            Ok(length) => all.extend(buffer.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return Ok((all, false));
            }
            Err(_) => return Ok((all, true)),
        }
    }
}
