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
    // Three matrices of 2.25 MiB with a quarter of that: a window of rows of each, and b would come in twenty times.
    with(Some(27 * MIB / 16), |rt| {
        let n = 768;
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

#[test]
fn rows_a_binding_apart() {
    // From the first to the second row of b are more than the 128 MiB that lavapipe binds.
    with(None, |rt| {
        let stride = 33 * MIB as usize;
        let (a, mut b) = (managed(rt, &[2.0_f32, 3.0]), rt.alloc::<f32>(stride + 4).expect("memory"));
        let mut c = rt.alloc::<f32>(4).expect("memory");
        b[..4].fill(0.5);
        b[stride..].fill(4.0);
        let (left, right) = (Mat::new(a.read(), 1, 2), Mat::new(b.read(), 2, 4).stride(stride));
        kernels::gemm(rt, 1.0, left, right, 0.0, Mat::new(c.overwrite(), 1, 4)).expect("gemm");
        assert_eq!(c[..], [13.0; 4]);
    });
}
