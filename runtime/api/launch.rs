//! Launching: arguments against the kernel, grid against the device, then the engine.

use crate::access::{Access, Arguments};
use crate::error::Error;
use crate::kernel::Kernel;
use crate::ports::Op;
use crate::record::Recorder;
use crate::runtime::{Inner, Runtime};
use crate::{AccessKind, Paging, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vkhmm_engine::{Argument, BindTo, LaunchSpec};
use vkhmm_port::Device;
use vkhmm_vulkan::reflect::{PushKind, PushMember};

/// Longer timeouts are this long: clocks count nanoseconds in 64 bits.
pub(crate) const TIMEOUT_MAX: Duration = Duration::from_secs(1 << 32);

/// How many work groups run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grid {
    /// Enough invocations for that many items, folded over x and y: for kernels that number items by
    /// `(group.y * groups.x + group.x) * local_size + local index` and check the bound, as the shipped ones do.
    Linear(usize),
    /// Exactly these groups.
    Groups([u32; 3]),
}

impl Grid {
    /// One invocation per item.
    pub const fn linear(items: usize) -> Self {
        Self::Linear(items)
    }

    /// Exactly `x`, `y` and `z` groups.
    pub const fn groups(x: u32, y: u32, z: u32) -> Self {
        Self::Groups([x, y, z])
    }

    pub(crate) fn resolve(self, local: [u32; 3], max: [u32; 3]) -> Result<[u32; 3]> {
        let groups = match self {
            Self::Groups(groups) => groups,
            Self::Linear(items) => {
                let per_group = local.iter().map(|l| u64::from(*l)).product::<u64>().max(1);
                let need = (items as u64).div_ceil(per_group);
                let rows = need.div_ceil(u64::from(max[0])).max(1);
                let x = need.div_ceil(rows);
                [x as u32, u32::try_from(rows).unwrap_or(u32::MAX), 1]
            }
        };
        match groups.iter().zip(max).position(|(need, limit)| *need > limit) {
            Some(dimension) => {
                Err(Error::GridTooLarge { dimension, need: groups[dimension], limit: max[dimension] })
            }
            None => Ok(groups),
        }
    }
}

/// Work on its way. `Send + 'static`, borrows nothing: dropping or forgetting it changes nothing, since the first touch of what it
/// writes waits for it anyway.
pub struct Launch {
    inner: Arc<Inner>,
    ops: Vec<Arc<Op>>,
}

impl Launch {
    pub(crate) fn new(inner: Arc<Inner>, ops: Vec<Arc<Op>>) -> Self {
        Self { inner, ops }
    }

    /// Both as one: over when both are.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.ops.append(&mut other.ops);
    }

    /// Waits until it is over. May be called any number of times.
    ///
    /// # Errors
    /// `DeviceLost`: every page it was to write is lost; `ForkedChild`.
    pub fn wait(&self) -> Result<()> {
        for op in &self.ops {
            self.inner.engine.wait(op, None)?;
        }
        Ok(())
    }

    /// Waits at most `timeout`. Whether it is over.
    ///
    /// # Errors
    /// As [`Launch::wait`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool> {
        let until = Instant::now() + timeout.min(TIMEOUT_MAX);
        for op in &self.ops {
            let left = until.saturating_duration_since(Instant::now());
            if !self.inner.engine.wait(op, Some(left))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether it is over.
    pub fn is_done(&self) -> bool {
        self.ops.iter().all(|op| self.inner.engine.is_done(op))
    }

    /// How long the kernel ran on the device, once it is over and where the device has a clock; of kernels that are
    /// [timed](crate::KernelBuilder::timed).
    pub fn elapsed(&self) -> Option<Duration> {
        let ns: u64 = self.ops.iter().map(|op| op.elapsed_ns()).sum();
        (self.is_done() && ns > 0).then(|| Duration::from_nanos(ns))
    }
}

impl Launch {
    /// What paging did, once a paged launch is over.
    pub fn paging(&self) -> Option<Paging> {
        self.ops.iter().find_map(|op| op.paging())
    }
}

impl std::fmt::Debug for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launch").field("done", &self.is_done()).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Runs a kernel. Returns at once: the host views of what it writes are gone, of what it reads are read-only, and everything
    /// launched later sees what it did. It blocks only for device memory that earlier launches use, and for paged launches of the same
    /// bytes ([`Runtime::launch_paged`]), which no queue can wait for.
    ///
    /// Accesses fill the kernel's storage buffers in (set, binding) order; once these are used up, they fill push-constant members
    /// that are device addresses, in offset order. Values fill the other members in order; one struct may fill the rest of the
    /// block. An empty access binds nothing and has address zero. An empty grid runs nothing, and still orders.
    ///
    /// # Errors
    /// On every error nothing has changed. `Arguments`, `WritesReadOnlyArgument`, `GridTooLarge`, `BindingTooLarge`, `Misaligned`,
    /// `ForeignRuntime`, `Paged`, and the [`crate::MemoryError`]s.
    pub fn launch<'a>(&self, kernel: &Kernel, grid: Grid, arguments: impl Arguments<'a>) -> Result<Launch> {
        let collected = arguments.collect_all();
        foreign(&self.inner, kernel, &collected.accesses)?;
        if kernel.kernel.reflection().paged.is_some() {
            return Err(Error::Paged { kernel: kernel.name().into() });
        }
        let profile = self.inner.engine.device().profile();
        let groups = grid.resolve(kernel.local_size(), profile.groups_max)?;
        let binds = self.bind(kernel, &collected.accesses)?;
        let push = push_constants(kernel, &binds, &collected.values)?;
        let arguments = collected
            .accesses
            .into_iter()
            .zip(binds)
            .map(|(a, bind)| Argument { range: a.range, bytes: a.bytes, access: a.kind, bind })
            .collect();
        let runs = groups.iter().all(|g| *g > 0);
        let spec = LaunchSpec {
            kernel: runs.then(|| Arc::clone(&kernel.kernel)),
            groups,
            arguments,
            push,
            label: kernel.name().into(),
        };
        let line = self.inner.record.as_ref().map(|_| Recorder::line(&spec));
        let op = self.inner.engine.launch(spec)?;
        if let (Some(record), Some(line)) = (&self.inner.record, line) {
            record.note(&line);
        }
        Ok(Launch::new(Arc::clone(&self.inner), vec![op]))
    }

    /// Which access goes where, with every check that needs the kernel.
    fn bind(&self, kernel: &Kernel, accesses: &[Access<'_>]) -> Result<Vec<BindTo>> {
        let reflection = kernel.kernel.reflection();
        let bindings = &reflection.bindings;
        let mut addresses = reflection.push.members.iter().filter(|m| m.kind == PushKind::Address);
        let profile = self.inner.engine.device().profile();
        let mut binds = Vec::with_capacity(accesses.len());
        for (i, access) in accesses.iter().enumerate() {
            let Some(binding) = bindings.get(i) else {
                let Some(member) = addresses.next() else {
                    return Err(argument_count(kernel, accesses.len()));
                };
                binds.push(BindTo::Address(member.offset));
                continue;
            };
            if binding.may_write && access.kind == AccessKind::Read {
                return Err(Error::WritesReadOnlyArgument {
                    kernel: kernel.name().into(),
                    argument: i,
                    binding: binding.binding,
                    name: binding.name.clone(),
                });
            }
            if access.bytes.len() > profile.binding_bytes_max {
                return Err(Error::BindingTooLarge {
                    kernel: kernel.name().into(),
                    argument: i,
                    need: access.bytes.len(),
                    limit: profile.binding_bytes_max,
                });
            }
            let need = profile.binding_alignment_bytes;
            if access.bytes.start % need != 0 {
                let offset = access.bytes.start;
                let nearest = offset / need * need;
                return Err(Error::Misaligned {
                    kernel: kernel.name().into(),
                    argument: i,
                    offset,
                    need,
                    nearest,
                });
            }
            binds.push(BindTo::Binding);
        }
        if accesses.len() < bindings.len() {
            return Err(argument_count(kernel, accesses.len()));
        }
        Ok(binds)
    }
}

/// Refuses what belongs to another runtime.
pub(crate) fn foreign(inner: &Arc<Inner>, kernel: &Kernel, accesses: &[Access<'_>]) -> Result<()> {
    let argument = accesses.iter().position(|a| !Arc::ptr_eq(&a.inner, inner));
    let foreign_kernel = !std::ptr::eq(kernel.owner.as_ptr(), Arc::as_ptr(inner));
    match argument.or(foreign_kernel.then_some(accesses.len())) {
        Some(argument) => Err(Error::ForeignRuntime { argument }),
        None => Ok(()),
    }
}

fn argument_count(kernel: &Kernel, have: usize) -> Error {
    let reflection = kernel.kernel.reflection();
    let addresses = reflection.push.members.iter().filter(|m| m.kind == PushKind::Address).count();
    Error::Arguments {
        kernel: kernel.name().into(),
        need: format!("{} storage buffers and up to {addresses} device addresses", reflection.bindings.len()),
        have: format!("{have} accesses"),
    }
}

/// The push-constant block with every value in its place; addresses are left for the engine.
pub(crate) fn push_constants(kernel: &Kernel, binds: &[BindTo], values: &[Vec<u8>]) -> Result<Vec<u8>> {
    let layout = &kernel.kernel.reflection().push;
    let bound = |m: &&PushMember| !binds.contains(&BindTo::Address(m.offset));
    let open: Vec<&PushMember> = layout.members.iter().filter(bound).collect();
    let mismatch = |have: String| {
        let need: Vec<String> = open.iter().map(|m| format!("{} ({} bytes)", m.name, m.bytes)).collect();
        let need =
            if need.is_empty() { "no values".into() } else { format!("the values {}", need.join(", ")) };
        Error::Arguments { kernel: kernel.name().into(), need, have }
    };
    let mut push = vec![0; layout.bytes as usize];
    let mut at = 0;
    for value in values {
        let Some(member) = open.get(at) else { return Err(mismatch(format!("{} values", values.len()))) };
        let start = member.offset as usize;
        let rest =
            open[at..].windows(2).all(|w| w[1].offset >= w[0].offset + w[0].bytes) && open.len() - at > 1;
        if value.len() == member.bytes as usize {
            at += 1;
        } else if rest
            && start + value.len() == layout.bytes as usize
            && binds.iter().all(|b| !matches!(b, BindTo::Address(at) if *at as usize >= start))
        {
            at = open.len();
        } else {
            return Err(mismatch(format!("a value of {} bytes for {}", value.len(), member.name)));
        }
        push[start..start + value.len()].copy_from_slice(value);
    }
    if at < open.len() {
        return Err(mismatch(format!("{} values", values.len())));
    }
    Ok(push)
}
