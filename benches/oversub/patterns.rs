//! In which order the chunks of an array are worked on, and what that must move at least.

/// An order of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// Every chunk once.
    Streaming,
    /// Every chunk four times in a row.
    Block,
    /// Any chunk, four times as often as there are chunks.
    Random,
    /// Every chunk once, four times over: where the least recently used is what comes next.
    Cyclic,
}

impl Pattern {
    pub(crate) const ALL: [(&str, Self); 4] = [
        ("streaming", Self::Streaming),
        ("block", Self::Block),
        ("random", Self::Random),
        ("cyclic", Self::Cyclic),
    ];

    /// The chunks to work on, in order.
    pub(crate) fn sequence(self, chunks: usize) -> Vec<usize> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % chunks
        };
        match self {
            Self::Streaming => (0..chunks).collect(),
            Self::Block => (0..4 * chunks).map(|n| n / 4).collect(),
            Self::Random => (0..4 * chunks).map(|_| random()).collect(),
            Self::Cyclic => (0..4 * chunks).map(|n| n % chunks).collect(),
        }
    }
}

/// What a program that knows the future moves with room for `room` chunks, each of which every use changes: (chunks fetched, chunks
/// written back to make room). It gives up the chunk whose next use is farthest away (Belady's MIN).
pub(crate) fn unavoidable(sequence: &[usize], room: usize) -> (usize, usize) {
    let (mut there, mut fetched, mut written) = (Vec::new(), 0, 0);
    for (now, chunk) in sequence.iter().enumerate() {
        if there.contains(chunk) {
            continue;
        }
        fetched += 1;
        if there.len() == room {
            let next =
                |old: &usize| sequence[now..].iter().position(|later| later == old).unwrap_or(usize::MAX);
            let farthest = (0..room).max_by_key(|at| next(&there[*at])).unwrap_or(0);
            there.swap_remove(farthest);
            written += 1;
        }
        there.push(*chunk);
    }
    (fetched, written)
}
