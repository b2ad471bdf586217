//! Paged launches: a kernel may touch anything of its ranges, and what it really touches moves.
//!
//! ```text
//!   launch_paged ──► holds on every page of every range, for the operation's life; R weakened, host pages made: as if it had run
//!        └─► pager ──► plan ──► tables ──► a round: an ordinary launch of unfinished groups, whose arguments are what it may find there
//!                       ▲                     │ wait
//!                       └── feedback ◄────────┘ misses, touched, done          … until every group is done: the holds end
//! ```
//!
//! * **The tables are written between rounds alone**: by `dispatch` of the admission of a round, when the round before is over. Every
//!   sub-block with a bit is an argument of that very round, so its frames stay where the entry says until the round is over. Who is no
//!   argument has no bit, wherever it lies.
//! * **What can fail fails in the call**, as for a launch. Later only loss can end it; frames that do not suffice for one group
//!   (`WorkingSetTooLarge`); and faults of the kernel (`Outside`, `Unfinished`): what finished groups wrote stays then, and
//!   [`Engine::wait`] says so.
//! * **The pager** is a thread of its own that keeps the engine until its launch is over: `stop` never waits for it. Where the queue is
//!   the application's, too, the rounds run in the call: who holds that queue's lock may wait for a touch that waits for them.
//! * **Blocks that come again and again** of what is only read are read where they are ([`remote`]).
//! * Two at a time share the frames: each plans with its part of those that nobody has pinned.
//!
//! What core knows of the holds is in `core::block`'s `paged`; who meets them, in `admit/paged.rs`.

mod remote;
mod rounds;
mod tables;
mod tight;

pub(crate) use tables::Tables;

use crate::launch::{AccessKind, Argument, BindTo};
use crate::range::RangeCell;
use crate::stats::Counters;
use crate::{Engine, EngineError, LaunchSpec, Op, Ports};
use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use rounds::Pager;
use vkhmm_core::units::ByteRange;
use vkhmm_port::{Device, Exec};

/// A range that a paged kernel may touch, all of it.
pub struct PagedArgument<P: Ports> {
    /// Which; `None` is the empty range.
    pub range: Option<Arc<RangeCell<P>>>,
    /// What the kernel may do with it.
    pub access: AccessKind,
}

/// A paged launch, checked against kernel and device by the caller: the kernel is a paged one of our version.
pub struct PagedSpec<P: Ports> {
    /// What runs.
    pub kernel: Arc<<P::Device as Device>::Kernel>,
    /// The grid.
    pub groups: [u32; 3],
    /// Items of a group, where the kernel goes on by items; otherwise zero.
    pub items: u32,
    /// What it may touch, in the order in which the kernel counts them.
    pub arguments: Vec<PagedArgument<P>>,
    /// Push constants. The first eight bytes are the address of the record, and filled in.
    pub push: Vec<u8>,
    /// For reports.
    pub label: Arc<str>,
}

/// What a paged launch took, as far as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PagingReport {
    /// Rounds so far.
    pub rounds: u64,
    /// Groups of the grid.
    pub groups: u32,
    /// Groups of all rounds: how often one was run, on average, is this divided by the former.
    pub group_runs: u64,
    /// Misses: sub-blocks that a group asked for and that were not there, each counted once a round.
    pub misses: u64,
    /// Bytes that were copied to the device for it.
    pub in_bytes: u64,
    /// The fewest groups of a round.
    pub window_min: u32,
    /// The most groups of a round.
    pub window_max: u32,
    /// How often a block that went back and forth was read where it is from then on, without moving.
    pub remote_blocks: u64,
}

impl<P: Ports> Engine<P> {
    /// Launches a paged kernel. Returns once the host views of all its ranges are revoked or protected and its place in the order is
    /// fixed; the rounds follow. Blocks only for earlier work on the same pages that cannot be waited for on the device: bytes on
    /// their way home, and other paged launches.
    ///
    /// # Errors
    /// Nothing has changed then: `DeviceLost`, `OutOfHostMemory`, `Guarded`, `Acquired`, `PinnedApart`, `Lost`, `UnknownRange`,
    /// `ForkedChild`, `TooManyGroups`, or what a port said.
    ///
    /// # Panics
    /// If the push constants have no room for the address.
    pub fn launch_paged(self: &Arc<Self>, spec: PagedSpec<P>) -> Result<Arc<Op<P>>, EngineError> {
        self.check_alive()?;
        let groups = self.check_grid(&spec)?;
        let named = self.named_whole(&spec);
        self.check_arguments(&named)?;
        named.arguments.iter().filter_map(Argument::target).for_each(|range| {
            self.settle_way(range);
        });
        let tables = Arc::new(Tables::new(self, &spec, groups)?);
        let op = self.new_op(&spec.label);
        if let Err(error) = self.hold_for_life(&op, &named) {
            if let EngineError::DeviceLost { cause } = &error {
                self.note_loss(cause); // a port may have said so first to this launch
            }
            self.forget_ops(&[op.id]);
            return Err(error);
        }
        // At once, in long pieces: rounds would import what they hold, block by block.
        self.import_arguments(&named);
        Counters::add(&self.counters.launches, 1);
        Counters::add(&self.counters.launches_paged, 1);
        self.paged.fetch_add(1, Ordering::AcqRel);
        let pager = Pager::new(self, &op, spec, tables, groups);
        if self.device.profile().queue_is_shared {
            self.page(pager);
            return Ok(op);
        }
        let engine = Arc::clone(self);
        // Thread `paged`: owns its launch's tables · may block on turns, progress and the device · must never hold a lock or turn while
        // it waits for its rounds.
        let spawned = self.exec.spawn("vkhmm-paged", Box::new(move || engine.page(pager)));
        if let Err(error) = spawned {
            self.paged.fetch_sub(1, Ordering::AcqRel);
            if op.land_piece() {
                self.finish(&op);
            }
            return Err(EngineError::NoThread { why: error.to_string().into() });
        }
        Ok(op)
    }

    /// Groups of the grid. Kernels count their groups, and the items of all of them, in 32 bits.
    fn check_grid(&self, spec: &PagedSpec<P>) -> Result<u32, EngineError> {
        let groups = spec.groups.iter().fold(1_u64, |all, n| all.saturating_mul(u64::from(*n)));
        let most = u64::from(u32::MAX / spec.items.max(1));
        match u32::try_from(groups) {
            Ok(groups) if u64::from(groups) <= most => Ok(groups),
            _ => Err(EngineError::TooManyGroups { groups, most }),
        }
    }

    /// All ranges whole, as a launch would name them.
    fn named_whole(&self, spec: &PagedSpec<P>) -> LaunchSpec<P> {
        let argument = |argument: &PagedArgument<P>| Argument {
            range: argument.range.clone(),
            bytes: ByteRange { start: 0, end: argument.range.as_ref().map_or(0, |range| range.bytes()) },
            access: argument.access,
            bind: BindTo::Nothing,
        };
        let arguments = spec.arguments.iter().map(argument).collect();
        LaunchSpec {
            kernel: None,
            groups: [0; 3],
            arguments,
            push: Vec::new(),
            label: Arc::clone(&spec.label),
        }
    }
}
