//! What a launch is given: accesses to managed memory, and plain values for push constants.

use crate::AccessKind;
use crate::ports::Range;
use crate::runtime::Inner;
use bytemuck::Pod;
use std::marker::PhantomData;
use std::sync::Arc;
use vkhmm_core::units::ByteRange;

/// One access of a launch: which bytes, and what the kernel may do with them. Made by `read`, `write` and `overwrite`.
pub struct Access<'a> {
    pub(crate) inner: Arc<Inner>,
    pub(crate) range: Option<Arc<Range>>,
    pub(crate) bytes: ByteRange,
    pub(crate) kind: AccessKind,
    pub(crate) borrow: PhantomData<&'a mut ()>,
}

/// The arguments of a launch in order: accesses and values, for lists whose length only the running program knows. Values are
/// copied here before any lock is taken: they may lie in managed memory themselves.
#[derive(Default)]
pub struct Collected<'a> {
    pub(crate) accesses: Vec<Access<'a>>,
    pub(crate) values: Vec<Vec<u8>>,
}

impl<'a> Collected<'a> {
    /// Appends an access.
    pub fn access(&mut self, access: Access<'a>) {
        self.accesses.push(access);
    }

    /// Appends a value, as its bytes.
    pub fn value(&mut self, bytes: &[u8]) {
        self.values.push(bytes.to_vec());
    }
}

/// Something a launch takes: an [`Access`] or a Pod value (a scalar, or one struct for the whole push-constant
/// block).
pub trait Argument<'a> {
    /// Adds itself to the list.
    #[doc(hidden)]
    fn collect(self, into: &mut Collected<'a>);
}

impl<'a> Argument<'a> for Access<'a> {
    fn collect(self, into: &mut Collected<'a>) {
        into.accesses.push(self);
    }
}

impl<'a, T: Pod> Argument<'a> for T {
    fn collect(self, into: &mut Collected<'a>) {
        into.values.push(bytemuck::bytes_of(&self).to_vec());
    }
}

/// A tuple of up to twelve [`Argument`]s, or a [`Collected`] list of any length.
pub trait Arguments<'a> {
    /// The list.
    #[doc(hidden)]
    fn collect_all(self) -> Collected<'a>;
}

impl<'a> Arguments<'a> for Collected<'a> {
    fn collect_all(self) -> Self {
        self
    }
}

macro_rules! tuples {
    ($($name:ident)*) => {
        impl<'a, $($name: Argument<'a>),*> Arguments<'a> for ($($name,)*) {
            #[allow(non_snake_case, reason = "type and variable share a name in this macro")]
            fn collect_all(self) -> Collected<'a> {
                let ($($name,)*) = self;
                #[allow(unused_mut, reason = "the empty tuple collects nothing")]
                let mut all = Collected::default();
                $($name.collect(&mut all);)*
                all
            }
        }
    };
}
tuples!();
tuples!(A);
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
tuples!(A B C D E F G);
tuples!(A B C D E F G H);
tuples!(A B C D E F G H I);
tuples!(A B C D E F G H I J);
tuples!(A B C D E F G H I J K);
tuples!(A B C D E F G H I J K L);
