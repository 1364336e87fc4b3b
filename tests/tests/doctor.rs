//! `grantctl doctor` on the real host: what is wrong is found and named with what to do.

use std::os::unix::fs::chown;

use anyhow::{Context, Result, ensure};
use grantd_e2e::world::{World, scenario};
use serde_json::Value;

fn findings(world: &World) -> Result<(Vec<Value>, Option<i32>)> {
    let output = world.daemon.run("grantctl", &["doctor", "--json"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    let findings = serde_json::from_slice(&output.stdout).with_context(|| format!("{said}"))?;
    Ok((findings, output.status.code()))
}

fn named<'a>(findings: &'a [Value], check: &str) -> Vec<&'a Value> {
    findings.iter().filter(|finding| finding["check"] == check).collect()
}

#[test]
fn a06_doctor_names_a_cgroup_that_an_agent_may_move_itself_out_of_and_how_to_close_it() {
    scenario(|world| {
        let (before, _) = findings(world)?;
        for check in ["delegated_cgroup", "programs", "pins", "slice", "root"] {
            ensure!(named(&before, check).is_empty(), "{check} on a good host: {before:?}");
        }
        let procs = world.coding.cgroup().join("cgroup.procs");
        chown(&procs, Some(world.coding.uid()), None)?;
        let (after, code) = findings(world)?;
        let found = named(&after, "delegated_cgroup");
        let [finding] = &found[..] else { anyhow::bail!("not exactly one: {after:?}") };
        ensure!(finding["severity"] == "fault", "{finding}");
        let text = finding.to_string();
        for word in [procs.display().to_string(), format!("chown root:root {}", procs.display())] {
            ensure!(text.contains(&word), "it does not say {word}: {finding}");
        }
        ensure!(code == Some(1), "exit {code:?} with a fault");
        Ok(())
    });
}

#[test]
fn every_finding_of_doctor_on_this_machine_has_a_remedy_and_says_what_it_is_about() {
    scenario(|world| {
        let (found, code) = findings(world)?;
        let text = world.daemon.run("grantctl", &["doctor"])?;
        let text = String::from_utf8(text.stdout)?;
        for finding in &found {
            let [what, remedy] = ["found", "remedy"].map(|key| finding[key].as_str().unwrap_or(""));
            ensure!(!what.is_empty() && !remedy.is_empty(), "{finding}");
            ensure!(text.contains(what) && text.contains(remedy), "the text leaves out {finding}");
        }
        let worse = found.iter().filter(|finding| finding["severity"] != "note").count();
        ensure!(code == Some(i32::from(worse > 0)), "exit {code:?} with {worse} worse than notes");
        Ok(())
    });
}
