//! `deny_userfaultfd PROGRAM ARGUMENTS...`: runs a program as the default seccomp profiles of containers would, without userfaultfd:
//! the system call says EPERM, and so does making a descriptor through the device node. For tests of what is done then.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// USERFAULTFD_IOC_NEW of linux/userfaultfd.h.
const USERFAULTFD_IOC_NEW: u32 = 0xAA00;
/// Where `struct seccomp_data` has the number of the call, and the low half of its second argument.
const NUMBER: u32 = 0;
const SECOND_ARGUMENT: u32 = if cfg!(target_endian = "little") { 24 } else { 28 };

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("deny_userfaultfd PROGRAM ARGUMENTS...: runs the program where userfaultfd is forbidden");
        return ExitCode::from(2);
    };
    if let Err(error) = forbid() {
        eprintln!("deny_userfaultfd: {error}");
        return ExitCode::from(2);
    }
    let error = Command::new(&program).args(arguments).exec();
    eprintln!("deny_userfaultfd: {}: {error}", program.to_string_lossy());
    ExitCode::from(127)
}

/// From here on, in this process and all that it becomes or starts.
fn forbid() -> std::io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let line = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        line(LOAD, 0, 0, NUMBER),
        line(IF_EQUAL, 3, 0, libc::SYS_userfaultfd as u32),
        line(IF_EQUAL, 0, 3, libc::SYS_ioctl as u32),
        line(LOAD, 0, 0, SECOND_ARGUMENT),
        line(IF_EQUAL, 0, 1, USERFAULTFD_IOC_NEW),
        line(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        line(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: both calls read their arguments only; the filter is whole and lives until the kernel has copied it.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    if failed == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
