//! What `matmul` says of a product: progress, a report for people, one object for machines.

use super::amount;
use super::blocked::Plan;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;
use vkhmm::{Placement, Stats};

/// Elements of C that are compared with the CPU.
pub(crate) const SAMPLE: usize = 64;

/// On stderr, and hidden where that is no terminal.
pub(crate) fn progress_bar(launches: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos}/{len} launches, {eta} left");
    let bar = ProgressBar::new(launches as u64);
    bar.enable_steady_tick(Duration::from_millis(200));
    if let Ok(style) = style { bar.with_style(style) } else { bar }
}

fn gflops(plan: &Plan, time: Duration) -> f64 {
    let (m, n, k) = plan.shape();
    2.0 * m as f64 * n as f64 * k as f64 / time.as_secs_f64().max(1e-9) / 1e9
}

/// For people.
pub(crate) fn report(
    plan: &Plan,
    rt: &vkhmm::Runtime,
    placement: &Placement,
    time: Duration,
    moved: &Stats,
    error: f64,
) -> String {
    let (m, n, k) = plan.shape();
    let (device, software) = super::device(rt);
    let note = if software { " (a software device: its times say little)" } else { "" };
    let (footprint, limit) = (amount(plan.footprint()), amount(rt.device_memory().0));
    let (down, across, pieces) = (plan.c.down(), plan.c.across(), plan.a.across());
    let tile = plan.c.tile(0, 0);
    let (planned_in, planned_out) = plan.planned();
    let (bytes_in, bytes_out) = (moved.in_bytes(), moved.out_bytes());
    let bound = plan.lower_bound();
    let times = (bytes_in + bytes_out) as f64 / bound.max(1) as f64;
    let lines = [
        format!("product    {m} x {k} times {k} x {n}: {footprint} of matrices, {limit} of device memory"),
        format!("device     {device}{note}"),
        format!(
            "plan       C cut {down} x {across} (tiles of {} x {}), k cut {pieces}",
            tile.rows, tile.columns
        ),
        format!("time       {:.2} s, {:.2} GFLOP/s", time.as_secs_f64(), gflops(plan, time)),
        format!("moved in   {} of {} planned", amount(bytes_in), amount(planned_in)),
        format!("moved out  {} of {} planned", amount(bytes_out), amount(planned_out)),
        format!("bound      no order moves less than {}: this is {times:.2} times that", amount(bound)),
        format!(
            "evictions  {} clean, {} dirty; {} binds of {}",
            moved.evictions_clean,
            moved.evictions_dirty,
            moved.binds,
            amount(moved.bound_bytes)
        ),
        format!("placed     {placement}"),
        format!("check      {SAMPLE} elements against the CPU in f64: {error:.4} of what f32 may be off"),
    ];
    lines.join("\n")
}

/// For machines: one JSON object with every counter.
pub(crate) fn json(plan: &Plan, time: Duration, moved: &Stats, error: f64) -> String {
    let (m, n, k) = plan.shape();
    format!(
        "{{\"m\":{m},\"n\":{n},\"k\":{k},\"launches\":{},\"seconds\":{:.6},\"gflops\":{:.4},\"in_bytes\":{},\"out_bytes\":{},\
         \"lower_bound_bytes\":{},\"footprint_bytes\":{},\"evictions\":{},\"checked\":{SAMPLE},\"error_of_allowed\":{},\"stats\":{}}}",
        plan.launches(),
        time.as_secs_f64(),
        gflops(plan, time),
        moved.in_bytes(),
        moved.out_bytes(),
        plan.lower_bound(),
        plan.footprint(),
        moved.evictions_clean + moved.evictions_dirty,
        if error.is_finite() { format!("{error:.6}") } else { "null".into() },
        moved.to_json(),
    )
}
