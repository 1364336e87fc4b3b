//! The daemon's config file, as an operator would write it.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Everything that the file says. Defaults are those of the deployment that [`crate::world`] makes.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    /// `host_id`.
    pub host_id: String,
    /// `[okta] issuer`.
    pub okta_issuer: String,
    /// `[okta] audience`.
    pub okta_audience: String,
    /// `[control_plane] issuer`.
    pub control_plane_issuer: String,
    /// `[control_plane] listen`.
    pub listen: SocketAddr,
    /// `[control_plane] peers`.
    pub peers: Vec<String>,
    /// Directory with `control-plane.jwks`, `host.pem`, `host.key`, `client-ca.pem` and `client.crl`.
    pub credentials: PathBuf,
    /// `[enforcement] slice`, from the cgroup2 mount.
    pub slice: String,
    /// `[enforcement] cgroup_root`.
    pub cgroup_root: PathBuf,
    /// `[enforcement] bpffs`.
    pub bpffs: PathBuf,
    /// `[guard] mode`.
    pub guard: &'static str,
    /// `[time] unsynchronised`.
    pub unsynchronised: &'static str,
    /// `[paths] state`.
    pub state: PathBuf,
    /// `[paths] run`.
    pub run: PathBuf,
    /// `[audit] dir`; left out where it is `None`.
    pub audit: Option<PathBuf>,
    /// `[[workload]]`.
    pub workloads: Vec<WorkloadEntry>,
    /// `[[ceiling]]`.
    pub ceilings: Vec<CeilingEntry>,
}

/// One `[[workload]]`.
#[derive(Clone, Debug)]
pub struct WorkloadEntry {
    /// `name`.
    pub name: String,
    /// `cgroup`, from the cgroup2 mount.
    pub cgroup: String,
    /// `subjects`, each as a TOML table such as `{ cid = "0oa4client" }`.
    pub subjects: Vec<String>,
    /// `max_live_grants`.
    pub max_live_grants: u32,
    /// `allow_privileged`: many tests try what root cannot do.
    pub allow_privileged: bool,
    /// Further lines of the section, as they stand in the file.
    pub more: Vec<String>,
}

/// One `[[ceiling]]`.
#[derive(Clone, Debug)]
pub struct CeilingEntry {
    /// `scopes`; left out when empty.
    pub scopes: Vec<String>,
    /// `groups`; left out when empty.
    pub groups: Vec<String>,
    /// `workloads`.
    pub workloads: Vec<String>,
    /// `allow`, each as a TOML table such as `{ cidr = "10.77.1.0/24", ports = [22], protocol = "tcp" }`.
    pub allow: Vec<String>,
    /// `max_ttl`.
    pub max_ttl: String,
    /// `approval`.
    pub approval: &'static str,
}

impl ConfigFile {
    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let credential = |name: &str| quoted(&self.credentials.join(name));
        writeln!(text, "host_id = {:?}\n", self.host_id)?;
        writeln!(text, "[okta]\nissuer = {:?}", self.okta_issuer)?;
        writeln!(text, "audience = {:?}\ndevelopment_http = true\n", self.okta_audience)?;
        writeln!(text, "[control_plane]\nissuer = {:?}", self.control_plane_issuer)?;
        writeln!(text, "keys = {}", credential("control-plane.jwks"))?;
        writeln!(text, "listen = \"{}\"\npeers = {:?}", self.listen, self.peers)?;
        writeln!(
            text,
            "tls = {{ certificate = {}, key = {}, client_ca = {}, crl = {} }}\n",
            credential("host.pem"),
            credential("host.key"),
            credential("client-ca.pem"),
            credential("client.crl"),
        )?;
        writeln!(text, "[enforcement]\nslice = {:?}", self.slice)?;
        writeln!(text, "cgroup_root = {}", quoted(&self.cgroup_root))?;
        writeln!(text, "bpffs = {}\n", quoted(&self.bpffs))?;
        writeln!(text, "[guard]\nmode = {:?}\n", self.guard)?;
        writeln!(text, "[time]\nunsynchronised = {:?}\n", self.unsynchronised)?;
        writeln!(text, "[paths]\nstate = {}\nrun = {}", quoted(&self.state), quoted(&self.run))?;
        if let Some(audit) = &self.audit {
            writeln!(text, "\n[audit]\ndir = {}", quoted(audit))?;
        }
        self.workloads.iter().try_for_each(|workload| workload.write(text))?;
        self.ceilings.iter().try_for_each(|ceiling| ceiling.write(text))
    }
}

impl WorkloadEntry {
    fn write(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "\n[[workload]]\nname = {:?}\ncgroup = {:?}", self.name, self.cgroup)?;
        writeln!(text, "subjects = [{}]", self.subjects.join(", "))?;
        writeln!(text, "max_live_grants = {}", self.max_live_grants)?;
        // Tests push as fast as they can.
        writeln!(text, "grant_rate = {{ grants = 1000000, per = \"1m\" }}")?;
        writeln!(text, "allow_privileged = {}", self.allow_privileged)?;
        self.more.iter().try_for_each(|line| writeln!(text, "{line}"))
    }
}

impl CeilingEntry {
    fn write(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "\n[[ceiling]]")?;
        if !self.scopes.is_empty() {
            writeln!(text, "scopes = {:?}", self.scopes)?;
        }
        if !self.groups.is_empty() {
            writeln!(text, "groups = {:?}", self.groups)?;
        }
        writeln!(text, "workloads = {:?}", self.workloads)?;
        writeln!(text, "allow = [{}]", self.allow.join(", "))?;
        writeln!(text, "max_ttl = {:?}\napproval = {:?}", self.max_ttl, self.approval)
    }
}

fn quoted(path: &Path) -> String {
    format!("{:?}", path.to_string_lossy())
}
