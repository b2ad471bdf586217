//! How threads wait for the device: never by a wait for any of several semaphores where one will do. Drivers without a way to sleep on
//! several timelines (Mesa's software drivers, for one) look at them in turn for as long as that wait lasts, which takes a core from
//! the program and from the driver's own threads.
//!
//! Where all timelines share one VkQueue, submissions begin in the order in which they were given, so the oldest one that is under
//! way is the next to end: its semaphore alone is waited for. With none under way there is nothing to ask the driver: the thread sleeps
//! until one is submitted. Where there are several queues, and any of them may be the next, drivers are those of cards, whose kernels
//! wait for any of them.

use crate::device::VulkanDevice;
use crate::exit;
use crate::inject::Can;
use crate::queues::Queue;
use ash::vk;
use core::time::Duration;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use vkhmm_core::uses::Uses;
use vkhmm_port::DeviceError;

/// How long one wait inside the driver lasts at most: a loss that another thread notices is seen no later, nor is a submission that
/// overtook another one on its way to the driver.
pub(crate) const WAIT_SLICE: Duration = Duration::from_millis(20);

const OPERATION: &str = "wait for a timeline";

/// Counts submissions, for whoever waits for the next one.
///
/// Lock contract: `state` owns the count and the number of sleepers; held for a look, a change and the sleep; innermost.
#[derive(Default)]
pub(crate) struct Submitted {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Default)]
struct State {
    count: u64,
    sleepers: u32,
}

impl Submitted {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) -> u64 {
        self.state().count
    }

    /// The driver has one more.
    pub(crate) fn add(&self) {
        let mut state = self.state();
        state.count += 1;
        let asleep = state.sleepers > 0;
        drop(state);
        if asleep {
            self.more.notify_all();
        }
    }

    /// Sleeps until there are others than the `seen` first, for at most `timeout`.
    fn sleep(&self, seen: u64, timeout: Duration) {
        let mut state = self.state();
        state.sleepers += 1;
        let same = |state: &mut State| state.count == seen;
        let woken = self.more.wait_timeout_while(state, timeout, same);
        woken.unwrap_or_else(PoisonError::into_inner).0.sleepers -= 1;
    }
}

/// Whether all timelines share one VkQueue.
pub(crate) fn share_one(queues: &[Queue]) -> bool {
    queues.windows(2).all(|two| Arc::ptr_eq(&two[0].door, &two[1].door))
}

impl VulkanDevice {
    /// As [`vkhmm_port::Device::wait`].
    pub(crate) fn wait_for_more(&self, seen: &Uses, timeout: Duration) -> Result<(), DeviceError> {
        self.enter_wait()?;
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let section = exit::section();
            let left = deadline.map_or(WAIT_SLICE, |d| d.saturating_duration_since(Instant::now()));
            let slice = left.min(WAIT_SLICE);
            if self.one_queue && !self.ctx.mock {
                let count = self.submitted.count();
                let under_way = |queue: &Queue| queue.recycler.oldest(seen.on(queue.timeline));
                let oldest =
                    self.queues.iter().filter_map(|q| under_way(q).map(|(order, value)| (order, value, q)));
                let oldest = oldest.min_by_key(|(order, ..)| *order);
                // After the look at what is under way: what ended before it, and was left out there, is seen here.
                for queue in &self.queues {
                    if queue.counter()? > seen.on(queue.timeline) {
                        return self.poll().map(drop);
                    }
                }
                match oldest {
                    Some((_, value, queue)) => {
                        if self.wait_slice(
                            &[queue.semaphore],
                            &[value],
                            slice,
                            vk::SemaphoreWaitFlags::empty(),
                        )? {
                            return self.poll().map(drop);
                        }
                    }
                    None => {
                        // No driver call: the end of the process does not wait for it.
                        drop(section);
                        self.submitted.sleep(count, slice);
                    }
                }
            } else {
                let semaphores: Vec<vk::Semaphore> = self.queues.iter().map(|q| q.semaphore).collect();
                let values: Vec<u64> = self.queues.iter().map(|q| seen.on(q.timeline) + 1).collect();
                if self.wait_slice(&semaphores, &values, slice, vk::SemaphoreWaitFlags::ANY)? {
                    return self.poll().map(drop);
                }
            }
            if self.ctx.is_lost() {
                return Err(DeviceError::Lost { operation: OPERATION });
            }
            if left.is_zero() {
                return Ok(());
            }
        }
    }

    /// As [`vkhmm_port::Device::reach`].
    pub(crate) fn wait_for_all(&self, uses: &Uses, timeout: Duration) -> Result<(), DeviceError> {
        self.enter_wait()?;
        let deadline = Instant::now().checked_add(timeout);
        let semaphores: Vec<vk::Semaphore> =
            uses.iter().map(|ticket| self.timeline_semaphore(ticket.timeline)).collect();
        let values: Vec<u64> = uses.iter().map(|ticket| ticket.value).collect();
        loop {
            let _section = exit::section();
            let left = deadline.map_or(WAIT_SLICE, |d| d.saturating_duration_since(Instant::now()));
            let all = vk::SemaphoreWaitFlags::empty();
            if self.wait_slice(&semaphores, &values, left.min(WAIT_SLICE), all)? || left.is_zero() {
                return Ok(());
            }
            if self.ctx.is_lost() {
                return Err(DeviceError::Lost { operation: OPERATION });
            }
        }
    }

    fn enter_wait(&self) -> Result<(), DeviceError> {
        let _section = exit::section();
        self.injector.enter(&self.ctx, OPERATION, Can::BeLost)
    }

    /// Whether they were reached before `timeout` had passed.
    fn wait_slice(
        &self,
        semaphores: &[vk::Semaphore],
        values: &[u64],
        timeout: Duration,
        flags: vk::SemaphoreWaitFlags,
    ) -> Result<bool, DeviceError> {
        let info = vk::SemaphoreWaitInfo::default().flags(flags).semaphores(semaphores).values(values);
        // SAFETY: vkWaitSemaphores: the semaphores are timelines that live as long as `self`.
        match unsafe { self.ctx.device.wait_semaphores(&info, timeout.as_nanos() as u64) } {
            Ok(()) => Ok(true),
            Err(vk::Result::TIMEOUT) => Ok(false),
            Err(e) => Err(self.ctx.failed(OPERATION, 0, e)),
        }
    }

    /// The next submission's place in the order of all.
    pub(crate) fn next_order(&self) -> u64 {
        self.orders.fetch_add(1, Ordering::Relaxed)
    }
}
