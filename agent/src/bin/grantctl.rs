//! `grantctl`: the operator's command line. Parses and exits; what it does is in [`grantd::ctl::cli`].

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use grantd::{
    ctl::cli::{self, BoxError, Host},
    kernel,
};

/// The kernel side, for commands that work without the daemon.
struct ThisHost;

impl Host for ThisHost {
    fn pins_not_enforcing(&self, _bpffs: &Path) -> Result<Vec<String>, BoxError> {
        Err("this version cannot tell from the pins alone".into())
    }

    fn disarm(&self, bpffs: &Path) -> Result<Vec<PathBuf>, BoxError> {
        Ok(kernel::disarm(bpffs)?)
    }
}

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    ExitCode::from(cli::main(&argv, &ThisHost))
}
