//! `cargo xtask layering`: fails on an import that docs/architecture.md forbids.

mod lexer;
mod paths;
mod table;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use self::paths::Source;
use self::table::{NOT_REEXPORTED, RULES, Rule, SOURCES, UNSAFE_WITHIN};
use crate::say::{self, say};
use crate::workspace;

/// Fails on an import that the architecture forbids, on `unsafe` outside its place, and on a clock read.
///
/// Code that only tests are built with may import what it likes; `unsafe` is searched for there too.
#[derive(Args)]
pub(crate) struct LayeringArgs {}

pub(crate) fn run(_args: &LayeringArgs) -> Result<()> {
    let Checked { files, findings } = check(&workspace::root())?;
    for finding in &findings {
        say::out(&finding.to_string());
    }
    match findings.len() {
        0 => {
            say!("layering: {files} files respect docs/architecture.md");
            Ok(())
        }
        count => bail!(
            "layering: {count} findings; see docs/architecture.md and xtask/src/layering/table.rs"
        ),
    }
}

/// What a look at a tree gave.
struct Checked {
    files: usize,
    findings: Vec<Finding>,
}

/// A place that breaks a rule.
#[derive(Debug)]
struct Finding {
    file: PathBuf,
    line: usize,
    what: String,
    because: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, what, because } = self;
        write!(f, "{}:{line}: {what}: {because}", file.display())
    }
}

/// Checks the sources below a root.
fn check(root: &Path) -> Result<Checked> {
    let mut files = Vec::new();
    for directory in SOURCES {
        collect(&root.join(directory), &mut files)?;
    }
    files.sort();
    let mut sources = Vec::new();
    for path in files {
        let file = path.strip_prefix(root).unwrap_or(&path).to_path_buf();
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let source = paths::read(&text, &module_of(&file));
        sources.push((file, source));
    }
    let tests: BTreeSet<PathBuf> =
        sources.iter().flat_map(|(file, source)| test_files(file, source)).collect();
    let mut findings = Vec::new();
    for (file, source) in &sources {
        unsafe_findings(file, source, &mut findings);
        let only_tests =
            tests.iter().any(|test| file.starts_with(test) || *file == test.with_extension("rs"));
        if !only_tests {
            import_findings(file, source, &mut findings);
        }
    }
    Ok(Checked { files: sources.len(), findings })
}

fn unsafe_findings(file: &Path, source: &Source, findings: &mut Vec<Finding>) {
    if UNSAFE_WITHIN.iter().any(|place| file.starts_with(place)) {
        return;
    }
    findings.extend(source.unsafe_lines.iter().map(|line| Finding {
        file: file.to_path_buf(),
        line: *line,
        what: "unsafe".to_owned(),
        because: "unsafe code is only in agent-ebpf and agent/src/kernel",
    }));
}

fn import_findings(file: &Path, source: &Source, findings: &mut Vec<Finding>) {
    let applies = |rule: &&Rule| {
        let among = |places: &[&str]| places.iter().any(|place| file.starts_with(place));
        among(rule.within) && !among(rule.except)
    };
    let rules: Vec<&Rule> = RULES.iter().filter(applies).collect();
    let mut reported = BTreeSet::new();
    for named in &source.named {
        let broken = rules.iter().filter(|rule| breaks(&named.path, rule)).map(|rule| rule.because);
        let first = named.path.first().map_or("", String::as_str);
        let leaks =
            named.reexported && file.starts_with("agent") && NOT_REEXPORTED.contains(&first);
        let leak = leaks.then_some("a re-export would carry it into modules that must not know it");
        for because in broken.chain(leak) {
            let what = named.path.join("::");
            // One line per path and file: a name that is imported is met again at each use.
            if reported.insert((what.clone(), because)) {
                findings.push(Finding {
                    file: file.to_path_buf(),
                    line: named.line,
                    what,
                    because,
                });
            }
        }
    }
}

/// Whether a rule forbids to name a path.
fn breaks(path: &[String], rule: &Rule) -> bool {
    let allowed = rule.but.iter().any(|allowed| below(path, allowed));
    // The bare name of a crate of which some parts are allowed says nothing yet: what is named through it does.
    let undecided = path.len() == 1 && !rule.but.is_empty();
    !allowed
        && !undecided
        && rule.never.iter().any(|forbidden| below(path, forbidden) || globs(path, forbidden))
}

/// Whether the path is the other one or something in it.
fn below(path: &[String], other: &str) -> bool {
    let mut segments = path.iter();
    other.split("::").all(|expected| segments.next().is_some_and(|segment| segment == expected))
}

/// Whether the path imports everything of a module that the other one lies in.
fn globs(path: &[String], other: &str) -> bool {
    let Some((last, module)) = path.split_last() else { return false };
    let mut expected = other.split("::");
    last == "*" && module.iter().all(|segment| expected.next().is_some_and(|e| e == segment))
}

/// The module that a file is: `agent/src/kernel/maps.rs` is `grantd::kernel::maps`.
fn module_of(file: &Path) -> Vec<String> {
    let mut parts: Vec<String> = file
        .with_extension("")
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    if parts.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main")) {
        parts.pop();
    }
    let package = if parts.is_empty() { String::new() } else { parts.remove(0) };
    if parts.first().is_some_and(|first| first == "src") {
        parts.remove(0);
    }
    if parts.first().is_some_and(|first| first == "bin") {
        // A binary is a crate of its own.
        parts.remove(0);
        return parts;
    }
    let library = match package.as_str() {
        "agent" => "grantd".to_owned(),
        "agent-common" => "grantd_common".to_owned(),
        other => format!("grantd_{}", other.replace('-', "_")),
    };
    parts.insert(0, library);
    parts
}

/// Where the modules are that a file declares for tests only: the directory, or the file of that name.
fn test_files(file: &Path, source: &Source) -> Vec<PathBuf> {
    let own = file.with_extension("");
    let is_root =
        own.file_name().is_some_and(|name| name == "mod" || name == "lib" || name == "main");
    let directory = if is_root { own.parent().unwrap_or(&own).to_path_buf() } else { own };
    source.test_modules.iter().map(|module| directory.join(module)).collect()
}

/// All Rust files below a directory that may not exist; what cargo builds there is left out.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !directory.is_dir() {
        return Ok(());
    }
    let entries =
        fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("reading {}", directory.display()))?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
