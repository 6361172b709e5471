//! What the machine code of kernels must not fall below.

use std::fmt::Write;
use std::path::Path;

use crate::Result;
use crate::limits;
use crate::results::{Chip, Kernel};

/// `chip | products an instruction of the hottest block, at least | kernel`, for kernels that multiply.
const FLOORS: &str = "scripts/lanes/kernel-isa.floors";
/// `chip | words of the kernel's name | what it may have | why`, for kernels that run without tuning.
const EXCEPTIONS: &str = "scripts/lanes/kernel-isa.exceptions";
/// The least part of the operations of a program, that in which it does most, of a kernel that has a floor.
pub const SHARE: f64 = 0.01;

struct Floor {
    chip: String,
    floor: f64,
    kernel: String,
}

/// Private memory that kernels of a chip may have, as its compiler leaves no way.
struct Exception {
    chip: String,
    words: Vec<String>,
    /// Bytes of scratch, spills and fills.
    most: [u32; 3],
    line: String,
}

/// The parts of a file's lines, without comments.
pub fn lines<const N: usize>(path: &str) -> Result<Vec<[String; N]>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(format!("{path}: {error}").into()),
    };
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines
        .map(|line| {
            let parts: Vec<String> = line.split('|').map(|part| part.trim().to_owned()).collect();
            let wrong = |_| format!("{path}: {line:?} has not {N} parts between |");
            Ok(parts.try_into().map_err(wrong)?)
        })
        .collect()
}

fn floors() -> Result<Vec<Floor>> {
    let floor = |[chip, floor, kernel]: [String; 3]| -> Result<Floor> {
        let number = floor.parse().map_err(|e| format!("{FLOORS}: {floor:?}: {e}"))?;
        Ok(Floor { chip, floor: number, kernel })
    };
    lines(FLOORS)?.into_iter().map(floor).collect()
}

const KINDS: [&str; 3] = ["scratch", "spills", "fills"];

fn exceptions() -> Result<Vec<Exception>> {
    let exception = |[chip, words, most, why]: [String; 4]| -> Result<Exception> {
        let line = format!("{chip} | {words} | {most}");
        if why.is_empty() {
            return Err(format!("{EXCEPTIONS}: {line}: say why").into());
        }
        let mut numbers = [0; 3];
        for word in most.split_whitespace() {
            let parsed = word.split_once('=').and_then(|(kind, number)| {
                let place = KINDS.iter().position(|known| *known == kind)?;
                Some((place, number.parse().ok()?))
            });
            let expected = "scratch=N, spills=N or fills=N";
            let (place, number) = parsed
                .ok_or_else(|| format!("{EXCEPTIONS}: {line}: {word:?} is not {expected}"))?;
            numbers[place] = number;
        }
        let words = words.split_whitespace().map(str::to_owned).collect();
        Ok(Exception { chip, words, most: numbers, line })
    };
    lines(EXCEPTIONS)?.into_iter().map(exception).collect()
}

/// Bytes of scratch, spills and fills.
fn private(kernel: &Kernel) -> [u32; 3] {
    [kernel.numbers.scratch, kernel.numbers.spills, kernel.numbers.fills]
}

/// `scratch=512 spills=3`
fn shown(numbers: [u32; 3]) -> String {
    let some = KINDS.iter().zip(numbers).filter(|(_, number)| *number > 0);
    some.map(|(kind, number)| format!("{kind}={number}")).collect::<Vec<_>>().join(" ")
}

/// The kernels whose hottest block has a floor: of those that multiply, all that run without tuning and do a hundredth of a
/// program, and of each that tuning may choose instead the variant that does most.
pub fn with_floors(chip: &Chip) -> impl Iterator<Item = &Kernel> {
    let heaviest = chip.heaviest();
    let has_one = move |kernel: &&Kernel| {
        let is_heaviest = || heaviest.values().any(|heaviest| heaviest.name == kernel.name);
        kernel.share >= SHARE
            && kernel.numbers.block.products > 0.0
            && (kernel.chosen || is_heaviest())
    };
    chip.kernels.iter().filter(has_one)
}

/// What is wrong with the kernels of a chip, a line each.
fn faults(chip: &Chip, floors: &[Floor], exceptions: &[Exception]) -> Vec<String> {
    let mut faults = Vec::new();
    let name = &chip.chip;
    let exceptions: Vec<&Exception> = exceptions.iter().filter(|e| e.chip == *name).collect();
    let mut needed = vec![false; exceptions.len()];
    for kernel in chip.kernels.iter().filter(|kernel| kernel.chosen) {
        let found = private(kernel);
        if found == [0; 3] {
            continue;
        }
        let words: Vec<&str> = kernel.name.split(' ').collect();
        let holds = |e: &Exception| {
            e.words.iter().all(|word| words.contains(&word.as_str()))
                && found.iter().zip(e.most).all(|(found, most)| *found <= most)
        };
        let holding = exceptions.iter().position(|exception| holds(exception));
        match holding {
            Some(i) => needed[i] = true,
            None => faults.push(format!(
                "{name}: {} is in private memory, and runs without tuning ({}): mend it, or {EXCEPTIONS} wants\n  {name} | {} | {} | WHY",
                kernel.name, kernel.place, kernel.name, shown(found)
            )),
        }
    }
    for (exception, needed) in exceptions.iter().zip(needed) {
        if !needed {
            faults.push(format!("{EXCEPTIONS}: no longer needed: {}", exception.line));
        }
    }
    let floors: Vec<&Floor> = floors.iter().filter(|floor| floor.chip == *name).collect();
    let with_floors: Vec<&Kernel> = with_floors(chip).collect();
    for kernel in &with_floors {
        let (density, what) = (kernel.numbers.block.density(), &kernel.name);
        match floors.iter().find(|floor| floor.kernel == *what) {
            None => faults.push(format!("{name}: {what} has no floor")),
            Some(floor) if density < floor.floor => faults.push(format!(
                "{name}: {what} has {density:.3} products an instruction in its hottest block, at least {} are recorded",
                floor.floor
            )),
            Some(_) => {}
        }
    }
    // A quick list does not have them all.
    for floor in floors.iter().filter(|_| !chip.quick) {
        if !with_floors.iter().any(|kernel| kernel.name == floor.kernel) {
            faults.push(format!("{name}: no longer wants a floor: {}", floor.kernel));
        }
    }
    faults
}

/// Compares a chip's result with what was recorded.
pub fn judge(result: &Path) -> Result<()> {
    let chip = Chip::read(result)?;
    let mut faults = faults(&chip, &floors()?, &exceptions()?);
    faults.extend(limits::faults(&chip)?);
    for fault in &faults {
        println!("{fault}");
    }
    let chosen = chip.kernels.iter().filter(|kernel| kernel.chosen);
    let private = chosen.clone().filter(|kernel| private(kernel) != [0; 3]).count();
    println!(
        "note: {} kernels, {} of them without tuning, of which {private} in private memory",
        chip.kernels.len(),
        chosen.count()
    );
    if chip.quick {
        println!("part: kernels that run without tuning, without those checked as in browsers");
    }
    match faults.len() {
        0 => Ok(()),
        n => Err(format!(
            "{n} faults; where they are meant, `scripts/portability --record kernel-isa` writes new floors"
        )
        .into()),
    }
}

/// Writes the densities of a chip's result as its floors, rounded down.
pub fn record(result: &Path) -> Result<()> {
    let chip = Chip::read(result)?;
    if chip.quick {
        return Err("a quick result does not have all kernels".into());
    }
    let mut all = floors()?;
    all.retain(|floor| floor.chip != chip.chip);
    all.extend(with_floors(&chip).map(|kernel| Floor {
        chip: chip.chip.clone(),
        floor: (kernel.numbers.block.density() * 100.0).floor() / 100.0,
        kernel: kernel.name.clone(),
    }));
    all.sort_by(|a, b| (&a.chip, &a.kernel).cmp(&(&b.chip, &b.kernel)));
    let mut text = "# The least products an instruction in the hottest block of kernels that multiply, for each chip and its compiler.\n# `scripts/portability --record kernel-isa` writes it: chip | floor | kernel\n".to_owned();
    for Floor { chip, floor, kernel } in &all {
        _ = writeln!(text, "{chip} | {floor:.2} | {kernel}");
    }
    std::fs::write(FLOORS, text)?;
    println!(
        "note: {} floors of {}",
        all.iter().filter(|f| f.chip == chip.chip).count(),
        chip.chip
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::Block;
    use crate::stats::Numbers;

    /// A kernel that does half of a step, with `products` in the ten instructions of its hottest block.
    fn kernel(name: &str, chosen: bool, scratch: u32, products: f64) -> Kernel {
        Kernel {
            name: name.to_owned(),
            chosen,
            place: String::new(),
            operations: 1e12,
            share: 0.5,
            dispatches: 1,
            numbers: Numbers {
                scratch,
                block: Block { products, instructions: 10, ..Block::default() },
                ..Numbers::default()
            },
            checked: None,
        }
    }

    fn chip(kernels: Vec<Kernel>) -> Chip {
        let (adapter, driver) = (String::new(), String::new());
        Chip { chip: "amd-x".to_owned(), adapter, driver, quick: false, kernels }
    }

    fn floor(kernel: &str, floor: f64) -> Floor {
        Floor { chip: "amd-x".to_owned(), floor, kernel: kernel.to_owned() }
    }

    fn exception(words: &str, scratch: u32) -> Exception {
        let words = words.split(' ').map(str::to_owned).collect();
        Exception { chip: "amd-x".to_owned(), words, most: [scratch, 0, 0], line: String::new() }
    }

    #[test]
    fn what_falls_below_its_floor_is_a_fault() {
        let floors = [floor("a", 0.8)];
        assert!(faults(&chip(vec![kernel("a", true, 0, 8.0)]), &floors, &[]).is_empty());
        assert_eq!(faults(&chip(vec![kernel("a", true, 0, 7.9)]), &floors, &[]).len(), 1);
        // One that is new, and one that is gone.
        assert_eq!(faults(&chip(vec![kernel("b", true, 0, 8.0)]), &floors, &[]).len(), 2);
    }

    #[test]
    fn private_memory_wants_an_exception_and_an_exception_a_use() {
        let floors = [floor("a D=1", 0.8)];
        let spilled = chip(vec![kernel("a D=1", true, 512, 8.0)]);
        assert_eq!(faults(&spilled, &floors, &[]).len(), 1);
        assert!(faults(&spilled, &floors, &[exception("a", 512)]).is_empty());
        // More than it allows, of another kernel, and no longer needed: the exception has no use either.
        assert_eq!(faults(&spilled, &floors, &[exception("a", 511)]).len(), 2);
        assert_eq!(faults(&spilled, &floors, &[exception("a D=2", 512)]).len(), 2);
        let mended = chip(vec![kernel("a D=1", true, 0, 8.0)]);
        assert_eq!(faults(&mended, &floors, &[exception("a", 512)]).len(), 1);
        // What tuning alone chooses, the tuner measures.
        assert!(faults(&chip(vec![kernel("a D=1", false, 512, 8.0)]), &floors, &[]).is_empty());
    }
}
