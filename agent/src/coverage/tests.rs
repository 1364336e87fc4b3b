use std::collections::BTreeSet;

use super::*;

const SECURITY: &str = include_str!("../../../docs/security.md");
const KNOWN_ISSUES: &str = include_str!("../../../docs/known-issues.md");

/// The IDs in brackets in a text: `[A2]`, `[C3, C5, D1 to D4]`.
fn ids_in(text: &str) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for group in text.split('[').skip(1).filter_map(|rest| rest.split_once(']')).map(|(g, _)| g) {
        for item in group.split(", ") {
            let (from, to) = item.split_once(" to ").unwrap_or((item, item));
            if let (Some((letter, first)), Some((_, last))) = (numbered(from), numbered(to)) {
                ids.extend((first..=last).map(|n| format!("{letter}{n}")));
            }
        }
    }
    ids
}

fn numbered(id: &str) -> Option<(&str, u32)> {
    Some((id.get(..1)?, id.get(1..)?.parse().ok()?))
}

fn attached() -> Facts {
    let hooks = [
        "egress",
        "ingress",
        "setsockopt",
        "sock_ops",
        "sock_release",
        "connect4",
        "connect6",
        "sendmsg4",
        "sendmsg6",
        "sock_create",
    ];
    Facts { hooks: hooks.map(|hook| (hook.to_owned(), true)).into(), ..Facts::default() }
}

/// A host that has everything.
fn full() -> Facts {
    Facts {
        guard: [
            "guard_socket_create",
            "guard_socket_sendmsg",
            "guard_file_receive",
            "guard_unix_stream_connect",
            "guard_unix_may_send",
            "guard_ptrace_access_check",
        ]
        .map(str::to_owned)
        .into(),
        watch: true,
        cut: true,
        self_check: true,
        no_udp_callers: true,
        ..attached()
    }
}

fn state(facts: &Facts, id: &str) -> State {
    judge(facts).into_iter().find(|t| t.id == id).unwrap().state
}

#[test]
fn every_way_out_of_the_list_is_judged_once_and_in_order() {
    let wanted: Vec<String> =
        [('A', 1..=10), ('B', 1..=9), ('C', 1..=12), ('D', 1..=8), ('E', 1..=9), ('F', 1..=10)]
            .into_iter()
            .flat_map(|(letter, numbers)| numbers.map(move |n: u32| format!("{letter}{n}")))
            // Never given out.
            .filter(|id| id != "B2")
            .collect();
    let listed: Vec<&str> = judge(&Facts::default()).iter().map(|t| t.id).collect();
    assert_eq!(listed, wanted);
}

#[test]
fn nothing_that_may_be_reported_open_goes_unsaid_in_the_known_issues() {
    let said = ids_in(KNOWN_ISSUES);
    let unsaid: Vec<&str> = judge(&attached())
        .iter()
        .filter(|t| t.state != State::Closed && !said.contains(t.id))
        .map(|t| t.id)
        .collect();
    assert_eq!(unsaid, Vec::<&str>::new(), "open on some host, and docs/known-issues.md is silent");
}

#[test]
fn a_detached_hook_is_never_called_closed() {
    for hook in attached().hooks.iter().map(|(hook, _)| hook.clone()) {
        if matches!(hook.as_str(), "sock_ops" | "sock_release") {
            // They follow connections, and refuse nothing.
            continue;
        }
        let mut facts = attached();
        facts.hooks.iter_mut().filter(|(h, _)| *h == hook).for_each(|(_, on)| *on = false);
        let [closed_before, ..] = count(&judge(&attached()));
        let [closed, _, open] = count(&judge(&facts));
        assert!(closed < closed_before, "{hook}: {closed} of {closed_before} closed");
        assert!(open > 0, "{hook}");
    }
}

#[test]
fn the_guard_closes_what_only_it_sees_and_only_with_the_hook_that_sees_it() {
    let mut facts = attached();
    assert_eq!(state(&facts, "D1"), State::Partly);
    facts.guard = vec!["guard_unix_stream_connect".to_owned()];
    assert_eq!(state(&facts, "D1"), State::Partly, "one of its two hooks is not there");
    facts.guard.push("guard_unix_may_send".to_owned());
    assert_eq!(state(&facts, "D1"), State::Closed);
    assert_eq!(state(&facts, "C5"), State::Partly);
}

#[test]
fn more_of_a_host_never_opens_anything() {
    let bare = judge(&attached());
    let full = full();
    for (less, more) in bare.iter().zip(judge(&full)) {
        assert!(more.state <= less.state, "{}: {:?} became {:?}", less.id, less.state, more.state);
    }
}

#[test]
fn ids_are_read_as_people_write_them() {
    assert_eq!(
        ids_in("x [A2] y [C3, D1 to D3] [link](b.md)"),
        ["A2", "C3", "D1", "D2", "D3"].map(str::to_owned).into()
    );
}

/// Every source file below a directory of the workspace, in one text.
fn sources(directory: &std::path::Path, text: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_rule_of_the_security_reference_is_held_to_its_word_by_tests_that_exist() {
    let workspace = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut text = String::new();
    for directory in ["agent/src", "agent-common/src", "tests/tests"] {
        sources(&workspace.join(directory), &mut text);
    }
    let rules = SECURITY.lines().filter(|line| line.starts_with("| SEC-"));
    let mut seen = BTreeSet::new();
    for rule in rules {
        let id = rule.split(' ').nth(1).unwrap();
        assert!(seen.insert(id), "{id} stands there twice");
        let tests: Vec<&str> =
            rule.split('`').skip(1).step_by(2).filter(|name| name.contains('_')).collect();
        assert!(!tests.is_empty(), "{id} names no test");
        for test in tests {
            assert!(text.contains(&format!("fn {test}(")), "{id}: there is no test {test}");
        }
    }
    assert!(seen.len() >= 15, "{seen:?}");
}

#[test]
fn what_is_called_closed_has_a_rule_in_the_security_reference() {
    let ruled = ids_in(SECURITY);
    let closed = judge(&full()).into_iter().filter(|t| t.state == State::Closed);
    let without: Vec<&str> = closed.map(|t| t.id).filter(|id| !ruled.contains(*id)).collect();
    assert_eq!(without, Vec::<&str>::new(), "closed, and docs/security.md is silent");
}

/// The ways out that a test's name quotes: `d01_d02_a_socket_is_not_there` is about D1 and D2.
fn quoted(name: &str) -> impl Iterator<Item = String> + '_ {
    let id = |word: &str| -> Option<String> {
        let (letter, number) = word.split_at_checked(1)?;
        let number: u32 = number.parse().ok().filter(|_| number.len() == 2)?;
        ("a".."g").contains(&letter).then(|| format!("{}{number}", letter.to_ascii_uppercase()))
    };
    name.split('_').map_while(id)
}

#[test]
fn every_way_out_has_a_test_that_is_named_for_it_or_a_line_in_the_known_issues() {
    let mut text = String::new();
    sources(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/tests"), &mut text);
    let names = text.split("#[test]\nfn ").skip(1).filter_map(|rest| rest.split('(').next());
    let tried: BTreeSet<String> = names.flat_map(quoted).collect();
    let said = ids_in(KNOWN_ISSUES);
    let forgotten: Vec<&str> = judge(&Facts::default())
        .iter()
        .map(|t| t.id)
        .filter(|id| !tried.contains(*id) && !said.contains(*id))
        .collect();
    assert_eq!(forgotten, Vec::<&str>::new(), "neither tried nor admitted");
}
