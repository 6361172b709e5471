//! Runs the race: every case on every peer, in rounds, and writes the tables. See README.md beside it.

mod peer;
mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use race::case::{self, Case};
use race::expected;
use race::protocol::Ask;

use peer::{Peer, Places, SPECS};
use report::{CaseReport, Entry, Report};

/// A measurement repeats a case until it takes about this long, so that a submission costs little beside it.
const ENOUGH_SECONDS: f64 = 0.4;
/// More repetitions tell nothing new.
const MAX_REPEATS: usize = 16;

/// ralu beside its peers.
#[derive(Parser)]
struct Options {
    /// Only these groups: matmul, attention, conv2d, blocks, picture.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only cases whose name contains this.
    #[arg(long)]
    case: Option<String>,
    /// Only these peers beside ralu: burn, onnxruntime, ggml, candle, torch.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Measurements of each case.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only what takes a moment: cases of less than 8 GFLOP, a picture of 4 steps.
    #[arg(long)]
    small: bool,
    /// Seconds that a peer may take for one answer.
    #[arg(long, default_value_t = 600)]
    patience: u64,
    /// Folder of the tables (README.md and race.json).
    #[arg(long)]
    out: Option<PathBuf>,
    /// Take over the cases of this race.json that are not run now.
    #[arg(long)]
    keep: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let repository = root.join("../..").canonicalize()?;
    let target = root.join("target");
    let runner = ["RACE_RUNNER", "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok())
        .map(|command| command.split_whitespace().map(str::to_owned).collect())
        .unwrap_or_default();
    let places = Places { root, target, runner };

    let known: Vec<&str> = SPECS.iter().map(|spec| spec.name).collect();
    if let Some(name) = options.peers.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("there is no peer {name:?}; there are {}", known.join(", ")).into());
    }
    let chosen = |name: &str| {
        name == "ralu" || options.peers.is_empty() || options.peers.iter().any(|p| p == name)
    };
    let mut peers: Vec<Peer> =
        SPECS.iter().filter(|spec| chosen(spec.name)).map(Peer::new).collect();

    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let tiny_flux = text(repository.join("models/tiny-flux"));
    let blocks = text(places.target.join("blocks"));
    let mut cases = case::all(&tiny_flux, &blocks, options.small);
    cases.retain(|case| {
        (options.only.is_empty() || options.only.iter().any(|group| group == case.group()))
            && options.case.as_ref().is_none_or(|part| case.label().contains(part.as_str()))
    });
    if cases.is_empty() {
        return Err("no case is left; see --help for --only and --case".into());
    }

    let out = options.out.clone().unwrap_or_else(|| repository.join("docs/race"));
    let mut report = Report::begin(&repository, options.rounds);
    if options.keep {
        report.keep(&out)?;
    }
    let patience = Duration::from_secs(options.patience);
    for (i, case) in cases.iter().enumerate() {
        eprintln!("[{}/{}] {} {}", i + 1, cases.len(), case.group(), case.label());
        let finished = race_case(case, &mut peers, &places, patience, options.rounds);
        for entry in &finished.entries {
            eprintln!("    {:<12} {}", entry.peer, finished.shown(entry));
        }
        report.add(finished);
        report.describe(&peers);
        // After each case, so that a run that is cut short leaves what it has.
        report.write(&out)?;
    }
    eprintln!("written: {}", shown(&out));
    Ok(())
}

fn shown(path: &Path) -> String {
    path.canonicalize().unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// One case on all peers: everything is prepared first, then they take turns.
fn race_case(
    case: &Case,
    peers: &mut [Peer],
    places: &Places,
    patience: Duration,
    rounds: usize,
) -> CaseReport {
    let positions = expected::positions(case);
    let mut expected = expected::values(case, &positions);
    let mut found = Vec::new();
    let mut entries: Vec<Entry> = Vec::new();
    for peer in peers.iter_mut() {
        let mut entry = Entry::of(peer.spec.name);
        let ask = Ask::Prepare { case: case.clone(), positions: positions.clone() };
        let mut values = Vec::new();
        match peer.ask(&ask, places, patience) {
            Err(error) => entry.error = Some(error),
            Ok(answer) => {
                let repeats = ENOUGH_SECONDS / answer.wall.max(1e-6);
                entry.repeats = (repeats.ceil() as usize).clamp(1, MAX_REPEATS);
                entry.note = answer.note;
                values = answer.values;
                // Programs for so many repeats are made, and warm.
                if entry.repeats > 1 {
                    let run = Ask::Run { repeats: entry.repeats };
                    entry.error = peer.ask(&run, places, patience).err();
                }
            }
        }
        found.push(values);
        entries.push(entry);
    }
    for _ in 0..rounds {
        for (peer, entry) in peers.iter_mut().zip(&mut entries) {
            if entry.error.is_some() {
                continue;
            }
            match peer.ask(&Ask::Run { repeats: entry.repeats }, places, patience) {
                Err(error) => entry.error = Some(error),
                Ok(answer) => {
                    entry.wall.push(answer.wall / entry.repeats as f64);
                    entry.cpu.push(answer.cpu / entry.repeats as f64);
                }
            }
        }
    }
    for peer in peers.iter_mut().filter(|peer| peer.is_running()) {
        // What it says to that does not matter: if it is broken, the next case will tell.
        let _ = peer.ask(&Ask::Free, places, patience);
    }
    // Networks are compared with the reference implementation, if it took part.
    if expected.is_none() {
        let reference = entries.iter().position(|entry| entry.peer == "torch");
        expected = reference
            .map(|at| found[at].iter().map(|value| f64::from(*value)).collect::<Vec<_>>())
            .filter(|values| !values.is_empty());
    }
    if let Some(expected) = &expected {
        for (entry, values) in entries.iter_mut().zip(&found).filter(|(_, v)| !v.is_empty()) {
            entry.relative_error = Some(expected::relative_error(values, expected));
        }
    }
    CaseReport {
        group: case.group().into(),
        label: case.label(),
        flops: case.flops(),
        tolerance: expected::tolerance(case),
        date: String::new(),
        commit: String::new(),
        entries,
    }
}
