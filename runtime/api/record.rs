//! The launch trace: one JSON line per launch, for replay against other placements and policies.

use crate::Result;
use crate::error::Error;
use crate::ports::Real;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use vkhmm_engine::LaunchSpec;

/// A line is written at once: what is kept in memory would be lost at exit, and written twice after a fork.
///
/// Lock: owns the file · may block on writing it · must never be taken with a lock of the engine held.
pub(crate) struct Recorder(Mutex<File>);

impl Recorder {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path)
            .map_err(|source| Error::System { operation: "creating the launch trace", source })?;
        Ok(Self(Mutex::new(file)))
    }

    /// The line of a launch.
    pub(crate) fn line(spec: &LaunchSpec<Real>) -> String {
        let accesses: Vec<String> = spec
            .arguments
            .iter()
            .filter_map(|a| {
                let id = a.range.as_ref()?.id();
                let (range, start, end) =
                    (format!("{}.{}", id.slot, id.generation), a.bytes.start, a.bytes.end);
                let access = format!("{:?}", a.access).to_lowercase();
                Some(format!(r#"{{"range":"{range}","start":{start},"end":{end},"access":"{access}"}}"#))
            })
            .collect();
        let [x, y, z] = spec.groups;
        let kernel = spec.label.replace(|c: char| c == '"' || c == '\\' || c.is_control(), "_");
        format!(
            "{{\"kernel\":\"{kernel}\",\"groups\":[{x},{y},{z}],\"accesses\":[{}]}}\n",
            accesses.join(",")
        )
    }

    /// Notes a launch that was not refused. A full disk loses the trace, never the launch.
    pub(crate) fn note(&self, line: &str) {
        if let Ok(mut file) = self.0.lock() {
            let _ = file.write_all(line.as_bytes());
        }
    }
}
