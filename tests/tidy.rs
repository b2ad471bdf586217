//! The rules of the house that a reader can check, checked: floors, unsafe code, openings, lengths, fresh SPIR-V, no leftovers.
//!
//! Each test names every offence as `file:line: what and why`. Sources are read as text, line by line; that is enough for code
//! that rustfmt has laid out.

use std::fs;
use std::path::{Path, PathBuf};

#[path = "../shaders/compile/manifest.rs"]
mod manifest;

/// Files longer than this are a question; [`LONG_FILES`] has the answers.
const LINES_MAX: usize = 600;

/// Files that may be longer, each with the reason.
const LONG_FILES: &[(&str, &str)] =
    &[("benches/floors/lib.rs", "whoever doubts the floors reads one file, and finds all of them in it")];

/// What each crate of the runtime may import of the others: the floors below it.
const FLOORS: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("port", &["core"]),
    ("linux", &["core", "port"]),
    ("vulkan", &["core", "port"]),
    ("engine", &["core", "port"]),
    ("sim", &["core", "port", "engine"]),
    ("api", &["core", "port", "linux", "vulkan", "engine"]),
    // And `vkhmm`, the package of `api`; of linux only the mark that tells a forked child.
    ("capi", &["linux"]),
];

/// Crates that only one floor may name.
const WALLED: &[(&str, &str)] =
    &[("ash", "vulkan"), ("gpu-allocator", "vulkan"), ("rspirv", "vulkan"), ("userfaultfd", "linux")];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `folder` (relative to the root) whose name ends with one of `endings`, in order; build outputs left out.
fn files(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("the tree can be listed").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != ".git" && !name.starts_with("target") {
                    open.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<PathBuf> {
    ["runtime", "examples", "benches", "tests", "shaders"]
        .iter()
        .flat_map(|folder| files(folder, &[".rs"]))
        .collect()
}

fn python() -> Vec<PathBuf> {
    // What pip builds there is a copy.
    let built = root().join("runtime/python/build");
    files("runtime/python", &[".py"]).into_iter().filter(|path| !path.starts_with(&built)).collect()
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn expect_none(offences: Vec<String>, rule: &str) {
    assert!(offences.is_empty(), "{rule}\n  {}\n", offences.join("\n  "));
}

/// A line without its comment and without the contents of its string literals.
fn code(line: &str) -> String {
    let mut kept = String::new();
    let line = line.replace("'\"'", "' '");
    let mut characters = line.chars().peekable();
    let mut in_string = false;
    while let Some(character) = characters.next() {
        match character {
            '\\' if in_string => drop(characters.next()),
            '"' => {
                in_string = !in_string;
                kept.push('"');
            }
            '/' if !in_string && characters.peek() == Some(&'/') => break,
            other if !in_string => kept.push(other),
            _ => {}
        }
    }
    kept
}

/// Whether `word` stands in `line` with no letter, digit or underscore on either side.
fn has_word(line: &str, word: &str) -> bool {
    let part = |character: Option<char>| character.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word)
        .any(|(at, _)| !part(line[..at].chars().next_back()) && !part(line[at + word.len()..].chars().next()))
}

/// The names in one table of a manifest, such as `[dependencies]`; targets' tables count as well.
fn table(manifest: &str, wanted: &str) -> Vec<String> {
    let mut inside = false;
    let mut names = Vec::new();
    for line in manifest.lines() {
        if let Some(header) = line.trim().strip_prefix('[') {
            let header = header.trim_end_matches(']');
            inside = header == wanted
                || (header.starts_with("target.") && header.ends_with(&format!(".{wanted}")));
        } else if inside && !line.trim_start().starts_with('#') {
            names.extend(line.split(['=', '.']).next().map(|name| name.trim().to_owned()));
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Where the manifest of a runtime crate is: the root's for `api`, the package that applications link.
fn crate_manifest(name: &str) -> PathBuf {
    if name == "api" { root().join("Cargo.toml") } else { root().join(format!("runtime/{name}/Cargo.toml")) }
}

/// The sources of a runtime crate, without its `tests` folder: tests may stand on any floor.
fn crate_sources(name: &str) -> Vec<PathBuf> {
    let tests = root().join(format!("runtime/{name}/tests"));
    files(&format!("runtime/{name}"), &[".rs"]).into_iter().filter(|path| !path.starts_with(&tests)).collect()
}

#[test]
fn imports_respect_the_floors() {
    let mut offences = Vec::new();
    for (name, below) in FLOORS {
        for dependency in table(&text(&crate_manifest(name)), "dependencies") {
            let above = dependency.strip_prefix("vkhmm-").is_some_and(|floor| !below.contains(&floor));
            let walled = WALLED.iter().any(|(walled, home)| *walled == dependency && home != name);
            if above || walled {
                offences.push(format!("{}: depends on {dependency}", shown(&crate_manifest(name))));
            }
        }
        for path in crate_sources(name) {
            for (number, line) in text(&path).lines().enumerate() {
                let line = code(line);
                for (other, _) in FLOORS.iter().filter(|(other, _)| other != name && !below.contains(other)) {
                    if has_word(&line, &format!("vkhmm_{other}")) {
                        offences.push(format!("{}:{}: names vkhmm_{other}", shown(&path), number + 1));
                    }
                }
                for (walled, home) in WALLED {
                    let path_to = format!("{}::", walled.replace('-', "_"));
                    let named = line.match_indices(&path_to).any(|(at, _)| {
                        !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
                    });
                    if named && home != name {
                        offences.push(format!("{}:{}: names {walled}", shown(&path), number + 1));
                    }
                }
            }
        }
    }
    // The Python package stands on the C ABI, and has no crate.
    let known = |name: &str| name == "python" || FLOORS.iter().any(|(floor, _)| *floor == name);
    for entry in fs::read_dir(root().join("runtime")).expect("runtime/ can be listed") {
        let name = entry.expect("runtime/ can be listed").file_name().to_string_lossy().into_owned();
        if !known(&name) {
            offences.push(format!("runtime/{name}: has no place among the floors"));
        }
    }
    expect_none(offences, "A floor imports only floors below it; ash stays in vulkan, userfaultfd in linux.");
}

#[test]
fn the_engine_reaches_locks_threads_and_time_only_through_exec() {
    // Arc, Weak and atomics are not scheduling points: shared ownership and counters are the engine's own business.
    let harmless = ["Arc", "Weak", "atomic", "Atomic", "Ordering"];
    let forbidden =
        ["Condvar", "RwLock", "OnceLock", "LazyLock", "Instant", "SystemTime", "thread_local", "mpsc"];
    let mut offences = Vec::new();
    for path in crate_sources("engine") {
        for (number, line) in text(&path).lines().enumerate() {
            let line = code(line);
            let mut found: Vec<&str> = forbidden.into_iter().filter(|word| has_word(&line, word)).collect();
            if line.contains("std::thread") {
                found.push("std::thread");
            }
            for (_, rest) in
                line.match_indices("std::sync::").map(|(at, path)| line.split_at(at + path.len()))
            {
                // Of a group every name counts, else the one that follows.
                let names =
                    rest.trim_start_matches('{').split(',').take(if rest.starts_with('{') { 9 } else { 1 });
                let mut names = names.map(|name| name.trim_matches([' ', '{', '}', ';']));
                if names.any(|name| !name.is_empty() && !harmless.iter().any(|ok| name.starts_with(ok))) {
                    found.push("std::sync");
                }
            }
            for what in found {
                offences.push(format!("{}:{}: names {what}", shown(&path), number + 1));
            }
        }
    }
    expect_none(
        offences,
        "Every lock, wait, thread and clock of the engine goes through the port Exec, so that a simulator decides every \
         interleaving. Allowed: std::sync::Arc, Weak and std::sync::atomic, for ownership and counters only.",
    );
}

#[test]
fn each_source_opens_with_what_it_is_for() {
    let opens = |path: &PathBuf| {
        let mark = if path.extension().is_some_and(|e| e == "py") { "\"\"\"" } else { "//! " };
        text(path).lines().next().is_some_and(|line| line.len() > 10 && line.starts_with(mark))
    };
    let all = sources().into_iter().chain(python());
    let offences = all.filter(|path| !opens(path)).map(|path| format!("{}:1", shown(&path))).collect();
    expect_none(
        offences,
        "Each source file opens with a `//!` line, or a docstring, that says what it is for.",
    );
}

#[test]
fn files_stay_short() {
    let mut offences = Vec::new();
    let all = sources().into_iter().chain(python());
    let all = all.chain(files("shaders", &[".comp", ".glsl"])).chain([root().join("x")]);
    for path in all {
        let (name, lines) = (shown(&path), text(&path).lines().count());
        match LONG_FILES.iter().any(|(long, _)| *long == name) {
            false if lines > LINES_MAX => offences.push(format!("{name}: {lines} lines")),
            true if lines <= LINES_MAX => offences.push(format!("{name}: listed as long, has {lines} lines")),
            _ => {}
        }
    }
    expect_none(
        offences,
        &format!("A file has at most {LINES_MAX} lines, or stands in LONG_FILES with a reason."),
    );
}

/// The lines above `at` up to the start of its statement, nearest first; then the comment or doc comment above, likewise.
fn comment_above<'a>(lines: &[&'a str], at: usize) -> Vec<&'a str> {
    let mut above = lines[..at].iter().rev().map(|line| line.trim()).peekable();
    // A statement may start some lines before its unsafe part; attributes belong to what follows.
    while let Some(line) = above.peek() {
        let ends = line.is_empty() || line.ends_with([';', '{', '}', ',']);
        if line.starts_with("//") || (ends && !line.starts_with("#[")) {
            break;
        }
        above.next();
    }
    above.take_while(|line| line.starts_with("//")).collect()
}

/// Whether a comment (nearest line first) has a SAFETY line, with a proof of at least four words after it.
fn proves(comment: &[&str]) -> bool {
    let mut words: Vec<&str> = comment.iter().rev().flat_map(|line| line.split_whitespace()).collect();
    match words.iter().position(|word| *word == "SAFETY:") {
        Some(at) => words.drain(at + 1..).filter(|word| *word != "//").count() >= 4,
        None => false,
    }
}

/// Whether line `at` lies inside an `impl Trait for Type`.
fn in_trait_impl(lines: &[&str], at: usize) -> bool {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut outer =
        lines[..at].iter().rev().filter(|line| !line.is_empty() && indent(line) < indent(lines[at]));
    outer.next().is_some_and(|line| {
        line.trim_start().trim_start_matches("unsafe ").starts_with("impl") && line.contains(" for ")
    })
}

#[test]
fn unsafe_code_carries_its_proof() {
    let mut offences = Vec::new();
    for path in sources() {
        let text = text(&path);
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let line = code(line);
            let place = || format!("{}:{}", shown(&path), at + 1);
            let comment = || comment_above(&lines, at);
            if (line.contains("unsafe {") || line.contains("unsafe impl")) && !proves(&comment()) {
                offences.push(format!(
                    "{}: no `// SAFETY:` comment of four words or more directly above",
                    place()
                ));
            }
            let head =
                line.split("fn ").next().filter(|head| head.len() < line.len() && has_word(head, "unsafe"));
            // A method of a trait has its contract on the trait.
            let contract = || comment().iter().any(|line| line.contains("# Safety")) || proves(&comment());
            if head.is_some() && !contract() && !in_trait_impl(&lines, at) {
                offences.push(format!("{}: unsafe fn without a `# Safety` section", place()));
            }
        }
    }
    expect_none(offences, "Contract on the function, proof at the block.");
}

#[test]
fn committed_spir_v_is_fresh() {
    let shaders = root().join("shaders");
    assert_eq!(
        manifest::modules(&shaders).expect("shaders/spv can be listed"),
        manifest::sources(&shaders).expect("shaders can be listed"),
        "shaders/spv has one module per shaders/*.comp: run ./x shaders and commit the result"
    );
    let current = manifest::current(&shaders).expect("every shader and module can be read");
    assert_eq!(
        current,
        text(&manifest::path(&shaders)),
        "a shader (or {}) changed and its module did not: run ./x shaders and commit the result",
        manifest::HEADER
    );
}

#[test]
fn nothing_is_left_over() {
    // Put together here, so that this file does not offend.
    let leaks = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/tm", "p/")];
    let unfinished = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let macros = [concat!("unimplement", "ed!"), concat!("to", "do!")];
    let endings = [".rs", ".py", ".toml", ".md", ".comp", ".glsl", ".yml", ".json", ".txt", "run"];
    let mut offences = Vec::new();
    for path in files(".", &endings).into_iter().chain([root().join("x")]) {
        for (number, line) in text(&path).lines().enumerate() {
            let found = leaks.iter().chain(&macros).filter(|word| line.contains(**word));
            for word in found.chain(unfinished.iter().filter(|word| has_word(line, word))) {
                offences.push(format!("{}:{}: {word}", shown(&path), number + 1));
            }
        }
    }
    expect_none(
        offences,
        "No paths of somebody's machine, and nothing unfinished: open points belong in issues.",
    );
}

#[test]
fn every_crate_has_the_lints() {
    let mut offences = Vec::new();
    for path in files(".", &["Cargo.toml"]) {
        let manifest = text(&path);
        let inherits =
            manifest.lines().skip_while(|line| line.trim() != "[lints]").nth(1) == Some("workspace = true");
        if manifest.contains("[package]") && !inherits {
            offences.push(format!("{}: no `[lints]` with `workspace = true`", shown(&path)));
        }
    }
    let table = text(&root().join("Cargo.toml"));
    for lint in ["missing_docs", "unsafe_op_in_unsafe_fn", "undocumented_unsafe_blocks"] {
        if !table.contains(lint) {
            offences.push(format!("Cargo.toml: the lint table lacks {lint}"));
        }
    }
    expect_none(offences, "One lint table for every crate; ./x test denies its warnings.");
}

#[test]
fn dependencies_come_from_crates_io() {
    let lock = text(&root().join("Cargo.lock"));
    let foreign = lock.lines().filter(|line| line.starts_with("source = "));
    let foreign =
        foreign.filter(|line| *line != "source = \"registry+https://github.com/rust-lang/crates.io-index\"");
    expect_none(foreign.map(str::to_owned).collect(), "Cargo.lock names only crates.io.");
}

#[test]
fn the_checks_themselves_see_what_they_should() {
    assert_eq!(code("let a = \"unsafe { \\\" //\"; // unsafe {"), "let a = \"\"; ");
    assert!(
        has_word("a Mutex<u8>", "Mutex") && !has_word("MutexGuard", "Mutex") && !has_word("a_Mutex", "Mutex")
    );
    let manifest = "[dependencies]\nvkhmm-core.workspace = true\nash = { version = \"1\" }\n[dev-dependencies]\nother = \"1\"";
    assert_eq!(table(manifest, "dependencies"), ["vkhmm-core", "ash"]);
    let block =
        ["// SAFETY: the caller vouches", "// for it.", "#[inline]", "let a =", "    unsafe { b() };"];
    assert!(proves(&comment_above(&block, 4)));
    let bare = ["// SAFETY: ok.", "let a = unsafe { b() };"];
    assert!(!proves(&comment_above(&bare, 1)));
    let far = ["// SAFETY: the caller vouches for it.", "let c = 1;", "let a = unsafe { b() };"];
    assert!(!proves(&comment_above(&far, 2)));
}
