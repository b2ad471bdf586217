//! The engine and the fakes under Miri: real threads, few steps. Application bytes are moved by plain copies everywhere, so one
//! access to a byte that no lock, ticket or hold orders after the last one is a data race, and Miri names both places.
//!
//! `cargo +nightly miri test -p vkhmm-engine --test races`. Without Miri it is one more small torture.

mod common;

use common::*;
use std::sync::Arc;
use std::time::Duration;
use vkhmm_core::pagemap::MemoryKind;
use vkhmm_engine::AccessKind::{Overwrite, Read, Write};
use vkhmm_port::FaultMode;
use vkhmm_port::fake::FakeKernel;

/// Miri's clock counts its own steps: what takes a second without it may take minutes of that time.
const PATIENCE: u64 = if cfg!(miri) { 3600 } else { 30 };
const ROUNDS: u8 = if cfg!(miri) { 1 } else { 200 };

/// Adds one to every second byte, the device's.
fn bump() -> FakeKernel {
    FakeKernel::new(|bindings, _, _| {
        for at in (1..bindings[0].len()).step_by(2) {
            map(bindings[0].slice(at, 1), |v| v.wrapping_add(1));
        }
    })
}

/// One thread stores to the bytes of the CPU, one launches on those of the device, one fetches pages back and forth.
fn everybody_at_one_block(setup: Setup) {
    within(PATIENCE, || {
        let w = World::new(setup);
        let (x, y) = (w.alloc(w.block()), w.alloc(w.block()));
        w.store(&y, 0, &[7; 16]);
        std::thread::scope(|scope| {
            let (w, x, y) = (&w, &x, &y);
            if !w.declared() {
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let at = u64::from(round) % 8 * 16;
                        assert_eq!(w.load(x, at..at + 1), [round / 8], "the CPU's own byte");
                        w.store(x, at, &[round / 8 + 1]);
                    }
                });
            }
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    w.launch(&bump(), &[(x, 0..x.bytes(), Write), (y, 0..16, Read)]);
                    w.launch(&set(9), &[(y, 64..128, Overwrite)]);
                }
            });
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    drop(w.engine.prefetch_to_device(y, (0..16).into()).expect("room for one frame"));
                    drop(w.engine.prefetch_to_host(x, (0..x.bytes()).into()).expect("alive"));
                    assert_eq!(w.load(y, 3..4), [7], "what nobody writes");
                }
            });
        });
        let bytes = w.load_all(&x);
        assert!(bytes.iter().skip(1).step_by(2).all(|b| *b == ROUNDS), "{bytes:?}");
        assert_eq!(w.load_all(&y)[64..], [9; 64]);
        w.rest();
        w.engine.free(&x);
        w.engine.free(&y);
        end(w);
    });
}

/// Stops the engine and waits for its threads: Miri wants to see every thread end and all memory given back.
fn end(w: World) {
    let engine = Arc::clone(&w.engine);
    drop(w);
    until("the threads let go of the engine", || Arc::strong_count(&engine) == 1);
    drop(engine);
    // The device's own threads have nothing left to do; nobody can ask them.
    std::thread::sleep(Duration::from_millis(50));
}

fn small() -> Setup {
    Setup { blocks: 4, limit_frames: 3, slots: 2, ..Setup::default() }
}

#[test]
fn through_imports() {
    everybody_at_one_block(small());
}

#[test]
fn through_staging_on_one_queue() {
    everybody_at_one_block(Setup { import: false, timelines: 1, ..small() });
}

#[test]
fn through_memory_that_the_cpu_reads() {
    everybody_at_one_block(Setup { kind: MemoryKind::DeviceCoherent, import: false, ..small() });
}

#[test]
fn in_one_memory() {
    everybody_at_one_block(Setup { kind: MemoryKind::UnifiedMemory, strict: true, ..small() });
}

#[test]
fn without_faults() {
    everybody_at_one_block(Setup { faults: FaultMode::Declared, ..small() });
}
