//! What has been seen: which event met a page in which location under which hold.

use core::fmt;
use std::collections::BTreeSet;
use vkhmm_core::block::{Block, HoldKind};
use vkhmm_core::pagemap::Location;

/// Who is using a page, by the strongest use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Held {
    /// Nobody.
    Free,
    /// A host guard keeps it home.
    Pinned,
    /// Launches read the frame.
    Reading,
    /// A copy to the device reads the bytes in A.
    InPlace,
    /// Contents or place are changing.
    Exclusive,
}

/// What happens to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// A CPU load found it absent in R.
    Load,
    /// A CPU store found it absent or read-only.
    Store,
    /// A launch asks for it, to read.
    Read,
    /// A launch asks for it, to read and write.
    Write,
    /// A launch asks for it; its contents are dead.
    Overwrite,
    /// A prefetch to the device asks for it.
    PrefetchIn,
    /// A prefetch to the host asks for it.
    PrefetchOut,
    /// The host asks for it: a guard, or a slice of `declared`.
    Home,
    /// Its frame is wanted for another page.
    Evict,
    /// An operation that holds it ends.
    End,
    /// Its allocation is dropped, and whoever reclaims it looks.
    Free,
    /// The device is lost.
    Loss,
}

/// One square of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    /// Where the current bytes are, as text order has it: see [`LOCATIONS`].
    pub location: usize,
    /// Who uses the page.
    pub held: Held,
    /// What happens.
    pub event: Event,
}

/// The locations, in the order of the table.
pub const LOCATIONS: [Location; 5] =
    [Location::Absent, Location::Host, Location::Shared, Location::Device, Location::Lost];
/// The holds, in the order of the table.
pub const HOLDS: [Held; 5] = [Held::Free, Held::Pinned, Held::Reading, Held::InPlace, Held::Exclusive];
/// The events, in the order of the table.
pub const EVENTS: [Event; 12] = [
    Event::Load,
    Event::Store,
    Event::Read,
    Event::Write,
    Event::Overwrite,
    Event::PrefetchIn,
    Event::PrefetchOut,
    Event::Home,
    Event::Evict,
    Event::End,
    Event::Free,
    Event::Loss,
];

impl Held {
    /// The strongest use of `page`.
    pub fn of(block: &Block, page: u32) -> Self {
        let held = |kind| block.holds().iter().any(|h| h.kind == kind && h.mask.contains(page));
        match () {
            () if held(HoldKind::Exclusive) => Self::Exclusive,
            () if held(HoldKind::InPlace) => Self::InPlace,
            () if held(HoldKind::Reading) => Self::Reading,
            () if block.pinned().contains(page) => Self::Pinned,
            () => Self::Free,
        }
    }
}

/// Where `location` stands in [`LOCATIONS`].
fn row_of(location: Location) -> usize {
    LOCATIONS.iter().position(|l| *l == location).expect("the list is complete")
}

/// The cells that were seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    cells: BTreeSet<Cell>,
}

impl Coverage {
    /// `event` met `page` of a block in this state.
    pub fn saw(&mut self, block: &Block, page: u32, event: Event) {
        let location = row_of(block.location(page));
        self.cells.insert(Cell { location, held: Held::of(block, page), event });
    }

    /// Adds one cell.
    pub fn insert(&mut self, cell: Cell) {
        self.cells.insert(cell);
    }

    /// Whether the cell was seen.
    pub fn has(&self, cell: Cell) -> bool {
        self.cells.contains(&cell)
    }

    /// Adds all that `other` saw.
    pub fn merge(&mut self, other: &Self) {
        self.cells.extend(&other.cells);
    }

    /// How many cells were seen.
    pub fn count(&self) -> usize {
        self.cells.len()
    }

    /// Every cell there is.
    pub fn all() -> impl Iterator<Item = Cell> {
        (0..LOCATIONS.len()).flat_map(|location| {
            HOLDS
                .into_iter()
                .flat_map(move |held| EVENTS.into_iter().map(move |event| Cell { location, held, event }))
        })
    }

    /// The table: a row for each location and hold, a column for each event; what a square shows is up to `square`.
    pub fn table(square: impl Fn(Cell) -> char) -> String {
        let mut out = format!("{:8} {:10}", "location", "hold");
        EVENTS.iter().for_each(|e| out.push_str(&format!(" {:>5.5}", format!("{e:?}"))));
        for (location, name) in LOCATIONS.iter().enumerate() {
            for held in HOLDS {
                out.push_str(&format!("\n{:8} {:10}", format!("{name:?}"), format!("{held:?}")));
                for event in EVENTS {
                    out.push_str(&format!(" {:>5}", square(Cell { location, held, event })));
                }
            }
        }
        out
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} × {:?} × {:?}", LOCATIONS[self.location], self.held, self.event)
    }
}
