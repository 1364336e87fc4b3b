//! Kernel modules, each after those that it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;

/// What the tests rely on, as far as a kernel has it as a module: it may have it built in, or not at all.
const WANTED: [&str; 46] = [
    // Listing and destroying sockets.
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "raw_diag",
    "unix_diag",
    // Networks of namespaces.
    "veth",
    "dummy",
    "bridge",
    "macvlan",
    "tun",
    // Translated addresses.
    "nf_tables",
    "nf_conntrack",
    "nf_nat",
    "nft_chain_nat",
    "nft_nat",
    "nft_redir",
    "nft_masq",
    "nft_ct",
    "nft_reject",
    "nft_reject_inet",
    "nft_compat",
    "ip_tables",
    "ip6_tables",
    "iptable_nat",
    "iptable_filter",
    "xt_nat",
    "xt_REDIRECT",
    "xt_MASQUERADE",
    "xt_tcpudp",
    "xt_conntrack",
    "xt_addrtype",
    // Families of sockets that nobody confined may use.
    "vsock",
    "vsock_loopback",
    "sctp",
    "l2tp_ip",
    "tipc",
    "smc",
    "kcm",
    "rds",
    "af_alg",
    "algif_hash",
    "xsk_diag",
    "af_packet_diag",
    "dccp",
    // Layers of file systems, for containers.
    "overlay",
    "loop",
];

/// A module as it is loaded.
pub(super) struct Module {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// The wanted modules below a kernel's directory and what they need, in the order in which they load.
pub(super) fn wanted(directory: &Path) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    find(directory, &mut files)?;
    let mut order = Order { files, done: BTreeSet::new(), modules: Vec::new() };
    for name in WANTED {
        order.add(name, 0)?;
    }
    Ok(order.modules)
}

struct Order {
    files: BTreeMap<String, PathBuf>,
    done: BTreeSet<String>,
    modules: Vec<Module>,
}

impl Order {
    /// Deeper than any chain of modules is long.
    const DEEPEST: u32 = 32;

    fn add(&mut self, name: &str, depth: u32) -> Result<()> {
        // Built in, or unknown to this kernel.
        let Some(path) = self.files.get(name).cloned() else { return Ok(()) };
        if !self.done.insert(name.to_owned()) {
            return Ok(());
        }
        if depth > Self::DEEPEST {
            bail!("kernel modules need each other in a circle: {name}");
        }
        let bytes = unpacked(&path)?;
        for needed in needs(&bytes) {
            self.add(&needed, depth + 1)?;
        }
        self.modules.push(Module { name: name.to_owned(), bytes });
        Ok(())
    }
}

/// Every module below a directory, by its name.
fn find(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let listed =
        fs::read_dir(directory).with_context(|| format!("listing {}", directory.display()))?;
    for entry in listed {
        let entry = entry.with_context(|| format!("listing {}", directory.display()))?;
        if entry.file_type()?.is_dir() {
            find(&entry.path(), files)?;
        } else if let Some(name) = module_name(&entry.file_name().to_string_lossy()) {
            files.insert(name, entry.path());
        }
    }
    Ok(())
}

/// `nft_nat` for `nft_nat.ko.xz`. A dash in a file's name is an underscore in the module's.
fn module_name(file: &str) -> Option<String> {
    let (name, suffix) = file.split_once(".ko")?;
    ["", ".xz"].contains(&suffix).then(|| name.replace('-', "_"))
}

fn unpacked(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|extension| extension == "xz") {
        let mut xz = Command::new("xz");
        xz.args(["--decompress", "--stdout"]).arg(path);
        return command::bytes(&mut xz);
    }
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The names after `depends=` in a module's information section.
fn needs(module: &[u8]) -> Vec<String> {
    const MARK: &[u8] = b"\0depends=";
    let Some(at) = module.windows(MARK.len()).position(|window| window == MARK) else {
        return Vec::new();
    };
    let rest = module.get(at + MARK.len()..).unwrap_or_default();
    let list = rest.split(|byte| *byte == 0).next().unwrap_or_default();
    let list = String::from_utf8_lossy(list).replace('-', "_");
    list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_needs() {
        let module = b"\x7fELF\0license=GPL\0depends=nf_tables,nf-nat\0name=x\0";
        assert_eq!(needs(module), ["nf_tables", "nf_nat"]);
        assert!(needs(b"\0depends=\0").is_empty());
        assert_eq!(module_name("nft_nat.ko.xz").as_deref(), Some("nft_nat"));
        assert_eq!(module_name("modules.order"), None);
    }
}
