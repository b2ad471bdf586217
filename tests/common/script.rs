//! The script of the failure sweeps: three arrays of which two fit the device, and steps of launches, touches, prefetches and
//! evictions; a twin says what every byte must be, whatever fails at whatever call.

use super::{ALL, PAGE, Scratch, Setup, WORDS, spv, system_calls_fault, watch};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};
use vkhmm::{
    Error, Grid, Kernel, Launch, Location, Managed, MemoryError, MemoryKind, Residency, Runtime, Switches,
};

/// Words of each array: more than a block, so that they are imported.
pub(crate) const N: usize = 530 * WORDS + 17;
/// Room for two of the three.
pub(crate) const LIMIT: u64 = 5 << 20;

pub(crate) struct Array {
    pub(crate) real: Managed<u32>,
    pub(crate) twin: Vec<u32>,
}

pub(crate) struct Play {
    pub(crate) rt: Runtime,
    pub(crate) arrays: [Array; 3],
    pub(crate) launches: Vec<Launch>,
    pub(crate) add_one: Kernel,
    sink: File,
    /// How often one step may fail: so many calls of the host do.
    failures: u64,
    _scratch: Scratch,
}

/// What a step came to.
pub(crate) enum Came {
    Done,
    Lost,
    Failed(Error),
}

pub(crate) fn came<T>(result: Result<T, Error>) -> Came {
    match result {
        Ok(_) => Came::Done,
        Err(error) if error.is_lost() => Came::Lost,
        Err(error) => Came::Failed(error),
    }
}

/// The steps of the script. Each changes the twin exactly if the call was not refused.
pub(crate) const STEPS: &[fn(&mut Play) -> Came] = &[
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
    pub(crate) fn open(setup: Setup, switches: Switches) -> Option<Self> {
        let failures = switches.host.fail.map_or(0, |fail| fail.times);
        let rt = match setup.with(switches).device_memory_limit(LIMIT).build() {
            Ok(rt) => rt,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return None;
            }
        };
        watch::shown(&rt);
        // SAFETY: the shipped module is valid, ends, has no data race and stays inside its arguments.
        let add_one = unsafe { rt.kernel(spv::ADD_ONE) }.ok()?;
        let arrays = [5, 6, 7].map(|value| {
            let label = format!("array {value}");
            let mut real = again(failures, || rt.alloc_named::<u32>(N, &label)).expect("alloc");
            if failures == 0 {
                real.fill(value);
            } else {
                // A first touch without host memory is SIGBUS; here it is an error.
                again(failures, || {
                    real.host_mut()?.fill(value);
                    Ok(())
                })
                .expect("host memory");
            }
            Array { real, twin: vec![value; N] }
        });
        let scratch = Scratch::new("sink");
        let sink = File::create(&scratch.0).expect("create");
        Some(Self { rt, arrays, launches: Vec::new(), add_one, sink, failures, _scratch: scratch })
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
                let lost = real.slice(words.clone()).check();
                if lost.as_ref().is_err_and(Error::is_lost) {
                    return Came::Lost;
                }
                assert!(lost.is_ok() && self.failures > 0, "EFAULT from a page that is {lost:?}");
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

    /// Runs the script up to the loss; a step that failed in another way is tried again as often as calls fail (once, where that
    /// is the device's), and must go through then.
    pub(crate) fn run(&mut self) -> Outcome {
        let mut failed = Vec::new();
        for (number, step) in STEPS.iter().enumerate() {
            let before: Vec<_> = self.arrays.iter().map(|a| a.real.residency().expect("residency")).collect();
            match step(self) {
                Came::Done => {}
                Came::Lost => return Outcome { lost_at: Some(number), failed },
                Came::Failed(error) => {
                    let after: Vec<_> =
                        self.arrays.iter().map(|a| a.real.residency().expect("residency")).collect();
                    self.check_moved(&before, &after, &error);
                    failed.push(format!("step {number}: {error}"));
                    for attempt in 1.. {
                        match step(self) {
                            Came::Done => break,
                            Came::Lost => return Outcome { lost_at: Some(number), failed },
                            Came::Failed(again) => assert!(
                                attempt < self.failures,
                                "step {number} failed {} times: {error}; {again}",
                                attempt + 1
                            ),
                        }
                    }
                }
            }
        }
        Outcome { lost_at: None, failed }
    }

    /// A refused step has moved nothing. Only who was brought home, and could not be shown then, may be at home now.
    fn check_moved(&self, before: &[Vec<Residency>], after: &[Vec<Residency>], error: &Error) {
        let shown = self.failures > 0 && error.to_string().contains("publish");
        for (was, is) in settled(before).into_iter().zip(settled(after)) {
            let home = matches!(
                (was.1, is.1),
                (Location::Device, Location::Shared | Location::Host) | (Location::Shared, Location::Host)
            );
            assert!(was == is || (shown && home), "a refused step moved {was:?} to {is:?}: {error}");
        }
    }

    /// Every byte is current, or lost and named. The bytes lost.
    pub(crate) fn check(&mut self) -> u64 {
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
                let (seen, named) = (again(self.failures, || part.try_slice()), part.check());
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
    pub(crate) fn after_loss(&mut self) {
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

/// Does it again, at most `failures` times, while it fails in another way than by loss.
pub(crate) fn again<T>(failures: u64, mut f: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    for _ in 0..failures {
        match f() {
            Err(error) if !error.is_lost() => assert!(!error.to_string().is_empty()),
            done => return done,
        }
    }
    f()
}

/// Where everything is, whoever uses it.
fn settled(runs: &[Vec<Residency>]) -> Vec<(u64, Location)> {
    let of_page = |r: &Residency| {
        (r.bytes.start..r.bytes.end).step_by(PAGE).map(|at| (at, r.location)).collect::<Vec<_>>()
    };
    runs.iter().flatten().flat_map(of_page).collect()
}

pub(crate) struct Outcome {
    pub(crate) lost_at: Option<usize>,
    pub(crate) failed: Vec<String>,
}

/// The setups that a sweep takes: one of each way that bytes go, and one where they go nowhere.
pub(crate) fn rows() -> [Setup; 4] {
    [
        Setup { kind: MemoryKind::DevicePrivate, import: true, strict: false },
        Setup { kind: MemoryKind::DevicePrivate, import: false, strict: true },
        Setup { kind: MemoryKind::DeviceCoherent, import: false, strict: false },
        Setup { kind: MemoryKind::UnifiedMemory, import: true, strict: false },
    ]
}
