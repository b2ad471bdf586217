//! A parsed module with its ids, names, decorations and constants at hand.

use super::{ReflectError, malformed};
use rspirv::binary::{Consumer, ParseAction};
use rspirv::dr::{Instruction, ModuleHeader, Operand};
use rspirv::spirv::{BuiltIn, Decoration, Dim, ExecutionMode, ExecutionModel, Op, StorageClass, Word};
use std::collections::{BTreeMap, HashMap};

/// Chains of constants, types and members longer than this are refused; legal modules stay far below it.
pub(super) const DEPTH_MAX: u32 = 64;

/// One decoration: which, and its operands.
type Mark = (Decoration, Vec<Operand>);

/// The module and its indexes.
#[derive(Default)]
pub(super) struct Module {
    /// Every instruction outside of functions.
    preamble: Vec<Instruction>,
    /// Functions with bodies and without.
    pub(super) functions: Vec<Function>,
    /// Where each global id is defined in `preamble`.
    globals: HashMap<Word, usize>,
    names: HashMap<Word, String>,
    member_names: HashMap<(Word, u32), String>,
    marks: BTreeMap<Word, Vec<Mark>>,
    member_marks: HashMap<(Word, u32), Vec<Mark>>,
}

/// One function of the module; blocks make no difference here.
pub(super) struct Function {
    pub(super) id: Word,
    pub(super) parameters: Vec<Word>,
    pub(super) body: Vec<Instruction>,
}

/// Sorts parsed instructions. (rspirv's own loader has no place for OpExecutionModeId and a few newer global instructions.)
#[derive(Default)]
struct Collector {
    module: Module,
    inside: bool,
}

impl Consumer for Collector {
    fn initialize(&mut self) -> ParseAction {
        ParseAction::Continue
    }

    fn finalize(&mut self) -> ParseAction {
        if self.inside {
            ParseAction::Error("the last function does not end".into())
        } else {
            ParseAction::Continue
        }
    }

    fn consume_header(&mut self, _: ModuleHeader) -> ParseAction {
        ParseAction::Continue
    }

    fn consume_instruction(&mut self, inst: Instruction) -> ParseAction {
        match (inst.class.opcode, self.inside, self.module.functions.last_mut()) {
            (Op::Function, true, _) => return ParseAction::Error("a function starts inside another".into()),
            (Op::Function, false, _) => {
                let id = inst.result_id.unwrap_or(0);
                self.module.functions.push(Function { id, parameters: Vec::new(), body: Vec::new() });
                self.inside = true;
            }
            (Op::FunctionEnd, true, _) => self.inside = false,
            (Op::FunctionParameter, true, Some(function)) => function.parameters.extend(inst.result_id),
            (_, true, Some(function)) => function.body.push(inst),
            // Before the first function, or debug information between two.
            _ => self.module.preamble.push(inst),
        }
        ParseAction::Continue
    }
}

impl Module {
    pub(super) fn load(words: &[u32]) -> Result<Self, ReflectError> {
        let not_spirv = |why: &str| Err(ReflectError::NotSpirv { why: why.to_owned() });
        match words.first() {
            _ if words.len() < 5 => return not_spirv("shorter than the five-word header"),
            Some(&rspirv::spirv::MAGIC_NUMBER) => {}
            Some(word) if word.swap_bytes() == rspirv::spirv::MAGIC_NUMBER => {
                return not_spirv("its words are in the other byte order");
            }
            _ => return not_spirv("it does not start with the magic number 0x07230203"),
        }
        let mut collector = Collector::default();
        rspirv::binary::parse_words(words, &mut collector)
            .map_err(|error| ReflectError::NotSpirv { why: error.to_string() })?;
        let mut module = collector.module;
        let globals = module.preamble.iter().enumerate();
        module.globals = globals.filter_map(|(at, inst)| Some((inst.result_id?, at))).collect();
        module.index_names();
        module.index_marks();
        Ok(module)
    }

    fn index_names(&mut self) {
        for inst in &self.preamble {
            match (inst.class.opcode, &inst.operands[..]) {
                (Op::Name, [Operand::IdRef(id), Operand::LiteralString(name)]) => {
                    self.names.insert(*id, name.clone());
                }
                (
                    Op::MemberName,
                    [Operand::IdRef(id), Operand::LiteralBit32(member), Operand::LiteralString(name)],
                ) => {
                    self.member_names.insert((*id, *member), name.clone());
                }
                _ => {}
            }
        }
    }

    /// Groups come after the decorations of the group itself, so one pass in order resolves them.
    fn index_marks(&mut self) {
        for inst in &self.preamble {
            match (inst.class.opcode, &inst.operands[..]) {
                (
                    Op::Decorate | Op::DecorateId | Op::DecorateString,
                    [Operand::IdRef(id), Operand::Decoration(mark), rest @ ..],
                ) => {
                    self.marks.entry(*id).or_default().push((*mark, rest.to_vec()));
                }
                (
                    Op::MemberDecorate | Op::MemberDecorateString,
                    [Operand::IdRef(id), Operand::LiteralBit32(member), Operand::Decoration(mark), rest @ ..],
                ) => {
                    let marks = self.member_marks.entry((*id, *member)).or_default();
                    marks.push((*mark, rest.to_vec()));
                }
                (Op::GroupDecorate, [Operand::IdRef(group), targets @ ..]) => {
                    let marks = self.marks.get(group).cloned().unwrap_or_default();
                    for target in targets.iter().filter_map(Operand::id_ref_any) {
                        self.marks.entry(target).or_default().extend(marks.iter().cloned());
                    }
                }
                (Op::GroupMemberDecorate, [Operand::IdRef(group), targets @ ..]) => {
                    let marks = self.marks.get(group).cloned().unwrap_or_default();
                    for pair in targets.chunks_exact(2) {
                        if let [Operand::IdRef(id), Operand::LiteralBit32(member)] = pair {
                            let known = self.member_marks.entry((*id, *member)).or_default();
                            known.extend(marks.iter().cloned());
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Everything outside of functions, in order.
    pub(super) fn preamble(&self) -> &[Instruction] {
        &self.preamble
    }

    /// The global definition of `id`.
    pub(super) fn global(&self, id: Word) -> Option<&Instruction> {
        self.globals.get(&id).map(|at| &self.preamble[*at])
    }

    /// What kind of instruction defines the global `id`.
    pub(super) fn op(&self, id: Word) -> Option<Op> {
        self.global(id).map(|inst| inst.class.opcode)
    }

    /// The id operands of the global `id`, in order.
    pub(super) fn ids(&self, id: Word) -> Vec<Word> {
        self.global(id).map(|inst| id_operands(inst).collect()).unwrap_or_default()
    }

    /// The type of the global value `id`.
    pub(super) fn type_of(&self, id: Word) -> Result<Word, ReflectError> {
        let ty = self.global(id).and_then(|inst| inst.result_type);
        ty.ok_or_else(|| malformed(format!("%{id} is used as a value but has no type")))
    }

    pub(super) fn name(&self, id: Word) -> &str {
        self.names.get(&id).map_or("", String::as_str)
    }

    pub(super) fn member_name(&self, id: Word, member: u32) -> &str {
        self.member_names.get(&(id, member)).map_or("", String::as_str)
    }

    pub(super) fn has(&self, id: Word, mark: Decoration) -> bool {
        self.marks.get(&id).is_some_and(|marks| marks.iter().any(|(known, _)| *known == mark))
    }

    /// The first literal of decoration `mark` on `id`.
    pub(super) fn literal(&self, id: Word, mark: Decoration) -> Option<u32> {
        first_literal(self.marks.get(&id)?, mark)
    }

    /// The first literal of decoration `mark` on a struct's member.
    pub(super) fn member_literal(&self, id: Word, member: u32, mark: Decoration) -> Option<u32> {
        first_literal(self.member_marks.get(&(id, member))?, mark)
    }

    pub(super) fn member_has(&self, id: Word, member: u32, mark: Decoration) -> bool {
        self.member_marks
            .get(&(id, member))
            .is_some_and(|marks| marks.iter().any(|(known, _)| *known == mark))
    }

    /// Whether `mark` is on the variable, or on every member of its struct.
    pub(super) fn decorated_all(&self, variable: Word, ty: Word, mark: Decoration) -> bool {
        let members = self.ids(ty).len() as u32;
        self.has(variable, mark) || (members > 0 && (0..members).all(|m| self.member_has(ty, m, mark)))
    }

    /// The global that is the built-in `wanted`.
    pub(super) fn built_in(&self, wanted: BuiltIn) -> Option<Word> {
        let is = |marks: &Vec<Mark>| {
            marks.iter().any(|(mark, operands)| {
                *mark == Decoration::BuiltIn && operands.first() == Some(&Operand::BuiltIn(wanted))
            })
        };
        self.marks.iter().find(|(id, marks)| is(marks) && self.globals.contains_key(id)).map(|(id, _)| *id)
    }

    /// Every specialisation constant with its SpecId.
    pub(super) fn spec_ids(&self) -> impl Iterator<Item = (Word, u32)> + '_ {
        self.marks.keys().filter_map(|id| Some((*id, self.literal(*id, Decoration::SpecId)?)))
    }

    /// Every entry point: model, function, name, interface.
    pub(super) fn entry_points(
        &self,
    ) -> impl Iterator<Item = (ExecutionModel, Word, String, Vec<Word>)> + '_ {
        self.preamble.iter().filter_map(|inst| match &inst.operands[..] {
            [
                Operand::ExecutionModel(model),
                Operand::IdRef(function),
                Operand::LiteralString(name),
                rest @ ..,
            ] => {
                let interface = rest.iter().filter_map(Operand::id_ref_any).collect();
                Some((*model, *function, name.clone(), interface))
            }
            _ => None,
        })
    }

    /// The operands (literals or ids) of an entry point's execution mode.
    pub(super) fn execution_mode(&self, function: Word, wanted: ExecutionMode) -> Option<Vec<Word>> {
        self.preamble.iter().find_map(|inst| match &inst.operands[..] {
            [Operand::IdRef(id), Operand::ExecutionMode(mode), rest @ ..]
                if *id == function && *mode == wanted =>
            {
                let word = |operand: &Operand| match operand {
                    Operand::LiteralBit32(value) => Some(*value),
                    other => other.id_ref_any(),
                };
                rest.iter().map(word).collect()
            }
            _ => None,
        })
    }

    pub(super) fn capabilities(&self) -> Vec<String> {
        let capabilities = self.preamble.iter().filter(|inst| inst.class.opcode == Op::Capability);
        let names = capabilities.filter_map(|inst| match inst.operands.first() {
            Some(Operand::Capability(capability)) => Some(format!("{capability:?}")),
            _ => None,
        });
        names.collect()
    }

    /// The storage class of a global variable; `None` for any other id.
    pub(super) fn storage_class(&self, id: Word) -> Option<StorageClass> {
        let inst = self.global(id)?;
        match (inst.class.opcode, inst.operands.first()) {
            (Op::Variable | Op::UntypedVariableKHR, Some(Operand::StorageClass(class))) => Some(*class),
            _ => None,
        }
    }

    /// A variable's storage class and the type it holds.
    pub(super) fn variable(&self, id: Word) -> Result<(StorageClass, Word), ReflectError> {
        let class = self.storage_class(id).ok_or_else(|| malformed(format!("%{id} is not a variable")))?;
        // An untyped variable names the type of its data itself; a typed one through its pointer type.
        let pointee = match self.op(id) {
            Some(Op::UntypedVariableKHR) => self.ids(id).first().copied(),
            _ => self.ids(self.type_of(id)?).first().copied(),
        };
        pointee.map(|ty| (class, ty)).ok_or_else(|| malformed(format!("variable %{id} has no data type")))
    }

    /// The dimension of an image type.
    pub(super) fn image_dim(&self, ty: Word) -> Option<Dim> {
        self.global(ty)?.operands.iter().find_map(|operand| match operand {
            Operand::Dim(dim) => Some(*dim),
            _ => None,
        })
    }

    /// The value of an integer constant, with specialisation constants at their defaults.
    pub(super) fn constant(&self, id: Word) -> Result<u64, ReflectError> {
        self.constant_at(id, 0)
    }

    fn constant_at(&self, id: Word, depth: u32) -> Result<u64, ReflectError> {
        let unknown = || ReflectError::Unsupported {
            what: format!("%{id} is no integer constant that can be computed"),
        };
        let inst = self.global(id).filter(|_| depth < DEPTH_MAX).ok_or_else(unknown)?;
        match (inst.class.opcode, &inst.operands[..]) {
            (Op::Constant | Op::SpecConstant, [Operand::LiteralBit32(value)]) => Ok(u64::from(*value)),
            (Op::Constant | Op::SpecConstant, [Operand::LiteralBit64(value)]) => Ok(*value),
            (Op::ConstantNull, _) => Ok(0),
            (Op::SpecConstantOp, [Operand::LiteralSpecConstantOpInteger(op), rest @ ..]) => {
                let mut values = Vec::new();
                for operand in rest {
                    let id = operand.id_ref_any().ok_or_else(unknown)?;
                    values.push(self.constant_at(id, depth + 1)?);
                }
                let result = match (op, &values[..]) {
                    (Op::IAdd, [a, b]) => a.checked_add(*b),
                    (Op::ISub, [a, b]) => a.checked_sub(*b),
                    (Op::IMul, [a, b]) => a.checked_mul(*b),
                    (Op::UDiv | Op::SDiv, [a, b]) => a.checked_div(*b),
                    (Op::UMod | Op::SRem | Op::SMod, [a, b]) => a.checked_rem(*b),
                    (Op::ShiftLeftLogical, [a, b]) => u32::try_from(*b).ok().and_then(|by| a.checked_shl(by)),
                    (Op::ShiftRightLogical, [a, b]) => {
                        u32::try_from(*b).ok().and_then(|by| a.checked_shr(by))
                    }
                    (Op::UConvert | Op::SConvert, [a]) => Some(*a),
                    _ => None,
                };
                result.ok_or_else(unknown)
            }
            _ => Err(unknown()),
        }
    }

    /// Whether a constant's value changes with a specialisation constant.
    pub(super) fn depends_on_spec(&self, id: Word) -> bool {
        let mut open = vec![id];
        let mut seen = std::collections::HashSet::new();
        while let Some(id) = open.pop() {
            if seen.insert(id) {
                if self.has(id, Decoration::SpecId) {
                    return true;
                }
                open.extend(self.ids(id));
            }
        }
        false
    }
}

/// The ids among an instruction's operands, in order.
pub(super) fn id_operands(inst: &Instruction) -> impl Iterator<Item = Word> + '_ {
    inst.operands.iter().filter_map(Operand::id_ref_any)
}

fn first_literal(marks: &[Mark], wanted: Decoration) -> Option<u32> {
    marks.iter().find(|(mark, _)| *mark == wanted).and_then(|(_, operands)| match operands.first() {
        Some(Operand::LiteralBit32(value)) => Some(*value),
        _ => None,
    })
}
