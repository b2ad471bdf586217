//! Which global variables an entry point reaches, and which of them its code may load from or store to.
//!
//! Pointers are followed wherever SPIR-V lets them go: access chains, copies, phi, select, arguments and results of functions,
//! local variables that hold pointers. The analysis ignores the order of instructions and takes unions until nothing changes,
//! so it only errs towards yes. An instruction that it does not know reads and writes whatever its pointers reach.
//!
//! Absent: pointers that come as numbers (physical storage buffers). They name no variable, so there is nothing to attribute.

use super::module::{Function, Module, id_operands};
use rspirv::dr::{Instruction, Operand};
use rspirv::spirv::{Op, Word};
use std::collections::{BTreeSet, HashMap, HashSet};

/// How a variable may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) read: bool,
    pub(super) write: bool,
}

const READ: Use = Use { read: true, write: false };
const WRITE: Use = Use { read: false, write: true };
const BOTH: Use = Use { read: true, write: true };

/// What `analyse` found.
pub(super) struct Flow {
    /// The entry point's global variables, in order of definition.
    pub(super) variables: Vec<Word>,
    uses: HashMap<Word, Use>,
}

impl Flow {
    pub(super) fn uses(&self, variable: Word) -> Use {
        self.uses.get(&variable).copied().unwrap_or_default()
    }
}

type Roots = BTreeSet<Word>;

/// A root is a variable, global or local.
#[derive(Default)]
struct State {
    /// Which roots a value may point into.
    points: HashMap<Word, Roots>,
    /// Which roots the pointers stored in a root may point into.
    contents: HashMap<Word, Roots>,
    /// Which roots a function's result may point into.
    results: HashMap<Word, Roots>,
    uses: HashMap<Word, Use>,
    /// Parameters of each function.
    parameters: HashMap<Word, Vec<Word>>,
    /// Extended instruction sets that have no effect on memory.
    inert_sets: HashSet<Word>,
    changed: bool,
}

/// Follows `entry`. Its variables are those its interface lists and those its code names; all of the module's when it is the only
/// entry point.
pub(super) fn analyse(module: &Module, entry: Word, interface: &[Word]) -> Flow {
    let functions = reached_functions(module, entry);
    let mut state = State { inert_sets: inert_sets(module), ..State::default() };
    for function in &functions {
        state.parameters.insert(function.id, function.parameters.clone());
    }
    let globals = module.preamble();
    loop {
        state.changed = false;
        for inst in globals {
            if matches!(inst.class.opcode, Op::Variable | Op::UntypedVariableKHR | Op::SpecConstantOp) {
                state.step(inst, entry);
            }
        }
        for function in &functions {
            for inst in &function.body {
                state.step(inst, function.id);
            }
        }
        if !state.changed {
            break;
        }
    }
    let mut named: HashSet<Word> = interface.iter().copied().collect();
    for function in &functions {
        named.extend(function.body.iter().flat_map(id_operands));
    }
    let all = module.entry_points().count() == 1;
    let variables = globals.iter().filter_map(|inst| inst.result_id);
    let variables = variables.filter(|id| module.storage_class(*id).is_some() && (all || named.contains(id)));
    Flow { variables: variables.collect(), uses: state.uses }
}

impl State {
    /// The effect of one instruction of `function`.
    fn step(&mut self, inst: &Instruction, function: Word) {
        let ids: Vec<Word> = id_operands(inst).collect();
        let id = |at: usize| ids.get(at).copied().unwrap_or(0);
        let op = inst.class.opcode;
        match op {
            Op::Variable | Op::UntypedVariableKHR => {
                let Some(variable) = inst.result_id else { return };
                self.point(variable, Roots::from([variable]));
                // Of an untyped variable the first id is its data type, which points nowhere.
                let stored = ids.iter().flat_map(|id| self.points_of(*id)).collect();
                self.hold(variable, stored);
            }
            Op::Load => {
                self.use_of(id(0), READ);
                let stored = self.contents_of(id(0));
                self.result(inst, stored);
            }
            Op::Store => {
                self.use_of(id(0), WRITE);
                self.store(id(0), self.points_of(id(1)));
            }
            Op::CopyMemory | Op::CopyMemorySized => {
                self.use_of(id(0), WRITE);
                self.use_of(id(1), READ);
                self.store(id(0), self.contents_of(id(1)));
            }
            Op::AtomicLoad | Op::CooperativeMatrixLoadKHR | Op::CooperativeMatrixLoadNV => {
                self.use_of(id(0), READ)
            }
            Op::AtomicStore
            | Op::AtomicFlagClear
            | Op::CooperativeMatrixStoreKHR
            | Op::CooperativeMatrixStoreNV => self.use_of(id(0), WRITE),
            Op::FunctionCall => {
                let parameters = self.parameters.get(&id(0)).cloned().unwrap_or_default();
                for (parameter, argument) in parameters.into_iter().zip(ids.iter().skip(1)) {
                    let roots = self.points_of(*argument);
                    self.point(parameter, roots);
                }
                let roots = self.results.get(&id(0)).cloned().unwrap_or_default();
                self.result(inst, roots);
            }
            Op::ReturnValue => {
                let roots = self.points_of(id(0));
                let known = self.results.entry(function).or_default();
                self.changed |= extend(known, roots);
            }
            Op::AccessChain
            | Op::InBoundsAccessChain
            | Op::PtrAccessChain
            | Op::InBoundsPtrAccessChain
            | Op::UntypedAccessChainKHR
            | Op::UntypedInBoundsAccessChainKHR
            | Op::UntypedPtrAccessChainKHR
            | Op::UntypedInBoundsPtrAccessChainKHR
            | Op::RawAccessChainNV
            | Op::CopyObject
            | Op::CopyLogical
            | Op::Bitcast
            | Op::Phi
            | Op::Select
            | Op::CompositeConstruct
            | Op::CompositeExtract
            | Op::CompositeInsert => {
                let roots = ids.iter().flat_map(|id| self.points_of(*id)).collect();
                self.result(inst, roots);
            }
            Op::ArrayLength | Op::UntypedArrayLengthKHR | Op::PtrEqual | Op::PtrNotEqual | Op::PtrDiff => {}
            Op::ExtInst if self.inert_sets.contains(&id(0)) => {}
            _ => {
                let roots: Roots = ids.iter().flat_map(|id| self.points_of(*id)).collect();
                for id in &ids {
                    self.use_of(*id, BOTH);
                    self.store(*id, roots.clone());
                }
                self.result(inst, roots);
            }
        }
    }

    fn points_of(&self, id: Word) -> Roots {
        self.points.get(&id).cloned().unwrap_or_default()
    }

    fn contents_of(&self, pointer: Word) -> Roots {
        let roots = self.points.get(&pointer).into_iter().flatten();
        roots.filter_map(|root| self.contents.get(root)).flatten().copied().collect()
    }

    fn use_of(&mut self, pointer: Word, how: Use) {
        for root in self.points.get(&pointer).into_iter().flatten() {
            let known = self.uses.entry(*root).or_default();
            known.read |= how.read;
            known.write |= how.write;
        }
    }

    fn point(&mut self, id: Word, roots: Roots) {
        if !roots.is_empty() {
            self.changed |= extend(self.points.entry(id).or_default(), roots);
        }
    }

    fn result(&mut self, inst: &Instruction, roots: Roots) {
        if let Some(id) = inst.result_id {
            self.point(id, roots);
        }
    }

    fn hold(&mut self, root: Word, stored: Roots) {
        if !stored.is_empty() {
            self.changed |= extend(self.contents.entry(root).or_default(), stored);
        }
    }

    fn store(&mut self, pointer: Word, stored: Roots) {
        for root in self.points_of(pointer) {
            self.hold(root, stored.clone());
        }
    }
}

/// Whether `more` brought anything new.
fn extend(known: &mut Roots, more: Roots) -> bool {
    let before = known.len();
    known.extend(more);
    known.len() > before
}

fn reached_functions(module: &Module, entry: Word) -> Vec<&Function> {
    let by_id: HashMap<Word, &Function> = module.functions.iter().map(|f| (f.id, f)).collect();
    let mut reached = Vec::new();
    let mut seen = HashSet::from([entry]);
    let mut open = vec![entry];
    while let Some(id) = open.pop() {
        let Some(function) = by_id.get(&id) else { continue };
        reached.push(*function);
        for inst in function.body.iter().filter(|inst| inst.class.opcode == Op::FunctionCall) {
            open.extend(id_operands(inst).take(1).filter(|callee| seen.insert(*callee)));
        }
    }
    reached
}

fn inert_sets(module: &Module) -> HashSet<Word> {
    let imports = module.preamble().iter().filter(|inst| inst.class.opcode == Op::ExtInstImport);
    let inert = imports.filter(|inst| {
        matches!(inst.operands.first(), Some(Operand::LiteralString(name)) if name.starts_with("NonSemantic."))
    });
    inert.filter_map(|inst| inst.result_id).collect()
}
