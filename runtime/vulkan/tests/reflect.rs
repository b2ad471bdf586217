//! Reflection: what is read from the shipped kernels, and from modules built to be awkward.

use rspirv::binary::Assemble;
use rspirv::dr::{Builder, Operand};
use rspirv::spirv::{
    AddressingModel, BuiltIn, Capability, Decoration, ExecutionMode, ExecutionModel, FunctionControl,
    MemoryModel, StorageClass, Word,
};
use vkhmm_vulkan::reflect::{LocalSize, PushKind, ReflectError, Reflection, reflect};

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

macro_rules! shipped {
    ($name:literal) => {
        words(include_bytes!(concat!("../../../shaders/spv/", $name, ".spv")))
    };
}

/// `set.binding name r w`, one per binding.
fn bindings(reflection: &Reflection) -> Vec<String> {
    let flag = |on: bool, letter: &'static str| if on { letter } else { "-" };
    let show = reflection.bindings.iter().map(|b| {
        format!("{}.{} {} {}{}", b.set, b.binding, b.name, flag(b.may_read, "r"), flag(b.may_write, "w"))
    });
    show.collect()
}

/// `offset+bytes name kind`, one per member.
fn push(reflection: &Reflection) -> Vec<String> {
    let show =
        reflection.push.members.iter().map(|m| format!("{}+{} {} {:?}", m.offset, m.bytes, m.name, m.kind));
    show.collect()
}

#[test]
fn shipped_kernels() {
    type Row = (&'static str, Vec<u32>, &'static [&'static str], &'static [&'static str]);
    let table: &[Row] = &[
        ("saxpy", shipped!("saxpy"), &["0.0 X r-", "0.1 Y rw"], &["0+4 a Value", "4+4 n Value"]),
        ("scale", shipped!("scale"), &["0.0 X rw"], &["0+4 a Value"]),
        ("fill", shipped!("fill"), &["0.0 To -w"], &["0+4 word Value"]),
        ("copy", shipped!("copy"), &["0.0 From r-", "0.1 To -w"], &[]),
        ("add_one", shipped!("add_one"), &["0.0 Words rw"], &[]),
        ("bump", shipped!("bump"), &["0.0 Words rw"], &["0+4 offset Value", "4+4 stride Value"]),
        ("spin", shipped!("spin"), &["0.0 Words rw"], &["0+4 rounds Value", "4+4 n Value"]),
        ("checksum", shipped!("checksum"), &["0.0 Words r-", "0.1 Sum rw"], &[]),
        (
            "gram",
            shipped!("gram"),
            &["0.0 X r-", "0.1 G -w"],
            &["0+4 row0 Value", "4+4 rows Value", "8+4 n Value", "12+4 d Value"],
        ),
        (
            "gemm",
            shipped!("gemm"),
            &["0.0 A r-", "0.1 B r-", "0.2 C rw"],
            &[
                "0+4 m Value",
                "4+4 n Value",
                "8+4 k Value",
                "12+4 lda Value",
                "16+4 ldb Value",
                "20+4 ldc Value",
                "24+4 flags Value",
            ],
        ),
        (
            "saxpy_address",
            shipped!("saxpy_address"),
            &[],
            &["0+8 x Address", "8+8 y Address", "16+4 a Value", "20+4 n Value"],
        ),
    ];
    for (name, module, expected_bindings, expected_push) in table {
        let reflection = reflect(module, None).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(reflection.entry_point, "main", "{name}");
        assert_eq!(
            reflection.local_size,
            [LocalSize::Fixed(64), LocalSize::Fixed(1), LocalSize::Fixed(1)],
            "{name}"
        );
        // Names come from anonymous blocks: the variable has none, so the block's stands for it.
        let shown: Vec<String> = bindings(&reflection).iter().map(|b| b.replace("  ", " ")).collect();
        assert_eq!(shown, *expected_bindings, "{name}");
        assert_eq!(push(&reflection), *expected_push, "{name}");
        assert_eq!(reflection.shared_bytes, 0, "{name}");
        assert_eq!(reflection.spec_constants, [], "{name}");
        let wide = ["Int64", "Float64", "Int64Atomics", "GroupNonUniform"];
        assert!(
            !reflection.capabilities.iter().any(|c| wide.contains(&c.as_str())),
            "{name} is not portable"
        );
    }
}

/// A compute module in the making: two buffers of u32, `a` at 0.0 and `b` at 0.1.
struct Lab {
    b: Builder,
    void: Word,
    uint: Word,
    zero: Word,
    block: Word,
    /// Pointer to the block, in class `class`.
    block_ptr: Word,
    /// Pointer to one element.
    word_ptr: Word,
    buffers: [Word; 2],
}

impl Lab {
    fn new(class: StorageClass, mark: Decoration) -> Self {
        let mut b = Builder::new();
        b.set_version(1, 3);
        b.capability(Capability::Shader);
        b.memory_model(AddressingModel::Logical, MemoryModel::GLSL450);
        let (void, uint) = (b.type_void(), b.type_int(32, 0));
        let zero = b.constant_bit32(uint, 0);
        let array = b.type_runtime_array(uint);
        b.decorate(array, Decoration::ArrayStride, [Operand::LiteralBit32(4)]);
        let block = b.type_struct([array]);
        b.decorate(block, mark, []);
        b.member_decorate(block, 0, Decoration::Offset, [Operand::LiteralBit32(0)]);
        let block_ptr = b.type_pointer(None, class, block);
        let word_ptr = b.type_pointer(None, class, uint);
        let buffers = ["a", "b"].map(|name| {
            let variable = b.variable(block_ptr, None, class, None);
            b.name(variable, name);
            variable
        });
        for (slot, variable) in (0..).zip(buffers) {
            b.decorate(variable, Decoration::DescriptorSet, [Operand::LiteralBit32(0)]);
            b.decorate(variable, Decoration::Binding, [Operand::LiteralBit32(slot)]);
        }
        Self { b, void, uint, zero, block, block_ptr, word_ptr, buffers }
    }

    /// The modern way to declare storage buffers.
    fn modern() -> Self {
        Self::new(StorageClass::StorageBuffer, Decoration::Block)
    }

    fn element(&mut self, buffer: Word) -> Word {
        let (ptr, zero) = (self.word_ptr, self.zero);
        self.b.access_chain(ptr, None, buffer, [zero, zero]).unwrap()
    }

    fn store(&mut self, pointer: Word) {
        let zero = self.zero;
        self.b.store(pointer, zero, None, []).unwrap();
    }

    fn load(&mut self, pointer: Word) -> Word {
        let uint = self.uint;
        self.b.load(uint, None, pointer, None, []).unwrap()
    }

    /// Adds entry point `name` with this body, of one invocation per group unless `sized` is false.
    fn entry(&mut self, name: &str, sized: bool, body: impl FnOnce(&mut Self)) -> Word {
        let void = self.void;
        let ty = self.b.type_function(void, []);
        let function = self.b.begin_function(void, None, FunctionControl::NONE, ty).unwrap();
        self.b.begin_block(None).unwrap();
        body(self);
        self.b.ret().unwrap();
        self.b.end_function().unwrap();
        self.b.entry_point(ExecutionModel::GLCompute, function, name, []);
        if sized {
            self.b.execution_mode(function, ExecutionMode::LocalSize, [1, 1, 1]);
        }
        function
    }

    /// A function with one pointer parameter of type `ty`.
    fn function(&mut self, ty: Word, result: Word, body: impl FnOnce(&mut Self, Word)) -> Word {
        let kind = self.b.type_function(result, [ty]);
        let function = self.b.begin_function(result, None, FunctionControl::NONE, kind).unwrap();
        let parameter = self.b.function_parameter(ty).unwrap();
        self.b.begin_block(None).unwrap();
        body(self, parameter);
        self.b.end_function().unwrap();
        function
    }

    fn reflect(self, name: Option<&str>) -> Result<Reflection, ReflectError> {
        reflect(&self.b.module().assemble(), name)
    }

    fn shown(self) -> Vec<String> {
        bindings(&self.reflect(None).unwrap())
    }
}

#[test]
fn a_store_and_a_load_are_told_apart_in_both_declaration_styles() {
    for (class, mark) in
        [(StorageClass::StorageBuffer, Decoration::Block), (StorageClass::Uniform, Decoration::BufferBlock)]
    {
        let mut lab = Lab::new(class, mark);
        lab.entry("main", true, |lab| {
            let [a, b] = lab.buffers.map(|buffer| lab.element(buffer));
            lab.load(a);
            lab.store(b);
        });
        assert_eq!(lab.shown(), ["0.0 a r-", "0.1 b -w"]);
    }
}

#[test]
fn an_unused_buffer_is_listed_and_neither_read_nor_written() {
    let mut lab = Lab::modern();
    lab.entry("main", true, |lab| {
        let a = lab.element(lab.buffers[0]);
        lab.store(a);
    });
    assert_eq!(lab.shown(), ["0.0 a -w", "0.1 b --"]);
}

#[test]
fn a_store_through_a_function_argument_is_found() {
    let mut lab = Lab::modern();
    let (block_ptr, void) = (lab.block_ptr, lab.void);
    let inner = lab.function(block_ptr, void, |lab, pointer| {
        let element = lab.element(pointer);
        lab.store(element);
        lab.b.ret().unwrap();
    });
    let outer = lab.function(block_ptr, void, |lab, pointer| {
        lab.b.function_call(void, None, inner, [pointer]).unwrap();
        lab.b.ret().unwrap();
    });
    lab.entry("main", true, |lab| {
        let a = lab.element(lab.buffers[0]);
        lab.load(a);
        let b = lab.buffers[1];
        lab.b.function_call(void, None, outer, [b]).unwrap();
    });
    assert_eq!(lab.shown(), ["0.0 a r-", "0.1 b -w"]);
}

#[test]
fn a_store_through_a_function_result_is_found() {
    let mut lab = Lab::modern();
    let (block_ptr, word_ptr) = (lab.block_ptr, lab.word_ptr);
    let pick = lab.function(block_ptr, word_ptr, |lab, pointer| {
        let element = lab.element(pointer);
        lab.b.ret_value(element).unwrap();
    });
    lab.entry("main", true, |lab| {
        let a = lab.buffers[0];
        let picked = lab.b.function_call(word_ptr, None, pick, [a]).unwrap();
        lab.store(picked);
    });
    assert_eq!(lab.shown(), ["0.0 a -w", "0.1 b --"]);
}

#[test]
fn a_store_through_a_select_or_phi_may_reach_both_sides() {
    for phi in [false, true] {
        let mut lab = Lab::modern();
        let bool_ty = lab.b.type_bool();
        let yes = lab.b.constant_true(bool_ty);
        lab.entry("main", true, |lab| {
            let [a, b] = lab.buffers.map(|buffer| lab.element(buffer));
            let ptr = lab.word_ptr;
            let either = if phi {
                // Only the shape matters here: reflection does not follow control flow.
                lab.b.phi(ptr, None, [(a, 0), (b, 0)]).unwrap()
            } else {
                lab.b.select(ptr, None, yes, a, b).unwrap()
            };
            lab.store(either);
        });
        assert_eq!(lab.shown(), ["0.0 a -w", "0.1 b -w"], "phi: {phi}");
    }
}

#[test]
fn a_store_through_a_pointer_kept_in_a_local_variable_is_found() {
    let mut lab = Lab::modern();
    let word_ptr = lab.word_ptr;
    let slot_ptr = lab.b.type_pointer(None, StorageClass::Function, word_ptr);
    lab.entry("main", true, |lab| {
        let slot = lab.b.variable(slot_ptr, None, StorageClass::Function, None);
        let b = lab.element(lab.buffers[1]);
        lab.b.store(slot, b, None, []).unwrap();
        let kept = lab.b.load(word_ptr, None, slot, None, []).unwrap();
        lab.store(kept);
    });
    assert_eq!(lab.shown(), ["0.0 a --", "0.1 b -w"]);
}

#[test]
fn atomics_read_and_write_and_copies_do_one_each() {
    let mut lab = Lab::modern();
    lab.entry("main", true, |lab| {
        let a = lab.element(lab.buffers[0]);
        let (uint, zero) = (lab.uint, lab.zero);
        lab.b.atomic_i_add(uint, None, a, zero, zero, zero).unwrap();
    });
    assert_eq!(lab.shown(), ["0.0 a rw", "0.1 b --"]);

    let mut lab = Lab::modern();
    lab.entry("main", true, |lab| {
        let [a, b] = lab.buffers.map(|buffer| lab.element(buffer));
        lab.b.copy_memory(b, a, None, None, []).unwrap();
    });
    assert_eq!(lab.shown(), ["0.0 a r-", "0.1 b -w"]);
}

#[test]
fn an_unknown_use_of_a_pointer_counts_as_reading_and_writing() {
    let mut lab = Lab::modern();
    let set = lab.b.ext_inst_import("GLSL.std.450");
    lab.entry("main", true, |lab| {
        let a = lab.element(lab.buffers[0]);
        let (uint, zero) = (lab.uint, lab.zero);
        // Modf (35) stores through its second operand.
        lab.b.ext_inst(uint, None, set, 35, [Operand::IdRef(zero), Operand::IdRef(a)]).unwrap();
    });
    assert_eq!(lab.shown(), ["0.0 a rw", "0.1 b --"]);
}

#[test]
fn non_writable_on_the_variable_or_on_all_members_means_no_write() {
    for on_member in [false, true] {
        let mut lab = Lab::modern();
        let (a, block) = (lab.buffers[0], lab.block);
        if on_member {
            lab.b.member_decorate(block, 0, Decoration::NonWritable, []);
        } else {
            lab.b.decorate(a, Decoration::NonWritable, []);
        }
        lab.entry("main", true, |lab| {
            let a = lab.element(lab.buffers[0]);
            lab.store(a);
        });
        assert_eq!(lab.shown()[0], "0.0 a --", "on the member: {on_member}");
    }
}

#[test]
fn two_variables_on_one_binding_are_one_binding_that_does_what_both_do() {
    let mut lab = Lab::modern();
    let block_ptr = lab.block_ptr;
    let twin = lab.b.variable(block_ptr, None, StorageClass::StorageBuffer, None);
    lab.b.decorate(twin, Decoration::DescriptorSet, [Operand::LiteralBit32(0)]);
    lab.b.decorate(twin, Decoration::Binding, [Operand::LiteralBit32(0)]);
    lab.entry("main", true, |lab| {
        let a = lab.element(lab.buffers[0]);
        lab.load(a);
        let twin = lab.element(twin);
        lab.store(twin);
    });
    assert_eq!(lab.shown(), ["0.0 a rw", "0.1 b --"]);
}

#[test]
fn each_entry_point_has_its_own_bindings() {
    let mut lab = Lab::modern();
    for (name, at) in [("first", 0), ("second", 1)] {
        lab.entry(name, true, |lab| {
            let element = lab.element(lab.buffers[at]);
            lab.store(element);
        });
    }
    let module = lab.b.module().assemble();
    assert_eq!(bindings(&reflect(&module, Some("first")).unwrap()), ["0.0 a -w"]);
    assert_eq!(bindings(&reflect(&module, Some("second")).unwrap()), ["0.1 b -w"]);
    let both = vec!["first".to_owned(), "second".to_owned()];
    assert_eq!(reflect(&module, None), Err(ReflectError::AmbiguousEntryPoint { have: both.clone() }));
    let missing = ReflectError::EntryPointNotFound { name: "third".into(), have: both };
    assert_eq!(reflect(&module, Some("third")), Err(missing));
}

#[test]
fn local_size_from_specialisation_constants() {
    for built_in in [false, true] {
        let mut lab = Lab::modern();
        let uint = lab.uint;
        let x = lab.b.spec_constant_bit32(uint, 32);
        lab.b.decorate(x, Decoration::SpecId, [Operand::LiteralBit32(7)]);
        let y = lab.b.constant_bit32(uint, 2);
        let function = lab.entry("main", built_in, |_| {});
        if built_in {
            // The built-in wins over the LocalSize that `entry` declares.
            let vector = lab.b.type_vector(uint, 3);
            let size = lab.b.spec_constant_composite(vector, [x, y, y]);
            lab.b.decorate(size, Decoration::BuiltIn, [Operand::BuiltIn(BuiltIn::WorkgroupSize)]);
        } else {
            lab.b.execution_mode_id(function, ExecutionMode::LocalSizeId, [x, y, y]);
        }
        let found = lab.reflect(None).unwrap();
        assert_eq!(
            found.local_size,
            [LocalSize::Spec { id: 7, default: 32 }, LocalSize::Fixed(2), LocalSize::Fixed(2)],
            "built-in: {built_in}"
        );
        let spec: Vec<(u32, u32)> = found.spec_constants.iter().map(|spec| (spec.id, spec.bytes)).collect();
        assert_eq!(spec, [(7, 4)]);
    }
}

#[test]
fn shared_memory_is_summed_with_its_padding() {
    let mut lab = Lab::modern();
    let uint = lab.uint;
    let float64 = lab.b.type_float(64, None);
    let three = lab.b.constant_bit32(uint, 3);
    let array = lab.b.type_array(uint, three);
    for ty in [array, float64] {
        let ptr = lab.b.type_pointer(None, StorageClass::Workgroup, ty);
        lab.b.variable(ptr, None, StorageClass::Workgroup, None);
    }
    lab.entry("main", true, |_| {});
    // 12 bytes, 4 of padding, 8 bytes.
    assert_eq!(lab.reflect(None).unwrap().shared_bytes, 24);
}

#[test]
fn push_constants_are_flattened_one_level_and_addresses_are_told_apart() {
    let mut lab = Lab::modern();
    let uint = lab.uint;
    let (float, int) = (lab.b.type_float(32, None), lab.b.type_int(32, 1));
    let (uint64, uvec2, ivec2) =
        (lab.b.type_int(64, 0), lab.b.type_vector(uint, 2), lab.b.type_vector(int, 2));
    let pointer = lab.b.type_pointer(None, StorageClass::PhysicalStorageBuffer, uint);
    let mut block = |members: &[(Word, u32, &str)]| {
        let ty = lab.b.type_struct(members.iter().map(|member| member.0));
        for (at, (_, offset, name)) in (0..).zip(members) {
            lab.b.member_decorate(ty, at, Decoration::Offset, [Operand::LiteralBit32(*offset)]);
            lab.b.member_name(ty, at, *name);
        }
        ty
    };
    let inner = block(&[(float, 0, "a"), (uvec2, 8, "y")]);
    let outer = block(&[
        (uint64, 0, "x"),
        (inner, 32, "inner"),
        (pointer, 8, "p"),
        (ivec2, 16, "i"),
        (uint, 24, "n"),
    ]);
    lab.b.decorate(outer, Decoration::Block, []);
    let ptr = lab.b.type_pointer(None, StorageClass::PushConstant, outer);
    lab.b.variable(ptr, None, StorageClass::PushConstant, None);
    lab.entry("main", true, |_| {});
    let found = lab.reflect(None).unwrap();
    assert_eq!(
        push(&found),
        [
            "0+8 x Address",
            "8+8 p Address",
            "16+8 i Value",
            "24+4 n Value",
            "32+4 inner.a Value",
            "40+8 inner.y Address"
        ]
    );
    assert_eq!(found.push.bytes, 48);
    assert!(found.push.members.iter().any(|member| member.kind == PushKind::Address));
}

#[test]
fn other_descriptors_are_refused_by_name() {
    // A uniform buffer.
    let mut lab = Lab::new(StorageClass::Uniform, Decoration::Block);
    lab.entry("main", true, |_| {});
    let refused =
        ReflectError::Descriptor { set: 0, binding: 0, name: "a".into(), kind: "a uniform buffer".into() };
    assert_eq!(lab.reflect(None), Err(refused));

    // A sampler, and an array of storage buffers.
    let mut lab = Lab::modern();
    let sampler = lab.b.type_sampler();
    let (uint, block) = (lab.uint, lab.block);
    let two = lab.b.constant_bit32(uint, 2);
    let array = lab.b.type_array(block, two);
    let mut described = Vec::new();
    for (class, ty) in [(StorageClass::UniformConstant, sampler), (StorageClass::StorageBuffer, array)] {
        let mut b = Builder::new_from_module(lab.b.module_ref().clone());
        let ptr = b.type_pointer(None, class, ty);
        let variable = b.variable(ptr, None, class, None);
        b.name(variable, "odd");
        b.decorate(variable, Decoration::DescriptorSet, [Operand::LiteralBit32(3)]);
        b.decorate(variable, Decoration::Binding, [Operand::LiteralBit32(4)]);
        let mut odd = Lab { b, ..Lab::modern() };
        odd.entry("main", true, |_| {});
        described.push(odd.reflect(None).unwrap_err().to_string());
    }
    assert_eq!(
        described,
        [
            "set 3 binding 4 (`odd`) is a sampler; only storage buffers can be bound",
            "set 3 binding 4 (`odd`) is an array of buffers; only storage buffers can be bound",
        ]
    );
}

#[test]
fn what_is_no_kernel_is_refused_with_the_reason() {
    let good = shipped!("saxpy");
    let not_spirv = |words: &[u32]| match reflect(words, None) {
        Err(ReflectError::NotSpirv { why }) => why,
        other => panic!("{other:?}"),
    };
    assert!(not_spirv(&[]).contains("header"));
    assert!(not_spirv(&[1, 2, 3, 4, 5, 6]).contains("magic"));
    let swapped: Vec<u32> = good.iter().map(|word| word.swap_bytes()).collect();
    assert!(not_spirv(&swapped).contains("byte order"));
    not_spirv(&good[..good.len() - 1]);

    let mut lab = Lab::modern();
    lab.entry("main", false, |_| {});
    assert!(
        matches!(lab.reflect(None), Err(ReflectError::Malformed { what }) if what.contains("local size"))
    );

    let lab = Lab::modern();
    assert_eq!(lab.reflect(None), Err(ReflectError::NoComputeEntryPoint { have: vec![] }));
}

/// Flips words of a good module in every place; each result is a value, never a panic, and comes in bounded time.
#[test]
fn damaged_modules_never_panic() {
    for good in [shipped!("saxpy_address"), shipped!("bump")] {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        for at in 5..good.len() {
            let mut next = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state
            };
            let old = good[at];
            // A near miss, another id, any word, another opcode of the same length.
            for value in
                [old ^ 1, next() as u32 % good[3], next() as u32, (old & 0xffff_0000) | (next() as u32 % 400)]
            {
                let mut module = good.clone();
                module[at] = value;
                let _ = reflect(&module, None);
            }
        }
    }
}
