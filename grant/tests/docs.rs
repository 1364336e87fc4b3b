//! The table of reasons in `docs/push.md` is what a control plane's author programs against.

use grantd_grant::Reason;

#[test]
fn the_documented_reasons_are_those_of_the_code_with_their_check_and_status() {
    let page = include_str!("../../docs/push.md");
    let documented = page.lines().filter(|line| {
        let first = line.trim_start_matches("| ").chars().next();
        line.starts_with("| ") && first.is_some_and(|c| c.is_ascii_digit())
    });
    let rows: Vec<&str> = documented.collect();
    for reason in Reason::ALL {
        let row = format!("| {} | `{reason}` | {} | ", reason.check(), reason.http_status());
        assert!(rows.iter().any(|r| r.starts_with(&row)), "docs/push.md lacks the row {row}");
    }
    assert_eq!(
        rows.len(),
        Reason::ALL.len(),
        "docs/push.md has rows for reasons that do not exist"
    );
}
