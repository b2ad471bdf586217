//! Calls that need no kernel of the caller's: fill and copy on the device, safe because the kernels are ours.

use crate::access::Access;
use crate::error::Error;
use crate::kernels::Module;
use crate::launch::{Grid, Launch};
use crate::runtime::Runtime;
use crate::{AccessKind, Result};
use std::marker::PhantomData;
use std::sync::Arc;
use vkhmm_core::units::ByteRange;
use vkhmm_port::Device;

impl Runtime {
    /// Sets every 32-bit word of `to` to `word`, on the device. Like any launch: asynchronous and in order.
    ///
    /// # Errors
    /// `Words` if `to` is not whole words or not given for writing; otherwise as [`Runtime::launch`].
    pub fn fill(&self, to: Access<'_>, word: u32) -> Result<Launch> {
        check_words("fill", &to, true)?;
        let kernel = Module::FillWords.kernel(self)?;
        let mut last = None;
        for part in self.parts(to.bytes) {
            last = Some(self.launch(
                kernel,
                Grid::linear((part.len() / 4) as usize),
                (piece(&to, part), word),
            )?);
        }
        Ok(last.unwrap_or_else(|| Launch::new(Arc::clone(&self.inner), Vec::new())))
    }

    /// Copies all of `from` to `to`, on the device. Like any launch: asynchronous and in order.
    ///
    /// # Errors
    /// `Words` if the two differ in length, are not whole words, or `to` is not given for writing; otherwise as
    /// [`Runtime::launch`].
    pub fn copy(&self, from: Access<'_>, to: Access<'_>) -> Result<Launch> {
        check_words("copy", &from, false)?;
        check_words("copy", &to, true)?;
        if from.bytes.len() != to.bytes.len() {
            let reason =
                format!("{} bytes to {} bytes: both must be of one length", from.bytes.len(), to.bytes.len());
            return Err(Error::Words { operation: "copy", reason });
        }
        let kernel = Module::CopyWords.kernel(self)?;
        let mut last = None;
        for (a, b) in self.parts(from.bytes).into_iter().zip(self.parts(to.bytes)) {
            let grid = Grid::linear((a.len() / 4) as usize);
            last = Some(self.launch(kernel, grid, (piece(&from, a), piece(&to, b)))?);
        }
        Ok(last.unwrap_or_else(|| Launch::new(Arc::clone(&self.inner), Vec::new())))
    }

    /// Cuts bytes into what one binding can hold.
    fn parts(&self, bytes: ByteRange) -> Vec<ByteRange> {
        let most = (self.inner.engine.device().profile().binding_bytes_max / 65536).max(1) * 65536;
        let count = bytes.len().div_ceil(most);
        (0..count)
            .map(|i| ByteRange {
                start: bytes.start + i * most,
                end: (bytes.start + (i + 1) * most).min(bytes.end),
            })
            .collect()
    }
}

fn piece<'a>(of: &Access<'a>, bytes: ByteRange) -> Access<'a> {
    Access {
        inner: Arc::clone(&of.inner),
        range: of.range.clone(),
        bytes,
        kind: of.kind,
        borrow: PhantomData,
    }
}

fn check_words(operation: &'static str, access: &Access<'_>, writes: bool) -> Result<()> {
    let reason = if access.bytes.len() % 4 != 0 {
        format!("{} bytes are not whole 32-bit words", access.bytes.len())
    } else if writes && access.kind == AccessKind::Read {
        "the target is given for reading: pass write() or overwrite()".into()
    } else {
        return Ok(());
    };
    Err(Error::Words { operation, reason })
}
