//! Launches through the public interface against plain Vulkan: the call, the round trip, a hundred in a row.

use crate::raw::Raw;
use crate::{Row, quartiles};
use anyhow::{Result, ensure};
use std::time::Instant;
use vkhmm::{Grid, Kernel, Managed, Runtime};

const SCALE: &[u8] = include_bytes!("../../shaders/spv/scale.spv");
/// Floats that a launch works on: little, so that what is seen is the launch.
const ITEMS: usize = 1024;
const GROUPS: u32 = ITEMS as u32 / 64;
/// Launches under way at a time where nobody waits for each.
const BURST: usize = 20;
/// Launches in a row before a wait.
const ROW: usize = 100;

struct Rig {
    rt: Runtime,
    scale: Kernel,
    x: Managed<f32>,
    raw: Raw,
}

impl Rig {
    fn new(in_place_bytes: u64) -> Result<Self> {
        let rt = Runtime::builder()
            .device_memory_limit(64 << 20)
            .in_place_bytes(in_place_bytes)
            .strict_io(false)
            .build()?;
        // SAFETY: shipped with vkhmm: scales what it is given, and nothing else.
        let scale = unsafe { rt.kernel(SCALE)? };
        let mut x = rt.alloc::<f32>(ITEMS)?;
        x.fill(3.0);
        let raw = Raw::open(&device(&rt).0, ITEMS as u64 * 4, SCALE)?;
        let mut rig = Self { rt, scale, x, raw };
        for _ in 0..10 {
            rig.ours()?.wait()?;
            rig.raw.launch(GROUPS, 1, 1.0)?;
            rig.raw.wait()?;
        }
        Ok(rig)
    }

    fn ours(&mut self) -> Result<vkhmm::Launch> {
        Ok(self.rt.launch(&self.scale, Grid::groups(GROUPS, 1, 1), (self.x.write(), 1.0_f32))?)
    }

    /// Microseconds of calls that nobody waits for.
    fn pipelined(&mut self, pairs: usize) -> Result<[Vec<f64>; 2]> {
        let mut times = [Vec::new(), Vec::new()];
        while times[0].len() < pairs {
            for _ in 0..BURST {
                let start = Instant::now();
                let launch = self.ours()?;
                times[0].push(us(start));
                drop(launch);
                let start = Instant::now();
                self.raw.launch(GROUPS, 1, 1.0)?;
                times[1].push(us(start));
            }
            self.rt.sync()?;
            self.raw.wait()?;
        }
        Ok(times)
    }

    /// Microseconds from launch until it is known to be over.
    fn round_trips(&mut self, pairs: usize) -> Result<[Vec<f64>; 2]> {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..pairs {
            let start = Instant::now();
            self.ours()?.wait()?;
            times[0].push(us(start));
            let start = Instant::now();
            self.raw.launch(GROUPS, 1, 1.0)?;
            self.raw.wait()?;
            times[1].push(us(start));
        }
        Ok(times)
    }

    /// Microseconds of a hundred launches, each after the one before, and a wait; against one command buffer of as many.
    fn rows(&mut self, pairs: usize) -> Result<[Vec<f64>; 2]> {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..pairs {
            let start = Instant::now();
            let mut last = None;
            for _ in 0..ROW {
                last = Some(self.ours()?);
            }
            last.expect("a hundred launches").wait()?;
            times[0].push(us(start));
            let start = Instant::now();
            self.raw.launch(GROUPS, ROW, 1.0)?;
            self.raw.wait()?;
            times[1].push(us(start));
        }
        Ok(times)
    }
}

/// Name and class of the device.
fn device(rt: &Runtime) -> (String, char) {
    let report = &rt.doctor().device;
    let chosen = &report.candidates[report.chosen];
    (chosen.name.clone(), if chosen.kind == "software" { 'L' } else { 'D' })
}

fn us(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e6
}

/// Device, class and rows.
pub(crate) fn measure(pairs: usize) -> Result<(String, char, Vec<Row>)> {
    let mut rows = Vec::new();
    let mut said = None;
    for (in_place_bytes, place) in [(0, "resident"), (64 << 10, "in place")] {
        let mut rig = Rig::new(in_place_bytes)?;
        let [ours, raw] = rig.pipelined(pairs)?.map(quartiles);
        let more = ours[1] - raw[1];
        rows.push(
            Row::pair(&format!("call, pipelined, {place}"), ours, raw, "us").with("us more", more, 2.0),
        );
        let [ours, raw] = rig.round_trips(pairs)?.map(quartiles);
        let ratio = ours[1] / raw[1];
        rows.push(Row::pair(&format!("round trip, {place}"), ours, raw, "us").with("times", ratio, 1.05));
        let before = rig.rt.stats();
        let [ours, raw] = rig.rows(pairs.div_ceil(10))?.map(quartiles);
        let ratio = ours[1] / raw[1];
        rows.push(
            Row::pair(&format!("{ROW} in a row, then a wait, {place}"), ours, raw, "us")
                .with("times", ratio, 1.1),
        );
        let counted = rig.rt.stats().since(&before);
        ensure!(counted.in_bytes() == 0 && counted.out_bytes() == 0, "something moved: {counted}");
        ensure!(rig.x.iter().all(|v| *v == 3.0), "wrong bytes");
        said.get_or_insert(device(&rig.rt));
    }
    let (device, class) = said.expect("two rounds");
    Ok((device, class, rows))
}
