//! The trouble of the first phase: calls that fail, messages that lie, mappings that vanish, a device that stalls or is lost.

use super::Stage;
use crate::Random;
use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vkhmm_core::units::PageIndex;
use vkhmm_port::host::Errno;
use vkhmm_port::{DeviceError, Fault, Signal};

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A call of host memory fails.
    HostCall,
    /// A call of the device fails; where that is a submission, the device is lost.
    DeviceCall,
    /// Messages of parked threads come late, and out of order.
    LateFaults,
    /// Messages come twice.
    DoubledFaults,
    /// Messages about pages that nobody touched, some of them nobody's.
    SpuriousFaults,
    /// The kernel drops mappings.
    Zaps,
    /// Completions are late.
    Stalls,
    /// The device is lost.
    Loss,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::HostCall,
        Self::DeviceCall,
        Self::LateFaults,
        Self::DoubledFaults,
        Self::SpuriousFaults,
        Self::Zaps,
        Self::Stalls,
        Self::Loss,
    ];

    /// The troubles of one world: none in every other one, else up to three. A world that is to go on has none that loses the device.
    pub(super) fn draw(random: &mut Random, may_lose: bool) -> Vec<Self> {
        let count = if random.one_in(2) { 0 } else { 1 + random.below(3) };
        let mut kinds: Vec<_> = (0..count).map(|_| Self::ALL[random.below(8) as usize]).collect();
        kinds.retain(|kind| may_lose || !matches!(kind, Self::DeviceCall | Self::Loss));
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

/// The body of the thread that makes trouble, until it is enough.
pub(super) fn make(stage: &Arc<Stage>, mut random: Random) {
    loop {
        let epoch = stage.phase.epoch();
        if stage.enough.load(Ordering::Acquire) {
            break;
        }
        let pause = Duration::from_nanos(1_000 + random.below(300_000));
        stage.phase.wait(epoch, Some(pause));
        let kinds = &stage.setting.trouble;
        let kind = kinds[random.below(kinds.len() as u64) as usize];
        once(stage, kind, &mut random);
    }
    stage.at_peace.store(true, Ordering::Release);
    stage.phase.notify();
}

/// Whatever is armed or kept back is so no more.
pub(super) fn end(stage: &Stage) {
    stage.host.fail_call(0);
    stage.host.hold_faults(false);
    stage.host.double_faults(false);
    stage.device.fail_call(0);
    stage.device.lose_at_call(0);
}

fn once(stage: &Stage, kind: Kind, random: &mut Random) {
    match kind {
        Kind::HostCall => {
            let (n, errno) = (1 + random.below(8), [11, 17, 2, 12][random.below(4) as usize]);
            stage.exec.note(format_args!("trouble: host call {n} from now fails with errno {errno}"));
            stage.host.fail_call_with(n, Errno(errno));
        }
        Kind::DeviceCall => {
            let n = 1 + random.below(8);
            let error = match random.below(3) {
                0 => DeviceError::OutOfDeviceMemory { operation: "trouble", bytes: 64 },
                1 => DeviceError::OutOfHostMemory { operation: "trouble" },
                _ => DeviceError::Refused { operation: "trouble", message: "refused".to_owned() },
            };
            stage.exec.note(format_args!("trouble: device call {n} from now fails: {error}"));
            stage.device.fail_call_with(n, error);
        }
        Kind::LateFaults => {
            let on = random.one_in(2);
            stage.exec.note(format_args!("trouble: messages are kept back: {on}"));
            stage.host.hold_faults(on);
        }
        Kind::DoubledFaults => {
            let on = !random.one_in(4);
            stage.exec.note(format_args!("trouble: messages come twice: {on}"));
            stage.host.double_faults(on);
        }
        Kind::SpuriousFaults => {
            let fault = Fault { page: some_page(stage, random), write: random.one_in(2) };
            stage
                .exec
                .note(format_args!("trouble: nobody touches page {} write {}", fault.page.0, fault.write));
            stage.host.inject(fault);
        }
        Kind::Zaps => {
            let page = some_page(stage, random);
            stage.exec.note(format_args!("trouble: the mapping of page {} is dropped", page.0));
            stage.host.zap(page);
        }
        Kind::Stalls => {
            // Short ones often, long ones seldom: the device must get on with its work in between.
            let longest = if random.one_in(16) { 2_000_000 } else { 50_000 };
            let time = Duration::from_nanos(random.below(longest));
            stage.exec.note(format_args!("trouble: the device stalls for {} ns", time.as_nanos()));
            stage.device.stall(time);
        }
        Kind::Loss => {
            if random.one_in(2) {
                let n = 1 + random.below(12);
                stage.exec.note(format_args!("trouble: the device is lost at call {n} from now"));
                stage.device.lose_at_call(n);
            } else if random.one_in(4) {
                stage.exec.note(format_args!("trouble: the device is lost"));
                stage.device.lose();
            }
        }
    }
    stage.met().note(format!("trouble: {kind:?}"));
}

fn some_page(stage: &Stage, random: &mut Random) -> PageIndex {
    let pages = stage.setting.blocks * stage.setting.config.geometry.pages_per_block;
    PageIndex(random.below(u64::from(pages)))
}
