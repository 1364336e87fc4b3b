//! Writes one example of every event into `docs/audit.md`: `cargo run -p grantd-audit --example docs`.

mod render;

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/audit.md");
    let page = std::fs::read_to_string(&path)?;
    let (before, _, after) =
        render::split(&page).ok_or("docs/audit.md has no place for examples")?;
    std::fs::write(&path, format!("{before}{}{after}", render::examples()?))?;
    Ok(())
}
