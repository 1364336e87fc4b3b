//! A small client that runs as a confined workload and tells, as JSON lines, what it could reach.
//!
//! It enters its control group and gives up root before it does anything else.

use std::fs;
use std::io::{BufRead, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::{Parser, Subcommand};
use grantd_e2e::issuer::Shape;
use grantd_e2e::streams::Side;
use grantd_e2e::world::World;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use serde::Serialize;

#[path = "probe/serve.rs"]
mod answer;
#[path = "probe/attack.rs"]
mod attack;
#[path = "probe/crowd.rs"]
mod crowd;
#[path = "probe/escape.rs"]
mod escape;
#[path = "probe/pool.rs"]
mod pool;
#[path = "probe/reach.rs"]
mod reach;
#[path = "probe/swap.rs"]
mod swap;

/// Tries to reach things from inside a control group.
#[derive(Parser)]
struct Options {
    /// Enter this cgroup first.
    #[arg(long)]
    cgroup: Option<PathBuf>,
    /// Then become this user, with no other groups.
    #[arg(long)]
    uid: Option<u32>,
    /// Let the process leave cores of any size.
    #[arg(long)]
    cores: bool,
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Connect once by TCP.
    Tcp {
        to: SocketAddr,
        #[arg(long, default_value_t = 2000)]
        timeout_ms: u64,
    },
    /// Send one datagram and wait for its echo.
    Udp {
        to: SocketAddr,
        /// Use connect(2) and send(2) instead of sendto(2).
        #[arg(long)]
        connected: bool,
        #[arg(long, default_value_t = 1000)]
        timeout_ms: u64,
    },
    /// Hold a connection: a request every interval, or nothing at all when idle.
    Hold {
        to: SocketAddr,
        #[arg(long, default_value_t = 20)]
        interval_ms: u64,
        #[arg(long)]
        idle: bool,
        /// A connected datagram socket.
        #[arg(long)]
        udp: bool,
    },
    /// Hold a connection: a request at each line on standard input, and nothing in between.
    Talk { to: SocketAddr },
    /// Connect again and again; ends after so many, or when standard input ends.
    Loop {
        to: SocketAddr,
        #[arg(long)]
        count: Option<u64>,
        #[arg(long, default_value_t = 0)]
        interval_us: u64,
    },
    /// Connect to each of these addresses once, in turn; the loop's summary.
    Each { to: Vec<SocketAddr> },
    /// Wait for a line on standard input before each command on it: `tcp ADDR` or `udp ADDR`.
    Serve,
    /// Wait for connections, or datagrams, and send back what comes; the address first, then one line for
    /// each that came.
    Answer {
        at: SocketAddr,
        #[arg(long)]
        udp: bool,
    },
    /// Send and receive without a pause, and at each line on standard input say what was seen so far.
    Stream {
        to: SocketAddr,
        #[arg(long)]
        udp: bool,
    },
    /// Hold so many idle connections, say how many stand, and then how they all broke.
    Crowd { count: usize, to: SocketAddr },
    /// Make sockets until the kernel refuses one or so many are held; then, at each line on standard input,
    /// close half of them and try again.
    Hoard { count: usize },
    /// Hold sockets by name, and do with them what each line on standard input says.
    Pool,
    /// Hold many UDP sockets that are connected to one destination, and at each line on standard
    /// input: `race` sends to it and to the other at the same moment, `own` to it, `other` to the
    /// other; a report of how many datagrams the kernel took follows each.
    Swap(swap::Targets),
    /// Try what an agent's user must not be able to do.
    Attack(attack::Targets),
    /// Try a way past the hooks of IP sockets.
    #[command(subcommand)]
    Escape(escape::Way),
    /// Become another program.
    Exec {
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<String>,
    },
    /// Assemble a deployment without its daemon, say its name, and wait to be ended.
    Stand,
    /// Hold a text in memory and abort: shows whether this system leaves cores.
    Crash { text: String },
}

fn main() -> Result<()> {
    let options = Options::parse();
    settle(&options)?;
    match options.command {
        What::Tcp { to, timeout_ms } => say(&reach::tcp(to, Duration::from_millis(timeout_ms))),
        What::Udp { to, connected, timeout_ms } => {
            say(&reach::udp(to, connected, Duration::from_millis(timeout_ms)))
        }
        What::Hold { to, interval_ms, idle, udp } => {
            let interval = (!idle).then(|| Duration::from_millis(interval_ms));
            let hold = if udp { reach::hold_udp } else { reach::hold };
            hold(to, interval, &mut |event| say(event))
        }
        What::Talk { to } => reach::talk(to, &mut |event| say(event)),
        What::Loop { to, count, interval_us } => {
            say(&reach::repeat(to, count, Duration::from_micros(interval_us)))
        }
        What::Each { to } => say(&reach::each(&to)),
        What::Serve => serve(),
        What::Answer { at, udp } => answer::answer(at, udp, &mut |event| say(event)),
        What::Stream { to, udp } => stream(to, udp),
        What::Crowd { count, to } => crowd::hold(count, to, &mut |event| say(event)),
        What::Hoard { count } => answer::hoard(count, &mut |event| say(event)),
        What::Pool => pool::serve(&mut |done| say(done)),
        What::Swap(targets) => swap::serve(&targets, &mut |burst| say(burst)),
        What::Attack(targets) => attack::all(&targets).iter().try_for_each(say),
        What::Escape(way) => escape::run(&way)?.iter().try_for_each(say),
        What::Exec { command } => become_program(&command),
        What::Stand => stand(),
        What::Crash { text } => crash(&text),
    }
}

/// Enters the cgroup and drops privileges, in this order: an ordinary user may not move itself.
fn settle(options: &Options) -> Result<()> {
    if let Some(cgroup) = &options.cgroup {
        fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string())
            .with_context(|| format!("entering {}", cgroup.display()))?;
    }
    if options.cores {
        use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
        setrlimit(Resource::RLIMIT_CORE, RLIM_INFINITY, RLIM_INFINITY).context("allowing cores")?;
    }
    if let Some(uid) = options.uid {
        setgroups(&[]).context("dropping groups")?;
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(uid));
        setresgid(gid, gid, gid).context("dropping the group")?;
        setresuid(uid, uid, uid).context("dropping root")?;
        nix::sys::prctl::set_no_new_privs().context("giving up new privileges")?;
    }
    Ok(())
}

fn say(report: &impl Serialize) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, report).context("writing a report")?;
    out.write_all(b"\n")?;
    out.flush().context("writing a report")
}

/// One process for many attempts, so that each costs no start of a process.
fn serve() -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (verb, address) = line.split_once(' ').context("`tcp ADDR` or `udp ADDR`")?;
        let to: SocketAddr = address.parse().context("an address")?;
        match verb {
            "tcp" => say(&reach::tcp(to, Duration::from_secs(2)))?,
            "udp" => say(&reach::udp(to, false, Duration::from_secs(1)))?,
            other => return Err(anyhow!("no such command: {other}")),
        }
    }
    Ok(())
}

fn stream(to: SocketAddr, udp: bool) -> Result<()> {
    let side = if udp {
        let any: SocketAddr = if to.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let socket = UdpSocket::bind(any).context("a socket")?;
        socket.connect(to).context("connecting")?;
        Side::udp(socket)?
    } else {
        Side::tcp(TcpStream::connect(to).context("connecting")?)?
    };
    say(&side.seen())?;
    for line in std::io::stdin().lock().lines() {
        line?;
        say(&side.seen())?;
    }
    Ok(())
}

fn stand() -> Result<()> {
    let world = World::assemble(Shape::okta())?;
    let sleeper = world.coding.start(&["serve"])?;
    say(&(world.workdir.name(), sleeper.pid()))?;
    loop {
        std::thread::park();
    }
}

fn become_program(command: &[String]) -> Result<()> {
    let (program, arguments) = command.split_first().context("a command")?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("starting {program}"))
}

fn crash(text: &str) -> Result<()> {
    let held = text.to_owned();
    say(&held.len())?;
    std::process::abort()
}
