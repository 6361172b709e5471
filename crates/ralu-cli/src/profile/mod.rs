//! Where the time of a run goes, kernel by kernel.

mod table;
mod trace;

use std::path::{Path, PathBuf};

use ralu::gpu::ProgramTimes;
use ralu::pipeline::Event;
use serde::Serialize;
use serde_json::json;

use super::chips::Peak;
use super::error::Result;
use super::files::{self, Checks};
use table::Table;

/// Collects what a profiled run tells.
#[derive(Default)]
pub struct Profile {
    programs: Vec<Ran>,
    /// Programs at the end of the list whose purpose is not known yet.
    pending: usize,
    /// Where the picture in work begins in the list.
    picture_from: usize,
    steps: Vec<Steps>,
    pictures: Pictures,
}

struct Ran {
    times: ProgramTimes,
    in_step: bool,
}

/// The steps of a stage: their kernels next to their time from beginning to end.
#[derive(Clone, Serialize)]
struct Steps {
    stage: usize,
    steps: usize,
    /// Of all steps.
    seconds: f64,
    /// Of all their kernels.
    kernel_seconds: f64,
    /// The second over the first.
    share: f64,
}

/// Whole pictures: from the first step to the pixels.
#[derive(Clone, Copy, Default, Serialize)]
struct Pictures {
    pictures: usize,
    seconds: f64,
    kernel_seconds: f64,
    share: f64,
}

impl Profile {
    /// Takes note of an event.
    pub fn event(&mut self, event: &Event) {
        match event {
            // Programs are told before the event that they ran for.
            Event::Profile(times) => {
                self.programs.push(Ran { times: times.clone(), in_step: false });
                self.pending += 1;
                return;
            }
            Event::Stage(stage) if stage.stage == 1 => self.picture_from = self.programs.len(),
            Event::Step(step) => self.step(step.stage, step.seconds),
            Event::Image { seconds, .. } => {
                let pictures = &mut self.pictures;
                pictures.pictures += 1;
                pictures.seconds += seconds;
                pictures.kernel_seconds += kernel_seconds(&self.programs[self.picture_from..]);
                pictures.share = pictures.kernel_seconds / pictures.seconds;
            }
            _ => {}
        }
        self.pending = 0;
    }

    fn step(&mut self, stage: usize, seconds: f64) {
        let first = self.programs.len() - self.pending;
        let ran = &mut self.programs[first..];
        ran.iter_mut().for_each(|program| program.in_step = true);
        let kernel_seconds = kernel_seconds(ran);
        let position = self.steps.iter().position(|steps| steps.stage == stage);
        let position = position.unwrap_or_else(|| {
            self.steps.push(Steps {
                stage,
                steps: 0,
                seconds: 0.0,
                kernel_seconds: 0.0,
                share: 0.0,
            });
            self.steps.len() - 1
        });
        let steps = &mut self.steps[position];
        steps.steps += 1;
        steps.seconds += seconds;
        steps.kernel_seconds += kernel_seconds;
        steps.share = steps.kernel_seconds / steps.seconds;
    }

    /// Only what ran in steps.
    #[cfg(feature = "bench")]
    pub fn of_steps(mut self) -> Self {
        self.programs.retain(|program| program.in_step);
        self.pictures = Pictures::default();
        self
    }
}

fn kernel_seconds(programs: &[Ran]) -> f64 {
    programs.iter().map(|program| program.times.kernel_seconds()).sum()
}

/// Several profiles, each with its name.
#[derive(Serialize)]
#[serde(transparent)]
pub struct Profiles {
    entries: Vec<Entry>,
    /// What the chip can do at most, where that is known.
    #[serde(skip)]
    peak: Option<Peak>,
}

#[derive(Serialize)]
struct Entry {
    /// The preset's name, `custom` or `off`.
    ralu: String,
    steps: Vec<Steps>,
    #[serde(flatten)]
    pictures: Pictures,
    programs: Vec<Table>,
    #[serde(skip)]
    times: Vec<ProgramTimes>,
}

impl Profiles {
    /// None yet.
    pub fn new(peak: Option<Peak>) -> Self {
        Profiles { entries: vec![], peak }
    }

    /// Adds the profile of a run.
    pub fn add(&mut self, ralu: &str, profile: Profile) {
        let times: Vec<_> = profile.programs.into_iter().map(|program| program.times).collect();
        self.entries.push(Entry {
            ralu: ralu.to_owned(),
            steps: profile.steps,
            pictures: profile.pictures,
            programs: table::tables(&times, self.peak.as_ref()),
            times,
        });
    }

    /// The tables as text for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for Entry { ralu, steps, pictures, programs, .. } in &self.entries {
            let name = if ralu == "off" { "plain".to_owned() } else { format!("RALU {ralu}") };
            if !text.is_empty() {
                text.push('\n');
            }
            if pictures.pictures > 0 {
                let n = pictures.pictures as f64;
                text.push_str(&format!(
                    "{name}: a picture takes {:.4} s, its kernels {:.4} s, {:.1} %\n",
                    pictures.seconds / n,
                    pictures.kernel_seconds / n,
                    100.0 * pictures.share
                ));
            }
            for Steps { stage, steps, seconds, kernel_seconds, share } in steps {
                let n = *steps as f64;
                text.push_str(&format!(
                    "{name} stage {stage}: a step takes {:.4} s (mean of {steps}), its kernels {:.4} s, {:.1} %\n",
                    seconds / n,
                    kernel_seconds / n,
                    100.0 * share
                ));
            }
            for program in programs {
                text.push_str(&format!("\n{program}"));
            }
        }
        text
    }
}

/// Where a trace goes, if one is wanted.
pub struct TraceFile(Option<PathBuf>);

impl TraceFile {
    /// From `--profile[=FILE]`.
    pub fn new(profile: Option<&Option<PathBuf>>) -> Self {
        TraceFile(profile.and_then(|file| file.clone()))
    }

    /// Checks that it can be written, and that it is none of the others.
    pub fn check(&self, checks: &mut Checks) -> Result<()> {
        self.0.as_deref().map_or(Ok(()), |path| checks.output(path, "the trace"))
    }

    /// Writes the profiles, one after the other. `environment` says where they were made. Gives the file, if one is wanted.
    pub fn write(
        &self,
        profiles: &Profiles,
        environment: &impl Serialize,
    ) -> Result<Option<&Path>> {
        let Some(path) = &self.0 else { return Ok(None) };
        let mut trace = trace::Trace::default();
        for Entry { ralu, times, .. } in &profiles.entries {
            trace.add(if ralu == "off" { "plain" } else { ralu }, times);
        }
        let document = trace.document(json!(environment));
        files::write(path, &serde_json::to_vec(&document)?)?;
        Ok(Some(path))
    }
}
