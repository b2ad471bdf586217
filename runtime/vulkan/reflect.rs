//! What a compute shader asks for, read from its SPIR-V: local size, storage buffers and how they are used, push constants,
//! capabilities, specialisation constants.
//!
//! ```text
//! words ─► module   ids, names, decorations, constants
//!            ├───► layout   bytes of types, push-constant members
//!            ├───► flow     which variables the entry point reaches, loads and stores
//!            └───► Reflection
//! ```
//!
//! Nothing here asks a device: the reader of a [`Reflection`] compares it with the device's limits. It is no validator; a module
//! that breaks the rules of SPIR-V is either refused or described as written.

mod flow;
mod layout;
mod module;

use module::Module;
use rspirv::spirv::{BuiltIn, Decoration, Dim, ExecutionMode, ExecutionModel, Op, StorageClass, Word};
use std::collections::BTreeMap;
use vkhmm_core::paging::layout as abi;

/// What one compute entry point needs and does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reflection {
    /// The entry point's name.
    pub entry_point: String,
    /// Invocations of one work group, per dimension.
    pub local_size: [LocalSize; 3],
    /// Whether it is given by LocalSizeId, which takes the feature maintenance4.
    pub local_size_by_id: bool,
    /// Bytes of shared memory with every specialisation constant at its default, laid out as std430.
    pub shared_bytes: u64,
    /// Its storage buffers, ascending by (set, binding).
    pub bindings: Vec<BindingInfo>,
    /// Its push constants.
    pub push: PushLayout,
    /// Every declared capability, by its name in the SPIR-V specification.
    pub capabilities: Vec<String>,
    /// Every specialisation constant of the module, ascending by id.
    pub spec_constants: Vec<SpecInfo>,
    /// What it says of itself if it is a paged kernel (`shaders/vkhmm.glsl`).
    pub paged: Option<Paged>,
}

/// A paged kernel: it resolves addresses itself, by tables whose address is the first of its push constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paged {
    /// The version of `vkhmm_core::paging::layout` that it was compiled with.
    pub version: u32,
    /// Items of a group; zero if it goes on by groups.
    pub items: u32,
}

/// Invocations of a work group in one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalSize {
    /// Fixed by the module.
    Fixed(u32),
    /// Set by a specialisation constant.
    Spec {
        /// Which one.
        id: u32,
        /// Its value when it is not set.
        default: u32,
    },
}

/// One storage buffer of the entry point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingInfo {
    /// Descriptor set.
    pub set: u32,
    /// Binding inside the set.
    pub binding: u32,
    /// The variable's name, else its block's, else empty.
    pub name: String,
    /// Some load, atomic or copy may read it; what cannot be followed counts as yes.
    pub may_read: bool,
    /// Some store, atomic or copy may write it; what cannot be followed counts as yes.
    pub may_write: bool,
}

/// The push-constant block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushLayout {
    /// End of the last member; zero without push constants.
    pub bytes: u32,
    /// Members, ascending by offset; those of a nested struct stand for it as `outer.inner`, one level deep.
    pub members: Vec<PushMember>,
}

/// One member of the push-constant block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushMember {
    /// Its name, else empty.
    pub name: String,
    /// Bytes from the block's start.
    pub offset: u32,
    /// Its size in bytes.
    pub bytes: u32,
    /// What it is for.
    pub kind: PushKind,
}

/// What a push-constant member is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushKind {
    /// Plain data.
    Value,
    /// A device address: a physical-storage-buffer pointer, a `uint64_t`, or a `uvec2`.
    Address,
}

/// One specialisation constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecInfo {
    /// Its SpecId.
    pub id: u32,
    /// Size of its value in bytes; a bool takes four (VkBool32).
    pub bytes: u32,
}

/// Why a module cannot be used as a kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReflectError {
    /// The words are no SPIR-V module.
    #[error("not a SPIR-V module: {why}")]
    NotSpirv {
        /// What is wrong with them.
        why: String,
    },
    /// The module has no compute entry point.
    #[error("the module has no compute entry point (GLCompute); it has {have:?}")]
    NoComputeEntryPoint {
        /// Its entry points of other kinds.
        have: Vec<String>,
    },
    /// The module has several compute entry points and none was named.
    #[error("the module has several compute entry points, name one of {have:?}")]
    AmbiguousEntryPoint {
        /// Their names.
        have: Vec<String>,
    },
    /// The named entry point is not there.
    #[error("the module has no compute entry point `{name}`; it has {have:?}")]
    EntryPointNotFound {
        /// What was asked for.
        name: String,
        /// The compute entry points that exist.
        have: Vec<String>,
    },
    /// A descriptor that is no storage buffer.
    #[error("set {set} binding {binding} (`{name}`) is {kind}; only storage buffers can be bound")]
    Descriptor {
        /// Descriptor set.
        set: u32,
        /// Binding inside the set.
        binding: u32,
        /// The variable's name, else its block's, else empty.
        name: String,
        /// What it is, with its article.
        kind: String,
    },
    /// The module breaks a rule of SPIR-V or Vulkan that reflection rests on.
    #[error("malformed SPIR-V: {what}")]
    Malformed {
        /// Which rule, and where.
        what: String,
    },
    /// The module uses something that reflection does not evaluate.
    #[error("unsupported SPIR-V: {what}")]
    Unsupported {
        /// What it is.
        what: String,
    },
}

/// Reads `words` (one SPIR-V module in host byte order) as a kernel. Without a name the module must have exactly one compute
/// entry point. A binding is listed when the entry point's interface or code names it, or the module has no other entry point.
///
/// # Errors
/// Each variant of [`ReflectError`] says what is wrong and what would be accepted.
pub fn reflect(words: &[u32], entry_point: Option<&str>) -> Result<Reflection, ReflectError> {
    let module = Module::load(words)?;
    let entry = select_entry(&module, entry_point)?;
    let flow = flow::analyse(&module, entry.function, &entry.interface);
    let mut bindings = BTreeMap::new();
    let mut push = None;
    let mut shared = Vec::new();
    for &variable in &flow.variables {
        match module.storage_class(variable) {
            Some(StorageClass::PushConstant) => {
                let layout = layout::push(&module, variable)?;
                if push.replace(layout).is_some() {
                    return Err(malformed("an entry point may use one push-constant block"));
                }
            }
            Some(StorageClass::Workgroup) => shared.push(variable),
            Some(_) => {
                if let Some(info) = binding(&module, variable, flow.uses(variable))? {
                    add_binding(&mut bindings, info);
                }
            }
            None => {}
        }
    }
    let push = push.unwrap_or_default();
    Ok(Reflection {
        paged: paged(&module, &push),
        local_size: local_size(&module, &entry)?,
        local_size_by_id: module.execution_mode(entry.function, ExecutionMode::LocalSizeId).is_some(),
        entry_point: entry.name,
        shared_bytes: layout::shared_bytes(&module, &shared)?,
        bindings: bindings.into_values().collect(),
        push,
        capabilities: module.capabilities(),
        spec_constants: spec_constants(&module)?,
    })
}

/// A compute entry point: its name, function, and the variables its interface lists.
struct Entry {
    name: String,
    function: Word,
    interface: Vec<Word>,
}

fn select_entry(module: &Module, wanted: Option<&str>) -> Result<Entry, ReflectError> {
    let mut other = Vec::new();
    let mut compute = Vec::new();
    for (model, function, name, interface) in module.entry_points() {
        if model == ExecutionModel::GLCompute {
            compute.push(Entry { name, function, interface });
        } else {
            other.push(name);
        }
    }
    let have = || compute.iter().map(|entry| entry.name.clone()).collect::<Vec<_>>();
    let found = match wanted {
        _ if compute.is_empty() => return Err(ReflectError::NoComputeEntryPoint { have: other }),
        None if compute.len() > 1 => return Err(ReflectError::AmbiguousEntryPoint { have: have() }),
        None => 0,
        Some(name) => match compute.iter().position(|entry| entry.name == name) {
            Some(found) => found,
            None => return Err(ReflectError::EntryPointNotFound { name: name.to_owned(), have: have() }),
        },
    };
    Ok(compute.swap_remove(found))
}

/// The WorkgroupSize built-in, else LocalSizeId, else LocalSize: the order in which the specification lets them win.
fn local_size(module: &Module, entry: &Entry) -> Result<[LocalSize; 3], ReflectError> {
    let from_ids = |ids: &[Word]| -> Result<[LocalSize; 3], ReflectError> {
        let &[x, y, z] = ids else { return Err(malformed("a work group size needs three components")) };
        let one = |id: Word| -> Result<LocalSize, ReflectError> {
            let value = u32::try_from(module.constant(id)?)
                .map_err(|_| malformed(format!("work group size %{id} exceeds 32 bits")))?;
            match module.literal(id, Decoration::SpecId) {
                Some(spec) => Ok(LocalSize::Spec { id: spec, default: value }),
                None if module.depends_on_spec(id) => Err(ReflectError::Unsupported {
                    what: "a work group size computed from specialisation constants; use the constant itself"
                        .into(),
                }),
                None => Ok(LocalSize::Fixed(value)),
            }
        };
        Ok([one(x)?, one(y)?, one(z)?])
    };
    if let Some(id) = module.built_in(BuiltIn::WorkgroupSize) {
        return from_ids(&module.ids(id));
    }
    if let Some(mode) = module.execution_mode(entry.function, ExecutionMode::LocalSizeId) {
        return from_ids(&mode);
    }
    match module.execution_mode(entry.function, ExecutionMode::LocalSize).as_deref() {
        Some(&[x, y, z]) => Ok([LocalSize::Fixed(x), LocalSize::Fixed(y), LocalSize::Fixed(z)]),
        _ => Err(malformed(format!("entry point `{}` has no local size", entry.name))),
    }
}

/// The binding that `variable` is, `None` for variables that are no descriptors.
fn binding(module: &Module, variable: Word, uses: flow::Use) -> Result<Option<BindingInfo>, ReflectError> {
    let (set, slot) =
        (module.literal(variable, Decoration::DescriptorSet), module.literal(variable, Decoration::Binding));
    let (class, pointee) = module.variable(variable)?;
    let named = [variable, pointee].iter().map(|id| module.name(*id)).find(|name| !name.is_empty());
    let name = named.unwrap_or_default().to_owned();
    let kind = match class {
        StorageClass::StorageBuffer if module.op(pointee) == Some(Op::TypeStruct) => None,
        StorageClass::Uniform if module.has(pointee, Decoration::BufferBlock) => None,
        StorageClass::StorageBuffer | StorageClass::Uniform
            if matches!(module.op(pointee), Some(Op::TypeArray | Op::TypeRuntimeArray)) =>
        {
            Some("an array of buffers".to_owned())
        }
        StorageClass::Uniform => Some("a uniform buffer".to_owned()),
        StorageClass::UniformConstant => Some(opaque_kind(module, pointee)),
        _ if set.is_none() && slot.is_none() => return Ok(None),
        other => Some(format!("a variable of storage class {other:?}")),
    };
    let (Some(set), Some(binding)) = (set, slot) else {
        return Err(malformed(format!("buffer `{name}` (%{variable}) has no descriptor set or no binding")));
    };
    if let Some(kind) = kind {
        return Err(ReflectError::Descriptor { set, binding, name, kind });
    }
    let may_read = uses.read && !module.decorated_all(variable, pointee, Decoration::NonReadable);
    let may_write = uses.write && !module.decorated_all(variable, pointee, Decoration::NonWritable);
    Ok(Some(BindingInfo { set, binding, name, may_read, may_write }))
}

/// Two variables may share one binding; it then is what both are, under the name that sorts first.
fn add_binding(bindings: &mut BTreeMap<(u32, u32), BindingInfo>, info: BindingInfo) {
    bindings
        .entry((info.set, info.binding))
        .and_modify(|known| {
            known.may_read |= info.may_read;
            known.may_write |= info.may_write;
            if known.name.is_empty() || (!info.name.is_empty() && info.name < known.name) {
                known.name.clone_from(&info.name);
            }
        })
        .or_insert(info);
}

/// What a variable of class UniformConstant is, in words.
fn opaque_kind(module: &Module, ty: Word) -> String {
    match module.op(ty) {
        Some(Op::TypeSampler) => "a sampler".into(),
        Some(Op::TypeSampledImage) => "a combined image sampler".into(),
        Some(Op::TypeImage) if module.image_dim(ty) == Some(Dim::DimBuffer) => "a texel buffer".into(),
        Some(Op::TypeImage) => "an image".into(),
        Some(Op::TypeAccelerationStructureKHR) => "an acceleration structure".into(),
        Some(Op::TypeArray | Op::TypeRuntimeArray) => match module.ids(ty).first() {
            Some(&element) if module.op(element) != module.op(ty) => {
                format!("an array; each element is {}", opaque_kind(module, element))
            }
            _ => "an array of arrays of descriptors".into(),
        },
        Some(other) => format!("a descriptor of type {other:?}"),
        None => "a descriptor of unknown type".into(),
    }
}

fn spec_constants(module: &Module) -> Result<Vec<SpecInfo>, ReflectError> {
    let mut by_id = BTreeMap::new();
    for (constant, id) in module.spec_ids() {
        let bytes = match module.op(constant) {
            Some(Op::SpecConstantTrue | Op::SpecConstantFalse) => 4,
            _ => layout::scalar_bytes(module, module.type_of(constant)?)?,
        };
        by_id.insert(id, SpecInfo { id, bytes });
    }
    Ok(by_id.into_values().collect())
}

/// What the constants of `shaders/vkhmm.glsl` say. A kernel with others of these numbers, or that pushes something else first, is none.
fn paged(module: &Module, push: &PushLayout) -> Option<Paged> {
    let constant = |wanted: u32| {
        let (constant, _) = module.spec_ids().find(|(_, id)| *id == wanted)?;
        u32::try_from(module.constant(constant).ok()?).ok()
    };
    let PushMember { offset: 0, kind: PushKind::Address, .. } = push.members.first()? else { return None };
    Some(Paged { version: constant(abi::MARKER_ID)?, items: constant(abi::ITEMS_ID).unwrap_or(0) })
}

fn malformed(what: impl Into<String>) -> ReflectError {
    ReflectError::Malformed { what: what.into() }
}
