//! `[guard]`: whether the host must be able to refuse what cgroup hooks do not see.

use super::reader::Section;

/// What is done about BPF LSM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GuardMode {
    /// What the kernel takes is used; what is missing is told as coverage.
    #[default]
    Auto,
    /// Without all of it the daemon does not become ready.
    Required,
    /// None of it is loaded.
    Off,
}

/// Reads `[guard]`, which may be absent.
pub(super) fn read(root: &mut Section<'_>) -> Option<GuardMode> {
    let Some(value) = root.optional("guard") else { return Some(GuardMode::default()) };
    value.table("[guard]", |section| match section.optional("mode") {
        None => Some(GuardMode::default()),
        Some(value) => value.parse("\"auto\", \"required\" or \"off\"", |text| match text {
            "auto" => Ok(GuardMode::Auto),
            "required" => Ok(GuardMode::Required),
            "off" => Ok(GuardMode::Off),
            _ => Err("is no such mode"),
        }),
    })
}
