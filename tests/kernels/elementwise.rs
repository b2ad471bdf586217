//! fill, copy, axpy, scale.

use crate::rig::{Random, SIZES, managed, shape, with};
use vkhmm::{Runtime, kernels};

/// All four on `n` elements that begin at element `from` of their allocations.
fn all_four(rt: &Runtime, n: usize, from: usize) {
    let mut random = Random(n as u64);
    let (a, b) = (random.vector(from + n + 3), random.vector(from + n + 3));
    let (x, mut y) = (managed(rt, &a), managed(rt, &b));
    let part = from..from + n;
    kernels::axpy(rt, 0.5, x.slice(part.clone()).read(), y.slice_mut(part.clone()).write()).expect("axpy");
    kernels::scale(rt, -2.0, y.slice_mut(part.clone()).write()).expect("scale");
    let mut copy = managed(rt, &b);
    kernels::copy(rt, y.slice(part.clone()).read(), copy.slice_mut(part.clone()).overwrite()).expect("copy");
    kernels::fill(rt, y.slice_mut(part.clone()).overwrite(), 7.5).expect("fill");
    let want = |i: usize| if part.contains(&i) { -2.0 * (0.5 * a[i] + b[i]) } else { b[i] };
    for i in 0..copy.len() {
        assert!((copy[i] - want(i)).abs() <= 1e-6, "{n} from {from}: {i} is {}, {} wanted", copy[i], want(i));
        assert_eq!(y[i], if part.contains(&i) { 7.5 } else { b[i] }, "{n} from {from}: {i}");
    }
}

#[test]
fn any_size_from_any_element() {
    with(None, |rt| {
        SIZES.iter().for_each(|n| [0, 1, 3, 1021].iter().for_each(|from| all_four(rt, *n, *from)))
    });
}

#[test]
fn larger_than_the_device() {
    // 3 arrays of 2 MiB with 1 MiB.
    with(Some(1 << 20), |rt| all_four(rt, (1 << 19) - 7, 5));
}

#[test]
fn more_groups_than_one_dimension_has() {
    // 65,535 groups of 64.
    with(None, |rt| {
        let n = 65_535 * 64 + 65;
        let mut x = rt.alloc::<f32>(n).expect("memory");
        kernels::fill(rt, x.overwrite(), 1.0).expect("fill");
        kernels::scale(rt, 3.0, x.write()).expect("scale");
        assert!(x.iter().all(|x| *x == 3.0));
    });
}

#[test]
fn bits_are_copied() {
    with(None, |rt| {
        // Quiet and signalling NaN, a denormal, minus zero.
        let bits = [0x7fc0_0001, 0x7f80_0001, 0x0000_0001, 0x8000_0000];
        let (x, mut y) = (managed(rt, &bits), rt.alloc::<u32>(4).expect("memory"));
        kernels::copy(rt, x.read(), y.overwrite()).expect("copy");
        assert_eq!(y[..], bits);
    });
}

#[test]
fn refusals_say_what_was_wrong() {
    with(None, |rt| {
        let (x, mut y) = (managed(rt, &[1.0f32; 8]), managed(rt, &[2.0f32; 8]));
        let text = shape(kernels::axpy(rt, 1.0, x.slice(..5).read(), y.write()));
        assert_eq!(text, "axpy: y is 8 elements: as many are needed as x has, 5: pass slices of one length");
        let text = shape(kernels::scale(rt, 1.0, x.read()));
        assert_eq!(text, "scale: x is given for reading: it is written: pass write() or overwrite()");
        let text = shape(kernels::scale(rt, 1.0, y.overwrite()));
        assert!(text.contains("given for overwriting: it is read"), "{text}");
        let bytes = managed(rt, &[0_u8; 64]);
        let text = shape(kernels::copy(rt, bytes.slice(2..34).read(), y.write()));
        assert!(
            text.starts_with("copy: from is bytes 2..34 of its allocation: whole 32-bit elements"),
            "{text}"
        );
        assert!(y.iter().all(|y| *y == 2.0), "a refused call changed something");
    });
}
