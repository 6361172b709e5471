//! Where the results of a run go.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use ralu::pipeline::PictureKind;

use super::args::GenerateArgs;
use super::error::{Error, Result};
use super::files::{self, Checks};
use super::output::shown;
use super::profile::TraceFile;
use ralu_host::pictures::{Names, PictureFormat, PictureOptions};

/// Whether a picture goes to stdout.
pub fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Checks that stdout can take a picture, and nothing else goes there.
fn check_stdout(args: &GenerateArgs, count: usize) -> Result<()> {
    let refused = |reason: &str| Err(Error::usage(format!("--output - cannot be: {reason}")));
    if args.events.is_some() {
        return refused("events go to stdout, too; expected a file's name, or no --events");
    }
    if count > 1 {
        return refused("stdout takes one picture; expected a file's name, or one picture");
    }
    if std::io::stdout().is_terminal() {
        return refused(
            "stdout is a terminal; expected a file or a pipe there, as in `… -o - > fox.png`",
        );
    }
    Ok(())
}

/// All files that a run writes.
pub struct Targets {
    names: Names,
    n_stages: usize,
}

impl Targets {
    /// Those of `count` pictures from `seed` with at most `n_stages` stages.
    pub fn new(args: &GenerateArgs, seed: u64, count: usize, n_stages: usize) -> Result<Self> {
        let output = args.output.as_deref();
        let format = match output {
            None => PictureFormat::default(),
            Some(output) if is_stdout(output) => {
                check_stdout(args, count)?;
                PictureFormat::default()
            }
            Some(output) => PictureFormat::of(output).ok_or_else(|| {
                let endings = PictureFormat::ENDINGS.map(|(ending, _)| format!(".{ending}"));
                Error::usage(format!(
                    "--output {}: pictures are written as PNG, JPEG or WebP; expected a name that ends in {}, or - for stdout",
                    shown(output),
                    endings.join(", ")
                ))
            })?,
        };
        if args.quality.is_some() && format != PictureFormat::Jpeg {
            return Err(Error::usage(
                "--quality is that of JPEGs, and the picture is none; expected --output FILE.jpg",
            ));
        }
        let names = Names {
            // Seeds of several requests may be the same.
            picture: match &args.prompts {
                Some(_) if output.is_none() => Some(format!("ralu-{seed}.png").into()),
                _ => args.output.clone(),
            },
            tensors: args.save_tensors.clone(),
            stages: args.stages.clone(),
            first_seed: seed,
            count,
        };
        Ok(Targets { names, n_stages })
    }

    /// How pictures are written.
    pub fn options(args: &GenerateArgs) -> PictureOptions {
        let usual = PictureOptions::default();
        PictureOptions {
            quality: args.quality.unwrap_or(usual.quality),
            metadata: !args.no_metadata,
        }
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
            (&args.prompts, "the prompts of --prompts"),
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
            let picture = self.names.picture(image);
            if !is_stdout(&picture) {
                checks.output(&picture, "the picture")?;
            }
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
