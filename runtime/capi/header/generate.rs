//! Makes the text of `include/vkhmm.h` from the sources of this crate.

use anyhow::Context;
use std::path::{Path, PathBuf};

/// In the order of the header.
const SOURCES: &[&str] = &[
    "error",
    "diagnose",
    "runtime",
    "buffer",
    "guard",
    "kernel",
    "launch",
    "kernels",
    "hints",
    "pagemap",
    "requirements",
    "parts",
    "acquire",
    "allocator",
];

/// The folder of this crate.
fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where the header is.
pub(crate) fn path() -> PathBuf {
    folder().join("include/vkhmm.h")
}

fn part(name: &str) -> anyhow::Result<String> {
    let path = folder().join("header").join(name);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// The header as it should be.
///
/// # Errors
/// A source that cannot be read, or that cbindgen cannot make C of.
pub(crate) fn generate() -> anyhow::Result<String> {
    let config =
        cbindgen::Config::from_file(folder().join("header/cbindgen.toml")).map_err(anyhow::Error::msg)?;
    let mut builder = cbindgen::Builder::new().with_config(config);
    builder = builder.with_header(part("head.txt")?.trim_end());
    builder = builder.with_after_include(format!("\n{}", part("vulkan.txt")?.trim_end()));
    for source in SOURCES {
        builder = builder.with_src(folder().join(source).with_extension("rs"));
    }
    let mut text = Vec::new();
    builder.generate().context("cbindgen")?.write(&mut text);
    // Sections of rustdoc, as C programmers read them; what the head says is not said again.
    let text = String::from_utf8(text)?.replace("/// # Errors\n/// ", "/// Errors: ");
    let text = text.replace("///\n/// # Safety\n/// Pointers as the head of vkhmm.h says.\n", "");
    Ok(text.replace("/// # Safety\n/// ", "/// Pointers: "))
}
