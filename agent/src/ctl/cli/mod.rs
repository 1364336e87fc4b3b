//! `grantctl`: parses a command line, asks the daemon, shows the answer.
//!
//! What needs the kernel side is handed in by the binary as [`Host`], so that nothing here knows how
//! programs and maps are reached.

mod args;
mod audit;
mod disarm;
mod error;
mod launch;
mod paths;
mod show;
mod ui;

use std::{
    ffi::OsString,
    io::Write,
    path::{Path, PathBuf},
};

use args::{AuditCommand, Cli, Command, ConfigCommand, GrantCommand, Requirement};
use clap::Parser;
use error::CliError;
pub use error::{BoxError, chain};
pub use paths::EnforcementPaths;
use serde_json::json;
use ui::Tone;
pub use ui::Ui;

use super::{Client, ClientError, exit::Exit};
use crate::config::Config;
use crate::doctor::{Finding, Severity};

/// What the binary provides.
pub trait Host {
    /// Why the pins do not enforce by themselves, one text for each reason; empty when they do.
    ///
    /// # Errors
    /// When the pins cannot be examined.
    fn pins_not_enforcing(&self, paths: &EnforcementPaths) -> Result<Vec<String>, BoxError>;

    /// What about this host would let an agent out.
    ///
    /// # Errors
    /// When it cannot be examined at all.
    fn doctor(&self, config: &Config) -> Result<Vec<Finding>, BoxError>;

    /// Removes grantd's pins under `bpffs`; answers the paths that were removed.
    ///
    /// # Errors
    /// When something is left that may still enforce.
    fn disarm(&self, bpffs: &Path) -> Result<Vec<PathBuf>, BoxError>;
}

/// Runs `grantctl` with its arguments, program name included, on the terminal of this process.
#[must_use]
pub fn main(argv: &[OsString], host: &dyn Host) -> u8 {
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
    run(argv, host, &mut Ui { out: &mut out, err: &mut err, colour: ui::wants_colour() })
}

/// [`main`] with output to anywhere.
#[must_use]
pub fn run(argv: &[OsString], host: &dyn Host, ui: &mut Ui<'_>) -> u8 {
    let cli = match Cli::try_parse_from(argv) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, ui),
    };
    let json = cli.json;
    match (Invocation { cli, host }).execute(ui) {
        Ok(code) => code,
        Err(error) => {
            let exit = error.exit();
            if exit != Exit::Ok {
                ui.error(&error, json);
            }
            exit.code()
        }
    }
}

/// Help and version go to stdout and are a success; everything else is a usage error.
fn usage(error: &clap::Error, ui: &mut Ui<'_>) -> u8 {
    let text = error.render();
    let text = if ui.colour { text.ansi().to_string() } else { text.to_string() };
    let (stream, exit): (&mut dyn Write, _) =
        if error.use_stderr() { (ui.err, Exit::Usage) } else { (ui.out, Exit::Ok) };
    match write!(stream, "{text}") {
        Ok(()) => exit.code(),
        Err(e) => CliError::Output(e).exit().code(),
    }
}

struct Invocation<'a> {
    cli: Cli,
    host: &'a dyn Host,
}

impl Invocation<'_> {
    fn execute(self, ui: &mut Ui<'_>) -> Result<u8, CliError> {
        let Self { cli: Cli { config, socket, json, command }, host } = self;
        let paths = || paths::Paths::of(&config, socket.as_deref());
        let connect = || Client::connect(&paths().socket);
        match command {
            Command::Status { require } => return status(&paths(), require, json, host, ui),
            Command::Grants { workload } => {
                let grants = connect()?.grants(workload.as_deref())?;
                if json { ui.json(&grants)? } else { show::grants(ui, &grants)? }
            }
            Command::Grant(GrantCommand::Show { id }) => {
                let grant = connect()?.grant(id)?;
                if json { ui.json(&grant)? } else { show::grant(ui, &grant)? }
            }
            Command::Revoke(args) => {
                let Some(selector) = args.selector() else { return Ok(Exit::Usage.code()) };
                let revoked = connect()?.revoke(selector)?;
                if json { ui.json(&revoked)? } else { show::revoked(ui, &revoked)? }
            }
            Command::Freeze => {
                connect()?.freeze()?;
                frozen(ui, json, true)?;
            }
            Command::Thaw => {
                connect()?.thaw()?;
                frozen(ui, json, false)?;
            }
            Command::Reload => {
                let reloaded = connect()?.reload()?;
                if json { ui.json(&reloaded)? } else { show::reloaded(ui, &reloaded)? }
            }
            Command::Run(args) => return Ok(launch::launch(&args, &|| paths().socket)?),
            Command::Config(ConfigCommand::Check { file }) => {
                return check(&file.unwrap_or(config), json, ui);
            }
            Command::Doctor => return doctor(&config, json, host, ui),
            Command::Audit(AuditCommand::Tail(args)) => {
                audit::tail(&args, || paths().audit, json, ui)?;
            }
            Command::Disarm { yes } => disarm::disarm(&paths(), yes, json, host, ui)?,
        }
        Ok(Exit::Ok.code())
    }
}

fn status(
    paths: &paths::Paths,
    require: Option<Requirement>,
    json: bool,
    host: &dyn Host,
    ui: &mut Ui<'_>,
) -> Result<u8, CliError> {
    let answer = Client::connect(&paths.socket).and_then(|mut client| client.status());
    match (answer, require) {
        (Ok(status), _) => {
            if json {
                ui.json(&status)?;
            } else {
                show::status(ui, &status)?;
            }
            Ok(if status.enforcing { Exit::Ok } else { Exit::Negative }.code())
        }
        // The pins enforce whether or not a daemon runs: a unit may start its agents by them.
        (Err(error @ ClientError::Unavailable { .. }), Some(Requirement::Enforcing)) => {
            let Ok(missing) = host.pins_not_enforcing(&paths.enforcement) else {
                return Err(error.into());
            };
            from_pins(&missing, json, ui)
        }
        (Err(error), _) => Err(error.into()),
    }
}

fn from_pins(missing: &[String], json: bool, ui: &mut Ui<'_>) -> Result<u8, CliError> {
    let enforcing = missing.is_empty();
    if json {
        ui.json(&json!({"enforcing": enforcing, "not_enforcing": missing, "daemon": false}))?;
    } else {
        let head = if enforcing {
            ui.paint(Tone::Good, "ENFORCING")
        } else {
            ui.paint(Tone::Bad, "NOT ENFORCING")
        };
        writeln!(ui.out, "{head}: from the pins, grantd itself does not answer")?;
        for reason in missing {
            writeln!(ui.out, "  because  {}", ui::plain(reason))?;
        }
    }
    Ok(if enforcing { Exit::Ok } else { Exit::Negative }.code())
}

/// A note changes nothing about the answer: what it names is closed by other means.
fn doctor(file: &Path, json: bool, host: &dyn Host, ui: &mut Ui<'_>) -> Result<u8, CliError> {
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(faults) => {
            writeln!(ui.err, "{faults}")?;
            return Ok(Exit::Data.code());
        }
    };
    let findings = host.doctor(&config).map_err(CliError::Examine)?;
    if json {
        ui.json(&findings)?;
    } else {
        show::findings(ui, &findings)?;
    }
    let healthy = findings.iter().all(|finding| finding.severity == Severity::Note);
    Ok(if healthy { Exit::Ok } else { Exit::Negative }.code())
}

fn frozen(ui: &mut Ui<'_>, json: bool, frozen: bool) -> Result<(), CliError> {
    if json {
        return ui.json(&json!({ "frozen": frozen }));
    }
    let text = if frozen { "frozen: no new grants until `grantctl thaw`" } else { "thawed" };
    writeln!(ui.out, "{text}")?;
    Ok(())
}

fn check(file: &Path, json: bool, ui: &mut Ui<'_>) -> Result<u8, CliError> {
    let faults = match Config::load(file) {
        Ok(_) => Vec::new(),
        Err(faults) if json => faults.faults,
        Err(faults) => {
            writeln!(ui.err, "{faults}")?;
            return Ok(Exit::Data.code());
        }
    };
    if json {
        ui.json(&json!({"file": file, "valid": faults.is_empty(), "faults": faults}))?;
    } else {
        writeln!(ui.out, "{}: no faults", file.display())?;
    }
    Ok(if faults.is_empty() { Exit::Ok } else { Exit::Data }.code())
}
