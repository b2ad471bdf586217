//! What the model says, for people and as JSON: one row for each trace, size and way to move bytes.

use super::link::LinkModel;
use super::optimum::Optimum;
use super::play::{Outcome, Placement, PlayError, Transfer, Way, play};
use super::traces::{Recipe, Scale};
use core::fmt::Write;
use std::sync::Arc;

/// One trace, played.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which trace.
    pub trace: &'static str,
    /// How large.
    pub scale: Scale,
    /// Bytes of its allocations.
    pub footprint: u64,
    /// How it was played.
    pub way: Way,
    /// What the engine did.
    pub outcome: Outcome,
    /// The least that could be done.
    pub optimum: Optimum,
    /// The least time.
    pub least_ns: u64,
}

impl Row {
    /// Plays `recipe` at that size on `model`.
    ///
    /// # Errors
    /// As of [`play`].
    pub fn measure(model: &LinkModel, recipe: &Recipe, scale: &Scale, way: &Way) -> Result<Self, PlayError> {
        let trace = Arc::new(recipe.make(scale));
        let outcome = play(model, &trace, scale.limit, way)?;
        let optimum = Optimum::of(&trace, scale.limit);
        let least_ns = optimum.least_ns(&trace, model);
        let footprint = trace.footprint();
        Ok(Self {
            trace: recipe.name,
            scale: *scale,
            footprint,
            way: way.clone(),
            outcome,
            optimum,
            least_ns,
        })
    }

    /// Bytes fetched over the optimum; `None` where nothing needs to be fetched.
    pub fn fetched_ratio(&self) -> Option<f64> {
        ratio(self.outcome.stats.in_bytes(), self.optimum.fetched)
    }

    /// Bytes written back over the bound; `None` where nothing needs to be.
    pub fn written_ratio(&self) -> Option<f64> {
        ratio(self.outcome.stats.out_bytes(), self.optimum.written_min)
    }

    /// Bytes written back over the bound for who cannot know that bytes will be overwritten unread.
    pub fn blind_ratio(&self) -> Option<f64> {
        ratio(self.outcome.stats.out_bytes(), self.optimum.written_blind)
    }

    /// Modelled time over the least time.
    pub fn time_ratio(&self) -> f64 {
        self.outcome.ns as f64 / self.least_ns.max(1) as f64
    }

    /// One line of the table under [`header`].
    pub fn line(&self) -> String {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let times = |ratio: Option<f64>| ratio.map_or("-".to_owned(), |r| format!("{r:.2}"));
        let stats = &self.outcome.stats;
        format!(
            "| {:<9} | {:>5.2} | {:<5} | {:<6} | {:<8} | {:>9.2} | {:>8} | {:>9.2} | {:>9} | {:>7} | {:>9.2} | {:>8.2} | {:>7.2} | {:>9.4} | {:>7.2} |",
            self.trace,
            self.scale.ratio,
            if self.scale.hints { "yes" } else { "no" },
            placement_name(self.way.placement),
            self.way.policy.name(),
            gib(stats.in_bytes()),
            times(self.fetched_ratio()),
            gib(stats.out_bytes()),
            times(self.written_ratio()),
            times(self.blind_ratio()),
            gib(self.optimum.written),
            gib(stats.moved_bytes),
            gib(stats.bound_bytes),
            self.outcome.ns as f64 / 1e9,
            self.time_ratio()
        )
    }

    /// One JSON object.
    pub fn json(&self, model: &LinkModel) -> String {
        let mut out = format!(
            "{{\"bench\":\"model\",\"class\":\"M\",\"model\":\"{}\",\"trace\":\"{}\",\"transfer\":\"{}\",\"placement\":\"{}\",\"policy\":\"{}\"",
            model.name,
            self.trace,
            transfer_name(self.way.transfer),
            placement_name(self.way.placement),
            self.way.policy.name()
        );
        let numbers = [
            ("limit_bytes", self.scale.limit),
            ("footprint_bytes", self.footprint),
            ("rounds", u64::from(self.scale.rounds)),
            ("fetched_bytes", self.outcome.stats.in_bytes()),
            ("fetched_optimum_bytes", self.optimum.fetched),
            ("written_bytes", self.outcome.stats.out_bytes()),
            ("written_bound_bytes", self.optimum.written_min),
            ("written_blind_bytes", self.optimum.written_blind),
            ("written_optimum_bytes", self.optimum.written),
            ("moved_bytes", self.outcome.stats.moved_bytes),
            ("binds", self.outcome.stats.binds),
            ("bound_bytes", self.outcome.stats.bound_bytes),
            ("unbound_bytes", self.outcome.stats.unbound_bytes),
            ("nanoseconds", self.outcome.ns),
            ("nanoseconds_bound", self.least_ns),
            ("kernel_nanoseconds", self.outcome.moved.kernel_ns),
            ("copy_nanoseconds", self.outcome.moved.copy_ns),
            ("launches", self.outcome.stats.launches),
            ("submits", self.outcome.stats.submits),
        ];
        // Writing to a string cannot fail.
        let _ = write!(out, ",\"ratio\":{},\"hints\":{}", self.scale.ratio, self.scale.hints);
        for (name, number) in numbers {
            let _ = write!(out, ",\"{name}\":{number}");
        }
        out.push('}');
        out
    }
}

fn ratio(have: u64, least: u64) -> Option<f64> {
    (least > 0).then(|| have as f64 / least as f64)
}

fn transfer_name(transfer: Transfer) -> &'static str {
    match transfer {
        Transfer::Import => "import",
        Transfer::Staging => "staging",
    }
}

pub(super) fn placement_name(placement: Placement) -> &'static str {
    match placement {
        Placement::Span => "span",
        Placement::Sparse => "sparse",
    }
}

/// What the table is, the machine's constants, and its heads.
pub fn header(model: &LinkModel, limit: u64, rounds: u32, transfer: Transfer) -> String {
    let mut out = format!(
        "Modelled, class M: the production engine in virtual time on `{}`: {}.\nNo byte was moved and no device was used. ",
        model.name, model.about
    );
    let way = if model.duplex { "both ways at once" } else { "one way at a time" };
    let queues = if model.queues { "a queue for each role" } else { "one queue" };
    let _ = writeln!(
        out,
        "Limit {:.2} GiB, {rounds} rounds, by {}; the link carries {way}; {queues}.",
        limit as f64 / f64::from(1 << 30),
        transfer_name(transfer)
    );
    let constants = model.constants().map(|(name, value)| format!("{name} {value}"));
    let _ = writeln!(out, "Constants: {}.", constants.join(", "));
    let _ = writeln!(
        out,
        "size: footprint / limit. /optimum: bytes to the device over Belady's (64 KiB, exact). /unavoid.: bytes home over a lower \
         bound;\n/blind: over that of schedules that must keep what may yet be read. Belady wr: what the schedule with the fewest fetches writes back. moved: inside the device, because of spans;\nbound: put into sparse buffers. \
         /bound: seconds\nover the larger of kernels and least bytes on the link (their sum on one queue).\n"
    );
    out.push_str(
        "| trace     |  size | hints | place  | policy   | fetched G | /optimum | written G | /unavoid. |  /blind | Belady wr | moved  G | bound G |   seconds |  /bound |\n\
         |-----------|------:|-------|--------|----------|----------:|---------:|----------:|----------:|--------:|----------:|---------:|--------:|----------:|--------:|",
    );
    out
}
