//! Where the results of a run go.

use std::path::{Path, PathBuf};

use ralu::pipeline::{PictureKind, RunSchedule, Settings};

use super::args::GenerateArgs;
use super::error::{Error, Result};
use super::files::{self, Checks};
use super::output::shown;
use super::profile::TraceFile;
use ralu_host::events;

/// The names of all files that a run writes.
pub struct Targets {
    output: Option<PathBuf>,
    tensors: Option<PathBuf>,
    stages: Option<PathBuf>,
    first_seed: u64,
    count: usize,
    n_stages: usize,
}

impl Targets {
    pub fn new(args: &GenerateArgs, settings: &Settings, schedule: &RunSchedule) -> Result<Self> {
        if let Some(output) = &args.output
            && !output.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png"))
        {
            return Err(Error::usage(format!(
                "--output {}: pictures are written as PNG; expected a name that ends in .png",
                shown(output)
            )));
        }
        Ok(Targets {
            output: args.output.clone(),
            tensors: args.save_tensors.clone(),
            stages: args.stages.clone(),
            first_seed: settings.seed,
            count: settings.count,
            n_stages: schedule.stages.len(),
        })
    }

    /// Checks that everything can be written, and that nothing replaces another result or what `args` and `model` name
    /// to read. Makes the folder for stage pictures.
    pub fn check(&self, args: &GenerateArgs, model: &Path, trace: &TraceFile) -> Result<()> {
        let mut checks = Checks::default();
        let read = [
            (&args.from, "the picture of --from"),
            (&args.given, "the tensors of --given"),
            (&args.request.regions, "the mask of --regions"),
        ];
        for (path, what) in read {
            if let Some(path) = path {
                checks.input(path, what);
            }
        }
        checks.model(model);
        for image in 0..self.count {
            checks.output(&self.picture(image), "the picture")?;
            if let Some(path) = self.tensors(image) {
                checks.output(&path, "the tensors")?;
            }
        }
        trace.check(&mut checks)?;
        let Some(folder) = &self.stages else { return Ok(()) };
        let is_new = files::make_folder(folder, "the stage pictures")?;
        let checked = self.check_stages(&mut checks, folder);
        if checked.is_err() && is_new {
            let _ = std::fs::remove_dir(folder);
        }
        checked
    }

    fn check_stages(&self, checks: &mut Checks, folder: &Path) -> Result<()> {
        files::check_folder(folder, "the stage pictures")?;
        for image in 0..self.count {
            for stage in 1..=self.n_stages {
                for kind in [PictureKind::Estimate, PictureKind::Edges, PictureKind::Regions] {
                    if let Some(path) = self.stage_picture(image, stage, kind) {
                        checks.output(&path, "the stage pictures")?;
                    }
                }
            }
        }
        Ok(())
    }

    pub fn picture(&self, image: usize) -> PathBuf {
        match &self.output {
            None => format!("ralu-{}.png", self.first_seed.wrapping_add(image as u64)).into(),
            Some(path) => self.numbered(path, image),
        }
    }

    pub fn tensors(&self, image: usize) -> Option<PathBuf> {
        self.tensors.as_ref().map(|path| self.numbered(path, image))
    }

    pub fn stage_picture(&self, image: usize, stage: usize, kind: PictureKind) -> Option<PathBuf> {
        let prefix = if self.count > 1 { format!("{image}-") } else { String::new() };
        let name = format!("{prefix}stage{stage}-{}.png", events::kind_name(kind));
        self.stages.as_ref().map(|folder| folder.join(name))
    }

    fn numbered(&self, path: &Path, image: usize) -> PathBuf {
        if self.count > 1 { files::numbered(path, image) } else { path.to_path_buf() }
    }
}
