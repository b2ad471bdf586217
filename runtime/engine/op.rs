//! Operations: a launch, a migration, a guard, from queued to done; and the flights that bring them there.

use crate::arena::Buffer;
use crate::paged::PagingReport;
use crate::range::RangeCell;
use crate::{EngineError, Ports};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use vkhmm_core::units::{OpId, Ticket};
use vkhmm_core::uses::Uses;
use vkhmm_port::{CopyJob, Exec, Mutex, Rank};

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpStatus {
    /// Holds are taken; not all of its work has reached a queue.
    Queued,
    /// All of its work is in queues; its uses say when it is over.
    Submitted,
    /// Over.
    Done,
    /// Never over: the device was lost.
    Lost,
}

/// One block of one range, as operations remember it.
pub(crate) struct BlockRef<P: Ports> {
    pub(crate) range: Arc<RangeCell<P>>,
    pub(crate) block: u32,
}

impl<P: Ports> Clone for BlockRef<P> {
    fn clone(&self) -> Self {
        Self { range: Arc::clone(&self.range), block: self.block }
    }
}

/// An operation. Shared by its holds (by id), its flights and the caller's handle.
pub struct Op<P: Ports> {
    pub(crate) id: OpId,
    pub(crate) label: Arc<str>,
    /// When it began, on the engine's clock.
    pub(crate) since: u64,
    status: AtomicU8,
    /// Pieces of work that have not landed, plus one while it is queued.
    pending: AtomicU32,
    /// Everything it does comes before later work of the compute queue.
    ordered: AtomicBool,
    /// An application has what it holds, and has not said what ends that: nobody may wait for it on the device.
    open: AtomicBool,
    /// Device time of its kernel in nanoseconds.
    pub(crate) elapsed_ns: Arc<AtomicU64>,
    /// Tickets of its pieces, and the blocks it holds. Lock: leaf; held for a push or a copy only.
    inner: <P::Exec as Exec>::Mutex<OpInner<P>>,
}

struct OpInner<P: Ports> {
    uses: Uses,
    waited: Uses,
    blocks: Vec<BlockRef<P>>,
    /// What an application's own work uses: no submission of ours names them.
    buffers: Vec<Buffer<P>>,
    /// Of a paged launch.
    paging: Option<PagingReport>,
    /// Why it ended early.
    failure: Option<EngineError>,
}

impl<P: Ports> Op<P> {
    pub(crate) fn new(exec: &P::Exec, id: OpId, label: Arc<str>) -> Arc<Self> {
        Arc::new(Self {
            id,
            label,
            since: exec.now(),
            status: AtomicU8::new(0),
            pending: AtomicU32::new(1),
            ordered: AtomicBool::new(false),
            open: AtomicBool::new(false),
            elapsed_ns: Arc::new(AtomicU64::new(0)),
            inner: exec.mutex(
                Rank::Leaf,
                OpInner {
                    uses: Uses::NONE,
                    waited: Uses::NONE,
                    blocks: Vec::new(),
                    buffers: Vec::new(),
                    paging: None,
                    failure: None,
                },
            ),
        })
    }

    /// Its number. Operations are numbered in the order in which they are made.
    pub fn number(&self) -> u64 {
        self.id.0
    }

    /// How far it is.
    pub fn status(&self) -> OpStatus {
        match self.status.load(Ordering::Acquire) {
            0 => OpStatus::Queued,
            1 => OpStatus::Submitted,
            2 => OpStatus::Done,
            _ => OpStatus::Lost,
        }
    }

    /// Device time of its kernel in nanoseconds; zero until it is over, or where the device has no clock.
    pub fn elapsed_ns(&self) -> u64 {
        self.elapsed_ns.load(Ordering::Relaxed)
    }

    /// Of a paged launch that has had a round: what it took so far, or in all once it is over.
    pub fn paging(&self) -> Option<PagingReport> {
        self.inner.lock().paging
    }

    /// As [`Op::paging`], unless somebody holds the lock.
    /// Rounds so far, of a paged launch.
    pub(crate) fn rounds(&self) -> u64 {
        self.paging().map_or(0, |report| report.rounds)
    }

    pub(crate) fn try_paging(&self) -> Option<PagingReport> {
        self.inner.try_lock().and_then(|inner| inner.paging)
    }

    pub(crate) fn set_paging(&self, report: PagingReport) {
        self.inner.lock().paging = Some(report);
    }

    /// Why it ended early, without loss: of a paged launch alone, and before it is over.
    pub fn failure(&self) -> Option<EngineError> {
        self.inner.lock().failure.clone()
    }

    pub(crate) fn fail(&self, error: EngineError) {
        self.inner.lock().failure = Some(error);
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.status(), OpStatus::Done | OpStatus::Lost)
    }

    /// Forward only; a lost operation stays lost.
    pub(crate) fn set_status(&self, status: OpStatus) {
        let code = match status {
            OpStatus::Queued => 0,
            OpStatus::Submitted => 1,
            OpStatus::Done => 2,
            OpStatus::Lost => 3,
        };
        self.status.fetch_max(code, Ordering::AcqRel);
    }

    /// Whether later work of the compute queue comes after all that it does.
    pub(crate) fn is_ordered(&self) -> bool {
        self.is_over() || self.ordered.load(Ordering::Acquire)
    }

    /// See [`Op::is_ordered`].
    pub(crate) fn set_ordered(&self) {
        self.ordered.store(true, Ordering::Release);
    }

    /// What had to be over before it wrote frames. Whoever later writes frames that its plan claimed and it left alone waits for
    /// that, too, and not for its kernel.
    pub(crate) fn waited(&self) -> Uses {
        self.inner.lock().waited
    }

    /// See [`Op::waited`].
    pub(crate) fn set_waited(&self, waited: Uses) {
        self.inner.lock().waited = waited;
    }

    /// Whoever comes after it comes after `uses`, too.
    pub(crate) fn add_uses(&self, uses: &Uses) {
        self.inner.lock().uses.merge(uses);
    }

    pub(crate) fn uses(&self) -> Uses {
        self.inner.lock().uses
    }

    /// As [`Op::uses`], unless somebody holds the lock.
    pub(crate) fn try_uses(&self) -> Option<Uses> {
        self.inner.try_lock().map(|inner| inner.uses)
    }

    /// Before anybody else knows the operation: an application is to have what it holds. One piece more, which lands with the ticket
    /// of [`Op::end_with`], however late after [`Op::close`] that is known.
    pub(crate) fn open(&self) {
        self.open.store(true, Ordering::Release);
        self.pending.fetch_add(1, Ordering::AcqRel);
    }

    /// Its uses say, or will say before any later item is processed, what ends it.
    pub(crate) fn close(&self) {
        self.open.store(false, Ordering::Release);
    }

    /// Whether it ends only when an application says so.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Keeps buffers until it is over.
    pub(crate) fn keep_buffers(&self, buffers: Vec<Buffer<P>>) {
        self.inner.lock().buffers = buffers;
    }

    pub(crate) fn take_buffers(&self) -> Vec<Buffer<P>> {
        core::mem::take(&mut self.inner.lock().buffers)
    }

    /// For an operation of one piece that is submitted where it is made: that piece alone decides when it is over.
    pub(crate) fn skip_queue(&self) {
        self.pending.store(0, Ordering::Release);
    }

    /// One more piece of work is in a queue.
    pub(crate) fn add_piece(&self, ticket: Ticket) {
        self.pending.fetch_add(1, Ordering::AcqRel);
        self.inner.lock().uses.add(ticket);
    }

    /// What ends an operation that was opened is in a queue.
    pub(crate) fn end_with(&self, ticket: Ticket) {
        self.inner.lock().uses.add(ticket);
    }

    /// A piece landed, or the queued phase ended. Whether that was the last.
    #[must_use]
    pub(crate) fn land_piece(&self) -> bool {
        self.pending.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Whether no piece is on its way, of an operation that is still queued.
    pub(crate) fn has_landed(&self) -> bool {
        self.pending.load(Ordering::Acquire) == 1
    }

    pub(crate) fn remember(&self, blocks: Vec<BlockRef<P>>) {
        let mut inner = self.inner.lock();
        if inner.blocks.is_empty() {
            inner.blocks = blocks;
        } else {
            inner.blocks.extend(blocks);
        }
    }

    pub(crate) fn blocks(&self) -> Vec<BlockRef<P>> {
        self.inner.lock().blocks.clone()
    }

    pub(crate) fn take_blocks(&self) -> Vec<BlockRef<P>> {
        core::mem::take(&mut self.inner.lock().blocks)
    }
}

/// What is left to do when a ticket is reached.
pub(crate) struct Flight<P: Ports> {
    pub(crate) ticket: Ticket,
    /// Whose piece it is; `None` for bookkeeping alone.
    pub(crate) op: Option<Arc<Op<P>>>,
    /// Copies from outward slots to A, then the slots are free.
    pub(crate) drain: Vec<CopyJob>,
    pub(crate) slots_in: Vec<u32>,
    pub(crate) slots_out: Vec<u32>,
}

impl<P: Ports> Flight<P> {
    pub(crate) fn of(ticket: Ticket, op: &Arc<Op<P>>) -> Self {
        Self {
            ticket,
            op: Some(Arc::clone(op)),
            drain: Vec::new(),
            slots_in: Vec::new(),
            slots_out: Vec::new(),
        }
    }

    /// Whether to end its operation is all there is to do.
    pub(crate) fn is_plain(&self) -> bool {
        self.drain.is_empty() && self.slots_in.is_empty() && self.slots_out.is_empty()
    }
}
