//! Every workload of paged launches, at any size: the bench measures them, a test looks whether they are right.

use crate::examples::graph::Graph;
use crate::matrices;
use crate::work::{self, Skew, Work};

/// A workload that can be made.
pub(crate) struct Recipe {
    /// Whether its pages follow from the numbers of its groups.
    pub(crate) affine: bool,
    /// Makes it, of about so many bytes; of this graph, if it is one of graphs.
    pub(crate) make: fn(usize, &Graph) -> Work,
}

/// All of them.
pub(crate) const ALL: [Recipe; 8] = [
    Recipe { affine: true, make: |bytes, _| work::triad(bytes) },
    Recipe { affine: true, make: |bytes, _| matrices::gemm(bytes / 1024) },
    Recipe { affine: false, make: |bytes, _| work::gather(bytes, Skew::Uniform) },
    Recipe { affine: false, make: |bytes, _| work::gather(bytes, Skew::Zipf) },
    Recipe { affine: false, make: |_, graph| matrices::spmv_csr(graph) },
    Recipe { affine: false, make: |_, graph| matrices::pagerank(graph) },
    Recipe { affine: false, make: |bytes, _| matrices::hash_probe((bytes / 8).ilog2()) },
    Recipe { affine: false, make: |_, graph| matrices::bfs_csr(graph) },
];
