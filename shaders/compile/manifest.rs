//! The manifest of committed SPIR-V: a hash of each shader's sources and of its module. Shared with `tests/tidy.rs`, which
//! needs no compiler to see that a source changed and its module did not. Only `std` is used here.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// What made the modules; a change of compiler or target makes all of them stale.
pub(crate) const HEADER: &str = "glslang 0.9.1, vulkan 1.2, spir-v 1.5";

/// Every `*.comp` directly under `shaders`, by name without the extension.
pub(crate) fn sources(shaders: &Path) -> io::Result<Vec<String>> {
    stems(shaders, "comp")
}

/// Every committed module, by name without the extension.
pub(crate) fn modules(shaders: &Path) -> io::Result<Vec<String>> {
    stems(&shaders.join("spv"), "spv")
}

/// Where the committed manifest is.
pub(crate) fn path(shaders: &Path) -> PathBuf {
    shaders.join("spv/manifest.txt")
}

/// The manifest as it should be for the files that are there now: one line per shader, name, hash of the source with all it
/// includes, hash of the module.
///
/// # Errors
/// A file that cannot be read, by its name.
pub(crate) fn current(shaders: &Path) -> io::Result<String> {
    let mut text = format!("{HEADER}\n");
    for name in sources(shaders)? {
        let mut closure = BTreeMap::new();
        add_closure(shaders, &format!("{name}.comp"), &mut closure)?;
        let mut bytes = Vec::new();
        for (file, content) in closure {
            // Lengths keep two files apart however their contents end and begin.
            bytes.extend_from_slice(format!("{file} {}\n", content.len()).as_bytes());
            bytes.extend_from_slice(&content);
        }
        let module = read(&shaders.join(format!("spv/{name}.spv")))?;
        text += &format!("{name} source {:016x} module {:016x}\n", fnv1a(&bytes), fnv1a(&module));
    }
    Ok(text)
}

/// Adds `file` and whatever it includes; names are relative to `shaders`.
fn add_closure(shaders: &Path, file: &str, closure: &mut BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    if closure.contains_key(file) {
        return Ok(());
    }
    let content = read(&shaders.join(file))?;
    let text = String::from_utf8_lossy(&content).into_owned();
    closure.insert(file.to_owned(), content);
    for line in text.lines() {
        if let Some(name) = line.trim().strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"')) {
            add_closure(shaders, name, closure)?;
        }
    }
    Ok(())
}

fn stems(folder: &Path, extension: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| named(folder, &error))? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| named(path, &error))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// 64-bit FNV-1a: enough to notice an edit, not to resist one.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
