//! One application thread of a scenario: its steps, and what its bytes must be.

use super::{PAGE_BYTES, Stage, Step};
use crate::SimPorts;
use crate::explore::coverage::Event;
use std::sync::Arc;
use vkhmm_core::units::ByteRange;
use vkhmm_engine::{AccessKind, Argument, BindTo, EngineError, GuardKind, LaunchSpec, Op};
use vkhmm_port::fake::FakeKernel;

/// One application thread.
pub(super) struct Actor {
    pub(super) stage: Arc<Stage>,
    pub(super) me: usize,
    /// What its byte of each page must be.
    pub(super) mine: [u8; 2],
    pub(super) last: Option<Arc<Op<SimPorts>>>,
    pub(super) values: u8,
}

impl Actor {
    pub(super) fn step(&mut self, step: Step) {
        let stage = Arc::clone(&self.stage);
        stage.exec.note(format_args!("{step:?}"));
        let during = |event, page: usize, f: &mut dyn FnMut()| {
            stage.watcher.during(&stage.exec, event, &[stage.watched(page)], f);
        };
        match step {
            Step::Load(page) => self.load(page),
            Step::Store(page) => self.store(page),
            Step::Read(page) => {
                let (me, want) = (self.me, self.mine[page]);
                let kernel = FakeKernel::new(move |bindings, _, _| {
                    let got = bindings[0].to_vec()[me];
                    assert_eq!(got, want, "twin: a kernel read byte {me} of page {page}");
                });
                during(Event::Read, page, &mut || {
                    self.launch(&kernel, page, AccessKind::Read);
                });
            }
            Step::Write(page) => {
                let me = self.me;
                let kernel = FakeKernel::new(move |bindings, _, _| {
                    let byte = bindings[0].slice(me, 1);
                    byte.write(&[byte.to_vec()[0].wrapping_add(16)]);
                });
                during(Event::Write, page, &mut || {
                    if self.launch(&kernel, page, AccessKind::Write) {
                        self.mine[page] = self.mine[page].wrapping_add(16);
                    }
                });
            }
            Step::Overwrite(page) => {
                let value = self.value();
                let kernel = FakeKernel::new(move |bindings, _, _| bindings[0].fill(value));
                during(Event::Overwrite, page, &mut || {
                    if self.launch(&kernel, page, AccessKind::Overwrite) {
                        self.mine[page] = value;
                    }
                });
            }
            Step::In(page) => during(Event::PrefetchIn, page, &mut || {
                let (range, offset) = stage.place(page);
                let done = stage.engine.prefetch_to_device(&range, page_at(offset));
                stage.allow(done.map(drop), "prefetch to the device");
            }),
            Step::Out(page) => during(Event::PrefetchOut, page, &mut || {
                let (range, offset) = stage.place(page);
                let done = stage.engine.prefetch_to_host(&range, page_at(offset));
                stage.allow(done.map(drop), "prefetch to the host");
            }),
            Step::Home(page) => self.home(page, GuardKind::Read),
            Step::HomeToStore(page) => self.home(page, GuardKind::Write),
            Step::Guard(page) => self.guard(page),
            Step::Trim => {
                let done = stage.engine.trim(stage.geometry.frame_bytes());
                stage.allow(done.map(drop), "trim");
            }
            Step::Wait => {
                if let Some(op) = self.last.take() {
                    let done = stage.engine.wait(&op, None);
                    stage.allow(done.map(drop), "wait");
                }
            }
            Step::Renew(page) => {
                let (range, _) = stage.place(page);
                during(Event::Free, page, &mut || stage.engine.free(&range));
                stage.allocate(page);
                self.mine[page] = 0;
            }
            Step::Lose => {
                stage.watcher.lost();
                stage.device.lose();
            }
        }
    }

    /// A value that this thread has not used yet.
    fn value(&mut self) -> u8 {
        self.values += 1;
        self.values + 100 * self.me as u8
    }

    fn load(&self, page: usize) {
        let (range, offset) = self.stage.place(page);
        let start = range.offset() + offset + self.me as u64;
        match self.stage.host.load((start..start + 1).into()) {
            Ok(got) => assert_eq!(got[0], self.mine[page], "twin: thread {} loads page {page}", self.me),
            Err(error) => assert!(self.stage.loses, "a load: {error}"),
        }
    }

    fn store(&mut self, page: usize) {
        let value = self.value();
        let (range, offset) = self.stage.place(page);
        match self.stage.host.store(range.offset() + offset + self.me as u64, &[value]) {
            Ok(()) => self.mine[page] = value,
            Err(error) => assert!(self.stage.loses, "a store: {error}"),
        }
    }

    /// Whether it was launched.
    fn launch(&mut self, kernel: &FakeKernel, page: usize, access: AccessKind) -> bool {
        let (range, offset) = self.stage.place(page);
        let argument = Argument { range: Some(range), bytes: page_at(offset), access, bind: BindTo::Binding };
        let launched = self.stage.engine.launch(LaunchSpec {
            kernel: Some(Arc::new(kernel.clone())),
            groups: [1; 3],
            arguments: vec![argument],
            push: Vec::new(),
            label: "kernel".into(),
        });
        match launched {
            Ok(op) => {
                self.last = Some(op);
                true
            }
            Err(error) => {
                self.stage.allow(Err(error), "launch");
                false
            }
        }
    }

    fn home(&self, page: usize, kind: GuardKind) {
        let stage = &self.stage;
        let (range, offset) = stage.place(page);
        let done = stage.watcher.during(&stage.exec, Event::Home, &[stage.watched(page)], || {
            stage.engine.bring_home(&range, page_at(offset), kind)
        });
        stage.allow(done, "bring home");
    }

    /// While it is guarded the page is home: its byte is there, in A.
    fn guard(&self, page: usize) {
        let stage = &self.stage;
        let (range, offset) = stage.place(page);
        let guard = stage.watcher.during(&stage.exec, Event::Home, &[stage.watched(page)], || {
            stage.engine.guard(&range, page_at(offset), GuardKind::Write)
        });
        match guard {
            Ok(guard) => {
                self.load(page);
                stage.engine.drop_guard(&range, page_at(offset), guard);
            }
            Err(error) => stage.allow(Err(error), "guard"),
        }
    }
}

impl Stage {
    /// An error that this scenario may lead to.
    fn allow(&self, done: Result<(), EngineError>, what: &str) {
        match done {
            Ok(()) => {}
            Err(EngineError::DeviceLost { .. } | EngineError::Lost { .. }) if self.loses => {}
            Err(EngineError::Guarded { .. }) if self.guards => {}
            // The only frame cannot be had while its page is guarded or queued for another thread.
            Err(EngineError::WorkingSetTooLarge { .. }) if self.guards => {}
            Err(error) => panic!("{what}: {error}"),
        }
    }
}

fn page_at(offset: u64) -> ByteRange {
    ByteRange { start: offset, end: offset + PAGE_BYTES }
}
