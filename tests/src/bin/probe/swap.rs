//! Many UDP sockets connected to one destination, from which datagrams go to another one as well:
//! by turns, or from two threads at the same moment.

use std::io::BufRead;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use grantd_e2e::probe::Burst;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The two threads are apart by up to so many turns of an empty loop, so that over all sockets each
/// order of their steps comes up.
const APART: u32 = 120;
/// Turns after which a waiting thread lets others run: on one core the other thread must come up.
const PATIENCE: u32 = 20_000;

/// Where the datagrams go.
#[derive(Args)]
pub(crate) struct Targets {
    /// What the sockets are connected to.
    own: SocketAddr,
    /// The other destination.
    other: SocketAddr,
    #[arg(long, default_value_t = 1000)]
    sockets: usize,
}

/// Connects the sockets and does what standard input says; reports after connecting and each line.
pub(crate) fn serve(targets: &Targets, report: &mut dyn FnMut(&Burst) -> Result<()>) -> Result<()> {
    let sockets = connect(targets)?;
    let taken = |taken| Burst { sockets: sockets.len(), taken };
    report(&taken(sockets.len()))?;
    for line in std::io::stdin().lock().lines() {
        let count = match line?.as_str() {
            "race" => race(&sockets, targets.other),
            "own" => sockets.iter().filter(|socket| socket.send(b"own").is_ok()).count(),
            "other" => sockets
                .iter()
                .filter(|socket| socket.send_to(b"late", targets.other).is_ok())
                .count(),
            other => return Err(anyhow!("no such command: {other}")),
        };
        report(&taken(count))?;
    }
    Ok(())
}

fn connect(targets: &Targets) -> Result<Vec<UdpSocket>> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("allowing more open files")?;
    let one = |_| -> Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(targets.own)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    (0..targets.sockets).map(one).collect()
}

/// From each socket in turn, one thread sends to its own destination and another to the other one.
/// Gives how many datagrams to the other one the kernel took.
fn race(sockets: &[UdpSocket], other: SocketAddr) -> usize {
    let (left, right) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (number, socket) in sockets.iter().enumerate() {
                meet(&left, &right, number + 1);
                let _ = socket.send(b"r");
            }
        });
        let mut apart = 3_u32;
        let mut taken = 0;
        for (number, socket) in sockets.iter().enumerate() {
            apart = apart.wrapping_mul(1_103_515_245).wrapping_add(12_345);
            meet(&right, &left, number + 1);
            for _ in 0..(apart >> 16) % APART {
                std::hint::spin_loop();
            }
            taken += usize::from(socket.send_to(b"o", other).is_ok());
        }
        taken
    })
}

/// Returns when both threads have come to the same step.
fn meet(own: &AtomicUsize, other: &AtomicUsize, step: usize) {
    own.store(step, Ordering::SeqCst);
    let mut turns = 0_u32;
    while other.load(Ordering::SeqCst) < step {
        turns += 1;
        if turns.is_multiple_of(PATIENCE) {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}
