//! Plays a trace: the production engine over the model's ports, in virtual time.

use super::device::{Kernel, ModelDevice, Moved, Work};
use super::exec::ModelExec;
use super::host::ModelHost;
use super::link::LinkModel;
use super::trace::{Access, Allocation, Part, Step, Trace, TraceError};
use crate::{Limits, SimExec, run_steady};
use core::time::Duration;
use std::sync::{Arc, Mutex, PoisonError};
use vkhmm_core::policy::Policy;
use vkhmm_core::units::{ByteRange, Geometry};
use vkhmm_engine::{
    Argument, BindTo, Config, Engine, EngineError, GuardKind, LaunchSpec, Ports, RangeCell, Stats,
};
use vkhmm_port::Exec;

/// The ports of a modelled machine.
pub(super) struct ModelPorts;

impl Ports for ModelPorts {
    type Exec = ModelExec;
    type Host = ModelHost;
    type Device = ModelDevice;
}

/// How bytes get to the device and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// Straight between host pages and device memory.
    Import,
    /// Through the staging rings.
    Staging,
}

/// How kernels reach what lies in frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Every argument in one run of frames.
    Span,
    /// Every range in a sparse buffer.
    Sparse,
}

/// How a trace is played.
#[derive(Clone, Debug)]
pub struct Way {
    /// How bytes move.
    pub transfer: Transfer,
    /// How kernels reach them.
    pub placement: Placement,
    /// What to fetch, and whom to evict.
    pub policy: Arc<dyn Policy>,
}

/// What a trace cost, from the first step until everything is over. Filling its inputs is not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Virtual nanoseconds.
    pub ns: u64,
    /// What the engine counted.
    pub stats: Stats,
    /// What the device saw.
    pub moved: Moved,
}

/// Why a trace was not played to its end.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// It cannot be played under this limit.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The engine refused a step.
    #[error("step {step} of `{trace}`: {source}")]
    Engine {
        /// Which trace.
        trace: &'static str,
        /// Which step.
        step: usize,
        /// What it said.
        source: EngineError,
    },
    /// The world ended before the trace did.
    #[error("`{trace}` came to a bad end: {report}")]
    World {
        /// Which trace.
        trace: &'static str,
        /// A panic, or a deadlock's report.
        report: String,
    },
}

/// Plays `trace` on `model` under `limit` bytes of device memory.
///
/// # Errors
/// See [`PlayError`].
pub fn play(model: &LinkModel, trace: &Arc<Trace>, limit: u64, way: &Way) -> Result<Outcome, PlayError> {
    trace.check(limit)?;
    let (model, played, way) = (*model, Arc::clone(trace), way.clone());
    let (step, end) = in_a_world(trace.name, move |exec| {
        Player::new(exec, &model, &played.allocations, limit, way).play(&played)
    })?;
    end.map_err(|source| PlayError::Engine { trace: trace.name, step, source })
}

/// What `body` answers, in a world of its own.
pub(super) fn in_a_world<T: Send + 'static>(
    name: &'static str,
    body: impl FnOnce(&SimExec) -> T + Send + 'static,
) -> Result<T, PlayError> {
    let result = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&result);
    let limits = Limits { steps: u64::MAX, time_ns: u64::MAX, ..Limits::default() };
    let run = run_steady(limits, move |exec| {
        let outcome = body(exec);
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    });
    if let Some(report) = run.failure {
        return Err(PlayError::World { trace: name, report });
    }
    let outcome = result.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok(outcome.expect("a world that does not fail has come to its end"))
}

/// The one application thread.
pub(super) struct Player {
    pub(super) exec: ModelExec,
    host: ModelHost,
    device: Arc<ModelDevice>,
    pub(super) engine: Arc<Engine<ModelPorts>>,
}

impl Player {
    pub(super) fn new(
        sim: &SimExec,
        model: &LinkModel,
        allocations: &[Allocation],
        limit: u64,
        way: Way,
    ) -> Self {
        let Way { transfer, placement, policy } = way;
        let geometry = Geometry::PRODUCTION;
        let exec = ModelExec::new(sim, model);
        let blocks: u64 = allocations.iter().map(|a| a.bytes.div_ceil(geometry.block_bytes())).sum();
        let host = ModelHost::new(&exec, model, geometry, blocks.max(1) as u32);
        let device = Arc::new(ModelDevice::new(&exec, model, geometry, limit, placement, &host));
        let config = Config {
            device_memory_limit: Some(limit),
            import_limit: if transfer == Transfer::Import { u64::MAX } else { 0 },
            // As in a release build.
            strict_io: false,
            // Modelled waits may be long and are not news.
            watchdog: Duration::from_secs(u32::MAX.into()),
            fault_threads: 1,
            policy,
            ..Config::default()
        };
        let engine = Engine::new(exec.clone(), Arc::new(host.clone()), Arc::clone(&device), config);
        engine.start(Some(Arc::new(host.clone()))).expect("threads for the engine");
        Self { exec, host, device, engine }
    }

    /// The outcome, or the step that was refused.
    fn play(&self, trace: &Trace) -> (usize, Result<Outcome, EngineError>) {
        let ranges = match self.prepare(trace.name, &trace.allocations) {
            Ok(ranges) => ranges,
            Err(error) => return (0, Err(error)),
        };
        let (start, stats, moved) = (self.exec.now(), self.engine.stats(), self.device.moved());
        debug_assert_eq!(moved, Moved::default(), "filling inputs moves nothing");
        for (at, step) in trace.steps.iter().enumerate() {
            if let Err(error) = self.step(step, &ranges) {
                return (at, Err(error));
            }
        }
        if let Err(error) = self.engine.sync() {
            return (trace.steps.len(), Err(error));
        }
        let outcome = Outcome {
            ns: self.exec.now() - start,
            stats: self.engine.stats().since(&stats),
            moved: self.device.moved(),
        };
        (trace.steps.len(), Ok(outcome))
    }

    /// Makes the ranges, and fills those that are to be.
    pub(super) fn prepare(
        &self,
        name: &str,
        allocations: &[Allocation],
    ) -> Result<Vec<Arc<RangeCell<ModelPorts>>>, EngineError> {
        let mut ranges = Vec::with_capacity(allocations.len());
        for (i, allocation) in allocations.iter().enumerate() {
            let range = self.engine.alloc(allocation.bytes, &format!("{name} {i}"))?;
            if allocation.filled {
                self.engine.bring_home(&range, (0..allocation.bytes).into(), GuardKind::Write)?;
            }
            ranges.push(range);
        }
        Ok(ranges)
    }

    fn step(&self, step: &Step, ranges: &[Arc<RangeCell<ModelPorts>>]) -> Result<(), EngineError> {
        match step {
            Step::Launch { uses, flop, bytes } => {
                let argument = |(part, access): &(Part, Access)| Argument {
                    range: Some(Arc::clone(&ranges[part.allocation])),
                    bytes: part.bytes,
                    access: *access,
                    bind: BindTo::Binding,
                };
                let spec = LaunchSpec {
                    kernel: Some(Arc::new(Kernel::Declared(Work { flop: *flop, bytes: *bytes }))),
                    groups: [1; 3],
                    arguments: uses.iter().map(argument).collect(),
                    push: Vec::new(),
                    label: "kernel".into(),
                };
                self.engine.launch(spec).map(drop)
            }
            Step::Touch { part, write } => {
                self.touch(&ranges[part.allocation], part.bytes, *write);
                Ok(())
            }
            Step::ToDevice(part) => {
                self.engine.prefetch_to_device(&ranges[part.allocation], part.bytes).map(drop)
            }
            Step::ToHost(part) => {
                self.engine.prefetch_to_host(&ranges[part.allocation], part.bytes).map(drop)
            }
        }
    }

    /// What the device has done so far.
    pub(super) fn moved(&self) -> Moved {
        self.device.moved()
    }

    /// Loads from, or stores to, every page in order.
    pub(super) fn touch(&self, range: &RangeCell<ModelPorts>, bytes: ByteRange, write: bool) {
        let (start, end) = (range.offset() + bytes.start, range.offset() + bytes.end);
        self.host.touch(self.engine.geometry().pages_touched(&(start..end).into()), write);
    }
}
