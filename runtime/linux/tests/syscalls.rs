//! System calls on pages of R: served like any touch where the engine parks them, EFAULT where it does not, data never wrong.

mod common;

use common::{Memory, PAGE, SMALL, alone, bytes, is_child, run, try_open};
use core::ffi::c_void;
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vkhmm_linux::{Config, EngineChoice};
use vkhmm_port::{Access, FaultMode, FaultSource, HostMemory};

const PAGES: u32 = 16;

/// A file of [`PAGES`] pages, page n full of n+1.
fn file() -> OwnedFd {
    let file = memfd_create(c"data", MemfdFlags::CLOEXEC).expect("memfd");
    rustix::io::pwrite(&file, &content(), 0).expect("write");
    file
}

fn content() -> Vec<u8> {
    (0..PAGES as usize * PAGE).map(|at| (at / PAGE) as u8 + 1).collect()
}

fn result(done: isize) -> Result<usize, i32> {
    usize::try_from(done).map_err(|_| std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

fn pread(fd: RawFd, memory: &Memory, page: u64, len: usize) -> Result<usize, i32> {
    let to = core::ptr::with_exposed_provenance_mut::<c_void>(memory.address(page, 0));
    // SAFETY: the kernel checks the address; no reference to R exists.
    result(unsafe { libc::pread(fd, to, len, 0) })
}

fn pwrite(fd: RawFd, memory: &Memory, page: u64, len: usize) -> Result<usize, i32> {
    let from = core::ptr::with_exposed_provenance::<c_void>(memory.address(page, 0));
    // SAFETY: pwrite(2) only reads `len` bytes of the reservation, which stays mapped; absent pages fail or park.
    result(unsafe { libc::pwrite(fd, from, len, 0) })
}

/// Runs `body` while a thread answers every fault: the page gets memory and becomes writable. Returns how many it answered.
fn served(memory: &Memory, body: impl FnOnce() + Send) -> u32 {
    let source = memory.source.clone().expect("an engine with faults");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let handler = scope.spawn(|| {
            let (mut faults, mut answered) = (Vec::new(), 0);
            while !stop.load(Ordering::SeqCst) {
                source.next(&mut faults, Some(Duration::from_millis(20))).expect("next");
                for fault in faults.drain(..) {
                    let one = run(fault.page.0, 1);
                    memory.host.populate(one).expect("populate");
                    memory.host.publish(one, Access::ReadWrite).expect("publish");
                    answered += 1;
                }
            }
            answered
        });
        body();
        stop.store(true, Ordering::SeqCst);
        handler.join().expect("handler")
    })
}

#[test]
fn full_mode_serves_system_calls_on_absent_pages() {
    let Some(memory) = try_open(Config { engine: Some(EngineChoice::UffdThread), ..SMALL }) else { return };
    let len = PAGES as usize * PAGE;
    let data = file();
    let answered = served(&memory, || {
        // read(2) into holes.
        assert_eq!(pread(data.as_raw_fd(), &memory, 0, len), Ok(len));
        assert_eq!(memory.host.alias(bytes(0, PAGES)).to_vec(), content());
        // write(2) from revoked pages.
        memory.host.revoke(run(0, PAGES)).expect("revoke");
        let copy = memfd_create(c"copy", MemfdFlags::CLOEXEC).expect("memfd");
        assert_eq!(pwrite(copy.as_raw_fd(), &memory, 0, len), Ok(len));
        let mut back = vec![0; len];
        assert_eq!(rustix::io::pread(&copy, &mut back[..], 0), Ok(len));
        assert_eq!(back, content());
        // read(2) into protected pages.
        memory.host.protect(run(0, PAGES)).expect("protect");
        assert_eq!(pread(data.as_raw_fd(), &memory, 0, len), Ok(len));
    });
    assert!(answered >= 3 * PAGES, "{answered} faults");
}

#[test]
fn full_mode_serves_direct_io_on_absent_pages() {
    let Some(memory) = try_open(Config { engine: Some(EngineChoice::UffdThread), ..SMALL }) else { return };
    let name = format!("vkhmm-direct-{}", std::process::id());
    let path = [std::env::temp_dir(), "/var/tmp".into(), ".".into()].map(|dir| dir.join(&name));
    let len = PAGES as usize * PAGE;
    let direct = path.iter().find_map(|path| {
        let mut file = std::fs::File::create(path).ok()?;
        file.write_all(&content()).and_then(|()| file.sync_all()).ok()?;
        OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).ok()
    });
    path.iter().for_each(|path| drop(std::fs::remove_file(path)));
    let Some(direct) = direct else {
        println!("skipped: no file system with O_DIRECT");
        return;
    };
    let answered = served(&memory, || {
        memory.host.populate(run(0, PAGES)).expect("populate");
        assert_eq!(pread(direct.as_raw_fd(), &memory, 0, len), Ok(len));
        assert_eq!(memory.host.alias(bytes(0, PAGES)).to_vec(), content());
    });
    assert!(answered >= PAGES, "{answered} faults");
}

/// What an ordinary user gets: EFAULT or a short count on absent pages, and no thread ever parks in the kernel.
fn user_only_refuses(memory: &Memory) {
    assert_eq!(memory.host.profile().faults, FaultMode::UserOnly);
    let len = PAGES as usize * PAGE;
    let data = file();
    assert_eq!(pread(data.as_raw_fd(), memory, 0, len), Err(libc::EFAULT));
    memory.host.populate(run(0, 4)).expect("populate");
    memory.host.publish(run(0, 4), Access::ReadWrite).expect("publish");
    assert_eq!(pread(data.as_raw_fd(), memory, 0, len), Ok(4 * PAGE));
    memory.host.protect(run(0, 4)).expect("protect");
    assert_eq!(pread(data.as_raw_fd(), memory, 0, len), Err(libc::EFAULT));
    assert_eq!(pwrite(data.as_raw_fd(), memory, 0, 4 * PAGE), Ok(4 * PAGE));
    memory.host.revoke(run(0, 4)).expect("revoke");
    assert_eq!(pwrite(data.as_raw_fd(), memory, 0, len), Err(libc::EFAULT));
    memory.no_fault();
    // User code is served as ever.
    let reader = memory.load_apart(2);
    assert_eq!(memory.fault().page.0, 2);
    memory.host.publish(run(2, 1), Access::ReadWrite).expect("publish");
    assert_eq!(reader.join().expect("reader"), 3);
}

#[test]
fn user_only_mode_gives_efault() {
    for engine in [EngineChoice::UffdThreadUserOnly, EngineChoice::UffdSigbus, EngineChoice::SegvMprotect] {
        if let Some(memory) = try_open(Config { engine: Some(engine), ..SMALL }) {
            user_only_refuses(&memory);
        }
    }
}

#[test]
fn an_ordinary_user_gets_user_only_mode() {
    const TEST: &str = "an_ordinary_user_gets_user_only_mode";
    if is_child(TEST) {
        let opened = vkhmm_linux::open(&SMALL).expect("something works");
        println!("{}", opened.report);
        if opened.host.profile().faults == FaultMode::UserOnly {
            let memory = try_open(SMALL).expect("as before");
            user_only_refuses(&memory);
            let Err(refused) = vkhmm_linux::open(&Config { engine: Some(EngineChoice::UffdThread), ..SMALL })
            else {
                panic!("full mode was refused a moment ago");
            };
            println!("{refused}");
            assert!(refused.to_string().contains("vm.unprivileged_userfaultfd=1"), "{refused}");
            println!("checked as an ordinary user");
        }
        return;
    }
    if !rustix::process::getuid().is_root() {
        println!("skipped: only root can become nobody");
        return;
    }
    let nobody = "RUNNER='setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs'";
    let output = alone(TEST, &format!("{nobody};"));
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(output.status.success(), "{output:?}");
    let open_to_all =
        std::fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd").is_ok_and(|s| s.trim() == "1");
    assert!(
        open_to_all || text.contains("checked as an ordinary user") || text.contains("seccomp"),
        "{text}"
    );
}
