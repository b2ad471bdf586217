//! What comes from C and what goes back: pointers are checked, and bytes are copied before anything else is done, since they may
//! lie in managed memory themselves.

use crate::error::vkhmm_result::*;
use crate::error::{Answer, Failure};
use std::ffi::{CStr, c_char};

fn usable<T>(pointer: *const T, name: &str) -> Result<(), Failure> {
    if pointer.is_null() {
        return Err(Failure::argument(format!("{name} is NULL")));
    }
    if !pointer.is_aligned() {
        let align = align_of::<T>();
        return Err(Failure::argument(format!("{name} is {pointer:p}, which is no multiple of {align}")));
    }
    Ok(())
}

/// A private copy of `count` values.
///
/// # Safety
/// `pointer` is NULL, misaligned, or good for reading `count` values.
pub(crate) unsafe fn list<T: Copy>(pointer: *const T, count: usize, name: &str) -> Result<Vec<T>, Failure> {
    if count == 0 {
        return Ok(Vec::new());
    }
    usable(pointer, name)?;
    if count.checked_mul(size_of::<T>()).is_none_or(|bytes| isize::try_from(bytes).is_err()) {
        return Err(Failure::argument(format!("{name}: {count} elements are more than memory has")));
    }
    // SAFETY: neither NULL nor misaligned, so the caller's contract makes it good for `count` values.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) }.to_vec())
}

/// A private copy of one value.
///
/// # Safety
/// As [`list`], for one value.
pub(crate) unsafe fn one<T: Copy>(pointer: *const T, name: &str) -> Result<T, Failure> {
    usable(pointer, name)?;
    // SAFETY: neither NULL nor misaligned, so the caller's contract makes it good for one value.
    Ok(unsafe { pointer.read() })
}

/// A private copy of a text; `None` for NULL.
///
/// # Safety
/// `text` is NULL or ends with a NUL.
pub(crate) unsafe fn text(text: *const c_char, name: &str) -> Result<Option<String>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: not NULL, so the caller's contract gives it an end.
    let bytes = unsafe { CStr::from_ptr(text) };
    let text = bytes.to_str().map_err(|_| Failure::argument(format!("{name} is not UTF-8: {bytes:?}")))?;
    Ok(Some(text.into()))
}

/// Refuses a value in a field that has no meaning yet.
pub(crate) fn unused(value: u32, name: &str) -> Result<(), Failure> {
    if value == 0 { Ok(()) } else { Err(Failure::argument(format!("{name} is {value}: leave it zero"))) }
}

/// A struct of options: plain numbers and pointers, all of which may be zero, the first of them its size.
///
/// # Safety
/// `repr(C)`, starts with a `usize`, and zeros are a valid value of every field.
pub(crate) unsafe trait Options: Copy {
    /// Bytes of its first version.
    const FIRST_BYTES: usize;
}

/// Most bytes of a struct of options that some later version may have.
const OPTIONS_BYTES_MAX: usize = 4096;

/// Options as they were passed: what an older program does not know is zero, and what a newer one knows must be.
///
/// # Safety
/// `pointer` is NULL, misaligned, or good for reading the bytes that its first field says.
pub(crate) unsafe fn options<T: Options>(pointer: *const T, name: &str) -> Result<T, Failure> {
    // SAFETY: the trait says that zeros are a value.
    let mut out = unsafe { std::mem::zeroed::<T>() };
    if pointer.is_null() {
        return Ok(out);
    }
    usable(pointer, name)?;
    // SAFETY: usable, and by its trait it starts with a usize.
    let bytes = unsafe { pointer.cast::<usize>().read() };
    let known = size_of::<T>();
    if bytes < T::FIRST_BYTES || bytes > OPTIONS_BYTES_MAX {
        let first = T::FIRST_BYTES;
        return Err(Failure::argument(format!(
            "{name}: size is {bytes}, set it to sizeof ({first} bytes or more)"
        )));
    }
    // SAFETY: the caller vouches for `bytes` readable bytes.
    let given = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), bytes) };
    if let Some(at) = given.iter().skip(known).position(|b| *b != 0) {
        return Err(Failure::argument(format!(
            "{name}: byte {} is set, this library knows {known} bytes: leave newer options zero, or use a newer library",
            known + at
        )));
    }
    let both = bytes.min(known);
    // SAFETY: at most as many bytes as either side has; they do not overlap, and any bytes from C are a value.
    unsafe { std::ptr::copy_nonoverlapping(given.as_ptr(), (&raw mut out).cast::<u8>(), both) };
    Ok(out)
}

/// Where an answer goes.
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// # Safety
    /// `pointer` is NULL, misaligned, or good for writing one value until the call returns.
    pub(crate) unsafe fn new(pointer: *mut T, name: &str) -> Result<Self, Failure> {
        usable(pointer, name).map(|()| Self(pointer))
    }

    /// As [`Out::new`], `None` for NULL.
    ///
    /// # Safety
    /// As [`Out::new`].
    pub(crate) unsafe fn optional(pointer: *mut T, name: &str) -> Result<Option<Self>, Failure> {
        if pointer.is_null() {
            return Ok(None);
        }
        // SAFETY: the contract is the caller's.
        unsafe { Self::new(pointer, name) }.map(Some)
    }

    pub(crate) fn set(self, value: T) {
        // SAFETY: `new` checked it, and its caller vouched for the rest.
        unsafe { self.0.write(value) };
    }
}

/// An array of the caller's, to be filled, and where the number goes that there is.
pub(crate) struct OutList<T> {
    to: *mut T,
    capacity: usize,
    needed: Option<Out<usize>>,
}

impl<T: Copy> OutList<T> {
    /// # Safety
    /// `to` is NULL, misaligned, or good for writing `capacity` values until the call returns; `needed` likewise for one.
    pub(crate) unsafe fn new(
        to: *mut T,
        capacity: usize,
        needed: *mut usize,
        name: &str,
    ) -> Result<Self, Failure> {
        if capacity > 0 {
            usable(to, name)?;
        }
        // SAFETY: the contract is the caller's.
        let needed = unsafe { Out::optional(needed, "needed")? };
        if capacity == 0 && needed.is_none() {
            return Err(Failure::argument(format!(
                "neither {name} nor needed is given: nothing to answer to"
            )));
        }
        Ok(Self { to, capacity, needed })
    }

    /// Writes what fits.
    pub(crate) fn set(self, values: &[T]) -> Answer {
        let fits = values.len().min(self.capacity);
        if fits > 0 {
            // SAFETY: `new` checked it, and its caller vouched for `capacity` values; ours are private.
            unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), self.to, fits) };
        }
        if let Some(needed) = self.needed {
            needed.set(values.len());
        }
        // To ask for the number alone is no mistake.
        let asked = self.capacity > 0;
        Ok(if asked && fits < values.len() { VKHMM_INCOMPLETE } else { VKHMM_OK })
    }
}

/// A text buffer of the caller's.
pub(crate) struct OutText(OutList<u8>);

impl OutText {
    /// # Safety
    /// As [`OutList::new`].
    pub(crate) unsafe fn new(to: *mut c_char, capacity: usize, needed: *mut usize) -> Result<Self, Failure> {
        // SAFETY: the contract is the caller's.
        unsafe { OutList::new(to.cast::<u8>(), capacity, needed, "text") }.map(Self)
    }

    /// Writes what fits, and a NUL.
    pub(crate) fn set(self, text: &str) -> Answer {
        let mut bytes: Vec<u8> = text.bytes().map(|b| if b == 0 { b' ' } else { b }).collect();
        let needed = bytes.len() + 1;
        let Self(list) = self;
        if list.capacity > 0 && bytes.len() >= list.capacity {
            // Whole characters only.
            let mut end = list.capacity - 1;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            bytes.truncate(end);
        }
        bytes.push(0);
        if let Some(out) = list.needed {
            out.set(needed);
        }
        let cut = list.capacity > 0 && bytes.len() < needed;
        OutList { needed: None, ..list }.set(&bytes)?;
        Ok(if cut { VKHMM_INCOMPLETE } else { VKHMM_OK })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    #[repr(C)]
    struct Sample {
        size: usize,
        old: u64,
        new: u64,
    }
    // SAFETY: repr(C), a usize first, and all its fields are numbers.
    unsafe impl Options for Sample {
        const FIRST_BYTES: usize = 16;
    }

    #[test]
    fn options_of_other_versions_are_understood_or_refused() {
        let with = |size: usize| {
            let bytes = [size as u64, 1, 2, 0, 0];
            // SAFETY: 40 bytes are readable, and no size below passes them but those that are refused unread.
            unsafe { options::<Sample>(bytes.as_ptr().cast(), "options") }
        };
        assert_eq!(with(16).expect("older"), Sample { size: 16, old: 1, new: 0 });
        assert_eq!(with(24).expect("ours"), Sample { size: 24, old: 1, new: 2 });
        assert_eq!(with(40).expect("newer, its options unset"), Sample { size: 40, old: 1, new: 2 });
        for wrong in [0, 8, 15, 4097, usize::MAX] {
            assert_eq!(with(wrong).expect_err("refused").code, VKHMM_ERROR_INVALID_ARGUMENT, "{wrong}");
        }
        let newer = [32u64, 1, 2, 3];
        // SAFETY: 32 bytes are readable, as the first word says.
        let set = unsafe { options::<Sample>(newer.as_ptr().cast(), "options") };
        assert_eq!(set.expect_err("unknown").code, VKHMM_ERROR_INVALID_ARGUMENT);
        // SAFETY: NULL is looked at, not read.
        let none = unsafe { options::<Sample>(std::ptr::null(), "options") }.expect("defaults");
        assert_eq!(none, Sample { size: 0, old: 0, new: 0 });
    }

    #[test]
    fn texts_are_cut_between_characters_and_say_how_long_they_are() {
        let give = |capacity: usize| {
            let (mut to, mut needed) = ([9 as c_char; 8], 0);
            // SAFETY: no capacity below is above 8.
            let answer = unsafe { OutText::new(to.as_mut_ptr(), capacity, &raw mut needed) };
            let code = answer.expect("usable").set("ab\u{e9}\0").expect("set");
            (code, to.map(|c| c as u8), needed)
        };
        assert_eq!(give(8), (VKHMM_OK, [b'a', b'b', 0xc3, 0xa9, b' ', 0, 9, 9], 6));
        assert_eq!(give(6), (VKHMM_OK, [b'a', b'b', 0xc3, 0xa9, b' ', 0, 9, 9], 6));
        assert_eq!(give(4), (VKHMM_INCOMPLETE, [b'a', b'b', 0, 9, 9, 9, 9, 9], 6));
        assert_eq!(give(1), (VKHMM_INCOMPLETE, [0, 9, 9, 9, 9, 9, 9, 9], 6));
        assert_eq!(give(0), (VKHMM_OK, [9; 8], 6));
    }
}
