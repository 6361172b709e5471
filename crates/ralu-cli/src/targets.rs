//! Where the results of a run go.

use std::path::{Path, PathBuf};

use ralu::pipeline::{PictureKind, RunSchedule, Settings};

use super::args::GenerateArgs;
use super::error::{Error, Result};
use super::files::{self, Checks};
use super::output::shown;
use super::profile::TraceFile;
use ralu_host::pictures::Names;

/// All files that a run writes.
pub struct Targets {
    names: Names,
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
        let names = Names {
            picture: args.output.clone(),
            tensors: args.save_tensors.clone(),
            stages: args.stages.clone(),
            first_seed: settings.seed,
            count: settings.count,
        };
        Ok(Targets { names, n_stages: schedule.stages.len() })
    }

    /// What they are called.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Checks that everything can be written, and that nothing replaces another result or what `args` and `model` name
    /// to read. Makes the folder for stage pictures.
    pub fn check(&self, args: &GenerateArgs, model: &[PathBuf], trace: &TraceFile) -> Result<()> {
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
        model.iter().for_each(|path| checks.model(path));
        for image in 0..self.names.count {
            checks.output(&self.names.picture(image), "the picture")?;
            if let Some(path) = self.names.tensors(image) {
                checks.output(&path, "the tensors")?;
            }
        }
        trace.check(&mut checks)?;
        let Some(folder) = &self.names.stages else { return Ok(()) };
        let is_new = files::make_folder(folder, "the stage pictures")?;
        let checked = self.check_stages(&mut checks, folder);
        if checked.is_err() && is_new {
            let _ = std::fs::remove_dir(folder);
        }
        checked
    }

    fn check_stages(&self, checks: &mut Checks, folder: &Path) -> Result<()> {
        files::check_folder(folder, "the stage pictures")?;
        for image in 0..self.names.count {
            for stage in 1..=self.n_stages {
                for kind in [PictureKind::Estimate, PictureKind::Edges, PictureKind::Regions] {
                    if let Some(path) = self.names.stage_picture(image, stage, kind) {
                        checks.output(&path, "the stage pictures")?;
                    }
                }
            }
        }
        Ok(())
    }
}
