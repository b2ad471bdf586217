//! NumPy's `.npy` files: checked before a byte of data is believed, read element by element, written beside the target first.

use anyhow::{Context, Result, bail, ensure};
use npyz::{NpyFile, NpyHeader, Order, WriteOptions, WriterBuilder};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom};
use std::path::Path;

/// An open file whose header has been checked.
pub(crate) type Source = NpyFile<BufReader<File>>;

/// Opens a file and checks its header and length; errors name the file.
pub(crate) fn open(path: &Path) -> Result<Source> {
    let name = || path.display().to_string();
    let file = File::open(path).with_context(name)?;
    ensure!(!file.metadata().with_context(name)?.is_dir(), "{}: a folder, not a .npy file", name());
    check(BufReader::new(file)).with_context(name)
}

/// Reads and checks the header: row-major order, and as many bytes of data as the shape says.
pub(crate) fn check<R: Read + Seek>(mut reader: R) -> Result<NpyFile<R>> {
    let mut head = Vec::new();
    reader.by_ref().take(4096).read_to_end(&mut head)?;
    ensure!(countable(&head), "the shape is too large for any machine");
    reader.rewind()?;
    let header = NpyHeader::from_reader(&mut reader).context("not a NumPy .npy file")?;
    let dtype = header.dtype();
    let element = dtype.num_bytes().filter(|bytes| *bytes > 0);
    let Some(element) = element.filter(|_| !dtype.uses_pickled_array()) else {
        bail!("dtype {} cannot be read: save numbers", dtype.descr());
    };
    let shape = header.shape();
    ensure!(
        header.order() == Order::C || shape.len() < 2,
        "the array is in Fortran order: save numpy.ascontiguousarray(x)"
    );
    let need = shape.iter().try_fold(element as u64, |bytes, side| bytes.checked_mul(*side));
    let need = need.with_context(|| format!("shape {shape:?} is too large for any machine"))?;
    let start = reader.stream_position()?;
    let have = reader.seek(SeekFrom::End(0))?.saturating_sub(start);
    ensure!(have >= need, "truncated: shape {shape:?} needs {need} bytes of data, the file has {have}");
    reader.seek(SeekFrom::Start(start))?;
    Ok(NpyFile::with_header(header, reader))
}

/// Whether the elements that a header promises can be counted; `npyz` multiplies without asking. What is no header passes.
fn countable(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head);
    let shape = text.split_once("'shape'").and_then(|(_, rest)| rest.split(['(', ')']).nth(1));
    let sides = shape.unwrap_or_default().split(',').map(str::trim).filter(|side| !side.is_empty());
    sides
        .map(|side| side.parse().unwrap_or(u64::MAX))
        .try_fold(1u64, |all, side| all.checked_mul(side.max(1)))
        .is_some()
}

/// Rows and columns of a two-dimensional array.
pub(crate) fn rows_and_columns(header: &NpyHeader) -> Result<(usize, usize)> {
    match *header.shape() {
        [rows, columns] => Ok((usize::try_from(rows)?, usize::try_from(columns)?)),
        ref other => bail!("shape {other:?}: a matrix has two dimensions, rows and columns"),
    }
}

/// Elements in row-major order, from a file or a generator.
pub(crate) type Elements = Box<dyn Iterator<Item = std::io::Result<f32>>>;

/// A file's rows and columns, and its elements; errors name the file.
pub(crate) fn matrix(path: &Path) -> Result<((usize, usize), Elements)> {
    let file = open(path)?;
    let name = || path.display().to_string();
    let shape = rows_and_columns(file.header()).with_context(name)?;
    Ok((shape, Box::new(f32s(file).with_context(name)?)))
}

/// The elements of an f32 array, of either byte order.
pub(crate) fn f32s<R: Read>(file: NpyFile<R>) -> Result<impl Iterator<Item = std::io::Result<f32>>> {
    match file.try_data::<f32>() {
        Ok(data) => Ok(data),
        Err(file) => bail!("dtype is {}, f32 is needed: save x.astype('float32')", file.dtype().descr()),
    }
}

/// Tries each element type in turn; `$convert` makes one element of the result.
macro_rules! any_of {
    ($file:ident: $($convert:expr, $type:ty;)*) => {
        $(let $file = match $file.try_data::<$type>() {
            Ok(data) => return Ok(data.map(|v| v.map($convert)).collect::<std::io::Result<_>>()?),
            Err(file) => file,
        };)*
        bail!("dtype is {}: f32, f64 and whole numbers of 8 to 64 bits can be read", $file.dtype().descr())
    };
}

/// All elements as f64. Whole numbers beyond 2^53 are rounded.
pub(crate) fn numbers<R: Read>(file: NpyFile<R>) -> Result<Vec<f64>> {
    any_of!(file:
        f64::from, f32; |v| v, f64; f64::from, u8; f64::from, i8; f64::from, u16; f64::from, i16; f64::from, u32;
        f64::from, i32; |v| v as f64, u64; |v| v as f64, i64;
    );
}

/// All elements as keys: two keys are equal if, and only if, the elements are.
pub(crate) fn keys<R: Read>(file: NpyFile<R>) -> Result<Vec<u64>> {
    // Adding zero makes one of the two zeros.
    any_of!(file:
        |v| (f64::from(v) + 0.0).to_bits(), f32; |v| (v + 0.0).to_bits(), f64; u64::from, u8; |v| v as u64, i8;
        u64::from, u16; |v| v as u64, i16; u64::from, u32; |v| v as u64, i32; |v| v, u64; |v| v as u64, i64;
    );
}

/// Where a matrix is written: under another name until it is whole, so that a failure never leaves half a file.
pub(crate) struct Target {
    path: std::path::PathBuf,
    part: std::path::PathBuf,
    file: Option<File>,
}

impl Target {
    /// Creates the file, so that a path that cannot be written is found out before the work.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let name = path.file_name().with_context(|| format!("{}: not the name of a file", path.display()))?;
        ensure!(!path.is_dir(), "{}: a folder, not a file", path.display());
        let mut part = name.to_os_string();
        part.push(".part");
        let part = path.with_file_name(part);
        let file = File::create(&part).with_context(|| part.display().to_string())?;
        Ok(Self { path: path.into(), part, file: Some(file) })
    }

    /// Writes `rows` x `columns` elements in row-major order and gives the file its name.
    pub(crate) fn write(
        mut self,
        rows: usize,
        columns: usize,
        elements: impl IntoIterator<Item = f32>,
    ) -> Result<()> {
        let Some(file) = self.file.take() else { bail!("{}: written already", self.path.display()) };
        let options = WriteOptions::new().default_dtype().shape(&[rows as u64, columns as u64]);
        let name = || self.path.display().to_string();
        let mut writer = options.writer(BufWriter::new(file)).begin_nd().with_context(name)?;
        writer.extend(elements).and_then(|()| writer.finish()).with_context(name)?;
        std::fs::rename(&self.part, &self.path).with_context(name)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Gone already if it was renamed; and a failure to tidy up is nobody's news.
        let _ = std::fs::remove_file(&self.part);
    }
}
