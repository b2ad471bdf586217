//! What a runtime says about itself: doctor, counters, waits, report, trace, validation messages.

use crate::error::vkhmm_result::*;
use crate::error::{Failure, call, vkhmm_result};
use crate::handles;
use crate::input::{self, Out, OutText};
use crate::runtime::{Runtime, vkhmm_runtime};
use std::ffi::c_char;
use std::fmt::Write;

/// Version of this header: a major number, which the soname has, too, a minor and a patch number.
pub const VKHMM_VERSION_MAJOR: u32 = 0;
/// See VKHMM_VERSION_MAJOR.
pub const VKHMM_VERSION_MINOR: u32 = 1;
/// See VKHMM_VERSION_MAJOR.
pub const VKHMM_VERSION_PATCH: u32 = 0;

/// Version of the library that is loaded, such as "0.1.0". Never NULL, valid for ever.
#[unsafe(no_mangle)]
pub extern "C" fn vkhmm_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// A text of a runtime's.
///
/// # Safety
/// As [`OutText::new`].
unsafe fn say(
    runtime: vkhmm_runtime,
    text: *mut c_char,
    capacity: usize,
    needed: *mut usize,
    what: impl FnOnce(&vkhmm::Runtime) -> String,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the contract is the caller's.
        let out = unsafe { OutText::new(text, capacity, needed)? };
        out.set(&what(&handles::get::<Runtime>(runtime.id)?.0.0))
    })
}

/// `text` as a JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// What was found on this machine, what was chosen and why, in words.
///
/// # Errors
/// Of texts, of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_runtime_doctor(
    runtime: vkhmm_runtime,
    text: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> vkhmm_result {
    // SAFETY: the contract is the caller's.
    unsafe { say(runtime, text, capacity, needed, |rt| rt.doctor().to_string()) }
}

/// Everything that is counted, as one JSON object: bytes moved by cause and by path, touches, launches, evictions, nanoseconds.
///
/// # Errors
/// Of texts, of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_runtime_stats_json(
    runtime: vkhmm_runtime,
    text: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> vkhmm_result {
    // SAFETY: the contract is the caller's.
    unsafe { say(runtime, text, capacity, needed, |rt| rt.stats().to_json()) }
}

/// One counter by its name in vkhmm_runtime_stats_json; and "in_bytes" and "out_bytes": all bytes copied to the device, and home.
///
/// # Errors
/// INVALID_ARGUMENT for an unknown name; of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_runtime_counter(
    runtime: vkhmm_runtime,
    name: *const c_char,
    value: *mut u64,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointers.
        let (out, name) = unsafe { (Out::new(value, "value")?, input::text(name, "name")?) };
        let name = name.ok_or_else(|| Failure::argument("name is NULL"))?;
        let stats = handles::get::<Runtime>(runtime.id)?.0.0.stats();
        let sums = [("in_bytes", stats.in_bytes()), ("out_bytes", stats.out_bytes())];
        let found = stats.fields().chain(sums).find(|(n, _)| *n == name);
        let unknown = || {
            let names: Vec<&str> = stats.fields().chain(sums).map(|(n, _)| n).collect();
            Failure::argument(format!("no counter is called {name}; there are: {}", names.join(", ")))
        };
        out.set(found.ok_or_else(unknown)?.1);
        Ok(VKHMM_OK)
    })
}

/// Who waited for what, longest first, as a JSON array of {"label", "count", "ns"}: allocations (touches, guards) and kernels.
///
/// # Errors
/// Of texts, of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_runtime_waits_json(
    runtime: vkhmm_runtime,
    text: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> vkhmm_result {
    let json = |rt: &vkhmm::Runtime| {
        let of = |w: &vkhmm::Waits| {
            format!(r#"{{"label":{},"count":{},"ns":{}}}"#, quoted(&w.label), w.count, w.time.as_nanos())
        };
        format!("[{}]", rt.waits().iter().map(of).collect::<Vec<_>>().join(","))
    };
    // SAFETY: the contract is the caller's.
    unsafe { say(runtime, text, capacity, needed, json) }
}

/// What is going on right now, in words: open operations with their age, queues, who is in which call. For whoever wonders why something
/// waits. Takes no lock that anybody holds, so it answers also when everything hangs.
///
/// # Errors
/// Of texts, of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_runtime_report(
    runtime: vkhmm_runtime,
    text: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> vkhmm_result {
    // SAFETY: the contract is the caller's.
    unsafe { say(runtime, text, capacity, needed, vkhmm::Runtime::report) }
}

/// The last events with their causes, oldest first, as a JSON array of {"at_ns", "cause", "start", "end"}; start and end are bytes of
/// the runtime's reservation.
///
/// # Errors
/// Of texts, of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_runtime_trace_json(
    runtime: vkhmm_runtime,
    text: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> vkhmm_result {
    let json = |rt: &vkhmm::Runtime| {
        let of = |e: &vkhmm::TraceEvent| {
            let cause = quoted(&format!("{:?}", e.cause));
            let (at, start, end) = (e.at_ns, e.bytes.start, e.bytes.end);
            format!(r#"{{"at_ns":{at},"cause":{cause},"start":{start},"end":{end}}}"#)
        };
        format!("[{}]", rt.trace_events().iter().map(of).collect::<Vec<_>>().join(","))
    };
    // SAFETY: the contract is the caller's.
    unsafe { say(runtime, text, capacity, needed, json) }
}

/// What the validation layers said, one message a line, if the runtime was made with them. Any message is a bug of vkhmm, or of a
/// kernel.
///
/// # Errors
/// Of texts, of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_runtime_validation_messages(
    runtime: vkhmm_runtime,
    text: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> vkhmm_result {
    let lines = |rt: &vkhmm::Runtime| {
        rt.validation_messages().iter().map(|m| m.replace('\n', " ") + "\n").collect::<String>()
    };
    // SAFETY: the contract is the caller's.
    unsafe { say(runtime, text, capacity, needed, lines) }
}

/// Number of device calls so far, for test_lose_at_call and test_fail_at_call.
///
/// # Errors
/// Of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_runtime_device_calls(runtime: vkhmm_runtime, calls: *mut u64) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointer.
        let out = unsafe { Out::new(calls, "calls")? };
        out.set(handles::get::<Runtime>(runtime.id)?.0.0.device_calls());
        Ok(VKHMM_OK)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_names_the_version_of_the_package() {
        let header = format!("{VKHMM_VERSION_MAJOR}.{VKHMM_VERSION_MINOR}.{VKHMM_VERSION_PATCH}");
        assert_eq!(header, env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn json_strings_are_escaped() {
        assert_eq!(quoted("a\"b\\c\nd\u{e9}"), "\"a\\\"b\\\\c\\u000ad\u{e9}\"");
    }
}
