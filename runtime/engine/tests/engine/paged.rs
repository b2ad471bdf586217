//! Paged launches over the fakes: what a kernel touches moves, whatever the frames; to everybody else it ran inside the call.

use crate::common::paged::*;
use crate::common::*;
use vkhmm_engine::AccessKind::{Overwrite, Read, Write};

/// Bytes of one group's part of each range.
const PART: u64 = 24;

/// z[i] = x[i] + y[i], y[i] += 1, by parts.
fn triad(w: &World) -> vkhmm_port::fake::FakeKernel {
    kernel(&w.device, |group| {
        let part = u64::from(group.id) * PART..u64::from(group.id + 1) * PART;
        group.want(0, part.clone(), false);
        group.want(1, part.clone(), false);
        group.want(1, part.clone(), true);
        group.want(2, part.clone(), true);
        if !group.vote() {
            return;
        }
        let (x, y) = (group.load(0, part.clone()), group.load(1, part.clone()));
        let z: Vec<u8> = x.iter().zip(&y).map(|(x, y)| x.wrapping_add(*y)).collect();
        group.store(2, part.start, &z);
        group.store(1, part.start, &y.iter().map(|y| y.wrapping_add(1)).collect::<Vec<u8>>());
    })
}

fn values(bytes: u64, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..bytes).map(|_| random.next() as u8).collect()
}

#[test]
fn ranges_of_four_times_the_frames_are_paged_and_touches_find_what_ran() {
    each(|w| {
        let groups = 60_u32;
        let bytes = u64::from(groups) * PART;
        let [x, y, z] = [(); 3].map(|()| w.alloc(bytes));
        let frames = 3 * bytes.div_ceil(w.frame()) / 4;
        w.engine.set_device_memory_limit(frames.max(12 * w.block() / w.frame()) * w.frame()).unwrap();
        let (a, b) = (values(bytes, 1), values(bytes, 2));
        w.store(&x, 0, &a);
        w.store(&y, 0, &b);
        let op = w.launch_paged(&triad(w), groups, &[(&x, Read), (&y, Write), (&z, Overwrite)]);
        // Whoever touches what is written waits for all of it.
        assert_eq!(w.load(&z, 5..6), [a[5].wrapping_add(b[5])]);
        assert_eq!(w.load_all(&x), a);
        let sum: Vec<u8> = a.iter().zip(&b).map(|(a, b)| a.wrapping_add(*b)).collect();
        assert_eq!(w.load_all(&z), sum);
        assert_eq!(w.load_all(&y), b.iter().map(|b| b.wrapping_add(1)).collect::<Vec<u8>>());
        w.wait(&op);
        let report = op.paging().expect("it had rounds");
        assert!(report.group_runs >= u64::from(groups) && report.groups == groups, "{report:?}");
        // And again, with what is there.
        w.wait(&w.launch_paged(&triad(w), groups, &[(&x, Read), (&y, Write), (&z, Overwrite)]));
        assert_eq!(w.load(&y, 0..1), [b[0].wrapping_add(2)]);
        w.store(&x, 0, &[1]);
    });
}
