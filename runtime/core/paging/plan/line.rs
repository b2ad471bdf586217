//! What a kernel whose pages follow from the group's number will ask for next, learnt from what it missed.
//!
//! Group `g` of such a kernel asks for sub-blocks `floor(slope * g + low)` to `floor(slope * g + high)`. Two points of one line, rounded
//! down, are less than one sub-block off it each, so their difference bounds the slope: `(ds - 1) / dg < slope < (ds + 1) / dg`. All pairs
//! together leave an interval, and real strides are simple: the simplest fraction in there is the slope. Where nothing is left, data is
//! a little irregular, and the bounds are widened; where even that leaves nothing, addresses come from data, and there is no line.

use alloc::vec::Vec;
use core::ops::Range;

/// Points that a slope is looked for in.
const POINTS_MAX: usize = 64;

/// Widest bounds, in sub-blocks.
const SLACK_MAX: i128 = 4;

/// A group, the lowest and the highest sub-block that it missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) group: u32,
    pub(super) low: u32,
    pub(super) high: u32,
}

/// See the file: the slope is `rise / run`, and the offsets are in `run`-ths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    rise: i128,
    run: i128,
    low: i128,
    high: i128,
}

impl Line {
    /// The line through `points`, which are in order of their groups; `None`: they are on none, or too few to tell.
    pub(super) fn through(points: &[Point]) -> Option<Self> {
        let distinct = points.windows(2).filter(|pair| pair[0].group != pair[1].group).count() + 1;
        if points.is_empty() || distinct < 3 {
            return None;
        }
        let step = points.len().div_ceil(POINTS_MAX);
        let mut few: Vec<Point> = points.iter().step_by(step).copied().collect();
        few.extend(points.last());
        let (rise, run) = [1, 2, SLACK_MAX].into_iter().find_map(|slack| slope(&few, slack))?;
        let off = |group: u32, sub: u32| i128::from(sub) * run - rise * i128::from(group);
        let lows = points.iter().map(|point| off(point.group, point.low));
        let (least, most) = (lows.clone().min()?, lows.max()?);
        let high = points.iter().map(|point| off(point.group, point.high)).max()?;
        // Many sub-blocks for each group, more than the stride explains: that is no line.
        if high - least > 2 * rise.abs() + SLACK_MAX * run {
            return None;
        }
        // Less than one sub-block apart: rounded down, the uppermost is right for all.
        let low = if most - least < run { most } else { least };
        Some(Self { rise, run, low, high })
    }

    /// What a group will ask for, below `subs`; nothing where the line has left the range.
    pub(super) fn of(&self, group: u32, subs: u32) -> Range<u32> {
        let at = |offset: i128| (self.rise * i128::from(group) + offset).div_euclid(self.run);
        let below = |sub: i128| sub.clamp(0, i128::from(subs)) as u32;
        below(at(self.low))..below(at(self.high) + 1)
    }
}

/// The simplest slope that every pair of points allows, each rounded down and up to `slack - 1` sub-blocks off.
fn slope(points: &[Point], slack: i128) -> Option<(i128, i128)> {
    let mut bounds: Option<(Fraction, Fraction)> = None;
    for (i, a) in points.iter().enumerate() {
        for b in &points[i + 1..] {
            let (run, rise) =
                (i128::from(b.group) - i128::from(a.group), i128::from(b.low) - i128::from(a.low));
            if run == 0 {
                continue;
            }
            let (low, high) = ((rise - slack, run), (rise + slack, run));
            bounds = Some(match bounds {
                None => (low, high),
                Some((l, h)) => (if less(l, low) { low } else { l }, if less(high, h) { high } else { h }),
            });
        }
    }
    let (low, high) = bounds?;
    less(low, high).then(|| simplest(low, high))
}

/// Over something positive.
type Fraction = (i128, i128);

fn less(a: Fraction, b: Fraction) -> bool {
    a.0 * b.1 < b.0 * a.1
}

/// The fraction with the smallest denominator strictly between two, by their continued fractions.
fn simplest(low: Fraction, high: Fraction) -> Fraction {
    if low.0 < 0 && high.0 > 0 {
        return (0, 1);
    }
    if high.0 <= 0 {
        let (rise, run) = simplest((-high.0, high.1), (-low.0, low.1));
        return (-rise, run);
    }
    let whole = low.0.div_euclid(low.1);
    if less((whole + 1, 1), high) {
        return (whole + 1, 1);
    }
    // Between `whole` and `whole + 1`: one over what is between the turned-round rests; from `whole` itself there is no bound.
    let rest_high = (high.0 - whole * high.1, high.1);
    let rest_low = (low.0 - whole * low.1, low.1);
    let (run, rise) = if rest_low.0 == 0 {
        (rest_high.1.div_euclid(rest_high.0) + 1, 1)
    } else {
        simplest((rest_high.1, rest_high.0), (rest_low.1, rest_low.0))
    };
    (whole * run + rise, run)
}
