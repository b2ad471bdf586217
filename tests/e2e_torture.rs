//! Torture: host threads, kernels and system calls own neighbouring words of every page, against prefetches and evictions.
//! Nothing may be lost. VKHMM_TORTURE_SECONDS makes it longer.

mod common;

use common::{
    PAGE, Random, Scratch, WORDS, checked, clean, declared, kernel, moves, open, setting, skipped, spv,
    system_calls_fault, watchdog,
};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vkhmm::{AccessKind, Grid, Kernel, Managed, Runtime, SliceMut};

/// Every sixteenth word belongs to the same owner.
const STRIDE: usize = 16;
/// Pages of the array: three blocks, the last one only partly used.
const PAGES: usize = 1400;
/// Device memory: less than the array.
const LIMIT: u64 = 4 << 20;

fn seconds() -> Duration {
    Duration::from_secs(setting("VKHMM_TORTURE_SECONDS", 10))
}

/// What all threads of the torture share.
struct Rack<'a> {
    rt: &'a Runtime,
    x: &'a Managed<u32>,
    stop: AtomicBool,
}

impl Rack<'_> {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// A word of a page that belongs to `owner`.
    fn word(&self, page: usize, owner: usize, random: &mut Random) -> *mut u32 {
        let within = random.below(WORDS / STRIDE) * STRIDE + owner;
        self.x.as_ptr().wrapping_add(page * WORDS + within).cast_mut()
    }

    /// A host thread: adds one to words of its own, and knows what they must be.
    fn host(&self, owner: usize) -> u64 {
        let mut random = Random::new(owner as u64);
        let mut mine = vec![0u32; PAGES * WORDS];
        let mut done = 0;
        while self.goes_on() {
            let page = random.below(PAGES);
            for near in page..(page + 1 + random.below(3)).min(PAGES) {
                let word = self.word(near, owner, &mut random);
                let at = (word.addr() - self.x.as_ptr().addr()) / 4;
                // SAFETY: the word is inside the array, which outlives this thread, and nobody else uses it: kernels write words of
                // other owners only. The touch may wait for them; that is what it is for.
                let seen = unsafe { word.read_volatile() };
                assert_eq!(seen, mine[at], "word {at} of host thread {owner}: lost after {done} touches");
                if random.chance(70) {
                    // SAFETY: as above: nobody else uses this word.
                    unsafe { word.write_volatile(seen + 1) };
                    mine[at] += 1;
                }
                done += 1;
            }
        }
        self.check(owner, &mine);
        done
    }

    /// A thread whose words only `pread` stores to.
    fn reader(&self, owner: usize, file: &File) -> u64 {
        let mut random = Random::new(owner as u64);
        let mut mine = vec![0u32; PAGES * WORDS];
        let mut done = 0;
        while self.goes_on() {
            let word = self.word(random.below(PAGES), owner, &mut random);
            let at = (word.addr() - self.x.as_ptr().addr()) / 4;
            let number = random.below(1 << 16) as u32 + 1;
            loop {
                // SAFETY: as in `host`: these four bytes are nobody else's.
                let bytes = unsafe { std::slice::from_raw_parts_mut(word.cast::<u8>(), 4) };
                match file.read_exact_at(bytes, u64::from(number) * 4) {
                    Ok(()) => break,
                    // Ordinary users: the page is absent or read-only, so it is fetched by a store, and may go again at once.
                    Err(error) if error.raw_os_error() == Some(14) && !system_calls_fault(self.rt) => {
                        // SAFETY: as above; it stores what is there.
                        unsafe { word.write_volatile(word.read_volatile()) };
                    }
                    Err(error) => panic!("pread: {error}"),
                }
            }
            mine[at] = number;
            // SAFETY: as above: nobody else uses this word.
            assert_eq!(unsafe { word.read_volatile() }, number, "word {at} of pread");
            done += 1;
        }
        self.check(owner, &mine);
        done
    }

    fn check(&self, owner: usize, mine: &[u32]) {
        for (at, want) in mine.iter().enumerate().filter(|(at, _)| at % STRIDE == owner) {
            // SAFETY: as in `host`: the word is this owner's.
            let seen = unsafe { self.x.as_ptr().add(at).read_volatile() };
            assert_eq!(seen, *want, "word {at} (page {}) of owner {owner}, at the end", at / WORDS);
        }
    }

    /// Launches `bump` on its words of random runs of pages.
    fn device(&self, owner: usize, bump: &Kernel) -> u64 {
        let mut random = Random::new(owner as u64);
        let mut counts = vec![0u32; PAGES];
        let mut done = 0;
        while self.goes_on() {
            let first = random.below(PAGES);
            let most = if random.chance(80) { 12 } else { 300 };
            let last = (first + 1 + random.below(most)).min(PAGES);
            // SAFETY: L0 is kept by ownership: the kernel touches words of this owner only, and touches of the pages' other words
            // are raw and meant to wait.
            let access = unsafe { self.x.raw(AccessKind::Write, first * WORDS..last * WORDS) };
            let items = (last - first) * WORDS / STRIDE;
            let launch = self
                .rt
                .launch(bump, Grid::linear(items), (access, owner as u32, STRIDE as u32))
                .expect("launch");
            counts[first..last].iter_mut().for_each(|c| *c += 1);
            done += 1;
            if random.chance(10) {
                launch.wait().expect("wait");
            }
            if random.chance(50) {
                std::thread::sleep(Duration::from_micros(random.below(2000) as u64));
            }
        }
        self.rt.sync().expect("sync");
        let mine: Vec<u32> = (0..PAGES * WORDS).map(|at| counts[at / WORDS]).collect();
        self.check(owner, &mine);
        done
    }

    /// Prefetches, trims, and launches that only read; collects the causes it sees.
    fn mover(&self, causes: &mut BTreeSet<String>) -> u64 {
        let mut random = Random::new(99);
        let checksum = kernel(self.rt, spv::CHECKSUM);
        let mut clean_pages = self.rt.alloc::<u32>(200 * WORDS).expect("alloc");
        clean_pages.fill(3);
        let mut sum = self.rt.alloc::<u32>(1).expect("alloc");
        let mut done = 0;
        while self.goes_on() {
            let first = random.below(PAGES);
            let pages = self.x.slice(first * WORDS..(first + 1 + random.below(100)).min(PAGES) * WORDS);
            match random.below(6) {
                0 | 1 => drop(pages.prefetch_to_device().expect("prefetch")),
                2 => drop(pages.prefetch_to_host().expect("prefetch")),
                3 => drop(self.rt.trim(random.below(LIMIT as usize) as u64).expect("trim")),
                4 => {
                    let arguments = (clean_pages.read(), sum.write());
                    drop(self.rt.launch(&checksum, Grid::linear(200 * WORDS), arguments).expect("launch"));
                }
                _ => {
                    let mut fresh = self.rt.alloc::<u32>(20 * WORDS).expect("alloc");
                    let add_one = kernel(self.rt, spv::ADD_ONE);
                    self.rt.launch(&add_one, Grid::linear(20 * WORDS), (fresh.write(),)).expect("launch");
                    assert_eq!(
                        (fresh[7], fresh[20 * WORDS - 1]),
                        (1, 1),
                        "fresh pages are zeros on the device, too"
                    );
                }
            }
            done += 1;
            if done % 20 == 0 {
                causes.extend(self.rt.trace_events().iter().map(|e| format!("{:?}", e.cause)));
            }
            std::thread::sleep(Duration::from_micros(random.below(3000) as u64));
        }
        done
    }
}

#[test]
fn nothing_is_lost_between_owners_of_one_page() {
    let _dog = watchdog("torture", seconds().as_secs() + 60);
    let rt = open(checked().device_memory_limit(LIMIT).strict_io(false));
    if declared(&rt) {
        return skipped("raw touches beside launches mean nothing under declared");
    }
    let file = Scratch::new("numbers");
    let numbers: Vec<u8> = (0..=1u32 << 16).flat_map(u32::to_ne_bytes).collect();
    std::fs::write(&file.0, numbers).expect("write");
    let file = File::open(&file.0).expect("open");
    let x = rt.alloc::<u32>(PAGES * WORDS).expect("alloc");
    let bump = kernel(&rt, spv::BUMP);
    let rack = Rack { rt: &rt, x: &x, stop: AtomicBool::new(false) };
    let mut causes = BTreeSet::new();
    let done = std::thread::scope(|scope| {
        let rack = &rack;
        let threads = [
            scope.spawn(|| rack.host(0)),
            scope.spawn(|| rack.host(1)),
            scope.spawn(|| rack.device(2, &bump)),
            scope.spawn(|| rack.device(3, &bump)),
            scope.spawn(|| rack.reader(4, &file)),
            scope.spawn(|| rack.mover(&mut causes)),
        ];
        let until = Instant::now() + seconds();
        while Instant::now() < until && !threads.iter().any(|t| t.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
        }
        rack.stop.store(true, Ordering::Relaxed);
        threads.map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let stats = rt.stats();
    println!(
        "touches {}+{}, launches {}+{}, preads {}, moves {}\n{stats}",
        done[0], done[1], done[2], done[3], done[4], done[5]
    );
    println!("causes: {causes:?}");
    let by_touch = [
        ("faults_read", stats.faults_read),
        ("faults_write", stats.faults_write),
        ("faults_parked", stats.faults_parked),
        ("born_bytes", stats.born_bytes),
        ("launches", stats.launches),
    ];
    let by_cause = [
        ("in_launch_bytes", stats.in_launch_bytes),
        ("in_prefetch_bytes", stats.in_prefetch_bytes),
        ("zeroed_bytes", stats.zeroed_bytes),
        ("out_fault_bytes", stats.out_fault_bytes),
        ("out_evict_bytes", stats.out_evict_bytes),
        ("out_prefetch_bytes", stats.out_prefetch_bytes),
        ("evictions_clean", stats.evictions_clean),
        ("evictions_dirty", stats.evictions_dirty),
        ("refault_bytes", stats.refault_bytes),
    ];
    let moves = moves(&x);
    let wrong = by_touch.iter().map(|c| (c, true)).chain(by_cause.iter().map(|c| (c, moves)));
    let wrong: Vec<_> = wrong.filter(|((_, n), happens)| (*n > 0) != *happens).map(|(c, _)| c).collect();
    assert!(wrong.is_empty(), "these never happened, or in place and should not have: {wrong:?}");
    let causes_of_moves =
        ["ToDevice(Launch)", "ToDevice(Prefetch)", "ToHost(Fault)", "ToHost(Evict)", "ToHost(Prefetch)"];
    for (cause, happens) in
        ["FirstTouch", "Revoke"].map(|c| (c, true)).into_iter().chain(causes_of_moves.map(|c| (c, moves)))
    {
        assert_eq!(causes.contains(cause), happens, "events of {cause}: {causes:?}");
    }
    clean(&rt);
}

/// O_DIRECT where the file system has it.
fn open_direct(path: &std::path::Path) -> (File, bool) {
    const O_DIRECT: i32 = if cfg!(target_arch = "aarch64") { 0o200_000 } else { 0o40_000 };
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true);
    match options.clone().custom_flags(O_DIRECT).open(path) {
        Ok(file) => (file, true),
        Err(_) => (options.open(path).expect("open"), false),
    }
}

/// The owner of the left half: files in, prefetches, files in again while they run, files out.
fn files(rt: &Runtime, mut half: SliceMut<'_, u32>, path: &std::path::Path, stop: &AtomicBool) -> u64 {
    let (file, direct) = open_direct(path);
    if !direct {
        skipped("O_DIRECT: this file system has none, plain reads instead");
    }
    let plain = File::open(path).expect("open");
    let words =
        half.residency().expect("residency").iter().map(|r| r.bytes.len() as usize / 4).sum::<usize>();
    let mut want = vec![0u32; words];
    let mut random = Random::new(7);
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let first = random.below(words / WORDS);
        let last = (first + 1 + random.below(64)).min(words / WORDS);
        let at = (random.below(4) * 64 * PAGE) as u64;
        if random.chance(50) {
            // Runs while the pages are read into: it may make them Shared, never take them away.
            half.prefetch_to_device().expect("prefetch");
        }
        let mut part = half.slice_mut(first * WORDS..last * WORDS);
        if system_calls_fault(rt) || declared(rt) {
            file.read_exact_at(bytemuck::cast_slice_mut(&mut part), at).expect("pread on a borrowed slice");
        } else {
            part.read_exact_at(&file, at).expect("pread under a guard");
        }
        plain
            .read_exact_at(bytemuck::cast_slice_mut(&mut want[first * WORDS..last * WORDS]), at)
            .expect("pread");
        let from = random.below(words);
        let to = (from + 40_000).min(words);
        assert_eq!(half.slice(from..to)[..], want[from..to], "after {done} reads");
        done += 1;
    }
    assert_eq!(half[..], want[..], "at the end");
    done
}

/// The owner of the right half: launches, and what they must have done.
fn launches(rt: &Runtime, mut half: SliceMut<'_, u32>, words: usize, stop: &AtomicBool) -> u64 {
    let add_one = kernel(rt, spv::ADD_ONE);
    let mut want = vec![0u32; words];
    let mut random = Random::new(8);
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let from = random.below(words) / 64 * 64;
        let to = (from + 1 + random.below(60_000)).min(words);
        let mut part = half.slice_mut(from..to);
        if random.chance(70) {
            rt.launch(&add_one, Grid::linear(to - from), (part.write(),)).expect("launch");
            want[from..to].iter_mut().for_each(|w| *w += 1);
        } else if random.chance(50) {
            let number = random.next() as u32;
            match rt.fill(part.overwrite(), number) {
                Ok(_) => want[from..to].fill(number),
                Err(error) => panic!("fill: {error}"),
            }
        } else {
            part[0] += 5;
            want[from] += 5;
            assert_eq!(part[..], want[from..to], "after {done} launches");
        }
        done += 1;
    }
    assert_eq!(half[..], want[..], "at the end");
    done
}

#[test]
fn files_on_one_half_launches_on_the_other() {
    let time = seconds() / 3;
    let _dog = watchdog("halves", time.as_secs() + 60);
    for strict in [false, true] {
        let rt = open(checked().device_memory_limit(LIMIT).strict_io(strict));
        let mut x = rt.alloc::<u32>(PAGES * WORDS).expect("alloc");
        let path = Scratch::new("halves");
        let mut random = Random::new(1);
        let bytes: Vec<u8> = (0..256 * PAGE).map(|_| random.next() as u8).collect();
        std::fs::write(&path.0, bytes).expect("write");
        let middle = PAGES / 2 * WORDS;
        let (left, right) = x.split_at_mut(middle).expect("on a page");
        let stop = AtomicBool::new(false);
        let (reads, launched) = std::thread::scope(|scope| {
            let (rt, stop, path) = (&rt, &stop, &path.0);
            let left = scope.spawn(move || files(rt, left, path, stop));
            let right = scope.spawn(move || launches(rt, right, PAGES * WORDS - middle, stop));
            let trims = scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    rt.trim(1 << 20).expect("trim");
                    std::thread::sleep(Duration::from_millis(3));
                }
            });
            let until = Instant::now() + time / 2;
            while Instant::now() < until
                && !left.is_finished()
                && !right.is_finished()
                && !trims.is_finished()
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            stop.store(true, Ordering::Relaxed);
            (left.join(), right.join())
        });
        let (reads, launched) = (reads.expect("files"), launched.expect("launches"));
        println!("strict_io({strict}): {reads} reads into one half, {launched} operations on the other");
        assert!(reads > 10 && launched > 10);
        clean(&rt);
    }
}
