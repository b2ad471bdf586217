//! A matrix cut into tiles, each one contiguous: what a launch takes of it is then one plain slice.

use std::io;
use std::ops::Range;

/// Elements of one granule of 64 KiB: tiles start on it, so that no two tiles share bytes that move together.
const GRANULE: usize = 65536 / size_of::<f32>();

/// Where the elements of a `rows` x `columns` matrix lie. Tiles follow each other in row-major order, elements of a tile as well.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiles {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    height: usize,
    width: usize,
}

/// One tile: where its elements are, and its shape. Rows are `stride` apart, a multiple of four for the kernel's wide loads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    pub(crate) elements: Range<usize>,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) stride: usize,
}

impl Tiles {
    /// Tiles of at most `height` x `width`, each at least one.
    pub(crate) fn new(rows: usize, columns: usize, height: usize, width: usize) -> Self {
        Self { rows, columns, height: height.max(1), width: width.max(1) }
    }

    /// Elements from one tile to the next.
    fn apart(&self) -> usize {
        elements(self.height, self.width).next_multiple_of(GRANULE)
    }

    /// Tiles from top to bottom.
    pub(crate) fn down(&self) -> usize {
        self.rows.div_ceil(self.height)
    }

    /// Tiles from left to right.
    pub(crate) fn across(&self) -> usize {
        self.columns.div_ceil(self.width)
    }

    /// Elements to allocate for the whole matrix.
    pub(crate) fn len(&self) -> usize {
        self.down() * self.across() * self.apart()
    }

    /// Tile `column` of tile row `row`.
    pub(crate) fn tile(&self, row: usize, column: usize) -> Tile {
        let rows = (self.rows - row * self.height).min(self.height);
        let columns = (self.columns - column * self.width).min(self.width);
        let start = (row * self.across() + column) * self.apart();
        Tile {
            elements: start..start + elements(rows, columns),
            rows,
            columns,
            stride: columns.next_multiple_of(4),
        }
    }

    /// Where the elements of `row` are: one run for each tile it crosses, from left to right.
    pub(crate) fn row(&self, row: usize) -> impl Iterator<Item = Range<usize>> + '_ {
        (0..self.across()).map(move |column| {
            let tile = self.tile(row / self.height, column);
            let start = tile.elements.start + row % self.height * tile.stride;
            start..start + tile.columns
        })
    }

    /// Where one element is.
    pub(crate) fn at(&self, row: usize, column: usize) -> usize {
        let tile = self.tile(row / self.height, column / self.width);
        tile.elements.start + row % self.height * tile.stride + column % self.width
    }

    /// Puts `elements`, given in row-major order, in their places.
    pub(crate) fn fill(
        &self,
        into: &mut [f32],
        elements: impl IntoIterator<Item = io::Result<f32>>,
    ) -> io::Result<()> {
        let mut elements = elements.into_iter();
        for run in (0..self.rows).flat_map(|row| self.row(row)) {
            for place in &mut into[run] {
                *place = elements.next().ok_or(io::ErrorKind::UnexpectedEof)??;
            }
        }
        Ok(())
    }

    /// All elements in row-major order.
    pub(crate) fn iter<'a>(&'a self, of: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
        (0..self.rows).flat_map(|row| self.row(row)).flat_map(|run| &of[run]).copied()
    }
}

/// Elements of a tile, the ends of its rows included.
fn elements(rows: usize, columns: usize) -> usize {
    rows * columns.next_multiple_of(4)
}

/// Bytes of device memory that a tile takes.
pub(crate) fn device_bytes(rows: usize, columns: usize) -> u64 {
    (elements(rows, columns) * size_of::<f32>()).next_multiple_of(65536) as u64
}
