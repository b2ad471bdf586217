//! Blocks of a paged launch that come again and again are read where they are, and nothing else changes.

use crate::common::paged::*;
use crate::common::*;
use std::sync::Mutex;
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
fn able(remote: (u32, u32)) -> Vec<Setup> {
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
    let (after, rounds) = (Config::default().remote_after, u32::MAX);
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
    let (with, without) = (moved(able((after, rounds))), moved(able((0, rounds))));
    let never = able((after, rounds)).into_iter();
    let no_imports = moved(never.clone().map(|setup| Setup { import: false, ..setup }).collect());
    let no_kernels = moved(never.map(|setup| Setup { in_place: None, ..setup }).collect());
    let patient = moved(able((u32::MAX, rounds)).into_iter().take(1).collect());
    assert_eq!(patient, without[..1], "nothing comes so often");
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
    each_of(able((1, u32::MAX)), |w| {
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
fn what_the_device_alone_has_keeps_its_block_from_being_read_at_home() {
    const FRAMES: u64 = 7;
    const GROUPS: u64 = 28;
    let (per_block, frame) = (u64::from(LARGE.subs_per_block()), LARGE.frame_bytes());
    // Sub-blocks of x that a group reads. The device alone has the first one. After the first rounds, which have more groups than one,
    // two of its block come and go, while every group needs all frames; the next groups need nothing else, so that nothing goes home on
    // the way; then others of the block come for the first time, and again; then two groups need all frames for other blocks.
    let subs = move |group: u64| -> Vec<u64> {
        let far = |i: u64| per_block + (group * FRAMES + i) * 29 % (23 * per_block);
        let near = [0, if (16..22).contains(&group) { 2 + group % 3 } else { 1 + group % 2 * 5 }];
        let (near, count) = match group {
            0..8 => (&near[..1], FRAMES - 1),
            8..12 | 16..22 => (&near[..], FRAMES - 1),
            22..24 => (&[][..], FRAMES - 1),
            _ => (&near[..], 2),
        };
        near.iter().copied().chain((0..).map(far)).take(count as usize).collect()
    };
    let setups = able((1, u32::MAX)).into_iter().filter(|setup| setup.sparse.is_some());
    let setups = setups.map(|setup| Setup { geometry: LARGE, limit_frames: FRAMES as u32, ..setup });
    each_of(setups.collect(), move |w| {
        let bytes = 24 * w.block();
        let (x, y) = (w.alloc(bytes), w.alloc(GROUPS));
        let mut a = values(bytes, 3);
        w.store(&x, 0, &a);
        w.wait(&w.launch(&add(7), &[(&x, 0..frame, Write)]));
        a[..frame as usize].iter_mut().for_each(|v| *v = v.wrapping_add(7));
        let kernel = FakeKernel::paged(&w.device, move |group| {
            let id = u64::from(group.id());
            let at = |sub: u64| sub * frame + id..sub * frame + id + 1;
            subs(id).into_iter().for_each(|sub| group.want(0, at(sub), READ));
            group.want(1, id..id + 1, WRITE);
            if group.vote() {
                let sum =
                    subs(id).into_iter().fold(0_u8, |sum, sub| sum.wrapping_add(group.load(0, at(sub))[0]));
                group.store(1, id, &[sum]);
            }
        });
        let op = w.launch_paged(&kernel, GROUPS as u32, &[(&x, Read), (&y, Overwrite)]);
        w.wait(&op);
        let sum = |id: u64| {
            let of = |sub: u64| a[(sub * frame + id) as usize];
            subs(id).into_iter().fold(0_u8, |sum, sub| sum.wrapping_add(of(sub)))
        };
        let want: Vec<u8> = (0..GROUPS).map(sum).collect();
        assert_eq!(w.load_all(&y), want, "{:?}", op.paging());
        assert_eq!(w.load_all(&x), a);
        // When nobody read the first sub-block it went home, and its block is read there since, which counts once.
        assert_eq!(op.paging().unwrap().remote_blocks, 1, "{:?}", op.paging());
    });
}

#[test]
fn after_a_while_it_is_moved_again_where_much_of_it_is_touched() {
    let again: &Mutex<u64> = Box::leak(Box::default());
    each_of(able((1, 0)), move |w| {
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
    for setup in able((1, u32::MAX)) {
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
