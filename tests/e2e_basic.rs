//! The ordinary life of managed memory, end to end: touches, launches, slices, copies, files, limits; in every memory kind and
//! both transfer ways.

mod common;

use common::{
    ALL, PAGE, SUB, Scratch, Setup, WORDS, checked, clean, kernel, moves, moving, open, setups, since, spv,
    timed_kernel, up, watchdog,
};
use std::time::{Duration, Instant};
use vkhmm::{
    AccessKind, Error, Grid, Location, Managed, MemoryError, MemoryKind, PageFlags, Residency, Runtime,
};

/// Words of the array that most of the script works on: two blocks, the last page and the last sub-block only partly used.
const N: usize = 900_001;

#[test]
fn the_program_of_the_readme() -> Result<(), Box<dyn std::error::Error>> {
    let _dog = watchdog("readme", 60);
    let n = 1 << 20;
    let rt = open(checked().device_memory_limit(256 << 20));
    let mut x = rt.alloc::<f32>(n)?;
    x.iter_mut().enumerate().for_each(|(i, v)| *v = i as f32);
    let scale = kernel(&rt, spv::SCALE);
    rt.launch(&scale, Grid::linear(n), (x.write(), 2.0f32))?;
    assert_eq!(x[123], 246.0);
    assert!(x.iter().enumerate().all(|(i, v)| *v == 2.0 * i as f32));
    clean(&rt);
    Ok(())
}

/// Bytes of `array` by location: (host, shared, device).
fn places<T: vkhmm::Pod>(array: &Managed<T>) -> (u64, u64, u64) {
    let runs = array.residency().expect("residency");
    let sum = |location| runs.iter().filter(|r| r.location == location).map(|r| r.bytes.len()).sum();
    (sum(Location::Host), sum(Location::Shared), sum(Location::Device))
}

struct Script {
    rt: Runtime,
    setup: Setup,
    x: Managed<u32>,
}

/// Whether the device imports host memory. Only SwiftShader may be without; `./x test` repeats the reason.
fn can_import(rt: &Runtime) -> bool {
    let device = &rt.doctor().device;
    let (name, import) = (&device.candidates[device.chosen].name, &device.import);
    let on = import.starts_with("on");
    if !on {
        assert!(name.contains("SwiftShader"), "{name}: imports are {import}");
        println!("exempt: SwiftShader: imports are {import}");
    }
    on
}

impl Script {
    /// Bytes of `x` that move when all of it does.
    fn all(&self) -> u64 {
        if moves(&self.x) { up(N * 4, PAGE) } else { 0 }
    }

    /// Where `x`, or an array like it, is once launches and loads have read it: (host, shared, device).
    fn read_by_both(&self) -> (u64, u64, u64) {
        let bytes = (N * 4) as u64;
        if moves(&self.x) { (0, bytes, 0) } else { (bytes, 0, 0) }
    }

    fn new(setup: Setup) -> Self {
        let rt = open(setup.builder().device_memory_limit(64 << 20));
        let x = rt.alloc_named(N, "x").expect("alloc");
        Self { rt, setup, x }
    }

    /// Fill on the host, change on the device, read a little, then all.
    fn write_and_read_back(&mut self) {
        let add_one = timed_kernel(&self.rt, spv::ADD_ONE);
        self.x.iter_mut().enumerate().for_each(|(i, v)| *v = i as u32);
        let before = self.rt.stats();
        let launch = self.rt.launch(&add_one, Grid::linear(N), (self.x.write(),)).expect("launch");
        assert_eq!((self.x[0], self.x[N - 1]), (1, N as u32));
        launch.wait().expect("wait");
        launch.wait().expect("wait twice");
        assert!(launch.is_done() && launch.wait_timeout(Duration::ZERO).expect("wait_timeout"));
        assert!(launch.elapsed().expect("a clock") > Duration::ZERO);
        let moved = since(&self.rt, &before);
        assert_eq!(moved.in_launch_bytes, self.all(), "all pages, once: {moved}");
        assert_eq!(moved.launches, 1);
        assert!(self.x.iter().enumerate().all(|(i, v)| *v == i as u32 + 1));
        let moved = since(&self.rt, &before);
        let home = moved.out_fault_bytes + moved.out_ahead_bytes + moved.out_prefetch_bytes;
        assert_eq!(home, self.all(), "all pages, once: {moved}");
        let by_path = moved.path_import_bytes + moved.path_staging_bytes + moved.path_cpu_bytes;
        assert_eq!(by_path, moved.in_bytes() + moved.out_bytes(), "each byte took one path: {moved}");
        let import = self.setup.import && can_import(&self.rt);
        let in_place = import && self.setup.kind == MemoryKind::UnifiedMemory;
        assert_eq!(moves(&self.x), !in_place, "{}", self.x.placement());
        if in_place {
            assert!(by_path == 0 && moved.imported_bytes > 0, "{moved}");
        } else if import {
            assert!(moved.path_import_bytes > 0, "{moved}");
        } else {
            assert_eq!((moved.path_import_bytes, moved.imported_bytes), (0, 0), "{moved}");
            assert!(moved.path_staging_bytes > 0, "{moved}");
        }
    }

    /// What kernels only read stays on both sides; a store takes back one sub-block at most.
    fn read_duplication(&mut self) {
        let checksum = kernel(&self.rt, spv::CHECKSUM);
        let mut sum = self.rt.alloc::<u32>(1).expect("alloc");
        let expected = |words: &[u32]| {
            let one =
                |(i, w): (usize, &u32)| (w ^ (i as u32).wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
            words.iter().enumerate().map(one).fold(0u32, u32::wrapping_add)
        };
        let arguments = (self.x.read(), sum.write());
        self.rt.launch(&checksum, Grid::linear(N), arguments).expect("launch").wait().expect("wait");
        assert_eq!(places(&self.x), self.read_by_both());
        let before = self.rt.stats();
        let want = expected(&self.x);
        let moved = since(&self.rt, &before);
        assert_eq!(moved.out_bytes(), 0, "the host still had it: {moved}");
        assert_eq!(sum[0], want);
        self.x.slice_mut(5..6)[0] = 77;
        sum[0] = 0;
        let before = self.rt.stats();
        let arguments = (self.x.read(), sum.write());
        self.rt.launch(&checksum, Grid::linear(N), arguments).expect("launch").wait().expect("wait");
        let moved = since(&self.rt, &before);
        // What the store took back: a sub-block of x, or all of it where R is best changed by blocks; and the page of sum.
        let by_block = self.rt.doctor().to_string().contains("map granule 2 MiB");
        let most = (PAGE + if by_block { 2 << 20 } else { SUB }) as u64;
        let least = if moves(&self.x) { PAGE as u64 } else { 0 };
        assert!((least..=most).contains(&moved.in_launch_bytes), "{moved}");
        assert_eq!(sum[0], expected(&self.x));
        let again = self.rt.stats();
        self.rt
            .launch(&checksum, Grid::linear(N), (self.x.read(), sum.overwrite()))
            .expect("launch")
            .wait()
            .expect("wait");
        assert!(since(&self.rt, &again).in_bytes() <= PAGE as u64, "resident already");
    }

    /// `overwrite` copies nothing in; a page only partly inside keeps its other bytes.
    fn overwrite(&mut self) {
        let fill = kernel(&self.rt, spv::FILL);
        self.x.iter_mut().enumerate().for_each(|(i, v)| *v = i as u32);
        let before = self.rt.stats();
        self.rt
            .launch(&fill, Grid::linear(N), (self.x.overwrite(), 9u32))
            .expect("launch")
            .wait()
            .expect("wait");
        let moved = since(&self.rt, &before);
        assert_eq!((moved.in_bytes(), moved.zeroed_bytes), (0, 0), "dead bytes were copied: {moved}");
        assert!(self.x.iter().all(|v| *v == 9));
        // Every kind of start and end inside pages (bindings start at multiples of 64 words here).
        for (from, to) in
            [(64, 65), (WORDS - 64, WORDS + 1), (WORDS, 2 * WORDS), (128, 5 * WORDS + 63), (N - 1 - 960, N)]
        {
            let from = from / 64 * 64;
            self.x.iter_mut().enumerate().for_each(|(i, v)| *v = i as u32);
            let before = self.rt.stats();
            let launch = self.rt.launch(
                &fill,
                Grid::linear(to - from),
                (self.x.slice_mut(from..to).overwrite(), 3u32),
            );
            launch.expect("launch").wait().expect("wait");
            let moved = since(&self.rt, &before);
            assert!(moved.in_bytes() <= 2 * PAGE as u64, "only the two pages at the ends: {moved}");
            for (i, v) in self.x.iter().enumerate() {
                let want = if (from..to).contains(&i) { 3 } else { i as u32 };
                assert_eq!(*v, want, "word {i} after overwrite of {from}..{to}");
            }
        }
    }

    /// Any offset by device address; two arguments on one page by bindings.
    fn odd_offsets(&mut self) {
        let saxpy = kernel(&self.rt, spv::SAXPY_ADDRESS);
        let (n, a) = (10_000, 3.0f32);
        let mut from = self.rt.alloc::<f32>(30_000).expect("alloc");
        let mut to = self.rt.alloc::<f32>(30_000).expect("alloc");
        for (f, t) in [(0, 0), (1, 2), (WORDS - 1, 1), (3, WORDS + 1), (2 * WORDS + 5, 3 * WORDS - 1)] {
            from.iter_mut().enumerate().for_each(|(i, v)| *v = i as f32);
            to.iter_mut().enumerate().for_each(|(i, v)| *v = 0.5 * i as f32);
            let (from_part, mut to_part) = (from.slice(f..f + n), to.slice_mut(t..t + n));
            let arguments = (from_part.read(), to_part.write(), a, n as u32);
            self.rt.launch(&saxpy, Grid::linear(n), arguments).expect("launch");
            for (i, v) in to.iter().enumerate() {
                let old = 0.5 * i as f32;
                let want = if (t..t + n).contains(&i) { a * (f + i - t) as f32 + old } else { old };
                assert_eq!(*v, want, "element {i}, offsets {f} and {t}");
            }
        }
        let saxpy = kernel(&self.rt, spv::SAXPY);
        from.iter_mut().enumerate().for_each(|(i, v)| *v = i as f32);
        // SAFETY: nothing touches the array between here and the end of the launch; the two parts share a page, not a byte.
        let (read, write) =
            unsafe { (from.raw(AccessKind::Read, 0..64), from.raw(AccessKind::Write, 64..128)) };
        self.rt.launch(&saxpy, Grid::linear(64), (read, write, 2.0f32, 64u32)).expect("launch");
        for (i, v) in from.iter().enumerate() {
            let want = if (64..128).contains(&i) { 2.0 * (i - 64) as f32 + i as f32 } else { i as f32 };
            assert_eq!(*v, want, "element {i}");
        }
    }

    /// The calls that bring their own kernels, and prefetches.
    fn fill_copy_prefetch(&mut self) {
        let mut y = self.rt.alloc::<u32>(N).expect("alloc");
        self.rt.fill(self.x.overwrite(), 41).expect("fill");
        self.x.slice_mut(1..2)[0] = 42;
        self.rt.copy(self.x.read(), y.overwrite()).expect("copy");
        assert!(y.iter().enumerate().all(|(i, v)| *v == 41 + u32::from(i == 1)));
        self.rt.fill(y.slice_mut(0..0).overwrite(), 1).expect("nothing to fill").wait().expect("wait");
        let before = self.rt.stats();
        y[3] = 7;
        y.prefetch_to_device().expect("prefetch").wait().expect("wait");
        assert_eq!(places(&y), self.read_by_both(), "a prefetch takes nothing from the host");
        assert_eq!(since(&self.rt, &before).in_prefetch_bytes > 0, moves(&y));
        assert_eq!(y[3], 7);
        self.rt.fill(y.overwrite(), 5).expect("fill").wait().expect("wait");
        let before = self.rt.stats();
        y.prefetch_to_host().expect("prefetch").wait().expect("wait");
        assert_eq!(places(&y), self.read_by_both());
        assert!(y.iter().all(|v| *v == 5));
        let moved = since(&self.rt, &before);
        assert_eq!((moved.out_prefetch_bytes, moved.out_fault_bytes), (self.all(), 0), "{moved}");
    }

    /// Snapshots that touch nothing.
    fn descriptors(&mut self) {
        // Too large to be used in place where large arrays are not.
        let mut y = self.rt.alloc::<u32>(30 * WORDS + 1).expect("alloc");
        let runs = y.residency().expect("residency");
        let bytes = (30 * PAGE as u64 + 4) as usize;
        let absent = Residency {
            bytes: (0..bytes as u64).into(),
            location: Location::Absent,
            held: false,
            dirty: false,
            pinned: false,
        };
        assert_eq!(runs, [absent]);
        assert_eq!(self.rt.page_flags(y.as_ptr()), Some(PageFlags::empty()));
        let here = 5u8;
        assert_eq!(self.rt.page_flags(&raw const here), None);
        assert!(self.rt.is_addressable(&raw const here) && self.rt.is_addressable(y.as_ptr()));
        y.fill(1);
        self.rt.fill(y.slice_mut(WORDS..2 * WORDS).overwrite(), 2).expect("fill").wait().expect("wait");
        let before = self.rt.stats();
        let runs = y.residency().expect("residency");
        let seen: Vec<_> = runs.iter().map(|r| (r.bytes.start, r.bytes.end, r.location, r.dirty)).collect();
        let (page, end) = (PAGE as u64, bytes as u64);
        let middle = y.as_ptr().wrapping_add(WORDS);
        let flags = self.rt.page_flags(middle).expect("managed");
        if moves(&y) {
            let want = [
                (0, page, Location::Host, false),
                (page, 2 * page, Location::Device, true),
                (2 * page, end, Location::Host, false),
            ];
            assert_eq!(seen, want);
            assert_eq!(flags.location(), Location::Device);
            assert!(
                !flags.intersects(PageFlags::HOST_VALID | PageFlags::MAY_BE_WRITABLE | PageFlags::LOST),
                "{flags:?}"
            );
            assert!(!self.rt.is_addressable(middle) && self.rt.is_addressable(y.as_ptr()));
        } else {
            assert_eq!(seen, [(0, end, Location::Host, false)]);
            assert_eq!(flags.location(), Location::Host);
            assert!(self.rt.is_addressable(middle));
        }
        assert_eq!(since(&self.rt, &before).faults_read, 0, "a snapshot touches nothing");
        assert_eq!(y[WORDS], 2);
        assert!(self.rt.is_addressable(middle));
        let maps = self.rt.pagemaps();
        assert_eq!(maps.is_empty(), !moves(&self.x), "no device memory is taken for what stays in place");
        for map in &maps {
            assert_eq!(map.kind(), self.setup.kind);
            let addresses = map.device_addresses();
            for address in [addresses.start, addresses.end - 1] {
                assert_eq!(self.rt.find_pagemap(address).map(|m| m.id()), Some(map.id()));
            }
        }
        assert_eq!(self.rt.find_pagemap(0), None);
    }

    /// Guards keep pages on the host, files go in and out under them.
    fn guards_and_files(&mut self) {
        let add_one = kernel(&self.rt, spv::ADD_ONE);
        self.x.iter_mut().enumerate().for_each(|(i, v)| *v = i as u32);
        self.rt.launch(&add_one, Grid::linear(N), (self.x.write(),)).expect("launch");
        {
            let guard = self.x.host().expect("guard");
            assert_eq!((guard[0], guard.len()), (1, N));
            assert!(self.x.residency().expect("residency").iter().all(|r| r.pinned));
            let refused = self.rt.launch(
                &kernel(&self.rt, spv::CHECKSUM),
                Grid::linear(1),
                (self.x.read(), self.x.read()),
            );
            assert!(refused.is_err());
        }
        assert!(self.x.residency().expect("residency").iter().all(|r| !r.pinned));
        self.x.host_mut().expect("guard")[7] = 1000;
        self.rt.launch(&add_one, Grid::linear(N), (self.x.write(),)).expect("launch");
        let file = Scratch::new("words");
        let mut out = std::fs::File::create(&file.0).expect("create");
        self.x.write_to(&mut out).expect("write_to");
        drop(out);
        let mut y = self.rt.alloc::<u32>(N).expect("alloc");
        self.rt.fill(y.overwrite(), 0).expect("fill");
        let opened = std::fs::OpenOptions::new().read(true).write(true).open(&file.0).expect("open");
        y.read_from(&mut &opened).expect("read_from");
        let want = |i: usize| if i == 7 { 1001 } else { i as u32 + 2 };
        assert!(y.iter().enumerate().all(|(i, v)| *v == want(i)));
        self.rt.fill(y.overwrite(), 0).expect("fill");
        y.slice_mut(10..5000).read_exact_at(&opened, 40).expect("read_exact_at");
        assert!(y.iter().enumerate().all(|(i, v)| *v == if (10..5000).contains(&i) { want(i) } else { 0 }));
        y.slice(0..WORDS).write_all_at(&opened, 0).expect("write_all_at");
        self.x.read_exact_at(&opened, 0).expect("read_exact_at");
        assert_eq!((self.x[0], self.x[10], self.x[WORDS]), (0, 12, WORDS as u32 + 2));
        assert!(y.read_from(&mut std::io::empty()).is_err(), "too short a file is the reader's error");
    }

    /// What comes home when room is made: nothing after `read`, what was written after `write`.
    fn evictions(&mut self) {
        let add_one = kernel(&self.rt, spv::ADD_ONE);
        let checksum = kernel(&self.rt, spv::CHECKSUM);
        let mut sum = self.rt.alloc::<u32>(1).expect("alloc");
        self.x.iter_mut().enumerate().for_each(|(i, v)| *v = i as u32);
        self.rt.trim(ALL).expect("trim");
        let until = Instant::now() + Duration::from_secs(5);
        while self.rt.device_memory().1 > 0 {
            // Arrays dropped above give their frames back after their last operation.
            assert!(Instant::now() < until, "nothing uses these {} bytes", self.rt.device_memory().1);
            std::thread::sleep(Duration::from_millis(1));
        }
        self.rt
            .launch(&checksum, Grid::linear(N), (self.x.read(), sum.write()))
            .expect("launch")
            .wait()
            .expect("wait");
        assert_ne!(sum[0], 0);
        if !moves(&self.x) {
            assert_eq!(self.rt.trim(ALL).expect("trim"), 0, "nothing there");
            assert_eq!(places(&self.x), ((N * 4) as u64, 0, 0));
            return;
        }
        let before = self.rt.stats();
        assert!(self.rt.trim(ALL).expect("trim") >= up(N * 4, SUB));
        let moved = since(&self.rt, &before);
        assert_eq!(moved.out_bytes(), 0, "clean pages are let go: {moved}");
        assert!(moved.evictions_clean > 0, "{moved}");
        let pages = 40..77;
        let words = pages.start * WORDS..pages.end * WORDS;
        self.rt.launch(&checksum, Grid::linear(N), (self.x.read(), sum.write())).expect("launch");
        let launch =
            self.rt.launch(&add_one, Grid::linear(words.len()), (self.x.slice_mut(words.clone()).write(),));
        launch.expect("launch");
        let before = self.rt.stats();
        self.rt.trim(ALL).expect("trim");
        self.rt.sync().expect("sync");
        let moved = since(&self.rt, &before);
        let (least, most) =
            ((pages.len() * PAGE) as u64, (up(pages.end, 16) - 32) * PAGE as u64 + PAGE as u64);
        assert!((least..=most).contains(&moved.out_evict_bytes), "{least}..={most}: {moved}");
        assert_eq!(places(&self.x), ((N * 4) as u64, 0, 0));
        let before = self.rt.stats();
        self.rt.launch(&add_one, Grid::linear(N), (self.x.write(),)).expect("launch");
        let moved = since(&self.rt, &before);
        assert_eq!(moved.refault_bytes, up(N * 4, PAGE), "it had been there before: {moved}");
        for (i, v) in self.x.iter().enumerate() {
            assert_eq!(*v, i as u32 + 1 + u32::from(words.contains(&i)), "word {i}");
        }
    }
}

#[test]
fn one_script_in_every_kind_and_both_transfer_ways() {
    for setup in setups() {
        let started = Instant::now();
        let _dog = watchdog(&format!("script {setup:?}"), 60);
        let mut script = Script::new(setup);
        script.write_and_read_back();
        script.read_duplication();
        script.overwrite();
        script.odd_offsets();
        script.fill_copy_prefetch();
        script.descriptors();
        script.guards_and_files();
        script.evictions();
        let Script { rt, x, .. } = script;
        drop(x);
        clean(&rt);
        println!("{setup:?}: {:?}", started.elapsed());
    }
}

#[test]
fn arrays_larger_than_the_limit_go_through_windows() {
    let _dog = watchdog("windows", 60);
    let n = 5_000_000;
    let rt = open(checked().device_memory_limit(10 << 20));
    let mut x = rt.alloc::<f32>(n).expect("alloc");
    let mut y = rt.alloc::<f32>(n).expect("alloc");
    x.iter_mut().enumerate().for_each(|(i, v)| *v = (i % 1000) as f32);
    y.fill(1.0);
    let saxpy = kernel(&rt, spv::SAXPY);
    let before = rt.stats();
    let windows = rt.windows(n, 8, 2);
    assert!(windows.len() >= 4);
    for window in windows {
        let count = window.len();
        let (from, mut to) = (x.slice(window.clone()), y.slice_mut(window));
        let arguments = (from.read(), to.write(), 2.0f32, count as u32);
        rt.launch(&saxpy, Grid::linear(count), arguments).expect("launch");
        assert!(rt.device_memory().1 <= 10 << 20);
    }
    assert!(y.iter().enumerate().all(|(i, v)| *v == 2.0 * (i % 1000) as f32 + 1.0));
    let moved = since(&rt, &before);
    let whole = rt.launch(&saxpy, Grid::linear(n), (x.read(), y.write(), 1.0f32, 1u32));
    if moves(&x) {
        assert_eq!(moved.in_bytes(), 2 * up(n * 4, PAGE), "each byte in once: {moved}");
        assert_eq!(moved.out_bytes(), up(n * 4, PAGE), "each written byte home once: {moved}");
        assert!(matches!(whole, Err(Error::Memory(MemoryError::WorkingSetTooLarge { .. }))));
    } else {
        assert_eq!(moved.in_bytes() + moved.out_bytes(), 0, "in place: {moved}");
        whole.expect("no limit to what takes no device memory").wait().expect("wait");
        assert_eq!((y[0], y[1]), (1.0, 3.0));
    }
    clean(&rt);
}

#[test]
fn the_limit_changes_at_run_time() {
    let _dog = watchdog("limit", 60);
    let rt = open(moving().device_memory_limit(16 << 20));
    let mut x = rt.alloc::<u32>(3 << 20).expect("alloc");
    rt.fill(x.overwrite(), 1).expect("fill");
    assert_eq!(rt.device_memory(), (16 << 20, 12 << 20));
    rt.set_device_memory_limit(4 << 20).expect("limit");
    let (limit, used) = rt.device_memory();
    assert!(limit == 4 << 20 && used <= limit, "{used} of {limit}");
    assert!(x.iter().all(|v| *v == 1));
    assert!(rt.fill(x.slice_mut(0..2 << 20).overwrite(), 2).is_err(), "8 MiB at a limit of 4");
    rt.fill(x.slice_mut(0..1 << 20).overwrite(), 2).expect("fits");
    rt.set_device_memory_limit(16 << 20).expect("limit");
    rt.fill(x.slice_mut(0..2 << 20).overwrite(), 3).expect("fits now");
    assert_eq!((x[0], x[(2 << 20) - 1], x[2 << 20]), (3, 3, 1));
    clean(&rt);
}

#[test]
fn launches_wait_time_out_and_are_batched() {
    let _dog = watchdog("batches", 60);
    let rt = open(moving());
    let spin = timed_kernel(&rt, spv::SPIN);
    let add_one = kernel(&rt, spv::ADD_ONE);
    let mut x = rt.alloc::<u32>(4096).expect("alloc");
    let busy = rt.launch(&spin, Grid::linear(4096), (x.write(), 20_000u32, 4096u32)).expect("launch");
    let started = Instant::now();
    assert!(!busy.wait_timeout(Duration::from_millis(1)).expect("wait_timeout"));
    assert!(started.elapsed() < Duration::from_millis(200), "{:?}", started.elapsed());
    assert!(!busy.is_done() && busy.elapsed().is_none());
    busy.wait().expect("wait");
    assert!(busy.elapsed().expect("a clock") > Duration::from_millis(5));
    let mut y = rt.alloc::<u32>(4096).expect("alloc");
    let plain = rt.launch(&add_one, Grid::linear(4096), (y.write(),)).expect("launch");
    plain.wait().expect("wait");
    assert!(plain.elapsed().is_none(), "nobody asked for its time");
    let before = rt.stats();
    for _ in 0..100 {
        rt.launch(&add_one, Grid::linear(4096), (y.write(),)).expect("launch");
    }
    rt.flush();
    rt.sync().expect("sync");
    let done = since(&rt, &before);
    assert_eq!((done.launches, done.launches_resident, done.in_bytes()), (100, 100, 0), "{done}");
    assert!(done.submits <= 60, "100 launches in {} submits", done.submits);
    assert!(y.iter().all(|v| *v == 101));
    // No conflict, no barrier: two arrays in turn need one barrier a launch at most.
    rt.launch(&add_one, Grid::linear(0), (y.write(),)).expect("an empty grid").wait().expect("wait");
    assert_eq!(y[0], 101, "an empty grid runs nothing");
    let empty = rt.alloc::<u32>(0).expect("an empty allocation");
    assert_eq!((empty.len(), empty.count(), empty.label()), (0, 0, "(empty)"));
    assert!(y.label().contains("e2e_basic.rs:"), "{}", y.label());
    clean(&rt);
}

#[test]
fn older_kernels() {
    let _dog = watchdog("older kernels", 60);
    for (no_poison, no_continue_wp) in [(true, false), (false, true), (true, true)] {
        let rt = open(checked().older_kernel(no_poison, no_continue_wp));
        let add_one = kernel(&rt, spv::ADD_ONE);
        let mut x = rt.alloc::<u32>(100_000).expect("alloc");
        for round in 0..5u32 {
            rt.launch(&add_one, Grid::linear(100_000), (x.write(),)).expect("launch");
            assert!(x.iter().all(|v| *v == 2 * round + 1));
            x.prefetch_to_device().expect("prefetch");
            x.iter_mut().for_each(|v| *v += 1);
        }
        clean(&rt);
    }
}

/// What people read: doctor, statistics, the launch trace, the ring of events.
#[test]
fn reports() {
    let _dog = watchdog("reports", 60);
    let trace = Scratch::new("trace");
    let rt = open(checked().record_launches(&trace.0).device_memory_limit(16 << 20).in_place_bytes(0));
    let add_one = kernel(&rt, spv::ADD_ONE);
    let mut x = rt.alloc_named::<u32>(3 * WORDS, "x").expect("alloc");
    rt.launch(&add_one, Grid::linear(3 * WORDS), (x.write(),)).expect("launch");
    rt.launch(&add_one, Grid::linear(64), (x.slice_mut(WORDS..WORDS + 64).write(),)).expect("launch");
    assert!(
        rt.launch(&add_one, Grid::linear(1), (x.slice_mut(1..2).write(),)).is_err(),
        "no line for what was refused"
    );
    assert_eq!((x[0], x[WORDS]), (1, 2));
    let lines = std::fs::read_to_string(&trace.0).expect("the trace is there at once");
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains(r#""start":0,"end":12288,"access":"write""#), "{}", lines[0]);
    assert!(
        lines[1].contains(r#""groups":[1,1,1]"#) && lines[1].contains(r#""start":4096,"end":4352"#),
        "{}",
        lines[1]
    );
    let stats = rt.stats();
    assert!(stats.to_json().contains(r#""launches":2,"#), "{}", stats.to_json());
    assert!(
        stats.to_string().contains("to device")
            && stats.fields().any(|(name, n)| name == "launches" && n == 2)
    );
    let events = rt.trace_events();
    assert!(!events.is_empty() && events.is_sorted_by_key(|e| e.at_ns), "{events:?}");
    let doctor = rt.doctor().to_string();
    for part in [
        rt.doctor().device.candidates[rt.doctor().device.chosen].name.as_str(),
        "queues",
        "memory",
        "16 MiB of frames",
        "  placement  ",
        "  in place   ",
        "  arrays     ",
        "VKHMM_PLACEMENT",
        "VKHMM_IN_PLACE_BYTES",
        "fault engine",
        "reservation",
        "VKHMM_MEMORY_LIMIT",
        "Verdict:",
    ] {
        assert!(doctor.contains(part), "{part:?} is not in\n{doctor}");
    }
    clean(&rt);
}
