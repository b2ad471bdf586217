//! What the shared library says about itself: its name, by which programs find it, and that it stays once it is loaded.

fn main() {
    // Binary compatibility is promised within one soname; the number is raised when it ends.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libvkhmm.so.0");
    // Threads of a runtime run this code: dlclose must not take it away from under them.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo::rerun-if-changed=build.rs");
}
