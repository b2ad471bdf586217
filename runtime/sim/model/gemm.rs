//! A product of two square matrices of which a quarter fits the device: no larger than it must be for a program that copies while it
//! computes to hide its copies, so that whatever the engine copies too much or too late shows as time.

use super::link::LinkModel;
use super::play::{Outcome, PlayError, Way, play};
use super::trace::{Access, Part, Trace};
use std::sync::Arc;
use vkhmm_core::units::{ByteRange, Geometry};

/// Tiles on a side: few enough that a tile's product takes longer than its copy.
const SIDE: u64 = 6;

/// Products that are played one after the other; all but the first are warm.
pub const ROUNDS: u32 = 4;

/// The product, played.
#[derive(Clone, Copy, Debug)]
pub struct Gemm {
    /// Rows of each matrix.
    pub n: u64,
    /// Device memory limit: a quarter of the three matrices.
    pub limit: u64,
    /// The first product: host memory is imported, views are revoked, results get their pages.
    pub cold: Outcome,
    /// All [`ROUNDS`] products, one after the other.
    pub all: Outcome,
    /// Nanoseconds of its kernels alone.
    pub in_core_ns: u64,
    /// The larger of that and of 20 n² bytes on the link.
    pub bound_ns: u64,
}

impl Gemm {
    /// Plays it on `model`, with the least n ≥ 15 · flop/s ÷ bytes/s whose tiles are whole blocks.
    ///
    /// # Errors
    /// As of [`play`].
    pub fn measure(model: &LinkModel, way: &Way) -> Result<Self, PlayError> {
        let block = Geometry::PRODUCTION.block_bytes();
        let rows = 15.0 * model.flops / model.h2d / SIDE as f64;
        let tile = ((4.0 * rows * rows) as u64).next_multiple_of(block);
        let rows = (tile as f64 / 4.0).sqrt();
        let n = (rows * SIDE as f64) as u64;
        let limit = 3 * SIDE * SIDE * tile / 4;
        let (once, in_core_ns) = trace(model, tile, rows);
        let mut often = once.clone();
        often.steps = vec![once.steps.clone(); ROUNDS as usize].concat();
        let cold = play(model, &Arc::new(once), limit, way)?;
        let all = play(model, &Arc::new(often), limit, way)?;
        let link_ns = 5.0 * (SIDE * SIDE * tile) as f64 / model.h2d * 1e9;
        Ok(Self { n, limit, cold, all, in_core_ns, bound_ns: in_core_ns.max(link_ns as u64) })
    }

    /// Modelled time of the first product over the bound.
    pub fn cold_ratio(&self) -> f64 {
        self.cold.ns as f64 / self.bound_ns as f64
    }

    /// Modelled time of a later product over the bound.
    pub fn warm_ratio(&self) -> f64 {
        self.later(|outcome| outcome.ns) / self.bound_ns as f64
    }

    /// Of one later product.
    fn later(&self, of: impl Fn(&Outcome) -> u64) -> f64 {
        (of(&self.all) - of(&self.cold)) as f64 / f64::from(ROUNDS - 1)
    }

    /// What it was, in words.
    pub fn line(&self, model: &LinkModel) -> String {
        let squares = |bytes: f64| bytes / (self.n * self.n) as f64;
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        format!(
            "gemm of {} on `{}`, limit {:.2} GiB of {:.2}: time over max(kernels, 20 n² / link) cold {:.3}, warm {:.3}; \
             fetched cold {:.1} n², warm {:.1} n², written warm {:.1} n² bytes; cold {:.4} s, warm {:.4} s, kernels {:.4} s",
            self.n,
            model.name,
            gib(self.limit),
            gib(4 * self.limit),
            self.cold_ratio(),
            self.warm_ratio(),
            squares(self.cold.stats.in_bytes() as f64),
            squares(self.later(|outcome| outcome.stats.in_bytes())),
            squares(self.later(|outcome| outcome.stats.out_bytes())),
            self.cold.ns as f64 / 1e9,
            self.later(|outcome| outcome.ns) / 1e9,
            self.in_core_ns as f64 / 1e9,
        )
    }

    /// One JSON object.
    pub fn json(&self, model: &LinkModel) -> String {
        format!(
            "{{\"bench\":\"model-gemm\",\"class\":\"M\",\"model\":\"{}\",\"n\":{},\"limit_bytes\":{},\"rounds\":{ROUNDS},\
             \"fetched_bytes\":{},\"written_bytes\":{},\"nanoseconds\":{},\"cold_fetched_bytes\":{},\"cold_nanoseconds\":{},\
             \"kernel_nanoseconds\":{},\"nanoseconds_bound\":{}}}",
            model.name,
            self.n,
            self.limit,
            self.all.stats.in_bytes(),
            self.all.stats.out_bytes(),
            self.all.ns,
            self.cold.stats.in_bytes(),
            self.cold.ns,
            self.in_core_ns,
            self.bound_ns
        )
    }
}

/// The product tile by tile, as one writes it down, and what its kernels take.
fn trace(model: &LinkModel, tile: u64, rows: f64) -> (Trace, u64) {
    let mut trace = Trace::new("gemm at a quarter");
    let [a, b, c] = [true, true, false].map(|filled| trace.alloc(SIDE * SIDE * tile, filled));
    let part = |matrix, row: u64, column: u64| {
        let start = (row * SIDE + column) * tile;
        Part { allocation: matrix, bytes: ByteRange { start, end: start + tile } }
    };
    let flop = 2.0 * rows.powi(3);
    for (i, j) in (0..SIDE * SIDE).map(|at| (at / SIDE, at % SIDE)) {
        for k in 0..SIDE {
            let access = if k == 0 { Access::Overwrite } else { Access::Write };
            let uses =
                [(part(a, i, k), Access::Read), (part(b, k, j), Access::Read), (part(c, i, j), access)];
            trace.launch(flop, &uses);
        }
    }
    let in_core = trace.steps.iter().map(|step| model.step_ns(step)).sum();
    (trace, in_core)
}
