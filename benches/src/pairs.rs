//! Measuring two things in turn.

use anyhow::Result;

/// Runs at the start that are not counted: caches are cold, the supervisor is not there yet.
const WARM_UP: u32 = 5;

/// Medians of what was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Of one side.
    pub ours: f64,
    /// Of the other.
    pub theirs: f64,
    /// Of the ratios, pair by pair.
    pub ratio: f64,
    /// Lower and upper quartile of the ratios.
    pub quartiles: (f64, f64),
}

/// Measures `ours` and `theirs` in turn, each going first in every other pair.
pub fn measure(
    pairs: u32,
    mut ours: impl FnMut() -> Result<f64>,
    mut theirs: impl FnMut() -> Result<f64>,
) -> Result<Measured> {
    let (mut our_values, mut their_values, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..WARM_UP.min(pairs) + pairs {
        let (a, b) = if pair % 2 == 0 {
            let a = ours()?;
            (a, theirs()?)
        } else {
            let b = theirs()?;
            (ours()?, b)
        };
        if pair >= WARM_UP.min(pairs) {
            our_values.push(a);
            their_values.push(b);
            ratios.push(a / b);
        }
    }
    Ok(Measured {
        ours: quantile(&mut our_values, 2),
        theirs: quantile(&mut their_values, 2),
        ratio: quantile(&mut ratios, 2),
        quartiles: (quantile(&mut ratios, 1), quantile(&mut ratios, 3)),
    })
}

/// The value below which `quarters` quarters of the values lie. `values` are not empty.
fn quantile(values: &mut [f64], quarters: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) * quarters / 4]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_of_the_set() {
        let mut values = [5.0, 1.0, 3.0, 2.0, 4.0];
        assert_eq!([1, 2, 3].map(|q| quantile(&mut values, q)), [2.0, 3.0, 4.0]);
        assert_eq!(quantile(&mut [7.0], 2), 7.0);
    }

    #[test]
    fn ratio_is_of_pairs_and_not_of_medians() {
        let mut ours = [1.0, 10.0, 100.0].into_iter().cycle();
        let mut theirs = [2.0, 20.0, 200.0].into_iter().cycle();
        let measured = measure(9, || Ok(ours.next().unwrap()), || Ok(theirs.next().unwrap())).unwrap();
        assert_eq!(measured.ratio, 0.5);
    }
}
