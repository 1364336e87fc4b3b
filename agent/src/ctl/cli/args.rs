//! The command line of `grantctl`.

use std::{ffi::OsString, path::PathBuf};

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

use crate::ctl::RevokeSelector;

/// Sees and operates grantd on this host.
#[derive(Debug, Parser)]
#[command(
    name = "grantctl",
    version,
    about,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 done or yes, 1 no, 64 usage, 65 bad config, 69 daemon unavailable,\n\
                  70 defect, 74 I/O, 77 permission. All of them: docs/commands.md."
)]
pub(super) struct Cli {
    /// Config file, read for where the socket and the state are
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/grantd/config.toml")]
    pub(super) config: PathBuf,
    /// Control socket, when it is not where the config says
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    /// Prints JSON, one document (one line per record for `audit tail`)
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Is it enforcing now: workloads, grants, hooks, losses
    #[command(
        after_help = "Example:\n  grantctl status --require enforcing && echo safe to start agents"
    )]
    Status {
        /// Exits 1 unless this holds; `enforcing` is also answered from the pins when grantd is down
        #[arg(long, value_enum, value_name = "STATE")]
        require: Option<Requirement>,
    },
    /// Lists live grants, read back from the kernel
    #[command(after_help = "Example:\n  grantctl grants --workload coding-agent")]
    Grants {
        /// Only this workload's
        #[arg(long, value_name = "NAME")]
        workload: Option<String>,
    },
    /// One grant
    #[command(subcommand)]
    Grant(GrantCommand),
    /// Ends grants now: packets of live connections stop at once too
    #[command(
        after_help = "Live connections fall silent: their packets stop at once; the sockets are not reset yet.\n\n\
        Examples:\n  grantctl revoke 01JD8Z3V\n  grantctl revoke --workload coding-agent\n  grantctl revoke --all"
    )]
    Revoke(RevokeArgs),
    /// Takes no new grants until thawed; grants in force run on to their deadlines
    #[command(after_help = "Example:\n  grantctl freeze && grantctl revoke --all")]
    Freeze,
    /// Takes grants again
    #[command(after_help = "Example:\n  grantctl thaw")]
    Thaw,
    /// Has grantd read its config file again
    #[command(after_help = "Example:\n  grantctl config check && grantctl reload")]
    Reload,
    /// Starts a command confined in a workload (root)
    #[command(
        after_help = "The command is born in the workload's cgroup and runs in its own session, as the workload's user,\n\
        with no new privileges, no capabilities, a system-call filter, hidden sockets and devices, and no\n\
        inherited descriptors; 0 to 2 may not be sockets.\n\n\
        Example:\n  sudo grantctl run --workload coding-agent -- curl https://example.org/"
    )]
    Run(RunArgs),
    /// What about this host would let an agent out, or keep grantd from enforcing (root)
    #[command(
        after_help = "Looks at the kernel, cgroups, accounts, sockets, devices and settings, and says \
        what to do about each finding. Exits 0 when there is nothing but notes.\n\n\
        Examples:\n  sudo grantctl doctor\n  sudo grantctl doctor --json"
    )]
    Doctor,
    /// The config file
    #[command(subcommand)]
    Config(ConfigCommand),
    /// The audit records of this host
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Lifts enforcement: removes the pinned programs and maps (root)
    #[command(
        after_help = "Everything in the enforced slice is unconfined afterwards. Stop grantd first.\n\n\
        Example:\n  sudo grantctl disarm --yes"
    )]
    Disarm {
        /// Confirms that enforcement is to be lifted
        #[arg(long)]
        yes: bool,
    },
}

/// What `status --require` can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Requirement {
    /// Every mandatory hook is attached.
    Enforcing,
}

#[derive(Debug, Subcommand)]
pub(super) enum GrantCommand {
    /// Shows a grant, also one that ended not long ago
    #[command(after_help = "Example:\n  grantctl grant show 01JD8Z3V --json")]
    Show {
        /// The grant's id (`jti`)
        id: String,
    },
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).multiple(false))]
pub(super) struct RevokeArgs {
    /// The grant with this id (`jti`)
    #[arg(group = "which")]
    id: Option<String>,
    /// Every grant of this workload
    #[arg(long, group = "which", value_name = "NAME")]
    workload: Option<String>,
    /// Every grant of this Okta subject
    #[arg(long, group = "which", value_name = "SUBJECT")]
    sub: Option<String>,
    /// Every grant of this Okta client
    #[arg(long, group = "which", value_name = "CLIENT")]
    cid: Option<String>,
    /// Every grant of this transaction
    #[arg(long, group = "which", value_name = "TXN")]
    txn: Option<String>,
    /// Every grant
    #[arg(long, group = "which")]
    all: bool,
}

impl RevokeArgs {
    /// The one selector that was given; `None` never comes from a parsed command line.
    pub(super) fn selector(self) -> Option<RevokeSelector> {
        let Self { id, workload, sub, cid, txn, all } = self;
        id.map(RevokeSelector::Id)
            .or(workload.map(RevokeSelector::Workload))
            .or(sub.map(RevokeSelector::Sub))
            .or(cid.map(RevokeSelector::Cid))
            .or(txn.map(RevokeSelector::Txn))
            .or(all.then_some(RevokeSelector::All))
    }
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Workload of the config
    #[arg(long, value_name = "NAME")]
    pub(super) workload: String,
    /// Account to run as, instead of the workload's `user`; never root
    #[arg(long, value_name = "USER")]
    pub(super) user: Option<String>,
    /// Says on stderr what the command is held to, and what this kernel lacks for more
    #[arg(short, long)]
    pub(super) verbose: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Reports every fault of a config file in one run
    #[command(after_help = "Example:\n  grantctl config check ./config.toml")]
    Check {
        /// The file, instead of `--config`
        file: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Prints the newest audit records
    #[command(
        after_help = "Examples:\n  sudo grantctl audit tail -f\n  sudo grantctl audit tail --from 1200 -n 50 --json"
    )]
    Tail(TailArgs),
}

#[derive(Debug, Args)]
pub(super) struct TailArgs {
    /// Goes on as records are written
    #[arg(short, long)]
    pub(super) follow: bool,
    /// From this sequence number on, instead of the newest
    #[arg(long, value_name = "SEQ")]
    pub(super) from: Option<u64>,
    /// At most this many records (default: the newest 20, or all from `--from`)
    #[arg(short = 'n', long = "lines", value_name = "N")]
    pub(super) lines: Option<usize>,
    /// Directory of the spool, when it is not where the config says
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("grantctl").chain(line.split_whitespace()))
    }

    fn selector(line: &str) -> RevokeSelector {
        let Command::Revoke(args) = parse(line).unwrap().command else { panic!("{line}") };
        args.selector().unwrap()
    }

    #[test]
    fn the_definition_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn every_leaf_command_helps_with_an_example() {
        fn leaves(command: &clap::Command, path: &str, missing: &mut Vec<String>) {
            let path = format!("{path} {}", command.get_name());
            if command.has_subcommands() {
                command.get_subcommands().for_each(|sub| leaves(sub, &path, missing));
            } else if !command.get_after_help().is_some_and(|h| h.to_string().contains("Example")) {
                missing.push(path);
            }
        }
        use clap::CommandFactory;
        let mut missing = Vec::new();
        leaves(&Cli::command(), "", &mut missing);
        assert_eq!(missing, Vec::<String>::new(), "commands whose --help shows no example");
    }

    #[test]
    fn revoke_takes_exactly_one_selector() {
        assert_eq!(selector("revoke 01JD"), RevokeSelector::Id("01JD".to_owned()));
        assert_eq!(selector("revoke --workload w"), RevokeSelector::Workload("w".to_owned()));
        assert_eq!(selector("revoke --sub s"), RevokeSelector::Sub("s".to_owned()));
        assert_eq!(selector("revoke --cid c"), RevokeSelector::Cid("c".to_owned()));
        assert_eq!(selector("revoke --txn t"), RevokeSelector::Txn("t".to_owned()));
        assert_eq!(selector("revoke --all"), RevokeSelector::All);
        for wrong in ["revoke", "revoke 01JD --all", "revoke --sub s --cid c"] {
            assert!(parse(wrong).is_err(), "`{wrong}` would have revoked something unintended");
        }
    }

    #[test]
    fn run_needs_the_double_dash_so_that_options_of_the_command_stay_its_own() {
        let Command::Run(run) = parse("run --workload w -- curl --json x").unwrap().command else {
            panic!("not run");
        };
        assert_eq!(run.command, ["curl", "--json", "x"]);
        assert!(parse("run --workload w curl").is_err());
        assert!(parse("run --workload w --").is_err());
        assert!(parse("run -- curl").is_err());
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        assert!(parse("--json status").unwrap().json);
        let cli = parse("status --json --socket /tmp/s --require enforcing").unwrap();
        assert_eq!(cli.socket, Some(PathBuf::from("/tmp/s")));
        assert!(matches!(cli.command, Command::Status { require: Some(Requirement::Enforcing) }));
    }
}
