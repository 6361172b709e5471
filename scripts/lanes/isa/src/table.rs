//! The kernel x chip table: docs/portability/kernels.md, and the same as data.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use crate::Result;
use crate::floors::with_floors;
use crate::results::{Chip, Kernel};

const DATA: &str = "docs/portability/kernels.json";
const PAGE: &str = "docs/portability/kernels.md";

const INTRODUCTION: &str = "# What compilers make of the kernels

Written by `scripts/portability kernel-isa`; the same as data is in [kernels.json](kernels.json). Kernels are those that
recordings of FLUX.1-dev, SD3.5 large and medium and SD3 medium at 1024 x 1024 dispatch on a chip, text encoders, a step of
each of RALU's stages and decoding, with the limits that ralu sees there. Mesa's compilers made the machine code on a machine
that has none of these GPUs: they are the drivers of AMD, Intel and Adreno GPUs under Linux, and stand for those of NVIDIA's
and Apple's own, which nobody but they have. Nothing was run.

Registers are those of a lane (Apple's of 16 bits). Spills are instructions that store registers to memory and load them
again; scratch is bytes of private memory of a lane. Occupancy is in subgroups of a SIMD (AMD), an SM (NVIDIA) or a core
(Adreno), in lanes of a core (Apple); ANV does not tell. The hottest block is the basic block with the most products, and a
product is a multiplication and an addition for one lane: a fused multiply-add is one, a dot product of four bytes four, a
matrix instruction all products of its matrices by the lanes of its subgroup; instructions count one each. Cycles are the
compiler's own model, which guesses how often loops turn: they compare versions of a kernel on one chip, nothing else (Adreno's
has none). *Checked* is the cycles of the kernel with the checks of loops and indices that browsers keep, over those without:
less than one where the checks keep a loop from being unrolled, whose turns the model then no longer counts.
A kernel in **bold** runs without tuning. `scripts/lanes/kernel-isa.floors` holds what products an instruction must not fall
below, `scripts/lanes/kernel-isa.exceptions` which kernels may have spills or scratch, and why, `scripts/lanes/kernel-isa.limits` what
registers, occupancy, reads and checks may be. [What it was before](kernels-before.md) these kernels were made.
";

/// Puts the results in place of those of the same chips, and writes page and data.
pub fn write(results: &[&str]) -> Result<()> {
    let mut chips: Vec<Chip> = match std::fs::read(DATA) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| format!("{DATA}: {e}"))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => vec![],
        Err(error) => return Err(format!("{DATA}: {error}").into()),
    };
    for result in results {
        let mut chip = Chip::read(Path::new(result))?;
        // Only whole results are kept.
        if chip.quick {
            continue;
        }
        let names: Vec<String> = with_floors(&chip).map(|kernel| kernel.name.clone()).collect();
        chip.kernels.retain(|kernel| kernel.chosen || names.contains(&kernel.name));
        chips.retain(|kept| kept.chip != chip.chip);
        chips.push(chip);
    }
    chips.sort_by(|a, b| a.chip.cmp(&b.chip));
    std::fs::write(DATA, data(&chips)?)?;
    Ok(std::fs::write(PAGE, page(&chips))?)
}

/// A line for each kernel.
fn data(chips: &[Chip]) -> Result<String> {
    let mut text = "[\n".to_owned();
    for (i, chip) in chips.iter().enumerate() {
        let head = serde_json::to_string(&Chip { kernels: vec![], ..chip.clone() })?;
        text += head.strip_suffix("[]}").ok_or("kernels are the last field of a chip")?;
        text += "[\n";
        let kernels = chip.kernels.iter().map(serde_json::to_string);
        text += &kernels.collect::<std::result::Result<Vec<_>, _>>()?.join(",\n");
        text += if i + 1 < chips.len() { "\n]},\n" } else { "\n]}\n" };
    }
    Ok(text + "]\n")
}

fn page(chips: &[Chip]) -> String {
    let mut page = INTRODUCTION.to_owned();
    page += "\n## Registers, occupancy, private memory\n\nOf each kernel and its parts, the variant that does most.\n\n| kernel |";
    for chip in chips {
        _ = write!(page, " {} |", chip.chip);
    }
    page += "\n| --- |";
    page += &" --- |".repeat(chips.len());
    page.push('\n');
    let mut rows = BTreeMap::<String, Vec<String>>::new();
    for (i, chip) in chips.iter().enumerate() {
        for (row, kernel) in chip.heaviest() {
            let cells = rows.entry(row).or_insert_with(|| vec![String::new(); chips.len()]);
            cells[i] = cell(kernel);
        }
    }
    for (row, cells) in rows {
        _ = writeln!(page, "| {row} | {} |", cells.join(" | "));
    }
    for chip in chips {
        let Chip { chip: name, adapter, driver, kernels, .. } = chip;
        _ = write!(page, "\n## {name}\n\n{adapter}; {driver}\n\n");
        page += "| kernel | share of | subgroup | registers | spills / fills | scratch | workgroup memory | occupancy | products an instruction | reads a matrix product | cycles | checked |\n";
        page += &"| --- ".repeat(12);
        page += "|\n";
        for kernel in kernels {
            page += &line(kernel);
        }
    }
    page
}

fn cell(kernel: &Kernel) -> String {
    let n = &kernel.numbers;
    let mut cell = n.registers.to_string();
    if n.occupancy > 0 {
        _ = write!(cell, " / {}", n.occupancy);
    }
    if n.spills + n.fills > 0 {
        _ = write!(cell, ", spill {}/{}", n.spills, n.fills);
    }
    if n.scratch > 0 {
        _ = write!(cell, ", scratch {}", n.scratch);
    }
    if kernel.chosen { format!("**{cell}**") } else { cell }
}

fn line(kernel: &Kernel) -> String {
    let Kernel { name, chosen, share, place, numbers: n, checked, .. } = kernel;
    let name = if *chosen { format!("**{name}**") } else { name.clone() };
    // Copies and sums have no products that recordings count.
    let share = if *share >= 0.001 { format!("{:.1} % of ", 100.0 * share) } else { String::new() };
    let density = match n.block.products > 0.0 {
        true => format!(
            "{:.2} ({:.0} in {})",
            n.block.density(),
            n.block.products,
            n.block.instructions
        ),
        false => "-".to_owned(),
    };
    let reads = match n.block.matrices {
        0 => "-".to_owned(),
        matrices => format!("{:.1}", f64::from(n.block.reads) / f64::from(matrices)),
    };
    let checked = checked.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
    format!(
        "| {name} | {share}{place} | {} | {} | {} / {} | {} | {} | {} | {density} | {reads} | {:.0} | {checked} |\n",
        n.subgroup, n.registers, n.spills, n.fills, n.scratch, n.workgroup, n.occupancy, n.cycles
    )
}
