//! The graphs of the examples: what can be read, what cannot and why, what the CPU says of them, and that the device agrees.
#![allow(clippy::duplicate_mod, reason = "each example brings along what it shares with the others")]

#[allow(dead_code, reason = "its main is not run here")]
#[path = "../examples/bfs.rs"]
mod bfs;
#[allow(dead_code, reason = "only the graphs of the examples are tested here")]
#[path = "../examples/common/mod.rs"]
mod examples;
#[allow(dead_code, reason = "its main is not run here")]
#[path = "../examples/pagerank.rs"]
mod pagerank;

use clap::Parser;
use examples::Random;
use examples::graph::{Graph, GraphError, UNREACHED};

fn parse(text: &str) -> Graph {
    Graph::parse(text.as_bytes(), false).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn refused(text: &str) -> String {
    Graph::parse(text.as_bytes(), false).expect_err(text).to_string()
}

#[test]
fn edge_lists_are_read_however_they_are_written() {
    let graph = Graph { offsets: vec![0, 2, 2, 3, 3], targets: vec![1, 3, 0] };
    assert_eq!(parse("0 1\n0 3\n2 0\n"), graph);
    // Comments, other separators, weights, no end of line; loops and what was there before are left out.
    assert_eq!(parse("# from to\n\n2,0 0.5\r\n0\t3 7\n% more\n1 1\n0 1\n0 3\n0 1"), graph);
    let both = Graph::parse("0 1\n0 3\n2 0\n".as_bytes(), true).expect("parse");
    assert_eq!(both, Graph { offsets: vec![0, 3, 4, 5, 6], targets: vec![1, 2, 3, 0, 0, 0] });
}

#[test]
fn matrices_are_read_as_graphs() {
    let head = "%%MatrixMarket matrix coordinate";
    let graph = Graph { offsets: vec![0, 1, 1, 2], targets: vec![1, 0] };
    assert_eq!(parse(&format!("{head} pattern general\n% c\n3 3 2\n1 2\n3 1\n")), graph);
    assert_eq!(parse(&format!("{head} real general\n3 3 2\n1 2 -1.5e3\n\n3 1 2\n")), graph);
    let symmetric = parse(&format!("{head} INTEGER Symmetric\n3 3 2\n2 1 5\n3 3 1\n"));
    assert_eq!(symmetric, Graph { offsets: vec![0, 1, 2, 2], targets: vec![1, 0] });
}

#[test]
fn what_is_no_graph_is_refused_with_its_line() {
    let vertices = "two vertices, each a whole number from 0 expected";
    assert_eq!(refused("0 1\n# fine\n1\n"), format!("line 3: \"1\" found, {vertices}"));
    assert_eq!(refused("0 1\n-1 2\n"), format!("line 2: \"-1 2\" found, {vertices}"));
    assert_eq!(refused("a graph"), format!("line 1: \"a graph\" found, {vertices}"));
    assert_eq!(refused("0 4294967296"), "line 1: \"0 4294967296\" found, vertices below 268435456 expected");
    assert_eq!(refused("# nothing\n"), "the file ends with line 1, at least one edge expected");
    assert_eq!(refused(""), "the file ends with line 0, at least one edge expected");

    let head = "%%MatrixMarket matrix coordinate pattern general\n";
    assert!(refused("%%MatrixMarket matrix array real general\n2 2\n").starts_with("line 1: "));
    assert!(refused("%%MatrixMarket matrix coordinate complex hermitian\n").starts_with("line 1: "));
    assert_eq!(refused(head), "the file ends with line 1, a line with rows, columns and entries expected");
    assert_eq!(refused(&format!("{head}2 2\n")), "line 2: \"2 2\" found, rows, columns and entries expected");
    assert_eq!(
        refused(&format!("{head}2 3 1\n1 1\n")),
        "line 2: \"2 3 1\" found, as many rows as columns, 1 to 268435456 expected"
    );
    assert_eq!(
        refused(&format!("{head}2 2 2\n1 2\n")),
        "the file ends with line 3, 2 entries (1 found) expected"
    );
    let each = "row and column, each from 1 to 2 expected";
    assert_eq!(refused(&format!("{head}2 2 1\n0 1\n")), format!("line 3: \"0 1\" found, {each}"));
    assert_eq!(refused(&format!("{head}2 2 1\n1 3\n")), format!("line 3: \"1 3\" found, {each}"));
    assert_eq!(
        refused(&format!("{head}2 2 1\n1 2\n2 1\n")),
        "line 4: \"2 1\" found, nothing behind 1 entries expected"
    );
}

#[test]
fn files_are_named_by_the_error_of_the_system() {
    let missing = Graph::read(std::path::Path::new("no such file"), false).expect_err("no file");
    assert!(matches!(missing, GraphError::Io(_)), "{missing}");
}

#[test]
fn the_same_seed_grows_the_same_graph_and_few_vertices_have_most_edges() {
    let mut told = 0;
    let graph = Graph::kronecker(12, 16, 7, |n| told = n.max(told)).expect("kronecker");
    assert_eq!(graph, Graph::kronecker(12, 16, 7, |_| ()).expect("kronecker"));
    assert_ne!(graph, Graph::kronecker(12, 16, 8, |_| ()).expect("kronecker"));
    assert_eq!(graph.vertices(), 4096);
    // Each edge goes both ways, no loops, each once and in order.
    assert_eq!(graph, graph.transposed());
    for v in 0..graph.vertices() {
        let targets = graph.targets_of(v);
        assert!(targets.windows(2).all(|pair| pair[0] < pair[1]) && !targets.contains(&(v as u32)));
    }
    let mut degrees: Vec<usize> = (0..graph.vertices()).map(|v| graph.targets_of(v).len()).collect();
    degrees.sort_unstable();
    let most: usize = degrees[4096 - 41..].iter().sum();
    assert!(10 * most > graph.edges(), "a hundredth of the vertices has {most} of {}", graph.edges());
    assert_eq!(graph.targets_of(graph.hub()).len(), degrees[4095]);
    assert!(matches!(Graph::kronecker(28, 64, 1, |_| ()), Err(GraphError::TooManyEdges(_))));
}

/// Edges at random among few vertices, and a table of them.
fn random_graph(random: &mut Random, vertices: usize) -> (Graph, Vec<bool>) {
    let mut table = vec![false; vertices * vertices];
    let edges: Vec<(u32, u32)> = (0..random.below(4 * vertices))
        .map(|_| (random.below(vertices) as u32, random.below(vertices) as u32))
        .collect();
    edges
        .iter()
        .filter(|(a, b)| a != b)
        .for_each(|(a, b)| table[*a as usize * vertices + *b as usize] = true);
    (Graph::new(vertices, &edges).expect("few edges"), table)
}

#[test]
fn rows_transposition_and_levels_agree_with_a_table_of_edges() {
    let mut random = Random::new(3);
    for _ in 0..50 {
        let n = 1 + random.below(30);
        let (graph, table) = random_graph(&mut random, n);
        let turned = graph.transposed();
        for (a, b) in (0..n).flat_map(|a| (0..n).map(move |b| (a, b))) {
            assert_eq!(graph.targets_of(a).contains(&(b as u32)), table[a * n + b]);
            assert_eq!(turned.targets_of(b).contains(&(a as u32)), table[a * n + b]);
        }
        assert_eq!(turned.transposed(), graph);
        // The table multiplied by itself until nothing new is reached.
        let root = random.below(n);
        let mut want = vec![UNREACHED; n];
        want[root] = 0;
        for level in 0..n as u32 {
            for (a, b) in (0..n).flat_map(|a| (0..n).map(move |b| (a, b))) {
                if want[a] == level && table[a * n + b] && want[b] == UNREACHED {
                    want[b] = level + 1;
                }
            }
        }
        assert_eq!(graph.levels(root), want);
    }
}

#[test]
fn ranks_are_those_of_a_graph_worked_out_by_hand() {
    // Two vertices that point to a third, which points to nobody.
    let ranks = parse("0 2\n1 2\n").ranks(0.5, 1);
    let all = (0.5 + 0.5 / 3.0) / 3.0;
    let want = [all, all, all + 0.5 * 2.0 / 3.0];
    assert!(ranks.iter().zip(want).all(|(have, want)| (have - want).abs() < 1e-12), "{ranks:?}");
    // A ring leaves all ranks equal; and ranks add up to one whatever the graph.
    assert!(parse("0 1\n1 2\n2 0\n").ranks(0.85, 30).iter().all(|rank| (rank - 1.0 / 3.0).abs() < 1e-12));
    let mut random = Random::new(5);
    let total: f64 = random_graph(&mut random, 25).0.ranks(0.85, 20).iter().sum();
    assert!((total - 1.0).abs() < 1e-12, "{total}");
}

#[test]
fn levels_of_a_graph_larger_than_the_devices_memory_are_those_of_the_cpu() {
    let options = bfs::Options::parse_from(["bfs", "--scale", "17", "--memory-limit", "6MiB"]);
    bfs::run(&options).expect("right levels");
}

#[test]
fn ranks_in_a_graph_larger_than_the_devices_memory_are_those_of_the_cpu() {
    let line = ["pagerank", "--scale", "17", "--steps", "2", "--memory-limit", "8MiB"];
    pagerank::run(&pagerank::Options::parse_from(line)).expect("right ranks");
}

#[test]
fn what_no_run_can_be_made_of_is_the_users_mistake() {
    let bfs = |line: &[&str]| bfs::run(&bfs::Options::parse_from(line)).expect_err("refused");
    let root = bfs(&["bfs", "--scale", "4", "--root", "16"]);
    assert!(
        format!("{root:?}").starts_with("Input(--root 16: vertices are numbered from 0 to 15"),
        "{root:?}"
    );
    let file = bfs(&["bfs", "--graph", "no such file"]);
    assert!(format!("{file:?}").starts_with("Input(no such file"), "{file:?}");
    let line = ["pagerank", "--scale", "4", "--damping", "1.5"];
    let damping = pagerank::run(&pagerank::Options::parse_from(line)).expect_err("refused");
    assert!(format!("{damping:?}").starts_with("Input(--damping 1.5"), "{damping:?}");
}
