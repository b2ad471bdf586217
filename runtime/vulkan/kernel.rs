//! Kernels: a module is read, compared with what the device has, and made into a pipeline.

use crate::context::Context;
use crate::error::KernelError;
use crate::reflect::{LocalSize, Reflection, reflect};
use ash::vk;
use core::fmt;
use std::ffi::CString;
use std::sync::Arc;
use vkhmm_core::paging::layout as abi;

/// How to make a kernel out of a module. The default takes the only entry point and every constant's default.
#[derive(Clone, Debug, Default)]
pub struct KernelOptions {
    /// The entry point; needed only where the module has several.
    pub entry: Option<String>,
    /// Specialisation constants: SpecId and value.
    pub spec: Vec<(u32, SpecValue)>,
    /// The subgroup size to run with; a power of two that the device offers.
    pub subgroup_size: Option<u32>,
    /// What messages call it; the entry point's name if empty.
    pub name: String,
    /// Its launches are timed, where the queue has a clock. Reading the clock before and behind a kernel keeps it apart from its
    /// neighbours, and costs a software device more than a small kernel does.
    pub timed: bool,
}

/// The value of a specialisation constant, as the bytes that the module's type takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecValue {
    bytes: [u8; 8],
    len: u8,
}

impl SpecValue {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

macro_rules! spec_from {
    ($($t:ty),*) => {$(
        impl From<$t> for SpecValue {
            fn from(value: $t) -> Self {
                let from = value.to_ne_bytes();
                let mut bytes = [0; 8];
                bytes[..from.len()].copy_from_slice(&from);
                Self { bytes, len: from.len() as u8 }
            }
        }
    )*};
}
spec_from!(u8, i8, u16, i16, u32, i32, f32, u64, i64, f64);

impl From<bool> for SpecValue {
    fn from(value: bool) -> Self {
        Self::from(u32::from(value))
    }
}

/// A compute pipeline with what its module says about itself. Dropping it destroys it; submissions that run it keep it.
pub struct VulkanKernel {
    ctx: Arc<Context>,
    pub(crate) pipeline: vk::Pipeline,
    pub(crate) layout: vk::PipelineLayout,
    /// One per set number up to the largest in use; numbers without bindings have an empty one.
    pub(crate) set_layouts: Vec<vk::DescriptorSetLayout>,
    reflection: Reflection,
    local_size: [u32; 3],
    name: String,
    pub(crate) timed: bool,
}

impl VulkanKernel {
    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its bindings, push constants and needs.
    pub fn reflection(&self) -> &Reflection {
        &self.reflection
    }

    /// Invocations of one work group, specialisation applied.
    pub fn local_size(&self) -> [u32; 3] {
        self.local_size
    }

    /// Reads, checks and compiles.
    pub(crate) fn new(
        ctx: &Arc<Context>,
        cache: vk::PipelineCache,
        words: &[u32],
        options: KernelOptions,
    ) -> Result<Self, KernelError> {
        let reflection = reflect(words, options.entry.as_deref()).map_err(|e| KernelError::Module {
            kernel: if options.name.is_empty() { "(unnamed)".into() } else { options.name.clone() },
            reason: e.to_string(),
        })?;
        let name =
            if options.name.is_empty() { reflection.entry_point.clone() } else { options.name.clone() };
        let local_size = reflection.local_size.map(|size| resolve(size, &options.spec));
        let checks = Checks { ctx, name: &name, reflection: &reflection };
        checks.version(words)?;
        checks.capabilities()?;
        checks.paged()?;
        checks.limits(local_size)?;
        checks.specialisation(&options.spec)?;
        checks.subgroup(options.subgroup_size)?;
        let mut kernel = Self {
            ctx: Arc::clone(ctx),
            pipeline: vk::Pipeline::null(),
            layout: vk::PipelineLayout::null(),
            set_layouts: Vec::new(),
            reflection,
            local_size,
            name,
            timed: options.timed,
        };
        kernel.make_layouts()?;
        kernel.make_pipeline(cache, words, &options)?;
        Ok(kernel)
    }

    fn make_layouts(&mut self) -> Result<(), KernelError> {
        const OPERATION: &str = "make a kernel's layout";
        let sets = self.reflection.bindings.iter().map(|b| b.set + 1).max().unwrap_or(0);
        for set in 0..sets {
            let bindings: Vec<vk::DescriptorSetLayoutBinding<'_>> = self
                .reflection
                .bindings
                .iter()
                .filter(|b| b.set == set)
                .map(|b| {
                    vk::DescriptorSetLayoutBinding::default()
                        .binding(b.binding)
                        .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
                        .descriptor_count(1)
                        .stage_flags(vk::ShaderStageFlags::COMPUTE)
                })
                .collect();
            let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
            // SAFETY: vkCreateDescriptorSetLayout: binding numbers are distinct (reflection sorts and merges them).
            let layout = unsafe { self.ctx.device.create_descriptor_set_layout(&info, None) }
                .map_err(|e| self.ctx.failed(OPERATION, 0, e))?;
            self.set_layouts.push(layout);
        }
        let push = [vk::PushConstantRange::default()
            .stage_flags(vk::ShaderStageFlags::COMPUTE)
            .size(self.reflection.push.bytes.next_multiple_of(4))];
        let mut info = vk::PipelineLayoutCreateInfo::default().set_layouts(&self.set_layouts);
        if self.reflection.push.bytes > 0 {
            info = info.push_constant_ranges(&push);
        }
        // SAFETY: vkCreatePipelineLayout: sets, descriptors and push bytes are within limits (`Checks::limits`).
        self.layout = unsafe { self.ctx.device.create_pipeline_layout(&info, None) }
            .map_err(|e| self.ctx.failed(OPERATION, 0, e))?;
        Ok(())
    }

    fn make_pipeline(
        &mut self,
        cache: vk::PipelineCache,
        words: &[u32],
        options: &KernelOptions,
    ) -> Result<(), KernelError> {
        const OPERATION: &str = "compile a kernel";
        let device = &self.ctx.device;
        let info = vk::ShaderModuleCreateInfo::default().code(words);
        // SAFETY: vkCreateShaderModule: the caller of `VulkanDevice::kernel` promises valid SPIR-V; its capabilities are enabled.
        let module = unsafe { device.create_shader_module(&info, None) }
            .map_err(|e| self.ctx.failed(OPERATION, 0, e))?;
        let mut data: Vec<u8> = Vec::new();
        let mut entries: Vec<vk::SpecializationMapEntry> = Vec::new();
        for (id, value) in &options.spec {
            let entry = vk::SpecializationMapEntry::default()
                .constant_id(*id)
                .offset(data.len() as u32)
                .size(value.bytes().len());
            entries.push(entry);
            data.extend_from_slice(value.bytes());
        }
        let spec = vk::SpecializationInfo::default().map_entries(&entries).data(&data);
        let entry = CString::new(self.reflection.entry_point.as_str()).unwrap_or_default();
        let mut subgroup = vk::PipelineShaderStageRequiredSubgroupSizeCreateInfo::default();
        let mut stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(&entry)
            .specialization_info(&spec);
        if let Some(size) = options.subgroup_size {
            subgroup.required_subgroup_size = size;
            stage = stage.push_next(&mut subgroup);
        }
        let info = vk::ComputePipelineCreateInfo::default().stage(stage).layout(self.layout);
        // SAFETY: vkCreateComputePipelines: the layout declares every binding and push byte that reflection found, local size and
        // shared memory are within limits (`Checks`), and all pointers outlive the call.
        let made = unsafe { device.create_compute_pipelines(cache, &[info], None) };
        // SAFETY: vkDestroyShaderModule: a module may go once the pipeline is made.
        unsafe { device.destroy_shader_module(module, None) };
        let pipelines = made.map_err(|(_, e)| self.ctx.failed(OPERATION, 0, e))?;
        self.pipeline = pipelines[0];
        Ok(())
    }
}

impl fmt::Debug for VulkanKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VulkanKernel").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Drop for VulkanKernel {
    fn drop(&mut self) {
        let _section = crate::exit::section();
        // SAFETY: vkDestroyPipeline and its layouts: submissions keep their kernels by Arc until their ticket is reached
        // (`recycle.rs`); null handles (failed `new`) are allowed.
        unsafe {
            self.ctx.device.destroy_pipeline(self.pipeline, None);
            self.ctx.device.destroy_pipeline_layout(self.layout, None);
            for layout in &self.set_layouts {
                self.ctx.device.destroy_descriptor_set_layout(*layout, None);
            }
        }
    }
}

/// A local size with the values given.
fn resolve(size: LocalSize, spec: &[(u32, SpecValue)]) -> u32 {
    match size {
        LocalSize::Fixed(n) => n,
        LocalSize::Spec { id, default } => spec
            .iter()
            .find(|(given, _)| *given == id)
            .and_then(|(_, value)| value.bytes().try_into().ok())
            .map_or(default, u32::from_ne_bytes),
    }
}

/// What a module needs against what the device has.
struct Checks<'a> {
    ctx: &'a Context,
    name: &'a str,
    reflection: &'a Reflection,
}

impl Checks<'_> {
    fn unsupported(&self, what: &'static str, need: impl ToString, have: impl ToString) -> KernelError {
        KernelError::Unsupported {
            kernel: self.name.into(),
            what,
            need: need.to_string(),
            have: have.to_string(),
        }
    }

    fn at_most(&self, what: &'static str, need: u64, have: u64) -> Result<(), KernelError> {
        if need <= have { Ok(()) } else { Err(self.unsupported(what, need, format!("at most {have}"))) }
    }

    /// The version appendix of the Vulkan specification: 1.2 takes SPIR-V 1.5, 1.3 takes 1.6.
    fn version(&self, words: &[u32]) -> Result<(), KernelError> {
        let minor = |word: u32| (word >> 8) & 0xff;
        let most = if self.ctx.physical.api >= vk::API_VERSION_1_3 { 0x0001_0600 } else { 0x0001_0500 };
        match words.get(1) {
            Some(version) if *version > most => Err(self.unsupported(
                "SPIR-V version",
                format!("1.{}", minor(*version)),
                format!("at most 1.{}", minor(most)),
            )),
            _ => Ok(()),
        }
    }

    fn capabilities(&self) -> Result<(), KernelError> {
        for capability in &self.reflection.capabilities {
            let features = &self.ctx.features;
            features
                .allows(capability)
                .map_err(|have| self.unsupported("the capability", capability, have))?;
        }
        if self.reflection.local_size_by_id && self.ctx.features.v13.maintenance4 != vk::TRUE {
            return Err(self.unsupported("a local size", "LocalSizeId", "no maintenance4"));
        }
        Ok(())
    }

    /// A paged kernel and the host must agree on tables.
    fn paged(&self) -> Result<(), KernelError> {
        match self.reflection.paged {
            Some(paged) if paged.version != abi::VERSION => Err(self.unsupported(
                "a paged kernel",
                format!("version {} of vkhmm.glsl", paged.version),
                format!("version {}", abi::VERSION),
            )),
            _ => Ok(()),
        }
    }

    fn limits(&self, local: [u32; 3]) -> Result<(), KernelError> {
        let limits = &self.ctx.physical.limits;
        for (need, have) in local.into_iter().zip(limits.max_compute_work_group_size) {
            if need == 0 {
                return Err(self.unsupported("local size", 0, "sizes above zero"));
            }
            self.at_most("local size", need.into(), have.into())?;
        }
        let invocations = local.into_iter().map(u64::from).product();
        self.at_most("invocations per group", invocations, limits.max_compute_work_group_invocations.into())?;
        let shared = u64::from(limits.max_compute_shared_memory_size);
        self.at_most("bytes of shared memory", self.reflection.shared_bytes, shared)?;
        let push = u64::from(limits.max_push_constants_size);
        self.at_most("bytes of push constants", self.reflection.push.bytes.into(), push)?;
        let sets = self.reflection.bindings.iter().map(|b| u64::from(b.set) + 1).max().unwrap_or(0);
        self.at_most("descriptor sets", sets, limits.max_bound_descriptor_sets.into())?;
        let buffers =
            limits.max_per_stage_descriptor_storage_buffers.min(limits.max_descriptor_set_storage_buffers);
        self.at_most("storage buffers", self.reflection.bindings.len() as u64, buffers.into())
    }

    fn specialisation(&self, spec: &[(u32, SpecValue)]) -> Result<(), KernelError> {
        for (i, (id, value)) in spec.iter().enumerate() {
            let no = |reason: String| {
                Err(KernelError::Specialisation { kernel: self.name.into(), id: *id, reason })
            };
            if self.reflection.paged.is_some() && [abi::MARKER_ID, abi::ITEMS_ID].contains(id) {
                return no("it is what vkhmm.glsl says of the kernel, and not to be set".into());
            }
            let Some(info) = self.reflection.spec_constants.iter().find(|s| s.id == *id) else {
                let have: Vec<u32> = self.reflection.spec_constants.iter().map(|s| s.id).collect();
                return no(format!("the module has no such constant; it has {have:?}"));
            };
            if info.bytes as usize != value.bytes().len() {
                return no(format!("the module takes {} bytes, given {}", info.bytes, value.bytes().len()));
            }
            if spec[..i].iter().any(|(other, _)| other == id) {
                return no(String::from("given twice"));
            }
        }
        Ok(())
    }

    fn subgroup(&self, size: Option<u32>) -> Result<(), KernelError> {
        let Some(size) = size else { return Ok(()) };
        let (least, most) = self.ctx.physical.subgroup_sizes;
        let on = self.ctx.features.v13.subgroup_size_control == vk::TRUE && most > 0;
        if !on {
            return Err(self.unsupported("a subgroup size", size, "no control over it"));
        }
        if !size.is_power_of_two() || size < least || size > most {
            return Err(self.unsupported(
                "a subgroup size",
                size,
                format!("powers of two from {least} to {most}"),
            ));
        }
        Ok(())
    }
}
