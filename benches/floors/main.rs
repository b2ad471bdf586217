//! The floors themselves, against the ratios measured when the fault engines were chosen: what a touch, a scan, an eviction and
//! several threads cost with raw system calls alone. Whoever doubts the other benches' floors begins here.
//!
//! Every ratio is of values measured in the same round. A ratio outside the earlier range by more than 30 % is explained.

use anyhow::Result;
use clap::Parser;
use std::process::ExitCode;
use vkhmm_bench::{
    Baseline, Class, Column, ColumnId, Figure, Gate, Goal, Options, Report, Row, Sample, Table, ratios,
    rounds, timed,
};
use vkhmm_floors::{Floor, Mechanism, Order, PAGE, Spin, anon_touches, cores, memfd_touches, ping_pong};

/// Measures page faults and migrations with raw system calls, and compares their ratios with earlier ones.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    common: Options,
}

const MECHANISMS: [(&str, Mechanism); 7] = [
    ("thread, same core", thread(1, Spin::Never, Some(0))),
    ("thread, other core", thread(1, Spin::Never, Some(1))),
    ("thread spins, other core", thread(1, Spin::Always, Some(1))),
    ("thread, unpinned", thread(1, Spin::Never, None)),
    ("two threads, 50 us spin", thread(2, Spin::Micros(50), None)),
    ("sigbus in-thread", Mechanism::Sigbus),
    ("mprotect in-thread", Mechanism::Segv),
];

const fn thread(handlers: usize, spin: Spin, core: Option<usize>) -> Mechanism {
    Mechanism::Thread { handlers, spin, core }
}

/// Earlier ratios: (what, from, to).
type Earlier = &'static [(&'static str, f64, f64)];

const EARLIER_LATENCY: Earlier = &[
    ("memfd, kernel alone", 0.5, 0.7),
    ("thread, same core", 5.0, 6.0),
    ("thread, other core", 38.0, 51.0),
    ("thread spins, other core", 12.0, 14.0),
    ("sigbus in-thread", 3.5, 3.7),
    ("mprotect in-thread", 3.5, 3.9),
];
const EARLIER_SCAN: Earlier = &[
    ("thread, same core 4 KiB", 0.044, 0.044),
    ("thread, same core 64 KiB", 0.37, 0.37),
    ("thread, same core 2 MiB", 0.54, 0.54),
    ("thread, other core 4 KiB", 0.006, 0.006),
    ("thread, other core 64 KiB", 0.07, 0.07),
    ("thread, other core 2 MiB", 0.48, 0.48),
    ("thread, unpinned 4 KiB", 0.007, 0.007),
    ("thread, unpinned 64 KiB", 0.09, 0.09),
    ("thread, unpinned 2 MiB", 0.42, 0.42),
    ("thread spins, other core 4 KiB", 0.022, 0.022),
    ("thread spins, other core 64 KiB", 0.15, 0.15),
    ("thread spins, other core 2 MiB", 0.49, 0.49),
    ("sigbus in-thread 4 KiB", 0.064, 0.064),
    ("sigbus in-thread 64 KiB", 0.41, 0.41),
    ("sigbus in-thread 2 MiB", 0.58, 0.58),
    ("mprotect in-thread 4 KiB", 0.061, 0.061),
    ("mprotect in-thread 64 KiB", 0.45, 0.45),
    ("mprotect in-thread 2 MiB", 0.69, 0.69),
];
const EARLIER_EVICTION: Earlier = &[
    ("zap: (revoke + copy) / copy", 1.27, 1.27),
    ("mprotect: (revoke + copy) / copy", 1.19, 1.19),
    ("zap: clean / copying", 0.27, 0.46),
    ("mprotect: clean / copying", 0.16, 0.30),
];
const EARLIER_THREADS: Earlier = &[
    ("two threads, 50 us spin 4 KiB x2", 1.9, 2.1),
    ("sigbus in-thread 4 KiB x2", 1.3, 1.8),
    ("sigbus in-thread 4 KiB x4", 1.6, 1.75),
    ("sigbus in-thread 4 KiB x8", 1.65, 1.75),
    ("sigbus in-thread 64 KiB x2", 1.04, 1.9),
    ("sigbus in-thread 64 KiB x4", 1.4, 1.7),
    ("mprotect in-thread 4 KiB x2", 1.6, 1.7),
    ("mprotect in-thread 4 KiB x4", 1.57, 1.64),
    ("mprotect in-thread 64 KiB x2", 1.0, 1.5),
    ("mprotect in-thread 64 KiB x4", 1.2, 1.4),
];
const EARLIER_TRIPS: Earlier = &[("other core / same core", 9.6, 11.0)];

/// How far outside the earlier range a ratio may lie before it needs a reason.
const OFF_MAX: f64 = 30.0;

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let mut bench = Bench {
        bytes: if cli.common.quick { 64 << 20 } else { 256 << 20 },
        faults: if cli.common.quick { 1000 } else { 4000 },
        runs: cli.common.runs(),
        report: Report::new("floors", cli.common),
        trips: f64::NAN,
        revoke_ns: f64::NAN,
        compared: 0,
        off: 0,
    };
    bench.report.note(format!(
        "Floors on {} cores: raw system calls, one memfd mapped twice, plain memory as the device. Earlier: 2-vCPU guest, 2026-11-22.",
        cores()
    ));
    bench.round_trips()?;
    bench.latency()?;
    bench.scan()?;
    bench.eviction()?;
    bench.threads()?;
    let (compared, off) = (bench.compared, bench.off);
    if compared > 0 {
        let name = "ratios within 30 % of the earlier ones, of those compared";
        let part = f64::from(compared - off) / f64::from(compared);
        bench.report.gate(Gate::new(name, Class::L, Goal::AtLeast(1.0), part));
    }
    Ok(bench.report.finish()?)
}

struct Bench {
    report: Report,
    bytes: usize,
    faults: usize,
    runs: usize,
    /// A round trip to the other core, in round trips on one core.
    trips: f64,
    /// Nanoseconds that taking a page away costs, in the way measured last.
    revoke_ns: f64,
    compared: u32,
    off: u32,
}

/// The columns in which a ratio is compared with earlier ones.
struct Compared {
    earlier: Earlier,
    ratio: ColumnId,
    from: ColumnId,
    to: ColumnId,
    off: ColumnId,
    notes: Vec<String>,
}

impl Compared {
    fn new(table: &mut Table, ratio: &str, earlier: Earlier) -> Self {
        Self {
            earlier,
            ratio: table.column(Column::ours(ratio, "")),
            from: table.column(Column::ours("earlier from", "")),
            to: table.column(Column::ours("to", "")),
            off: table.column(Column::ours("off by", "%")),
            notes: Vec::new(),
        }
    }

    /// Adds the ratio to a row, and how far it is off.
    fn put(&mut self, bench: &mut Bench, row: Row, name: &str, ratio: &Sample) -> Row {
        let row = row.with(self.ratio, Figure::of(ratio));
        let Some((_, from, to)) = self.earlier.iter().find(|(what, _, _)| *what == name) else { return row };
        let have = ratio.median();
        let off = ((from - have).max(have - to).max(0.0) / if have < *from { *from } else { *to }) * 100.0;
        bench.compared += 1;
        if off > OFF_MAX {
            bench.off += 1;
            self.notes.push(format!("off: {name}: {have:.3} against {from}–{to}. {}", bench.reason(name)));
        }
        row.with(self.from, Figure::exact(*from))
            .with(self.to, Figure::exact(*to))
            .with(self.off, Figure::exact(off.round()))
    }

    /// The rows are complete: prints the table, then what needs a reason.
    fn finish(self, bench: &mut Bench, mut table: Table, others: &str) {
        table.without_others(others);
        bench.report.table(table);
        self.notes.iter().for_each(|note| bench.report.note(note));
    }
}

impl Bench {
    fn wants(&self, name: &str) -> bool {
        self.report.options().wants(name)
    }

    /// Why a ratio can differ from the earlier machine's.
    fn reason(&self, name: &str) -> String {
        let trips = self.trips;
        if name.contains("unpinned") || name.contains("two threads") {
            format!(
                "The scheduler chooses the handlers' cores: another one while it idles, the faulter's own while it is busy, {trips:.1} \
                 times cheaper."
            )
        } else if name.contains("other core") {
            format!(
                "Waking the other core is the platform's: {trips:.1} times a wake on one core here, 10 earlier."
            )
        } else if name.contains("revoke") || name.contains("clean") {
            format!("Taking a page's mapping away costs {:.0} ns here, earlier 67 to 164.", self.revoke_ns)
        } else if name.contains(" x") {
            "Threads share the cores with whatever else runs; earlier the machine was idle.".into()
        } else {
            "Copies, signals and page-table work weigh differently here; busy cores weigh on the longer of the two."
                .into()
        }
    }

    fn round_trips(&mut self) -> Result<()> {
        if !self.wants("ping-pong") || cores() < 2 {
            self.report.note("ping-pong: left out (filter, or a single core)");
            return Ok(());
        }
        let mut table = Table::new("ping_pong", "Futex round trips between two threads", Class::L);
        let same = table.column(Column::baseline(Baseline::LowerBound, "us").named("same core"));
        let other = table.column(Column::ours("other core", "us"));
        let mut compared = Compared::new(&mut table, "other / same", EARLIER_TRIPS);
        let [a, b] = rounds(self.runs, 1, |_| {
            Ok::<_, anyhow::Error>([ping_pong((0, 0), 2000), ping_pong((0, 1), 500)])
        })?;
        let ratio = ratios(&b, &a);
        self.trips = ratio.median();
        let name = "other core / same core";
        let row = Row::named(name)
            .with(same, Figure::of(&Sample::of(&a)).scaled(1e6))
            .with(other, Figure::of(&Sample::of(&b)).scaled(1e6));
        let row = compared.put(self, row, name, &ratio);
        table.row(row);
        compared.finish(self, table, "two threads and two futexes");
        Ok(())
    }

    /// A mechanism's region, or a note that this machine cannot have it.
    fn open(&self, name: &str, mechanism: Mechanism) -> Option<Floor> {
        if matches!(mechanism, Mechanism::Thread { core: Some(core), .. } if core >= cores()) {
            self.report.note(format!("{name}: left out, there is one core"));
            return None;
        }
        match Floor::new(mechanism, self.bytes) {
            Ok(floor) => Some(floor),
            Err(error) => {
                self.report.note(format!("{name}: left out, the system refuses it: {error}"));
                None
            }
        }
    }

    /// Runs `measure` with the thread pinned where the mechanism wants it: pinned mechanisms are about cores, others are not.
    fn pinned<R: Send>(mechanism: Mechanism, measure: impl FnOnce() -> R + Send) -> R {
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                if matches!(mechanism, Mechanism::Thread { core: Some(_), .. }) {
                    vkhmm_floors::pin(0);
                }
                measure()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn latency(&mut self) -> Result<()> {
        let title = "One fault of 4 KiB with its copy, in faults of plain anonymous memory";
        let mut table = Table::new("latency", title, Class::L);
        let anon = table.column(Column::baseline(Baseline::LowerBound, "us").named("anonymous"));
        let p50 = table.column(Column::ours("p50", "us"));
        let p99 = table.column(Column::ours("p99", "us"));
        let mut compared = Compared::new(&mut table, "p50 / anonymous p50", EARLIER_LATENCY);
        let (runs, faults) = (self.runs, self.faults);
        let pages: Vec<usize> = (0..faults.min(self.bytes / PAGE)).collect();
        let quantiles = |times: Vec<f64>| {
            let sample = Sample::of(&times);
            [sample.median() * 1e6, sample.quantile(0.99) * 1e6]
        };
        let mut put = |bench: &mut Self, name: &str, [plain, middle, high]: [Vec<f64>; 3]| {
            let row = Row::named(name)
                .with(anon, Figure::of(&Sample::of(&plain)))
                .with(p50, Figure::of(&Sample::of(&middle)))
                .with(p99, Figure::of(&Sample::of(&high)));
            let row = compared.put(bench, row, name, &ratios(&middle, &plain));
            table.row(row);
        };
        let kernel = "memfd, kernel alone";
        if self.wants(kernel) {
            let found = rounds(runs, 1, |_| {
                let [plain, _] = quantiles(anon_touches(faults)?);
                let [middle, high] = quantiles(memfd_touches(faults)?);
                Ok::<_, anyhow::Error>([plain, middle, high])
            })?;
            put(self, kernel, found);
        }
        for (name, mechanism) in MECHANISMS {
            if !self.wants(name) {
                continue;
            }
            let Some(mut floor) = self.open(name, mechanism) else { continue };
            let found = Self::pinned(mechanism, || {
                rounds(runs, 1, |_| {
                    let [plain, _] = quantiles(anon_touches(faults)?);
                    let [middle, high] = quantiles(floor.latencies(&pages));
                    Ok::<_, anyhow::Error>([plain, middle, high])
                })
            })?;
            put(self, name, found);
        }
        compared.finish(self, table, "a fault is not a migration");
        Ok(())
    }

    fn scan(&mut self) -> Result<()> {
        let title = "Reading a word per page of what the device has, in copies of the same bytes per second";
        let mut table = Table::new("scan", title, Class::L);
        let plain = table.column(Column::baseline(Baseline::LowerBound, "ms").named("memcpy"));
        let time = table.column(Column::ours("scan", "ms"));
        let mut compared = Compared::new(&mut table, "part of memcpy", EARLIER_SCAN);
        let (runs, bytes, faults) = (self.runs, self.bytes, self.faults);
        let progress = self.report.progress(MECHANISMS.len() as u64, "scan");
        for (name, mechanism) in MECHANISMS {
            progress.inc(1);
            if !self.wants(name) {
                continue;
            }
            let Some(mut floor) = self.open(name, mechanism) else { continue };
            let found = Self::pinned(mechanism, || {
                rounds(runs, 1, |_| {
                    let ((), copy) = timed(|| floor.copy_in(0, bytes));
                    // Many small faults are as good as all of them.
                    let part = faults.min(bytes / PAGE);
                    let small = floor.scan(PAGE, Order::Forward, part) * (bytes / PAGE) as f64 / part as f64;
                    let [b, c] =
                        [64 << 10, 2 << 20].map(|granule| floor.scan(granule, Order::Forward, bytes / PAGE));
                    Ok::<_, anyhow::Error>([copy, small, b, c])
                })
            })?;
            for (granule, times) in ["4 KiB", "64 KiB", "2 MiB"].iter().zip(&found[1..]) {
                let name = format!("{name} {granule}");
                let row = Row::named(&name)
                    .with(plain, Figure::of(&Sample::of(&found[0])).scaled(1e3))
                    .with(time, Figure::of(&Sample::of(times)).scaled(1e3));
                let row = compared.put(self, row, &name, &ratios(&found[0], times));
                table.row(row);
            }
        }
        progress.finish_and_clear();
        compared.finish(
            self,
            table,
            "the device is plain memory, so a copy of the bytes is all that is unavoidable",
        );
        Ok(())
    }

    fn eviction(&mut self) -> Result<()> {
        let title = "Taking 2 MiB blocks away from the host, with and without their bytes";
        let mut table = Table::new("eviction", title, Class::L);
        let plain = table.column(Column::baseline(Baseline::LowerBound, "us").named("copy"));
        let both = table.column(Column::ours("revoke + copy", "us"));
        let clean = table.column(Column::ours("revoke", "us"));
        let mut compared = Compared::new(&mut table, "ratio", EARLIER_EVICTION);
        let (block, blocks, runs) = (2 << 20, self.bytes >> 21, self.runs);
        for (name, mechanism) in [("zap", Mechanism::Sigbus), ("mprotect", Mechanism::Segv)] {
            if !self.wants(name) {
                continue;
            }
            let Some(mut floor) = self.open(name, mechanism) else { continue };
            let mut each = |revoke: bool, copy: bool| {
                floor.populate();
                let ((), time) = timed(|| {
                    for number in 0..blocks {
                        if revoke {
                            floor.revoke(number * block, block);
                        }
                        if copy {
                            floor.copy_out(number * block, block);
                        }
                    }
                });
                floor.revoke(0, blocks * block);
                time / blocks as f64 * 1e6
            };
            let found = rounds(runs, 1, |_| {
                Ok::<_, anyhow::Error>([each(false, true), each(true, true), each(true, false)])
            })?;
            self.revoke_ns = Sample::of(&found[2]).median() * 1e3 / (block / PAGE) as f64;
            for (what, ratio) in [
                ("(revoke + copy) / copy", ratios(&found[1], &found[0])),
                ("clean / copying", ratios(&found[2], &found[1])),
            ] {
                let name = format!("{name}: {what}");
                let row = Row::named(&name)
                    .with(plain, Figure::of(&Sample::of(&found[0])))
                    .with(both, Figure::of(&Sample::of(&found[1])))
                    .with(clean, Figure::of(&Sample::of(&found[2])));
                let row = compared.put(self, row, &name, &ratio);
                table.row(row);
            }
        }
        compared.finish(self, table, "nothing is computed; the copy alone is what an explicit program does");
        Ok(())
    }

    fn threads(&mut self) -> Result<()> {
        let mut table = Table::new("threads", "Faults per millisecond by several threads", Class::L);
        let one = table.column(Column::baseline(Baseline::LowerBound, "1/ms").named("1 thread"));
        let rate = table.column(Column::ours("faults", "1/ms"));
        let mut compared = Compared::new(&mut table, "of 1 thread's", EARLIER_THREADS);
        let runs = self.runs;
        for (name, mechanism) in [MECHANISMS[4], MECHANISMS[5], MECHANISMS[6]] {
            for (size, granule) in [("4 KiB", PAGE), ("64 KiB", 64 << 10)] {
                let name = format!("{name} {size}");
                if !self.wants(&name) {
                    continue;
                }
                let Some(mut floor) = self.open(&name, mechanism) else { continue };
                let pages: Vec<usize> = (0..self.bytes / granule)
                    .take(self.faults)
                    .map(|fault| fault * (granule / PAGE))
                    .collect();
                let found = rounds(runs, 1, |_| {
                    Ok::<_, anyhow::Error>(
                        [1, 2, 4, 8].map(|threads| floor.faults_per_ms(threads, granule, &pages)),
                    )
                })?;
                for (count, rates) in [1, 2, 4, 8].iter().zip(&found) {
                    let name = format!("{name} x{count}");
                    let row = Row::named(&name)
                        .with(one, Figure::of(&Sample::of(&found[0])))
                        .with(rate, Figure::of(&Sample::of(rates)));
                    let row = compared.put(self, row, &name, &ratios(rates, &found[0]));
                    table.row(row);
                }
            }
        }
        compared.finish(self, table, "one thread is what several are compared with");
        Ok(())
    }
}
