//! A gate: a named goal, what was measured, and whether it is met.

use crate::Class;
use serde_json::{Value, json};

/// What a measured value is compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// Met at or below.
    AtMost(f64),
    /// Met at or above.
    AtLeast(f64),
}

/// A goal and what was measured against it.
#[derive(Clone, Debug)]
pub struct Gate {
    name: String,
    class: Class,
    goal: Goal,
    measured: f64,
}

impl Gate {
    /// Compares `measured` with `goal`.
    pub fn new(name: impl Into<String>, class: Class, goal: Goal, measured: f64) -> Self {
        Self { name: name.into(), class, goal, measured }
    }

    /// Whether the goal is met. What is not a number meets none.
    pub fn is_met(&self) -> bool {
        match self.goal {
            Goal::AtMost(limit) => self.measured <= limit,
            Goal::AtLeast(limit) => self.measured >= limit,
        }
    }

    /// Whether the bench fails because of it: a goal missed by a figure that is the same on every machine.
    pub fn fails(&self) -> bool {
        self.class.is_gated() && !self.is_met()
    }

    pub(crate) fn line(&self) -> String {
        let (sign, limit) = self.parts();
        let verdict = if self.is_met() { "met" } else { "MISSED" };
        format!(
            "{verdict:>6}  {} [{}]: {:.3} (goal {sign} {limit:.2})",
            self.name,
            self.class.letter(),
            self.measured
        )
    }

    pub(crate) fn json(&self, bench: &str) -> Value {
        let (sign, limit) = self.parts();
        json!({"bench": bench, "gate": self.name, "class": self.class.letter(), "measured": self.measured,
               "sign": sign, "goal": limit, "met": self.is_met()})
    }

    fn parts(&self) -> (&'static str, f64) {
        match self.goal {
            Goal::AtMost(limit) => ("<=", limit),
            Goal::AtLeast(limit) => (">=", limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_have_a_side() {
        let gate = |goal, measured| Gate::new("g", Class::L, goal, measured).is_met();
        assert!(gate(Goal::AtMost(1.0), 1.0) && !gate(Goal::AtMost(1.0), 1.1));
        assert!(gate(Goal::AtLeast(1.0), 1.0) && !gate(Goal::AtLeast(1.0), 0.9));
        assert!(!gate(Goal::AtMost(1.0), f64::NAN) && !gate(Goal::AtLeast(1.0), f64::NAN));
    }

    #[test]
    fn only_missed_counts_and_models_fail() {
        let fails = |class, measured| Gate::new("g", class, Goal::AtMost(1.0), measured).fails();
        assert!(fails(Class::C, 2.0) && fails(Class::M, 2.0));
        assert!(!fails(Class::L, 2.0) && !fails(Class::D, 2.0) && !fails(Class::C, 1.0));
    }
}
