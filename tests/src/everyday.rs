//! Servers that ordinary software talks to, on a machine of the deployment: files over HTTPS, git
//! repositories over SSH, PostgreSQL.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::ca::{Ca, Purpose};
use crate::clock::wait_until;
use crate::netns::Netns;
use crate::world::World;

/// How long a server may take to come up.
const UP: Duration = Duration::from_secs(60);
/// A request's head is not longer.
const HEAD: usize = 16 << 10;

/// Where a program of the system is, looked for where packages put it: another user of this machine cannot
/// use what is in somebody's home.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let directories = ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin"];
    directories.map(|directory| Path::new(directory).join(name)).into_iter().find(|p| p.is_file())
}

/// The files below a directory, over HTTPS.
pub struct Https {
    /// Where it listens.
    pub address: SocketAddr,
    /// The authority that vouches for it, as a file.
    pub authority: PathBuf,
}

impl Https {
    /// Starts to serve; for as long as the run lasts.
    ///
    /// # Errors
    /// When it cannot listen, or its certificate cannot be made.
    pub fn start(world: &World, at: SocketAddr, files: &Path) -> Result<Self> {
        let ca = Ca::new("everyday")?;
        let identity = ca.issue(1, &[], Purpose::Server(at.ip()))?;
        let authority = world.workdir.write("everyday.pem", 0o644, ca.certificate().as_bytes())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes())?],
                PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?,
            )?;
        let (tls, files) = (Arc::new(tls), files.to_owned());
        let listener = world.srv_a.listen_tcp(at)?;
        std::thread::spawn(move || serve(&listener, &tls, &files));
        Ok(Self { address: at, authority })
    }
}

fn serve(listener: &TcpListener, tls: &Arc<rustls::ServerConfig>, files: &Path) {
    while let Ok((stream, _)) = listener.accept() {
        let (tls, files) = (Arc::clone(tls), files.to_owned());
        // Whoever hangs up in the middle gets no answer.
        std::thread::spawn(move || answer(stream, tls, &files).ok());
    }
}

/// One request, and the end of the connection.
fn answer(mut stream: TcpStream, tls: Arc<rustls::ServerConfig>, files: &Path) -> Result<()> {
    let mut session = rustls::ServerConnection::new(tls)?;
    let mut stream = rustls::Stream::new(&mut session, &mut stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8(head)?;
    let target = head.split(' ').nth(1).context("a request line")?;
    let path = target.split('?').next().unwrap_or_default().trim_start_matches('/');
    let found = match path.split('/').any(|part| part == "..") {
        true => None,
        false => fs::read(files.join(path)).ok(),
    };
    let (status, body) = match found {
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", Vec::new()),
    };
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n")?;
    stream.write_all(&body)?;
    stream.conn.send_close_notify();
    Ok(stream.flush()?)
}

/// A git repository with one commit, whose file `hello` says so.
///
/// # Errors
/// When git fails.
pub fn repository(world: &World, git: &Path) -> Result<PathBuf> {
    let files = world.workdir.subdir("repositories", 0o755)?;
    let (work, bare) = (files.join("work"), files.join("hello.git"));
    fs::create_dir(&work)?;
    fs::write(work.join("hello"), "hello from the repository\n")?;
    let run = |directory: &Path, words: &[&str]| -> Result<()> {
        let mut command = Command::new(git);
        command.current_dir(directory).args(["-c", "user.name=t", "-c", "user.email=t@t"]);
        command.env("HOME", &files).env("GIT_CONFIG_NOSYSTEM", "1").args(words);
        let output = command.output().with_context(|| format!("git {words:?}"))?;
        ensure!(output.status.success(), "git {words:?}: {output:?}");
        Ok(())
    };
    run(&work, &["init", "--quiet", "--initial-branch=main"])?;
    run(&work, &["add", "hello"])?;
    run(&work, &["commit", "--quiet", "--message=hello"])?;
    let (from, to) = (work.to_string_lossy(), bare.to_string_lossy());
    run(&files, &["clone", "--quiet", "--bare", &from, &to])?;
    // Over HTTPS it is read file by file.
    run(&bare, &["update-server-info"])?;
    Ok(bare)
}

/// A process of a server, ended with the test.
pub struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.0.id().cast_signed()),
            nix::sys::signal::Signal::SIGINT,
        );
        std::thread::sleep(Duration::from_millis(200));
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An SSH server that lets one key in, as root, into one directory of accounts of its own.
pub struct Ssh {
    /// The client's private key, which only `owner` may read.
    pub key: PathBuf,
    _service: Service,
}

impl Ssh {
    /// Starts dropbear on a machine.
    ///
    /// # Errors
    /// When a program is missing or fails.
    pub fn start(world: &World, at: SocketAddr, owner: u32) -> Result<Self> {
        let find = |name: &str| program(name).with_context(|| format!("there is no {name} here"));
        let directory = world.workdir.subdir("ssh", 0o755)?;
        let (host, key) = (directory.join("host"), directory.join("key"));
        let make = |program: &str, words: &[&str]| -> Result<()> {
            let output = Command::new(find(program)?).args(words).output()?;
            ensure!(output.status.success(), "{program}: {output:?}");
            Ok(())
        };
        make("dropbearkey", &["-t", "ed25519", "-f", &host.to_string_lossy()])?;
        make("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &key.to_string_lossy()])?;
        std::os::unix::fs::chown(&key, Some(owner), Some(owner))?;

        // The account that the key opens, in a passwd of the server's own.
        let home = world.workdir.subdir("ssh/home", 0o700)?;
        fs::create_dir(home.join(".ssh"))?;
        fs::copy(directory.join("key.pub"), home.join(".ssh/authorized_keys"))?;
        fs::set_permissions(home.join(".ssh"), fs::Permissions::from_mode(0o700))?;
        let account = format!("root:x:0:0::{}:/bin/sh\n", home.display());
        let passwd = world.workdir.write("ssh/passwd", 0o644, account.as_bytes())?;
        let shadow = world.workdir.write("ssh/shadow", 0o600, b"root:*:19000::::::\n")?;
        let script = "mount --bind \"$1\" /etc/passwd && mount --bind \"$2\" /etc/shadow && shift 2 && exec \"$@\"";
        let mut command = Command::new(find("unshare")?);
        command.args(["--mount", "sh", "-c", script, "sh"]).args([&passwd, &shadow]);
        command.arg(find("dropbear")?).args(["-F", "-E", "-s", "-r"]).arg(&host);
        command.args(["-p", &at.to_string(), "-P"]).arg(directory.join("pid"));
        let service = start(&world.srv_a, &mut command, &directory.join("log"))?;
        up(&world.srv_a, at)?;
        Ok(Self { key, _service: service })
    }
}

/// A PostgreSQL server with the user `agent` and no password.
pub struct Postgres {
    _service: Service,
}

impl Postgres {
    /// Where the server's programs are; packages put them beside each other by version.
    #[must_use]
    pub fn programs() -> Option<PathBuf> {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
        let found = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
        found.filter(|bin| bin.join("initdb").is_file() && bin.join("postgres").is_file()).max()
    }

    /// Makes a cluster and starts it.
    ///
    /// # Errors
    /// When that fails.
    pub fn start(world: &World, at: SocketAddr, programs: &Path) -> Result<Self> {
        // It refuses to run as root; `daemon` is on every system.
        const USER: u32 = 1;
        let directory = world.workdir.subdir("postgres", 0o755)?;
        let data = directory.join("data");
        for made in [&directory, &data] {
            fs::create_dir_all(made)?;
            std::os::unix::fs::chown(made, Some(USER), Some(USER))?;
        }
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700))?;
        let mut initdb = Command::new(programs.join("initdb"));
        initdb.args(["--auth=trust", "--username=agent", "--no-sync", "--locale=C", "-D"]);
        let output = initdb.arg(&data).uid(USER).gid(USER).current_dir(&directory).output()?;
        ensure!(output.status.success(), "initdb: {output:?}");
        fs::write(data.join("pg_hba.conf"), "host all all 0.0.0.0/0 trust\n")?;
        let mut command = Command::new(programs.join("postgres"));
        command.arg("-D").arg(&data).args(["-h", &at.ip().to_string()]);
        command.args(["-p", &at.port().to_string(), "-k", "", "-c", "fsync=off"]);
        command.uid(USER).gid(USER).current_dir(&directory);
        let service = start(&world.srv_a, &mut command, &directory.join("log"))?;
        up(&world.srv_a, at)?;
        Ok(Self { _service: service })
    }
}

fn start(machine: &Netns, command: &mut Command, log: &Path) -> Result<Service> {
    let log = fs::File::create(log)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(Service(machine.spawn(command)?))
}

/// Waits until somebody listens there.
fn up(machine: &Netns, at: SocketAddr) -> Result<()> {
    wait_until(&format!("a server at {at}"), UP, || {
        let tried = machine.enter(|| TcpStream::connect_timeout(&at, Duration::from_secs(1)))?;
        Ok(tried.ok().map(drop))
    })
}
