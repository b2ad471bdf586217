//! What R shows of each page, two bits each, readable from a signal handler. Sparse: where nothing was ever shown it costs address
//! space only.

use core::ffi::c_void;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicU64, Ordering};
use rustix::io;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munlock, munmap};
use vkhmm_port::Access;

/// What R shows of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Nothing: a touch is a question.
    Absent = 0,
    /// Its bytes, for loads.
    ReadOnly = 1,
    /// Its bytes.
    ReadWrite = 2,
    /// Nothing: a touch is an error.
    Poisoned = 3,
}

const BITS: usize = 2;
const WORD_PAGES: usize = u64::BITS as usize / BITS;

impl From<Access> for Shown {
    fn from(access: Access) -> Self {
        match access {
            Access::ReadOnly => Self::ReadOnly,
            Access::ReadWrite => Self::ReadWrite,
        }
    }
}

impl Shown {
    const fn from_bits(bits: u64) -> Self {
        match bits & 3 {
            0 => Self::Absent,
            1 => Self::ReadOnly,
            2 => Self::ReadWrite,
            _ => Self::Poisoned,
        }
    }

    /// A word full of it.
    const fn word(self) -> u64 {
        self as u64 * 0x5555_5555_5555_5555
    }
}

/// The map. One page's calls are ordered by the caller, as those of the port; other pages may change meanwhile.
pub(crate) struct Pages {
    words: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the words are only accessed as atomics, and stay mapped until drop.
unsafe impl Send for Pages {}
// SAFETY: as for `Send`: only atomic accesses.
unsafe impl Sync for Pages {}

impl Pages {
    /// `count` absent pages.
    pub(super) fn new(count: usize) -> io::Result<Self> {
        let bytes = Self::bytes(count);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new private mapping at a place the kernel chooses touches no existing memory.
        let start = unsafe { mmap_anonymous(null_mut(), bytes, ProtFlags::empty(), flags)? };
        let words = NonNull::new(start.cast()).ok_or(io::Errno::NOMEM)?;
        let pages = Self { words, count };
        // Access comes last: after mlockall(MCL_FUTURE) the kernel would otherwise fill all of it here.
        // SAFETY: the mapping just made, which nobody uses yet.
        unsafe {
            munlock(start, bytes)?;
            mprotect(start, bytes, MprotectFlags::READ | MprotectFlags::WRITE)?;
        }
        Ok(pages)
    }

    const fn bytes(count: usize) -> usize {
        count.div_ceil(WORD_PAGES) * size_of::<AtomicU64>()
    }

    fn word(&self, n: usize) -> &AtomicU64 {
        assert!(n < self.count.div_ceil(WORD_PAGES), "page {} of {}", n * WORD_PAGES, self.count);
        // SAFETY: inside the mapping (asserted), aligned, zeroed by the kernel, mapped until drop, only used as an atomic.
        unsafe { self.words.add(n).as_ref() }
    }

    /// How many pages there are.
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// What is shown of `page`.
    pub(crate) fn get(&self, page: usize) -> Shown {
        let word = self.word(page / WORD_PAGES).load(Ordering::SeqCst);
        Shown::from_bits(word >> (page % WORD_PAGES * BITS))
    }

    /// Says that `shown` is shown of `count` pages from `first`.
    pub(crate) fn set(&self, first: usize, count: usize, shown: Shown) {
        let (mut at, end) = (first, first + count);
        while at < end {
            let (from, word) = (at % WORD_PAGES, self.word(at / WORD_PAGES));
            let pages = (WORD_PAGES - from).min(end - at);
            let mask = (u64::MAX >> (u64::BITS as usize - pages * BITS)) << (from * BITS);
            let bits = shown.word() & mask;
            let mut now = word.load(Ordering::SeqCst);
            // Not written where it says so already: the word's page may not exist yet.
            while now & mask != bits {
                match word.compare_exchange_weak(now, now & !mask | bits, Ordering::SeqCst, Ordering::SeqCst)
                {
                    Ok(_) => break,
                    Err(other) => now = other,
                }
            }
            at += pages;
        }
    }

    /// Calls `each` with the runs (first, count) of pages that show the same, in order, over `count` pages from `first`.
    pub(crate) fn runs(&self, first: usize, count: usize, each: &mut dyn FnMut(usize, usize, Shown)) {
        let end = first + count;
        let (mut start, mut at) = (first, first);
        let mut shown = None;
        while at < end {
            let word = self.word(at / WORD_PAGES).load(Ordering::SeqCst);
            let now = Shown::from_bits(word >> (at % WORD_PAGES * BITS));
            if shown.is_some_and(|shown| shown != now) {
                each(start, at - start, shown.unwrap_or(now));
                start = at;
            }
            shown = Some(now);
            let whole = at % WORD_PAGES == 0 && end - at >= WORD_PAGES && word == now.word();
            at += if whole { WORD_PAGES } else { 1 };
        }
        if let Some(shown) = shown {
            each(start, end - start, shown);
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, dropped once, nothing refers to it. Failing leaks address space.
        let _ = unsafe { munmap(self.words.as_ptr().cast::<c_void>(), Self::bytes(self.count)) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Pages, Shown};

    #[test]
    fn the_map_says_what_it_was_told() {
        let pages = Pages::new(3000).expect("memory");
        let mut plain = vec![Shown::Absent; 3000];
        let all = [Shown::Absent, Shown::ReadOnly, Shown::ReadWrite, Shown::Poisoned];
        let mut seed = 9_usize;
        for round in 0..2000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let first = (seed >> 33) % 2999;
            let count = 1 + (seed >> 20) % (3000 - first).min(if round % 3 == 0 { 700 } else { 40 });
            pages.set(first, count, all[round % 4]);
            plain[first..first + count].fill(all[round % 4]);
        }
        let mut runs = Vec::new();
        pages.runs(0, 3000, &mut |first, count, shown| runs.push((first, count, shown)));
        let unfolded: Vec<_> = runs.iter().flat_map(|(_, count, shown)| vec![*shown; *count]).collect();
        assert_eq!(unfolded, plain);
        assert!((0..3000).all(|page| pages.get(page) == plain[page]));
        assert!(runs.windows(2).all(|two| two[0].2 != two[1].2 && two[0].0 + two[0].1 == two[1].0));
    }
}
