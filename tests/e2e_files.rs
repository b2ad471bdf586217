//! System calls on pages that the device has: with a guard always, without one where the kernel's own touches are answered.

mod common;

use common::{PAGE, Scratch, checked, clean, declared, kernel, open, spv, system_calls_fault, watchdog};
use vkhmm::{Grid, PageFlags};

#[test]
fn system_calls_on_the_devices_pages() {
    let _dog = watchdog("system calls", 60);
    for strict in [false, true] {
        let rt = open(checked().strict_io(strict));
        let mut x = rt.alloc::<u8>(64 * PAGE).expect("alloc");
        let file = Scratch::new("bytes");
        std::fs::write(&file.0, vec![8u8; 64 * PAGE]).expect("write");
        let opened = std::fs::OpenOptions::new().read(true).write(true).open(&file.0).expect("open");
        rt.fill(x.overwrite(), 0x0505_0505).expect("fill").wait().expect("wait");
        // Without a guard: answered where the kernel's own touches fault, and where slices are brought home.
        let plain = std::os::unix::fs::FileExt::write_all_at(&opened, &x, 0);
        if system_calls_fault(&rt) || declared(&rt) {
            plain.expect("a system call on pages of the device");
            assert!(std::fs::read(&file.0).expect("read").iter().all(|b| *b == 5));
        } else {
            let refused = plain.expect_err("ordinary users need a guard");
            assert_eq!(refused.raw_os_error(), Some(14), "EFAULT, not {refused}");
        }
        rt.fill(x.overwrite(), 0x0606_0606).expect("fill");
        x.write_all_at(&opened, 0).expect("with the guard");
        assert!(std::fs::read(&file.0).expect("read").iter().all(|b| *b == 6));
        // Read by a launch: shared pages stay mapped, or with strict I/O go at once.
        x.prefetch_to_device().expect("prefetch").wait().expect("wait");
        let checksum = kernel(&rt, spv::CHECKSUM);
        let mut sum = rt.alloc::<u32>(1).expect("alloc");
        rt.launch(&checksum, Grid::linear(64), (x.read(), sum.write()))
            .expect("launch")
            .wait()
            .expect("wait");
        let mapped = rt.page_flags(x.as_ptr()).expect("managed").contains(PageFlags::MAY_BE_MAPPED);
        if !declared(&rt) {
            assert_eq!(mapped, !strict, "strict_io({strict})");
        }
        assert!(x.iter().all(|b| *b == 6));
        clean(&rt);
    }
}
