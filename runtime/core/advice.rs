//! Advice: what an application says about bytes before they are used. All of it is a hint: whatever it says, every byte is what it
//! would have been, and only the time differs.
//!
//! ```text
//!               │ a CPU touch brings home       │ a span of it is given up     │ a hint to the device
//!  ─────────────┼───────────────────────────────┼──────────────────────────────┼──────────────────────
//!  guarded      │ load: the block; store: the   │ later, while the guard lasts │ is left out
//!  (thrashing)  │ sub-block; nothing ahead      │                              │
//!  read-mostly  │ store: the sub-block alone    │ clean: before others         │
//!  prefer host  │ the whole block               │ first of all                 │
//!  prefer device│ the sub-block, nothing ahead  │ last of all                  │
//!  accessed-by  │ nothing: kernels work on the host's bytes, nothing ever moves
//! ```
//!
//! The upper line wins. What is fetched when nothing is advised is the policy's guess ([`crate::policy`]).

use crate::mask::PageMask;
use crate::policy::{Fetch, Touch};
use crate::units::Geometry;

/// One of the two sides that bytes may be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Host memory.
    Host,
    /// Device memory.
    Device,
}

/// What is said about bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Advice {
    /// Where they had better be when nobody needs them elsewhere; `None` takes it back.
    PreferredLocation(Option<Side>),
    /// They are read far more often than written, by both sides.
    ReadMostly(bool),
    /// Kernels are to work on the host's bytes where they are.
    AccessedBy(bool),
}

/// What was said about one page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Advised {
    /// See [`Advice::PreferredLocation`].
    pub preferred: Option<Side>,
    /// See [`Advice::ReadMostly`].
    pub read_mostly: bool,
    /// See [`Advice::AccessedBy`].
    pub accessed_by: bool,
    /// Where the last prefetch that named it was to bring it.
    pub last_prefetch: Option<Side>,
}

/// When frames are given up, as far as advice goes. A greater one wins where a span has several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keep {
    /// Before everything else.
    First,
    /// Before others while the host has all of it.
    Duplicate,
    /// As the policy says.
    #[default]
    Usual,
    /// After everything else.
    Last,
}

/// How many times cheaper or dearer than the policy says.
const FAR: u64 = 256;
const NEAR: u64 = 4;

impl Keep {
    /// What giving a span up costs, given what the policy says it costs. Never zero.
    pub fn price(self, price: u64, dirty: bool) -> u64 {
        match self {
            Self::First => (price / FAR).max(1),
            Self::Duplicate if !dirty => (price / NEAR).max(1),
            Self::Duplicate | Self::Usual => price,
            Self::Last => price.saturating_mul(FAR),
        }
    }
}

impl Advised {
    /// Notes what is said.
    pub fn take(&mut self, advice: Advice) {
        match advice {
            Advice::PreferredLocation(side) => self.preferred = side,
            Advice::ReadMostly(yes) => self.read_mostly = yes,
            Advice::AccessedBy(yes) => self.accessed_by = yes,
        }
    }

    /// When its frames are given up.
    pub const fn keep(self) -> Keep {
        match self.preferred {
            Some(Side::Device) => Keep::Last,
            Some(Side::Host) => Keep::First,
            None if self.read_mostly => Keep::Duplicate,
            None => Keep::Usual,
        }
    }

    /// What is brought home with a touch, given what the policy would bring.
    pub fn fetch(self, fetch: Fetch, touch: &Touch, guarded: bool, geometry: Geometry) -> Fetch {
        let page = geometry.page_in_block(touch.page);
        let sub = Fetch { pages: PageMask::single(page).rounded_to(geometry.pages_per_sub), ahead: 0 };
        let block = Fetch { pages: PageMask::range(0..geometry.pages_per_block), ahead: 0 };
        match (guarded, self.preferred) {
            (true, _) => {
                if touch.write {
                    sub
                } else {
                    block
                }
            }
            _ if self.read_mostly && touch.write => sub,
            (_, Some(Side::Host)) => block,
            (_, Some(Side::Device)) => sub,
            (_, None) => fetch,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::PageIndex;

    const G: Geometry = Geometry { page_bytes: 16, pages_per_sub: 4, pages_per_block: 16 };

    fn fetched(advised: Advised, write: bool, guarded: bool) -> (u32, i32) {
        let touch =
            Touch { page: PageIndex(21), write, mapped: PageMask::EMPTY, away: PageMask::range(0..16) };
        let guess = Fetch { pages: PageMask::range(4..12), ahead: 3 };
        let fetch = advised.fetch(guess, &touch, guarded, G);
        assert!(fetch.pages.contains(5), "the touched page is among them");
        (fetch.pages.count(), fetch.ahead)
    }

    #[test]
    fn advice_says_how_much_comes_home() {
        let plain = Advised::default();
        let host = Advised { preferred: Some(Side::Host), ..plain };
        let device = Advised { preferred: Some(Side::Device), ..plain };
        let mostly = Advised { read_mostly: true, ..plain };
        let both = Advised { read_mostly: true, ..host };
        for (advised, write, guarded, want) in [
            (plain, false, false, (8, 3)),
            (plain, true, false, (8, 3)),
            (host, false, false, (16, 0)),
            (device, false, false, (4, 0)),
            (mostly, false, false, (8, 3)),
            (mostly, true, false, (4, 0)),
            (both, true, false, (4, 0)),
            (both, false, false, (16, 0)),
            (device, false, true, (16, 0)),
            (host, true, true, (4, 0)),
        ] {
            assert_eq!(fetched(advised, write, guarded), want, "{advised:?} {write} {guarded}");
        }
    }

    #[test]
    fn advice_says_who_goes_first() {
        let mut advised = Advised::default();
        assert_eq!(advised.keep(), Keep::Usual);
        advised.take(Advice::ReadMostly(true));
        assert_eq!(advised.keep(), Keep::Duplicate);
        advised.take(Advice::PreferredLocation(Some(Side::Host)));
        assert_eq!(advised.keep(), Keep::First);
        advised.take(Advice::PreferredLocation(Some(Side::Device)));
        assert_eq!(advised.keep(), Keep::Last);
        advised.take(Advice::PreferredLocation(None));
        advised.take(Advice::ReadMostly(false));
        assert_eq!(advised, Advised::default());
        let order = [Keep::First, Keep::Duplicate, Keep::Usual, Keep::Last];
        let prices = order.map(|keep| keep.price(10_000, false));
        assert!(prices.windows(2).all(|w| w[0] < w[1]), "{prices:?}");
        assert_eq!(Keep::Duplicate.price(10_000, true), 10_000, "only duplicates are cheap");
        assert!(order.iter().all(|keep| keep.price(1, false) > 0 && keep.price(u64::MAX, true) > 0));
    }
}
