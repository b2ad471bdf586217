//! Scripts: a run that follows a steady order but for a list of deviations, so that a search can go through all short lists and
//! a failure is replayed by the list that led to it.
//!
//! The steady order: a thread runs until it blocks, then the next one in a circle; time passes only while all wait. A deviation
//! takes the baton away at a branch point, or gives it to another than the next in the circle, or lets a timer that is due within a
//! millisecond fire although somebody could go on. A branch point is a scheduling point where there is such an alternative, and which the grain counts.

use crate::chooser::Point;
use core::fmt;
use core::str::FromStr;
use vkhmm_port::Rank;

/// Which scheduling points are branch points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grain {
    /// All that can be told apart: not before a look at the clock, which stands still while anybody runs, and not around a lock on
    /// a record that nobody decides by (the trace ring, the table of waits): there, both orders are the same run.
    #[default]
    Fine,
    /// Of those: before a thread takes a lock that is not a leaf, at signals, at port calls, and wherever a thread blocks. Left out
    /// are leaves, which are held for one step of their own table, and the moment after a lock was let go, which is told from the
    /// next point only by what threads share without a lock.
    Coarse,
}

impl Grain {
    fn counts(self, at: Point) -> bool {
        match (self, at) {
            (_, Point::Clock | Point::Record | Point::Spawn) => false,
            (_, Point::Signal | Point::Port) | (Self::Fine, _) => true,
            (Self::Coarse, Point::Lock(rank)) => rank != Rank::Leaf,
            (Self::Coarse, Point::Unlock(_)) => false,
        }
    }
}

/// At one branch point, another choice than the steady order's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deviation {
    /// The branch point, counted from the moment the script was opened.
    pub point: u32,
    /// Which alternative, from 1.
    pub choice: u8,
}

/// Deviations in ascending order, as text `17.1,45.2`; the empty list is `-`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deviations(pub Vec<Deviation>);

impl fmt::Display for Deviations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("-");
        }
        for (i, Deviation { point, choice }) in self.0.iter().enumerate() {
            write!(f, "{}{point}.{choice}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for Deviations {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "-" {
            return Ok(Self::default());
        }
        let deviation = |part: &str| {
            let (point, choice) = part.split_once('.')?;
            Some(Deviation { point: point.parse().ok()?, choice: choice.parse().ok()? })
        };
        let list: Option<Vec<_>> = text.split(',').map(deviation).collect();
        let list = list.ok_or_else(|| format!("`{text}` is no script: it looks like 17.1,45.2 or -"))?;
        let ascending = list.windows(2).all(|two| two[0].point < two[1].point);
        if ascending { Ok(Self(list)) } else { Err(format!("`{text}`: branch points ascend")) }
    }
}

/// The script of one run, and what it has met so far.
#[derive(Debug, Default)]
pub(crate) struct Script {
    deviations: Vec<Deviation>,
    next: usize,
    grain: Grain,
    traced: bool,
    open: bool,
    /// How many alternatives each branch point had.
    pub(crate) branches: Vec<u8>,
}

impl Script {
    pub(crate) fn new(deviations: &Deviations, grain: Grain, traced: bool) -> Self {
        Self { deviations: deviations.0.clone(), next: 0, grain, traced, open: false, branches: Vec::new() }
    }

    pub(crate) fn traces(&self) -> bool {
        self.traced
    }

    /// Branch points are counted from now on, or no more.
    pub(crate) fn open(&mut self, open: bool) {
        self.open = open;
    }

    /// Which of `0..=alternatives` is taken; 0 is the steady order's. `at` is `None` where a thread has blocked.
    ///
    /// # Panics
    /// If the script names an alternative that is not there: it is not of this scenario.
    pub(crate) fn decide(&mut self, at: Option<Point>, alternatives: usize) -> usize {
        if !self.open || alternatives == 0 || at.is_some_and(|at| !self.grain.counts(at)) {
            return 0;
        }
        let point = self.branches.len() as u32;
        self.branches.push(u8::try_from(alternatives).expect("a few threads"));
        match self.deviations.get(self.next) {
            Some(deviation) if deviation.point == point => {
                self.next += 1;
                let choice = usize::from(deviation.choice);
                assert!(
                    choice <= alternatives,
                    "point {point} has {alternatives} alternatives, not {choice}"
                );
                choice
            }
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_text_and_back() {
        for text in ["-", "0.1", "17.1,45.2"] {
            assert_eq!(text.parse::<Deviations>().expect("a script").to_string(), text);
        }
        for text in ["", "1", "1.x", "4.1,3.1"] {
            assert!(text.parse::<Deviations>().is_err(), "{text}");
        }
    }
}
