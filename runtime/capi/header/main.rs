//! Writes `include/vkhmm.h`; with `--check` only says whether it is fresh.

mod generate;

use anyhow::{Context, bail};

fn main() -> anyhow::Result<()> {
    let (text, path) = (generate::generate()?, generate::path());
    match std::env::args().nth(1).as_deref() {
        None => std::fs::write(&path, text).with_context(|| path.display().to_string()),
        Some("--check") if std::fs::read_to_string(&path)? == text => Ok(()),
        Some("--check") => bail!("{} is stale: run ./x header and commit it", path.display()),
        Some(other) => bail!("unknown option {other}: --check, or none"),
    }
}
