//! `./x demo`: two programs larger than the device memory they are given, on real input, with what moved; fails if an answer or a
//! count is wrong.

#[allow(dead_code, reason = "each example uses its part of what they share")]
mod common;

use common::blocked::Plan;
use common::{Failure, Random, amount, neighbours, npy};
use std::io::Cursor;
use std::process::ExitCode;
use std::time::Instant;
use vkhmm::Stats;

const DIGITS: &[u8] = include_bytes!("data/digits.npy");
const LABELS: &[u8] = include_bytes!("data/digits-labels.npy");
/// What leave-one-out says of these digits, whoever computes it.
const DIGITS_RIGHT: usize = 1776;
const DIGITS_LIMIT: u64 = 8 << 20;
const SIDE: usize = 2048;
const PRODUCT_LIMIT: u64 = 16 << 20;
/// Elements of the product that are compared with the CPU.
const SAMPLE: usize = 256;

fn main() -> ExitCode {
    let start = Instant::now();
    let all = || {
        digits()?;
        product()?;
        common::print(&format!("all answers right, {:.1} s", start.elapsed().as_secs_f64()))
    };
    common::exit("demo", all())
}

/// Which handwritten digit is it? 1797 pictures of 64 points, each compared with all others.
fn digits() -> Result<(), Failure> {
    let pictures = npy::check(Cursor::new(DIGITS))?;
    let (_, columns) = npy::rows_and_columns(pictures.header())?;
    let (data, labels) = (npy::numbers(pictures)?, npy::keys(npy::check(Cursor::new(LABELS))?)?);
    let rt = common::runtime(DIGITS_LIMIT)?;
    let (device, software) = common::device(&rt);
    let note = if software { ", a software device: bytes count here, times do not" } else { "" };
    common::print(&format!("device: {device}{note}\n"))?;
    let start = Instant::now();
    let answer = neighbours::leave_one_out(&rt, &data, columns, &labels)?;
    let (seconds, moved) = (start.elapsed().as_secs_f64(), rt.stats());
    let (right, rows, panels) = (answer.right, answer.rows, answer.panels);
    let (limit, gram) = (amount(DIGITS_LIMIT), amount(answer.bytes.1));
    let lines = [
        "1. Handwritten digits: each one's nearest neighbour".into(),
        format!("   {right} of {rows} right ({DIGITS_RIGHT} expected), {seconds:.2} s"),
        format!(
            "   a Gram matrix of {gram} with {limit} of device memory: {panels} launches fill it, the CPU"
        ),
        "   reads it as a slice".into(),
        counters(&moved),
    ];
    common::print(&lines.join("\n"))?;
    expect(right == DIGITS_RIGHT, || format!("{right} right, {DIGITS_RIGHT} expected"))?;
    if !answer.moved {
        return nothing(&moved);
    }
    at_least("bytes to the device", moved.in_bytes(), answer.bytes.0)?;
    at_least("bytes home", moved.out_bytes(), answer.bytes.1)
}

/// A product of two matrices, each as large as the memory for all three.
fn product() -> Result<(), Failure> {
    let Some(plan) = Plan::new(SIDE, SIDE, SIDE, PRODUCT_LIMIT) else {
        return Err(anyhow::anyhow!("no tiles fit the limit").into());
    };
    let rt = common::runtime(PRODUCT_LIMIT)?;
    let mut random = Random::new(2048);
    let mut a = rt.alloc_named::<f32>(plan.a.len(), "A")?;
    let mut b = rt.alloc_named::<f32>(plan.b.len(), "B")?;
    let mut c = rt.alloc_named::<f32>(plan.c.len(), "C")?;
    plan.a.fill(&mut a, std::iter::repeat_with(|| Ok(random.unit())))?;
    plan.b.fill(&mut b, std::iter::repeat_with(|| Ok(random.unit())))?;
    let (before, start) = (rt.stats(), Instant::now());
    plan.run(&rt, (&a, &b), &mut c, |_| ())?;
    let seconds = start.elapsed().as_secs_f64();
    let error = plan.check((&a, &b, &c), SAMPLE, &mut random);
    let sum: f64 = plan.c.iter(&c).map(f64::from).sum();
    let moved = rt.stats().since(&before);
    let (footprint, bound) = (plan.footprint(), plan.lower_bound());
    let both = moved.in_bytes() + moved.out_bytes();
    let (gflops, times) = (2.0 * (SIDE as f64).powi(3) / seconds / 1e9, both as f64 / bound as f64);
    let (matrices, limit, least) = (amount(footprint), amount(PRODUCT_LIMIT), amount(bound));
    let lines = [
        format!("2. {SIDE} x {SIDE} matrix product"),
        format!(
            "   {SAMPLE} elements against the CPU in f64: {error:.4} of what f32 may be off; sum {sum:.1}"
        ),
        format!("   {seconds:.2} s, {gflops:.1} GFLOP/s, {} launches", plan.launches()),
        format!("   {matrices} of matrices with {limit} of device memory: {} moved both ways,", amount(both)),
        format!("   {times:.2} times the {least} that no order of the products can save"),
        counters(&moved),
    ];
    common::print(&lines.join("\n"))?;
    expect(error <= 1.0, || format!("the product is wrong: off by {error:.1} times what f32 may be off"))?;
    if common::in_place(&c) {
        return nothing(&moved);
    }
    at_least("bytes to the device", moved.in_bytes(), footprint - PRODUCT_LIMIT)?;
    at_least("bytes home", moved.out_bytes(), 4 * (SIDE * SIDE) as u64)
}

/// What moved meanwhile, indented.
fn counters(moved: &Stats) -> String {
    moved.to_string().lines().map(|line| format!("     {line}\n")).collect()
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::Other(anyhow::Error::msg(otherwise()))) }
}

/// Kernels worked on the host's own bytes.
fn nothing(moved: &Stats) -> Result<(), Failure> {
    let bytes = moved.in_bytes() + moved.out_bytes();
    expect(bytes == 0, || format!("{bytes} bytes moved of what is used in place"))
}

/// The runtime did not cheat: so many bytes must have moved.
fn at_least(what: &str, have: u64, need: u64) -> Result<(), Failure> {
    expect(have >= need, || format!("{have} {what}, and no run can do with less than {need}"))
}
