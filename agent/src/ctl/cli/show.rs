//! Answers as a person reads them.

use super::{
    error::CliError,
    ui::{Tone, Ui, duration, plain, utc},
};
use crate::ctl::{Counter, GrantView, Reloaded, Revoked, Status};
use crate::doctor::{Finding, Severity};

type Shown = Result<(), CliError>;

pub(super) fn status(ui: &mut Ui<'_>, status: &Status) -> Shown {
    headline(ui, status)?;
    writeln!(ui.out, "  host     {}", plain(&status.host_id))?;
    writeln!(ui.out, "  boot     {}", plain(&status.boot_id))?;
    writeln!(
        ui.out,
        "  since    {}   grantd {}",
        utc(status.since_unix_ms),
        plain(&status.version)
    )?;
    writeln!(ui.out, "  pins     {}", status.pins.display())?;
    let clock = if status.clock_synchronised { "synchronised" } else { "NOT synchronised" };
    writeln!(ui.out, "  clock    {clock}")?;
    canary(ui, status)?;
    keys(ui, status)?;
    audit(ui, status)?;
    workloads(ui, status)?;
    hooks(ui, status)?;
    threats(ui, status)?;
    counters(ui, "Verdicts", &status.verdicts)?;
    counters(ui, "Push listener", &status.listener)?;
    counters(ui, "Losses", &status.losses)
}

fn headline(ui: &mut Ui<'_>, status: &Status) -> Shown {
    let head = if status.enforcing {
        ui.paint(Tone::Good, "ENFORCING")
    } else {
        ui.paint(Tone::Bad, "NOT ENFORCING")
    };
    let frozen = if status.frozen { ", FROZEN: no new grants until `grantctl thaw`" } else { "" };
    let next = status
        .next_deadline_unix_ms
        .map(|at| format!(", the next ends {}", utc(at)))
        .unwrap_or_default();
    writeln!(ui.out, "{head}: {} live grants{next}{frozen}", status.live_grants)?;
    for reason in &status.not_enforcing {
        writeln!(ui.out, "  because  {}", plain(reason))?;
    }
    Ok(())
}

/// The proof that enforcement takes effect, and its age.
fn canary(ui: &mut Ui<'_>, status: &Status) -> Shown {
    let canary = &status.canary;
    let age = canary.age_ms.map_or_else(|| "not yet".to_owned(), |ms| format!("{ms} ms ago"));
    let state = match &canary.problem {
        None => ui.paint(Tone::Good, "passed"),
        Some(_) => ui.paint(Tone::Bad, "FAILED"),
    };
    let (passed, failed) = (canary.passed, canary.failed);
    let unclear = match canary.unclear {
        0 => String::new(),
        rounds => format!(", {rounds} unclear"),
    };
    writeln!(
        ui.out,
        "  canary   {state}, last tried {age} ({passed} passed, {failed} failed{unclear})"
    )?;
    Ok(())
}

fn keys(ui: &mut Ui<'_>, status: &Status) -> Shown {
    let keys = &status.keys;
    let age = keys
        .okta_age_s
        .map_or_else(|| "never fetched".to_owned(), |age| format!("fetched {} ago", duration(age)));
    let stale = if keys.okta_stale { ", STALE: new grants are refused" } else { "" };
    writeln!(
        ui.out,
        "  keys     {} of Okta, {age}{stale}; {} of the control plane",
        keys.okta_keys, keys.control_plane_keys
    )?;
    Ok(())
}

fn audit(ui: &mut Ui<'_>, status: &Status) -> Shown {
    let audit = &status.audit;
    let lost = match audit.lost {
        0 => "none lost".to_owned(),
        lost => ui.paint(Tone::Bad, &format!("{lost} LOST")),
    };
    writeln!(
        ui.out,
        "  audit    {} ({} written, {lost}, newest is {})",
        audit.directory.display(),
        audit.written,
        audit.last_sequence
    )?;
    if let Some(error) = &audit.error {
        writeln!(ui.out, "           {}", ui.paint(Tone::Bad, &plain(error)))?;
    }
    Ok(())
}

fn workloads(ui: &mut Ui<'_>, status: &Status) -> Shown {
    heading(ui, "Workloads")?;
    for workload in &status.workloads {
        let present = match workload.cgroup_id {
            Some(id) if workload.present => format!("cgroup {id}"),
            _ => "no cgroup yet".to_owned(),
        };
        writeln!(
            ui.out,
            "  {:<24} {:>5} live  {present:<20} {}",
            plain(&workload.name),
            workload.live_grants,
            workload.cgroup.display()
        )?;
    }
    Ok(())
}

fn hooks(ui: &mut Ui<'_>, status: &Status) -> Shown {
    heading(ui, "Hooks")?;
    for hook in &status.coverage {
        // Padded before it is painted: escapes would count as width.
        let state = if hook.attached {
            ui.paint(Tone::Good, &format!("{:<8}", "attached"))
        } else {
            ui.paint(Tone::Bad, &format!("{:<8}", "OPEN"))
        };
        writeln!(ui.out, "  {:<24} {state}  {}", plain(&hook.hook), plain(&hook.detail))?;
    }
    Ok(())
}

/// How many of the known ways out are closed, and each of those that are not.
fn threats(ui: &mut Ui<'_>, status: &Status) -> Shown {
    if status.threats.is_empty() {
        return Ok(());
    }
    let with = |state: &str| status.threats.iter().filter(|t| t.state == state).count();
    let title = format!(
        "Known ways out: {} closed, {} partly, {} open",
        with("closed"),
        with("partly"),
        with("open")
    );
    heading(ui, &title)?;
    for threat in status.threats.iter().filter(|t| t.state != "closed") {
        let (id, way, reason) = (plain(&threat.id), plain(&threat.way), plain(&threat.reason));
        writeln!(ui.out, "  {id:<4} {:<7} {way}: {reason}", plain(&threat.state))?;
    }
    Ok(())
}

fn counters(ui: &mut Ui<'_>, title: &str, counters: &[Counter]) -> Shown {
    let moved: Vec<_> = counters.iter().filter(|counter| counter.count > 0).collect();
    if moved.is_empty() {
        return Ok(());
    }
    heading(ui, title)?;
    for counter in moved {
        writeln!(ui.out, "  {:<24} {:>12}", plain(&counter.name), counter.count)?;
    }
    Ok(())
}

fn heading(ui: &mut Ui<'_>, title: &str) -> Shown {
    let title = ui.paint(Tone::Strong, title);
    writeln!(ui.out, "{title}")?;
    Ok(())
}

pub(super) fn grants(ui: &mut Ui<'_>, grants: &[GrantView]) -> Shown {
    if grants.is_empty() {
        writeln!(ui.out, "no live grants")?;
        return Ok(());
    }
    let head = format!("{:<28} {:<20} {:>8}  DESTINATIONS", "ID", "WORKLOAD", "LEFT");
    let head = ui.paint(Tone::Faint, &head);
    writeln!(ui.out, "{head}")?;
    for grant in grants {
        let mismatch = match &grant.kernel {
            Some(kernel) if kernel.matches => String::new(),
            Some(_) | None => ui.paint(Tone::Bad, "  NOT AS IN THE KERNEL"),
        };
        writeln!(
            ui.out,
            "{:<28} {:<20} {:>8}  {}{mismatch}",
            plain(&grant.id),
            plain(&grant.workload),
            duration(grant.seconds_left),
            plain(&summary(&grant.destinations)),
        )?;
    }
    Ok(())
}

/// The first destination and how many more.
fn summary(destinations: &[String]) -> String {
    match destinations {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}

pub(super) fn grant(ui: &mut Ui<'_>, grant: &GrantView) -> Shown {
    let mut line = |name: &str, value: &str| writeln!(ui.out, "{name:<13} {value}");
    line("grant", &plain(&grant.id))?;
    let ended = grant.ended_cause.as_deref().map(|cause| format!(" ({})", plain(cause)));
    line("state", &format!("{}{}", plain(&grant.state), ended.unwrap_or_default()))?;
    line("workload", &plain(&grant.workload))?;
    line("transaction", &plain(&grant.txn))?;
    line("subject", &plain(&grant.sub))?;
    line("client", &grant.cid.as_deref().map_or_else(|| "-".to_owned(), plain))?;
    line("accepted", &utc(grant.accepted_unix_ms))?;
    let left = duration(grant.seconds_left);
    line("ends", &format!("{} (in {left})", utc(grant.deadline_unix_ms)))?;
    match &grant.kernel {
        Some(kernel) => {
            let agrees = if kernel.matches { "as recorded" } else { "DIFFERS from the ledger" };
            line(
                "kernel",
                &format!(
                    "slot {}, generation {}, {} entries, deadline {} ns of boot time: {agrees}",
                    kernel.slot, kernel.generation, kernel.entries, kernel.deadline_boot_ns
                ),
            )?;
        }
        None => line("kernel", "nothing")?,
    }
    for destination in &grant.destinations {
        line("may reach", &plain(destination))?;
    }
    Ok(())
}

pub(super) fn revoked(ui: &mut Ui<'_>, revoked: &Revoked) -> Shown {
    writeln!(ui.out, "ended {} grants", revoked.ended)?;
    for id in &revoked.ids {
        writeln!(ui.out, "  {}", plain(id))?;
    }
    Ok(())
}

pub(super) fn reloaded(ui: &mut Ui<'_>, reloaded: &Reloaded) -> Shown {
    writeln!(ui.out, "reloaded: config {} is in force", plain(&reloaded.config_sha256))?;
    if reloaded.ended > 0 {
        writeln!(ui.out, "  ended {} grants that it no longer covers", reloaded.ended)?;
    }
    for key in &reloaded.needs_restart {
        writeln!(ui.out, "  {} takes effect only when grantd restarts", plain(key))?;
    }
    Ok(())
}

pub(super) fn findings(ui: &mut Ui<'_>, findings: &[Finding]) -> Shown {
    for finding in findings {
        let (tone, word) = match finding.severity {
            Severity::Fault => (Tone::Bad, "FAULT  "),
            Severity::Warning => (Tone::Strong, "warning"),
            Severity::Note => (Tone::Faint, "note   "),
        };
        let head = ui.paint(tone, word);
        let threats = finding.threats.join(", ");
        let about = if threats.is_empty() { String::new() } else { format!(" [{threats}]") };
        writeln!(ui.out, "{head}  {}{about}", plain(&finding.found))?;
        writeln!(ui.out, "         {}", plain(&finding.remedy))?;
    }
    let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
    writeln!(
        ui.out,
        "{} faults, {} warnings, {} notes",
        count(Severity::Fault),
        count(Severity::Warning),
        count(Severity::Note)
    )?;
    Ok(())
}
