//! `docs/audit.md` shows what the code writes.

#![cfg(test)]

#[path = "../examples/docs/render.rs"]
mod render;

#[test]
fn the_documented_examples_are_what_the_code_writes() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/audit.md");
    let page = std::fs::read_to_string(&path).expect("docs/audit.md");
    let (_, shown, _) = render::split(&page).expect("docs/audit.md has a place for examples");
    let examples = render::examples().expect("renders");
    assert!(
        shown == examples,
        "docs/audit.md shows records that are no longer written like that: run `cargo run -p grantd-audit --example docs`"
    );
}
