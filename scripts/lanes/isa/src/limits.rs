//! Bounds of what compilers say about kernels, beyond what `floors` compares with an earlier state.

use crate::Result;
use crate::floors::{SHARE, lines};
use crate::results::{Chip, Kernel};

/// `chip, or * | words of the kernel's name, or * | NAME<=N or NAME>=N... | why`.
const LIMITS: &str = "scripts/lanes/kernel-isa.limits";

/// What of a kernel is bounded; `None` if the compiler does not tell.
type Value = fn(&Kernel) -> Option<f64>;

const VALUES: [(&str, Value); 5] = [
    ("registers", |kernel| Some(f64::from(kernel.numbers.registers))),
    ("occupancy", |kernel| Some(f64::from(kernel.numbers.occupancy))),
    // Bytes of scratch, spills and fills together.
    ("private", |kernel| {
        let numbers = &kernel.numbers;
        Some(f64::from(numbers.scratch) + f64::from(numbers.spills) + f64::from(numbers.fills))
    }),
    // Of workgroup memory, for a matrix instruction of the hottest block.
    ("reads", |kernel| {
        let block = &kernel.numbers.block;
        (block.matrices > 0).then(|| f64::from(block.reads) / f64::from(block.matrices))
    }),
    // The cycles with a browser's checks over those without.
    ("checked", |kernel| kernel.checked),
];

#[derive(Debug)]
struct Limit {
    chip: String,
    words: Vec<String>,
    /// One of `VALUES`.
    name: &'static str,
    /// Else the bound is the least.
    is_most: bool,
    bound: f64,
    line: String,
}

impl Limit {
    /// Those of a line.
    fn of([chip, words, bounds, why]: [String; 4]) -> Result<Vec<Limit>> {
        let line = format!("{chip} | {words} | {bounds}");
        if why.is_empty() {
            return Err(format!("{LIMITS}: {line}: say why").into());
        }
        let words: Vec<String> =
            words.split_whitespace().filter(|word| *word != "*").map(str::to_owned).collect();
        let limit = |bound: &str| -> Option<Limit> {
            let (name, number, is_most) = match bound.split_once("<=") {
                Some((name, number)) => (name, number, true),
                None => bound.split_once(">=").map(|(name, number)| (name, number, false))?,
            };
            let (name, _) = VALUES.into_iter().find(|(known, _)| *known == name)?;
            let (chip, words, line) = (chip.clone(), words.clone(), line.clone());
            Some(Limit { chip, words, name, is_most, bound: number.parse().ok()?, line })
        };
        let expected = VALUES.map(|(name, _)| name).join(", ");
        let wrong = |bound| {
            format!("{LIMITS}: {line}: {bound:?} is not NAME<=N or NAME>=N of {expected}").into()
        };
        bounds.split_whitespace().map(|bound| limit(bound).ok_or_else(|| wrong(bound))).collect()
    }

    fn is_about(&self, kernel: &Kernel) -> bool {
        let words: Vec<&str> = kernel.name.split(' ').collect();
        self.words.iter().all(|word| words.contains(&word.as_str()))
    }

    fn holds(&self, value: f64) -> bool {
        if self.is_most { value <= self.bound } else { value >= self.bound }
    }
}

fn all() -> Result<Vec<Limit>> {
    let limits = lines(LIMITS)?.into_iter().map(Limit::of);
    Ok(limits.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// What is out of bounds among the kernels of a chip that run without tuning and do a hundredth of a program, and among
/// those on matrices: a line each. Of several bounds of the same value the last one counts.
pub fn faults(chip: &Chip) -> Result<Vec<String>> {
    Ok(beyond(chip, &all()?))
}

fn beyond(chip: &Chip, limits: &[Limit]) -> Vec<String> {
    let mut faults = Vec::new();
    let limits: Vec<&Limit> =
        limits.iter().filter(|limit| limit.chip == "*" || limit.chip == chip.chip).collect();
    let mut used = vec![false; limits.len()];
    for kernel in &chip.kernels {
        let is_bound =
            (kernel.chosen && kernel.share >= SHARE) || kernel.numbers.block.matrices > 0;
        for (name, value) in VALUES {
            let about = |limit: &&Limit| limit.name == name && limit.is_about(kernel);
            let Some(i) = limits.iter().rposition(about).filter(|_| is_bound) else { continue };
            used[i] = true;
            let (limit, Some(value)) = (limits[i], value(kernel)) else { continue };
            if !limit.holds(value) {
                let sign = if limit.is_most { "at most" } else { "at least" };
                faults.push(format!(
                    "{}: {} ({}) has {name} {value:.2}, {sign} {} by {LIMITS}",
                    chip.chip, kernel.name, kernel.place, limit.bound
                ));
            }
        }
    }
    // A quick list does not have them all.
    for (limit, used) in limits.iter().zip(used) {
        if !used && !chip.quick && limit.chip != "*" {
            faults.push(format!("{LIMITS}: about no kernel: {}", limit.line));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::Block;
    use crate::stats::Numbers;

    fn chip(name: &str, registers: u32, checked: f64) -> Chip {
        let block = Block { products: 64.0, instructions: 10, matrices: 2, reads: 4 };
        let kernel = Kernel {
            name: name.to_owned(),
            chosen: true,
            place: String::new(),
            operations: 1e12,
            share: 0.5,
            dispatches: 1,
            numbers: Numbers { registers, block, ..Numbers::default() },
            checked: Some(checked),
        };
        Chip {
            chip: "amd-x".to_owned(),
            adapter: String::new(),
            driver: String::new(),
            quick: false,
            kernels: vec![kernel],
        }
    }

    fn limits(lines: &[[&str; 3]]) -> Vec<Limit> {
        let line = |[chip, words, bounds]: &[&str; 3]| {
            Limit::of([chip, words, bounds, "x"].map(|part| part.to_string())).unwrap()
        };
        lines.iter().flat_map(line).collect()
    }

    #[test]
    fn what_is_out_of_bounds_is_a_fault() {
        let limits = limits(&[["amd-x", "a D=1", "registers<=192 reads<=2"]]);
        assert!(beyond(&chip("a D=1", 192, 1.0), &limits).is_empty());
        assert_eq!(beyond(&chip("a D=1", 193, 1.0), &limits).len(), 1);
        // Both are about no kernel.
        assert_eq!(beyond(&chip("a D=2", 192, 1.0), &limits).len(), 2);
    }

    #[test]
    fn the_last_bound_counts() {
        let limits = limits(&[["*", "*", "checked<=1.3"], ["amd-x", "a", "checked<=2"]]);
        assert!(beyond(&chip("a", 1, 2.0), &limits).is_empty());
        assert_eq!(beyond(&chip("a", 1, 2.1), &limits).len(), 1);
        // The other is about no kernel, too.
        assert_eq!(beyond(&chip("b", 1, 1.4), &limits).len(), 2);
    }

    #[test]
    fn a_bound_that_is_none_is_refused() {
        for [bounds, why] in
            [["registers<192", "x"], ["register<=192", "x"], ["reads<=x", "x"], ["reads<=2", ""]]
        {
            let line = ["*", "*", bounds, why].map(str::to_owned);
            assert!(Limit::of(line).is_err(), "{bounds}, {why}");
        }
    }
}
