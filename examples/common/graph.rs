//! Graphs in compressed rows: from an edge list or a MatrixMarket file, or grown from a seed; and what the CPU says of them.
//!
//! ```text
//!   offsets  0   2   2   3   5          targets[offsets[v] .. offsets[v + 1]] are the vertices that v has edges to,
//!            │   └───┴─┐ │   └──────┐   each once, in ascending order
//!   targets  1   3     0     1   2
//! ```

use super::Random;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

/// The level of a vertex that cannot be reached.
pub(crate) const UNREACHED: u32 = u32::MAX;
/// Most vertices: two arrays of that many words are still a small part of a machine.
const VERTICES_MAX: u64 = 1 << 28;
/// Of a matrix of matrices, how likely an edge lies in the first, second and third quarter; the rest is the fourth's. Those of the
/// Graph500 benchmark.
const QUARTERS: [f64; 3] = [0.57, 0.19, 0.19];

/// Why a file is no graph. Lines are counted from one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GraphError {
    /// It cannot be read at all.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A line that says something else than it should.
    #[error("line {line}: {found:?} found, {expected} expected")]
    Line {
        /// Which.
        line: usize,
        /// What it says, or the part that is wrong.
        found: String,
        /// What could stand there.
        expected: String,
    },
    /// It ends too early.
    #[error("the file ends with line {line}, {expected} expected")]
    End {
        /// The last one.
        line: usize,
        /// What should come.
        expected: String,
    },
    /// More edges than 32 bits count.
    #[error("{0} edges, at most 4294967295 can be used")]
    TooManyEdges(usize),
}

/// A directed graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Graph {
    /// Where each vertex's targets begin, and behind the last one their number.
    pub(crate) offsets: Vec<u32>,
    /// The targets of all vertices, one vertex after the other.
    pub(crate) targets: Vec<u32>,
}

impl Graph {
    /// The graph of these edges. Loops are left out, and so is an edge that is there already.
    ///
    /// # Errors
    /// More edges than 32 bits count.
    ///
    /// # Panics
    /// At an edge of a vertex that is not below `vertices`.
    pub(crate) fn new(vertices: usize, edges: &[(u32, u32)]) -> Result<Self, GraphError> {
        u32::try_from(edges.len()).map_err(|_| GraphError::TooManyEdges(edges.len()))?;
        let mut at = vec![0; vertices + 1];
        edges.iter().for_each(|(from, _)| at[*from as usize + 1] += 1);
        (0..vertices).for_each(|v| at[v + 1] += at[v]);
        let mut unsorted = vec![0; edges.len()];
        let mut next = at.clone();
        for (from, to) in edges {
            assert!((*to as usize) < vertices, "an edge to vertex {to} of {vertices}");
            unsorted[next[*from as usize]] = *to;
            next[*from as usize] += 1;
        }
        let mut graph = Self { offsets: vec![0], targets: Vec::with_capacity(edges.len()) };
        for v in 0..vertices {
            let targets = &mut unsorted[at[v]..at[v + 1]];
            targets.sort_unstable();
            let first = graph.targets.len();
            for to in targets.iter().filter(|to| **to as usize != v) {
                if graph.targets[first..].last() != Some(to) {
                    graph.targets.push(*to);
                }
            }
            graph.offsets.push(graph.targets.len() as u32);
        }
        Ok(graph)
    }

    /// Reads a graph: a MatrixMarket file if its first line says so, else an edge list. With `both_ways` each edge goes back, too.
    ///
    /// # Errors
    /// What cannot be read, or says something else than a graph.
    pub(crate) fn read(path: &Path, both_ways: bool) -> Result<Self, GraphError> {
        Self::parse(BufReader::new(File::open(path)?), both_ways)
    }

    /// As [`Graph::read`], from anywhere.
    ///
    /// # Errors
    /// As [`Graph::read`].
    pub(crate) fn parse(from: impl BufRead, both_ways: bool) -> Result<Self, GraphError> {
        let mut lines = Lines { from, text: String::new(), line: 0 };
        let found = if lines.next()? && lines.text.to_lowercase().starts_with("%%matrixmarket") {
            matrix_market(&mut lines)?
        } else {
            edge_list(&mut lines)?
        };
        let (vertices, mut edges, symmetric) = found;
        if both_ways || symmetric {
            add_back(&mut edges);
        }
        Self::new(vertices, &edges)
    }

    /// A graph of 2^`scale` vertices as the Graph500 benchmark makes them: few vertices have very many edges, most have few; each
    /// edge goes both ways. The same seed, the same graph. `progress` is told how many of the edges there are.
    ///
    /// # Errors
    /// More edges than 32 bits count.
    pub(crate) fn kronecker(
        scale: u32,
        edges_per_vertex: usize,
        seed: u64,
        mut progress: impl FnMut(usize),
    ) -> Result<Self, GraphError> {
        let vertices = 1_usize << scale;
        let count = vertices.saturating_mul(edges_per_vertex);
        u32::try_from(count.saturating_mul(2)).map_err(|_| GraphError::TooManyEdges(count))?;
        let mut random = Random::new(seed);
        // Whether the row bit is set and the column bit is set, each by what a draw lies above.
        let [a, b, c] = QUARTERS.map(|part| (part * f64::from(1 << 30)) as u64);
        let mut edges = Vec::with_capacity(2 * count);
        for n in 0..count {
            let (mut from, mut to) = (0, 0);
            for _ in 0..scale {
                let draw = random.bits() >> 34;
                from = 2 * from + u32::from(draw >= a + b);
                to = 2 * to + u32::from((a..a + b).contains(&draw) || draw >= a + b + c);
            }
            edges.push((from, to));
            if n % (1 << 16) == 0 {
                progress(n);
            }
        }
        // Numbers say nothing about a vertex.
        let mut names: Vec<u32> = (0..vertices as u32).collect();
        (1..vertices).for_each(|at| names.swap(at, random.below(at + 1)));
        edges.iter_mut().for_each(|(from, to)| {
            (*from, *to) = (names[*from as usize], names[*to as usize]);
        });
        add_back(&mut edges);
        Self::new(vertices, &edges)
    }

    /// How many vertices it has.
    pub(crate) fn vertices(&self) -> usize {
        self.offsets.len() - 1
    }

    /// How many edges it has; one that goes both ways counts twice.
    pub(crate) fn edges(&self) -> usize {
        self.targets.len()
    }

    /// The vertices that `v` has edges to.
    pub(crate) fn targets_of(&self, v: usize) -> &[u32] {
        &self.targets[self.offsets[v] as usize..self.offsets[v + 1] as usize]
    }

    /// The graph with every edge turned round.
    pub(crate) fn transposed(&self) -> Self {
        let mut offsets = vec![0; self.vertices() + 1];
        self.targets.iter().for_each(|to| offsets[*to as usize + 1] += 1);
        (0..self.vertices()).for_each(|v| offsets[v + 1] += offsets[v]);
        let (mut targets, mut next) = (vec![0; self.edges()], offsets.clone());
        for v in 0..self.vertices() {
            for to in self.targets_of(v) {
                targets[next[*to as usize] as usize] = v as u32;
                next[*to as usize] += 1;
            }
        }
        Self { offsets, targets }
    }

    /// The vertex with the most edges: the first of them.
    pub(crate) fn hub(&self) -> usize {
        let degree = |v: &usize| (self.targets_of(*v).len(), usize::MAX - v);
        (0..self.vertices()).max_by_key(degree).unwrap_or(0)
    }

    /// How many edges each vertex is away from `root`, as the CPU finds out; [`UNREACHED`] if no path leads there.
    ///
    /// # Panics
    /// If there is no such vertex.
    pub(crate) fn levels(&self, root: usize) -> Vec<u32> {
        let mut levels = vec![UNREACHED; self.vertices()];
        levels[root] = 0;
        let mut open = VecDeque::from([root]);
        while let Some(v) = open.pop_front() {
            for to in self.targets_of(v) {
                if levels[*to as usize] == UNREACHED {
                    levels[*to as usize] = levels[v] + 1;
                    open.push_back(*to as usize);
                }
            }
        }
        levels
    }

    /// PageRank as the CPU computes it: after so many steps from equal ranks. A vertex without edges gives to all alike. The ranks
    /// add up to one.
    pub(crate) fn ranks(&self, damping: f64, steps: usize) -> Vec<f64> {
        let n = self.vertices() as f64;
        let mut ranks = vec![1.0 / n; self.vertices()];
        for _ in 0..steps {
            let (mut given, mut loose) = (vec![0.0; self.vertices()], 0.0);
            for (v, rank) in ranks.iter().enumerate() {
                let targets = self.targets_of(v);
                if targets.is_empty() {
                    loose += rank;
                }
                targets.iter().for_each(|to| given[*to as usize] += rank / targets.len() as f64);
            }
            let all = (1.0 - damping + damping * loose) / n;
            ranks = given.iter().map(|given| all + damping * given).collect();
        }
        ranks
    }
}

fn add_back(edges: &mut Vec<(u32, u32)>) {
    edges.extend_from_within(..);
    let half = edges.len() / 2;
    edges[half..].iter_mut().for_each(|(from, to)| std::mem::swap(from, to));
}

/// The lines of a file, one at a time.
struct Lines<R> {
    from: R,
    text: String,
    line: usize,
}

impl<R: BufRead> Lines<R> {
    /// Reads the next line: false where there is none.
    fn next(&mut self) -> Result<bool, GraphError> {
        self.text.clear();
        let more = self.from.read_line(&mut self.text)? != 0;
        self.line += usize::from(more);
        Ok(more)
    }

    /// Whether this line says nothing.
    fn is_comment(&self) -> bool {
        let text = self.text.trim();
        text.is_empty() || text.starts_with(['#', '%'])
    }

    /// What is wrong with this line.
    fn expected(&self, expected: impl Into<String>) -> GraphError {
        let found = self.text.trim().chars().take(60).collect();
        GraphError::Line { line: self.line, found, expected: expected.into() }
    }

    /// The numbers that this line begins with.
    fn numbers<const N: usize>(&self, expected: &str) -> Result<[u64; N], GraphError> {
        let mut parts = self.text.split([' ', '\t', ',', '\r', '\n']).filter(|part| !part.is_empty());
        let mut numbers = [0; N];
        for number in &mut numbers {
            let part = parts.next().and_then(|part| part.parse().ok());
            *number = part.ok_or_else(|| self.expected(expected))?;
        }
        Ok(numbers)
    }
}

/// Number of vertices, edges, and whether each edge goes back, too.
type Found = (usize, Vec<(u32, u32)>, bool);

/// Two vertices a line, counted from zero; further columns are not looked at.
fn edge_list<R: BufRead>(lines: &mut Lines<R>) -> Result<Found, GraphError> {
    let (mut vertices, mut edges, mut more) = (0, Vec::new(), lines.line != 0);
    while more {
        if !lines.is_comment() {
            let ends: [u64; 2] = lines.numbers("two vertices, each a whole number from 0")?;
            let last = ends[0].max(ends[1]);
            if last >= VERTICES_MAX {
                return Err(lines.expected(format!("vertices below {VERTICES_MAX}")));
            }
            vertices = vertices.max(last as usize + 1);
            edges.push((ends[0] as u32, ends[1] as u32));
        }
        more = lines.next()?;
    }
    if edges.is_empty() {
        return Err(GraphError::End { line: lines.line, expected: "at least one edge".into() });
    }
    Ok((vertices, edges, false))
}

/// A square matrix by coordinates: row and column of each entry, counted from one. What the entries are is not looked at.
fn matrix_market<R: BufRead>(lines: &mut Lines<R>) -> Result<Found, GraphError> {
    let head = lines.text.to_lowercase();
    let words: Vec<&str> = head.split_whitespace().skip(1).collect();
    let symmetric = match words[..] {
        ["matrix", "coordinate", "pattern" | "real" | "integer", "general"] => false,
        ["matrix", "coordinate", "pattern" | "real" | "integer", "symmetric"] => true,
        _ => {
            let can = "%%MatrixMarket matrix coordinate (pattern, real or integer) (general or symmetric)";
            return Err(lines.expected(can));
        }
    };
    let entry = |lines: &mut Lines<R>, expected: &dyn Fn() -> String| loop {
        if !lines.next()? {
            return Err(GraphError::End { line: lines.line, expected: expected() });
        }
        if !lines.is_comment() {
            return Ok(());
        }
    };
    entry(lines, &|| "a line with rows, columns and entries".into())?;
    let [rows, columns, count] = lines.numbers("rows, columns and entries")?;
    if rows != columns || rows == 0 || rows > VERTICES_MAX {
        return Err(lines.expected(format!("as many rows as columns, 1 to {VERTICES_MAX}")));
    }
    let mut edges = Vec::new();
    for n in 0..count {
        entry(lines, &|| format!("{count} entries ({n} found)"))?;
        let can = || format!("row and column, each from 1 to {rows}");
        let [row, column] = lines.numbers(&can())?;
        if !(1..=rows).contains(&row) || !(1..=rows).contains(&column) {
            return Err(lines.expected(can()));
        }
        edges.push((row as u32 - 1, column as u32 - 1));
    }
    while lines.next()? {
        if !lines.is_comment() {
            return Err(lines.expected(format!("nothing behind {count} entries")));
        }
    }
    Ok((rows as usize, edges, symmetric))
}
