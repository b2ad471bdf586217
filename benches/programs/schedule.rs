//! What goes in and out with the future known: Belady's MIN over tiles. It fetches the least that any order of copies can for these
//! launches, and is the plan that the hand-written program carries out.

use crate::{AccessKind, Program, Tile};
use std::collections::HashMap;

/// One copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A tile into a slot.
    Fetch(Tile, usize),
    /// A tile home from a slot.
    WriteBack(Tile, usize),
}

/// What happens before a launch, and where its tiles are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Copies, in order.
    pub before: Vec<Action>,
    /// The slot of each use; `None` for arrays that stay.
    pub slots: Vec<Option<usize>>,
}

/// All copies of a program, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// One for each launch.
    pub turns: Vec<Turn>,
    /// Results that are still on the device.
    pub end: Vec<Action>,
    /// Tiles fetched.
    pub fetched: usize,
    /// Tiles written back, those at the end among them.
    pub written: usize,
}

#[derive(Clone, Copy)]
struct Slot {
    tile: Tile,
    dirty: bool,
}

impl Schedule {
    /// The schedule with room for `room` tiles.
    ///
    /// # Panics
    /// If a launch needs more tiles than that.
    pub fn new(program: &Program, room: usize) -> Self {
        let mut later: HashMap<Tile, Vec<(usize, AccessKind)>> = HashMap::new();
        for (at, step) in program.steps.iter().enumerate().rev() {
            for used in &step.uses {
                if let Some(tile) = program.tile(used) {
                    later.entry(tile).or_default().push((at, used.access));
                }
            }
        }
        let mut slots: Vec<Option<Slot>> = vec![None; room];
        let mut plan = Self { turns: Vec::new(), end: Vec::new(), fetched: 0, written: 0 };
        for (at, step) in program.steps.iter().enumerate() {
            let mut turn = Turn::default();
            let needs: Vec<Option<Tile>> = step.uses.iter().map(|used| program.tile(used)).collect();
            for (used, tile) in step.uses.iter().zip(&needs) {
                let Some(tile) = *tile else {
                    turn.slots.push(None);
                    continue;
                };
                let there = slots.iter().position(|slot| slot.is_some_and(|slot| slot.tile == tile));
                let slot = there.unwrap_or_else(|| {
                    let slot = plan.make_room(program, &slots, &needs, &later, &mut turn);
                    // Some other use of this launch may need what this one overwrites.
                    let reads = step.uses.iter().zip(&needs).any(|(other, other_tile)| {
                        *other_tile == Some(tile) && other.access != AccessKind::Overwrite
                    });
                    if reads {
                        turn.before.push(Action::Fetch(tile, slot));
                        plan.fetched += 1;
                    }
                    slots[slot] = Some(Slot { tile, dirty: false });
                    slot
                });
                if let Some(slot) = &mut slots[slot] {
                    slot.dirty |= used.access != AccessKind::Read;
                }
                turn.slots.push(Some(slot));
            }
            for tile in needs.iter().flatten() {
                if let Some(uses) = later.get_mut(tile) {
                    while uses.last().is_some_and(|(next, _)| *next <= at) {
                        uses.pop();
                    }
                }
            }
            plan.turns.push(turn);
        }
        for (at, slot) in slots.iter().enumerate() {
            let Some(slot) = slot else { continue };
            if slot.dirty && program.arrays[slot.tile.0].expected.is_some() {
                plan.end.push(Action::WriteBack(slot.tile, at));
                plan.written += 1;
            }
        }
        plan
    }

    /// A slot that this launch does not need: an empty one, or that whose bytes are needed last, which go home if anybody needs
    /// them at all.
    fn make_room(
        &mut self,
        program: &Program,
        slots: &[Option<Slot>],
        needs: &[Option<Tile>],
        later: &HashMap<Tile, Vec<(usize, AccessKind)>>,
        turn: &mut Turn,
    ) -> usize {
        if let Some(empty) = slots.iter().position(Option::is_none) {
            return empty;
        }
        let next = |tile: &Tile| later.get(tile).and_then(|uses| uses.last());
        let needed_at = |tile: &Tile| match next(tile) {
            Some((_, AccessKind::Overwrite)) | None => usize::MAX,
            Some((at, _)) => *at,
        };
        let goes_home = |slot: &Slot| {
            slot.dirty
                && match next(&slot.tile) {
                    Some((_, access)) => *access != AccessKind::Overwrite,
                    None => program.arrays[slot.tile.0].expected.is_some(),
                }
        };
        let mut free: Vec<(usize, &Slot)> = slots
            .iter()
            .enumerate()
            .filter_map(|(at, slot)| Some((at, slot.as_ref()?)))
            .filter(|(_, slot)| !needs.contains(&Some(slot.tile)))
            .collect();
        free.sort_by_key(|(_, slot)| (needed_at(&slot.tile), !goes_home(slot)));
        let (at, slot) = *free.last().expect("a launch's tiles fit the room");
        if goes_home(slot) {
            turn.before.push(Action::WriteBack(slot.tile, at));
            self.written += 1;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Array, Step, Use};

    /// An array of `tiles` tiles of one element, used one tile a launch.
    fn program(tiles: usize, order: &[(usize, AccessKind)], result: bool) -> Program {
        let initial = vec![0.0; tiles];
        let expected = result.then(|| initial.clone());
        let step = |(tile, access): &(usize, AccessKind)| Step {
            kernel: 0,
            items: 1,
            uses: vec![Use { array: 0, words: *tile..tile + 1, access: *access }],
            push: Vec::new(),
        };
        Program {
            name: "test".into(),
            kernels: Vec::new(),
            arrays: vec![Array { name: "a", initial, expected, stays: false }],
            tile_words: 1,
            steps: order.iter().map(step).collect(),
        }
    }

    #[test]
    fn a_cycle_keeps_all_but_one() {
        let order: Vec<_> = (0..12).map(|n| (n % 4, AccessKind::Read)).collect();
        let plan = Schedule::new(&program(4, &order, false), 3);
        // Four come in once; of the eight uses after, 2 at the seventh and 1 at the tenth find their tile gone.
        assert_eq!((plan.fetched, plan.written), (4 + 2, 0));
        assert_eq!(Schedule::new(&program(4, &order, false), 4).fetched, 4);
    }

    #[test]
    fn what_is_overwritten_or_needed_by_nobody_neither_comes_nor_goes() {
        let twice = [(0, AccessKind::Overwrite), (1, AccessKind::Overwrite), (0, AccessKind::Overwrite)];
        let plan = Schedule::new(&program(2, &twice, false), 1);
        assert_eq!((plan.fetched, plan.written), (0, 0));
        // A result: 1 goes home to make room for 0, and 0 at the end; the first 0 is overwritten unread.
        let plan = Schedule::new(&program(2, &twice, true), 1);
        assert_eq!((plan.fetched, plan.written), (0, 2));
        assert_eq!(plan.end, [Action::WriteBack((0, 0), 0)]);
        assert_eq!(plan.turns[2].before, [Action::WriteBack((0, 1), 0)]);
    }

    #[test]
    fn changed_bytes_that_are_read_again_go_and_come() {
        let order = [(0, AccessKind::Write), (1, AccessKind::Read), (0, AccessKind::Read)];
        let plan = Schedule::new(&program(2, &order, false), 1);
        assert_eq!((plan.fetched, plan.written), (3, 1));
    }
}
