//! dot, sum, max, arg_min: one result of many elements. Each pass leaves one for every 4096, always for the same ones and folded in
//! the same order; the last one is written to the caller's element, so that nothing waits.

use super::elementwise::same_length;
use super::modules::Module;
use super::operand::{Launches, Role, Words, refuse};
use crate::launch::{Grid, Launch};
use crate::{Access, AccessKind, Managed, Result, Runtime};

/// Elements of one group.
const GROUP: usize = 4096;
/// Invocations of one group.
const LANES: usize = 64;

/// `out[0]` = the sum of `x[i] * y[i]`. Both have the same length; `out` is one element.
///
/// ```no_run
/// # use vkhmm::{Runtime, kernels};
/// # fn main() -> vkhmm::Result<()> {
/// # let rt = Runtime::builder().build()?;
/// let (x, y, mut out) = (rt.alloc::<f32>(1000)?, rt.alloc::<f32>(1000)?, rt.alloc::<f32>(1)?);
/// kernels::dot(&rt, x.read(), y.read(), out.overwrite())?; // returns at once
/// println!("{}", out[0]); // waits
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As the [module](super) says.
pub fn dot(rt: &Runtime, x: Access<'_>, y: Access<'_>, out: Access<'_>) -> Result<Launch> {
    let x = Words::new("dot", "x", x, Role::In)?;
    let y = Words::new("dot", "y", y, Role::In)?;
    same_length("dot", ("x", &x), ("y", &y))?;
    let out = one("dot", out)?;
    out.apart("dot", "out", &[("x", &x), ("y", &y)])?;
    reduce(rt, [Module::Dot, Module::Sum], 1, &x, Some(&y), &out)
}

/// `out[0]` = the sum of `x`; 0 of no elements.
///
/// # Errors
/// As the [module](super) says.
pub fn sum(rt: &Runtime, x: Access<'_>, out: Access<'_>) -> Result<Launch> {
    let x = Words::new("sum", "x", x, Role::In)?;
    let out = one("sum", out)?;
    out.apart("sum", "out", &[("x", &x)])?;
    reduce(rt, [Module::Sum; 2], 1, &x, None, &out)
}

/// `out[0]` = the largest of `x`; what is not a number is passed over, and of nothing it is minus infinity.
///
/// # Errors
/// As the [module](super) says.
pub fn max(rt: &Runtime, x: Access<'_>, out: Access<'_>) -> Result<Launch> {
    let x = Words::new("max", "x", x, Role::In)?;
    let out = one("max", out)?;
    out.apart("max", "out", &[("x", &x)])?;
    reduce(rt, [Module::Max; 2], 1, &x, None, &out)
}

/// `out[0]` (u32) = the index of the smallest of `x`, the first one of equal ones; what is not a number is passed over, and of
/// nothing it is `u32::MAX`.
///
/// # Errors
/// As the [module](super) says; `Shape` if `x` has 2³² elements or more.
pub fn arg_min(rt: &Runtime, x: Access<'_>, out: Access<'_>) -> Result<Launch> {
    let x = Words::new("arg_min", "x", x, Role::In)?;
    let out = one("arg_min", out)?;
    out.apart("arg_min", "out", &[("x", &x)])?;
    if x.len() >= u32::MAX as usize {
        let need = "an index has 32 bits: call it for parts, each of fewer elements";
        return refuse("arg_min", "x", format!("{} elements", x.len()), need);
    }
    reduce(rt, [Module::ArgMin, Module::ArgMinPairs], 2, &x, None, &out)
}

fn one<'a>(kernel: &'static str, out: Access<'a>) -> Result<Words<'a>> {
    let out = Words::new(kernel, "out", out, Role::Out)?;
    if out.len() == 1 {
        return Ok(out);
    }
    refuse(kernel, "out", format!("{} elements", out.len()), "the result is one: pass a slice of one element")
}

/// Passes until one result is left; `width` words each while there are several.
pub(super) fn reduce(
    rt: &Runtime,
    [first, then]: [Module; 2],
    width: usize,
    x: &Words<'_>,
    y: Option<&Words<'_>>,
    out: &Words<'_>,
) -> Result<Launch> {
    let mut launches = Launches::new(rt);
    let mut module = first;
    let mut from: Option<Managed<u32>> = None;
    let mut count = x.len();
    loop {
        let groups = count.div_ceil(GROUP).max(1);
        let last = groups == 1;
        let mut to: Option<Managed<u32>> = if last {
            None
        } else {
            Some(rt.alloc_named::<u32>(groups * width, "vkhmm kernels, partial results")?)
        };
        {
            let source = from.as_ref().map(|from| Words::new("", "", from.read(), Role::In)).transpose()?;
            let target = to.as_mut().map(|to| Words::new("", "", to.overwrite(), Role::Out)).transpose()?;
            let (source, target) = (source.as_ref().unwrap_or(x), target.as_ref().unwrap_or(out));
            let (read, written) = (if from.is_some() { width } else { 1 }, if last { 1 } else { width });
            let step = step(rt, if from.is_none() && y.is_some() { 8 } else { 4 * read });
            for start in (0..count.max(1)).step_by(step) {
                let end = (start + step).min(count);
                let groups = start / GROUP..end.div_ceil(GROUP).max(start / GROUP + 1);
                let x = source.read(start * read..end * read);
                let y = y.filter(|_| from.is_none()).map_or_else(|| source.none(), |y| y.read(start..end));
                let grid = Grid::linear(groups.len() * LANES);
                let to = target.part(groups.start * written..groups.end * written, AccessKind::Overwrite);
                launches.add(
                    module,
                    grid,
                    [x, y, to],
                    &[(end - start) as u32, start as u32, u32::from(last)],
                )?;
            }
        }
        if last {
            return launches.done();
        }
        // The scratch memory read in this pass goes once the launches are over.
        (from, count, module) = (to, groups, then);
    }
}

/// Elements of a window: whole groups, so that windows change no result.
fn step(rt: &Runtime, bytes: usize) -> usize {
    (rt.windows(usize::MAX, bytes, 2).step().min(1 << 28) / GROUP).max(1) * GROUP
}
