//! What a range can be placed as on this device, tried out at start, and the reason in words for whatever cannot be.

use crate::bind::Binder;
use crate::config::Config;
use crate::context::Context;
use crate::error::OpenError;
use crate::features::Features;
use crate::import::{self, PIECE_BYTES_MAX};
use crate::memory::{Arena, FRAME_BYTES, SparseSpace};
use crate::probe;
use crate::queues::{Plan, Queue};
use crate::staging::Staging;
use ash::vk;
use std::sync::Arc;
use vkhmm_port::{DeviceError, ImportProfile, RawBytes, Role};

/// Whether binds are worth a timeline: the reason why not. What only a try can tell comes later ([`sparse`]).
pub(crate) fn wants_binds(there: &Features, on: &Features, config: &Config) -> Result<(), &'static str> {
    if !config.switches.sparse {
        return Err("sparse buffers are switched off");
    }
    if !there.sparse_buffers() {
        return Err("the driver has no sparse buffers");
    }
    if !on.sparse_buffers() {
        return Err("sparseBinding and sparseResidencyBuffer are not both on");
    }
    if config.switches.frame_guard {
        return Err("the frame guard's memory cannot be bound to sparse buffers");
    }
    Ok(())
}

/// Sparse buffers and what binds them, if there are some; and the sentence that says so or why not.
pub(crate) fn sparse(
    ctx: &Arc<Context>,
    arena: &mut Arena,
    staging: &Staging,
    queues: &[Queue],
    plan: &Plan,
    config: &Config,
) -> Result<(Option<(SparseSpace, Binder)>, String), OpenError> {
    let no = |why: &str| Ok((None, format!("span, each argument in one run of frames: {why}")));
    if let Err(why) = wants_binds(&ctx.physical.features, &ctx.features, config) {
        return no(why);
    }
    if !plan.binds() {
        return no("no queue takes binds");
    }
    let space = match SparseSpace::query(ctx, arena.kind.index) {
        Ok(space) => space,
        Err(why) => return no(&why),
    };
    let binder = Binder::new(ctx)?;
    let queue = |role: Role| &queues[plan.roles[role as usize]];
    let (runs, binds) = (queue(Role::Compute), queue(Role::Bind));
    match probe::sparse(ctx, arena, staging, [runs, binds], &space, &binder) {
        Ok(()) => {}
        // A driver may lose the device over binds that it should have refused; nothing can be opened on it then.
        Err(e) if ctx.is_gone() => return Err(e.into()),
        Err(e) => return no(&e.to_string()),
    }
    let profile = space.profile();
    arena.align_for_binds(profile.page_bytes);
    let words = format!(
        "sparse, one address for life: frames bound in any order came back right (units of {} KiB, buffers up to {} MiB, {} MiB \
         in all)",
        profile.page_bytes >> 10,
        profile.buffer_bytes_max >> 20,
        profile.space_bytes >> 20
    );
    Ok((Some((space, binder)), words))
}

/// What imports can do, each with its reason.
pub(crate) struct Imports {
    pub(crate) profile: Option<ImportProfile>,
    pub(crate) words: String,
    pub(crate) in_place_bytes_max: Option<u64>,
    pub(crate) in_place_words: String,
}

/// Whether A is imported, and whether kernels can work there.
pub(crate) fn imports(
    ctx: &Arc<Context>,
    cache: vk::PipelineCache,
    arena: &Arena,
    queue: &Queue,
    empty: vk::Buffer,
    config: &Config,
    host: Option<RawBytes>,
) -> Result<Imports, OpenError> {
    let (host, alignment) = match can_import(ctx, config, host) {
        Ok(found) => found,
        Err(why) => {
            let in_place_words = format!("off, kernels work on frames: imports are off ({why})");
            let words = format!("off, staging only: {why}");
            return Ok(Imports { profile: None, words, in_place_bytes_max: None, in_place_words });
        }
    };
    // A driver may lose the device over an import that it should have refused; nothing can be opened on it then.
    let tried = |result: Result<(), DeviceError>| match result {
        Err(e) if ctx.is_gone() => Err(OpenError::from(e)),
        other => Ok(other.map_err(|e| e.to_string())),
    };
    let in_place = if ctx.physical.imports_storage {
        let both = probe::import(ctx, arena, queue, host, true)
            .and_then(|()| probe::in_place(ctx, cache, queue, empty, host));
        tried(both)?
    } else {
        Err("the driver does not say that kernels may use imported host memory".into())
    };
    let copies =
        if in_place.is_ok() { Ok(()) } else { tried(probe::import(ctx, arena, queue, host, false))? };
    let in_place_bytes_max = in_place.is_ok().then(|| import::bytes_max(&ctx.physical));
    let in_place_words = match in_place {
        Ok(()) => format!(
            "on, up to {} MiB: a kernel on imported memory left the right bytes",
            import::bytes_max(&ctx.physical) >> 20
        ),
        Err(why) => format!("off, kernels work on frames: {why}"),
    };
    let (profile, words) = match copies {
        Ok(()) => {
            let words = "on: copies through an import came back right both ways".into();
            (Some(ImportProfile { alignment_bytes: alignment, piece_bytes_max: PIECE_BYTES_MAX }), words)
        }
        Err(why) => (None, format!("off, staging only: {why}")),
    };
    Ok(Imports { profile, words, in_place_bytes_max, in_place_words })
}

/// Memory to try with and the alignment of imports, or why there is nothing to try.
fn can_import(
    ctx: &Context,
    config: &Config,
    host: Option<RawBytes>,
) -> Result<(RawBytes, u64), &'static str> {
    if !config.switches.import {
        return Err("switched off");
    }
    if ctx.external_host.is_none() {
        return Err("VK_EXT_external_memory_host is not there, or not on");
    }
    if !ctx.physical.imports_buffers {
        return Err("the driver does not say that buffers may be bound to imported host memory");
    }
    let alignment = ctx.physical.import_alignment;
    if alignment == 0 || FRAME_BYTES % alignment != 0 {
        return Err("the driver's alignment for imports is not one that sub-blocks have");
    }
    host.map(|host| (host, alignment)).ok_or("no memory to try with was given")
}
