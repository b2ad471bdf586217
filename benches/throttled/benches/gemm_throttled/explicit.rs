//! What a programmer writes without managed memory, on the same queues behind the same link: all in turn, and double-buffered.

use crate::{MATRIX, PANEL, PANELS, SQUARE, STEP, STRIP, WINDOWS};
use anyhow::{Result, ensure};
use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vkhmm_core::units::{FrameIndex, Geometry, Ticket};
use vkhmm_core::uses::Uses;
use vkhmm_port::{Command, Device, RawBytes, Region, Role, Source, Submission, Target};
use vkhmm_throttled::{Link, Options, Throttled, ThrottledImport, ThrottledKernel};

/// Where things lie on the device: two panels of A, two windows of B, two strips of C.
const B_AT: u64 = 2 * PANEL * STRIP;
const C_AT: u64 = B_AT + 2 * STRIP;
const DEVICE_BYTES: u64 = C_AT + 2 * PANEL * SQUARE;
/// Longest wait for one ticket.
const PATIENCE: Duration = Duration::from_secs(60);

/// The device on its own port, and the three matrices in mapped host memory.
pub(crate) struct Explicit {
    device: Throttled,
    matrices: [Arc<ThrottledImport>; 3],
    step: Arc<ThrottledKernel>,
    next: Uses,
}

/// Host memory for the rest of the process, with every page there.
fn host(bytes: u64) -> RawBytes {
    let layout = Layout::from_size_align(bytes as usize, 4096).expect("a matrix");
    // SAFETY: alloc: matrices are not empty.
    let start = NonNull::new(unsafe { std::alloc::alloc(layout) }).expect("memory for a matrix");
    // SAFETY: RawBytes::new: just allocated, never freed, no reference is made.
    let host = unsafe { RawBytes::new(start, bytes as usize) };
    host.fill(1);
    host
}

impl Explicit {
    pub(crate) fn new(config: vkhmm_vulkan::Config, link: Link) -> Result<Self> {
        let device = Throttled::open(config, link, Options::default())?;
        device.grow(FrameIndex(0), DEVICE_BYTES.div_ceil(Geometry::PRODUCTION.frame_bytes()) as u32)?;
        let import = || device.import(host(MATRIX)).map(Arc::new);
        let matrices = [import()?, import()?, import()?];
        Ok(Self { device, matrices, step: ThrottledKernel::timed(STEP).into(), next: Uses::NONE })
    }

    pub(crate) fn device(&self) -> &Throttled {
        &self.device
    }

    fn submit(&mut self, role: Role, after: &[Ticket], commands: Vec<Command<Throttled>>) -> Result<Ticket> {
        let timeline = self.device.profile().timeline(role);
        let signals = Ticket { timeline, value: self.next.on(timeline) + 1 };
        let mut waits = Uses::NONE;
        after.iter().filter(|ticket| ticket.timeline != timeline).for_each(|ticket| waits.add(*ticket));
        self.device.submit(role, Submission { waits, foreign: Vec::new(), commands, signals })?;
        self.next.add(signals);
        Ok(signals)
    }

    fn wait(&self, ticket: Ticket) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let have = self.device.completed()?;
            if have.on(ticket.timeline) >= ticket.value {
                return Ok(());
            }
            ensure!(Instant::now() < until, "{ticket:?} was not reached within {PATIENCE:?}");
            self.device.wait(&have, PATIENCE)?;
        }
    }

    fn copy_in(&mut self, matrix: usize, from: u64, to: u64, bytes: u64, after: &[Ticket]) -> Result<Ticket> {
        let source = Source::Import(Arc::clone(&self.matrices[matrix]));
        let regions = vec![Region { host_offset: from, device_offset: to, bytes }];
        self.submit(Role::CopyIn, after, vec![Command::CopyIn { source, regions }])
    }

    fn tile_in(&mut self, tile: u64, after: &[Ticket]) -> Result<Ticket> {
        self.copy_in(0, tile * STRIP, tile % (2 * PANEL) * STRIP, STRIP, after)
    }

    fn window_in(&mut self, window: u64, turn: u64, after: &[Ticket]) -> Result<Ticket> {
        self.copy_in(1, window * STRIP, B_AT + turn % 2 * STRIP, STRIP, after)
    }

    /// A panel with a window.
    fn kernels(&mut self, after: &[Ticket]) -> Result<Ticket> {
        let dispatch = || Command::Dispatch {
            kernel: Arc::clone(&self.step),
            bindings: Vec::new(),
            push: Vec::new(),
            groups: [1; 3],
            elapsed_ns: Arc::default(),
        };
        let commands = (0..PANEL).map(|_| dispatch()).collect();
        self.submit(Role::Compute, after, commands)
    }

    fn squares_out(&mut self, turn: u64, after: &[Ticket]) -> Result<Ticket> {
        let target = Target::Import(Arc::clone(&self.matrices[2]));
        let bytes = PANEL * SQUARE;
        let regions =
            vec![Region { host_offset: turn * bytes, device_offset: C_AT + turn % 2 * bytes, bytes }];
        self.submit(Role::CopyOut, after, vec![Command::CopyOut { target, regions }])
    }

    /// Copy, run, copy back, each waited for.
    pub(crate) fn naive(&mut self) -> Result<f64> {
        let start = Instant::now();
        for panel in 0..PANELS {
            for tile in panel * PANEL..(panel + 1) * PANEL {
                self.tile_in(tile, &[]).and_then(|ticket| self.wait(ticket))?;
            }
            for window in 0..WINDOWS {
                self.window_in(window, window, &[]).and_then(|ticket| self.wait(ticket))?;
                self.kernels(&[]).and_then(|ticket| self.wait(ticket))?;
                self.squares_out(panel * WINDOWS + window, &[]).and_then(|ticket| self.wait(ticket))?;
            }
        }
        Ok(start.elapsed().as_secs_f64())
    }

    /// Two of everything: what comes next is copied while kernels run, and results behind them.
    pub(crate) fn double_buffered(&mut self) -> Result<f64> {
        let start = Instant::now();
        let mut ran: Vec<Ticket> = Vec::new();
        let mut out: Vec<Ticket> = Vec::new();
        let mut arrived = (0..PANEL).map(|tile| self.tile_in(tile, &[])).last().transpose()?;
        let mut window = self.window_in(0, 0, &[])?;
        for turn in 0..PANELS * WINDOWS {
            let mut after = vec![window];
            after.extend(arrived.take());
            after.extend(turn.checked_sub(2).map(|n| out[n as usize]));
            ran.push(self.kernels(&after)?);
            // The next window goes where the one before this lay; a tile of the next panel, where the panel before this did.
            let free: Vec<Ticket> = turn.checked_sub(1).map(|n| ran[n as usize]).into_iter().collect();
            let (panel, at) = (turn / WINDOWS, turn % WINDOWS);
            let every = WINDOWS / PANEL;
            if panel + 1 < PANELS && at % every == every / 2 {
                arrived = Some(self.tile_in((panel + 1) * PANEL + at / every, &free)?);
            }
            if turn + 1 < PANELS * WINDOWS {
                window = self.window_in((at + 1) % WINDOWS, turn + 1, &free)?;
            }
            let last = ran[turn as usize];
            out.push(self.squares_out(turn, &[last])?);
        }
        self.wait(out[out.len() - 1])?;
        Ok(start.elapsed().as_secs_f64())
    }
}
