//! Very many connections at once.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use grantd_e2e::clock::unix_micros;
use grantd_e2e::probe::Crowd;

use crate::reach::name;

/// How long the first of them is waited for, and then each further one.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn hold(
    count: usize,
    to: SocketAddr,
    say: &mut impl FnMut(&Crowd) -> Result<()>,
) -> Result<()> {
    let mut held = Vec::with_capacity(count);
    for number in 0..count {
        let stream = TcpStream::connect(to).with_context(|| format!("connection {number}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        held.push(stream);
    }
    say(&Crowd::Standing { count: held.len() })?;
    let mut errors = BTreeMap::new();
    let mut first_us = None;
    for mut stream in held {
        let how = match stream.read(&mut [0; 16]) {
            Ok(0) => "EOF".to_owned(),
            Ok(_) => "DATA".to_owned(),
            Err(e) => name(&e),
        };
        first_us.get_or_insert_with(unix_micros);
        *errors.entry(how).or_insert(0) += 1;
    }
    let last_us = unix_micros();
    say(&Crowd::Broke { first_us: first_us.unwrap_or(last_us), last_us, errors })
}
