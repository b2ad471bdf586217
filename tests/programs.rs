//! The programs of `examples/` at small sizes: their answers, which each checks itself, and the bytes they move, over the least.
#![allow(clippy::duplicate_mod, reason = "each program brings along what it shares with the others")]

#[allow(dead_code, reason = "its main is not run here")]
#[path = "../examples/cg.rs"]
mod cg;
#[allow(dead_code, reason = "its main is not run here")]
#[path = "../examples/cholesky.rs"]
mod cholesky;
#[allow(dead_code, reason = "its main is not run here")]
#[path = "../examples/conv_pipeline.rs"]
mod conv_pipeline;
#[allow(dead_code, reason = "its main is not run here")]
#[path = "../examples/heat2d.rs"]
mod heat2d;
#[allow(dead_code, reason = "its main is not run here")]
#[path = "../examples/mlp.rs"]
mod mlp;

use clap::Parser;

/// Whether kernels work on the host's own bytes here, so that there is nothing to count.
fn in_place() -> bool {
    std::env::var("VKHMM_MEMORY_KIND").is_ok_and(|kind| kind == "unified-memory")
}

/// Fails unless `times` lies between the least and `most`.
fn near(what: &str, times: f64, most: f64) {
    println!("{what}: {times:.3} times the least");
    assert!(in_place() || (0.999..=most).contains(&times), "{what}: {times} times the least, {most} allowed");
}

#[test]
fn a_plate_cools_as_it_must_at_any_size() {
    let run = |options: &str| {
        let options = format!("heat2d {options}");
        let parsed = heat2d::Options::parse_from(options.split_whitespace());
        heat2d::run(&parsed).unwrap_or_else(|e| panic!("{options}: {e:?}"))
    };
    near("a plate in core", run("--side 512 --steps 24 --over 0.5"), 1.0);
    near("a plate 4 times larger", run("--side 1024 --steps 24 --over 4"), 1.6);
    // A last sweep that is shorter, and a last band that is; one step at a time; bands smaller than their halo.
    near("a plate of odd sizes", run("--side 448 --steps 13 --over 4"), 4.0);
    near("a plate without sweeps", run("--side 512 --steps 3 --sweep 1 --over 2"), 4.0);
    near("a plate of thin bands", run("--side 512 --steps 50 --sweep 40 --over 2"), 4.0);
}

#[test]
fn a_factor_moves_at_most_a_fifth_more_than_the_least() {
    let run = |options: &str| {
        let options = format!("cholesky {options}");
        let parsed = cholesky::Options::parse_from(options.split_whitespace());
        cholesky::run(&parsed).unwrap_or_else(|e| panic!("{options}: {e:?}"))
    };
    near("a factor, a quarter of the matrix on the device", run("--size 2048"), 1.2);
    near("a factor in core", run("--size 1024 --over 0.5"), 1.2);
    // Tiles that are not whole; one tile; many stages; a matrix smaller than its tile.
    near("a factor of odd size", run("--size 1300 --over 4 --seed 2"), 2.0);
    near("a factor in several stages", run("--size 1536 --over 10"), 3.0);
    run("--size 129 --memory-limit 1MiB");
    run("--size 100 --memory-limit 1MiB");
}

#[test]
fn what_has_no_factor_is_refused() {
    let path = std::env::temp_dir().join(format!("vkhmm-indefinite-{}.npy", std::process::id()));
    let matrix = |i: usize| if i / 200 == i % 200 { if i == 150 * 201 { -1.0 } else { 2.0 } } else { 0.0 };
    let target = cholesky::common::npy::Target::create(&path).expect("create");
    target.write(200, 200, (0..200 * 200).map(matrix)).expect("write");
    let name = path.display().to_string();
    let options = cholesky::Options::parse_from(["cholesky", &name, "--memory-limit", "1MiB"]);
    let refused = cholesky::run(&options).expect_err("no factor");
    std::fs::remove_file(&path).expect("remove");
    assert!(format!("{refused:?}").contains("not positive definite: L has no row 150"), "{refused:?}");
}

#[test]
fn conjugate_gradients_end_where_and_when_they_must() {
    let run = |options: &str| {
        let options = format!("cg {options}");
        let parsed = cg::Options::parse_from(options.split_whitespace());
        cg::run(&parsed).unwrap_or_else(|e| panic!("{options}: {e:?}"))
    };
    near("six steps, a quarter on the device", run("--side 24"), 1.6);
    near("six steps in core", run("--side 20 --over 0.5"), 1.3);
}

#[test]
fn matrices_are_read_or_refused_with_their_line() {
    use cg::common::sparse::Sparse;
    let head = "%%MatrixMarket matrix coordinate real symmetric\n";
    let read = |text: &str| Sparse::read(text.as_bytes());
    let matrix = read(&format!("{head}% a comment\n3 3 4\n1 1 2.5\n3 1 -1\n2 2 1e1\n3 3 4\n")).expect("read");
    let (starts, columns) = (vec![0, 2, 3, 5], vec![0, 2, 1, 0, 2]);
    assert_eq!(matrix, Sparse { starts, columns, values: vec![2.5, -1.0, 10.0, -1.0, 4.0] });
    assert_eq!(matrix.times(&[1.0, 2.0, 3.0]), [-0.5, 20.0, 11.0]);
    let refused = |text: &str| format!("{:#}", read(text).expect_err(text));
    assert!(refused("%%MatrixMarket matrix array real general\n").starts_with("line 1: "));
    assert!(refused(&format!("{head}3 2 1\n")).ends_with("a square matrix is needed"));
    assert!(refused(&format!("{head}2 2 1\n3 1 1.0\n")).starts_with("line 3: \"3 1 1.0\": rows and columns"));
    assert!(refused(&format!("{head}2 2 1\n1 1\n")).ends_with("a number expected"));
    assert!(refused(&format!("{head}2 2 1\n1 x 1\n")).ends_with("two whole numbers expected"));
    assert!(refused(head).starts_with("no line with rows"));
}

#[test]
fn a_picture_goes_through_its_pipeline() {
    let folder = std::env::temp_dir().join(format!("vkhmm-pictures-{}", std::process::id()));
    let name = folder.display().to_string();
    let run = |options: &[&str]| {
        let parsed = conv_pipeline::Options::parse_from(["conv_pipeline"].iter().chain(options));
        conv_pipeline::run(&parsed).unwrap_or_else(|e| panic!("{options:?}: {e:?}"))
    };
    let times = run(&["--width", "197", "--height", "131", "--memory-limit", "1MiB", "-o", &name]);
    near("pictures, in core", times, 2.0);
    near("pictures, 4 times larger", run(&["--width", "512", "--height", "400"]), 3.0);
    // What it wrote can be read again, and is what it says.
    use conv_pipeline::common::picture::Picture;
    let photo = Picture::read(&folder.join("photo.png")).expect("photo");
    assert_eq!(photo, conv_pipeline::common::scene::evening(197, 131));
    let pyramid = Picture::read(&folder.join("pyramid.png")).expect("pyramid");
    assert_eq!((pyramid.width, pyramid.height, pyramid.channels), (197 + 98, 131, 1));
    let edges = folder.join("edges.png").display().to_string();
    run(&[&edges, "--memory-limit", "1MiB"]);
    std::fs::remove_dir_all(&folder).expect("remove");
    let refused =
        conv_pipeline::run(&conv_pipeline::Options::parse_from(["conv_pipeline", "tests/programs.rs"]));
    assert!(format!("{refused:?}").contains("tests/programs.rs"), "{refused:?}");
}

#[test]
fn digits_are_learned_and_layers_streamed() {
    let options = "mlp --steps 100 --layers 8 --batches 2 --images 16";
    let times = mlp::run(&mlp::Options::parse_from(options.split(' '))).unwrap_or_else(|e| panic!("{e:?}"));
    near("a stack of layers, 4 times larger", times, 1.3);
}
