//! An application's own queue beside an engine over the fakes.

use super::*;
use std::collections::VecDeque;
use std::sync::mpsc::{Sender, channel};
use vkhmm_core::units::Ticket;
use vkhmm_engine::Acquired;
use vkhmm_port::fake::FakeSemaphore;
use vkhmm_port::{BoundRange, Device};

/// What one submission does with the bytes it acquired.
pub type Work = Box<dyn FnOnce(&[RawBytes]) + Send>;

struct Job {
    wait: Ticket,
    parts: Vec<BoundRange<FakeDevice>>,
    work: Work,
    value: u64,
}

/// A queue with its timeline: submissions in order, each after its grant.
pub struct App {
    pub semaphore: FakeSemaphore,
    last: u64,
    jobs: Sender<Job>,
}

impl App {
    /// A queue that begins nothing before `may_begin`.
    pub fn new(device: &FakeDevice, may_begin: impl Fn() -> bool + Send + 'static) -> Self {
        let (jobs, queue) = channel::<Job>();
        let semaphore = FakeSemaphore::default();
        let (device, theirs) = (device.clone(), semaphore.clone());
        std::thread::spawn(move || {
            let mut waiting: VecDeque<Job> = VecDeque::new();
            while let Ok(job) = queue.recv() {
                waiting.push_back(job);
                until("the queue may begin", &may_begin);
                for job in waiting.drain(..) {
                    loop {
                        let Ok(seen) = device.completed() else { return };
                        if seen.on(job.wait.timeline) >= job.wait.value {
                            break;
                        }
                        let Ok(()) = device.wait(&seen, Duration::from_secs(5)) else { return };
                    }
                    device.work_on(&job.parts, job.work);
                    theirs.signal(job.value);
                }
            }
        });
        Self { semaphore, last: 0, jobs }
    }

    /// Submits work on what was acquired; the value that the semaphore reaches after it.
    pub fn submit<H: HostMemory>(
        &mut self,
        acquired: &Acquired<TestPorts<H>>,
        work: impl FnOnce(&[RawBytes]) + Send + 'static,
    ) -> u64 {
        self.last += 1;
        let parts = acquired.parts().iter().map(bound).collect();
        let job = Job { wait: acquired.wait(), parts, work: Box::new(work), value: self.last };
        self.jobs.send(job).expect("the queue lives");
        self.last
    }

    /// Submits and releases.
    pub fn run<H: HostMemory>(
        &mut self,
        acquired: Acquired<TestPorts<H>>,
        work: impl FnOnce(&[RawBytes]) + Send + 'static,
    ) {
        let value = self.submit(&acquired, work);
        acquired.release(self.semaphore.clone(), value);
    }
}

fn bound<H: HostMemory>(part: &vkhmm_engine::AcquiredPart<TestPorts<H>>) -> BoundRange<FakeDevice> {
    BoundRange { buffer: part.buffer.clone(), offset: part.offset, bytes: part.bytes }
}

impl<H: HostMemory> World<H> {
    pub fn acquire(&self, accesses: &[Access<'_, H>]) -> Result<Acquired<TestPorts<H>>, EngineError> {
        self.acquire_as("app", accesses)
    }

    pub fn acquire_as(
        &self,
        label: &str,
        accesses: &[Access<'_, H>],
    ) -> Result<Acquired<TestPorts<H>>, EngineError> {
        let spec = self.spec(&look(), accesses);
        self.engine.acquire(spec.arguments, label.into())
    }

    /// An application's queue that begins at once.
    pub fn app(&self) -> App {
        App::new(&self.device, || true)
    }

    /// Asks again while it is busy.
    pub fn acquired(&self, accesses: &[Access<'_, H>]) -> Acquired<TestPorts<H>> {
        let start = Instant::now();
        loop {
            match self.acquire(accesses) {
                Ok(acquired) => return acquired,
                Err(EngineError::Busy { .. }) if start.elapsed() < Duration::from_secs(10) => {
                    std::thread::sleep(Duration::from_micros(200));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}
