//! Which picture is made and how long the rest will take: a bar on a terminal, a line for each picture elsewhere.

use std::io::IsTerminal;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ralu::escape::Escaped;

use crate::output;
use crate::progress::human_time;

/// Units of the bar.
const WHOLE: f64 = 10_000.0;

/// Shows the progress of all pictures on stderr.
pub struct Progress {
    bar: Option<ProgressBar>,
    quiet: bool,
    started: Instant,
    /// Planned operations of all pictures that this run makes.
    work: f64,
    /// Of those that are made.
    done: f64,
    /// Of the one in hand.
    current: f64,
    label: String,
}

impl Progress {
    /// For pictures of `work` operations in all.
    pub fn new(quiet: bool, work: f64) -> Self {
        let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        let bar = (!quiet && std::io::stderr().is_terminal() && !dumb).then(|| {
            let target = ProgressDrawTarget::stderr();
            let bar = ProgressBar::with_draw_target(Some(WHOLE as u64), target);
            let template = if output::colours() {
                "{bar:20.cyan/dim} {wide_msg}"
            } else {
                "{bar:20} {wide_msg}"
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("━━─"));
            }
            bar
        });
        let label = String::new();
        Progress { bar, quiet, started: Instant::now(), work, done: 0.0, current: 0.0, label }
    }

    /// Picture `number` of `of` begins, with that many operations.
    pub fn begin(&mut self, number: usize, of: usize, setting: &str, work: f64) {
        self.current = work;
        self.label = format!("picture {number} of {of}, {}", Escaped(setting));
        match &self.bar {
            Some(_) => self.step(0.0),
            None => self.say(&self.message(self.done)),
        }
    }

    /// That share of the picture in hand is done.
    pub fn step(&mut self, share: f64) {
        if let Some(bar) = &self.bar {
            let done = self.done + share * self.current;
            bar.set_message(self.message(done));
            bar.set_position((done / self.work * WHOLE) as u64);
        }
    }

    /// The picture in hand is made.
    pub fn end(&mut self) {
        self.done += self.current;
    }

    fn message(&self, done: f64) -> String {
        // Nothing is known before something is done.
        if done == 0.0 {
            return self.label.clone();
        }
        let left = self.started.elapsed().as_secs_f64() * (self.work / done - 1.0);
        format!("{}, {} left", self.label, human_time(left))
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

    fn above(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::diagnostic(text)),
            None => output::diagnostic(text),
        }
    }

    /// Removes the bar.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
