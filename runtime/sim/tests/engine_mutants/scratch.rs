//! The copy with every mutation in it: a workspace of its own below the target folder, built once. A mutation sleeps until the
//! driver wakes it by number, so that one build serves all of them.

use crate::list::{Edit, Mutant};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The crates that the simulator is made of.
const CRATES: [&str; 4] = ["core", "port", "engine", "sim"];

/// The switch, added to the copy's core.
const SWITCH: &str = "
/// Which mutation is awake.
pub mod mutant {
    use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    /// Its number; zero: none.
    pub static AWAKE: AtomicU32 = AtomicU32::new(0);
    /// Whether only the twin and liveness listen.
    pub static DEAF: AtomicBool = AtomicBool::new(false);
    /// Whether it is this one.
    pub fn on(number: u32) -> bool {
        AWAKE.load(Ordering::Relaxed) == number
    }
    /// See there.
    pub fn deaf() -> bool {
        DEAF.load(Ordering::Relaxed)
    }
}
";

/// The driver, added to the copy's simulator.
const PROGRAM: &str = "
[[bin]]
name = \"mutant-driver\"
path = \"mutants/driver.rs\"
";

/// What a run without the other oracles leaves out: the proof is to be the twin's or liveness's.
const DEAF: [Edit; 2] = [
    Edit {
        file: "runtime/sim/scene.rs",
        find: "if let Err(broken) = self.exec.quietly(|| self.engine.audit(shown)) {",
        replace: "if let Some(broken) = self.exec.quietly(|| self.engine.audit(shown)).err().filter(|_| !DEAF) {",
    },
    Edit {
        file: "runtime/sim/scene/ledger.rs",
        find: "assert!(allowed,",
        replace: "assert!(allowed || DEAF,",
    },
];

/// The tables of the root's manifest that the copy needs.
const TABLES: [&str; 4] =
    ["workspace.package", "workspace.dependencies", "workspace.lints.rust", "workspace.lints.clippy"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository is there")
}

/// Builds the copy and returns its driver.
///
/// # Panics
/// If mutations no longer fit their files (the message names all of them), or the copy cannot be built.
pub(crate) fn build(mutants: &[&Mutant]) -> PathBuf {
    let (root, scratch) = (root(), Path::new(env!("CARGO_TARGET_TMPDIR")).join("engine-mutants"));
    let mut paths = Vec::new();
    for name in CRATES {
        collect(&root, &PathBuf::from("runtime").join(name), &mut paths);
    }
    let mut misfits = Vec::new();
    let mut files: Vec<(PathBuf, String)> = Vec::new();
    for path in paths {
        let mut text = mutate(&path, &read(&root.join(&path)), mutants, &mut misfits);
        match path.to_str() {
            Some("runtime/core/lib.rs") => text.push_str(SWITCH),
            Some("runtime/sim/Cargo.toml") => text.push_str(PROGRAM),
            _ => {}
        }
        files.push((path, text));
    }
    for (mutant, edit) in
        mutants.iter().flat_map(|mutant| mutant.edits.iter().map(move |edit| (mutant, edit)))
    {
        if !files.iter().any(|(path, _)| path == Path::new(edit.file)) {
            misfits.push(format!("mutant `{}`: there is no file {}", mutant.name, edit.file));
        }
    }
    let advice = "bring these mutations in line with the code, or say why one can go";
    assert!(misfits.is_empty(), "{advice}:\n\n{}\n", misfits.join("\n\n"));
    files.push((PathBuf::from("Cargo.toml"), manifest(&read(&root.join("Cargo.toml")))));
    // Cargo drops from it what the copy does not need, and keeps the versions.
    files.push((PathBuf::from("Cargo.lock"), read(&root.join("Cargo.lock"))));
    for (path, text) in &files {
        write(&scratch.join(path), text);
    }
    compile(&scratch)
}

/// Sources and manifests below `folder`; tests are not needed.
fn collect(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(root.join(folder)).expect("the sources can be listed");
    for entry in entries {
        let path = folder.join(entry.expect("the sources can be listed").file_name());
        let is_tests = folder.parent() == Some(Path::new("runtime")) && path.ends_with("tests");
        if root.join(&path).is_dir() {
            if !is_tests {
                collect(root, &path, files);
            }
        } else if path.extension().is_some_and(|e| e == "rs" || e == "toml") {
            files.push(path);
        }
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Writes only what changed, so that a warm build has little to do.
fn write(path: &Path, text: &str) {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return;
    }
    fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("a folder for the copy");
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// The tables that the copy needs, under a workspace of the four crates.
fn manifest(text: &str) -> String {
    let members = CRATES.map(|name| format!("\"runtime/{name}\"")).join(", ");
    let mut out = format!(
        "[workspace]\nresolver = \"3\"\nmembers = [{members}]\n\n\
         [profile.release]\nopt-level = 1\ndebug = false\ndebug-assertions = false\noverflow-checks = false\nincremental = false\n"
    );
    let mut keep = false;
    for line in text.lines() {
        if let Some(header) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            keep = TABLES.contains(&header);
        }
        if keep {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// `text` of `path` with the edits of all mutants in it; what does not fit is noted.
fn mutate(path: &Path, text: &str, mutants: &[&Mutant], misfits: &mut Vec<String>) -> String {
    let krate = if path.starts_with("runtime/core") { "crate" } else { "vkhmm_core" };
    let deaf = DEAF.iter().map(|edit| (edit, "deaf", "DEAF", format!("{krate}::mutant::deaf()")));
    let awake = (1..).zip(mutants).flat_map(|(number, mutant)| {
        let on = move |edit| (edit, mutant.name, "AWAKE", format!("{krate}::mutant::on({number})"));
        mutant.edits.iter().map(on)
    });
    let mut places = Vec::new();
    for (edit, name, word, condition) in deaf.chain(awake).filter(|(edit, ..)| Path::new(edit.file) == path) {
        match place(text, edit) {
            Ok((from, to)) => places.push((from, to, edit.replace.replace(word, &condition), name)),
            Err(why) => misfits.push(format!("mutant `{name}`: {why} in {}:\n{}", edit.file, edit.find)),
        }
    }
    places.sort();
    let (mut out, mut at, mut last) = (String::new(), 0, "");
    for (from, to, replacement, name) in places {
        if from < at {
            misfits.push(format!("mutants `{last}` and `{name}` change the same text of {}", path.display()));
            continue;
        }
        out.push_str(&text[at..from]);
        out.push_str(&replacement);
        (at, last) = (to, name);
    }
    out + &text[at..]
}

/// Where the text to be found is: the same characters, but for white space, so that a new line break is no other code.
fn place(text: &str, edit: &Edit) -> Result<(usize, usize), String> {
    let black =
        |s: &str| -> Vec<(usize, char)> { s.char_indices().filter(|(_, c)| !c.is_whitespace()).collect() };
    let (text, find) = (black(text), black(edit.find));
    let same = |window: &[(usize, char)]| window.iter().zip(&find).all(|((_, a), (_, b))| a == b);
    let found: Vec<_> = text.windows(find.len()).filter(|window| same(window)).collect();
    match found[..] {
        [only] => Ok((only[0].0, only[find.len() - 1].0 + only[find.len() - 1].1.len_utf8())),
        [] => Err("this text is no longer".to_owned()),
        _ => Err(format!("this text is {} times", found.len())),
    }
}

fn compile(scratch: &Path) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = scratch.join("target");
    let build = Command::new(cargo)
        .args(["build", "--release", "--offline", "--package", "vkhmm-sim", "--bin", "mutant-driver"])
        .current_dir(scratch)
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_TERM_COLOR", "never")
        // A mutation leaves code without use and without comment.
        .env("RUSTFLAGS", "--cap-lints=allow")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .expect("cargo can be run");
    let story = String::from_utf8_lossy(&build.stderr);
    assert!(build.status.success(), "the copy with the mutations does not build:\n{story}");
    target.join("release/mutant-driver")
}
