//! Work on a runtime with so much device memory: what came of it, and what moved.

use crate::work::{Until, Work};
use anyhow::{Context, Result, ensure};
use vkhmm::{AccessKind, Grid, Kernel, Launch, Managed, Paging, Runtime, Stats};

/// Room that is left over where everything is to fit: arrays begin on blocks.
const BLOCK: u64 = 2 << 20;

/// A runtime whose data moves, also where the device could work on it in place.
///
/// # Errors
/// No usable device.
pub(crate) fn runtime(limit: u64) -> Result<Runtime> {
    let builder = Runtime::builder().device_memory_limit(limit.next_multiple_of(1 << 16));
    Ok(builder.in_place_bytes(0).strict_io(false).build()?)
}

/// Device memory for one `part`-th of the work's arrays; one part is all of them, however they are placed.
pub(crate) fn limit(work: &Work, part: u64) -> u64 {
    let whole = |words: &Vec<u32>| (4 * words.len() as u64).next_multiple_of(BLOCK);
    match part {
        1 => work.arrays.iter().map(|array| whole(&array.words)).sum(),
        _ => work.bytes() / part,
    }
}

/// What launches of a work did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) launches: u64,
    pub(crate) rounds: u64,
    pub(crate) groups: u64,
    pub(crate) group_runs: u64,
    /// Bytes to the device and home, results brought home at the end among them.
    pub(crate) bytes: u64,
}

/// A work's arrays in managed memory, with its kernel.
pub(crate) struct Player<'w> {
    pub(crate) rt: Runtime,
    work: &'w Work,
    kernel: Kernel,
    pub(crate) arrays: Vec<Managed<u32>>,
}

impl<'w> Player<'w> {
    /// Fills the arrays.
    ///
    /// # Errors
    /// No memory.
    pub(crate) fn new(work: &'w Work, rt: Runtime) -> Result<Self> {
        // SAFETY: kernel_paged: shipped with vkhmm: ends, stays inside its ranges, stores nothing that it may not store again.
        let kernel = unsafe { rt.kernel_paged(work.spirv) }.context(work.name)?;
        let arrays = work.arrays.iter().map(|array| rt.alloc_named::<u32>(array.words.len(), array.name));
        let arrays = arrays.collect::<Result<_, _>>()?;
        let mut player = Self { rt, work, kernel, arrays };
        player.fill();
        Ok(player)
    }

    /// Puts the data where it was before: at home.
    pub(crate) fn fill(&mut self) {
        for (array, data) in self.arrays.iter_mut().zip(&self.work.arrays) {
            array.copy_from_slice(&data.words);
        }
    }

    /// One launch, which is not waited for.
    ///
    /// # Errors
    /// As the runtime says.
    pub(crate) fn launch(&mut self, step: u32) -> Result<Launch> {
        let mut arguments = vkhmm::Collected::default();
        for (array, data) in self.arrays.iter_mut().zip(&self.work.arrays) {
            arguments.access(match data.access {
                AccessKind::Read => array.read(),
                AccessKind::Write => array.write(),
                AccessKind::Overwrite => array.overwrite(),
            });
        }
        self.work.push.iter().for_each(|word| arguments.value(&word.to_ne_bytes()));
        if matches!(self.work.until, Until::Zero { .. }) {
            arguments.value(&step.to_ne_bytes());
        }
        Ok(self.rt.launch_paged(&self.kernel, Grid::Groups(self.work.groups), arguments)?)
    }

    /// All of the work, its result compared with the CPU's.
    ///
    /// # Errors
    /// As the runtime says; a wrong result.
    pub(crate) fn play(&mut self) -> Result<Counts> {
        let (before, mut counts) = (self.rt.stats(), Counts::default());
        for step in 0.. {
            let launch = self.launch(step)?;
            launch.wait()?;
            let paging = launch.paging().context("a paged launch says what it did")?;
            counts.add(&paging);
            match self.work.until {
                Until::Once => break,
                Until::Zero { array } if self.arrays[array][0] == 0 => break,
                Until::Zero { array } => self.arrays[array][0] = 0,
            }
        }
        self.check()?;
        let moved: Stats = self.rt.stats().since(&before);
        counts.bytes = moved.in_bytes() + moved.out_bytes();
        Ok(counts)
    }

    /// Brings the results home and compares them.
    ///
    /// # Errors
    /// A wrong word.
    pub(crate) fn check(&self) -> Result<()> {
        for (array, expected) in &self.work.results {
            let have = self.arrays[*array].host()?;
            let wrong = have.iter().zip(expected).position(|(have, want)| have != want);
            let at = wrong.unwrap_or_default();
            let what = format!("{}, {}", self.work.name, self.work.arrays[*array].name);
            ensure!(have.len() == expected.len(), "{what}: {} words, not {}", have.len(), expected.len());
            ensure!(wrong.is_none(), "{what}: word {at} is {:#x}, not {:#x}", have[at], expected[at]);
        }
        Ok(())
    }
}

impl Counts {
    fn add(&mut self, paging: &Paging) {
        self.launches += 1;
        self.rounds += paging.rounds;
        self.groups += u64::from(paging.groups);
        self.group_runs += paging.group_runs;
    }
}
