//! What `scripts/portability` and its lanes call; started in the repository's root. Says what is wrong on stderr and
//! exits with 1.

mod compare;
mod devices;
mod dxc;
mod results;
mod tables;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "report compare REFERENCE.safetensors OTHER.safetensors LIMIT|LEASTdB
report adapter BACKEND|NUMBER DEVICES.json    its name and driver, as a lane's `about`
report gpu DEVICES.json                the number of the first adapter that is a GPU
report dxc LIBRARY PROFILE FOLDER MOST compiles HLSL; `all`, or so many of each kernel
report print RESULTS                   a table
report write RESULTS                   the same, docs/portability and the README's table";

/// All lanes.
const LIST: &str = "scripts/lanes/list";

/// Anything that can go wrong here is told and ends the program.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["compare", reference, other, limit] => {
            compare::run(Path::new(reference), Path::new(other), limit)
        }
        ["adapter", which, devices] => devices::about(which, Path::new(devices)),
        ["gpu", devices] => devices::gpu(Path::new(devices)),
        ["dxc", library, profile, folder, most] => {
            dxc::run(Path::new(library), profile, Path::new(folder), most)
        }
        ["print", folder] => results::known(Path::new(LIST))
            .and_then(|known| results::read(Path::new(folder), &known))
            .and_then(|lanes| print(&lanes)),
        ["write", folder] => write(Path::new(folder)),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("report: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Adds the results of a run to those that were kept, and writes every table.
fn write(folder: &Path) -> Result<()> {
    let known = results::known(Path::new(LIST))?;
    let fresh = results::read(folder, &known)?;
    let kept = Path::new("docs/portability/portability.json");
    let lanes = results::merge(&known, results::load(kept)?, &fresh);
    results::save(kept, &lanes)?;
    std::fs::write("docs/portability/README.md", tables::page(&lanes))?;
    let readme = std::fs::read_to_string("README.md")?;
    std::fs::write("README.md", tables::between_marks(&readme, &tables::short(&lanes))?)?;
    print(&fresh)
}

/// Prints results; an error if any lane failed.
fn print(lanes: &[results::Lane]) -> Result<()> {
    print!("{}", tables::plain(lanes));
    match lanes.iter().filter(|lane| lane.state == "failed").count() {
        0 => Ok(()),
        n => Err(format!("{n} of {} lanes failed", lanes.len()).into()),
    }
}
