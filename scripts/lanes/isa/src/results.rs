//! What a compiler made of all kernels of a chip, as it is kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::driver::{Compiled, Driver};
use crate::printed;
use crate::stats::{Numbers, Vendor};

/// A list of kernels, as `tests/gpu/machine_code.rs` writes it.
#[derive(Deserialize)]
struct List {
    adapter: String,
    kernels: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    file: String,
    chosen: bool,
    place: String,
    operations: f64,
    share: f64,
    dispatches: usize,
}

/// All kernels of a chip.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Chip {
    /// As `scripts/lanes/kernel-isa` calls it.
    pub chip: String,
    pub adapter: String,
    pub driver: String,
    /// Kernels that tuning alone chooses, and checked ones, were left out.
    pub quick: bool,
    pub kernels: Vec<Kernel>,
}

/// One of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kernel {
    /// Shader, parts, constants.
    pub name: String,
    /// It runs without tuning.
    pub chosen: bool,
    /// The program in which it does most, and a dispatch in it.
    pub place: String,
    /// Its operations there.
    pub operations: f64,
    /// Their part of all of the program's.
    pub share: f64,
    /// Its dispatches there.
    pub dispatches: usize,
    pub numbers: Numbers,
    /// The compiler's cycles of the kernel with a browser's checks over those without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked: Option<f64>,
}

#[derive(Default)]
pub struct Options {
    quick: bool,
    from: usize,
    keep: Option<PathBuf>,
    printed: Option<PathBuf>,
}

impl Options {
    pub fn of(words: &[&str]) -> Result<Options> {
        match words {
            [] => Ok(Options::default()),
            ["--quick", rest @ ..] => Ok(Options { quick: true, ..Options::of(rest)? }),
            ["--from", number, rest @ ..] => {
                Ok(Options { from: number.parse()?, ..Options::of(rest)? })
            }
            ["--keep", folder, rest @ ..] => {
                Ok(Options { keep: Some(folder.into()), ..Options::of(rest)? })
            }
            ["--printed", file, rest @ ..] => {
                Ok(Options { printed: Some(file.into()), ..Options::of(rest)? })
            }
            [other, ..] => Err(format!("{other}: --quick, --from, --keep or --printed").into()),
        }
    }
}

impl Chip {
    /// For every shader with its parts, and heads of one width, the kernel that does most.
    pub fn heaviest(&self) -> BTreeMap<String, &Kernel> {
        let mut rows = BTreeMap::<String, &Kernel>::new();
        for kernel in &self.kernels {
            // Constants but for the head's width are what chips and shapes choose.
            let words = kernel.name.split(' ');
            let words =
                words.filter(|word| !word.contains('=') || is_head_width(&kernel.name, word));
            let row = words.collect::<Vec<_>>().join(" ");
            let most = |kernel: &Kernel| (kernel.chosen, kernel.operations);
            rows.entry(row)
                .and_modify(|kept| {
                    if most(kernel) > most(kept) {
                        *kept = kernel;
                    }
                })
                .or_insert(kernel);
        }
        rows
    }

    pub fn read(path: &Path) -> Result<Chip> {
        let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(serde_json::from_slice(&bytes).map_err(|e| format!("{}: {e}", path.display()))?)
    }
}

/// `D4=32` of attention.
fn is_head_width(kernel: &str, word: &str) -> bool {
    kernel.starts_with("attention") && word.starts_with("D4=")
}

/// A process compiles so many kernels: what drivers take for each is only freed with the device, which is never closed.
const AT_ONCE: usize = 100;

/// Compiles kernels of the list in `folder` with the driver at hand.
pub fn compile(folder: &Path, chip: &str, result: &Path, options: &Options) -> Result<()> {
    let vendor = Vendor::of(chip)?;
    let list = folder.join("kernels.json");
    let bytes = std::fs::read(&list).map_err(|error| format!("{}: {error}", list.display()))?;
    let list: List = serde_json::from_slice(&bytes)?;
    // Metal has no such checks.
    let driver = Driver::open(vendor != Vendor::Apple)?;
    let mut kernels = match options.from {
        0 => Vec::new(),
        _ => Chip::read(result)?.kernels,
    };
    for listed in list.kernels.into_iter().skip(options.from).take(AT_ONCE) {
        if options.quick && !listed.chosen {
            continue;
        }
        let compile = |extension: &str| -> Result<Compiled> {
            let words = words(&folder.join(format!("{}.{extension}", listed.file)))?;
            let mut compiled =
                driver.compile(&words).map_err(|error| format!("{}: {error}", listed.name))?;
            if let Some(file) = &options.printed {
                compiled.texts.push(("AGX assembly".to_owned(), printed::take(file)?));
            }
            Ok(compiled)
        };
        let compiled = compile("spv")?;
        if let Some(folder) = &options.keep {
            keep(folder, &listed.file, &compiled)?;
        }
        let numbers = Numbers::of(&compiled, vendor);
        let checked = match options.quick {
            true => None,
            false => {
                let checked = Numbers::of(&compile("checked.spv")?, vendor);
                (numbers.cycles > 0.0).then(|| checked.cycles / numbers.cycles)
            }
        };
        let Listed { name, chosen, place, operations, share, dispatches, file: _ } = listed;
        kernels.push(Kernel {
            name,
            chosen,
            place,
            operations,
            share,
            dispatches,
            numbers,
            checked,
        });
    }
    if kernels.is_empty() {
        return Err(format!("{}: no kernels", folder.display()).into());
    }
    let chip = Chip {
        chip: chip.to_owned(),
        adapter: list.adapter,
        driver: format!("{}, {}", driver.name.trim(), driver.version),
        quick: options.quick,
        kernels,
    };
    Ok(std::fs::write(result, serde_json::to_string_pretty(&chip)? + "\n")?)
}

/// The machine code of a kernel and the compiler's statistics; other forms of it would be hundreds of megabytes.
fn keep(folder: &Path, file: &str, compiled: &Compiled) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let code = |name: &str| name.to_ascii_lowercase().contains("assembly");
    for (name, text) in compiled.texts.iter().filter(|(name, _)| code(name)) {
        let name = name.replace([' ', '/'], "-");
        std::fs::write(folder.join(format!("{file}.{name}.txt")), text)?;
    }
    let statistics: String =
        compiled.statistics.iter().map(|(name, value)| format!("{name}\t{value}\n")).collect();
    Ok(std::fs::write(folder.join(format!("{file}.statistics.tsv")), statistics)?)
}

fn words(path: &Path) -> Result<Vec<u32>> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let (words, rest) = bytes.as_chunks();
    if !rest.is_empty() {
        return Err(format!("{}: no whole number of words", path.display()).into());
    }
    Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
}
