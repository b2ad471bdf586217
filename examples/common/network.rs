//! A small network of two layers, trained on the GPU: images and weights are slices for whoever looks.

use super::Random;
use vkhmm::kernels::{self, Mat};
use vkhmm::{Grid, Kernel, Managed, Runtime};

/// What one image has: its points and a one, whose weights are the hidden units' thresholds.
pub(crate) const INPUTS: usize = 65;
/// Units between the layers.
const HIDDEN: usize = 128;
/// What an image can be.
pub(crate) const DIGITS: usize = 10;
/// How far a step goes, what it keeps of the one before, and by how much all weights shrink.
const RATE: f32 = 0.3;
const MOMENTUM: f32 = 0.9;
const SHRINK: f32 = 1e-3;

/// Images in rows of [`INPUTS`], what the network makes of them, and what they are: a one in the digit's column.
pub(crate) struct Images {
    pub(crate) count: usize,
    values: Managed<f32>,
    hidden: Managed<f32>,
    back: Managed<f32>,
    guess: Managed<f32>,
    digits: Managed<f32>,
}

impl Images {
    pub(crate) fn new(rt: &Runtime, images: &[&[f64]], labels: &[u64]) -> vkhmm::Result<Self> {
        let count = images.len();
        let array = |label, columns: usize| rt.alloc_named::<f32>(count * columns, label);
        let (mut values, mut digits) = (array("images", INPUTS)?, array("digits", DIGITS)?);
        for (row, image) in values.chunks_exact_mut(INPUTS).zip(images) {
            row.iter_mut().zip(image.iter()).for_each(|(to, from)| *to = *from as f32 / 16.0);
            row[INPUTS - 1] = 1.0;
        }
        labels.iter().enumerate().for_each(|(row, label)| digits[row * DIGITS + *label as usize] = 1.0);
        let (hidden, back, guess) =
            (array("hidden", HIDDEN)?, array("way back", HIDDEN)?, array("guess", DIGITS)?);
        Ok(Self { count, values, hidden, back, guess, digits })
    }
}

/// Weights, and the last step of each.
pub(crate) struct Network<'a> {
    rt: &'a Runtime,
    relu: Kernel,
    first: Managed<f32>,
    second: Managed<f32>,
    first_step: Managed<f32>,
    second_step: Managed<f32>,
}

impl<'a> Network<'a> {
    pub(crate) fn new(rt: &'a Runtime, seed: u64) -> vkhmm::Result<Self> {
        // SAFETY: relu.comp ends, has no data race and stays inside x and y.
        let relu =
            unsafe { rt.kernel_builder(include_bytes!("../../shaders/spv/relu.spv")).name("relu").build()? };
        let mut random = Random::new(seed);
        let mut weights = |label, rows: usize, columns: usize| -> vkhmm::Result<Managed<f32>> {
            let mut weights = rt.alloc_named::<f32>(rows * columns, label)?;
            let most = (6.0 / rows as f32).sqrt();
            weights.iter_mut().for_each(|w| *w = random.unit() * most);
            Ok(weights)
        };
        let (first, second) =
            (weights("first layer", INPUTS, HIDDEN)?, weights("second layer", HIDDEN, DIGITS)?);
        let (first_step, second_step) = (rt.alloc(first.count())?, rt.alloc(second.count())?);
        Ok(Self { rt, relu, first, second, first_step, second_step })
    }

    /// What the network makes of the images.
    fn forward(&self, of: &mut Images) -> vkhmm::Result<()> {
        let (rt, n) = (self.rt, of.count);
        let (images, first) =
            (Mat::new(of.values.read(), n, INPUTS), Mat::new(self.first.read(), INPUTS, HIDDEN));
        kernels::gemm(rt, 1.0, images, first, 0.0, Mat::new(of.back.overwrite(), n, HIDDEN))?;
        self.relu(&of.back, &mut of.hidden, false)?;
        let (hidden, second) =
            (Mat::new(of.hidden.read(), n, HIDDEN), Mat::new(self.second.read(), HIDDEN, DIGITS));
        kernels::gemm(rt, 1.0, hidden, second, 0.0, Mat::new(of.guess.overwrite(), n, DIGITS))?;
        Ok(())
    }

    fn relu(&self, x: &Managed<f32>, y: &mut Managed<f32>, back: bool) -> vkhmm::Result<()> {
        let (count, grid) = (x.count() as u32, Grid::linear(x.count()));
        let y = if back { y.write() } else { y.overwrite() };
        self.rt.launch(&self.relu, grid, (x.read(), y, count, u32::from(back)))?;
        Ok(())
    }

    /// One step downhill for all images.
    pub(crate) fn train(&mut self, of: &mut Images) -> vkhmm::Result<()> {
        self.forward(of)?;
        let (rt, n, by) = (self.rt, of.count, -RATE / of.count as f32);
        // The softmax of each row less what is right: how the guess should change. `back` becomes the same of the hidden units.
        kernels::softmax(
            rt,
            Mat::new(of.guess.read(), n, DIGITS),
            Mat::new(of.back.slice_mut(..n * DIGITS).overwrite(), n, DIGITS),
        )?;
        kernels::copy(rt, of.back.slice(..n * DIGITS).read(), of.guess.overwrite())?;
        kernels::axpy(rt, -1.0, of.digits.read(), of.guess.write())?;
        let guess = || Mat::new(of.guess.read(), n, DIGITS);
        let second = Mat::new(self.second.read(), HIDDEN, DIGITS).t();
        kernels::gemm(rt, 1.0, guess(), second, 0.0, Mat::new(of.back.overwrite(), n, HIDDEN))?;
        let (hidden, step) =
            (Mat::new(of.hidden.read(), n, HIDDEN).t(), Mat::new(self.second_step.write(), HIDDEN, DIGITS));
        kernels::gemm(rt, by, hidden, guess(), MOMENTUM, step)?;
        self.relu(&of.hidden, &mut of.back, true)?;
        let (images, step) =
            (Mat::new(of.values.read(), n, INPUTS).t(), Mat::new(self.first_step.write(), INPUTS, HIDDEN));
        kernels::gemm(rt, by, images, Mat::new(of.back.read(), n, HIDDEN), MOMENTUM, step)?;
        for (weights, step) in [(&mut self.first, &self.first_step), (&mut self.second, &self.second_step)] {
            kernels::scale(rt, 1.0 - SHRINK, weights.write())?;
            kernels::axpy(rt, 1.0, step.read(), weights.write())?;
        }
        Ok(())
    }

    /// How many images it takes for what they are; the CPU looks.
    pub(crate) fn right(&self, of: &mut Images) -> vkhmm::Result<usize> {
        self.forward(of)?;
        let largest = |row: &[f32]| (0..DIGITS).max_by(|a, b| row[*a].total_cmp(&row[*b]));
        let rows = of.guess.chunks_exact(DIGITS).zip(of.digits.chunks_exact(DIGITS));
        Ok(rows.filter(|(guess, right)| largest(guess) == largest(right)).count())
    }
}
