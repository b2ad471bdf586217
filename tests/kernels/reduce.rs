//! dot, sum, max, arg_min.

use crate::rig::{Random, SIZES, managed, near, shape, with};
use vkhmm::{Runtime, kernels};

/// All four of `n` elements from element `from` on. The bits of the two sums.
fn all_four(rt: &Runtime, n: usize, from: usize) -> [u32; 2] {
    let mut random = Random(n as u64 + 5);
    let (a, b) = (random.vector(from + n), random.vector(from + n));
    let (x, y) = (managed(rt, &a), managed(rt, &b));
    let mut out = managed(rt, &[f32::NAN; 1030]);
    let mut index = managed(rt, &[7_u32; 3]);
    let part = || x.slice(from..);
    // Results at any element of what is larger.
    kernels::dot(rt, part().read(), y.slice(from..).read(), out.slice_mut(..1).overwrite()).expect("dot");
    kernels::sum(rt, part().read(), out.slice_mut(1..2).write()).expect("sum");
    kernels::max(rt, part().read(), out.slice_mut(1029..).overwrite()).expect("max");
    kernels::arg_min(rt, part().read(), index.slice_mut(1..2).overwrite()).expect("arg_min");
    let (a, b) = (&a[from..], &b[from..]);
    let wide = |v: f32| f64::from(v);
    let product = |i: usize| wide(a[i]) * wide(b[i]);
    // Folded in groups and trees, sums are off by far fewer roundings than there are elements.
    let allowed = |size: f64| 140.0 * f64::from(f32::EPSILON) * size;
    let sums = [
        ((0..n).map(product).sum(), allowed((0..n).map(|i| product(i).abs()).sum())),
        (a.iter().map(|v| wide(*v)).sum(), allowed(a.iter().map(|v| wide(v.abs())).sum())),
    ];
    near(&format!("dot and sum of {n}"), &out[..2], |i| sums[i]);
    assert_eq!(out[1029], a.iter().copied().fold(f32::NEG_INFINITY, f32::max), "max of {n}");
    let least = (0..n).min_by(|i, j| a[*i].total_cmp(&a[*j]));
    assert_eq!(index[..], [7, least.map_or(u32::MAX, |i| i as u32), 7], "arg_min of {n}");
    assert!(out[2..1029].iter().all(|v| v.is_nan()), "neighbours of the results");
    [out[0].to_bits(), out[1].to_bits()]
}

#[test]
fn any_size_from_any_element() {
    with(None, |rt| {
        for n in SIZES.into_iter().chain([4095, 4096, 4097, 70_001]) {
            all_four(rt, n, 0);
            all_four(rt, n, 3);
        }
    });
}

#[test]
fn larger_than_the_device_with_the_same_bits() {
    let n = (1 << 19) + 11;
    let (mut small, mut large) = ([0; 2], [0; 2]);
    with(Some(1 << 20), |rt| small = all_four(rt, n, 5));
    with(None, |rt| large = all_four(rt, n, 5));
    assert_eq!(small, large, "windows change no bit");
}

#[test]
fn three_passes() {
    // More than 4096 x 4096 elements, and more groups than one dimension has.
    with(None, |rt| {
        let n = 4096 * 4096 + 4097;
        let mut x = rt.alloc::<f32>(n).expect("memory");
        kernels::fill(rt, x.overwrite(), 0.25).expect("fill");
        x[n - 2] = -1.0;
        let (mut out, mut index) = (managed(rt, &[0.0_f32]), managed(rt, &[0_u32]));
        kernels::sum(rt, x.read(), out.overwrite()).expect("sum");
        kernels::arg_min(rt, x.read(), index.overwrite()).expect("arg_min");
        assert_eq!((f64::from(out[0]), index[0] as usize), (0.25 * (n - 1) as f64 - 1.0, n - 2));
    });
}

#[test]
fn ties_infinities_and_what_is_no_number() {
    with(None, |rt| {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let cases: [(&[f32], u32, f32); 6] = [
            (&[3.0, 1.0, 2.0, 1.0], 1, 3.0),
            (&[nan, 2.0, nan, 5.0], 1, 5.0),
            (&[nan, nan], u32::MAX, -inf),
            (&[inf, inf], 0, inf),
            (&[0.0, -inf, nan, -inf], 1, 0.0),
            (&[], u32::MAX, -inf),
        ];
        for (elements, least, largest) in cases {
            // Far apart, so that ties are settled between invocations, and between groups.
            for apart in [1, 65, 5000] {
                let mut spread = vec![nan; elements.len() * apart];
                elements.iter().enumerate().for_each(|(i, v)| spread[i * apart] = *v);
                let x = managed(rt, &spread);
                let (mut out, mut index) = (managed(rt, &[0.0_f32]), managed(rt, &[0_u32]));
                kernels::max(rt, x.read(), out.overwrite()).expect("max");
                kernels::arg_min(rt, x.read(), index.overwrite()).expect("arg_min");
                let wanted = if least == u32::MAX { least } else { least * apart as u32 };
                assert_eq!((index[0], out[0]), (wanted, largest), "{elements:?}, {apart} apart");
            }
        }
    });
}

#[test]
fn refusals_name_the_result() {
    with(None, |rt| {
        let (x, mut out) = (managed(rt, &[1.0_f32; 8]), managed(rt, &[2.0_f32; 8]));
        let text = shape(kernels::sum(rt, x.read(), out.write()));
        assert_eq!(text, "sum: out is 8 elements: the result is one: pass a slice of one element");
        let text = shape(kernels::dot(rt, x.read(), x.slice(1..).read(), out.slice_mut(..1).write()));
        assert!(text.starts_with("dot: y is 7 elements"), "{text}");
        shape(kernels::max(rt, x.read(), out.read()));
        assert!(out.iter().all(|v| *v == 2.0), "a refused call changed something");
    });
}
