//! Policy: what to fetch beyond what was asked, and whom to evict. Both are guesses: whatever a policy answers, no byte is lost,
//! only time. It has no state of its own; what it remembers is kept by who asks ([`Stream`] per range, spans in placement).
//!
//! ```text
//!   CPU touch ──► fetch(stream, touch)  ──► pages to bring along, blocks to bring next
//!   launch    ──► price(victim, now)    ──► the cheapest spans go
//! ```

mod fetch;

use crate::mask::PageMask;
use crate::stream::Stream;
use crate::units::{Geometry, PageIndex};
use core::fmt;

/// A CPU touch that is being answered, and what its block looks like.
#[derive(Clone, Debug)]
pub struct Touch {
    /// The page touched.
    pub page: PageIndex,
    /// Whether it was a store.
    pub write: bool,
    /// Pages of its block that R shows.
    pub mapped: PageMask,
    /// Pages of its block that the device alone has.
    pub away: PageMask,
}

/// What to bring along with a touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Pages of the touched block, the touched one among them.
    pub pages: PageMask,
    /// How many whole blocks behind it (within the range) are worth bringing home next; negative: so many before it.
    pub ahead: i32,
}

/// A span that may be given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    /// Its frames.
    pub frames: u32,
    /// Those whose bytes the host does not have.
    pub dirty: u32,
    /// The launch clock at its last use.
    pub last_use: u64,
}

/// What to fetch beyond what was asked, and whom to evict. Deterministic: the same questions get the same answers.
pub trait Policy: fmt::Debug + Send + Sync + 'static {
    /// As `Builder::policy`, doctor and benches name it.
    fn name(&self) -> &'static str;

    /// What to bring along with `touch`; `stream` is what earlier touches of the range left.
    fn fetch(&self, stream: &mut Stream, touch: &Touch, geometry: Geometry) -> Fetch;

    /// What giving `victim` up costs at `now` on the launch clock; the cheapest per frame go first. Never zero.
    fn price(&self, victim: &Victim, now: u64) -> u64;
}

/// The default: runs that double while touches follow each other; write-backs count surely, copies in again by the chance that the
/// span is used again soon.
#[derive(Clone, Copy, Debug, Default)]
pub struct Adaptive;

/// Age, in launches, at which a span's chance to be used again counts half.
const AGE_HALF: u64 = 16;
/// What a sub-block's copy costs, in the unit of [`Policy::price`].
const COPY_COST: u64 = 1024;

impl Policy for Adaptive {
    fn name(&self) -> &'static str {
        "adaptive"
    }

    fn fetch(&self, stream: &mut Stream, touch: &Touch, geometry: Geometry) -> Fetch {
        fetch::adaptive(stream, touch, geometry)
    }

    fn price(&self, victim: &Victim, now: u64) -> u64 {
        let again = COPY_COST * AGE_HALF / (AGE_HALF + now.saturating_sub(victim.last_use)) + 1;
        u64::from(victim.dirty) * COPY_COST + u64::from(victim.frames) * again
    }
}

/// The plain one to compare with: a sub-block for every touch, the least recently used span first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Policy for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn fetch(&self, _: &mut Stream, touch: &Touch, geometry: Geometry) -> Fetch {
        fetch::plain(touch, geometry)
    }

    fn price(&self, victim: &Victim, now: u64) -> u64 {
        let age = now.saturating_sub(victim.last_use);
        u64::from(victim.frames) * (u64::from(u32::MAX).saturating_sub(age)).max(1)
    }
}
