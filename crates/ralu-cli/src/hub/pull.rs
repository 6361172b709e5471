//! `ralu pull`: downloads a model into the hub's cache.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ralu::escape::Escaped;
use ralu::gpu::human_bytes;
use ralu_host::models::is_lora_file;
use ralu_hub::{Download, Name, Progress};

use super::{ask, hub, named, place};
use crate::args::PullArgs;
use crate::error::{Error, Result};
use crate::output;

/// Downloads of more bytes than this are asked about.
const LARGE: u64 = 1 << 30;
/// Lines come no more often than this where there is no bar.
const QUIET_TIME: Duration = Duration::from_secs(10);

/// Downloads, and says where the model is: a path on stdout, two if its denoiser is a file of its own; everything else on stderr.
pub fn run(args: &PullArgs, quiet: bool) -> Result<()> {
    let name = named(&args.name)?;
    let hub = hub();
    let mut shown = Shown::new(quiet);
    let mut downloads = vec![hub.plan(&name, &mut |progress| shown.show(&progress))?];
    if let Some(denoiser) = name.denoiser() {
        downloads.push(hub.plan(&denoiser, &mut |progress| shown.show(&progress))?);
    }
    for download in &downloads {
        shown.say(&summary(&name, download));
    }
    let missing = downloads.iter().map(|download| download.missing_bytes).sum();
    if missing > LARGE
        && !args.yes
        && ask(&format!("Download {}?", human_bytes(missing))) == Some(false)
    {
        return Err(Error::Cancelled);
    }
    shown.begin(downloads.iter().map(Download::bytes).sum(), missing);
    let mut places = Vec::new();
    for (download, name) in
        downloads.iter().zip([Some(&name), name.denoiser().as_ref()].into_iter().flatten())
    {
        let result = hub.download(download, &mut |progress| shown.show(&progress));
        if result.is_err() {
            shown.end();
        }
        places.push(place(&result?, name));
    }
    shown.end();
    for place in &places {
        output::line(Escaped(&place.to_string_lossy()))?;
    }
    let option = match places.first() {
        Some(place) if is_lora_file(place) => "--model MODEL --lora",
        _ => "--model",
    };
    let name = Escaped(&args.name);
    shown.say(&format!("next: ralu generate \"a fox in the snow\" {option} {name}"));
    Ok(())
}

fn summary(name: &Name, download: &Download) -> String {
    let files = match download.files.len() {
        1 => "1 file".to_owned(),
        n => format!("{n} files"),
    };
    let licence =
        name.known.map_or_else(String::new, |known| format!(", licence {}", known.licence));
    let missing = match download.missing_bytes {
        0 => "all of it is in the cache".to_owned(),
        missing => format!("{} to download", human_bytes(missing)),
    };
    let (repository, bytes) = (Escaped(&download.repository), human_bytes(download.bytes()));
    format!("{repository}: {files}, {bytes}{licence}; {missing}")
}

/// What a person sees of it.
struct Shown {
    quiet: bool,
    bar: Option<ProgressBar>,
    arrived: u64,
    of: u64,
    last_line: Instant,
}

impl Shown {
    fn new(quiet: bool) -> Self {
        Shown { quiet, bar: None, arrived: 0, of: 0, last_line: Instant::now() }
    }

    fn say(&self, text: &str) {
        if self.quiet {
            return;
        }
        match &self.bar {
            Some(bar) => bar.suspend(|| output::diagnostic(text)),
            None => output::diagnostic(text),
        }
    }

    /// From now on bytes count.
    fn begin(&mut self, bytes: u64, missing: u64) {
        self.of = bytes;
        let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        if self.quiet || dumb || !std::io::stderr().is_terminal() || missing == 0 {
            return;
        }
        let bar = ProgressBar::with_draw_target(Some(self.of), ProgressDrawTarget::stderr());
        let template = "{bar:20} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left  {wide_msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━━─"));
        }
        self.bar = Some(bar);
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn show(&mut self, progress: &Progress) {
        match progress {
            Progress::File { path, had, .. } => {
                self.arrived += had;
                if let Some(bar) = &self.bar {
                    bar.set_message(Escaped(path).to_string());
                    bar.set_position(self.arrived);
                    // What was there already has no speed.
                    bar.reset_eta();
                }
            }
            Progress::Bytes(bytes) => {
                self.arrived += bytes;
                if let Some(bar) = &self.bar {
                    bar.set_position(self.arrived);
                } else if self.of > 0 && self.last_line.elapsed() >= QUIET_TIME {
                    self.last_line = Instant::now();
                    self.say(&format!("{} of {}", human_bytes(self.arrived), human_bytes(self.of)));
                }
            }
            Progress::Lost(bytes) => self.arrived = self.arrived.saturating_sub(*bytes),
            Progress::Waiting { reason, wait, throttled } => {
                let who = if *throttled { "the hub asks to wait" } else { "trying again" };
                let seconds = wait.as_secs_f64().ceil();
                self.say(&format!("{}: {who}, {seconds:.0} s", Escaped(reason)));
            }
            _ => {}
        }
    }
}
