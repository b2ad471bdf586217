//! What runs have met: the events, errors and troubles that a set of seeds must contain to be worth something.

use std::collections::BTreeMap;
use std::fmt;

/// Names of what was met, each with the number of runs (or, within one run, the number of times).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Met {
    counts: BTreeMap<String, u64>,
    longest_ns: u64,
}

impl Met {
    pub(super) fn note(&mut self, what: impl Into<String>) {
        self.add(what, 1);
    }

    pub(super) fn add(&mut self, what: impl Into<String>, times: u64) {
        if times > 0 {
            *self.counts.entry(what.into()).or_default() += times;
        }
    }

    /// A call of the calm phase took so long.
    pub(super) fn longest(&mut self, ns: u64) {
        self.longest_ns = self.longest_ns.max(ns);
    }

    /// The longest call of any calm phase, in virtual nanoseconds.
    pub fn longest_ns(&self) -> u64 {
        self.longest_ns
    }

    /// How often `what` was met.
    pub fn count(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    /// Adds one run: each thing it met counts once.
    pub fn add_run(&mut self, run: &Self) {
        run.counts.keys().for_each(|what| self.note(what.clone()));
        self.longest(run.longest_ns);
    }

    /// Adds what another set of runs met.
    pub fn merge(&mut self, other: &Self) {
        other.counts.iter().for_each(|(what, n)| self.add(what.clone(), *n));
        self.longest(other.longest_ns);
    }
}

impl fmt::Display for Met {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut group = "";
        for (what, n) in &self.counts {
            let (head, name) = what.split_once(": ").unwrap_or(("runs", what));
            if head == group {
                write!(f, ", {name} {n}")?;
            } else {
                write!(f, "{}{head}: {name} {n}", if group.is_empty() { "" } else { "\n" })?;
                group = head;
            }
        }
        Ok(())
    }
}
