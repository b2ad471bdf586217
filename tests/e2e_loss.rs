//! Loss and failure of the device, forced at the n-th call for every n of launches, evictions, touches and prefetches: every byte
//! is current, or Lost and named; nothing is stale, nothing hangs. The first setup takes every n, the others leave some out;
//! VKHMM_LOSS_STEP=1 leaves none out.

mod common;

use common::{
    ALL, PAGE, SIGBUS, Scratch, Setup, WORDS, again, checked, declared, kernel, open, quiet, role, setting,
    spv, system_calls_fault, watchdog,
};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};
use vkhmm::{
    Error, Failure, Grid, Kernel, Launch, Location, Managed, MemoryError, MemoryKind, Runtime, Switches,
};

/// Words of each array: more than a block, so that they are imported.
const N: usize = 530 * WORDS + 17;
/// Room for two of the three.
const LIMIT: u64 = 5 << 20;

struct Array {
    real: Managed<u32>,
    twin: Vec<u32>,
}

struct Play {
    rt: Runtime,
    arrays: [Array; 3],
    launches: Vec<Launch>,
    add_one: Kernel,
    sink: File,
    _scratch: Scratch,
}

/// What a step came to.
enum Came {
    Done,
    Lost,
    Failed(Error),
}

fn came<T>(result: Result<T, Error>) -> Came {
    match result {
        Ok(_) => Came::Done,
        Err(error) if error.is_lost() => Came::Lost,
        Err(error) => Came::Failed(error),
    }
}

/// The steps of the script. Each changes the twin exactly if the call was not refused.
const STEPS: &[fn(&mut Play) -> Came] = &[
    |p| p.add_one(0, 0..N),
    |p| p.copy(),
    |p| p.touch(0, 3),
    |p| came(p.arrays[2].real.prefetch_to_device()),
    |p| p.add_one(2, 0..N),
    |p| p.touch(1, 500),
    |p| p.add_one(0, 64..40 * WORDS),
    |p| p.touch(0, 20),
    |p| p.store(2, 7),
    |p| came(p.arrays[2].real.prefetch_to_host()),
    |p| p.add_one(1, 100 * WORDS..N),
    |p| came(p.launches.last().map_or(Ok(()), Launch::wait)),
    |p| p.add_one(2, 0..5 * WORDS),
    |p| p.add_one(0, 0..N),
    |p| came(p.rt.trim(ALL)),
    |p| p.touch(2, 1),
    |p| p.fill(1, 10..4000),
    |p| p.touch(1, 0),
    |p| p.add_one(0, 0..N),
    |p| came(p.arrays[0].real.try_slice().map(|_| ())),
    |p| came(p.rt.set_device_memory_limit(LIMIT / 2)),
    |p| came(p.rt.sync()),
];

impl Play {
    /// The arrays are filled on the host. `None`: the device was lost or failed before there was a runtime or a kernel.
    fn open(setup: Setup, switches: Switches) -> Option<Self> {
        let rt = match setup.with(switches).device_memory_limit(LIMIT).build() {
            Ok(rt) => rt,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return None;
            }
        };
        // SAFETY: the shipped module is valid, ends, has no data race and stays inside its arguments.
        let add_one = unsafe { rt.kernel(spv::ADD_ONE) }.ok()?;
        let arrays = [5, 6, 7].map(|value| {
            let mut real = rt.alloc_named::<u32>(N, &format!("array {value}")).expect("alloc");
            real.fill(value);
            Array { real, twin: vec![value; N] }
        });
        let scratch = Scratch::new("sink");
        let sink = File::create(&scratch.0).expect("create");
        Some(Self { rt, arrays, launches: Vec::new(), add_one, sink, _scratch: scratch })
    }

    fn add_one(&mut self, which: usize, words: std::ops::Range<usize>) -> Came {
        let Array { real, twin } = &mut self.arrays[which];
        let grid = Grid::linear(words.len());
        match self.rt.launch(&self.add_one, grid, (real.slice_mut(words.clone()).write(),)) {
            Ok(launch) => {
                twin[words].iter_mut().for_each(|v| *v += 1);
                self.launches.push(launch);
                Came::Done
            }
            Err(error) => came::<()>(Err(error)),
        }
    }

    fn copy(&mut self) -> Came {
        let [a, b, _] = &mut self.arrays;
        match self.rt.copy(a.real.read(), b.real.overwrite()) {
            Ok(launch) => {
                b.twin.copy_from_slice(&a.twin);
                self.launches.push(launch);
                Came::Done
            }
            Err(error) => came::<()>(Err(error)),
        }
    }

    fn fill(&mut self, which: usize, words: std::ops::Range<usize>) -> Came {
        // `fill` binds what it fills, so it starts where a binding can.
        let words = words.start / 64 * 64..words.end;
        let Array { real, twin } = &mut self.arrays[which];
        match self.rt.fill(real.slice_mut(words.clone()).overwrite(), 99) {
            Ok(launch) => {
                twin[words].fill(99);
                self.launches.push(launch);
                Came::Done
            }
            Err(error) => came::<()>(Err(error)),
        }
    }

    /// Loads a page; by the fault path where a refused load is an error code and not a signal.
    fn touch(&self, which: usize, page: usize) -> Came {
        let Array { real, twin } = &self.arrays[which];
        let words = page * WORDS..(page + 1) * WORDS;
        if system_calls_fault(&self.rt) {
            let start = real.as_ptr().wrapping_add(words.start).cast::<u8>();
            // SAFETY: the page is inside the array. If it is lost, the system call says so, and nothing is loaded here.
            let bytes = unsafe { std::slice::from_raw_parts(start, PAGE) };
            if let Err(error) = self.sink.write_all_at(bytes, 0) {
                assert_eq!(error.raw_os_error(), Some(14), "{error}");
                let lost = real.slice(words).check();
                assert!(matches!(&lost, Err(e) if e.is_lost()), "EFAULT from a page that is {lost:?}");
                return Came::Lost;
            }
        }
        match real.slice(words.clone()).try_slice() {
            Ok(seen) => assert_eq!(*seen, twin[words], "page {page} of array {which}"),
            Err(error) => return came::<()>(Err(error)),
        }
        Came::Done
    }

    fn store(&mut self, which: usize, page: usize) -> Came {
        let Array { real, twin } = &mut self.arrays[which];
        let mut part = real.slice_mut(page * WORDS..(page + 1) * WORDS);
        match part.host_mut() {
            Ok(mut guard) => {
                guard.fill(1234);
                twin[page * WORDS..(page + 1) * WORDS].fill(1234);
                Came::Done
            }
            Err(error) => came::<()>(Err(error)),
        }
    }

    /// Runs the script up to the loss; a step that failed in another way is tried again, and must go through then.
    fn run(&mut self) -> Outcome {
        let mut failed = Vec::new();
        for (number, step) in STEPS.iter().enumerate() {
            let before: Vec<_> = self.arrays.iter().map(|a| a.real.residency().expect("residency")).collect();
            match step(self) {
                Came::Done => {}
                Came::Lost => return Outcome { lost_at: Some(number), failed },
                Came::Failed(error) => {
                    let after: Vec<_> =
                        self.arrays.iter().map(|a| a.real.residency().expect("residency")).collect();
                    assert_eq!(settled(&after), settled(&before), "a refused step moved something: {error}");
                    failed.push(format!("step {number}: {error}"));
                    match step(self) {
                        Came::Done => {}
                        Came::Lost => return Outcome { lost_at: Some(number), failed },
                        Came::Failed(again) => panic!("step {number} failed twice: {error}; {again}"),
                    }
                }
            }
        }
        Outcome { lost_at: None, failed }
    }

    /// Every byte is current, or lost and named. The bytes lost.
    fn check(&mut self) -> u64 {
        let mut lost_bytes = 0;
        for launch in &self.launches {
            if let Err(error) = launch.wait() {
                assert!(error.is_lost(), "{error}");
            }
        }
        for Array { real, twin } in &self.arrays {
            for (page, want) in twin.chunks(WORDS).enumerate() {
                let part = real.slice(page * WORDS..page * WORDS + want.len());
                // In this order: the copy home may be the call that finds the device gone.
                let (seen, named) = (part.try_slice(), part.check());
                match (named, seen) {
                    (Ok(()), Ok(seen)) => {
                        assert_eq!(seen, want, "page {page} of `{}` is stale", real.label())
                    }
                    (Err(named), Err(_)) => {
                        let Error::Memory(MemoryError::Lost { label, start, end, cause }) = &named else {
                            panic!("check of page {page}: {named}")
                        };
                        let bytes = (page * PAGE) as u64..(page * PAGE + want.len() * 4) as u64;
                        assert_eq!(
                            (&**label, *start, *end),
                            (real.label(), bytes.start, bytes.end),
                            "{named}"
                        );
                        assert!(
                            !cause.is_empty() && named.to_string().contains("were lost with the device"),
                            "{named}"
                        );
                        // Between the news of the loss and its settling the snapshot still says Device.
                        let until = Instant::now() + Duration::from_secs(10);
                        while part
                            .residency()
                            .expect("residency")
                            .iter()
                            .any(|r| r.location != Location::Lost)
                        {
                            assert!(Instant::now() < until, "{:?}", part.residency());
                            std::thread::yield_now();
                        }
                        lost_bytes += end - start;
                    }
                    (a, b) => panic!("page {page}: check says {a:?}, try_slice {:?}", b.map(|_| ())),
                }
            }
        }
        lost_bytes
    }

    /// What is still possible on a lost device, and what is not.
    fn after_loss(&mut self) {
        let until = Instant::now() + Duration::from_secs(10);
        while !self.rt.trim(0).is_err_and(|e| e.is_lost()) {
            assert!(Instant::now() < until, "nobody noticed the loss");
            std::thread::yield_now();
        }
        let launch = self.rt.launch(&self.add_one, Grid::linear(1), (self.arrays[0].real.write(),)).err();
        let fill = self.rt.fill(self.arrays[1].real.overwrite(), 1).err();
        let prefetch = self.arrays[2].real.prefetch_to_device().err();
        for refused in [launch, fill, prefetch, self.rt.trim(1).err()] {
            assert!(refused.as_ref().is_some_and(Error::is_lost), "{refused:?}");
        }
        // The host's side goes on: new memory, and what was always there.
        let mut fresh = self.rt.alloc::<u32>(3 * WORDS).expect("alloc");
        fresh.fill(8);
        assert!(fresh.check().is_ok() && fresh.iter().all(|v| *v == 8));
        for Array { real, .. } in &mut self.arrays {
            if let Ok(mut guard) = real.slice_mut(..WORDS).host_mut() {
                guard[0] = 4;
                assert_eq!(guard[0], 4);
            }
        }
    }
}

/// Where everything is, whoever uses it.
fn settled(runs: &[Vec<vkhmm::Residency>]) -> Vec<(u64, Location)> {
    let of_page = |r: &vkhmm::Residency| {
        (r.bytes.start..r.bytes.end).step_by(PAGE).map(|at| (at, r.location)).collect::<Vec<_>>()
    };
    runs.iter().flatten().flat_map(of_page).collect()
}

struct Outcome {
    lost_at: Option<usize>,
    failed: Vec<String>,
}

/// The n-th calls to try: all of them, or every `step`-th; all with VKHMM_LOSS_STEP=1.
fn calls(step: u64) -> impl Iterator<Item = u64> {
    (1..10_000).step_by(setting("VKHMM_LOSS_STEP", step) as usize)
}

fn rows() -> [Setup; 3] {
    [
        Setup { kind: MemoryKind::DevicePrivate, import: true, strict: false },
        Setup { kind: MemoryKind::DevicePrivate, import: false, strict: true },
        Setup { kind: MemoryKind::DeviceCoherent, import: false, strict: false },
    ]
}

#[test]
fn lost_at_every_call() {
    // Every call in the first row; the others repeat it with fewer.
    for (setup, step) in rows().into_iter().zip([1, 3, 3]) {
        let started = Instant::now();
        let (mut runs, mut lost_runs, mut most, mut untouched) = (0, 0, 0, 0);
        let mut steps = std::collections::BTreeSet::new();
        for n in calls(step) {
            let _dog = watchdog(&format!("lost at call {n}, {setup:?}"), 60);
            let Some(mut play) = Play::open(setup, Switches { lose_at_call: Some(n), ..Switches::default() })
            else {
                continue;
            };
            let outcome = play.run();
            assert!(outcome.failed.is_empty(), "call {n}: {:?}", outcome.failed);
            runs += 1;
            let lost = play.check();
            if outcome.lost_at.is_some() || play.rt.device_calls() >= n {
                lost_runs += 1;
                steps.extend(outcome.lost_at);
                most = most.max(lost);
                play.after_loss();
            } else {
                assert_eq!(lost, 0);
                untouched += 1;
            }
            quiet(&play.rt);
            if untouched >= 2 {
                break;
            }
        }
        let time = started.elapsed();
        println!(
            "{setup:?}: {lost_runs} of {runs} runs lost, at steps {steps:?}, at most {most} bytes; {time:?}"
        );
        assert!(
            untouched >= 2 && lost_runs > 15 && most > 0 && steps.len() >= 6,
            "the sweep missed something"
        );
    }
}

#[test]
fn failed_at_every_call() {
    let failures = [Failure::OutOfDeviceMemory, Failure::OutOfHostMemory, Failure::Refused];
    for (setup, failure) in rows().into_iter().zip(failures) {
        let started = Instant::now();
        let (mut runs, mut lost_runs, mut failed, mut untouched) = (0, 0, Vec::new(), 0);
        for n in calls(4) {
            let _dog = watchdog(&format!("{failure:?} at call {n}, {setup:?}"), 60);
            let Some(mut play) =
                Play::open(setup, Switches { fail_at_call: Some((n, failure)), ..Switches::default() })
            else {
                continue;
            };
            let outcome = play.run();
            runs += 1;
            let lost = play.check();
            lost_runs += u32::from(outcome.lost_at.is_some());
            assert!(lost == 0 || outcome.lost_at.is_some() || play.rt.sync().is_err());
            if outcome.lost_at.is_none() && outcome.failed.is_empty() && play.rt.device_calls() < n {
                untouched += 1;
            }
            failed.extend(outcome.failed);
            quiet(&play.rt);
            if untouched >= 2 {
                break;
            }
        }
        println!("{failure:?}: {runs} runs, {lost_runs} lost, errors {failed:?}; {:?}", started.elapsed());
        assert!(untouched >= 2, "the sweep did not reach the end");
    }
}

/// The touch of a lost page is SIGBUS, or a panic where slices are brought home; never old bytes.
#[test]
fn touching_lost_pages() {
    const TEST: &str = "touching_lost_pages";
    let setup = rows()[1];
    if role().is_some() {
        for n in 20.. {
            let switches = Switches { lose_at_call: Some(n), ..Switches::default() };
            let Some(mut play) = Play::open(setup, switches) else { continue };
            play.run();
            if play.check() == 0 {
                continue;
            }
            for Array { real, .. } in &play.arrays {
                let lost =
                    real.residency().expect("residency").into_iter().find(|r| r.location == Location::Lost);
                if let Some(run) = lost {
                    println!("touching");
                    println!("loaded {}", real[run.bytes.start as usize / 4]);
                }
            }
        }
    }
    let rt = open(checked());
    let ended = again(TEST, "touch", &[], Duration::from_secs(60));
    assert!(
        ended.text.contains("touching") && !ended.text.contains("loaded"),
        "{:?}: {}",
        ended.status,
        ended.text
    );
    assert!(ended.text.contains("the device was lost"), "one line says so: {}", ended.text);
    if declared(&rt) {
        assert_eq!(ended.status.code(), Some(101), "{}", ended.text);
        assert!(ended.text.contains("were lost with the device"), "{}", ended.text);
    } else {
        assert_eq!(ended.signal(), Some(SIGBUS), "{:?}: {}", ended.status, ended.text);
    }
    common::clean(&rt);
}

/// Without a loss the script ends as its twin does.
#[test]
fn the_script_alone() {
    for setup in rows() {
        let _dog = watchdog("script", 60);
        let mut play = Play::open(setup, Switches::default()).expect("a runtime");
        let outcome = play.run();
        assert!(outcome.lost_at.is_none() && outcome.failed.is_empty());
        assert_eq!(play.check(), 0);
        println!("{setup:?}: {} device calls", play.rt.device_calls());
        let _ = kernel(&play.rt, spv::SCALE);
        common::clean(&play.rt);
    }
}
