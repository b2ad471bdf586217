//! The committed header is what the sources make, and says everything that the library exports.

#[path = "../header/generate.rs"]
mod generate;

#[test]
fn the_committed_header_is_fresh() {
    let made = generate::generate().expect("cbindgen makes the header");
    let committed = std::fs::read_to_string(generate::path()).expect("include/vkhmm.h is there");
    assert!(made == committed, "include/vkhmm.h is stale: run ./x header and commit it");
}
