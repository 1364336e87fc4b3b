//! What is attached and pinned, compared with what the daemon left, and put back.

use std::fs::File;
use std::path::PathBuf;

use super::attach::HOOKS;
use super::held::{Found, Info, repair_pin};
use super::{Error, Kernel, host, load, sys};

/// Something that is not as the daemon left it.
#[derive(Debug)]
pub struct Tampered {
    /// What was found.
    pub what: String,
    /// Whether it could be put back.
    pub repaired: Result<(), Error>,
}

impl Kernel {
    /// Compares links, programs and pins with what was attached, and repairs what differs. Changes nothing
    /// where all is as it was left. Also asks which programs are in effect `below`, at cgroups of the slice.
    pub fn self_check(&mut self, below: &[PathBuf]) -> Vec<Tampered> {
        if self.to_take_over {
            return Vec::new();
        }
        let pins = load::Pins::open(&self.setup.bpffs);
        let mut found = self.held.repair_maps(&pins);
        found.extend(self.watch.repair_pins(&pins));
        match host::open_cgroup(&self.setup.cgroup_root) {
            Ok(root) => {
                // A slice that was removed is followed by a look of its own.
                let there = host::cgroup_of(&self.slice.path).ok().flatten() == Some(self.slice.id);
                if there {
                    found.extend(self.check_guard(&pins));
                }
                for hook in HOOKS.iter().filter(|hook| hook.at_root() || there) {
                    let cgroup = if hook.at_root() { root.id } else { self.slice.id };
                    found.extend(self.check_hook(&pins, hook.name, cgroup));
                    if there {
                        found.extend(self.check_effect(hook.name, hook.attach_type, below));
                    }
                }
            }
            Err(error) => found.push(("the cgroup root".to_owned(), Err(error))),
        }
        found.into_iter().map(|(what, repaired)| Tampered { what, repaired }).collect()
    }

    /// Hooks of the guard, which are tried again at once when one was detached.
    fn check_guard(&mut self, pins: &load::Pins) -> Vec<Found> {
        let before: Vec<_> = self.guard.state().in_effect().collect();
        let (mut found, detached) = self.guard.repair(pins, &self.slice);
        if detached {
            self.prove_guard();
            let now: Vec<_> = self.guard.state().in_effect().collect();
            let lost = before.into_iter().filter(|hook| !now.contains(hook));
            found.extend(lost.map(|hook| {
                let what = format!("{hook} takes no effect since its program was detached");
                (what, Err(Error::NotInEffect { hook }))
            }));
        }
        found
    }

    /// One link: whether it is attached where it belongs, with our program, under its pin.
    fn check_hook(&mut self, pins: &load::Pins, name: &'static str, cgroup: u64) -> Option<Found> {
        let held = self.held.link(name).map(Info::of).unwrap_or_default();
        let ours = self.programs.id(name);
        if held.cgroup != Some(cgroup) || (ours.is_some() && held.program != ours) {
            let what = if held.cgroup == Some(cgroup) {
                format!("the link of {name} runs another program")
            } else {
                format!("the program {name} was detached")
            };
            return Some((what, self.attach_again(pins, name)));
        }
        repair_pin(pins, name, self.held.link(name)?)
    }

    fn attach_again(&mut self, pins: &load::Pins, name: &'static str) -> Result<(), Error> {
        pins.make_directories()?;
        // A pin of something else, or of a detached link, is no link of ours to go on with.
        self.programs.attach_hook(pins, &self.setup.cgroup_root, &self.slice, name)?;
        self.hold(pins)
    }

    /// A link that is attached is in effect unless something else changed how the kernel runs programs.
    fn check_effect(&self, name: &'static str, attach_type: u32, below: &[PathBuf]) -> Vec<Found> {
        let Some(ours) = self.programs.id(name) else { return Vec::new() };
        let not_at = |place: &dyn std::fmt::Display| {
            let what = format!("the program {name} is attached and not in effect at {place}");
            (what, Err(Error::NotInEffect { hook: name }))
        };
        // At the slice every program is in effect, and below it: those of the root are inherited.
        let missing = |directory: &File| {
            match sys::effective_programs(directory, attach_type) {
                Ok(programs) => !programs.contains(&ours),
                // A cgroup that was just removed is followed by its own look.
                Err(error) => {
                    tracing::debug!(%error, hook = name, "cannot ask which programs are in effect");
                    false
                }
            }
        };
        let mut found = Vec::new();
        if missing(&self.slice.directory) {
            found.push(not_at(&"the slice"));
        }
        for path in below {
            let Ok(directory) = host::open_cgroup(path) else { continue };
            if missing(&directory.directory) {
                found.push(not_at(&path.display()));
            }
        }
        found
    }
}
