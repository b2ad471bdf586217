//! Kernels: SPIR-V modules made into something that can be launched.

use crate::error::vkhmm_result::*;
use crate::error::{Failure, call, vkhmm_result};
use crate::handles::{self, Kind};
use crate::input::{self, Options, Out, OutText};
use crate::runtime::{Runtime, vkhmm_runtime};
use std::ffi::{c_char, c_void};
use vkhmm::{KernelBuilder, SpecValue};

pub(crate) struct Kernel(pub(crate) vkhmm::Kernel);

impl Kind for Kernel {
    const TAG: u64 = 3;
}

/// A compiled kernel. Zero names none.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vkhmm_kernel {
    /// Opaque.
    pub id: u64,
}

/// A specialisation constant.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vkhmm_spec {
    /// Its SpecId in the module.
    pub id: u32,
    /// Bytes of the value: 1, 2, 4 or 8; 4 for a bool.
    pub bytes: u32,
    /// The value in the low bytes: memcpy a float here.
    pub bits: u64,
}

/// Options of a kernel. Zero everything, set size to sizeof, then what is wanted.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vkhmm_kernel_options {
    /// sizeof(vkhmm_kernel_options).
    pub size: usize,
    /// The entry point; needed only where the module has several.
    pub entry: *const c_char,
    /// What messages call it. Default: the entry point.
    pub name: *const c_char,
    /// Specialisation constants.
    pub specs: *const vkhmm_spec,
    /// How many.
    pub spec_count: usize,
    /// The subgroup size to run with. Default: the device's choice.
    pub subgroup_size: u32,
    /// Nonzero: its launches are timed, for vkhmm_launch_elapsed. Not free: it keeps the kernel apart from its neighbours.
    pub timed: u32,
}

// SAFETY: repr(C), a usize first, then numbers and pointers, for which zero is a value.
unsafe impl Options for vkhmm_kernel_options {
    const FIRST_BYTES: usize = size_of::<Self>();
}

fn spec(builder: KernelBuilder, spec: vkhmm_spec) -> Result<KernelBuilder, Failure> {
    let value: SpecValue = match spec.bytes {
        1 => (spec.bits as u8).into(),
        2 => (spec.bits as u16).into(),
        4 => (spec.bits as u32).into(),
        8 => spec.bits.into(),
        other => {
            let id = spec.id;
            return Err(Failure::argument(format!(
                "specialisation constant {id} has {other} bytes: pass 1, 2, 4 or 8"
            )));
        }
    };
    Ok(builder.spec(spec.id, value))
}

/// Makes a kernel from a SPIR-V module of `bytes` bytes, which may be freed afterwards. `options` may be NULL. Ends with
/// vkhmm_kernel_destroy, or with its runtime.
///
/// The contract is the caller's: the module is valid SPIR-V, and for every launch whose arguments pass the checks the kernel terminates,
/// has no data race, reads only what it is given, and writes only what it is given for writing.
///
/// # Errors
/// KERNEL, UNSUPPORTED, DEVICE_LOST, REFUSED, INVALID_ARGUMENT; of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_kernel_create(
    runtime: vkhmm_runtime,
    spirv: *const c_void,
    bytes: usize,
    options: *const vkhmm_kernel_options,
    kernel: *mut vkhmm_kernel,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointers.
        let (out, spirv, entry, name, options, specs) = unsafe {
            let options = input::options(options, "options")?;
            (
                Out::new(kernel, "kernel")?,
                input::list(spirv.cast::<u8>(), bytes, "spirv")?,
                input::text(options.entry, "entry")?,
                input::text(options.name, "name")?,
                options,
                input::list(options.specs, options.spec_count, "specs")?,
            )
        };
        let (rt, owner) = handles::get::<Runtime>(runtime.id)?;
        let mut builder = rt.0.kernel_builder(spirv);
        if let Some(entry) = entry {
            builder = builder.entry(&entry);
        }
        if let Some(name) = name {
            builder = builder.name(&name);
        }
        if options.subgroup_size > 0 {
            builder = builder.subgroup_size(options.subgroup_size);
        }
        if options.timed != 0 {
            builder = builder.timed();
        }
        for constant in specs {
            builder = spec(builder, constant)?;
        }
        // SAFETY: the contract of the module is the caller's, as documented.
        let made = unsafe { builder.build()? };
        out.set(vkhmm_kernel { id: handles::insert(owner, Kernel(made))? });
        Ok(VKHMM_OK)
    })
}

/// Gives a kernel up; what the device still runs of it stays until it is done. In a forked child it does nothing.
///
/// # Errors
/// STALE_HANDLE if it was destroyed before, INVALID_HANDLE, FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn vkhmm_kernel_destroy(kernel: vkhmm_kernel) -> vkhmm_result {
    call(|| {
        drop(handles::remove::<Kernel>(kernel.id)?);
        Ok(VKHMM_OK)
    })
}

/// What messages call it.
///
/// # Errors
/// Of texts, of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_kernel_name(
    kernel: vkhmm_kernel,
    text: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointers.
        let out = unsafe { OutText::new(text, capacity, needed)? };
        out.set(handles::get::<Kernel>(kernel.id)?.0.0.name())
    })
}

/// Invocations of one work group: three numbers, x first.
///
/// # Errors
/// Of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_kernel_local_size(kernel: vkhmm_kernel, size: *mut [u32; 3]) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointer.
        let out = unsafe { Out::new(size, "size")? };
        out.set(handles::get::<Kernel>(kernel.id)?.0.0.local_size());
        Ok(VKHMM_OK)
    })
}
