//! What becomes of the events of a run: progress, lines of JSON, files.

use std::path::Path;

use ralu::models::config::ModelConfig;
use ralu::pipeline::saved::Maker;
use ralu::pipeline::{Event, ImageReport, Pipeline, Products};
use ralu_host::events::{self, Files};
use ralu_host::pictures::{PictureOptions, ResultKind, Results, Written};
use serde_json::json;

use super::jobs::Job;
use super::speed::Speed;
use crate::error::Result;
use crate::preview::{self, Protocol};
use crate::profile::Profile;
use crate::progress::{Progress, human_time};
use crate::reporter::Reporter;
use crate::targets::{Targets, is_stdout};
use crate::{files, output};

/// Takes the events of one request after the other.
pub struct Drawing<'a> {
    pub targets: &'a Targets,
    /// How pictures are written.
    pub options: PictureOptions,
    /// What draws them.
    pub maker: &'a Maker<'a>,
    /// What the products of the picture rounded to that is repeated.
    pub products: Option<Products>,
    /// How finished pictures are shown.
    pub preview: Option<Protocol>,
    pub progress: Progress,
    pub reporter: &'a mut Reporter,
    pub profile: Profile,
    pub speed: Speed,
}

impl Drawing<'_> {
    /// Tells that a request of several is drawn from now on; `model` is what the model is called.
    pub fn begin(&mut self, job: &Job, model: &str, config: &ModelConfig) {
        let name = self.progress.picture_name(job.first);
        self.progress.say(&format!("{name}: {}", job.describe(model)));
        self.reporter.emit(&json!({
            "event": "request",
            "image": job.first,
            "prompt": job.settings.prompt,
            "width": job.settings.width,
            "height": job.settings.height,
            "ralu": job.settings.ralu_name,
            "stages": job.schedule.stages.len(),
            "steps": job.schedule.steps(),
            "seed": job.settings.seed,
            "count": job.settings.count,
        }));
        job.warnings(config).into_iter().for_each(|warning| self.warn(warning));
    }

    /// Shows, tells and writes what an event of `job` gives.
    pub fn event(&mut self, job: &Job, pipeline: &Pipeline, mut event: Event) -> Result<()> {
        if let Some(image) = event.image_mut() {
            *image += job.first;
        }
        self.progress.event(&event);
        self.profile.event(&event);
        self.speed.event(&event);
        let results = Results {
            names: self.targets.names(),
            settings: &job.settings,
            maker: self.maker,
            stages: job.schedule.stages.len(),
            options: self.options,
        };
        let written = results.write(&event, |kind, path, bytes| {
            if kind == ResultKind::Picture && is_stdout(path) {
                return output::bytes(bytes);
            }
            let written = files::write(path, bytes);
            match kind {
                ResultKind::Picture => written.map_err(|error| files::rescue(path, bytes, error)),
                _ => written,
            }
        })?;
        let paths =
            Files { picture: written.picture.as_deref(), tensors: written.tensors.as_deref() };
        if let Some(line) = events::value(&event, &paths, pipeline.gpu().counters()) {
            self.reporter.emit(&line);
        }
        if let (Event::Image { image, seed, seconds, report, picture, .. }, Some(path)) =
            (&event, &written.picture)
        {
            let name = self.progress.picture_name(*image);
            let reused = match job.settings.cache {
                None => String::new(),
                Some(_) => format!(
                    ", {} steps computed ({}), {} reused",
                    report.n_computed(),
                    pattern(report),
                    report.n_reused()
                ),
            };
            let time = human_time(*seconds);
            self.progress.say(&format!("{name}: done, seed {seed}, {time}{reused}"));
            self.tell_picture(path, &written, report);
            if let Some(protocol) = self.preview {
                self.progress.suspend(|| preview::show(protocol, picture));
            }
        }
        Ok(())
    }

    /// Tells where a finished picture is, and what is to be said of its file.
    fn tell_picture(&mut self, path: &Path, written: &Written, report: &ImageReport) {
        if !is_stdout(path) {
            self.progress.suspend(|| self.reporter.picture(path));
        }
        if written.lost_request {
            self.warn(format!(
                "{} carries no request: a JPEG has no room for one this long; write a PNG or a WebP to keep it",
                output::shown(path)
            ));
        }
        if let Some(before) = self.products.filter(|before| *before != report.products) {
            self.warn(format!(
                "the picture of --from was made with products in {before}, this one in {}, as this adapter and its kernels \
                 do them: it differs a little",
                report.products
            ));
        }
    }

    fn warn(&mut self, message: String) {
        self.progress.warn(&message);
        self.reporter.emit(&json!({ "event": "warning", "message": message }));
    }
}

/// The steps of each stage, computed or reused: `FFrF FFrF`.
fn pattern(report: &ImageReport) -> String {
    let letter = |computed: &bool| if *computed { 'F' } else { 'r' };
    let stages: Vec<String> =
        report.computed.iter().map(|stage| stage.iter().map(letter).collect()).collect();
    stages.join(" ")
}
