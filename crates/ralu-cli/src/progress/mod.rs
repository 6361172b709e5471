//! What a person sees while a run goes on: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ralu::escape::escape;
use ralu::gpu::human_bytes;
use ralu::pipeline::tune::TuningEvent;
use ralu::pipeline::{Event, Part, StageStart, StepDone};

use super::output;

mod time_left;

use time_left::TimeLeft;

/// Lines of a stage come no more often than this.
const QUIET_TIME: Duration = Duration::from_secs(5);
/// Units of the bar.
const WHOLE: u64 = 10_000;

/// Shows the progress of a run on stderr.
pub struct Progress {
    bar: Option<ProgressBar>,
    quiet: bool,
    images: usize,
    time_left: TimeLeft,
    last_line: Instant,
    stage: Option<StageStart>,
    loading: Option<Part>,
}

impl Progress {
    /// For a run of `images` pictures.
    pub fn new(quiet: bool, images: usize) -> Self {
        let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        let bar = (!quiet && std::io::stderr().is_terminal() && !dumb).then(|| {
            let bar = ProgressBar::with_draw_target(Some(WHOLE), ProgressDrawTarget::stderr());
            // Until there is more to say.
            let bar = bar.with_prefix("starting").with_message("opening the adapter and the model");
            let template = if output::colours() {
                "{prefix:>12.cyan.bold} {bar:20.cyan/dim} {wide_msg}"
            } else {
                "{prefix:>12} {bar:20} {wide_msg}"
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("━━─"));
            }
            bar
        });
        Progress {
            bar,
            quiet,
            images,
            time_left: TimeLeft::default(),
            last_line: Instant::now(),
            stage: None,
            loading: None,
        }
    }

    /// Something that is said once, `--quiet` apart.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            self.above(text);
        }
    }

    /// Something that is said whatever was asked for.
    pub fn warn(&self, text: &str) {
        self.above(&format!("warning: {text}"));
    }

    /// Does something that may write to the terminal.
    pub fn suspend<T>(&self, action: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(action),
            None => action(),
        }
    }

    fn above(&self, text: &str) {
        self.suspend(|| output::diagnostic(text));
    }

    /// Shows an event.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Warning(message) => self.warn(message),
            Event::Loading { part, bytes, of } => self.loading(*part, *bytes, *of),
            Event::Encoded { n_tokens, seconds } => {
                self.say(&format!("prompt encoded: {n_tokens} tokens, {seconds:.1} s"));
                self.phase("preparing", 0.0, "compiling kernels");
            }
            Event::Stage(stage) => self.stage(stage),
            Event::Step(step) => self.step(step),
            Event::StageEnd(_) => {}
            Event::Regions { selected, grid, .. } => {
                self.say(&format!("regions: {} of {} tokens", selected.len(), grid.n_tokens()));
            }
            _ => {}
        }
    }

    /// Shows how measuring kernels goes on.
    pub fn tuning(&mut self, event: &TuningEvent) {
        match event {
            TuningEvent::Measured { done, of, what } => {
                let share = *done as f64 / *of as f64;
                self.update("kernels", share, format!("measuring {what}"), *done == 1);
                if done == of {
                    self.phase("preparing", 0.0, "taking the fastest kernels");
                }
            }
            TuningEvent::Failed { what, reason } => {
                self.warn(&format!("{what} failed and is left out: {reason}"));
            }
            _ => {}
        }
    }

    /// Removes the bar.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn loading(&mut self, part: Part, bytes: u64, of: u64) {
        let name = match part {
            Part::TextEncoders => "text encoders",
            Part::Modulation => "modulations",
            Part::Denoiser => "denoiser",
        };
        let begins = self.loading != Some(part);
        self.loading = Some(part);
        let message = format!("{name}: {} of {}", human_bytes(bytes), human_bytes(of));
        let share = if of == 0 { 1.0 } else { bytes as f64 / of as f64 };
        self.update("loading", share, message, begins);
        // What comes next is no loading, and a full bar would say that nothing comes.
        if bytes >= of {
            let (name, next) = match part {
                Part::TextEncoders => ("encoding", "reading the prompt"),
                Part::Modulation => ("preparing", "making modulations"),
                Part::Denoiser => ("preparing", "compiling kernels"),
            };
            self.phase(name, 0.0, next);
        }
    }

    /// Shows how much of a file is written.
    pub fn writing(&mut self, bytes: u64, of: u64) {
        let share = if of == 0 { 1.0 } else { bytes as f64 / of as f64 };
        let message = format!("{} of {}", human_bytes(bytes), human_bytes(of));
        self.update("writing", share, message, false);
    }

    fn step(&mut self, step: &StepDone) {
        let left = self.time_left.after_step(step.step, step.of, step.seconds, step.done);
        let of = self.stage.as_ref().map_or(step.stage, |stage| stage.of);
        let name = self.picture_name(step.image);
        let place = format!("stage {}/{of}, step {}/{}", step.stage, step.step, step.of);
        let left = left.map_or(String::new(), |left| format!(" {} left,", human_time(left)));
        let seconds = step.seconds;
        self.update(&name, step.done, format!("{place},{left} {seconds:.2} s a step"), false);
        // What comes next is no step.
        if step.step == step.of {
            let next = if step.stage == of { "decoding" } else { "preparing the next stage" };
            self.phase(&name, step.done, &format!("stage {}/{of} done, {next}", step.stage));
        }
    }

    /// Shows what goes on between steps, where something is there that shows it.
    fn phase(&self, name: &str, share: f64, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_prefix(name.to_owned());
            bar.set_message(what.to_owned());
            bar.set_position(position(share));
        }
    }

    fn stage(&mut self, stage: &StageStart) {
        if stage.stage == 1 {
            self.time_left = TimeLeft::default();
        }
        let message = format!(
            "stage {}/{}: {} steps on {} tokens, {}",
            stage.stage,
            stage.of,
            stage.n_steps,
            stage.n_tokens,
            human_bytes(stage.bytes)
        );
        self.stage = Some(stage.clone());
        let name = self.picture_name(stage.image);
        match &self.bar {
            Some(bar) => {
                bar.set_prefix(name);
                bar.set_message(message);
            }
            None => self.update(&name, 0.0, message, true),
        }
    }

    /// `picture`, or `picture 2/3` in a series.
    pub fn picture_name(&self, image: usize) -> String {
        match self.images {
            1 => "picture".to_owned(),
            images => format!("picture {}/{images}", image + 1),
        }
    }

    /// Moves the bar, or prints a line if it is `due` or was long ago.
    fn update(&mut self, prefix: &str, share: f64, message: String, due: bool) {
        if let Some(bar) = &self.bar {
            bar.set_prefix(escape(prefix).into_owned());
            bar.set_message(escape(&message).into_owned());
            bar.set_position(position(share));
        } else if due || self.last_line.elapsed() >= QUIET_TIME {
            self.last_line = Instant::now();
            self.say(&format!("{prefix}: {message}"));
        }
    }
}

/// How far a bar is. It has 20 cells, of which the last stays empty, as what goes on has not ended; a cell that has begun is
/// drawn as a full one.
fn position(share: f64) -> u64 {
    (share.clamp(0.0, 0.949) * WHOLE as f64) as u64
}

/// `12 s`, `3 min 05 s`, `2 h 10 min`.
pub fn human_time(seconds: f64) -> String {
    // A cast of nonsense gives 0 or the largest number, never a panic.
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
}
