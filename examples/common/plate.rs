//! A plate whose heat is known at every time: a sum of sine waves, each of which fades at its own rate.

use super::picture::Picture;
use std::f64::consts::PI;

/// How much of the difference to its neighbours a point takes up in a step; stable up to a quarter.
pub(crate) const RATE: f64 = 0.24;
/// Points along a side of the picture.
const PICTURE: usize = 320;

/// One sine wave: half waves down and across, and its height.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wave {
    pub(crate) down: f64,
    pub(crate) across: f64,
    height: f64,
}

/// A coarse, a middle and a fine wave, for a grid of `side` x `side` points.
pub(crate) fn waves(side: usize) -> [Wave; 3] {
    let of = |part: usize| (side / part).max(1) as f64;
    [(2.0, 3.0, 0.5), (of(128), of(64), 0.3), (of(16), of(24), 0.2)].map(|(down, across, height)| Wave {
        down,
        across,
        height,
    })
}

impl Wave {
    /// What it is multiplied by in a step on the grid: a sine is an eigenvector of the stencil.
    pub(crate) fn factor(&self, side: usize) -> f64 {
        let half = |waves: f64| (waves * PI / 2.0 / (side + 1) as f64).sin().powi(2);
        1.0 - 4.0 * RATE * (half(self.down) + half(self.across))
    }

    /// The same of the heat equation itself, where there is no grid: e to the minus rate times the squares of the wave numbers.
    pub(crate) fn analytic(&self, side: usize) -> f64 {
        let square = |waves: f64| (waves * PI / (side + 1) as f64).powi(2);
        (-RATE * (square(self.down) + square(self.across))).exp()
    }
}

/// The heat at each row and column after some steps on the grid.
pub(crate) fn after(side: usize, steps: usize) -> impl Fn(usize, usize) -> f64 {
    let sine = move |waves: f64| -> Vec<f64> {
        (1..=side).map(|i| (waves * PI * i as f64 / (side + 1) as f64).sin()).collect()
    };
    let faded = |wave: &Wave| wave.height * wave.factor(side).powi(steps as i32);
    let all = waves(side).map(|wave| (sine(wave.down), sine(wave.across), faded(&wave)));
    move |row, col| all.iter().map(|(down, across, height)| height * down[row] * across[col]).sum()
}

/// A corner of the plate, every other point: left as it was at the start, right as it is.
pub(crate) fn picture(now: &[f32], side: usize) -> Picture {
    let (start, size) = (after(side, 0), PICTURE.min(side / 2));
    Picture::grey(size, size, |col, row| {
        let (row, col) = (2 * row, 2 * col);
        let value = if col < size { start(row, col) as f32 } else { now[row * side + col] };
        value / 2.0 + 0.5
    })
}
