//! Planes of a picture, filtered by the GPU, and checked by the CPU.

use super::Random;
use vkhmm::kernels::{self, Mat};
use vkhmm::{Managed, Runtime};

/// Points of each result that are compared with the CPU.
const SAMPLE: usize = 2000;

/// One number per point: for the CPU or the GPU, whoever asks.
pub(crate) struct Plane {
    pub(crate) values: Managed<f32>,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

impl Plane {
    pub(crate) fn new(rt: &Runtime, label: &str, rows: usize, cols: usize) -> vkhmm::Result<Self> {
        Ok(Self { values: rt.alloc_named(rows * cols, label)?, rows, cols })
    }

    /// A plane with these values, row by row.
    pub(crate) fn of(rt: &Runtime, label: &str, cols: usize, values: &[f32]) -> vkhmm::Result<Self> {
        let mut plane = Self::new(rt, label, values.len() / cols, cols)?;
        plane.values.copy_from_slice(values);
        Ok(plane)
    }

    /// On the GPU: becomes `from`, filtered.
    pub(crate) fn filter(&mut self, rt: &Runtime, from: &Self, filter: &Self) -> vkhmm::Result<()> {
        let image = Mat::new(from.values.read(), from.rows, from.cols);
        let weights = Mat::new(filter.values.read(), filter.rows, filter.cols);
        kernels::conv2d(rt, image, weights, Mat::new(self.values.overwrite(), self.rows, self.cols))?;
        Ok(())
    }

    /// On the CPU, at random points: the most that this plane differs from every `step`th point of `from`, filtered.
    pub(crate) fn off(
        &self,
        from: &Self,
        weights: &[f32],
        wide: usize,
        step: usize,
        random: &mut Random,
    ) -> f64 {
        let (image, have, high) = (&from.values[..], &self.values[..], weights.len() / wide);
        let near =
            |at: usize, by: usize, size: usize, end: usize| (at + by).saturating_sub(size / 2).min(end - 1);
        let mut most = 0.0f64;
        for _ in 0..SAMPLE {
            let (row, col) = (random.below(self.rows), random.below(self.cols));
            let term = |(i, weight): (usize, &f32)| {
                let row = near(row * step, i / wide, high, from.rows);
                let col = near(col * step, i % wide, wide, from.cols);
                f64::from(*weight) * f64::from(image[row * from.cols + col])
            };
            let right: f64 = weights.iter().enumerate().map(term).sum();
            let off = (f64::from(have[row * self.cols + col]) - right).abs();
            most = if off.is_nan() { f64::INFINITY } else { most.max(off) };
        }
        most
    }
}
