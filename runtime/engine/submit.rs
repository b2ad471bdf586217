//! The one door to the queues: the open batch, the submission queue and its thread, staging slots, tickets.
//!
//! Items enter in admission order and reach the queues in that order. An item that needs no staging and finds the queue empty is
//! submitted by its caller; any other, and every later one until the queue is empty, by the submission thread.

mod binds;
mod grants;
mod items;
mod parts;
mod staging;

pub(crate) use grants::End;
pub(crate) use parts::Part;
use parts::Work;

use crate::binds::Binds;
use crate::op::{Flight, Op, OpStatus};
use crate::stats::Counters;
use crate::{Engine, Ports};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use grants::Opening;
use vkhmm_core::units::{ByteRange, OpId, Ticket, Timeline};
use vkhmm_core::uses::Uses;
use vkhmm_port::{BoundRange, Command, Device, Exec, Mutex, Region, Role, Signal};
use vkhmm_port::{Source, Submission, Target};

/// A run of bytes between host and device, within one block.
pub(crate) struct Piece<D: Device> {
    /// Offset in the reservation.
    pub(crate) host: u64,
    /// Offset in device memory.
    pub(crate) device: u64,
    pub(crate) bytes: u64,
    /// How the device reaches the host side: an import and the offset in it. `None`: staging.
    pub(crate) import: Option<(Arc<D::Import>, u64)>,
}

/// A kernel with everything it needs.
pub(crate) struct Dispatch<D: Device> {
    pub(crate) kernel: Arc<D::Kernel>,
    pub(crate) bindings: Vec<BoundRange<D>>,
    pub(crate) push: Vec<u8>,
    pub(crate) groups: [u32; 3],
    /// Bytes of device memory it uses, and whether it stores to them.
    pub(crate) touches: Vec<(ByteRange, bool)>,
}

/// What one admitted request does on the device, in this order: out, moves, fills and copies in, kernel; and, beside the copies,
/// binds.
pub(crate) struct Item<P: Ports> {
    pub(crate) op: Arc<Op<P>>,
    pub(crate) copy: Arc<Op<P>>,
    pub(crate) evict: Arc<Op<P>>,
    /// Must be over before anything here writes frames.
    pub(crate) waits: Uses,
    /// Likewise; earlier items, whose tickets are known by the time this one is processed.
    pub(crate) after: Vec<Arc<Op<P>>>,
    /// Must be over before the kernel runs, and not before anything is copied. Earlier items, too.
    pub(crate) before_kernel: Vec<Arc<Op<P>>>,
    /// Must wait for what these waited for (see [`Op::waited`]).
    pub(crate) claims: Vec<Arc<Op<P>>>,
    /// Likewise, but for the kernel alone, which may write frames that no copy fills.
    pub(crate) kernel_claims: Vec<Arc<Op<P>>>,
    pub(crate) binds: Binds<P::Device>,
    pub(crate) outs: Vec<Piece<P::Device>>,
    pub(crate) moves: Vec<Region>,
    pub(crate) fills: Vec<(u64, u64)>,
    pub(crate) ins: Vec<Piece<P::Device>>,
    pub(crate) dispatch: Option<Dispatch<P::Device>>,
    /// The promise of an acquire, kept once all of the above is submitted.
    pub(crate) grant: Option<Ticket>,
}

impl<P: Ports> Item<P> {
    fn is_staged(&self) -> bool {
        self.outs.iter().chain(&self.ins).any(|p| p.import.is_none())
    }

    fn copies_bytes(&self) -> u64 {
        let moved: u64 = self.moves.iter().map(|r| r.bytes).sum();
        self.outs.iter().chain(&self.ins).map(|p| p.bytes).sum::<u64>() + moved
    }
}

/// The batch being recorded for the compute queue. Its ticket is reserved.
struct Batch<P: Ports> {
    ticket: Ticket,
    waits: Uses,
    commands: Vec<Command<P::Device>>,
    launches: usize,
    opened_ns: u64,
    /// The one before was opened longer ago than a batch may wait for company.
    is_apart: bool,
    /// Device bytes used since the last barrier, and whether they were stored to.
    touched: Vec<(ByteRange, bool)>,
}

impl<P: Ports> Batch<P> {
    fn barrier(&mut self, counters: &Counters) {
        if !self.commands.is_empty() && !matches!(self.commands.last(), Some(Command::Barrier)) {
            self.commands.push(Command::Barrier);
            Counters::add(&counters.barriers, 1);
        }
        self.touched.clear();
    }
}

/// The state behind the submit lock.
pub(crate) struct Submit<P: Ports> {
    next: [u64; Uses::TIMELINES_MAX],
    batch: Option<Batch<P>>,
    /// When a batch was opened last.
    opened_ns: u64,
    queue: VecDeque<Work<P>>,
    /// The submission thread is at work on an item.
    busy: bool,
    /// The submission thread knows that it must not sleep for longer than a batch may wait for company.
    pub(crate) watched: bool,
    /// What applications have acquired and not released.
    openings: BTreeMap<OpId, Opening<P>>,
}

impl<P: Ports> Submit<P> {
    pub(crate) fn new() -> Self {
        Self {
            next: [1; Uses::TIMELINES_MAX],
            batch: None,
            opened_ns: 0,
            queue: VecDeque::new(),
            busy: false,
            watched: false,
            openings: BTreeMap::new(),
        }
    }

    /// Whether every admitted item is submitted.
    pub(crate) fn has_no_queue(&self) -> bool {
        self.queue.is_empty() && !self.busy
    }

    /// What has not reached a queue, in words.
    pub(crate) fn describe(&self, now: u64) -> String {
        let queued = alloc::format!("{} requests queued", self.queue.len());
        let busy = if self.busy { ", one being staged" } else { "" };
        let batch = self.batch.as_ref().map_or_else(String::new, |batch| {
            let (age, ticket) = (now.saturating_sub(batch.opened_ns) as f64 / 1e9, batch.ticket);
            let (launches, timeline, value) = (batch.launches, ticket.timeline.0, ticket.value);
            alloc::format!(", open batch of {launches} launches for {age:.3} s, ticket {timeline}:{value}")
        });
        queued + busy + &batch
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.has_no_queue() && self.batch.is_none()
    }

    /// Everything that has not reached a queue, for the caller to drop without the lock (after loss).
    pub(crate) fn take_all(&mut self) -> impl Sized + use<P> {
        let ends: Vec<_> = self.openings.values_mut().filter_map(|opening| opening.take_end()).collect();
        (core::mem::take(&mut self.queue), self.batch.take(), ends)
    }
}

/// What is in flight.
pub(crate) struct Flights<P: Ports> {
    pub(crate) lanes: [VecDeque<Flight<P>>; Uses::TIMELINES_MAX],
    /// What the completion thread is to wait for. Other flights are landed by whoever waits for them, or late.
    asked: Uses,
}

impl<P: Ports> Flights<P> {
    pub(crate) fn push(&mut self, flight: Flight<P>, is_asked: bool) {
        if is_asked {
            self.asked.add(flight.ticket);
        }
        self.lanes[usize::from(flight.ticket.timeline.0)].push_back(flight);
    }

    /// Asks the completion thread to land all that is under way.
    pub(crate) fn ask(&mut self) {
        let last = self.lanes.iter().filter_map(VecDeque::back);
        last.for_each(|flight| self.asked.add(flight.ticket));
    }

    /// Whether `now` has reached all that the completion thread was asked for.
    pub(crate) fn is_asked_done(&self, now: &Uses) -> bool {
        self.asked.done(now)
    }
}

impl<P: Ports> Default for Flights<P> {
    fn default() -> Self {
        Self { lanes: core::array::from_fn(|_| VecDeque::new()), asked: Uses::NONE }
    }
}

/// A copy home that waits for a staging slot.
pub(crate) struct HomeJob<P: Ports> {
    pub(crate) op: Arc<Op<P>>,
    pub(crate) pieces: Vec<Piece<P::Device>>,
    pub(crate) waits: Uses,
}

/// Free staging slots; the last outward ones are for faults.
pub(crate) struct Slots<P: Ports> {
    pub(crate) free_in: Vec<u32>,
    pub(crate) free_out: Vec<u32>,
    pub(crate) homes: VecDeque<HomeJob<P>>,
    for_faults: usize,
}

impl<P: Ports> Slots<P> {
    pub(crate) fn new(slots: u32) -> Self {
        Self {
            free_in: (0..slots).collect(),
            free_out: (0..slots).collect(),
            homes: VecDeque::new(),
            // One slot alone is shared: an eviction must get it, too.
            for_faults: (slots as usize / 4).max(1).min((slots as usize).saturating_sub(1)),
        }
    }

    /// A slot for what nobody waits for: not one that is kept for touches, and none while a touch waits for one.
    pub(crate) fn take_for_guess(&mut self) -> Option<u32> {
        if self.homes.is_empty() { self.take_for_eviction() } else { None }
    }

    fn take_for_eviction(&mut self) -> Option<u32> {
        if self.free_out.len() > self.for_faults { self.free_out.pop() } else { None }
    }
}

impl<P: Ports> Engine<P> {
    // ── tickets and the open batch (all under the submit lock) ──────────────────────────────────────────────────────────

    fn take_ticket(&self, submit: &mut Submit<P>, role: Role) -> Ticket {
        let timeline = self.device.profile().timeline(role);
        let next = &mut submit.next[usize::from(timeline.0)];
        let ticket = Ticket { timeline, value: *next };
        *next += 1;
        ticket
    }

    /// Hands one submission to the device. A failure is loss: it is noted, and the completion thread does the rest.
    fn hand_over(&self, role: Role, submission: Submission<P::Device>) {
        Counters::add(&self.counters.submits, 1);
        if self.lost.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = self.device.submit(role, submission) {
            self.note_loss(&alloc::format!("{error}"));
        }
    }

    pub(crate) fn flush_locked(&self, submit: &mut Submit<P>) {
        if let Some(batch) = submit.batch.take() {
            let submission = Submission {
                waits: batch.waits,
                foreign: Vec::new(),
                commands: batch.commands,
                signals: batch.ticket,
            };
            self.hand_over(Role::Compute, submission);
        }
    }

    /// Submits the open batch.
    pub fn flush(&self) {
        let mut submit = self.submit.lock();
        self.flush_locked(&mut submit);
    }

    /// Submits `commands` now, on `role`'s queue. Whatever of the open batch they must follow goes first.
    pub(crate) fn submit_locked(
        &self,
        submit: &mut Submit<P>,
        role: Role,
        waits: Uses,
        commands: Vec<Command<P::Device>>,
        flight: impl FnOnce(Ticket) -> Flight<P>,
    ) -> Ticket {
        let timeline = self.device.profile().timeline(role);
        self.flush_behind(submit, timeline, &waits);
        let signals = self.take_ticket(submit, role);
        self.fly(flight(signals));
        self.hand_over(
            role,
            Submission { waits: without(waits, timeline), foreign: Vec::new(), commands, signals },
        );
        signals
    }

    /// Submits the open batch if what is to be submitted on `timeline` after `waits` must follow it.
    fn flush_behind(&self, submit: &mut Submit<P>, timeline: Timeline, waits: &Uses) {
        let behind =
            |b: &Batch<P>| b.ticket.timeline == timeline || waits.on(b.ticket.timeline) >= b.ticket.value;
        if submit.batch.as_ref().is_some_and(behind) {
            self.flush_locked(submit);
        }
    }

    /// A piece of work that the completion thread is to see to.
    fn fly(&self, flight: Flight<P>) {
        let ticket = flight.ticket;
        if let Some(op) = &flight.op {
            op.add_piece(ticket);
        }
        self.flights.lock().push(flight, true);
        self.called.notify();
    }

    /// A launch that nothing hangs on until somebody asks: if nobody waits, and there are not many, whoever will wait lands it.
    fn fly_alone(&self, ticket: Ticket, op: &Arc<Op<P>>) {
        op.add_piece(ticket);
        let mut flights = self.flights.lock();
        // Under the lock: who comes to wait is counted before it asks for all that is here.
        let is_asked = self.sleepers.load(Ordering::Acquire) > 0
            || flights.lanes[usize::from(ticket.timeline.0)].len() >= 2 * self.config.batch_launches_max;
        flights.push(Flight::of(ticket, op), is_asked);
        drop(flights);
        if is_asked {
            self.called.notify();
        }
    }

    /// Sees to it that a batch which stays open is submitted once it is old enough: the submission thread is told, unless it knows.
    fn watch_batch(&self, submit: &mut Submit<P>) {
        if submit.batch.is_some() && !submit.watched {
            submit.watched = true;
            self.work.notify();
        }
    }

    fn open_batch<'a>(&self, submit: &'a mut Submit<P>) -> &'a mut Batch<P> {
        if submit.batch.is_none() {
            let ticket = self.take_ticket(submit, Role::Compute);
            let opened_ns = self.exec.now();
            let before_ns = core::mem::replace(&mut submit.opened_ns, opened_ns);
            submit.batch = Some(Batch {
                ticket,
                waits: Uses::NONE,
                commands: Vec::new(),
                launches: 0,
                opened_ns,
                is_apart: opened_ns - before_ns >= self.config.batch_age.as_nanos() as u64,
                touched: Vec::new(),
            });
        }
        submit.batch.as_mut().expect("just opened")
    }

    /// The open batch, for what comes after `waits`. One that has work already does not wait for what only its newest part waits for:
    /// it is submitted, or kernels would stand still until the copies for later ones are there.
    fn batch_after<'a>(&self, submit: &'a mut Submit<P>, waits: &Uses) -> &'a mut Batch<P> {
        let waits = without(*waits, self.device.profile().timeline(Role::Compute));
        let known = |batch: &Batch<P>| {
            let mut known = batch.waits;
            known.merge(&self.completed.lock());
            waits.done(&known)
        };
        let is_held_up = |batch: &Batch<P>| !batch.commands.is_empty() && !known(batch);
        if !waits.is_none() && submit.batch.as_ref().is_some_and(is_held_up) {
            self.flush_locked(submit);
        }
        let batch = self.open_batch(submit);
        batch.waits.merge(&waits);
        batch
    }

    fn record_dispatch(
        &self,
        submit: &mut Submit<P>,
        op: &Arc<Op<P>>,
        waits: Uses,
        dispatch: Dispatch<P::Device>,
    ) {
        let compute = self.device.profile().timeline(Role::Compute);
        let batch = self.batch_after(submit, &waits);
        let conflict = |(bytes, write): &(ByteRange, bool)| {
            batch.touched.iter().any(|(b, w)| (*w || *write) && b.overlaps(*bytes))
        };
        if dispatch.touches.iter().any(conflict) {
            batch.barrier(&self.counters);
        }
        batch.touched.extend(&dispatch.touches);
        batch.commands.push(Command::Dispatch {
            kernel: dispatch.kernel,
            bindings: dispatch.bindings,
            push: dispatch.push,
            groups: dispatch.groups,
            elapsed_ns: Arc::clone(&op.elapsed_ns),
        });
        batch.launches += 1;
        let (ticket, launches, is_apart) = (batch.ticket, batch.launches, batch.is_apart);
        self.fly_alone(ticket, op);
        let is_idle = |completed: &Uses| completed.on(compute) + 1 >= ticket.value;
        let idle = is_idle(&self.completed.lock())
            // Nobody may have looked for a while. Launches that come one upon the other wait for company.
            || launches == 1 && is_apart && self.look_at_device().is_some_and(|now| is_idle(&now));
        if idle || launches >= self.config.batch_launches_max {
            self.flush_locked(submit);
        }
        self.watch_batch(submit);
    }

    /// The fast path's end: records a launch whose data is resident, unless earlier items still wait for the submission thread.
    pub(crate) fn try_record(
        &self,
        op: &Arc<Op<P>>,
        dispatch: Dispatch<P::Device>,
    ) -> Result<Ticket, Dispatch<P::Device>> {
        let mut submit = self.submit.lock();
        if !submit.has_no_queue() {
            return Err(dispatch);
        }
        self.record_dispatch(&mut submit, op, Uses::NONE, dispatch);
        op.set_ordered();
        op.set_status(OpStatus::Submitted);
        let uses = op.uses();
        let ticket = uses.iter().next().expect("a recorded launch has its ticket");
        Ok(ticket)
    }
}

/// The uses on other timelines than `own`: a queue runs its own work in order.
pub(crate) fn without(waits: Uses, own: Timeline) -> Uses {
    let mut out = Uses::NONE;
    waits.iter().filter(|t| t.timeline != own).for_each(|t| out.add(t));
    out
}

pub(crate) fn pieces_bytes<D: Device>(pieces: &[Piece<D>]) -> u64 {
    pieces.iter().map(|p| p.bytes).sum()
}

/// Copy commands between A and the device, pieces of one import together, at most `regions_max` regions each.
pub(crate) fn import_copies<D: Device>(regions_max: u32, pieces: &[Piece<D>], out: bool) -> Vec<Command<D>> {
    let mut commands: Vec<Command<D>> = Vec::new();
    let mut current: Option<(Arc<D::Import>, Vec<Region>)> = None;
    let mut close = |group: Option<(Arc<D::Import>, Vec<Region>)>| {
        if let Some((import, regions)) = group {
            commands.push(if out {
                Command::CopyOut { target: Target::Import(import), regions }
            } else {
                Command::CopyIn { source: Source::Import(import), regions }
            });
        }
    };
    for piece in pieces {
        let Some((import, offset)) = &piece.import else { continue };
        let region = Region { host_offset: *offset, device_offset: piece.device, bytes: piece.bytes };
        match &mut current {
            Some((same, regions)) if Arc::ptr_eq(same, import) && regions.len() < regions_max as usize => {
                regions.push(region);
            }
            _ => close(current.replace((Arc::clone(import), alloc::vec![region]))),
        }
    }
    close(current);
    commands
}
