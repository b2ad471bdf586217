//! Blocks of a paged launch that come again and again are read where they are, and nothing else changes.

use crate::common::paged::*;
use crate::common::*;
use std::sync::Mutex;
use std::time::Duration;
use vkhmm_core::pagemap::MemoryKind;
use vkhmm_core::paging::layout::{READ, WRITE};
use vkhmm_engine::AccessKind::{Overwrite, Read, Write};
use vkhmm_engine::{Config, EngineError};
use vkhmm_port::fake::FakeKernel;

/// Items of a group.
const ITEMS: u64 = 8;
/// Blocks of the source.
const BLOCKS: u64 = 16;

/// y[i] = x[random(i)], with frames for a quarter of x.
struct Gather {
    x: Range,
    y: Range,
    a: Vec<u8>,
}

fn from(i: u64, bytes: u64) -> u64 {
    Random::new(i ^ 0x5eed).below(bytes)
}

impl Gather {
    fn new(w: &World) -> Self {
        let bytes = BLOCKS * w.block() - 3;
        let (x, y) = (w.alloc(bytes), w.alloc(bytes));
        let a = values(bytes, 3);
        w.store(&x, 0, &a);
        Self { x, y, a }
    }

    fn launch(&self, w: &World, brake: &Brake) -> Operation {
        let (bytes, brake) = (self.a.len() as u64, brake.clone());
        let kernel = FakeKernel::paged(&w.device, move |group| {
            brake.pass();
            for item in group.items() {
                let i = u64::from(group.id()) * ITEMS + u64::from(item);
                let at = from(i, bytes);
                if i >= bytes {
                    group.item_done(item);
                } else if group.try_at(0, at..at + 1, READ) && group.try_at(1, i..i + 1, WRITE) {
                    let value = group.load(0, at..at + 1);
                    group.store(1, i, &value);
                    group.item_done(item);
                }
            }
        });
        let groups = bytes.div_ceil(ITEMS) as u32;
        let mut spec = w.paged_spec(&kernel, groups, &[(&self.x, Read), (&self.y, Overwrite)]);
        spec.items = ITEMS as u32;
        w.engine.launch_paged(spec).expect("a paged launch")
    }

    fn verify(&self, w: &World) {
        let bytes = self.a.len() as u64;
        let want: Vec<u8> = (0..bytes).map(|i| self.a[from(i, bytes) as usize]).collect();
        assert_eq!(w.load_all(&self.y), want);
        assert_eq!(w.load_all(&self.x), self.a);
    }
}

/// Devices that can work on host memory, and with a quarter of the source in frames.
fn able(remote: (u32, Duration)) -> Vec<Setup> {
    let base = |sparse| Setup {
        in_place: Some(0),
        limit_frames: BLOCKS as u32 / 4 * SMALL.subs_per_block(),
        sparse,
        remote,
        ..Setup::default()
    };
    let mut setups: Vec<Setup> = vec![base(None), base(Some(1 << 30))];
    setups.extend(setups.clone().into_iter().map(|setup| Setup { one_queue: true, ..setup }));
    setups
        .extend(setups.clone().into_iter().map(|setup| Setup { kind: MemoryKind::DeviceCoherent, ..setup }));
    setups
}

#[test]
fn a_random_gather_stops_moving_bytes_after_a_while() {
    let (after, time) = (Config::default().remote_after, Duration::from_secs(3600));
    let moved = |setups: Vec<Setup>| {
        let moved: &Mutex<Vec<(u64, u64)>> = Box::leak(Box::default());
        each_of(setups, move |w| {
            let g = Gather::new(w);
            let before = w.engine.stats();
            let op = g.launch(w, &Brake::new(u32::MAX));
            w.wait(&op);
            g.verify(w);
            let report = op.paging().expect("it had rounds");
            let stats = w.engine.stats().since(&before);
            assert_eq!(stats.paged_remote_blocks, report.remote_blocks);
            moved.lock().unwrap().push((report.in_bytes, report.remote_blocks));
            // Its holds are over, and whoever stores does not wait.
            w.store(&g.x, 0, &[1]);
            assert_eq!(w.load(&g.x, 0..1), [1]);
        });
        moved.lock().unwrap().clone()
    };
    let (with, without) = (moved(able((after, time))), moved(able((0, time))));
    let never = able((after, time)).into_iter();
    let no_imports = moved(never.clone().map(|setup| Setup { import: false, ..setup }).collect());
    let no_kernels = moved(never.map(|setup| Setup { in_place: None, ..setup }).collect());
    for (i, (bytes, blocks)) in with.iter().enumerate() {
        assert!((1..=BLOCKS).contains(blocks), "{with:?}");
        assert!(bytes * 3 < without[i].0 * 2, "{with:?} {without:?}");
        for never in [&without, &no_imports, &no_kernels] {
            assert_eq!(never[i].1, 0, "{never:?}");
        }
    }
}

#[test]
fn what_the_device_alone_has_comes_home_before_it_is_read_there() {
    each_of(able((1, Duration::from_secs(3600))), |w| {
        let mut g = Gather::new(w);
        let bytes = g.a.len() as u64;
        let add = FakeKernel::paged(&w.device, move |group| {
            let start = u64::from(group.id()) * PART;
            let part = start..(start + PART).min(bytes);
            group.want(0, part.clone(), READ | WRITE);
            if group.vote() {
                let new: Vec<u8> = group.load(0, part.clone()).iter().map(|v| v.wrapping_add(7)).collect();
                group.store(0, part.start, &new);
            }
        });
        w.wait(&w.launch_paged(&add, bytes.div_ceil(PART) as u32, &[(&g.x, Write)]));
        g.a.iter_mut().for_each(|v| *v = v.wrapping_add(7));
        let op = g.launch(w, &Brake::new(u32::MAX));
        g.verify(w);
        w.wait(&op);
        assert!(op.paging().unwrap().remote_blocks > 0, "{:?}", op.paging());
    });
}

#[test]
fn after_a_while_it_is_moved_again_where_much_of_it_is_touched() {
    let again: &Mutex<u64> = Box::leak(Box::default());
    each_of(able((1, Duration::ZERO)), move |w| {
        let g = Gather::new(w);
        let op = g.launch(w, &Brake::new(u32::MAX));
        w.wait(&op);
        g.verify(w);
        *again.lock().unwrap() += u64::from(op.paging().unwrap().remote_blocks > BLOCKS);
    });
    assert!(*again.lock().unwrap() > 0, "blocks go there, and come back");
}

#[test]
fn a_loss_takes_nothing_of_what_is_read_there() {
    for setup in able((1, Duration::from_secs(3600))) {
        within(20, move || {
            let w = World::new(setup);
            let g = Gather::new(&w);
            let brake = Brake::new(0);
            let op = g.launch(&w, &brake);
            until("blocks are read where they are", || {
                if brake.is_on() {
                    brake.allow(20);
                }
                w.engine.stats().paged_remote_blocks > 0
            });
            w.device.lose();
            brake.release();
            let lost = w.engine.wait(&op, None);
            assert!(matches!(lost, Err(EngineError::DeviceLost { .. })), "{lost:?}");
            until("the loss is settled", || w.engine.who_is_busy() == "no operation is open");
            assert_eq!(w.load_all(&g.x), g.a);
            let lost = w.engine.check(&g.y, (0..1).into());
            assert!(matches!(lost, Err(EngineError::Lost { .. })), "{lost:?}");
        });
    }
}
