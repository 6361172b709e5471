//! What the lanes `kernel-isa` call; started in the repository's root. Says what is wrong on stderr and exits with 1.

mod blocks;
mod driver;
mod floors;
mod limits;
mod printed;
mod results;
mod spirv;
mod stats;
mod table;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "isa compile KERNELS CHIP RESULT.json [--quick] [--from N] [--keep FOLDER] [--printed FILE]
                               compiles kernels of a list with the driver at hand, a hundred, and adds them to those of
                               RESULT.json if --from says that they are not the first; --quick leaves out those that
                               tuning alone chooses and those with checks, --keep keeps the machine code, --printed is
                               for drivers that print it: the file that stdout is appended to
isa judge RESULT.json          compares with floors, exceptions and limits
isa record RESULT.json         writes what is there as the chip's floors
isa table RESULT.json...       writes docs/portability/kernels.md";

/// Anything that can go wrong here is told and ends the program.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["compile", list, chip, result, ref options @ ..] => results::Options::of(options)
            .and_then(|options| {
                results::compile(Path::new(list), chip, Path::new(result), &options)
            }),
        ["judge", result] => floors::judge(Path::new(result)),
        ["record", result] => floors::record(Path::new(result)),
        ["table", ref results @ ..] => table::write(results),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("isa: {error}");
            ExitCode::FAILURE
        }
    }
}
