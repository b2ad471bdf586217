//! Between the news of a loss and its settling: whoever was told that bytes are lost does not see them at home afterwards.

use crate::common::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use vkhmm_core::pagemap::Location;
use vkhmm_core::units::{ByteRange, PageRun};
use vkhmm_engine::AccessKind::Overwrite;
use vkhmm_engine::EngineError;
use vkhmm_port::fake::FakeHost;
use vkhmm_port::{Access, HostError, HostMemory, HostProfile, RawBytes};

const OPEN: u32 = 0;
const ARMED: u32 = 1;
const HOLDING: u32 = 2;

/// A host that stays in one call that shows pages until it is let go.
struct Holding {
    host: FakeHost,
    door: Arc<AtomicU32>,
}

impl HostMemory for Holding {
    fn profile(&self) -> &HostProfile {
        self.host.profile()
    }
    fn base(&self) -> usize {
        self.host.base()
    }
    fn owned(&self) -> bool {
        true
    }
    fn alias(&self, range: ByteRange) -> RawBytes {
        self.host.alias(range)
    }
    fn populate(&self, run: PageRun) -> Result<(), HostError> {
        self.host.populate(run)
    }
    fn revoke(&self, run: PageRun) -> Result<(), HostError> {
        self.host.revoke(run)
    }
    fn protect(&self, run: PageRun) -> Result<(), HostError> {
        self.host.protect(run)
    }
    fn publish(&self, run: PageRun, access: Access) -> Result<(), HostError> {
        if self.door.compare_exchange(ARMED, HOLDING, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            until("it is let go", || self.door.load(Ordering::Acquire) == OPEN);
        }
        self.host.publish(run, access)
    }
    fn poison(&self, run: PageRun) -> Result<(), HostError> {
        self.host.poison(run)
    }
    fn punch(&self, run: PageRun) -> Result<(), HostError> {
        self.host.punch(run)
    }
}

#[test]
fn what_was_called_lost_does_not_come_home_afterwards() {
    within(30, || {
        let door = Arc::new(AtomicU32::new(OPEN));
        let hand = Arc::clone(&door);
        let w = World::with_host(Setup::default(), move |host| Holding { host, door: hand });
        let (x, y) = (w.alloc(2 * w.block()), w.alloc(w.block()));
        w.launch(&set(5), &[(&x, 0..x.bytes(), Overwrite)]);
        w.launch(&set(5), &[(&y, 0..y.bytes(), Overwrite)]);
        w.rest();
        // One operation evicts both blocks; a touch of the first waits for it, and is answered between their landings.
        w.device.stall(Duration::from_millis(200));
        std::thread::scope(|scope| {
            scope.spawn(|| drop(w.engine.trim(1)));
            until("it is on its way", || w.location(&x, 0) != Location::Device);
            let before = w.engine.stats();
            scope.spawn(|| drop(w.host.load((x.offset()..x.offset() + 1).into())));
            until("the touch waits", || w.engine.stats().since(&before).faults_parked > 0);
            door.store(ARMED, Ordering::Release);
            until("the first block has landed", || door.load(Ordering::Acquire) == HOLDING);
            w.device.lose();
            // Its copy home is the call that finds the device gone.
            scope.spawn(|| drop(w.host.load((y.offset()..y.offset() + 1).into())));
            let second = (w.block()..2 * w.block()).into();
            let told = || w.engine.check(&x, second);
            until("the loss is known", || matches!(told(), Err(EngineError::Lost { .. })));
            door.store(OPEN, Ordering::Release);
            until("what was said is so", || w.location(&x, w.block()) == Location::Lost);
        });
    });
}
