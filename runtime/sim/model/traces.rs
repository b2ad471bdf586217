//! The traces: eight kinds of programs, sized by the limit they run under.
//!
//! A chunk is a thirty-second of the limit, so that a launch's arguments always fit with room for the next ones. The ratio says
//! how large the footprint is against the limit; rounds, how often the program goes over its data.

use super::trace::{Access, Part, Step, Trace};
use crate::Random;
use vkhmm_core::units::{ByteRange, Geometry};

use Access::{Overwrite, Read, Write};

/// How large a trace is to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// The device memory limit in bytes.
    pub limit: u64,
    /// Footprint over limit.
    pub ratio: f64,
    /// How often the program goes over its data.
    pub rounds: u32,
    /// With prefetches where a program would have them.
    pub hints: bool,
}

/// Least limit that the traces are made for.
pub const LIMIT_MIN: u64 = 64 << 20;

impl Scale {
    /// Bytes of a usual argument, whole blocks.
    fn chunk(&self) -> u64 {
        let block = Geometry::PRODUCTION.block_bytes();
        (self.limit / 32 / block * block).max(block)
    }

    /// How many chunks `share` of the footprint has; at least `least`.
    fn chunks(&self, share: f64, least: u64) -> u64 {
        ((self.limit as f64 * self.ratio * share / self.chunk() as f64) as u64).max(least)
    }
}

/// A trace that can be made.
pub struct Recipe {
    /// Name, as on the command line.
    pub name: &'static str,
    /// What kind of program it is.
    pub about: &'static str,
    /// Whether there is a way to hint.
    pub hints: bool,
    make: fn(&Scale, &mut Trace),
}

impl Recipe {
    /// The trace at that size.
    pub fn make(&self, scale: &Scale) -> Trace {
        let mut trace = Trace::new(self.name);
        (self.make)(scale, &mut trace);
        trace
    }
}

/// Every trace.
pub static ALL: [Recipe; 8] = [
    Recipe {
        name: "gemm",
        about: "blocked product of two square matrices in tiles",
        hints: true,
        make: gemm,
    },
    Recipe {
        name: "sweep",
        about: "the same array read from end to end, again and again",
        hints: false,
        make: sweep,
    },
    Recipe { name: "stencil", about: "slabs with halo, two arrays in turn", hints: false, make: stencil },
    Recipe { name: "zipf", about: "many tensors, few of them popular", hints: false, make: zipf },
    Recipe { name: "random", about: "random windows of one large array", hints: false, make: random },
    Recipe { name: "layers", about: "a network's layers, forward and back", hints: true, make: layers },
    Recipe {
        name: "ping-pong",
        about: "kernels write, the CPU reads some and changes some",
        hints: true,
        make: ping_pong,
    },
    Recipe {
        name: "stream",
        about: "every byte in once and out once, read by the CPU",
        hints: true,
        make: stream,
    },
];

/// The recipe of that name.
pub fn find(name: &str) -> Option<&'static Recipe> {
    ALL.iter().find(|recipe| recipe.name == name)
}

fn part(allocation: usize, start: u64, len: u64) -> Part {
    Part { allocation, bytes: ByteRange { start, end: start + len } }
}

/// C = A · B, each tile of a matrix in one piece. C comes home.
fn gemm(scale: &Scale, trace: &mut Trace) {
    let c = scale.chunk();
    let side = ((scale.chunks(1.0 / 3.0, 4) as f64).sqrt() as u64).max(2);
    let [a, b, product] = [true, true, false].map(|filled| trace.alloc(side * side * c, filled));
    let flop = 2.0 * (c as f64 / 4.0).powf(1.5);
    for _ in 0..scale.rounds {
        for (i, j) in (0..side * side).map(|n| (n / side, n % side)) {
            let to = part(product, (i * side + j) * c, c);
            for k in 0..side {
                let access = if k == 0 { Overwrite } else { Write };
                let left = part(a, (i * side + k) * c, c);
                let right = part(b, (k * side + j) * c, c);
                trace.launch(flop, &[(left, Read), (right, Read), (to, access)]);
            }
            if scale.hints {
                trace.steps.push(Step::ToHost(to));
            }
        }
    }
    trace.steps.push(Step::Touch { part: part(product, 0, side * side * c), write: false });
}

/// A sum over one array, chunk by chunk.
fn sweep(scale: &Scale, trace: &mut Trace) {
    let c = scale.chunk();
    let count = scale.chunks(1.0, 2);
    let data = trace.alloc(count * c, true);
    let sum = trace.alloc(Geometry::PRODUCTION.block_bytes(), false);
    for chunk in (0..scale.rounds).flat_map(|_| 0..count) {
        let all = part(sum, 0, Geometry::PRODUCTION.frame_bytes());
        trace.launch(c as f64 / 4.0, &[(part(data, chunk * c, c), Read), (all, Write)]);
    }
}

/// Each slab from the other array's slab and its neighbours' edges.
fn stencil(scale: &Scale, trace: &mut Trace) {
    let c = scale.chunk();
    let halo = (c / 16).next_multiple_of(Geometry::PRODUCTION.frame_bytes());
    let count = scale.chunks(0.5, 2);
    let bytes = count * c;
    let arrays = [trace.alloc(bytes, true), trace.alloc(bytes, false)];
    for round in 0..scale.rounds as usize {
        let (from, to) = (arrays[round % 2], arrays[(round + 1) % 2]);
        for slab in 0..count {
            let start = (slab * c).saturating_sub(halo);
            let end = ((slab + 1) * c + halo).min(bytes);
            let read = part(from, start, end - start);
            trace.launch(2.0 * c as f64, &[(read, Read), (part(to, slab * c, c), Overwrite)]);
        }
    }
}

/// Two tensors into a third, by a law that favours few.
fn zipf(scale: &Scale, trace: &mut Trace) {
    let c = scale.chunk();
    let count = scale.chunks(1.0, 4) as usize;
    let tensors: Vec<usize> = (0..count).map(|_| trace.alloc(c, true)).collect();
    let mut random = Random::new(1);
    // A rank's share is one over its place; ranks are given out in a random order.
    let mut order: Vec<usize> = tensors.clone();
    (1..count).rev().for_each(|i| order.swap(i, random.below(i as u64 + 1) as usize));
    let shares: Vec<u64> = (0..count as u64).map(|rank| 1_000_000 / (rank + 1)).collect();
    let sum: u64 = shares.iter().sum();
    let mut pick = || {
        let mut ticket = random.below(sum);
        let rank = shares.iter().position(|share| {
            let here = ticket < *share;
            ticket = ticket.wrapping_sub(*share);
            here
        });
        order[rank.expect("the ticket is below the sum")]
    };
    for _ in 0..u64::from(scale.rounds) * count as u64 {
        let (a, b) = (pick(), pick());
        let mut to = pick();
        while to == a || to == b {
            to = pick();
        }
        let whole = |tensor| part(tensor, 0, c);
        trace.launch(c as f64, &[(whole(a), Read), (whole(b), Read), (whole(to), Write)]);
    }
}

/// Two random windows of one array: one read, one changed.
fn random(scale: &Scale, trace: &mut Trace) {
    let c = scale.chunk();
    let count = scale.chunks(1.0, 4);
    let data = trace.alloc(count * c, true);
    let mut random = Random::new(2);
    // Windows begin at eighths of a chunk, so they overlap in many ways.
    let eighth = (c / 8).next_multiple_of(Geometry::PRODUCTION.frame_bytes());
    for _ in 0..u64::from(scale.rounds) * count {
        let mut window = || {
            let len = (1 + random.below(8)) * eighth;
            let len = len.min(count * c);
            part(data, random.below((count * c - len) / eighth + 1) * eighth, len)
        };
        let (read, write) = (window(), window());
        trace.launch(c as f64, &[(read, Read), (write, Write)]);
    }
}

/// Forward keeps every layer's output, back uses them up and updates the weights. The CPU brings each batch.
fn layers(scale: &Scale, trace: &mut Trace) {
    let c = scale.chunk();
    let count = scale.chunks(0.5, 3) as usize;
    let weights: Vec<usize> = (0..count).map(|_| trace.alloc(c, true)).collect();
    let outputs: Vec<usize> = (0..=count).map(|_| trace.alloc(c, false)).collect();
    let gradients = [trace.alloc(c, false), trace.alloc(c, false)];
    let whole = |tensor: usize| part(tensor, 0, c);
    // A batch of a thousand rows: every weight is used a thousand times.
    let flop = 2.0 * 1024.0 * c as f64 / 4.0;
    for _ in 0..scale.rounds {
        trace.steps.push(Step::Touch { part: whole(outputs[0]), write: true });
        if scale.hints {
            trace.steps.push(Step::ToDevice(whole(outputs[0])));
        }
        for layer in 0..count {
            let (from, to) = (whole(outputs[layer]), whole(outputs[layer + 1]));
            trace.launch(flop, &[(whole(weights[layer]), Read), (from, Read), (to, Overwrite)]);
        }
        trace.launch(c as f64, &[(whole(outputs[count]), Read), (whole(gradients[count % 2]), Overwrite)]);
        for layer in (0..count).rev() {
            let (above, below) = (gradients[(layer + 1) % 2], gradients[layer % 2]);
            let uses = [
                (whole(outputs[layer]), Read),
                (whole(above), Read),
                (whole(weights[layer]), Write),
                (whole(below), Overwrite),
            ];
            trace.launch(2.0 * flop, &uses);
        }
    }
}

/// Kernels change every chunk; then the CPU reads an eighth of each and changes another.
fn ping_pong(scale: &Scale, trace: &mut Trace) {
    let c = scale.chunk();
    let count = scale.chunks(1.0, 1);
    let eighth = (c / 8).next_multiple_of(Geometry::PRODUCTION.frame_bytes());
    let data = trace.alloc(count * c, true);
    for _ in 0..scale.rounds {
        for chunk in 0..count {
            trace.launch(c as f64, &[(part(data, chunk * c, c), Write)]);
        }
        for chunk in 0..count {
            let read = part(data, chunk * c, eighth);
            let write = part(data, chunk * c + 2 * eighth, eighth);
            if scale.hints {
                trace.steps.extend([Step::ToHost(read), Step::ToHost(write)]);
            }
            trace.steps.push(Step::Touch { part: read, write: false });
            trace.steps.push(Step::Touch { part: write, write: true });
            if scale.hints {
                trace.steps.push(Step::ToDevice(part(data, chunk * c, c)));
            }
        }
    }
}

/// A long array in, another out, chunk by chunk; the CPU reads what is done, three chunks behind.
fn stream(scale: &Scale, trace: &mut Trace) {
    let c = scale.chunk();
    let count = scale.chunks(0.5, 4);
    let (from, to) = (trace.alloc(count * c, true), trace.alloc(count * c, false));
    for _ in 0..scale.rounds {
        for chunk in 0..count + 3 {
            if chunk < count {
                let at = |array| part(array, chunk * c, c);
                trace.launch(c as f64, &[(at(from), Read), (at(to), Overwrite)]);
                if scale.hints {
                    trace.steps.push(Step::ToHost(at(to)));
                }
            }
            if let Some(done) = chunk.checked_sub(3) {
                trace.steps.push(Step::Touch { part: part(to, done * c, c), write: false });
            }
        }
    }
}
