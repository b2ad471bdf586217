//! As a user of managed memory writes it: loops over tiles and windows; with prefetch, the next ones ahead of time.

use crate::{LIMIT, MATRIX, PANEL, PANELS, SQUARE, STEP, STRIP, WINDOWS};
use anyhow::Result;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;
use vkhmm_core::units::ByteRange;
use vkhmm_engine::{AccessKind, Stats};
use vkhmm_throttled::{Array, Link, Options, Rig, ThrottledKernel};

/// Three matrices and a kernel.
pub(crate) struct Managed {
    rig: Rig,
    a: Array,
    b: Array,
    c: Array,
    step: Arc<ThrottledKernel>,
    last: std::sync::Mutex<Stats>,
}

fn strip(n: u64) -> core::ops::Range<u64> {
    n * STRIP..(n + 1) * STRIP
}

/// What tile `tile` and window `window` give; those of a panel and a window lie together.
fn square(tile: u64, window: u64) -> core::ops::Range<u64> {
    let at = ((tile / PANEL * WINDOWS + window) * PANEL + tile % PANEL) * SQUARE;
    at..at + SQUARE
}

/// What a panel and a window give.
fn squares(panel: u64, window: u64) -> ByteRange {
    (square(panel * PANEL, window).start..square((panel + 1) * PANEL - 1, window).end).into()
}

impl Managed {
    pub(crate) fn new(config: vkhmm_vulkan::Config, link: Link, limit: u64) -> Result<Self> {
        let rig = Rig::open(config, link, Options::default(), limit).map_err(anyhow::Error::from_boxed)?;
        let [a, b, c] = ["A", "B", "C"].map(|label| rig.alloc(MATRIX, label));
        let (a, b, c) = (a?, b?, c?);
        [&a, &b, &c].into_iter().for_each(|matrix| rig.touch_all(matrix, 1));
        let last = std::sync::Mutex::new(rig.engine().stats());
        Ok(Self { rig, a, b, c, step: ThrottledKernel::timed(STEP).into(), last })
    }

    fn launch(&self, tile: u64, window: u64) -> Result<()> {
        let arguments = [
            (&self.a, strip(tile), AccessKind::Read),
            (&self.b, strip(window), AccessKind::Read),
            (&self.c, square(tile, window), AccessKind::Overwrite),
        ];
        self.rig.launch(&self.step, &[], &arguments)?;
        Ok(())
    }

    /// Everything is home, and nothing on the device. Not timed.
    fn start_over(&self) -> Result<()> {
        for matrix in [&self.a, &self.b, &self.c] {
            (0..MATRIX).step_by(4096).for_each(|at| self.rig.store(matrix, at, 1));
        }
        self.rig.engine().sync()?;
        *self.last.lock().expect("one thread") = self.rig.engine().stats();
        Ok(())
    }

    /// All of C is on the host.
    fn finish(&self) -> Result<()> {
        self.rig.engine().prefetch_to_host(&self.c, (0..MATRIX).into())?;
        Ok(self.rig.engine().sync()?)
    }

    /// Launches alone: what they need comes when they are launched.
    pub(crate) fn demand(&self) -> Result<f64> {
        self.start_over()?;
        let start = Instant::now();
        for panel in 0..PANELS {
            for window in 0..WINDOWS {
                for tile in panel * PANEL..(panel + 1) * PANEL {
                    self.launch(tile, window)?;
                }
            }
        }
        self.finish()?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// The next window, and a tile of the next panel now and then, are asked for ahead; results go home behind.
    pub(crate) fn ahead(&self) -> Result<f64> {
        self.start_over()?;
        let start = Instant::now();
        let engine = self.rig.engine();
        for panel in 0..PANELS {
            for window in 0..WINDOWS {
                for tile in panel * PANEL..(panel + 1) * PANEL {
                    self.launch(tile, window)?;
                }
                let next = (window + 1) % WINDOWS;
                engine.prefetch_to_device(&self.b, strip(next).into())?;
                let every = WINDOWS / PANEL;
                if window % every == every - 1 && panel + 1 < PANELS {
                    let tile = (panel + 1) * PANEL + window / every;
                    engine.prefetch_to_device(&self.a, strip(tile).into())?;
                }
                if window > 0 {
                    engine.prefetch_to_host(&self.c, squares(panel, window - 1))?;
                }
            }
        }
        self.finish()?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// The launches, with everything on the device before the clock runs, and left there.
    pub(crate) fn resident(&self) -> Result<f64> {
        for matrix in [&self.a, &self.b, &self.c] {
            self.rig.engine().prefetch_to_device(matrix, (0..MATRIX).into())?;
        }
        self.rig.engine().sync()?;
        let start = Instant::now();
        for tile in 0..PANELS * PANEL {
            for window in 0..WINDOWS {
                self.launch(tile, window)?;
            }
        }
        self.rig.engine().sync()?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// What the engine did in the last run.
    pub(crate) fn explain(&self) -> String {
        let stats = self.rig.engine().stats().since(&self.last.lock().expect("one thread"));
        let mut text = format!("last run, limit {} MiB:\n{stats}\n", LIMIT >> 20);
        let ideal = MATRIX + PANELS * MATRIX;
        let _ = writeln!(
            text,
            "in {:.3} of the {} MiB of this order of tiles, out {:.3} of {} MiB",
            stats.in_bytes() as f64 / ideal as f64,
            ideal >> 20,
            stats.out_bytes() as f64 / MATRIX as f64,
            MATRIX >> 20
        );
        text
    }
}
