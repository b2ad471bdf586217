//! What the shared library exports is what the header declares: `vkhmm_*`, and nothing else of the Rust inside.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

fn tool(name: &str, arguments: &[&str]) -> String {
    // Cargo builds the library next to the programs that test it.
    let here = std::env::current_exe().expect("this program has a path");
    let library = here.parent().expect("it lies in a folder").join("libvkhmm_capi.so");
    let run = Command::new(name).args(arguments).arg(library).output();
    let run = run.unwrap_or_else(|error| panic!("{name} (package binutils): {error}"));
    assert!(run.status.success(), "{name}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).expect("names are UTF-8")
}

/// The functions that the header declares: what stands before the first parenthesis of a line that ends or opens a declaration.
fn declared() -> BTreeSet<String> {
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/vkhmm.h");
    let header = std::fs::read_to_string(header).expect("include/vkhmm.h is there");
    let code =
        header.lines().filter(|line| !line.starts_with(['/', ' ', '#', '*']) && !line.starts_with("typedef"));
    let before = code.filter_map(|line| line.split_once('(').map(|(before, _)| before));
    before.filter_map(|text| text.rsplit([' ', '*']).next()).map(str::to_owned).collect()
}

#[test]
fn only_what_the_header_declares_is_exported() {
    let exported: BTreeSet<String> = tool("nm", &["-D", "--defined-only"])
        .lines()
        .filter_map(|line| line.split_whitespace().last().map(str::to_owned))
        .collect();
    assert_eq!(exported, declared());
    assert!(exported.len() > 40 && exported.iter().all(|name| name.starts_with("vkhmm_")), "{exported:?}");
}

#[test]
fn the_library_has_its_soname_and_stays_loaded() {
    let dynamic = tool("readelf", &["-d"]);
    assert!(dynamic.contains("soname: [libvkhmm.so.0]"), "{dynamic}");
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
}
