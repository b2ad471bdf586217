//! What to bring along with a CPU touch: runs that double while a stream goes on, then whole windows of blocks ahead of it; and
//! whatever most of its neighbours are already there for.

use super::{Fetch, Touch};
use crate::block::subs_of;
use crate::mask::PageMask;
use crate::stream::{Step, Stream};
use crate::units::Geometry;

/// Percentage of a subtree that must be there, or on its way, before all of it is brought: more than half.
const DENSE_PERCENT: u32 = 51;

/// [`super::Adaptive`]: streams in both directions and with strides; then density.
pub(super) fn adaptive(stream: &mut Stream, touch: &Touch, g: Geometry) -> Fetch {
    let step = stream.follow(touch.page, g);
    let sub = g.page_in_block(touch.page) / g.pages_per_sub;
    let run = run_of(step, sub, g);
    let pages = dense(sub, run, touch.mapped, g);
    if step.ahead == 0 && step.stride.abs() == 1 {
        let more = run_of(Step { run: g.subs_per_block(), ..step }, sub, g) & pages;
        let end = if step.stride > 0 {
            more.runs().find(|r| r.contains(&(sub * g.pages_per_sub))).map(|r| r.end / g.pages_per_sub - sub)
        } else {
            more.runs()
                .find(|r| r.end == (sub + 1) * g.pages_per_sub)
                .map(|r| sub + 1 - r.start / g.pages_per_sub)
        };
        stream.served(end.unwrap_or(step.run));
    }
    let blocks = i32::try_from(step.ahead).expect("windows are short");
    Fetch { pages, ahead: if step.stride < 0 { -blocks } else { blocks } }
}

/// The sub-block of the touch alone.
pub(super) fn plain(touch: &Touch, g: Geometry) -> Fetch {
    let page = PageMask::single(g.page_in_block(touch.page));
    Fetch { pages: page.rounded_to(g.pages_per_sub), ahead: 0 }
}

/// The sub-blocks of the block that a stream touches next, `sub` first.
fn run_of(step: Step, sub: u32, g: Geometry) -> PageMask {
    let mut pages = PageMask::EMPTY;
    let mut at = i64::from(sub);
    for _ in 0..step.run {
        if !(0..i64::from(g.subs_per_block())).contains(&at) {
            break;
        }
        pages |= crate::block::pages_of_sub(at as u32, g);
        if step.stride == 0 {
            break;
        }
        at += step.stride;
    }
    pages
}

/// `run`, or the largest subtree of the block's sub-blocks around `sub` of which more than [`DENSE_PERCENT`] is shown by R already
/// or part of `run`.
fn dense(sub: u32, run: PageMask, mapped: PageMask, g: Geometry) -> PageMask {
    let there = subs_of(mapped | run, g).fold(0_u32, |bits, sub| bits | 1 << sub);
    let mut pages = run;
    let mut size = 2;
    while size <= g.subs_per_block() {
        let first = sub / size * size;
        let end = (first + size).min(g.subs_per_block());
        let bits = (there >> first & u32::MAX >> (32 - (end - first))).count_ones();
        if bits * 100 > (end - first) * DENSE_PERCENT {
            pages = run | PageMask::range(first * g.pages_per_sub..end * g.pages_per_sub);
        }
        size *= 2;
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::super::{Adaptive, Plain, Policy, Touch};
    use crate::mask::PageMask;
    use crate::stream::Stream;
    use crate::units::{BlockIndex, Geometry, PageIndex};
    use alloc::vec;
    use alloc::vec::Vec;

    const G: Geometry = Geometry::PRODUCTION;

    /// A range of blocks, all of it away; what was served is there from then on.
    struct Range {
        stream: Stream,
        mapped: Vec<PageMask>,
        touches: Vec<(u64, u32, i32)>,
    }

    impl Range {
        fn new(blocks: usize) -> Self {
            Self { stream: Stream::new(), mapped: vec![PageMask::EMPTY; blocks], touches: Vec::new() }
        }

        /// Touches `page` if it is not there: (page, pages served, blocks ahead). What streams are near is shown.
        fn touch(&mut self, page: u64) {
            let block = G.block_of(PageIndex(page)).0 as usize;
            let mapped = self.mapped[block];
            if mapped.contains(G.page_in_block(PageIndex(page))) {
                return;
            }
            let touch = Touch { page: PageIndex(page), write: false, mapped, away: !mapped };
            let fetch = Adaptive.fetch(&mut self.stream, &touch, G);
            assert!(fetch.pages.contains(G.page_in_block(PageIndex(page))));
            self.mapped[block] |= fetch.pages;
            for i in 1..=i64::from(fetch.ahead.unsigned_abs()) {
                let at = block as i64 + i * i64::from(fetch.ahead.signum());
                if (0..self.mapped.len() as i64).contains(&at)
                    && self.stream.is_near(BlockIndex(at as u32), G)
                {
                    self.mapped[at as usize] = PageMask::range(0..G.pages_per_block);
                }
            }
            self.touches.push((page, fetch.pages.count(), fetch.ahead));
        }
    }

    #[test]
    fn a_stream_doubles_then_looks_ahead_and_costs_a_fault_per_window() {
        let mut range = Range::new(40);
        (0..40 * 512).for_each(|page| range.touch(page));
        let head: Vec<_> = range.touches.iter().take(11).copied().collect();
        // Three sub-blocks of four are dense, and so on up.
        assert_eq!(
            head,
            [
                (0, 16, 0),
                (16, 64, 0),
                (64, 128, 0),
                (128, 256, 0),
                (256, 512, 0),
                (512, 512, 1),
                (1024, 512, 2),
                (1536, 512, 5),
                (5 * 512, 512, 7),
                (9 * 512, 512, 7),
                (13 * 512, 512, 7),
            ]
        );
        assert_eq!(range.touches.len(), 5 + 3 + 9, "a fault per four blocks: {:?}", range.touches);
    }

    #[test]
    fn backward_streams_are_streams() {
        let mut range = Range::new(40);
        (0..40 * 512).rev().for_each(|page| range.touch(page));
        assert!(range.touches.len() <= 18, "{:?}", range.touches);
        assert!(range.touches.iter().any(|t| t.2 == -7));
    }

    #[test]
    fn several_streams_at_once_do_not_disturb_each_other() {
        let mut alone = Range::new(10);
        (0..10 * 512).for_each(|page| alone.touch(page));
        let mut four = Range::new(64);
        for page in 0..10 * 512 {
            for lane in 0..4 {
                four.touch(lane * 16 * 512 + page);
            }
        }
        assert_eq!(four.touches.len(), 4 * alone.touches.len());
        assert!(four.touches.iter().any(|t| t.2 == 7));
    }

    #[test]
    fn strides_are_followed_without_what_lies_between() {
        let mut range = Range::new(8);
        let stride = 4 * 16;
        for at in (0..8 * 512).step_by(stride) {
            range.touch(at as u64);
        }
        let served: u32 = range.touches.iter().map(|t| t.1).sum();
        assert_eq!(served, 64 * 16, "a sub-block of four, and each once: {:?}", range.touches);
        assert!(range.touches.len() < 20, "{:?}", range.touches);
        assert!(range.touches.iter().all(|t| t.2 == 0));
    }

    #[test]
    fn steps_of_somewhat_more_than_a_sub_block_are_a_stream() {
        let faults = |step: usize, back: bool| {
            let mut range = Range::new(40);
            let pages = (0..40 * 512).step_by(step);
            if back {
                pages.rev().for_each(|page| range.touch(page as u64));
            } else {
                pages.for_each(|page| range.touch(page as u64));
            }
            range.touches.len()
        };
        for back in [false, true] {
            let all = faults(1, back);
            for step in [15, 16, 17, 18, 19, 21] {
                let with = faults(step, back);
                assert!(
                    with <= all + 4,
                    "every {step}th page, backward {back}: {with} faults, all pages {all}"
                );
            }
        }
    }

    #[test]
    fn who_comes_back_the_other_way_is_another_stream() {
        let count = |range: &mut Range, back: bool| {
            range.mapped.fill(PageMask::EMPTY);
            range.touches.clear();
            if back {
                (0..16 * 512).rev().for_each(|page| range.touch(page));
            } else {
                (0..16 * 512).for_each(|page| range.touch(page));
            }
            range.touches.len()
        };
        let fresh = count(&mut Range::new(16), true);
        let mut range = Range::new(16);
        for back in [false, true, false, true, true, false] {
            let faults = count(&mut range, back);
            let touches = &range.touches;
            assert!(faults <= fresh + 3, "backward {back}: {touches:?}, {fresh} where nobody came before");
        }
    }

    #[test]
    fn touches_without_a_pattern_get_their_sub_block_alone() {
        let mut range = Range::new(4096);
        let mut seed = 7_u64;
        for _ in 0..2000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            range.touch((seed >> 33) % (4096 * 512));
        }
        let much = range.touches.iter().filter(|t| t.1 > 16).count();
        assert!(much * 50 < range.touches.len(), "{much} of {}", range.touches.len());
        assert!(range.touches.iter().all(|t| t.2 == 0));
    }

    #[test]
    fn a_subtree_that_is_mostly_there_is_completed() {
        let touch = |mapped: PageMask, page: u64| {
            let touch = Touch { page: PageIndex(page), write: false, mapped, away: !mapped };
            Adaptive.fetch(&mut Stream::new(), &touch, G).pages
        };
        let subs = |list: &[u32]| {
            list.iter().fold(PageMask::EMPTY, |all, sub| all | PageMask::range(sub * 16..sub * 16 + 16))
        };
        // Two of four are half: not more than half.
        assert_eq!(touch(subs(&[0]), 3 * 16), subs(&[3]));
        assert_eq!(touch(subs(&[0, 1]), 3 * 16).count(), 4 * 16);
        assert_eq!(touch(subs(&[0, 2, 4, 5]), 7 * 16).count(), 8 * 16);
        // One page of a sub-block counts for all of it; with 17 of 32 the whole block comes.
        let sparse = (0..16).fold(PageMask::EMPTY, |all, i| all | PageMask::single(i * 32));
        assert_eq!(touch(sparse, 511).count(), 512);
        assert_eq!(touch(sparse.minus(&PageMask::single(0)), 511).count(), 256, "half of the block only");
    }

    #[test]
    fn the_plain_policy_serves_a_sub_block_whatever_happens() {
        let mut stream = Stream::new();
        for page in 0..64 {
            let touch = Touch {
                page: PageIndex(page),
                write: false,
                mapped: !PageMask::EMPTY,
                away: PageMask::EMPTY,
            };
            let got = Plain.fetch(&mut stream, &touch, G);
            assert_eq!((got.pages.count(), got.ahead), (16, 0));
        }
    }
}
