//! What lanes came to: read from the files that they leave (`scripts/lanes/common.sh`), kept as JSON.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Result;

/// A line of `scripts/lanes/list`.
pub struct Known {
    pub name: String,
    /// What a pass means: `run` or `translate`.
    pub kind: String,
    pub backend: String,
    /// What it is.
    pub what: String,
}

/// One lane, when it was last run.
#[derive(Clone, Serialize, Deserialize)]
pub struct Lane {
    pub name: String,
    pub kind: String,
    pub backend: String,
    pub what: String,
    /// `passed`, `failed` or `not run`.
    pub state: String,
    /// Why it was not run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    pub adapter: String,
    pub driver: String,
    /// Empty if it never was asked for.
    pub date: String,
    pub commit: String,
    pub seconds: f64,
    pub steps: Vec<Step>,
}

/// A part of a lane.
#[derive(Clone, Serialize, Deserialize)]
pub struct Step {
    pub name: String,
    /// As a lane's, or `in part`.
    pub state: String,
    pub seconds: f64,
    /// Figures, or why it was not run.
    pub note: String,
}

pub fn known(path: &Path) -> Result<Vec<Known>> {
    let text = std::fs::read_to_string(path)?;
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| match line.split('|').map(str::trim).collect::<Vec<_>>()[..] {
            [name, kind, backend, _, what] => Ok(Known {
                name: name.to_owned(),
                kind: kind.to_owned(),
                backend: backend.to_owned(),
                what: what.to_owned(),
            }),
            _ => Err(format!("{}: {line:?} has not five parts", path.display()).into()),
        })
        .collect()
}

impl Lane {
    /// One that nobody has asked for yet.
    fn new(known: &Known) -> Lane {
        Lane {
            name: known.name.clone(),
            kind: known.kind.clone(),
            backend: known.backend.clone(),
            what: known.what.clone(),
            state: "not run".to_owned(),
            reason: "not asked for yet".to_owned(),
            adapter: String::new(),
            driver: String::new(),
            date: String::new(),
            commit: String::new(),
            seconds: 0.0,
            steps: Vec::new(),
        }
    }
}

/// The lanes that left a folder in `results`.
pub fn read(results: &Path, known: &[Known]) -> Result<Vec<Lane>> {
    let mut lanes = Vec::new();
    for known in known {
        let folder = results.join(&known.name);
        if !folder.exists() {
            continue;
        }
        let about = std::fs::read_to_string(folder.join("about.tsv"))?;
        // The last of several wins.
        let about: BTreeMap<&str, &str> =
            about.lines().filter_map(|line| line.split_once('\t')).collect();
        let word = |key: &str| about.get(key).copied().unwrap_or("").to_owned();
        let steps = folder.join("steps.tsv");
        let steps = if steps.exists() { std::fs::read_to_string(steps)? } else { String::new() };
        lanes.push(Lane {
            state: word("state"),
            reason: word("reason"),
            adapter: word("adapter"),
            driver: word("driver"),
            date: word("date"),
            commit: word("commit"),
            seconds: word("seconds").parse()?,
            steps: steps.lines().map(step).collect::<Result<_>>()?,
            ..Lane::new(known)
        });
    }
    Ok(lanes)
}

fn step(line: &str) -> Result<Step> {
    let parts: Vec<&str> = line.splitn(4, '\t').collect();
    let [name, state, seconds, note] = parts[..] else {
        return Err(format!("a step of four parts was expected: {line:?}").into());
    };
    Ok(Step {
        name: name.to_owned(),
        state: state.to_owned(),
        seconds: seconds.parse()?,
        note: note.to_owned(),
    })
}

/// All lanes that are known, in the list's order: fresh results before kept ones.
pub fn merge(known: &[Known], kept: Vec<Lane>, fresh: &[Lane]) -> Vec<Lane> {
    let lane = |known: &Known| {
        let named = |lane: &&Lane| lane.name == known.name;
        let found = fresh.iter().find(named).or_else(|| kept.iter().find(named));
        // What a lane is comes from the list, also for results that are older than it.
        let Lane { kind, backend, what, .. } = Lane::new(known);
        let lane = found.cloned().unwrap_or_else(|| Lane::new(known));
        Lane { kind, backend, what, ..lane }
    };
    known.iter().map(lane).collect()
}

/// None if there is no such file yet.
pub fn load(path: &Path) -> Result<Vec<Lane>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(path)?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()).into())
}

pub fn save(path: &Path, lanes: &[Lane]) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    Ok(std::fs::write(path, serde_json::to_string_pretty(lanes)? + "\n")?)
}
