//! Samples of at least nine runs, and ratios of runs that were interleaved.

use std::time::Instant;

/// Fewer runs than these say nothing about spread.
pub const RUNS_MIN: usize = 9;

/// The runs of one thing, in ascending order.
#[derive(Clone, Debug)]
pub struct Sample {
    sorted: Vec<f64>,
}

impl Sample {
    /// The sample of these runs.
    ///
    /// # Panics
    /// With fewer than [`RUNS_MIN`] runs, or one that is not a number.
    pub fn of(runs: &[f64]) -> Self {
        assert!(
            runs.len() >= RUNS_MIN,
            "{} runs measured, a figure needs {RUNS_MIN} to have quartiles",
            runs.len()
        );
        assert!(runs.iter().all(|run| !run.is_nan()), "a run measured no number");
        let mut sorted = runs.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self { sorted }
    }

    /// How many runs there are.
    pub fn runs(&self) -> usize {
        self.sorted.len()
    }

    /// The value that `part` (0 to 1) of the runs are at or below, between neighbours in proportion.
    pub fn quantile(&self, part: f64) -> f64 {
        let at = part.clamp(0.0, 1.0) * (self.sorted.len() - 1) as f64;
        let (below, above) = (self.sorted[at.floor() as usize], self.sorted[at.ceil() as usize]);
        below + (above - below) * at.fract()
    }

    /// The middle run.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

/// Ratios of runs measured side by side: each `of[i] / to[i]`. Their median is steadier than the ratio of two medians, since what
/// disturbs a round disturbs both.
///
/// # Panics
/// If the two have different lengths, or fewer than [`RUNS_MIN`] runs.
pub fn ratios(of: &[f64], to: &[f64]) -> Sample {
    assert_eq!(of.len(), to.len(), "a ratio pairs run by run");
    let pairs: Vec<f64> = of.iter().zip(to).map(|(of, to)| of / to.max(f64::MIN_POSITIVE)).collect();
    Sample::of(&pairs)
}

/// Measures several ways in turn: `warm_up` rounds that are not counted, then `runs` that are. `round` gets the round's number,
/// warm-up included, and returns one value per way; the result has one list of runs per way.
///
/// # Errors
/// The first error of a round.
pub fn rounds<const WAYS: usize, E>(
    runs: usize,
    warm_up: usize,
    mut round: impl FnMut(usize) -> Result<[f64; WAYS], E>,
) -> Result<[Vec<f64>; WAYS], E> {
    let mut ways = [const { Vec::new() }; WAYS];
    for number in 0..warm_up + runs {
        let values = round(number)?;
        if number >= warm_up {
            ways.iter_mut().zip(values).for_each(|(way, value)| way.push(value));
        }
    }
    Ok(ways)
}

/// Measures cold runs: each gets what `fresh` made and nobody has used.
///
/// # Errors
/// The first error of either.
pub fn cold<Fresh, E>(
    runs: usize,
    mut fresh: impl FnMut() -> Result<Fresh, E>,
    mut run: impl FnMut(Fresh) -> Result<f64, E>,
) -> Result<Vec<f64>, E> {
    (0..runs).map(|_| run(fresh()?)).collect()
}

/// What `work` returned, and how many seconds it took.
pub fn timed<R>(work: impl FnOnce() -> R) -> (R, f64) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[test]
    fn quantiles_lie_between_neighbours() {
        let sample = Sample::of(&[10.0, 0.0, 9.0, 1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 4.0]);
        assert_eq!(sample.median(), 5.0);
        assert_eq!([sample.quantile(0.0), sample.quantile(1.0)], [0.0, 10.0]);
        assert_eq!(sample.quantile(0.25), 2.25);
    }

    #[test]
    #[should_panic(expected = "needs 9")]
    fn too_few_runs_are_no_sample() {
        Sample::of(&[1.0; RUNS_MIN - 1]);
    }

    #[test]
    fn a_ratio_pairs_run_by_run() {
        // Each round is disturbed differently; every ratio is 2.
        let plain: Vec<f64> = (1..=9).map(f64::from).collect();
        let ours: Vec<f64> = plain.iter().map(|p| p * 2.0).collect();
        let sample = ratios(&ours, &plain);
        assert_eq!([sample.quantile(0.0), sample.quantile(1.0)], [2.0, 2.0]);
    }

    #[test]
    fn warm_up_rounds_are_run_and_not_counted() {
        let mut seen = 0;
        let [a, b] = rounds(9, 2, |number| {
            seen += 1;
            Ok::<_, Infallible>([number as f64, -(number as f64)])
        })
        .unwrap_or_else(|never| match never {});
        assert_eq!(seen, 11);
        assert_eq!((a[0], a.len(), b[8]), (2.0, 9, -10.0));
    }

    #[test]
    fn cold_runs_each_get_something_fresh() {
        let mut made = 0;
        let runs = cold(
            9,
            || {
                made += 1;
                Ok::<_, Infallible>(made)
            },
            |fresh| Ok(f64::from(fresh)),
        );
        assert_eq!(
            runs.unwrap_or_else(|never| match never {}),
            [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]
        );
    }
}
