//! One whole deployment, assembled: a host with grantd and two confined workloads, two server
//! machines, an issuer, and a control plane on a network of its own.
//!
//! ```text
//!  srv-a 10.77.1.2 ──┐
//!  srv-b 10.77.2.2 ──┤ host: grantd, issuer on its loopback, agents.slice/{coding,research}-agent
//!  control 10.77.9.2 ┘       10.77.{1,2,9}.1, listens on 10.77.9.1:7443
//! ```
//! Each machine is a network namespace; v6 addresses are `fd00:77:{1,2}::{1,2}`.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::audit::Spool;
use crate::bpffs::Bpffs;
use crate::ca::{Ca, Identity, Purpose};
use crate::cgroup::{self, CgroupTree};
use crate::config::{CeilingEntry, ConfigFile, WorkloadEntry};
use crate::control_plane::{ControlPlane, Pusher};
use crate::daemon::Daemon;
use crate::grants::Letterhead;
use crate::issuer::{Issuer, Shape};
use crate::jose::SigningKey;
use crate::kernel_view::KernelView;
use crate::netns::{Netns, Prefix};
use crate::okta::{AccessToken, Agent};
use crate::workdir::Workdir;
use crate::workload::Workload;

/// `iss` of the control plane.
pub const CONTROL_PLANE: &str = "https://control.example.org";
/// URI SAN of the control plane's certificate.
pub const PEER: &str = "spiffe://example.org/control-plane";
/// This host's identity.
pub const HOST_ID: &str = "spiffe://example.org/host/build-7";
/// A server machine inside the ceiling, all ports.
pub const A: &str = "10.77.1.2";
/// The same, by IPv6.
pub const A6: &str = "fd00:77:1::2";
/// A server machine of which the ceiling covers TCP port 5432 only.
pub const B: &str = "10.77.2.2";
/// Where grantd listens for the control plane.
pub const LISTEN: ([u8; 4], u16) = ([10, 77, 9, 1], 7443);
/// Scopes of every agent's token: what the host demands, and what the ceiling asks for.
pub const SCOPES: [&str; 2] = ["host.connect", "net.test"];
/// Okta client of the coding agent, which acts for a person.
pub const CODING_CLIENT: &str = "0oa4coding";
/// Okta client of the research agent, which acts for nobody.
pub const RESEARCH_CLIENT: &str = "0oa4research";
/// The person's uid at the issuer.
pub const PERSON: &str = "00u1mira";

/// A deployment. Dropping it takes everything down; on a failed test it first prints the daemon's log
/// and the end of the audit spool.
pub struct World {
    /// grantd.
    pub daemon: Daemon,
    /// The workload that most tests use.
    pub coding: Workload,
    /// The other workload.
    pub research: Workload,
    /// The coding agent at the issuer.
    pub coding_agent: Agent,
    /// The research agent at the issuer.
    pub research_agent: Agent,
    /// The control plane.
    pub control_plane: ControlPlane,
    /// The certificate authority of both sides.
    pub ca: Ca,
    /// What the control plane shows the host.
    pub control_plane_identity: Identity,
    /// The issuer.
    pub issuer: Issuer,
    /// The namespace of grantd and the workloads.
    pub host: Netns,
    /// The namespace of the server machine [`A`].
    pub srv_a: Netns,
    /// The namespace of the server machine [`B`].
    pub srv_b: Netns,
    /// The namespace of the control plane.
    pub control: Netns,
    /// The audit spool.
    pub spool: Spool,
    /// The kernel maps.
    pub kernel: KernelView,
    /// The run's BPF filesystem.
    pub bpffs: Bpffs,
    /// The run's control groups.
    pub cgroups: CgroupTree,
    /// The run's directory.
    pub workdir: Workdir,
}

impl World {
    /// Assembles one and starts the daemon.
    ///
    /// # Errors
    /// When anything of it does not come up.
    pub fn start() -> Result<Self> {
        let mut world = Self::assemble(Shape::okta())?;
        world.daemon.start()?;
        Ok(world)
    }

    /// Assembles one with an issuer of this shape; the daemon is not started yet.
    ///
    /// # Errors
    /// When anything of it cannot be made.
    pub fn assemble(shape: Shape) -> Result<Self> {
        let workdir = Workdir::new()?;
        let cgroups = CgroupTree::new(workdir.name())?;
        let bpffs = Bpffs::new(&workdir)?;
        let [host, srv_a, srv_b, control] = network()?;

        let issuer = Issuer::start(&host, shape)?;
        let coding_agent = Agent::register(
            &issuer,
            &host,
            CODING_CLIENT,
            &SCOPES,
            &[
                ("uid", json!(PERSON)),
                ("sub", json!("mira@example.org")),
                ("groups", json!(["sre-agents", "developers"])),
            ],
        )?;
        let research_agent = Agent::register(&issuer, &host, RESEARCH_CLIENT, &SCOPES, &[])?;

        let ca = Ca::new("grantd test CA")?;
        let listen = SocketAddr::from(LISTEN);
        let signer = Arc::new(SigningKey::ed25519("cp-1")?);
        let credentials = workdir.subdir("etc", 0o755)?;
        write_credentials(&workdir, &ca, listen.ip(), &signer)?;
        let control_plane_identity = ca.issue(2, &[PEER], Purpose::Client)?;
        let pusher = Pusher::new(listen, &ca.certificate(), Some(&control_plane_identity))?;
        let letterhead = Letterhead {
            issuer: CONTROL_PLANE.to_owned(),
            host_id: HOST_ID.to_owned(),
            key: signer,
        };
        let control_plane = ControlPlane::new(&control, letterhead, pusher)?;

        let config = config_file(&workdir, &cgroups, &bpffs, &issuer, &credentials)?;
        let spool = Spool::of(&config.state);
        let workload = |name: &str, uid| -> Result<Workload> {
            Ok(Workload::new(name, &host, &cgroups.workload(name)?, uid))
        };
        Ok(Self {
            coding: workload("coding-agent", 61_001)?,
            research: workload("research-agent", 61_002)?,
            daemon: Daemon::new(&credentials, config, &host, &cgroups.outside())?,
            kernel: KernelView::of(bpffs.path()),
            coding_agent,
            research_agent,
            control_plane,
            ca,
            control_plane_identity,
            issuer,
            host,
            srv_a,
            srv_b,
            control,
            spool,
            bpffs,
            cgroups,
            workdir,
        })
    }

    /// A token of the coding agent with all its scopes.
    ///
    /// # Errors
    /// When the issuer does not give one.
    pub fn token(&self) -> Result<AccessToken> {
        self.coding_agent.log_in(&SCOPES)
    }

    /// A grant for the coding workload with a fresh token, to be given destinations.
    ///
    /// # Errors
    /// When the issuer gives no token.
    pub fn draft(&self) -> Result<crate::grants::Draft> {
        self.control_plane.draft(&self.coding.name, &self.token()?)
    }

    /// A grant for the research workload with a fresh token of its own agent.
    ///
    /// # Errors
    /// When the issuer gives no token.
    pub fn research_draft(&self) -> Result<crate::grants::Draft> {
        self.control_plane.draft(&self.research.name, &self.research_agent.log_in(&SCOPES)?)
    }

    /// Cuts the control plane's network off, or puts it back.
    ///
    /// # Errors
    /// When the link cannot be changed.
    pub fn control_plane_link(&self, up: bool) -> Result<()> {
        self.host.set_link("control", up)
    }

    /// Everything that helps to understand a failure.
    #[must_use]
    pub fn report(&self) -> String {
        format!(
            "--- end of the daemon's log\n{}\n--- end of the audit spool\n{}",
            self.daemon.log_tail(),
            self.spool.tail(20)
        )
    }
}

impl Drop for World {
    #[expect(clippy::print_stderr, reason = "the test framework shows it with the failed test")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.report());
        }
    }
}

/// Runs a test in a deployment of its own with the daemon running.
///
/// # Panics
/// When the test fails, with what helps to understand it.
pub fn scenario(test: impl FnOnce(&mut World) -> Result<()>) {
    scenario_in(World::start(), test);
}

/// The same where the guard is off: for what would never come to be tried where it is in effect.
///
/// # Panics
/// When the test fails, with what helps to understand it.
pub fn unguarded_scenario(test: impl FnOnce(&mut World) -> Result<()>) {
    let world = World::assemble(Shape::okta()).and_then(|mut world| {
        world.daemon.reconfigure(|config| config.guard = "off")?;
        world.daemon.start()?;
        Ok(world)
    });
    scenario_in(world, test);
}

/// Runs a test in a deployment that was prepared for it.
///
/// # Panics
/// When the deployment did not come up or the test fails.
pub fn scenario_in(world: Result<World>, test: impl FnOnce(&mut World) -> Result<()>) {
    let mut world = match world {
        Ok(world) => world,
        Err(error) => panic!("the deployment did not come up: {error:?}"),
    };
    if let Err(error) = test(&mut world) {
        panic!("{error:?}");
    }
}

/// An address with a port.
///
/// # Errors
/// When `host` is no address.
pub fn at(host: &str, port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(host.parse().with_context(|| format!("{host} is no address"))?, port))
}

fn network() -> Result<[Netns; 4]> {
    let host = Netns::new("host")?;
    let mut machines = Vec::new();
    for (link, number) in [("srv-a", 1), ("srv-b", 2), ("control", 9)] {
        let machine = Netns::new(link)?;
        let prefix = |last: u8| -> Result<[Prefix; 2]> {
            let v4 = IpAddr::from([10, 77, number, last]);
            let v6: IpAddr = format!("fd00:77:{number}::{last}").parse()?;
            Ok([Prefix(v4, 24), Prefix(v6, 64)])
        };
        host.wire(link, &prefix(1)?, &machine, &prefix(2)?)?;
        machines.push(machine);
    }
    let [srv_a, srv_b, control] =
        machines.try_into().ok().context("three machines beside the host")?;
    Ok([host, srv_a, srv_b, control])
}

fn write_credentials(
    workdir: &Workdir,
    ca: &Ca,
    address: IpAddr,
    signer: &SigningKey,
) -> Result<()> {
    let server = ca.issue(1, &[HOST_ID], Purpose::Server(address))?;
    let jwks = json!({"keys": [pinned(signer)?]});
    workdir.write("etc/host.pem", 0o644, server.certificate.as_bytes())?;
    workdir.write("etc/host.key", 0o600, server.key.as_bytes())?;
    workdir.write("etc/client-ca.pem", 0o644, ca.certificate().as_bytes())?;
    workdir.write("etc/client.crl", 0o644, ca.crl(1, &[])?.as_bytes())?;
    workdir.write("etc/control-plane.jwks", 0o644, jwks.to_string().as_bytes())?;
    Ok(())
}

/// A control plane's key as the host pins it: with its validity.
///
/// # Errors
/// When the public key cannot be read.
pub fn pinned(signer: &SigningKey) -> Result<Value> {
    let mut jwk = signer.jwk()?;
    let now = crate::clock::unix_now();
    crate::jose::set(&mut jwk, "nbf", json!(now - 3600));
    crate::jose::set(&mut jwk, "exp", json!(now + 86_400));
    Ok(jwk)
}

fn config_file(
    workdir: &Workdir,
    cgroups: &CgroupTree,
    bpffs: &Bpffs,
    issuer: &Issuer,
    credentials: &Path,
) -> Result<ConfigFile> {
    // Cgroups are named from the cgroup2 mount.
    let slice = format!("{}/{}", workdir.name(), cgroup::SLICE);
    let workload = |name: &str, client: &str| WorkloadEntry {
        name: name.to_owned(),
        cgroup: format!("{slice}/{name}"),
        subjects: vec![format!("{{ cid = {client:?} }}")],
        max_live_grants: 256,
        allow_privileged: true,
        more: Vec::new(),
    };
    let all = "ports = [{ from = 1, to = 65535 }]";
    let mut allow = Vec::new();
    for protocol in ["tcp", "udp"] {
        for cidr in ["10.77.1.0/24", "fd00:77:1::/64"] {
            allow.push(format!("{{ cidr = {cidr:?}, {all}, protocol = {protocol:?} }}"));
        }
    }
    allow.push(format!("{{ host = {B:?}, ports = [5432], protocol = \"tcp\" }}"));
    Ok(ConfigFile {
        host_id: HOST_ID.to_owned(),
        okta_issuer: issuer.url(),
        okta_audience: issuer.audience().to_owned(),
        control_plane_issuer: CONTROL_PLANE.to_owned(),
        listen: SocketAddr::from(LISTEN),
        peers: vec![PEER.to_owned()],
        credentials: credentials.to_owned(),
        cgroup_root: cgroups.root().to_owned(),
        bpffs: bpffs.path().to_owned(),
        guard: "auto",
        unsynchronised: "allow",
        state: workdir.subdir("state", 0o700)?,
        run: workdir.subdir("run", 0o755)?,
        audit: None,
        workloads: vec![
            workload("coding-agent", CODING_CLIENT),
            workload("research-agent", RESEARCH_CLIENT),
        ],
        ceilings: vec![CeilingEntry {
            scopes: vec!["net.test".to_owned()],
            groups: Vec::new(),
            workloads: vec!["coding-agent".to_owned(), "research-agent".to_owned()],
            allow,
            max_ttl: "10m".to_owned(),
            approval: "optional",
        }],
        slice,
    })
}
