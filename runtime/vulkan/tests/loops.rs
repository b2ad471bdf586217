//! No paged kernel spins: read off the modules that are shipped. Each loop has an exit that the invocation reaches by itself: its test
//! follows from variables of the invocation that the loop changes, and from nothing that another invocation could store, or fail to.
//!
//! Of the test and of all that flows into it inside the loop, no instruction may be an atomic, or a load of memory that can be written;
//! a function that it calls may have none either. That a variable comes nearer to its end with each turn is for who writes the loop.

use rspirv::dr::{Function, Instruction, Module, Operand, load_bytes};
use rspirv::spirv::{Decoration, Op, StorageClass, Word};
use std::collections::BTreeSet;

/// One function's instructions, in order.
fn body(function: &Function) -> Vec<&Instruction> {
    function.blocks.iter().flat_map(|block| block.label.iter().chain(&block.instructions)).collect()
}

fn ids(instruction: &Instruction) -> impl Iterator<Item = Word> + '_ {
    instruction.operands.iter().filter_map(Operand::id_ref_any)
}

/// Where a pointer leads: the storage class of its variable, or of its type.
fn class(module: &Module, all: &[&Instruction], pointer: Word) -> StorageClass {
    let made = |instruction: &&&Instruction| instruction.result_id == Some(pointer);
    let typed = all.iter().find(made).map(|found| found.result_type.expect("a pointer has a type"));
    let typed = typed.or_else(|| {
        let globals = module.types_global_values.iter();
        globals.clone().find(|global| global.result_id == Some(pointer)).and_then(|found| found.result_type)
    });
    // A parameter of the function is a variable of the invocation here: no pointer to memory is one.
    typed.map_or(StorageClass::Function, |kind| pointed(module, kind))
}

fn pointed(module: &Module, kind: Word) -> StorageClass {
    let found = module.types_global_values.iter().find(|global| global.result_id == Some(kind));
    match found.expect("a type is declared").operands[0] {
        Operand::StorageClass(class) => class,
        ref other => panic!("{other:?} is no storage class"),
    }
}

/// Whether all members of what a pointer leads through are given as read-only.
fn is_fixed(module: &Module, all: &[&Instruction], pointer: Word) -> bool {
    let chain = all.iter().find(|i| i.result_id == Some(pointer) && i.class.opcode == Op::AccessChain);
    let Some(base) = chain.and_then(|chain| chain.operands[0].id_ref_any()) else { return false };
    let Some(made) = all.iter().find(|i| i.result_id == Some(base)) else { return false };
    let kind = made.result_type.expect("a pointer has a type");
    let declared = module.types_global_values.iter().find(|global| global.result_id == Some(kind));
    let block = declared.expect("a type is declared").operands[1].id_ref_any().expect("what it points to");
    module.annotations.iter().any(|note| {
        note.operands.first() == Some(&Operand::IdRef(block))
            && note.operands.contains(&Operand::Decoration(Decoration::NonWritable))
    })
}

fn is_atomic(instruction: &Instruction) -> bool {
    format!("{:?}", instruction.class.opcode).starts_with("Atomic")
}

/// Why this instruction's result could wait for somebody.
fn waits(module: &Module, all: &[&Instruction], at: &Instruction) -> Option<String> {
    match at.class.opcode {
        _ if is_atomic(at) => Some(format!("{:?}", at.class.opcode)),
        Op::Load => {
            let pointer = at.operands[0].id_ref_any().expect("a load has a pointer");
            let of = class(module, all, pointer);
            let own = matches!(
                of,
                // Words of the group are stored to before a barrier, and stay until the next.
                StorageClass::Function
                    | StorageClass::Private
                    | StorageClass::PushConstant
                    | StorageClass::Input
                    | StorageClass::Workgroup
            );
            (!own && !is_fixed(module, all, pointer)).then(|| format!("a load of {of:?} memory"))
        }
        Op::FunctionCall => {
            let called = at.operands[0].id_ref_any().expect("a call has a function");
            let function =
                module.functions.iter().find(|f| f.def.as_ref().unwrap().result_id == Some(called));
            let inside = body(function.expect("a function is defined"));
            inside.iter().find_map(|i| waits(module, &inside, i))
        }
        _ => None,
    }
}

/// What of the loop that begins at instruction `head` waits for others.
fn exit_waits(module: &Module, all: &[&Instruction], head: usize) -> Option<String> {
    let merge = all[head].operands[0].id_ref_any().expect("a loop ends somewhere");
    let end = all.iter().position(|i| i.class.opcode == Op::Label && i.result_id == Some(merge));
    let inside = &all[head..end.expect("a loop ends")];
    let leaves = |i: &&&Instruction| {
        i.class.opcode == Op::BranchConditional && i.operands[1..].contains(&Operand::IdRef(merge))
    };
    let Some(test) = inside.iter().find(leaves) else {
        return Some("no test where it begins".to_owned());
    };
    let mut flows: Vec<Word> = vec![test.operands[0].id_ref_any().expect("a condition")];
    let (mut seen, mut changed) = (BTreeSet::new(), false);
    while let Some(id) = flows.pop() {
        if !seen.insert(id) {
            continue;
        }
        // What the loop makes of it; and what it stores to it, if it is a variable.
        for at in inside.iter().filter(|i| i.result_id == Some(id)) {
            if let Some(why) = waits(module, all, at) {
                return Some(why);
            }
            flows.extend(ids(at));
        }
        let into = |i: &&&Instruction| i.class.opcode == Op::Store && leads_to(all, i, id);
        for store in inside.iter().filter(into) {
            changed = true;
            flows.extend(store.operands[1].id_ref_any());
        }
    }
    (!changed).then(|| "its test never changes".to_owned())
}

/// Whether a store goes to this variable, or to a part of it.
fn leads_to(all: &[&Instruction], store: &Instruction, variable: Word) -> bool {
    let pointer = store.operands[0].id_ref_any().expect("a store has a pointer");
    let chain = all.iter().find(|i| i.result_id == Some(pointer) && i.class.opcode == Op::AccessChain);
    pointer == variable || chain.is_some_and(|chain| chain.operands[0] == Operand::IdRef(variable))
}

/// Loops of a module, and what is wrong with them.
fn loops(spirv: &[u8]) -> (usize, Vec<String>) {
    let module = load_bytes(spirv).expect("a module");
    let (mut count, mut wrong) = (0, Vec::new());
    for function in &module.functions {
        let all = body(function);
        for head in (0..all.len()).filter(|at| all[*at].class.opcode == Op::LoopMerge) {
            count += 1;
            wrong.extend(exit_waits(&module, &all, head));
        }
    }
    (count, wrong)
}

macro_rules! shipped {
    ($($name:literal),*) => {
        [$(($name, &include_bytes!(concat!("../../../shaders/spv/", $name, ".spv"))[..])),*]
    };
}

#[test]
fn no_loop_of_a_paged_kernel_waits_for_anybody() {
    let kernels = shipped!(
        "paged_bfs_csr",
        "paged_gather",
        "paged_gemm",
        "paged_hash_probe",
        "paged_pagerank",
        "paged_spmv_csr",
        "paged_triad"
    );
    let here =
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shaders/spv")).expect("the shaders");
    let names = here.map(|file| file.expect("a file").file_name().into_string().expect("a name"));
    assert_eq!(
        names.filter(|name| name.starts_with("paged_")).count(),
        kernels.len(),
        "one is not looked at"
    );
    for (name, spirv) in kernels {
        let (count, wrong) = loops(spirv);
        println!("{name}: {count} loops");
        assert!(count > 0 && wrong.is_empty(), "{name}: {wrong:?}");
    }
}

#[test]
fn a_loop_that_waits_is_found() {
    let (count, wrong) = loops(include_bytes!("kernels/waits.spv"));
    assert_eq!((count, &wrong[..]), (1, &["AtomicIAdd".to_owned()][..]));
}
