//! Bandwidth of migration: managed memory to the device and home again, against a plain `vkCmdCopyBuffer` of the same bytes in
//! the same run. `./x bench [--quick] [--json]`.
//!
//! Each round measures the plain copy and the managed ways one after the other, so that whatever disturbs one disturbs the other.
//! The first rounds are not counted: they make the import and touch every page once. Each round checks the counters (every byte
//! moved, none twice) and the bytes that came home.

mod raw;

use anyhow::{Result, ensure};
use clap::Parser;
use raw::{Raw, Way};
use std::time::{Duration, Instant};
use vkhmm::{Managed, PlacementKind, Runtime};

/// Measures migration between host and device against a plain copy of the same bytes.
#[derive(Parser)]
struct Options {
    /// Up to 16 MiB instead of 256 MiB
    #[arg(long)]
    quick: bool,
    /// One JSON object a line instead of the table
    #[arg(long)]
    json: bool,
    /// What `cargo bench` says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

const SMALLEST: u64 = 64 << 10;
const LARGEST: u64 = 256 << 20;
const LARGEST_QUICK: u64 = 16 << 20;
/// Rounds that count, an odd number: the median is one of them.
const ROUNDS: usize = 11;
const WARM_UP: usize = 2;
const WORDS_PER_PAGE: usize = 1024;

/// One way to move bytes, with the plain copy's way to compare with.
struct Column {
    name: &'static str,
    plain: Way,
    run: fn(&Runtime, &mut Managed<u32>, u32) -> Result<Duration>,
}

const COLUMNS: [Column; 3] = [
    Column { name: "prefetch to device", plain: Way::In, run: prefetch_in },
    Column { name: "prefetch to host", plain: Way::Out, run: prefetch_out },
    Column { name: "touch on the host", plain: Way::Out, run: touch },
];

/// Medians of one size, in the order of [`COLUMNS`]: the plain copy's and the managed one's.
struct Row {
    bytes: u64,
    medians: [(Duration, Duration); COLUMNS.len()],
}

fn main() -> Result<()> {
    let options = Options::parse();
    let largest = if options.quick { LARGEST_QUICK } else { LARGEST };
    let rt = Runtime::builder().device_memory_limit(largest).in_place_bytes(0).strict_io(false).build()?;
    let report = &rt.doctor().device;
    let chosen = &report.candidates[report.chosen];
    let class = if chosen.kind == "software" { 'L' } else { 'D' };
    if !options.json {
        header(class, &chosen.name);
    }
    let sizes = std::iter::successors(Some(SMALLEST), |bytes| Some(bytes * 4)).take_while(|b| *b <= largest);
    for bytes in sizes {
        let row = measure(&rt, &Raw::open(&chosen.name, bytes)?, bytes)?;
        if options.json { json(class, &chosen.name, &row) } else { table(&row) }
    }
    Ok(())
}

fn measure(rt: &Runtime, raw: &Raw, bytes: u64) -> Result<Row> {
    let mut memory = rt.alloc::<u32>(usize::try_from(bytes)? / 4)?;
    let mut times: [(Vec<Duration>, Vec<Duration>); COLUMNS.len()] = Default::default();
    for round in 0..WARM_UP + ROUNDS {
        for (column, (plain, managed)) in COLUMNS.iter().zip(&mut times) {
            let plain_time = raw.copy(column.plain)?;
            let before = rt.stats();
            let time = (column.run)(rt, &mut memory, round as u32 + 1)?;
            let moved = rt.stats().since(&before);
            let counted = if column.plain == Way::In { moved.in_bytes() } else { moved.out_bytes() };
            ensure!(
                memory.placement().kind != PlacementKind::InPlace,
                "nothing migrates on this device, kernels work on host memory; VKHMM_IMPORT_LIMIT=0 makes them move it"
            );
            ensure!(counted == bytes, "{} of {bytes} bytes moved {counted}", column.name);
            if round >= WARM_UP {
                plain.push(plain_time);
                managed.push(time);
            }
        }
    }
    Ok(Row { bytes, medians: times.map(|(plain, managed)| (median(plain), median(managed))) })
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Bytes that only the host has go to the device.
fn prefetch_in(_: &Runtime, memory: &mut Managed<u32>, _: u32) -> Result<Duration> {
    drop(memory.host_mut()?);
    let start = Instant::now();
    memory.prefetch_to_device()?.wait()?;
    Ok(start.elapsed())
}

/// Bytes that only the device has come home, in one go.
fn prefetch_out(rt: &Runtime, memory: &mut Managed<u32>, word: u32) -> Result<Duration> {
    rt.fill(memory.overwrite(), word)?.wait()?;
    let start = Instant::now();
    memory.prefetch_to_host()?.wait()?;
    let time = start.elapsed();
    ensure!(memory.iter().all(|have| *have == word), "wrong bytes came home");
    Ok(time)
}

/// Bytes that only the device has come home as the CPU reads a word of each page in order.
fn touch(rt: &Runtime, memory: &mut Managed<u32>, word: u32) -> Result<Duration> {
    rt.fill(memory.overwrite(), !word)?.wait()?;
    let start = Instant::now();
    let right = memory.iter().step_by(WORDS_PER_PAGE).all(|have| *have == !word);
    let time = start.elapsed();
    ensure!(right && memory.iter().all(|have| *have == !word), "wrong bytes came home");
    Ok(time)
}

fn header(class: char, device: &str) {
    println!(
        "Migration against a plain vkCmdCopyBuffer of the same bytes, medians of {ROUNDS} rounds. Class {class}:"
    );
    match class {
        'L' => println!(
            "measured on a software device, where device memory is host memory. Only the ratios mean anything."
        ),
        _ => println!("measured on a real device."),
    }
    println!(
        "Device: {device}. GiB/s of the plain copy, GiB/s of vkhmm, and how many times the plain copy's time that is.\n"
    );
    let names = COLUMNS.map(|column| format!("{:^29}", column.name));
    println!("{:>9}   {}", "", names.join("   "));
    let heads = COLUMNS.map(|_| format!("{:>9} {:>9} {:>9}", "plain", "vkhmm", "times"));
    println!("{:>9}   {}", "size", heads.join("   "));
}

/// Managed time over plain time.
fn ratio((plain, managed): (Duration, Duration)) -> f64 {
    managed.as_secs_f64() / plain.as_secs_f64().max(1e-9)
}

fn table(row: &Row) {
    let speed = |time: Duration| row.bytes as f64 / time.as_secs_f64().max(1e-9) / f64::from(1 << 30);
    let cells = row
        .medians
        .map(|times| format!("{:>9.2} {:>9.2} {:>9.2}", speed(times.0), speed(times.1), ratio(times)));
    let size = if row.bytes < 1 << 20 {
        format!("{} KiB", row.bytes >> 10)
    } else {
        format!("{} MiB", row.bytes >> 20)
    };
    println!("{size:>9}   {}", cells.join("   "));
}

fn json(class: char, device: &str, row: &Row) {
    let device = device.replace(['"', '\\'], "_");
    for (column, times) in COLUMNS.iter().zip(row.medians) {
        println!(
            "{{\"bench\":\"migrate_bw\",\"class\":\"{class}\",\"device\":\"{device}\",\"what\":\"{}\",\"bytes\":{},\"rounds\":{ROUNDS},\
             \"plain_seconds\":{:.9},\"seconds\":{:.9},\"ratio\":{:.4}}}",
            column.name,
            row.bytes,
            times.0.as_secs_f64(),
            times.1.as_secs_f64(),
            ratio(times)
        );
    }
}
