//! Paged launches on a modelled machine: a kernel whose data lies on the host, of which so much fits. Held against the same launch where
//! everything fits, against its kernel on data that is there, and against the least that the link and the kernel take.

use super::device::{Kernel, Moved};
use super::link::LinkModel;
use super::play::{ModelPorts, PlayError, Player, Way, in_a_world};
use super::programs::Program;
use super::trace::{Access, Allocation};
use std::sync::Arc;
use vkhmm_core::units::{ByteRange, Geometry};
use vkhmm_engine::{EngineError, PagedArgument, PagedSpec, PagingReport, RangeCell};
use vkhmm_port::Exec;

/// One launch whose data lies on the host, until its results are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Until the launch is over.
    pub launch_ns: u64,
    /// Until its results are home.
    pub ns: u64,
    /// The same launch again, at once, until it is over.
    pub again_launch_ns: u64,
    /// Until its results are home.
    pub again_ns: u64,
    /// Bytes in and home until the first results were there, as the device saw them.
    pub bytes: [u64; 2],
    /// What the first launch took.
    pub paging: PagingReport,
}

/// A program at one size, played.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which.
    pub program: Program,
    /// Its data in device memories, as was asked.
    pub ratio: f64,
    /// Device memory.
    pub limit: u64,
    /// Bytes of its data.
    pub footprint: u64,
    /// How it was played.
    pub way: Way,
    /// With so much memory.
    pub run: Run,
    /// Where everything fits.
    pub fits: Run,
    /// Bytes that must go in, and home.
    pub needed: [u64; 2],
    /// Nanoseconds of its kernel, everything there.
    pub kernel_ns: u64,
    /// The larger of that and of the link's time for what is needed.
    pub bound_ns: u64,
}

impl Row {
    /// Plays `program` on data of `ratio` times `limit`.
    ///
    /// # Errors
    /// As of [`play`](super::play).
    pub fn measure(
        model: &LinkModel,
        program: Program,
        ratio: f64,
        limit: u64,
        way: &Way,
    ) -> Result<Self, PlayError> {
        let bytes = (limit as f64 * ratio) as u64;
        let (ranges, groups) = program.shape(bytes);
        let whole = |bytes: u64| bytes.next_multiple_of(Geometry::PRODUCTION.block_bytes());
        let all = ranges.iter().map(|range| whole(range.0)).sum();
        let run = play(model, program, bytes, if ratio > 1.0 { limit } else { all }, way)?;
        let fits = if ratio > 1.0 { play(model, program, bytes, all, way)? } else { run };
        let (needed_in, needed_out) = program.needed(bytes);
        let work = program.work(groups);
        let kernel_ns = model.kernel_ns(work.flop, work.bytes);
        Ok(Self {
            program,
            ratio,
            limit,
            footprint: ranges.iter().map(|range| range.0).sum(),
            way: way.clone(),
            run,
            fits,
            needed: [needed_in, needed_out],
            kernel_ns,
            bound_ns: kernel_ns.max(model.link_ns(needed_in, needed_out)),
        })
    }

    /// Bytes moved over bytes needed.
    pub fn moved_ratio(&self) -> f64 {
        self.run.bytes.iter().sum::<u64>() as f64 / self.needed.iter().sum::<u64>() as f64
    }

    /// Time over the time where everything fits, both from the host and back: the first launch, which imports and populates, and the
    /// next one.
    pub fn fits_ratio(&self) -> [f64; 2] {
        [(self.run.ns, self.fits.ns), (self.run.again_ns, self.fits.again_ns)]
            .map(|(a, b)| a as f64 / b as f64)
    }

    /// Time of the second launch alone over that of one that finds everything there; and what of that the link and the kernel make
    /// inevitable.
    pub fn resident_ratio(&self) -> [f64; 2] {
        [self.run.again_launch_ns, self.bound_ns].map(|ns| ns as f64 / self.fits.again_launch_ns as f64)
    }

    /// Time of the second launch alone over the least.
    pub fn bound_ratio(&self) -> f64 {
        self.run.again_launch_ns as f64 / self.bound_ns as f64
    }

    /// Group runs over groups.
    pub fn runs(&self) -> f64 {
        self.run.paging.group_runs as f64 / f64::from(self.run.paging.groups)
    }

    /// One line of the table under [`header`].
    pub fn line(&self) -> String {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let [first, next] = self.fits_ratio();
        let [resident, least] = self.resident_ratio();
        format!(
            "| {:<11} | {:>5.2} | {:<6} | {:<8} | {:>6} | {:>5.2} | {:>9.3} | {:>7.2} | {:>8.4} | {:>6.2} | {:>8.4} | {:>6.2} | {:>8.4} | {:>7.2} | {:>6.2} | {:>6.2} |",
            self.program.name(),
            self.ratio,
            super::table::placement_name(self.way.placement),
            self.way.policy.name(),
            self.run.paging.rounds,
            self.runs(),
            gib(self.run.bytes.iter().sum()),
            self.moved_ratio(),
            self.run.ns as f64 / 1e9,
            first,
            self.run.again_ns as f64 / 1e9,
            next,
            self.run.again_launch_ns as f64 / 1e9,
            resident,
            least,
            self.bound_ratio(),
        )
    }

    /// One JSON object.
    pub fn json(&self, model: &LinkModel) -> String {
        let numbers = [
            ("limit_bytes", self.limit),
            ("footprint_bytes", self.footprint),
            ("fetched_bytes", self.run.bytes[0]),
            ("written_bytes", self.run.bytes[1]),
            ("needed_bytes", self.needed.iter().sum()),
            ("rounds", self.run.paging.rounds),
            ("groups", self.run.paging.groups.into()),
            ("group_runs", self.run.paging.group_runs),
            ("nanoseconds", self.run.ns),
            ("launch_nanoseconds", self.run.launch_ns),
            ("fits_nanoseconds", self.fits.ns),
            ("again_nanoseconds", self.run.again_ns),
            ("again_launch_nanoseconds", self.run.again_launch_ns),
            ("fits_again_nanoseconds", self.fits.again_ns),
            ("resident_nanoseconds", self.fits.again_launch_ns),
            ("kernel_nanoseconds", self.kernel_ns),
            ("nanoseconds_bound", self.bound_ns),
        ];
        let numbers: String = numbers.iter().map(|(name, number)| format!(",\"{name}\":{number}")).collect();
        format!(
            "{{\"bench\":\"model-paged\",\"class\":\"M\",\"model\":\"{}\",\"kernel\":\"{}\",\"placement\":\"{}\",\"policy\":\"{}\",\
             \"ratio\":{}{numbers}}}",
            model.name,
            self.program.name(),
            super::table::placement_name(self.way.placement),
            self.way.policy.name(),
            self.ratio,
        )
    }
}

/// What the table is, and its heads.
pub fn header(model: &LinkModel, limit: u64) -> String {
    format!(
        "Modelled, class M: paged launches by the production engine in virtual time on `{}`: {}.\nLimit {:.2} GiB. size: data / limit. \
         Of the first launch: runs: group runs / groups; /needed: bytes moved, both ways, over every sub-block\nthat is touched, once. \
         first, next: seconds from data on the host to results on the host; /fits: over the same where everything fits. launch: of \
         the next\none alone; /resid.: over one that finds everything there and leaves it there; least: what of that the link or the \
         kernel takes; /bound: over\nthe larger of these.\n\n\
         | kernel      |  size | place  | policy   | rounds |  runs |   moved G | /needed |  first s |  /fits |   next s |  /fits | launch s | /resid. |  least | /bound |\n\
         |-------------|------:|--------|----------|-------:|------:|----------:|--------:|---------:|-------:|---------:|-------:|---------:|--------:|-------:|-------:|",
        model.name,
        model.about,
        limit as f64 / f64::from(1 << 30),
    )
}

fn play(model: &LinkModel, program: Program, bytes: u64, limit: u64, way: &Way) -> Result<Run, PlayError> {
    let (model, way) = (*model, way.clone());
    let ended = in_a_world(program.name(), move |exec| {
        let (ranges, groups) = program.shape(bytes);
        let filled =
            |(bytes, access): &(u64, Access)| Allocation { bytes: *bytes, filled: *access == Access::Read };
        let allocations: Vec<Allocation> = ranges.iter().map(filled).collect();
        let player = Player::new(exec, &model, &allocations, limit, way);
        let named: Vec<Access> = ranges.iter().map(|range| range.1).collect();
        played(&player, program, groups, &allocations, &named)
    })?;
    ended.map_err(|source| PlayError::Engine { trace: program.name(), step: 0, source })
}

fn played(
    player: &Player,
    program: Program,
    groups: u32,
    allocations: &[Allocation],
    named: &[Access],
) -> Result<Run, EngineError> {
    let (engine, exec) = (&player.engine, &player.exec);
    let ranges = player.prepare(program.name(), allocations)?;
    let kernel = Arc::new(Kernel::Paged(program.kernel(groups)));
    let launch = || {
        let argument = |(range, access): (&Arc<RangeCell<ModelPorts>>, &Access)| PagedArgument {
            range: Some(Arc::clone(range)),
            access: *access,
        };
        let op = engine.launch_paged(PagedSpec {
            kernel: Arc::clone(&kernel),
            groups: [groups, 1, 1],
            items: program.items(),
            arguments: ranges.iter().zip(named).map(argument).collect(),
            push: vec![0; 8],
            label: program.name().into(),
        })?;
        engine.wait(&op, None)?;
        Ok::<_, EngineError>(op.paging().expect("a paged launch says what it took"))
    };
    let whole = || {
        let start = exec.now();
        let paging = launch()?;
        let launch_ns = exec.now() - start;
        for (range, _) in ranges.iter().zip(named).filter(|(_, access)| **access != Access::Read) {
            let all: ByteRange = (0..range.bytes()).into();
            engine.prefetch_to_host(range, all)?;
            player.touch(range, all, false);
        }
        Ok::<_, EngineError>((paging, launch_ns, exec.now() - start))
    };
    let (paging, launch_ns, ns) = whole()?;
    let Moved { bytes_in, bytes_out, .. } = player.moved();
    let (_, again_launch_ns, again_ns) = whole()?;
    Ok(Run { launch_ns, ns, again_launch_ns, again_ns, bytes: [bytes_in, bytes_out], paging })
}
