//! Sparse buffers are strict: what a real device lets pass in silence stops here.

use super::{SMALL, refused};
use crate::fake::memory::Bytes;
use crate::fake::sparse::{Binding, Change, Place, SparseBuffer, Tables, View};
use crate::fake::{FakeDevice, FakeDeviceOptions, FakeKernel};
use crate::{Bind, BoundRange, Command, Device, Role, SparseProfile, Submission};
use core::ops::Range;
use core::time::Duration;
use std::sync::Arc;
use vkhmm_core::units::{FrameIndex, Ticket};
use vkhmm_core::uses::Uses;

const FRAME: u64 = 64;

/// A buffer of four frames, and an arena piece of four.
fn rig() -> (Tables, Arc<SparseBuffer>, Arc<Bytes>) {
    let tables = Tables::default();
    let buffer = tables.reserve(4 * FRAME, 8 * FRAME).expect("room");
    (tables, buffer, Arc::new(Bytes::new(4 * FRAME)))
}

fn come(buffer: &Arc<SparseBuffer>, at: u32, piece: &Arc<Bytes>, frame: u32) -> Change {
    let within = frame as usize * FRAME as usize;
    let place = Place { frame, piece: Arc::clone(piece), within, users: 0 };
    Change { buffer: Arc::clone(buffer), at: at..at + 1, places: Some(vec![place]) }
}

fn go(buffer: &Arc<SparseBuffer>, at: Range<u32>) -> Change {
    Change { buffer: Arc::clone(buffer), at, places: None }
}

fn seen(buffer: &Arc<SparseBuffer>, bytes: Range<u64>) -> Binding {
    Binding::Sparse { buffer: Arc::clone(buffer), bytes }
}

#[test]
fn binds_that_break_the_contract_are_refused() {
    let (tables, buffer, piece) = rig();
    let other = tables.reserve(4 * FRAME, 8 * FRAME).expect("room");
    assert!(tables.reserve(FRAME, 8 * FRAME).is_none(), "the space is taken");
    tables.apply(&[come(&buffer, 0, &piece, 2)]);
    refused("frame 2 of memory lies there", || tables.apply(&[come(&buffer, 0, &piece, 1)]));
    refused("frame 2 of memory is bound, but lies at", || tables.apply(&[come(&other, 3, &piece, 2)]));
    refused("frame 1 of a sparse buffer is unbound, but nothing", || tables.apply(&[go(&buffer, 0..2)]));
    drop(buffer);
    drop(other);
    assert_eq!(tables.bound(), 0, "binds go with their buffer");
    assert!(tables.reserve(8 * FRAME, 8 * FRAME).is_some(), "and so does its space");
}

#[test]
fn a_stretch_that_a_kernel_uses_stays() {
    let (tables, buffer, piece) = rig();
    tables.apply(&[come(&buffer, 0, &piece, 2), come(&buffer, 1, &piece, 0)]);
    let view = View::open(&[seen(&buffer, 10..20)], FRAME, &[]);
    refused("in use: a kernel runs on frame 0", || tables.apply(&[go(&buffer, 0..1)]));
    drop(view);
    tables.apply(&[come(&buffer, 2, &piece, 3)]);
    tables.apply(&[go(&buffer, 1..3)]);
}

#[test]
fn scattered_frames_look_like_one_run() {
    let (tables, buffer, piece) = rig();
    tables.apply(&[come(&buffer, 0, &piece, 3), come(&buffer, 1, &piece, 1), come(&buffer, 2, &piece, 2)]);
    let bytes: Vec<u8> = (0..4 * FRAME as usize).map(|i| i as u8).collect();
    piece.raw().slice(0, bytes.len()).write(&bytes);
    // Three bindings that overlap are one memory.
    let bindings = [seen(&buffer, 60..70), seen(&buffer, 0..192), seen(&buffer, 64..65)];
    let view = View::open(&bindings, FRAME, &[]);
    assert_eq!(view.bindings[0].to_vec(), [252, 253, 254, 255, 64, 65, 66, 67, 68, 69]);
    view.bindings[2].write(&[7]);
    assert_eq!(view.bindings[1].slice(63, 2).to_vec(), [255, 7]);
    view.close();
    assert_eq!(piece.raw().slice(64, 2).to_vec(), [7, 65]);
    // Neighbours are no copy.
    let view = View::open(&[seen(&buffer, 64..192)], FRAME, &[]);
    assert_eq!(view.bindings[0].as_ptr(), piece.raw().slice(64, 1).as_ptr());
    view.close();
    refused("not resident: frame 3", || drop(View::open(&[seen(&buffer, 190..193)], FRAME, &[])));
    let written = [piece.raw().slice(3 * 64, 1)];
    refused("no barrier", || drop(View::open(&[seen(&buffer, 0..1)], FRAME, &written)));
    let view = View::open(&[seen(&buffer, 0..65)], FRAME, &[]);
    piece.raw().slice(3 * 64, 1).write(&[99]);
    refused("somebody writes what a kernel uses", || view.close());
}

fn sparse_device() -> FakeDevice {
    let sparse = Some(SparseProfile { page_bytes: 64, buffer_bytes_max: 8 * FRAME, space_bytes: 8 * FRAME });
    let device = FakeDevice::new(SMALL, FakeDeviceOptions { sparse, ..FakeDeviceOptions::default() });
    device.grow(FrameIndex(0), 4).expect("grow");
    device
}

fn submit(device: &FakeDevice, role: Role, commands: Vec<Command<FakeDevice>>) {
    let signals = Ticket { timeline: device.profile().timeline(role), value: 1 };
    let submission = Submission { waits: Uses::NONE, foreign: Vec::new(), commands, signals };
    device.submit(role, submission).expect("submit");
}

#[test]
fn submissions_that_bind_are_checked() {
    let device = sparse_device();
    let buffer = Arc::new(device.reserve(4 * FRAME).expect("reserve"));
    let span = device.buffer(vkhmm_core::units::FrameRun { first: FrameIndex(0), count: 1 }).expect("buffer");
    let span = Arc::new(span);
    let bind = |buffer: &Arc<_>, offset, bytes, frames: Option<u32>| Command::Bind {
        binds: vec![Bind { buffer: Arc::clone(buffer), offset, bytes, frames: frames.map(FrameIndex) }],
    };
    let one = || bind(&buffer, 0, FRAME, Some(0));
    refused("longer than the profile says", || drop(device.reserve(9 * FRAME)));
    refused("no whole frames", || drop(device.reserve(FRAME + 1)));
    refused("alone in a submission", || submit(&device, Role::Compute, vec![one()]));
    refused("alone in a submission", || submit(&device, Role::Bind, vec![one(), one()]));
    refused("only binds", || submit(&device, Role::Bind, vec![super::fill(0)]));
    refused("misaligned", || submit(&device, Role::Bind, vec![bind(&buffer, 16, FRAME, None)]));
    refused("misaligned", || submit(&device, Role::Bind, vec![bind(&buffer, 0, 16, Some(0))]));
    refused("up to byte 320", || {
        submit(&device, Role::Bind, vec![bind(&buffer, 3 * FRAME, 2 * FRAME, None)])
    });
    refused("not inside the piece", || {
        submit(&device, Role::Bind, vec![bind(&buffer, 0, 2 * FRAME, Some(3))])
    });
    refused("not sparse", || submit(&device, Role::Bind, vec![bind(&span, 0, FRAME, Some(0))]));
    drop(span);
    submit(&device, Role::Bind, vec![one()]);
    assert_eq!((device.calls().reserve, device.calls().binds), (1, 1));
    device.wait(&Uses::NONE, Duration::from_secs(60)).expect("wait");
    refused("a piece in use", || device.shrink(FrameIndex(0)));
}

#[test]
fn a_kernel_on_nothing_loses_the_device() {
    let device = sparse_device();
    let buffer = Some(Arc::new(device.reserve(4 * FRAME).expect("reserve")));
    let kernel = Arc::new(FakeKernel::new(|_, _, _| {}));
    let bindings = vec![BoundRange { buffer, offset: 0, bytes: 4 }];
    let elapsed_ns = Arc::default();
    let launch = Command::Dispatch { kernel, bindings, push: vec![], groups: [1; 3], elapsed_ns };
    submit(&device, Role::Compute, vec![launch]);
    assert!(device.wait(&Uses::NONE, Duration::from_secs(60)).is_err());
}
