//! Bytes of types: the explicit offsets and strides where a type has them, std430 where it has none (shared memory).

use super::module::{DEPTH_MAX, Module};
use super::{PushKind, PushLayout, PushMember, ReflectError, malformed};
use rspirv::dr::Operand;
use rspirv::spirv::{Decoration, Op, StorageClass, Word};
use std::collections::HashMap;

/// Size and alignment of a type in bytes.
#[derive(Clone, Copy)]
struct Extent {
    bytes: u64,
    align: u64,
}

/// How a matrix member is laid out: bytes between its vectors, and which way they run.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct MatrixLayout {
    stride: Option<u32>,
    row_major: bool,
}

/// Sizes known so far; without them a malformed module of nested structs would take exponential time.
struct Sizes<'a> {
    module: &'a Module,
    known: HashMap<(Word, MatrixLayout), Extent>,
}

/// The members of the push-constant block `variable`.
pub(super) fn push(module: &Module, variable: Word) -> Result<PushLayout, ReflectError> {
    let (_, block) = module.variable(variable)?;
    if module.op(block) != Some(Op::TypeStruct) {
        return Err(malformed("push constants are not a struct"));
    }
    let mut sizes = Sizes { module, known: HashMap::new() };
    let mut members = Vec::new();
    for (index, ty) in (0u32..).zip(module.ids(block)) {
        let outer = sizes.member(block, index, ty, 0, "")?;
        if module.op(ty) != Some(Op::TypeStruct) {
            members.push(outer);
            continue;
        }
        for (inner, inner_ty) in (0u32..).zip(module.ids(ty)) {
            members.push(sizes.member(ty, inner, inner_ty, outer.offset, &outer.name)?);
        }
    }
    members.sort_by_key(|member| member.offset);
    // No overflow: `member` checked each sum.
    let bytes = members.iter().map(|member| member.offset + member.bytes).max().unwrap_or(0);
    Ok(PushLayout { bytes, members })
}

/// Bytes of shared memory that `variables` take. Blocks with explicit layout alias one another, so the largest counts.
pub(super) fn shared_bytes(module: &Module, variables: &[Word]) -> Result<u64, ReflectError> {
    let mut sizes = Sizes { module, known: HashMap::new() };
    let (mut packed, mut aliased) = (0u64, 0u64);
    for &variable in variables {
        let (_, ty) = module.variable(variable)?;
        let extent = sizes.of(ty, MatrixLayout::default(), 0)?;
        if module.has(ty, Decoration::Block) {
            aliased = aliased.max(extent.bytes);
        } else {
            packed = add(round_up(packed, extent.align)?, extent.bytes)?;
        }
    }
    add(packed, aliased)
}

/// Bytes of a scalar type.
pub(super) fn scalar_bytes(module: &Module, ty: Word) -> Result<u32, ReflectError> {
    let mut sizes = Sizes { module, known: HashMap::new() };
    match module.op(ty) {
        Some(Op::TypeInt | Op::TypeFloat | Op::TypeBool) => {
            narrow(sizes.of(ty, MatrixLayout::default(), 0)?.bytes)
        }
        _ => Err(malformed(format!("specialisation constant of type %{ty}, which is no scalar"))),
    }
}

impl Sizes<'_> {
    /// Member `index` of `parent`, which starts at byte `base` of the block.
    fn member(
        &mut self,
        parent: Word,
        index: u32,
        ty: Word,
        base: u32,
        prefix: &str,
    ) -> Result<PushMember, ReflectError> {
        let offset = self.module.member_literal(parent, index, Decoration::Offset);
        let offset =
            offset.ok_or_else(|| malformed(format!("member {index} of struct %{parent} has no offset")))?;
        let offset = narrow(add(u64::from(base), u64::from(offset))?)?;
        let bytes = narrow(self.of(ty, self.matrix(parent, index), 0)?.bytes)?;
        narrow(add(u64::from(offset), u64::from(bytes))?)?;
        let own = self.module.member_name(parent, index);
        let name = if prefix.is_empty() || own.is_empty() {
            format!("{prefix}{own}")
        } else {
            format!("{prefix}.{own}")
        };
        let kind = if self.is_address(ty) { PushKind::Address } else { PushKind::Value };
        Ok(PushMember { name, offset, bytes, kind })
    }

    fn matrix(&self, parent: Word, index: u32) -> MatrixLayout {
        MatrixLayout {
            stride: self.module.member_literal(parent, index, Decoration::MatrixStride),
            row_major: self.module.member_has(parent, index, Decoration::RowMajor),
        }
    }

    fn is_address(&self, ty: Word) -> bool {
        let uint = |ty: Word| match self.operands(ty) {
            (Some(Op::TypeInt), [Operand::LiteralBit32(width), Operand::LiteralBit32(0)]) => Some(*width),
            _ => None,
        };
        match self.operands(ty) {
            (Some(Op::TypePointer), _) => true,
            (Some(Op::TypeVector), [Operand::IdRef(part), Operand::LiteralBit32(2)]) => {
                uint(*part) == Some(32)
            }
            _ => uint(ty) == Some(64),
        }
    }

    fn operands(&self, ty: Word) -> (Option<Op>, &[Operand]) {
        match self.module.global(ty) {
            Some(inst) => (Some(inst.class.opcode), &inst.operands),
            None => (None, &[]),
        }
    }

    fn of(&mut self, ty: Word, matrix: MatrixLayout, depth: u32) -> Result<Extent, ReflectError> {
        if let Some(known) = self.known.get(&(ty, matrix)) {
            return Ok(*known);
        }
        if depth >= DEPTH_MAX {
            return Err(malformed(format!("type %{ty} is nested more than {DEPTH_MAX} deep")));
        }
        let (op, operands) = self.operands(ty);
        let extent = match (op, operands) {
            (Some(Op::TypeBool), _) => Extent { bytes: 4, align: 4 },
            (Some(Op::TypeInt | Op::TypeFloat), [Operand::LiteralBit32(width), ..]) => {
                let bytes = u64::from(*width / 8).max(1);
                Extent { bytes, align: bytes.next_power_of_two() }
            }
            (Some(Op::TypePointer), [Operand::StorageClass(StorageClass::PhysicalStorageBuffer), ..]) => {
                Extent { bytes: 8, align: 8 }
            }
            (Some(Op::TypeVector), &[Operand::IdRef(part), Operand::LiteralBit32(count)]) => {
                let part = self.of(part, matrix, depth + 1)?;
                let align = mul(part.align, u64::from(count).next_power_of_two())?;
                Extent { bytes: mul(part.bytes, u64::from(count))?, align }
            }
            (Some(Op::TypeMatrix), &[Operand::IdRef(column), Operand::LiteralBit32(columns)]) => {
                self.matrix_extent(column, columns, matrix, depth)?
            }
            (Some(Op::TypeArray), &[Operand::IdRef(element), Operand::IdRef(length)]) => {
                let element = self.of(element, matrix, depth + 1)?;
                let stride = match self.module.literal(ty, Decoration::ArrayStride) {
                    Some(stride) => u64::from(stride),
                    None => round_up(element.bytes, element.align)?,
                };
                Extent { bytes: mul(stride, self.module.constant(length)?)?, align: element.align }
            }
            (Some(Op::TypeStruct), _) => self.struct_extent(ty, depth)?,
            (op, _) => {
                let what = format!("the size of type %{ty} ({op:?}) in push constants or shared memory");
                return Err(ReflectError::Unsupported { what });
            }
        };
        self.known.insert((ty, matrix), extent);
        Ok(extent)
    }

    fn matrix_extent(
        &mut self,
        column: Word,
        columns: u32,
        layout: MatrixLayout,
        depth: u32,
    ) -> Result<Extent, ReflectError> {
        let rows = match self.operands(column) {
            (Some(Op::TypeVector), [_, Operand::LiteralBit32(rows)]) => *rows,
            _ => return Err(malformed(format!("matrix column %{column} is no vector"))),
        };
        let extent = self.of(column, layout, depth + 1)?;
        let stride = layout.stride.map_or(extent.align, u64::from);
        let vectors = if layout.row_major { rows } else { columns };
        Ok(Extent { bytes: mul(stride, u64::from(vectors))?, align: extent.align })
    }

    fn struct_extent(&mut self, ty: Word, depth: u32) -> Result<Extent, ReflectError> {
        let mut whole = Extent { bytes: 0, align: 1 };
        let mut explicit = false;
        for (index, member) in (0u32..).zip(self.module.ids(ty)) {
            let extent = self.of(member, self.matrix(ty, index), depth + 1)?;
            let start = match self.module.member_literal(ty, index, Decoration::Offset) {
                Some(offset) => {
                    explicit = true;
                    u64::from(offset)
                }
                None => round_up(whole.bytes, extent.align)?,
            };
            whole.bytes = whole.bytes.max(add(start, extent.bytes)?);
            whole.align = whole.align.max(extent.align);
        }
        if !explicit {
            whole.bytes = round_up(whole.bytes, whole.align)?;
        }
        Ok(whole)
    }
}

fn add(a: u64, b: u64) -> Result<u64, ReflectError> {
    a.checked_add(b).ok_or_else(too_large)
}

fn mul(a: u64, b: u64) -> Result<u64, ReflectError> {
    a.checked_mul(b).ok_or_else(too_large)
}

fn round_up(bytes: u64, align: u64) -> Result<u64, ReflectError> {
    bytes.checked_next_multiple_of(align).ok_or_else(too_large)
}

fn narrow(bytes: u64) -> Result<u32, ReflectError> {
    u32::try_from(bytes).map_err(|_| too_large())
}

fn too_large() -> ReflectError {
    malformed("a size overflows")
}
