//! One JSON object a line: the harness asks on a racer's standard input, the racer answers on its standard output.
//! Lines of the racer that are not objects are its libraries' chatter and are ignored.

use std::io::{BufRead, Write};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::case::Case;
use crate::usage::cpu_seconds;

/// What the harness asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Ask {
    /// Make operands and everything that is made once, run once, and give the results at `positions`.
    Prepare { case: Case, positions: Vec<usize> },
    /// Do it `repeats` times.
    Run { repeats: usize },
    /// Forget the case.
    Free,
}

/// Who runs, on what. A racer's first line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Library and version.
    pub version: String,
    /// Adapter and driver, or the processor.
    pub device: String,
}

/// What was measured, or asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// Wall-clock seconds of all repeats; of `Prepare` those of one more run after the first.
    #[serde(default)]
    pub wall: f64,
    /// Seconds of processor time of all the racer's threads in that time.
    #[serde(default)]
    pub cpu: f64,
    /// Of `Prepare`: the results at the positions asked for.
    #[serde(default)]
    pub values: Vec<f32>,
    /// Of `Prepare`: how it is done, where there is a choice.
    #[serde(default)]
    pub note: String,
    /// Why not.
    #[serde(default)]
    pub error: Option<String>,
}

/// What a racer can do with a case.
pub trait Racer {
    /// Makes operands and whatever is made once. Says how, where there is a choice.
    fn prepare(&mut self, case: &Case) -> Result<String, String>;
    /// Computes `repeats` times; returns when the results are there.
    fn run(&mut self, repeats: usize) -> Result<(), String>;
    /// The whole last result, in [`Case`]'s layout.
    fn result(&mut self) -> Result<Vec<f32>, String>;
    /// Forgets the case.
    fn free(&mut self);
}

/// Measures `racer` for `repeats` runs.
fn measured(racer: &mut dyn Racer, repeats: usize) -> Result<Answer, String> {
    let (wall, cpu) = (Instant::now(), cpu_seconds());
    racer.run(repeats)?;
    let answer = Answer {
        wall: wall.elapsed().as_secs_f64(),
        cpu: cpu_seconds() - cpu,
        ..Default::default()
    };
    Ok(answer)
}

fn answer(racer: &mut dyn Racer, ask: &Ask) -> Result<Answer, String> {
    match ask {
        Ask::Prepare { case, positions } => {
            racer.free();
            let note = racer.prepare(case)?;
            racer.run(1)?;
            let result = racer.result()?;
            let n = case.outputs();
            if result.len() != n {
                return Err(format!("the result has {} numbers, not {n}", result.len()));
            }
            let values = positions.iter().map(|i| result[*i]).collect();
            Ok(Answer { values, note, ..measured(racer, 1)? })
        }
        Ask::Run { repeats } => measured(racer, *repeats),
        Ask::Free => {
            racer.free();
            Ok(Answer::default())
        }
    }
}

/// Serves the harness until it closes the pipe.
pub fn serve(hello: &Hello, racer: &mut dyn Racer) -> std::io::Result<()> {
    let send = |line: String| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()
    };
    send(serde_json::to_string(hello)?)?;
    for line in std::io::stdin().lock().lines() {
        let answer = match serde_json::from_str::<Ask>(&line?) {
            Ok(ask) => answer(racer, &ask),
            Err(error) => Err(format!("not a request: {error}")),
        };
        let answer =
            answer.unwrap_or_else(|error| Answer { error: Some(error), ..Default::default() });
        send(serde_json::to_string(&answer)?)?;
    }
    Ok(())
}
