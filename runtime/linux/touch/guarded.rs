//! A value that signal handlers read and others replace: whoever replaces waits until no handler is inside the old one. No lock,
//! no reference count that a handler could be the last to drop.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use core::time::Duration;

/// How long who replaces sleeps before it looks again. Handlers are inside for microseconds, or for one slice of a wait.
const PAUSE: Duration = Duration::from_micros(50);

/// At most one `T`. Readers announce themselves on one of two sides; who replaces sends later readers to the other side, so that
/// they cannot keep it waiting.
pub(crate) struct Guarded<T> {
    value: AtomicPtr<T>,
    turn: AtomicU32,
    inside: [AtomicU32; 2],
}

impl<T: Sync> Guarded<T> {
    /// No value.
    pub(crate) const fn empty() -> Self {
        Self {
            value: AtomicPtr::new(null_mut()),
            turn: AtomicU32::new(0),
            inside: [const { AtomicU32::new(0) }; 2],
        }
    }

    /// Calls `body` with the value, which stays until it returns. Waits for nothing but another `replace` on its way.
    pub(crate) fn with<R>(&self, body: impl FnOnce(Option<&T>) -> R) -> R {
        let side = loop {
            let turn = self.turn.load(Ordering::SeqCst);
            let side = &self.inside[turn as usize & 1];
            side.fetch_add(1, Ordering::SeqCst);
            // Still this turn: whoever ends it comes later in the order of all these steps, and sees the count.
            if self.turn.load(Ordering::SeqCst) == turn {
                break side;
            }
            side.fetch_sub(1, Ordering::SeqCst);
        };
        // SAFETY: null or from `Box::into_raw` in `replace`; what `replace` took out is freed only after this side's count, which
        // this reader is part of, has been zero.
        let value = unsafe { self.value.load(Ordering::SeqCst).as_ref() };
        let result = body(value);
        side.fetch_sub(1, Ordering::SeqCst);
        result
    }

    /// Puts `new` there and returns what was there, with no reader inside it. Callers exclude each other, and none is a reader.
    pub(crate) fn replace(&self, new: Option<Box<T>>) -> Option<Box<T>> {
        let old = self.value.swap(new.map_or(null_mut(), Box::into_raw), Ordering::SeqCst);
        let turn = self.turn.fetch_add(1, Ordering::SeqCst);
        while self.inside[turn as usize & 1].load(Ordering::SeqCst) != 0 {
            std::thread::sleep(PAUSE);
        }
        // SAFETY: made by `Box::into_raw` above, in an earlier call, and taken out once, by the swap; nobody reads it any more.
        (!old.is_null()).then(|| unsafe { Box::from_raw(old) })
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        let value = *self.value.get_mut();
        if !value.is_null() {
            // SAFETY: made by `Box::into_raw`; `&mut self`: nobody reads it.
            drop(unsafe { Box::from_raw(value) });
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::Guarded;
    use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::sync::Arc;

    /// Says when it is dropped.
    struct Value(Arc<AtomicBool>);

    impl Drop for Value {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn nobody_is_inside_what_was_replaced() {
        let (guarded, stop, looks) = (Guarded::<Value>::empty(), AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !stop.load(Ordering::SeqCst) {
                        guarded.with(|value| {
                            let Some(Value(dropped)) = value else { return };
                            for _ in 0..50 {
                                assert!(!dropped.load(Ordering::SeqCst), "dropped under a reader");
                            }
                            looks.fetch_add(1, Ordering::SeqCst);
                        });
                    }
                });
            }
            let mut round = 0;
            while round % 5 != 4 || round < 400 || looks.load(Ordering::SeqCst) < 1000 {
                round += 1;
                let new = (round % 5 != 0).then(|| Box::new(Value(Arc::new(AtomicBool::new(false)))));
                drop(guarded.replace(new));
            }
            stop.store(true, Ordering::SeqCst);
        });
        assert!(guarded.with(|value| value.is_some()));
    }
}
