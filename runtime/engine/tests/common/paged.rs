//! Paged kernels over the fakes: a closure a group, by the words of `core::paging::layout`.

use super::*;
use vkhmm_core::paging::layout::{self, entry, feedback, range, record};
use vkhmm_engine::{PagedArgument, PagedSpec};

/// A group of a paged kernel.
pub struct Group<'a> {
    device: &'a FakeDevice,
    record: u64,
    /// Its number in the grid.
    pub id: u32,
    all: bool,
}

impl Group<'_> {
    fn word(&self, at: u64) -> u32 {
        u32::from_ne_bytes(self.device.at(at, 4).to_vec().try_into().unwrap())
    }

    fn put(&self, at: u64, word: u32) {
        self.device.at(at, 4).write(&word.to_ne_bytes());
    }

    fn address(&self, at: u64) -> u64 {
        u64::from(self.word(at)) | u64::from(self.word(at + 4)) << 32
    }

    fn record(&self, word: usize) -> u64 {
        self.record + word as u64 * 4
    }

    fn range(&self, of: u32, word: usize) -> u64 {
        self.record(record::FIRST_RANGE + of as usize * range::WORDS + word)
    }

    fn set(&self, plane: u64, bit: u32) -> bool {
        let at = plane + u64::from(bit / 32) * 4;
        let old = self.word(at);
        self.put(at, old | 1 << (bit % 32));
        old & 1 << (bit % 32) == 0
    }

    fn is_set(&self, plane: u64, bit: u32) -> bool {
        self.word(plane + u64::from(bit / 32) * 4) & 1 << (bit % 32) != 0
    }

    /// Asks for bytes of a range.
    pub fn want(&mut self, of: u32, bytes: core::ops::Range<u64>, write: bool) {
        let access = if write { layout::WRITE } else { layout::READ };
        let feedback = self.address(self.record(record::FEEDBACK));
        let len = self.address(self.range(of, range::BYTES));
        if bytes.end > len || self.word(self.range(of, range::ACCESS)) & access == 0 {
            let at = feedback + feedback::OUTSIDE as u64 * 4;
            self.put(at, self.word(at) + 1);
            self.all = false;
            return;
        }
        let (sub_shift, block_shift) =
            (self.word(self.range(of, range::SUB_SHIFT)), self.word(self.range(of, range::BLOCK_SHIFT)));
        let plane = u64::from(self.word(self.range(of, range::PLANE))) * if write { 4 } else { 0 };
        for sub in (bytes.start >> sub_shift) as u32..=((bytes.end - 1) >> sub_shift) as u32 {
            let entry = self.entry(of, sub >> block_shift);
            let word = if write { entry::WRITABLE } else { entry::RESIDENT };
            if self.word(entry + word as u64 * 4) & 1 << (sub & ((1 << block_shift) - 1)) != 0 {
                self.set(self.address(self.range(of, range::TOUCHED)) + plane, sub);
                continue;
            }
            self.all = false;
            if self.set(self.address(self.range(of, range::MISSING)) + plane, sub) {
                let at = feedback + feedback::COUNT as u64 * 4;
                let count = self.word(at);
                self.put(at, count + 1);
                if count < self.word(self.record(record::CAPACITY)) {
                    let miss =
                        feedback + (feedback::FIRST as u64 + u64::from(count) * feedback::WORDS as u64) * 4;
                    for (i, word) in [of, sub, self.id, access].into_iter().enumerate() {
                        self.put(miss + i as u64 * 4, word);
                    }
                }
            }
        }
    }

    fn entry(&self, of: u32, block: u32) -> u64 {
        self.address(self.range(of, range::TABLE)) + u64::from(block) * entry::WORDS as u64 * 4
    }

    /// Whether all that was asked for is there; then the group is done.
    pub fn vote(&self) -> bool {
        if self.all {
            self.set(self.address(self.record(record::DONE)), self.id);
        }
        self.all
    }

    /// Where a byte that was asked for lies, as far as its sub-block goes.
    fn at(&self, of: u32, byte: u64, len: u64) -> RawBytes {
        let shift =
            self.word(self.range(of, range::SUB_SHIFT)) + self.word(self.range(of, range::BLOCK_SHIFT));
        let address = self.address(self.entry(of, (byte >> shift) as u32));
        self.device.at(address + (byte & ((1 << shift) - 1)), len)
    }

    fn pieces(&self, of: u32, bytes: core::ops::Range<u64>) -> Vec<RawBytes> {
        let sub = 1 << self.word(self.range(of, range::SUB_SHIFT));
        let mut at = bytes.start;
        let mut out = Vec::new();
        while at < bytes.end {
            let end = bytes.end.min((at / sub + 1) * sub);
            out.push(self.at(of, at, end - at));
            at = end;
        }
        out
    }

    /// Loads after the vote.
    pub fn load(&self, of: u32, bytes: core::ops::Range<u64>) -> Vec<u8> {
        self.pieces(of, bytes).into_iter().flat_map(RawBytes::to_vec).collect()
    }

    /// Stores after the vote.
    pub fn store(&self, of: u32, start: u64, bytes: &[u8]) {
        let mut left = bytes;
        for piece in self.pieces(of, start..start + bytes.len() as u64) {
            piece.write(&left[..piece.len()]);
            left = &left[piece.len()..];
        }
    }
}

/// A paged kernel that does `body` for each group, in the order of the ids.
pub fn kernel(device: &FakeDevice, body: impl Fn(&mut Group<'_>) + Send + Sync + 'static) -> FakeKernel {
    let device = device.clone();
    FakeKernel::new(move |_, push, groups| {
        let record = u64::from_ne_bytes(push[..8].try_into().unwrap());
        let mut head = Group { device: &device, record, id: 0, all: true };
        assert_eq!(head.word(record), layout::MAGIC);
        let count = head.word(head.record(record::GROUPS));
        assert!(count <= groups.iter().product());
        let ids = head.address(head.record(record::IDS));
        for i in 0..count {
            head.id = head.word(ids + u64::from(i) * 4);
            head.all = true;
            let done = head.address(head.record(record::DONE));
            assert!(!head.is_set(done, head.id), "group {} runs again", head.id);
            body(&mut head);
        }
    })
}

impl<H: HostMemory> World<H> {
    pub fn paged_spec(
        &self,
        kernel: &FakeKernel,
        groups: u32,
        ranges: &[(&Range<H>, AccessKind)],
    ) -> PagedSpec<TestPorts<H>> {
        let argument = |(range, access): &(&Range<H>, AccessKind)| PagedArgument {
            range: Some(Arc::clone(range)),
            access: *access,
        };
        PagedSpec {
            kernel: Arc::new(kernel.clone()),
            groups: [groups, 1, 1],
            items: 0,
            arguments: ranges.iter().map(argument).collect(),
            push: vec![0; 8],
            label: "paged".into(),
        }
    }

    pub fn launch_paged(
        &self,
        kernel: &FakeKernel,
        groups: u32,
        ranges: &[(&Range<H>, AccessKind)],
    ) -> Operation<H> {
        self.engine.launch_paged(self.paged_spec(kernel, groups, ranges)).expect("a paged launch")
    }
}
