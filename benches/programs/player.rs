//! Managed memory: the program's launches, and nothing said of what is where; or with the next launch's data asked for ahead.

use crate::{AccessKind, Program, Step, Use};
use anyhow::{Result, ensure};
use std::time::Instant;
use vkhmm::{
    Access, Builder, Collected, Grid, Kernel, Managed, PlacementKind, Prefetch, Runtime, Side, Stats,
};

/// How a program is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Launches alone, each waited for: what moves is the same in every run.
    Counted,
    /// Launches alone.
    Demand,
    /// Before each launch, a prefetch of what the next one reads.
    Prefetch,
}

/// A runtime with the program's arrays and kernels.
pub struct Player<'p> {
    program: &'p Program,
    rt: Runtime,
    kernels: Vec<Kernel>,
    arrays: Vec<Managed<f32>>,
}

impl<'p> Player<'p> {
    /// Kernels in device memory, of which there are `limit` bytes.
    ///
    /// # Errors
    /// As of [`Builder::build`].
    pub fn new(program: &'p Program, limit: u64) -> Result<Self> {
        Self::with(program, Runtime::builder().device_memory_limit(limit).in_place_bytes(0))
    }

    /// Kernels on host memory.
    ///
    /// # Errors
    /// As of [`Builder::build`]; the device's kernels cannot work on host memory.
    pub fn in_place(program: &'p Program) -> Result<Self> {
        let mut player = Self::with(program, Runtime::builder().in_place_bytes(u64::MAX))?;
        player.play(Mode::Demand)?;
        let in_place = |array: &Managed<f32>| array.placement().kind == PlacementKind::InPlace;
        ensure!(player.arrays.iter().all(in_place), "this device's kernels cannot work on host memory");
        Ok(player)
    }

    fn with(program: &'p Program, builder: Builder) -> Result<Self> {
        let rt = builder.strict_io(false).build()?;
        // SAFETY: shipped modules stay inside their arguments, have no data race, and end.
        let kernel = |(name, spirv): &(&str, &[u8])| unsafe { rt.kernel_builder(spirv).name(name).build() };
        let kernels = program.kernels.iter().map(kernel).collect::<vkhmm::Result<_>>()?;
        let array = |array: &crate::Array| rt.alloc_named(array.initial.len(), array.name);
        let arrays = program.arrays.iter().map(array).collect::<vkhmm::Result<_>>()?;
        Ok(Self { program, rt, kernels, arrays })
    }

    /// Fills the arrays, then plays the program until its results are on the host, and checks them. Seconds of the play, and what
    /// happened meanwhile.
    ///
    /// # Errors
    /// The runtime's own; wrong results.
    pub fn play(&mut self, mode: Mode) -> Result<(f64, Stats)> {
        for (array, of) in self.arrays.iter_mut().zip(&self.program.arrays) {
            array.host_mut()?.copy_from_slice(&of.initial);
        }
        let (before, start) = (self.rt.stats(), Instant::now());
        for (at, step) in self.program.steps.iter().enumerate() {
            if let (Mode::Prefetch, Some(next)) = (mode, self.program.steps.get(at + 1)) {
                self.ask_for(next)?;
            }
            let launch =
                self.rt.launch(&self.kernels[step.kernel], Grid::linear(step.items), self.all(step))?;
            if mode == Mode::Counted {
                launch.wait()?;
            }
        }
        let results = self.arrays.iter().zip(&self.program.arrays).filter(|(_, of)| of.expected.is_some());
        let home: Vec<Access<'_>> = results.map(|(array, _)| array.read()).collect();
        self.rt.prefetch(&home, Side::Host)?.wait()?;
        self.rt.sync()?;
        let (time, stats) = (start.elapsed().as_secs_f64(), self.rt.stats().since(&before));
        for (at, array) in self.arrays.iter().enumerate() {
            self.program.check(at, &array.host()?, "managed")?;
        }
        Ok((time, stats))
    }

    fn all(&self, step: &Step) -> Collected<'static> {
        let mut all = Collected::default();
        step.uses.iter().for_each(|used| all.access(self.access(used, used.access)));
        step.push.iter().for_each(|word| all.value(&word.to_ne_bytes()));
        all
    }

    fn access(&self, used: &Use, kind: AccessKind) -> Access<'static> {
        // SAFETY: `play` has the arrays exclusively, and looks at none of them before it has waited for all launches.
        unsafe { self.arrays[used.array].raw(kind, used.words.clone()) }
    }

    fn ask_for(&self, step: &Step) -> Result<Prefetch> {
        let reads = step.uses.iter().filter(|used| used.access != AccessKind::Overwrite);
        let parts: Vec<Access<'_>> = reads.map(|used| self.access(used, AccessKind::Read)).collect();
        Ok(self.rt.prefetch(&parts, Side::Device)?)
    }
}
