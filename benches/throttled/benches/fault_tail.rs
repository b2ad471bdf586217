//! The tail of CPU faults under a running kernel: `cargo bench -p vkhmm-throttled --bench fault_tail`.
//!
//! Each round touches device-resident pages far apart, one word each, while nothing runs, and then others while a kernel of 100 ms
//! runs on other data; a touch is timed from the load to its value. Class L, behind the link that is named: the touch is real, its
//! copy waits for the modelled link, and the kernel is time alone, so the two cores are free for what is measured.

use anyhow::{Result, ensure};
use clap::Parser;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use vkhmm_bench::{
    Baseline, Class, Column, Figure, Gate, Goal, Options, Report, Row, Sample, Table, ratios, rounds,
};
use vkhmm_core::pagemap::Location;
use vkhmm_engine::{AccessKind, OpStatus};
use vkhmm_port::Direction;
use vkhmm_throttled::{Array, Cost, Link, Operation, Rig, ThrottledKernel};

/// What this bench measures.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    common: Options,
    /// Which Vulkan device: a part of its name, or its number
    #[arg(long)]
    device: Option<String>,
}

/// A workstation card in a PCIe 4 slot: the model's `pcie4x16-a5000`, its submission and its edge as one latency.
const LINK: Link = Link {
    name: "pcie4x16-a5000",
    inward: 25e9,
    outward: 25e9,
    duplex: true,
    latency: Duration::from_micros(9),
    flops: 27.8e12,
    device_bytes: 640e9,
};
const KERNEL: Duration = Duration::from_millis(100);
/// Touches of one round, each way; far fewer than fit beside a kernel.
const TOUCHES: u64 = 128;
/// How far apart.
const STRIDE: u64 = 512 << 10;
const FRAME: u64 = 64 << 10;
const WARM_UP: usize = 2;

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let mut report = Report::new("fault_tail", cli.common);
    let config = vkhmm_vulkan::Config { device: cli.device, ..Default::default() };
    let rig = Rig::open(config, LINK, vkhmm_throttled::Options::default(), 512 << 20)
        .map_err(anyhow::Error::from_boxed)?;
    let bench = Bench::new(&rig)?;
    report.note(format!(
        "{}; touches {} KiB apart",
        vkhmm_port::Device::profile(&**rig.device()).name,
        STRIDE >> 10
    ));
    let runs = report.options().runs();
    let [idle50, idle99, busy50, busy99, missed] = rounds(runs, WARM_UP, |_| bench.round())?;
    let mut table = Table::new("fault_tail", "CPU faults on device-resident data, 4 KiB touched", Class::L);
    let bound = table.column(Column::baseline(Baseline::LowerBound, "us").named("the link alone"));
    let median = table.column(Column::ours("p50", "us"));
    let tail = table.column(Column::ours("p99", "us"));
    table.without_others("a touch has no explicit form");
    let link = (LINK.latency + LINK.transfer(Direction::Out, FRAME)).as_secs_f64() * 1e6;
    for (name, p50, p99) in [("idle", &idle50, &idle99), ("under a 100 ms kernel", &busy50, &busy99)] {
        let figure = |runs: &[f64]| Figure::of(&Sample::of(runs)).scaled(1e6);
        let row = Row::named(name).with(bound, Figure::exact(link));
        table.row(row.with(median, figure(p50)).with(tail, figure(p99)));
    }
    report.table(table);
    let ratio = ratios(&busy99, &idle99).median();
    report.gate(Gate::new("p99 under a kernel / p99 idle", Class::L, Goal::AtMost(2.0), ratio));
    let missed = missed.iter().sum();
    report.gate(Gate::new("touches that outlasted the kernel", Class::L, Goal::AtMost(0.0), missed));
    Ok(report.finish()?)
}

struct Bench<'a> {
    rig: &'a Rig,
    /// What is touched, half of it each way.
    data: Array,
    /// What the kernel works on.
    other: Array,
    short: std::sync::Arc<ThrottledKernel>,
    long: std::sync::Arc<ThrottledKernel>,
}

impl<'a> Bench<'a> {
    fn new(rig: &'a Rig) -> Result<Self> {
        let takes = |time: Duration| {
            ThrottledKernel::timed(Cost { flop: time.as_secs_f64() * LINK.flops, bytes: 0.0 })
        };
        let data = rig.alloc(2 * TOUCHES * STRIDE, "data")?;
        rig.touch_all(&data, 1);
        let other = rig.alloc(4 << 20, "other")?;
        rig.touch_all(&other, 1);
        Ok(Self { rig, data, other, short: takes(Duration::ZERO).into(), long: takes(KERNEL).into() })
    }

    fn launch(&self, kernel: &std::sync::Arc<ThrottledKernel>, array: &Array) -> Result<Operation> {
        Ok(self.rig.launch(kernel, &[], &[(array, 0..array.bytes(), AccessKind::Write)])?)
    }

    /// p50 and p99 of touches in seconds, idle and under a kernel; and how many of the latter ended after it.
    fn round(&self) -> Result<[f64; 5]> {
        self.rig.wait(&self.launch(&self.short, &self.data)?)?;
        let ([idle50, idle99], _) = self.touches(0, None)?;
        let running = self.launch(&self.long, &self.other)?;
        // Submitted, and begun.
        self.rig.engine().wait(&running, Some(KERNEL / 50))?;
        let ([busy50, busy99], missed) = self.touches(TOUCHES, Some(&running))?;
        self.rig.wait(&running)?;
        Ok([idle50, idle99, busy50, busy99, missed])
    }

    fn touches(&self, first: u64, under: Option<&Operation>) -> Result<([f64; 2], f64)> {
        let (mut times, mut missed) = (Vec::new(), 0.0);
        for n in 0..TOUCHES {
            // Never the neighbour of the one before: nobody is to guess it.
            let at = (first + n * 37 % TOUCHES) * STRIDE;
            if self.rig.engine().page_flags(&self.data, at).location() != Location::Device {
                continue;
            }
            let start = Instant::now();
            let word = self.rig.load(&self.data, at);
            times.push(start.elapsed().as_secs_f64());
            ensure!(word == 1_u32.wrapping_add(at as u32), "word {word:#x} at {at:#x}");
            missed += f64::from(u8::from(under.is_some_and(|op| op.status() == OpStatus::Done)));
        }
        ensure!(times.len() as u64 > TOUCHES / 2, "{} of {TOUCHES} pages were away", times.len());
        let sample = Sample::of(&times);
        Ok(([sample.quantile(0.5), sample.quantile(0.99)], missed))
    }
}
