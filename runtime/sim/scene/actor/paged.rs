//! Paged launches: whole arrays, in whatever the frames hold.

use super::super::array::Array;
use super::super::kernel::{Access, inherit};
use super::super::paged::{Late, Pending, Work};
use super::super::turnstile::Locked;
use super::Actor;
use super::launches::{borrows, note_written};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vkhmm_engine::{AccessKind, PagedArgument, PagedSpec};

/// Groups, or items of all groups, of one launch.
const UNITS_MAX: u64 = 24;

impl Actor {
    pub(super) fn launch_paged(&mut self) -> &'static str {
        if self.arrays.is_empty() {
            return "nothing";
        }
        let mut which: Vec<usize> = (0..1 + self.paging.below(3))
            .map(|_| self.paging.below(self.arrays.len() as u64) as usize)
            .collect();
        which.sort_unstable();
        which.dedup();
        let cells: Vec<Arc<Locked>> = which.iter().map(|i| Arc::clone(&self.arrays[*i])).collect();
        let mut arrays: Vec<Array> = cells.iter().map(|cell| self.take(cell)).collect();
        let kinds = [AccessKind::Read, AccessKind::Write, AccessKind::Overwrite];
        let accesses: Vec<Access> = arrays
            .iter()
            .enumerate()
            .map(|(array, of)| {
                let kind = kinds[self.paging.below(if of.is_mixed() { 2 } else { 3 }) as usize];
                Access { array, bytes: of.all(), kind }
            })
            .collect();
        self.page(&mut arrays, &accesses);
        for (cell, array) in cells.iter().zip(arrays) {
            cell.put(array);
        }
        "paged launch"
    }

    fn page(&mut self, arrays: &mut [Array], accesses: &[Access]) {
        let stage = Arc::clone(&self.stage);
        let names: Vec<_> =
            accesses.iter().map(|a| format!("{:?} {}", a.kind, arrays[a.array].name)).collect();
        let what = format!("paged launch {}", names.join(", "));
        let items = [0, 0, 1, 4][self.paging.below(4) as usize];
        // So that whoever waits for it does not wait for long.
        let longest = arrays.iter().map(Array::len).max().unwrap_or(0);
        let part = (1 + self.paging.below(30)).max(longest.div_ceil(UNITS_MAX));
        let (far, salt) = (self.paging.below(3) as u32, self.paging.number() as u8);
        let work = Work::over(arrays, accesses, part, items, far, salt);
        stage.exec.note(format_args!("{what}: {} groups of {items} items, {far} far", work.groups));
        let argument = |access: &Access| PagedArgument {
            range: Some(Arc::clone(&arrays[access.array].range)),
            access: access.kind,
        };
        let groups =
            if self.paging.one_in(2) { [work.groups, 1, 1] } else { [2, work.groups.div_ceil(2), 1] };
        let spec = PagedSpec {
            kernel: Arc::new(work.clone().kernel(&what, &stage, arrays)),
            groups,
            items,
            arguments: accesses.iter().map(argument).collect(),
            push: vec![0; 8],
            label: format!("paged kernel of app{}", self.me).into(),
        };
        let borrows = borrows(arrays, accesses);
        let (before, late) = (self.before(), Late::new(&stage, work.frames_of_unit()));
        let launched =
            stage.timed("a paged launch", || stage.ledger.lend(&borrows, || stage.engine.launch_paged(spec)));
        match launched {
            Ok(op) => {
                work.apply(arrays, accesses);
                note_written(arrays, accesses);
                let pending = Arc::new(Pending::new(&op, late));
                inherit(arrays, accesses, Some(&pending));
                self.last = Some(op);
            }
            Err(error) => {
                stage.paged_gone.fetch_add(1, Ordering::AcqRel);
                self.explain(&error, &before, Some((arrays, accesses)));
                for access in accesses {
                    stage.find_lost(&mut arrays[access.array], access.bytes);
                }
            }
        }
    }
}
