//! The managed ways: arrays of a shape, brought to the device and home again.

use crate::raw::Piece;
use anyhow::{Result, ensure};
use std::time::Instant;
use vkhmm::{Managed, Prefetch, Runtime, SkipReason};

/// How bytes come home.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    /// By prefetch, all at once.
    Prefetch,
    /// As the CPU reads a word of each page in order.
    Touch,
}

const WORDS_PER_PAGE: usize = 1024;

/// Which bytes move: of so many arrays, runs of `run` bytes, each `step` bytes after the one before.
pub(crate) struct Shape {
    arrays: usize,
    array_bytes: usize,
    run: usize,
    step: usize,
}

impl Shape {
    /// One run.
    pub(crate) fn contiguous(bytes: usize) -> Self {
        Self { arrays: 1, array_bytes: bytes, run: bytes, step: bytes }
    }

    /// Every other run of `run` bytes, `bytes` all together.
    pub(crate) fn strided(bytes: usize, run: usize) -> Self {
        Self { arrays: 1, array_bytes: 2 * bytes, run, step: 2 * run }
    }

    /// The same number of runs, each `runs` of them after the one before.
    pub(crate) fn apart(self, runs: usize) -> Self {
        let step = self.run * runs;
        Self { array_bytes: self.array_bytes / self.step * step, step, ..self }
    }

    /// `arrays` arrays, `bytes` all together.
    pub(crate) fn batched(bytes: usize, arrays: usize) -> Self {
        Self { arrays, array_bytes: bytes / arrays, run: bytes / arrays, step: bytes / arrays }
    }

    /// Bytes that move.
    pub(crate) fn bytes(&self) -> usize {
        self.arrays * self.array_bytes / self.step * self.run
    }

    /// Bytes of all arrays.
    pub(crate) fn span(&self) -> usize {
        self.arrays * self.array_bytes
    }

    /// The runs, as if the arrays lay one after the other.
    pub(crate) fn pieces(&self) -> Vec<Piece> {
        (0..self.span()).step_by(self.step).map(|at| Piece { at, bytes: self.run }).collect()
    }

    /// Fresh arrays.
    ///
    /// # Errors
    /// No address space.
    pub(crate) fn alloc(&self, rt: &Runtime) -> Result<Vec<Managed<u32>>> {
        Ok((0..self.arrays).map(|_| rt.alloc::<u32>(self.array_bytes / 4)).collect::<vkhmm::Result<_>>()?)
    }

    /// The runs of one array, in words.
    fn runs(&self) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let (run, step) = (self.run / 4, self.step / 4);
        (0..self.array_bytes / 4).step_by(step).map(move |at| at..at + run)
    }

    /// Seconds until bytes that only the host has are on the device.
    ///
    /// # Errors
    /// The runtime's own.
    pub(crate) fn prefetch_in(&self, memory: &mut [Managed<u32>]) -> Result<f64> {
        for array in memory.iter_mut() {
            for run in self.runs() {
                drop(array.slice_mut(run).host_mut()?);
            }
        }
        let start = Instant::now();
        self.each(memory, |array, run| array.slice(run).prefetch_to_device())?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Seconds until bytes that only the device has are on the host.
    ///
    /// # Errors
    /// The runtime's own; wrong bytes.
    pub(crate) fn bring_home(
        &self,
        rt: &Runtime,
        memory: &mut [Managed<u32>],
        word: u32,
        home: Home,
    ) -> Result<f64> {
        for array in memory.iter_mut() {
            for run in self.runs() {
                rt.fill(array.slice_mut(run).overwrite(), word)?;
            }
        }
        rt.sync()?;
        let start = Instant::now();
        match home {
            Home::Prefetch => self.each(memory, |array, run| array.slice(run).prefetch_to_host())?,
            Home::Touch => {
                let words = |array: &Managed<u32>| {
                    self.runs().all(|run| array[run].iter().step_by(WORDS_PER_PAGE).all(|have| *have == word))
                };
                ensure!(memory.iter().all(words), "wrong words came home");
            }
        }
        let time = start.elapsed().as_secs_f64();
        let right =
            memory.iter().all(|array| self.runs().all(|run| array[run].iter().all(|have| *have == word)));
        ensure!(right, "wrong bytes came home");
        Ok(time)
    }

    /// Asks for every run, then waits for all. A hint never waits: what one left out, since a block had too many under way, is asked
    /// for again.
    fn each(
        &self,
        memory: &[Managed<u32>],
        ask: impl Fn(&Managed<u32>, std::ops::Range<usize>) -> vkhmm::Result<Prefetch>,
    ) -> Result<()> {
        let mut left: Vec<_> =
            memory.iter().flat_map(|array| self.runs().map(move |run| (array, run))).collect();
        while !left.is_empty() {
            let mut asked = Vec::new();
            for (array, run) in left {
                asked.push((array, run.clone(), ask(array, run)?));
            }
            asked.iter().try_for_each(|(_, _, hint)| hint.wait())?;
            asked.retain(|(_, _, hint)| hint.skipped().iter().any(|skipped| skipped.why == SkipReason::Busy));
            left = asked.into_iter().map(|(array, run, _)| (array, run)).collect();
        }
        Ok(())
    }
}
