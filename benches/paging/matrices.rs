//! Work on graphs, tables and matrices.

use crate::examples::Random;
use crate::examples::graph::{Graph, UNREACHED};
use crate::work::{Array, Until, Work, floats};
use vkhmm::AccessKind;

/// y = A x, where A has the edges of a graph: most rows are short, a few very long.
pub(crate) fn spmv_csr(graph: &Graph) -> Work {
    let n = graph.vertices();
    let (value, factor) = (|edge: usize| edge as u32 % 3, |vertex: u32| vertex % 7);
    let row = |v: usize| {
        let edges = graph.offsets[v] as usize..graph.offsets[v + 1] as usize;
        edges.map(|edge| value(edge) * factor(graph.targets[edge])).sum::<u32>()
    };
    Work {
        name: "spmv_csr",
        spirv: include_bytes!("../../shaders/spv/paged_spmv_csr.spv"),
        arrays: vec![
            Array::new("y", AccessKind::Overwrite, vec![0; n]).whole(),
            Array::new("offsets", AccessKind::Read, graph.offsets.clone()).whole(),
            Array::new("columns", AccessKind::Read, graph.targets.clone()).whole(),
            Array::new("values", AccessKind::Read, floats((0..graph.edges()).map(value))).whole(),
            Array::new("x", AccessKind::Read, floats((0..n as u32).map(factor))).whole(),
        ],
        push: vec![n as u32],
        groups: [n.div_ceil(64) as u32, 1, 1],
        until: Until::Once,
        results: vec![(0, floats((0..n).map(row)))],
    }
}

/// One step of PageRank: what each vertex gives is a small number, and it gives that to a power of two of vertices, so that ranks and
/// shares are exact.
pub(crate) fn pagerank(graph: &Graph) -> Work {
    let n = graph.vertices();
    let (share, degree) = (|vertex: u32| vertex % 7, |vertex: usize| (1_u32 << (vertex % 4)) & !1);
    let sources = |v: usize| &graph.targets[graph.offsets[v] as usize..graph.offsets[v + 1] as usize];
    let rank = |v: usize| 1.0 + 0.5 * sources(v).iter().map(|from| share(*from)).sum::<u32>() as f32;
    let share_out = |v: usize| if degree(v) == 0 { 0.0 } else { rank(v) / degree(v) as f32 };
    Work {
        name: "pagerank",
        spirv: include_bytes!("../../shaders/spv/paged_pagerank.spv"),
        arrays: vec![
            Array::new("rank", AccessKind::Overwrite, vec![0; n]).whole(),
            Array::new("share out", AccessKind::Overwrite, vec![0; n]).whole(),
            Array::new("offsets", AccessKind::Read, graph.offsets.clone()).whole(),
            Array::new("sources", AccessKind::Read, graph.targets.clone()).whole(),
            Array::new("share", AccessKind::Read, floats((0..n as u32).map(share))).whole(),
            Array::new("degree", AccessKind::Read, (0..n).map(degree).collect()).whole(),
        ],
        push: vec![n as u32, 1.0_f32.to_bits(), 0.5_f32.to_bits()],
        groups: [n.div_ceil(64) as u32, 1, 1],
        until: Until::Once,
        results: vec![
            (0, (0..n).map(|v| rank(v).to_bits()).collect()),
            (1, (0..n).map(|v| share_out(v).to_bits()).collect()),
        ],
    }
}

/// How many edges each vertex of a graph is away from the one that has most: a launch for each level.
pub(crate) fn bfs_csr(graph: &Graph) -> Work {
    let root = graph.hub();
    let mut levels = vec![UNREACHED; graph.vertices()];
    levels[root] = 0;
    Work {
        name: "bfs_csr",
        spirv: include_bytes!("../../shaders/spv/paged_bfs_csr.spv"),
        arrays: vec![
            Array::new("levels", AccessKind::Write, levels).whole(),
            Array::new("offsets", AccessKind::Read, graph.offsets.clone()).whole(),
            Array::new("edges", AccessKind::Read, graph.targets.clone()).whole(),
            Array::new("found", AccessKind::Write, vec![0]).whole(),
        ],
        push: vec![graph.vertices() as u32],
        groups: [graph.vertices().div_ceil(64) as u32, 1, 1],
        until: Until::Zero { array: 3 },
        results: vec![(0, graph.levels(root))],
    }
}

/// The graph of works of about so many bytes: vertices of 768 bytes each, nearly all of it edges.
pub(crate) fn graph(bytes: usize) -> Graph {
    let scale = (bytes / 768).ilog2();
    let edges = bytes / 16 * 9 / (8 << scale);
    Graph::kronecker(scale, edges, 1, |_| ()).expect("as many edges as bytes")
}

/// The key of an empty slot.
const NONE: u32 = u32::MAX;

/// Where the search for a key begins, as in the shader.
fn hash(key: u32) -> usize {
    let hash = (key ^ (key >> 16)).wrapping_mul(0x85eb_ca6b);
    let hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    (hash ^ (hash >> 16)) as usize
}

/// Looks up keys, half of which are there, in a half full table of 2^`log2` slots.
pub(crate) fn hash_probe(log2: u32) -> Work {
    let (slots, n) = (1_usize << log2, 1_usize << (log2 - 3));
    let mut random = Random::new(9);
    let mut table = Array::new("table", AccessKind::Read, vec![NONE; 2 * slots]);
    // Odd keys are there.
    let key = |random: &mut Random| (random.bits() >> 33) as u32 | 1;
    let mut keys: Vec<u32> = Vec::with_capacity(n);
    for i in 0..slots / 2 {
        let key = key(&mut random);
        let mut slot = hash(key) & (slots - 1);
        while table.words[2 * slot] != NONE && table.words[2 * slot] != key {
            slot = (slot + 1) & (slots - 1);
        }
        (table.words[2 * slot], table.words[2 * slot + 1]) = (key, key ^ 0x5555);
        if i % (slots / n) == 0 {
            keys.extend([key, key ^ 1]);
        }
    }
    for key in &keys {
        let mut slot = hash(*key) & (slots - 1);
        table.touch(2 * slot);
        while table.words[2 * slot] != NONE && table.words[2 * slot] != *key {
            slot = (slot + 1) & (slots - 1);
            table.touch(2 * slot);
        }
    }
    let value = |key: &u32| if key % 2 == 1 { key ^ 0x5555 } else { NONE };
    let expected: Vec<u32> = keys.iter().map(value).collect();
    let n = keys.len();
    Work {
        name: "hash_probe",
        spirv: include_bytes!("../../shaders/spv/paged_hash_probe.spv"),
        arrays: vec![
            Array::new("found", AccessKind::Overwrite, vec![0; n]).whole(),
            Array::new("keys", AccessKind::Read, keys).whole(),
            table,
        ],
        push: vec![n as u32, slots as u32],
        groups: [n.div_ceil(64) as u32, 1, 1],
        until: Until::Once,
        results: vec![(0, expected)],
    }
}

/// C = A B, where A has `rows` rows of 128, and B is square. Few elements of B are not zero, for the CPU's sake; the kernel does not know.
pub(crate) fn gemm(rows: usize) -> Work {
    const SIDE: usize = 128;
    let a = |row: usize, l: usize| ((row * 7 + l * 3) % 11) as u32;
    let b = |l: usize, column: usize| if (l + 5 * column) % 32 == 0 { 1 + (l % 3) as u32 } else { 0 };
    let columns: Vec<Vec<usize>> =
        (0..SIDE).map(|column| (0..SIDE).filter(|l| b(*l, column) != 0).collect()).collect();
    let grid = |rows: usize| (0..rows).flat_map(|row| (0..SIDE).map(move |column| (row, column)));
    let product = |(row, column): (usize, usize)| {
        columns[column].iter().map(|l| a(row, *l) * b(*l, column)).sum::<u32>()
    };
    Work {
        name: "gemm",
        spirv: include_bytes!("../../shaders/spv/paged_gemm.spv"),
        arrays: vec![
            Array::new("C", AccessKind::Overwrite, vec![0; rows * SIDE]).whole(),
            Array::new("A", AccessKind::Read, floats(grid(rows).map(|(row, l)| a(row, l)))).whole(),
            Array::new("B", AccessKind::Read, floats(grid(SIDE).map(|(l, column)| b(l, column)))).whole(),
        ],
        push: vec![rows as u32, SIDE as u32, SIDE as u32],
        groups: [(rows / 64 * SIDE / 32) as u32, 1, 1],
        until: Until::Once,
        results: vec![(0, floats(grid(rows).map(product)))],
    }
}
