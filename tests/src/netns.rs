//! Network namespaces, wired to each other by veth pairs.
//!
//! They have no name and live exactly as long as somebody holds them open or runs in them: a run that
//! is killed leaves none behind. (`nsenter -t <pid of a process in it> -n` looks inside.) All traffic
//! of tests and demo stays in them; no interface of the host is touched.

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace. Clones share it.
#[derive(Clone, Debug)]
pub struct Netns {
    label: String,
    file: Arc<File>,
}

impl Netns {
    /// Makes an empty namespace with loopback up. `label` names it in messages only.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn new(label: &str) -> Result<Self> {
        let file = std::thread::spawn(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
            File::open("/proc/thread-self/ns/net").context("opening the new network namespace")
        })
        .join()
        .map_err(|_| anyhow!("the thread that makes a network namespace panicked"))??;
        let netns = Self { label: label.to_owned(), file: Arc::new(file) };
        netns.ip("link set lo up\n")?;
        Ok(netns)
    }

    /// What it is called in messages.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Runs `work` on a thread of its own inside the namespace. Sockets made there stay in it.
    ///
    /// # Errors
    /// When the namespace cannot be entered or `work` panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            scope
                .spawn(|| -> Result<T> {
                    self.enter_this_thread()?;
                    Ok(work())
                })
                .join()
                .map_err(|_| anyhow!("a thread inside namespace {} panicked", self.label))?
        })
    }

    /// Moves the calling thread into the namespace, for good. Threads and processes that it starts
    /// are born there.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn enter_this_thread(&self) -> Result<()> {
        setns(&*self.file, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("entering network namespace {}", self.label))
    }

    /// Starts a process inside the namespace.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let program = command.get_program().to_os_string();
        self.enter(|| command.spawn())?
            .with_context(|| format!("starting {} in namespace {}", program.display(), self.label))
    }

    /// Binds a listening TCP socket inside the namespace.
    ///
    /// # Errors
    /// When the address cannot be bound there.
    pub fn listen_tcp(&self, address: SocketAddr) -> Result<TcpListener> {
        self.enter(|| TcpListener::bind(address))?
            .with_context(|| format!("listening on {address} in namespace {}", self.label))
    }

    /// Binds a UDP socket inside the namespace.
    ///
    /// # Errors
    /// When the address cannot be bound there.
    pub fn bind_udp(&self, address: SocketAddr) -> Result<UdpSocket> {
        self.enter(|| UdpSocket::bind(address))?
            .with_context(|| format!("binding UDP {address} in namespace {}", self.label))
    }

    /// Wires this namespace to `other`: one interface in each, with the given addresses and their
    /// prefix lengths. The interfaces are called `link` here and `uplink` there.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn wire(&self, link: &str, here: &[Prefix], other: &Netns, there: &[Prefix]) -> Result<()> {
        self.ip(&format!(
            "link add {link} type veth peer name uplink netns {}\n",
            other.path().display()
        ))?;
        self.ip(&addresses(link, here))?;
        other.ip(&addresses("uplink", there))
    }

    /// Takes the interface `link` down (`up = false`) or up again: cuts what lies behind it off.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn set_link(&self, link: &str, up: bool) -> Result<()> {
        self.ip(&format!("link set {link} {}\n", if up { "up" } else { "down" }))
    }

    /// Runs a batch of `ip` commands inside the namespace, one on each line.
    ///
    /// # Errors
    /// When `ip` is missing or refuses one of them.
    pub fn ip(&self, batch: &str) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["-batch", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = self.spawn(&mut command)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(batch.as_bytes()).context("writing to ip")?;
        }
        let output = child.wait_with_output().context("waiting for ip")?;
        if !output.status.success() {
            bail!(
                "ip failed in namespace {}: {}\n{batch}",
                self.label,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }

    /// A file that is the namespace, for as long as this process holds it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }

    /// A tokio runtime whose tasks (not the future handed to `block_on`) run inside the namespace.
    ///
    /// # Errors
    /// When its threads cannot be started.
    pub fn runtime(&self) -> Result<NsRuntime> {
        let netns = self.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .on_thread_start(move || {
                if let Err(error) = netns.enter_this_thread() {
                    crate::cleanup::complain(&format!("{error:#}"));
                    // A thread in the wrong namespace would talk to the host's own interfaces.
                    std::process::abort();
                }
            })
            .build()
            .with_context(|| format!("starting a runtime in namespace {}", self.label))?;
        Ok(NsRuntime { runtime: Some(runtime) })
    }
}

/// An address with its prefix length.
#[derive(Clone, Copy, Debug)]
pub struct Prefix(pub IpAddr, pub u8);

fn addresses(link: &str, prefixes: &[Prefix]) -> String {
    let mut batch = String::new();
    for Prefix(address, length) in prefixes {
        // Without nodad a v6 address cannot be used for its first second.
        let nodad = if address.is_ipv6() { " nodad" } else { "" };
        batch.push_str(&format!("address add {address}/{length} dev {link}{nodad}\n"));
    }
    batch.push_str(&format!("link set {link} up\n"));
    batch
}

/// A runtime inside a namespace. Dropping it stops its tasks without waiting for them.
#[derive(Debug)]
pub struct NsRuntime {
    runtime: Option<tokio::runtime::Runtime>,
}

impl NsRuntime {
    /// Starts a task inside the namespace.
    ///
    /// # Errors
    /// When the runtime is already shut down.
    pub fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Result<tokio::task::JoinHandle<T>> {
        let runtime = self.runtime.as_ref().context("the runtime is shut down")?;
        Ok(runtime.spawn(task))
    }

    /// Runs a task inside the namespace and waits for it.
    ///
    /// # Errors
    /// When the task panics.
    pub fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        let runtime = self.runtime.as_ref().context("the runtime is shut down")?;
        runtime.block_on(runtime.spawn(task)).context("a task inside a namespace failed")
    }
}

impl Drop for NsRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
