//! Paged launches: whole ranges, of any size, of which what a kernel really touches moves (docs/PAGING.md).

use crate::access::{Access, Arguments};
use crate::error::Error;
use crate::launch::{Grid, Launch, foreign, push_constants};
use crate::{Kernel, Result, Runtime};
use std::sync::Arc;
use vkhmm_engine::{BindTo, PagedArgument, PagedSpec};

/// Groups of a paged launch: they are numbered in 32 bits.
const GROUPS_MAX: u64 = u32::MAX as u64;

impl Runtime {
    /// Makes a paged kernel, for [`Runtime::launch_paged`]: one that includes `shaders/vkhmm.glsl`, and so finds what it touches by
    /// tables. [`Runtime::kernel_builder`] makes them too.
    ///
    /// # Errors
    /// As [`Runtime::kernel`]; `NotPaged`: the module does not carry the mark of `vkhmm.glsl`.
    ///
    /// # Safety
    /// The module is valid SPIR-V; every group terminates, and has no data race with others; it reads and writes by addresses that
    /// `vkhmm.glsl` gave it in that very run, as far as these reach; and it can be *replayed*: before a group's vote, or an item's last
    /// try, it stores nothing that outlives it and performs no atomics (the head of `vkhmm.glsl` has the list).
    pub unsafe fn kernel_paged(&self, spirv: impl AsRef<[u8]>) -> Result<Kernel> {
        // SAFETY: the caller's contract covers the builder's.
        let kernel = unsafe { self.kernel_builder(spirv).build()? };
        match kernel.kernel.reflection().paged {
            Some(_) => Ok(kernel),
            None => Err(Error::NotPaged { kernel: kernel.name().into() }),
        }
    }

    /// Runs a paged kernel on whole allocations, which may be larger than the device: what its groups touch is brought while they
    /// run, by rounds of those that are not done. Returns once the host views of what it is given are gone, or read-only; from
    /// then on it looks as if it had run inside the call.
    ///
    /// Accesses are the ranges 0, 1, 2 … of the shader, in order; values fill the push constants behind the launch's address. The grid
    /// is limited by 2³² groups alone. Unlike other launches it may fail late, said by [`Launch::wait`]: `WorkingSetTooLarge` if
    /// what one group touches does not fit, `Outside` if the kernel asked for what it was not given. What finished groups wrote
    /// stands then.
    ///
    /// # Errors
    /// On every error nothing has changed. `NotPaged`, `Arguments`, `NotWhole`, `GridTooLarge`, `ForeignRuntime`, and the
    /// [`crate::MemoryError`]s.
    pub fn launch_paged<'a>(
        &self,
        kernel: &Kernel,
        grid: Grid,
        arguments: impl Arguments<'a>,
    ) -> Result<Launch> {
        let collected = arguments.collect_all();
        foreign(&self.inner, kernel, &collected.accesses)?;
        let reflection = kernel.kernel.reflection();
        let Some(paged) = reflection.paged else {
            return Err(Error::NotPaged { kernel: kernel.name().into() });
        };
        if !reflection.bindings.is_empty() {
            let have = format!("a kernel with {} bindings", reflection.bindings.len());
            let need = "no storage buffers where it is paged: every access is a range of vkhmm.glsl".into();
            return Err(Error::Arguments { kernel: kernel.name().into(), need, have });
        }
        let groups = grid.resolve(kernel.local_size(), [u32::MAX; 3])?;
        let total = groups.iter().try_fold(1_u64, |all, g| all.checked_mul(u64::from(*g)));
        if total.is_none_or(|total| total > GROUPS_MAX) {
            let (dimension, need) =
                groups.into_iter().enumerate().max_by_key(|(_, g)| *g).unwrap_or_default();
            return Err(Error::GridTooLarge { dimension, need, limit: GROUPS_MAX as u32 });
        }
        let push = push_constants(kernel, &[BindTo::Address(0)], &collected.values)?;
        let arguments = collected.accesses.into_iter().enumerate().map(whole).collect::<Result<_>>()?;
        let spec = PagedSpec {
            kernel: Arc::clone(&kernel.kernel),
            groups,
            items: paged.items,
            arguments,
            push,
            label: kernel.name().into(),
        };
        let op = self.inner.engine.launch_paged(spec)?;
        Ok(Launch::new(Arc::clone(&self.inner), vec![op]))
    }
}

/// An access as a range of the shader: all of an allocation, or nothing at all.
fn whole((argument, access): (usize, Access<'_>)) -> Result<PagedArgument<crate::ports::Real>> {
    let bytes = access.range.as_ref().map_or(0, |range| range.bytes());
    if access.bytes.start != 0 || access.bytes.end != bytes {
        return Err(Error::NotWhole { argument, start: access.bytes.start, end: access.bytes.end, bytes });
    }
    Ok(PagedArgument { range: access.range, access: access.kind })
}
