//! Answering a touch in its own thread takes no memory from the heap and gives none back: the thread may have been interrupted
//! anywhere. Every allocation of the touching thread is counted.

mod common;

use common::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use vkhmm_core::pagemap::MemoryKind;
use vkhmm_core::units::PageIndex;
use vkhmm_engine::AccessKind::Write;

const TOUCHES: u64 = 10_000;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

fn count() {
    // Not at the end of a thread, when nobody asks any more.
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: every call goes to `System` unchanged; counting touches a thread-local without destructor and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count();
        // SAFETY: as above; `at` came from `System`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

/// Touches `pages` one by one; each is answered in this thread, with no call of the heap.
fn touch_all(w: &World, what: &str, pages: impl Iterator<Item = PageIndex>, write: bool) {
    let (before, calls) = (w.engine.stats(), CALLS.get());
    let mut touched = 0;
    for page in pages {
        w.host.touch(page, write).expect("live");
        touched += 1;
    }
    let (stats, calls) = (w.engine.stats().since(&before), CALLS.get() - calls);
    assert_eq!(touched, TOUCHES, "{what}");
    assert_eq!(stats.faults_in_thread, TOUCHES, "{what}: {stats}");
    assert_eq!(calls, 0, "{what}: calls of the heap by {TOUCHES} touches");
}

#[test]
fn ten_thousand_touches_of_each_kind_leave_the_heap_alone() {
    let setup = Setup {
        in_thread: true,
        plain: true,
        kind: MemoryKind::DeviceCoherent,
        // One frame is two pages: a touch brings so little that each of the others is touched for itself.
        geometry: vkhmm_core::units::Geometry { page_bytes: 16, pages_per_sub: 2, pages_per_block: 64 },
        blocks: 400,
        limit_frames: 12_000,
        ..Setup::default()
    };
    let w = World::new(setup);
    let x = w.alloc(2 * TOUCHES * w.page());
    // One page of each frame: nothing comes along with another.
    let pages = || (0..TOUCHES).map(|n| w.page_at(&x, 2 * n * w.page()));
    // The mark of a held lock is a vector that grows once.
    w.host.touch(w.page_at(&w.alloc(1), 0), true).unwrap();
    touch_all(&w, "birth", pages(), true);
    pages().for_each(|page| w.host.zap(page));
    touch_all(&w, "host bytes, shown again", pages(), true);
    let launched = |by: u8| {
        let op = w.launch(&add(by), &[(&x, 0..x.bytes(), Write)]);
        w.wait(&op);
        w.rest();
    };
    launched(1);
    touch_all(&w, "device bytes, loaded", pages(), false);
    pages().for_each(|page| w.host.zap(page));
    touch_all(&w, "duplicates, loaded", pages(), false);
    touch_all(&w, "duplicates, stored to", pages(), true);
    launched(1);
    touch_all(&w, "device bytes, stored to", pages(), true);
    assert_eq!(w.load_all(&x), vec![2; x.bytes() as usize]);
}
