//! What was found and what was chosen, in words: the device part of `./x doctor`.

use std::fmt;

/// One device that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Name, as the driver says it.
    pub name: String,
    /// Driver and version.
    pub driver: String,
    /// discrete, integrated, virtual, software or other.
    pub kind: String,
    /// Why it cannot serve; `None` if it can.
    pub refused: Option<String>,
}

/// Everything that opening the device decided.
#[derive(Clone, Debug)]
pub struct DeviceReport {
    /// All devices, in the loader's order.
    pub candidates: Vec<Candidate>,
    /// Which of them was taken.
    pub chosen: usize,
    /// Why.
    pub why: String,
    /// How roles map to queues.
    pub roles: String,
    /// What the arena is made of, and why.
    pub memory: String,
    /// What the staging rings are made of.
    pub staging: String,
    /// The limits that launches are checked against: name and value.
    pub limits: Vec<(&'static str, String)>,
    /// Optional features: name and whether they are on.
    pub features: Vec<(&'static str, bool)>,
    /// What the application that made the device did not turn on, and what that costs; empty for a device of our own.
    pub not_enabled: Vec<String>,
    /// Whether host memory is imported, or why not.
    pub import: String,
    /// How ranges are placed in device memory, and why.
    pub placement: String,
    /// Whether kernels work on host memory in place, or why not.
    pub in_place: String,
}

impl fmt::Display for DeviceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, c) in self.candidates.iter().enumerate() {
            let mark = if i == self.chosen { "*" } else { " " };
            let refused = c.refused.as_deref().map(|r| format!(" (cannot serve: {r})")).unwrap_or_default();
            writeln!(f, "{mark} device {i}   {} [{}] {}{refused}", c.name, c.kind, c.driver)?;
        }
        writeln!(f, "  chosen     {}", self.why)?;
        writeln!(f, "  queues     {}", self.roles)?;
        writeln!(f, "  memory     {}", self.memory)?;
        writeln!(f, "  staging    {}", self.staging)?;
        writeln!(f, "  import     {}", self.import)?;
        writeln!(f, "  placement  {}", self.placement)?;
        writeln!(f, "  in place   {}", self.in_place)?;
        for (name, value) in &self.limits {
            writeln!(f, "  limit      {name}: {value}")?;
        }
        let names = |on: bool| {
            let list: Vec<&str> = self.features.iter().filter(|(_, v)| *v == on).map(|(n, _)| *n).collect();
            if list.is_empty() { String::from("none") } else { list.join(", ") }
        };
        for missing in &self.not_enabled {
            writeln!(f, "  not on     {missing}")?;
        }
        writeln!(f, "  features   on: {}", names(true))?;
        write!(f, "             off: {}", names(false))
    }
}
