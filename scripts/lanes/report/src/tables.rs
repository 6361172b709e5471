//! The results for people: the page of `docs/portability`, the README's table, and the terminal.

use std::fmt::Write;

use crate::Result;
use crate::results::{Lane, Step};

const BEGIN: &str = "<!-- scripts/portability writes what follows -->";
const END: &str = "<!-- up to here -->";

const PAGE: &str = "# What runs where

Written by `scripts/portability`; the same as data is in [portability.json](portability.json). A lane that could not be
set up says why and is no pass; lanes that were left out of the last run keep their earlier result with its date.

Every lane that runs draws the bundled model's picture twice, from one seed in f32 at 256 x 256: 4 plain steps, and RALU
7x. Both are compared with those of the system's Mesa on the processor: relative L2 of the latents (at most 1e-3), PSNR
of the picture, and the regions that RALU chose, which must be the same. f16 is the plain picture with weights in 16 bits
(at least 45 dB to that in f32; the bundled model's file has 16 bits, so this is about the kernels that unpack them). Then
come the tables of ops against their references (`cargo test --test ops`) and the model fixtures against diffusers
(those of `cargo test --test suite pipeline::references` that compare; all of them under forced limits). Seconds are those of a shared
machine: they say how long to wait, not how fast anything is.

What compilers of GPUs make of the kernels, GPUs that are not here: [kernels.md](kernels.md).
";

/// Steps that have a column, the last one in that of the op table.
const COLUMNS: [&str; 5] = ["plain", "ralu", "ops", "fixtures", "browser"];

/// docs/portability/README.md.
pub fn page(lanes: &[Lane]) -> String {
    let mut page = PAGE.to_owned();
    page += "\n## Run\n\n| lane | | plain | RALU 7x | f16 | op table | fixtures | seconds | date, commit |\n";
    page += "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
    for lane in lanes.iter().filter(|lane| lane.kind == "run" && lane.state != "not run") {
        // A lane that is one command has one step, under another name.
        let cell = |name: &str| lane.steps.iter().find(|s| s.name == name).map_or("-".into(), cell);
        let mut cells = ["plain", "ralu", "f16", "ops", "fixtures"].map(cell);
        if let Some(step) = lane.steps.iter().find(|step| step.name == "browser") {
            cells[3] = self::cell(step);
        }
        let [plain, ralu, f16, ops, fixtures] = cells;
        let (name, state, seconds) = (&lane.name, state(lane), lane.seconds);
        _ = writeln!(
            page,
            "| {name} | {state} | {plain} | {ralu} | {f16} | {ops} | {fixtures} | {seconds:.0} | {}, {} |",
            lane.date, lane.commit
        );
    }
    page += "\n| lane | what it is | adapter | driver |\n| --- | --- | --- | --- |\n";
    for lane in lanes.iter().filter(|lane| lane.kind == "run" && lane.state != "not run") {
        _ = writeln!(
            page,
            "| {} | {} on {} | {} | {} |",
            lane.name, lane.backend, lane.what, lane.adapter, lane.driver
        );
    }
    // What only some lanes do.
    let mut further = String::new();
    for lane in lanes.iter().filter(|lane| lane.kind == "run" && lane.state != "not run") {
        for step in lane.steps.iter().filter(|step| !COLUMNS.contains(&step.name.as_str())) {
            let (name, seconds) = (&step.name, step.seconds);
            _ = writeln!(further, "| {} | {name} | {} | {seconds:.0} |", lane.name, cell(step));
        }
    }
    if !further.is_empty() {
        page += "\n| lane | further step | | seconds |\n| --- | --- | --- | --- |\n";
        page += &further;
    }
    page += "\n## Translated only\n\n| lane | what it is | | steps | compiler | seconds | date, commit |\n";
    page += "| --- | --- | --- | --- | --- | --- | --- |\n";
    for lane in lanes.iter().filter(|lane| lane.kind == "translate" && lane.state != "not run") {
        let steps: Vec<_> = lane.steps.iter().map(|s| format!("{}: {}", s.name, cell(s))).collect();
        _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} | {:.0} | {}, {} |",
            lane.name,
            lane.what,
            state(lane),
            steps.join("; "),
            if lane.driver.is_empty() { "none here" } else { &lane.driver },
            lane.seconds,
            lane.date,
            lane.commit
        );
    }
    page += "\n## Not run\n\n| lane | what it is | why | date |\n| --- | --- | --- | --- |\n";
    for lane in lanes.iter().filter(|lane| lane.state == "not run") {
        _ = writeln!(
            page,
            "| {} | {}, {} | {} | {} |",
            lane.name, lane.backend, lane.what, lane.reason, lane.date
        );
    }
    page
}

/// The README's table. Where a backend was run, that it can be translated to is no news.
pub fn short(lanes: &[Lane]) -> String {
    let ran = |backend: &str| {
        lanes.iter().any(|l| l.backend == backend && l.kind == "run" && l.state == "passed")
    };
    let mut table =
        "| backend | driver | adapter | | date |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for lane in lanes.iter().filter(|lane| lane.kind == "run" || !ran(&lane.backend)) {
        let whole = lane.steps.iter().all(|step| step.state == "passed");
        let what = match (lane.kind.as_str(), lane.state.as_str()) {
            (_, "not run") => format!("not tested: {}", lane.reason),
            (_, "failed") => "**fails**".to_owned(),
            ("translate", _) => "translated only".to_owned(),
            _ if whole => "tested".to_owned(),
            _ => "tested in part".to_owned(),
        };
        // Where it ran, a driver says best itself what it is.
        let driver = if lane.driver.is_empty() { &lane.what } else { &lane.driver };
        let adapter = if lane.kind == "translate" { "" } else { &lane.adapter };
        _ = writeln!(
            table,
            "| {} ({}) | {driver} | {adapter} | {what} | {} |",
            lane.backend, lane.name, lane.date
        );
    }
    table
}

/// `text` with what stands between the two marks replaced.
pub fn between_marks(text: &str, table: &str) -> Result<String> {
    let missing = || format!("README.md needs the lines {BEGIN:?} and {END:?}");
    let (before, rest) = text.split_once(BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    Ok(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

/// For the terminal.
pub fn plain(lanes: &[Lane]) -> String {
    let mut text = "\n".to_owned();
    for lane in lanes {
        _ = writeln!(
            text,
            "{:<19} {:<8} {:>7.1} s  {}",
            lane.name, lane.state, lane.seconds, lane.reason
        );
        for step in &lane.steps {
            _ = writeln!(
                text,
                "  {:<17} {:<8} {:>7.1} s  {}",
                step.name, step.state, step.seconds, step.note
            );
        }
    }
    text
}

fn state(lane: &Lane) -> &str {
    match lane.state.as_str() {
        "failed" => "**failed**",
        state => state,
    }
}

fn cell(step: &Step) -> String {
    match step.state.as_str() {
        "passed" if step.note.is_empty() => "passed".to_owned(),
        "passed" | "in part" => step.note.clone(),
        "failed" => format!("**failed**: {}", step.note),
        state => format!("{state}: {}", step.note),
    }
}
