//! A container of runc below a workload's cgroup, in a network namespace of its own. It sees this
//! machine's libraries and the probe, and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cgroup;
use crate::cleanup::{self, Undo};
use crate::netns::Netns;
use crate::programs;
use crate::workdir::Workdir;
use crate::workload::{Holding, Running};

/// Where the container finds the probe.
const PROBE: &str = "/probe";
/// What the probe needs of this machine.
const LIBRARIES: [&str; 3] = ["/lib", "/lib64", "/usr/lib"];

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Starts containers that all lie in one cgroup.
#[derive(Debug)]
pub struct Engine {
    directory: PathBuf,
    /// From the root of the hierarchies.
    cgroup: PathBuf,
    netns: Netns,
    _undo: Undo,
}

impl Engine {
    /// Containers in a cgroup below this workload's; `None` where this machine has no runc.
    ///
    /// # Errors
    /// When their root filesystem cannot be made.
    pub fn new(workdir: &Workdir, workload: &Path, netns: &Netns) -> Result<Option<Self>> {
        if !Command::new("runc").arg("--version").output().is_ok_and(|o| o.status.success()) {
            return Ok(None);
        }
        let directory = workdir.subdir("containers", 0o700)?;
        for inner in ["proc", "dev", "tmp", "lib", "lib64", "usr/lib"] {
            fs::create_dir_all(directory.join("bundle/root").join(inner))?;
        }
        fs::write(directory.join("bundle/root/probe"), "").context("a place for the probe")?;
        let cgroup = Path::new("/").join(workload.strip_prefix(cgroup::mount_point()?)?);
        let doomed = cgroup.clone();
        // runc makes the same path in the hierarchies of cgroup v1, where there are some.
        let undo = cleanup::register("cgroups of containers".to_owned(), move || {
            remove_from_v1(&doomed);
            Ok(())
        });
        Ok(Some(Self { directory, cgroup, netns: netns.clone(), _undo: undo }))
    }

    /// Runs one probe in a container to its end.
    ///
    /// # Errors
    /// When it cannot be run, or reports nothing.
    pub fn one<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let output = self.command(arguments)?.output().context("running runc")?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "runc: {}: {error}", output.status);
        serde_json::from_slice(&output.stdout).with_context(|| format!("of {arguments:?}: {error}"))
    }

    /// Holds a connection from a container.
    ///
    /// # Errors
    /// When it does not stand.
    pub fn hold(&self, arguments: &[&str]) -> Result<Holding> {
        let mut command = self.command(arguments)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Holding::of(Running::of(command.spawn().context("running runc")?)?)
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let id = format!("box-{}", NUMBER.fetch_add(1, Ordering::SeqCst));
        let bundle = self.directory.join("bundle");
        let config = self.config(&id, arguments)?;
        fs::write(bundle.join("config.json"), config.to_string()).context("writing config.json")?;
        let mut command = Command::new("runc");
        command.arg("--root").arg(self.directory.join("state")).arg("run").arg("--bundle");
        command.arg(bundle).arg(id).stdin(Stdio::null());
        Ok(command)
    }

    fn config(&self, id: &str, arguments: &[&str]) -> Result<Value> {
        let mut all = vec![PROBE];
        all.extend(arguments);
        let bind = |from: &Path, to: &str| json!({"destination": to, "type": "bind", "source": from, "options": ["rbind", "ro"]});
        let mut mounts = vec![
            json!({"destination": "/proc", "type": "proc", "source": "proc"}),
            bind(&programs::find("probe")?, PROBE),
        ];
        let libraries = LIBRARIES.iter().filter(|path| Path::new(path).is_dir());
        mounts.extend(libraries.map(|path| bind(Path::new(path), path)));
        Ok(json!({
            "ociVersion": "1.0.0",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": all,
                "env": ["PATH=/"],
                "cwd": "/",
                "noNewPrivileges": true,
                "capabilities": {"bounding": [], "effective": [], "permitted": [], "ambient": []},
            },
            "root": {"path": "root", "readonly": true},
            "mounts": mounts,
            "linux": {
                "cgroupsPath": self.cgroup.join(id),
                "namespaces": [
                    {"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"},
                    {"type": "network", "path": self.netns.path()},
                ],
            },
        }))
    }
}

fn remove_from_v1(cgroup: &Path) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let v1 = table.lines().filter(|line| line.contains(" - cgroup "));
    for mount in v1.filter_map(|line| line.split(' ').nth(4)) {
        let Ok(below) = cgroup.strip_prefix("/") else { continue };
        let own = Path::new(mount).join(below);
        for left in fs::read_dir(&own).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(left.path());
        }
        for path in own.ancestors().take(below.components().count()) {
            let _ = fs::remove_dir(path);
        }
    }
}
