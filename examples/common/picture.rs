//! Pictures: PNG files in and out, and colours for numbers.

use anyhow::{Context, Result, bail, ensure};
use png::{BitDepth, ColorType, Compression, Decoder, Encoder, Transformations};
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

/// A picture of bytes, row by row: one channel (grey, or numbers of colours), or three (red, green, blue).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) channels: usize,
    pub(crate) bytes: Vec<u8>,
}

impl Picture {
    /// A picture of one channel, from its value (0 to 1) at each column and row.
    pub(crate) fn grey(width: usize, height: usize, value: impl Fn(usize, usize) -> f32) -> Self {
        let bytes = (0..width * height).map(|i| byte(value(i % width, i / width))).collect();
        Self { width, height, channels: 1, bytes }
    }

    /// Reads a PNG file of any kind; what is transparent is taken as it is.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let name = || path.display().to_string();
        let file = File::open(path).with_context(name)?;
        ensure!(!file.metadata().with_context(name)?.is_dir(), "{}: a folder, not a picture", name());
        let mut decoder = Decoder::new(BufReader::new(file));
        decoder.set_transformations(Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().with_context(name)?;
        let size = reader.output_buffer_size().with_context(|| format!("{}: too large", name()))?;
        let mut raw = vec![0; size];
        let info = reader.next_frame(&mut raw).with_context(name)?;
        raw.truncate(info.buffer_size());
        let (width, height) = (info.width as usize, info.height as usize);
        let (all, channels) = match info.color_type {
            ColorType::Grayscale => (1, 1),
            ColorType::GrayscaleAlpha => (2, 1),
            ColorType::Rgb => (3, 3),
            ColorType::Rgba => (4, 3),
            ColorType::Indexed => bail!("{}: colours without a palette", name()),
        };
        let bytes = raw.chunks_exact(all).flat_map(|point| &point[..channels]).copied().collect();
        Ok(Self { width, height, channels, bytes })
    }

    /// Writes a PNG file; numbers of colours with their palette, if one is given.
    pub(crate) fn write(&self, path: &Path, palette: Option<Vec<u8>>) -> Result<()> {
        let name = || path.display().to_string();
        let file = BufWriter::new(File::create(path).with_context(name)?);
        let mut encoder = Encoder::new(file, self.width as u32, self.height as u32);
        encoder.set_depth(BitDepth::Eight);
        encoder.set_compression(Compression::High);
        encoder.set_color(match (palette.is_some(), self.channels) {
            (true, _) => ColorType::Indexed,
            (false, 1) => ColorType::Grayscale,
            (false, _) => ColorType::Rgb,
        });
        if let Some(palette) = palette {
            encoder.set_palette(palette);
        }
        let mut writer = encoder.write_header().with_context(name)?;
        writer.write_image_data(&self.bytes).with_context(name)?;
        writer.finish().with_context(name)
    }
}

/// 0 to 1 as a byte.
pub(crate) fn byte(value: f32) -> u8 {
    (value.clamp(0.0, 1.0) * 255.0 + 0.5) as u8
}

/// Colours from cold to hot: dark blue, blue, white in the middle, orange, dark red.
pub(crate) fn heat_palette() -> Vec<u8> {
    let stops = [[10, 20, 90], [40, 120, 220], [245, 245, 240], [240, 130, 40], [110, 10, 20]];
    let colour = |i: usize| {
        let at = i as f32 / 255.0 * (stops.len() - 1) as f32;
        let low = (at as usize).min(stops.len() - 2);
        let part = at - low as f32;
        [0, 1, 2].map(|c| (stops[low][c] as f32 * (1.0 - part) + stops[low + 1][c] as f32 * part) as u8)
    };
    (0..256).flat_map(colour).collect()
}
