//! Policy: what to fetch beyond what was asked, and whom to evict. Both are guesses: whatever a policy answers, no byte is lost,
//! only time. It has no state of its own; what it remembers is kept by who asks ([`Stream`] per range, [`Reuse`] in placement).
//!
//! ```text
//!   CPU touch ──► fetch(stream, touch)  ──► pages to bring along, blocks to bring next
//!   launch    ──► price(victim, now)    ──► the cheapest runs go
//! ```

mod evict;
mod fetch;

pub use evict::{Habits, Kinds, Next, Reuse, Use, Victim};

use crate::mask::PageMask;
use crate::stream::Stream;
use crate::units::{Geometry, PageIndex};
use alloc::sync::Arc;
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

/// What to fetch beyond what was asked, and whom to evict. Deterministic: the same questions get the same answers.
pub trait Policy: fmt::Debug + Send + Sync + 'static {
    /// As `Builder::policy`, doctor and benches name it.
    fn name(&self) -> &'static str;

    /// What to bring along with `touch`; `stream` is what earlier touches of the range left.
    fn fetch(&self, stream: &mut Stream, touch: &Touch, geometry: Geometry) -> Fetch;

    /// What giving `victim` up costs at `now` on the launch clock; the cheapest per frame go first. Never zero.
    fn price(&self, victim: &Victim, now: u64) -> u64;
}

/// The default: runs that double while touches follow each other; who is farthest from its next use goes first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Adaptive;

impl Policy for Adaptive {
    fn name(&self) -> &'static str {
        "adaptive"
    }

    fn fetch(&self, stream: &mut Stream, touch: &Touch, geometry: Geometry) -> Fetch {
        fetch::adaptive(stream, touch, geometry)
    }

    fn price(&self, victim: &Victim, _: u64) -> u64 {
        evict::price(victim)
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

/// Every policy, the default first.
pub fn all() -> [Arc<dyn Policy>; 2] {
    [Arc::new(Adaptive), Arc::new(Plain)]
}

/// The policy of that name.
pub fn find(name: &str) -> Option<Arc<dyn Policy>> {
    all().into_iter().find(|policy| policy.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_found_by_their_names() {
        assert!(
            all().iter().all(|policy| find(policy.name()).is_some_and(|found| found.name() == policy.name()))
        );
        assert!(find("none").is_none());
    }
}
