//! `grantd`: the daemon. Parses, prepares the process and exits; what it does is in [`grantd::runtime`].

use std::{
    io::{IsTerminal, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use grantd::ctl::{cli::chain, exit::Exit};
use nix::sys::{
    prctl,
    resource::{Resource, setrlimit},
};
use tracing_subscriber::EnvFilter;

/// Filter of the operator log, as `tracing_subscriber::EnvFilter` reads it.
const LOG_VARIABLE: &str = "GRANTD_LOG";
const DEFAULT_LOG: &str = "info";

/// Host enforcement for AI agents: opens what a signed grant says, and nothing else.
#[derive(Debug, Parser)]
#[command(name = "grantd", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the daemon in the foreground
    #[command(
        after_help = "Examples:\n  grantd run --check --config ./config.toml\n  GRANTD_LOG=debug grantd run\n\n\
        Exit codes: 0 stopped as asked or no faults, 64 usage, 65 bad config, 69 the kernel lacks\n\
        something, 70 defect, 71 the system refused, 74 I/O, 77 permission (docs/commands.md)."
    )]
    Run {
        /// Config file
        #[arg(long, value_name = "FILE", default_value = "/etc/grantd/config.toml")]
        config: PathBuf,
        /// Validates config and kernel, prints what it found, and exits
        #[arg(long)]
        check: bool,
    },
    /// Tries a denied and a granted connection, for the daemon that starts it
    #[command(hide = true)]
    CanaryProbe {
        /// The cgroup to try them from
        cgroup: PathBuf,
        /// What nothing grants
        denied: SocketAddr,
        /// What is granted
        granted: SocketAddr,
    },
    /// Tries what the guard refuses, for the daemon that starts it
    #[command(hide = true)]
    GuardProbe {
        /// Only stands still, to be looked into
        #[arg(long, exclusive = true)]
        wait: bool,
        /// The cgroup to try it from; - for none
        #[arg(required_unless_present = "wait")]
        cgroup: Option<PathBuf>,
        /// A process to look into
        #[arg(default_value_t = 0)]
        target: u32,
        /// The name of abstract sockets
        #[arg(default_value = "")]
        name: String,
    },
}

fn main() -> ExitCode {
    // First of all: nothing that this process will hold may end in a core file.
    if let Err(error) = forbid_core_dumps() {
        return fail(&error, Exit::Os);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            // With nowhere to write to, the exit code is all there is.
            drop(error.print());
            return exit.into();
        }
    };
    match cli.command {
        Command::Run { config, check: true } => daemon::check(&config),
        Command::Run { config, check: false } => {
            log_to_stderr();
            daemon::run(config)
        }
        Command::CanaryProbe { cgroup, denied, granted } => {
            ended(grantd::canary::run_probe(&cgroup, denied, granted))
        }
        Command::GuardProbe { wait: true, .. } => ended(wait()),
        Command::GuardProbe { cgroup, target, name, .. } => {
            let cgroup = cgroup.filter(|path| path.as_os_str() != "-");
            ended(grantd::kernel::run_probe(cgroup.as_deref(), target, &name))
        }
    }
}

/// A process that is not dumpable would be refused to everybody.
fn wait() -> std::io::Result<()> {
    prctl::set_dumpable(true)?;
    grantd::kernel::wait_to_be_probed()
}

fn ended(result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => Exit::Ok.into(),
        Err(error) => fail(&error, Exit::Os),
    }
}

/// Neither a core file nor `/proc/<pid>/mem` for others of the same user.
fn forbid_core_dumps() -> nix::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    prctl::set_dumpable(false)
}

/// The journal adds times itself and shows no colours.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| DEFAULT_LOG.into());
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let plain = journal
        || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || !std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(!plain)
        .with_target(false);
    if journal { log.without_time().init() } else { log.init() }
}

/// Prints the error with its causes, once.
fn fail(error: &dyn std::error::Error, exit: Exit) -> ExitCode {
    drop(writeln!(std::io::stderr(), "grantd: {}", chain(error).join(": ")));
    exit.into()
}

/// The two ways in. Kept apart from the process set-up above.
mod daemon {
    use std::io::Write as _;
    use std::path::{Path, PathBuf};
    use std::process::ExitCode;

    use grantd::{kernel, runtime};

    use super::{Exit, fail};

    /// Network input, audit and control: little work, so few threads. The enforcer has its own.
    const WORKERS: usize = 2;

    pub(super) fn run(config: PathBuf) -> ExitCode {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .enable_all()
            .build();
        let result = match runtime {
            Ok(runtime) => runtime.block_on(runtime::run(config)),
            Err(error) => return fail(&error, Exit::Os),
        };
        match result {
            Ok(()) => Exit::Ok.into(),
            Err(error) => fail(&error, exit_of(&error)),
        }
    }

    pub(super) fn check(config: &Path) -> ExitCode {
        match runtime::check(config) {
            Ok(report) => {
                let mut out = std::io::stdout().lock();
                for line in report.lines {
                    if writeln!(out, "{line}").is_err() {
                        return Exit::Io.into();
                    }
                }
                Exit::Ok.into()
            }
            Err(error) => fail(&error, exit_of(&error)),
        }
    }

    fn exit_of(error: &runtime::Error) -> Exit {
        use grantd::enforcer::StartError;
        match error {
            runtime::Error::Config(_) | runtime::Error::Keys(_) | runtime::Error::Tls(_) => {
                Exit::Data
            }
            runtime::Error::Kernel(error) | runtime::Error::Enforce(StartError::Kernel(error)) => {
                of_kernel(error)
            }
            runtime::Error::Enforce(_)
            | runtime::Error::Audit(_)
            | runtime::Error::Spool(_)
            | runtime::Error::Directory { .. } => Exit::Io,
            runtime::Error::Control(_)
            | runtime::Error::Listen { .. }
            | runtime::Error::Okta(_)
            | runtime::Error::System { .. } => Exit::Os,
            runtime::Error::Guard { .. } => Exit::Unavailable,
            runtime::Error::Ended { .. } => Exit::Internal,
        }
    }

    fn of_kernel(error: &kernel::Error) -> Exit {
        if matches!(error, kernel::Error::NotPermitted { .. }) {
            Exit::Permission
        } else {
            Exit::Unavailable
        }
    }
}
