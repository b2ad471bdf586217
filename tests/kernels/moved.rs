//! How many bytes kernels move where their arrays do not fit the device; and what is longer than a binding.

use crate::common::since;
use crate::rig::{Random, managed, with};
use vkhmm::kernels::{self, Mat};
use vkhmm::{Managed, Runtime};

const MIB: u64 = 1 << 20;

/// An array whose elements are on the host.
fn born(rt: &Runtime, count: usize) -> Managed<f32> {
    managed(rt, &Random(count as u64).vector(count))
}

/// Bytes to and from the device while `work` runs and its result is read.
fn moved(rt: &Runtime, work: impl FnOnce()) -> (u64, u64) {
    let before = rt.stats();
    work();
    rt.sync().expect("sync");
    let moved = since(rt, &before);
    (moved.in_bytes(), moved.out_bytes())
}

/// Reads one element of each page.
fn read(x: &Managed<f32>) {
    assert!(x.iter().step_by(1024).all(|x| x.is_finite()));
}

#[test]
fn streams_move_what_they_need() {
    with(Some(MIB), |rt| {
        let n = MIB as usize;
        let (x, mut y) = (born(rt, n), born(rt, n));
        let axpy = moved(rt, || {
            kernels::axpy(rt, 2.0, x.read(), y.write()).expect("axpy");
            read(&y);
        });
        assert_eq!(axpy, (8 * MIB, 4 * MIB), "axpy");
        let copy = moved(rt, || {
            // Also what is given for writing comes in only if it is read.
            kernels::copy(rt, x.read(), y.write()).expect("copy");
            read(&y);
        });
        assert_eq!(copy, (4 * MIB, 4 * MIB), "copy");
    });
}

#[test]
fn products_move_little_more_than_they_must() {
    // Three matrices of 4 MiB with 3 MiB: a quarter. One row window of them all would bring b in ten times.
    with(Some(3 * MIB), |rt| {
        let n = 1024;
        let (a, b, mut c) = (born(rt, n * n), born(rt, n * n), rt.alloc::<f32>(n * n).expect("memory"));
        let whole = |x: &Managed<f32>| x.count() as u64 * 4;
        let (bytes_in, bytes_out) = moved(rt, || {
            let (a, b) = (Mat::new(a.read(), n, n), Mat::new(b.read(), n, n));
            kernels::gemm(rt, 1.0, a, b, 0.0, Mat::new(c.write(), n, n)).expect("gemm");
            read(&c);
        });
        println!("gemm: {bytes_in} in, {bytes_out} out");
        assert_eq!(bytes_out, whole(&c), "c comes home once");
        assert!(bytes_in <= whole(&a) + 5 * whole(&b), "{bytes_in} bytes in");
    });
}

#[test]
fn what_is_small_stays() {
    // All of b fits, so a and c stream past it.
    with(Some(2 * MIB), |rt| {
        let (m, n, k) = (8192, 64, 256);
        let (a, b, mut c) = (born(rt, m * k), born(rt, k * n), rt.alloc::<f32>(m * n).expect("memory"));
        let (bytes_in, bytes_out) = moved(rt, || {
            let (a, b) = (Mat::new(a.read(), m, k), Mat::new(b.read(), k, n));
            kernels::gemm(rt, 1.0, a, b, 0.0, Mat::new(c.overwrite(), m, n)).expect("gemm");
            read(&c);
        });
        assert_eq!((bytes_in, bytes_out), (8 * MIB + 64 * 1024, 2 * MIB));
    });
}

#[test]
fn longer_than_a_binding() {
    // Every device binds 128 MiB; lavapipe no more.
    with(None, |rt| {
        let (m, n, k) = (33_001, 4, 1024);
        let (mut a, b) = (rt.alloc::<f32>(m * k).expect("memory"), managed(rt, &[1.0_f32; 4096]));
        let mut c = rt.alloc::<f32>(m * n).expect("memory");
        kernels::fill(rt, a.overwrite(), 0.5).expect("fill");
        a[m * k - 1] = 1.5;
        let (left, right) = (Mat::new(a.read(), m, k), Mat::new(b.read(), k, n));
        kernels::gemm(rt, 1.0, left, right, 0.0, Mat::new(c.overwrite(), m, n)).expect("gemm");
        assert!(c[..(m - 1) * n].iter().all(|c| *c == 512.0));
        assert_eq!(c[(m - 1) * n..], [513.0; 4]);
    });
}
