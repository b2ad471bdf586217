//! The kernel's `file_*` cases. Managed memory is never a mapping of a file; bytes go between the two by ordinary reads and
//! writes, which host guards make sound whatever the device is doing.

use crate::common::Scratch;
use crate::rig::{PAGES_ALL, Places, Rig, WORDS_ALL, expect, fill, pattern, places};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

/// A file that cannot be written is read in, and the device sees its bytes. A file that is too short is the file's error.
#[test]
fn file_read() {
    let scratch = Scratch::new("read");
    let words: Vec<u32> = (0..WORDS_ALL).map(|i| pattern(i, 40)).collect();
    std::fs::write(&scratch.0, bytemuck::cast_slice(&words)).expect("write");
    Rig::each(|rig| {
        let file = File::open(&scratch.0).expect("open");
        let mut x = rig.fresh(WORDS_ALL);
        x.read_exact_at(&file, 0).expect("read_exact_at");
        let (seen, report) = rig.read(x.read(), WORDS_ALL).expect("read");
        expect(&seen, 0, 40, 0);
        assert_eq!((report.pages, report.faults), (PAGES_ALL, 1), "{}", report.moved);
        // Over what the device has the only copy of: all of it is replaced.
        rig.rt.fill(x.overwrite(), 0).expect("fill");
        x.read_from(&mut &file).expect("read_from");
        let (seen, _) = rig.read(x.read(), WORDS_ALL).expect("read");
        expect(&seen, 0, 40, 0);
        let half = WORDS_ALL / 2;
        let short = x.slice_mut(..half).read_exact_at(&file, (half * 4 + 1) as u64);
        assert_eq!(short.expect_err("the file ends").kind(), std::io::ErrorKind::UnexpectedEof);
        assert!(x.write_all_at(&file, 0).is_err(), "the file is open for reading only");
    });
}

/// What the device wrote reaches a file, the host's view and pread agree, and the device still has its copy.
#[test]
fn file_write() {
    Rig::each(|rig| {
        let scratch = Scratch::new("write");
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).open(&scratch.0).expect("create");
        let mut x = rig.fresh(WORDS_ALL);
        let values: Vec<u32> = (0..WORDS_ALL).map(|i| pattern(i, 41)).collect();
        rig.write(x.write(), &values).expect("write");
        assert_eq!(places(x.residency()), Places { device: PAGES_ALL, ..Places::NONE });
        x.write_all_at(&file, 0).expect("write_all_at");
        assert_eq!(places(x.residency()), Places { shared: PAGES_ALL, ..Places::NONE });
        let mut bytes = vec![0; WORDS_ALL * 4];
        file.read_exact_at(&mut bytes, 0).expect("pread");
        assert!(bytes == bytemuck::cast_slice::<u32, u8>(&x));
        expect(&x, 0, 41, 0);
        let (_, report) = rig.read(x.read(), WORDS_ALL).expect("read");
        assert_eq!((report.pages, report.faults), (0, 0), "{}", report.moved);
        // While the device is writing: the file gets the words of after, since that launch came before.
        fill(&mut x, 0, 42);
        rig.rt.launch(rig.storing(), vkhmm::Grid::linear(WORDS_ALL), (x.write(),)).expect("launch");
        x.write_all_at(&file, 0).expect("write_all_at");
        file.read_exact_at(&mut bytes, 0).expect("pread");
        expect(bytemuck::cast_slice(&bytes), 0, 42, 1);
    });
}
