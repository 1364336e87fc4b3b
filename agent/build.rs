//! Puts the kernel objects where the crate embeds them: `OUT_DIR/enforce.o` and its siblings.
//!
//! The objects are built by `cargo xtask build-ebpf`. Without one an empty file stands in, so that check,
//! clippy and unit tests need no BPF toolchain; the daemon refuses to load an empty enforce object, and
//! goes without the others.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Names another enforce object than the one that `cargo xtask build-ebpf` leaves in the workspace.
const OBJECT_VARIABLE: &str = "GRANTD_BPF_OBJECT";
/// The object that enforces.
const ENFORCE: &str = "enforce";
/// Those that are optional.
const OTHERS: [&str; 2] = ["guard", "watch"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OBJECT_VARIABLE}");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let package = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let workspace = package.parent().ok_or("the agent package is not inside the workspace")?;
    let built = workspace.join("target/bpf");

    let enforce = match env::var_os(OBJECT_VARIABLE).filter(|named| !named.is_empty()) {
        Some(named) => {
            let object = workspace.join(named);
            println!("cargo::rerun-if-changed={}", object.display());
            Some(fs::read(&object).map_err(|e| {
                format!("{OBJECT_VARIABLE} names {}, which cannot be read: {e}", object.display())
            })?)
        }
        None => built_object(&built, ENFORCE)?,
    };
    fs::write(out.join(format!("{ENFORCE}.o")), enforce.unwrap_or_default())?;
    for name in OTHERS {
        let object = built_object(&built, name)?;
        fs::write(out.join(format!("{name}.o")), object.unwrap_or_default())?;
    }
    Ok(())
}

/// An object of the last `cargo xtask build-ebpf`, if there was one.
fn built_object(directory: &Path, name: &str) -> Result<Option<Vec<u8>>, Box<dyn Error>> {
    // Cargo takes a watched path that does not exist as changed, at every build: so the directory is made
    // and watched, not the file. Where it cannot be made (a read-only checkout) there is nothing to watch.
    if fs::create_dir_all(directory).is_ok() {
        println!("cargo::rerun-if-changed={}", directory.display());
    }
    let object = directory.join(format!("{name}.o"));
    match fs::read(&object) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(format!("cannot read the kernel object {}: {e}", object.display()).into()),
    }
}
