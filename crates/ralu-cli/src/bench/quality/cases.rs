//! What is run: the reference and each setting, checked for one model before anything is loaded.

use std::ffi::OsString;

use ralu::models::config::ModelConfig;
use ralu::pipeline::plan::{Caps, Tflops, plan};
use ralu::pipeline::{Options, RaluChoice, Request, RunSchedule, Settings};

use super::inputs::NamedOptions;
use super::results::{Setting, fingerprint};
use crate::args::BenchArgs;
use crate::error::{Error, Result};
use crate::files::Checks;
use crate::request;

/// Plain steps that are compared if no setting is given.
const PLAIN_STEPS: [usize; 4] = [50, 28, 10, 7];
/// Presets that are compared if no setting is given, in both variants.
const PRESETS: [&str; 3] = ["4x", "5x", "7x"];
/// Longest name of a file or folder that is made of a text.
const LONGEST_NAME: usize = 60;

/// The reference or a setting, ready to run.
pub struct Case {
    /// What results say about it.
    pub setting: Setting,
    /// Without prompt and seed.
    pub request: Request,
    /// What the request means for the model.
    pub settings: Settings,
    /// How the model is opened for it.
    pub options: Options,
    /// Operations of one picture.
    pub tflops: Tflops,
}

impl Case {
    fn new(
        asked: NamedOptions,
        folder: String,
        request: Request,
        options: Options,
        config: &ModelConfig,
    ) -> Result<Self> {
        let request = request.with(|request| {
            request.collect_tensors = true;
            request.count = Some(1);
            request.seed = 0;
        });
        let settings = Settings::resolve(&request, config)?;
        // Operations do not depend on the adapter, and nothing else is asked here.
        let tflops = plan(config, None, &settings, Caps::default(), Default::default())?.tflops;
        let mut fingerprint = fingerprint(&settings);
        if let Some(quantise) = options.quantise {
            fingerprint = format!("{fingerprint} {quantise}");
        }
        let NamedOptions { name, options: asked } = asked;
        let setting = Setting { name, options: asked, fingerprint, folder };
        Ok(Case { setting, request, settings, options, tflops })
    }

    /// The name of the folder of its pictures.
    pub fn folder(&self) -> &str {
        &self.setting.folder
    }

    /// `error` with the setting's name.
    pub fn named(&self, error: Error) -> Error {
        named(&self.setting.name, error)
    }
}

/// The plain picture that all settings are compared with: what it shows is the bench's own, how it is made is not.
pub fn reference(
    shared: &Request,
    steps: usize,
    options: Options,
    config: &ModelConfig,
) -> Result<Case> {
    let request = Request::default().with(|request| {
        request.width = shared.width;
        request.height = shared.height;
        request.guidance = shared.guidance;
        request.negative_prompt = shared.negative_prompt.clone();
        request.true_cfg = shared.true_cfg;
        request.max_sequence_length = shared.max_sequence_length;
        request.rng = shared.rng;
        request.steps = Some(steps);
        request.ralu = RaluChoice::Off;
    });
    let name = "reference".to_owned();
    let asked = NamedOptions { name: name.clone(), options: format!("--ralu off --steps {steps}") };
    Case::new(asked, name, request, options, config)
}

/// The settings, each with a folder name of its own. Notes in `checks` what they read.
pub fn settings(
    args: &BenchArgs,
    command_line: &[OsString],
    reference: &Case,
    config: &ModelConfig,
    checks: &mut Checks,
) -> Result<Vec<Case>> {
    let asked = super::inputs::settings(args)?;
    let by_default = asked.is_empty();
    let mut cases: Vec<Case> = Vec::new();
    for asked in if by_default { defaults() } else { asked } {
        let name = asked.name.clone();
        let arguments = asked.arguments(command_line)?;
        if let Some(mask) = &arguments.regions {
            checks.input(mask, "the mask of --regions");
        }
        let parsed = request::plain(&arguments).map_err(|error| named(&name, error))?;
        let options = parsed.weights.options().map_err(|error| named(&name, error))?;
        let request = parsed.request;
        // Of the default settings, those that the model or the size does not have are left out.
        if by_default && Settings::resolve(&request, config).is_err() {
            continue;
        }
        let folder = free_folder(&slug(&name), reference, &cases);
        let case = Case::new(asked, folder, request, options, config)
            .map_err(|error| named(&name, error))?;
        check_size(&case, reference, config).map_err(|error| named(&name, error))?;
        cases.push(case);
    }
    Ok(cases)
}

fn defaults() -> Vec<NamedOptions> {
    let asked = |name: String, options: String| NamedOptions { name, options };
    let plain = |n: usize| asked(format!("plain {n}"), format!("--ralu off --steps {n}"));
    let ralu = |preset: &str, variant: &str| {
        asked(
            format!("RALU {preset} {variant}"),
            format!("--ralu {preset} --ralu-variant {variant}"),
        )
    };
    let presets = PRESETS.iter().flat_map(|p| [ralu(p, "official"), ralu(p, "exact")]);
    PLAIN_STEPS.map(plain).into_iter().chain(presets).collect()
}

/// Pictures and latents of different sizes cannot be compared.
fn check_size(case: &Case, reference: &Case, config: &ModelConfig) -> Result<()> {
    let sizes = |settings: &Settings| -> Result<_> {
        let schedule = RunSchedule::new(settings, config)?;
        Ok(((settings.width, settings.height), (schedule.width, schedule.height)))
    };
    let (own, working) = sizes(&case.settings)?;
    let (expected, expected_working) = sizes(&reference.settings)?;
    let shown = |(width, height): (usize, usize)| format!("{width} x {height}");
    if own != expected {
        return Err(Error::usage(format!(
            "its pictures are {}, the reference's {}; give the size once, for all",
            shown(own),
            shown(expected)
        )));
    }
    if working != expected_working {
        return Err(Error::usage(format!(
            "it works at {} pixels and the reference at {}; choose a width and a height that are multiples of 32",
            shown(working),
            shown(expected_working)
        )));
    }
    Ok(())
}

fn named(name: &str, error: Error) -> Error {
    let message = format!("the setting {name:?}: {}", error.message());
    match error {
        Error::Usage(_) => Error::usage(message),
        Error::Failed(_) => Error::failed(message),
        other => other,
    }
}

/// A name for files that is the same on every system: lower-case letters and digits with hyphens between.
pub fn slug(text: &str) -> String {
    let mut slug = String::new();
    for c in text.chars().flat_map(char::to_lowercase) {
        if c.is_ascii_alphanumeric() {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(LONGEST_NAME);
    slug.trim_end_matches('-').to_owned()
}

/// `slug`, or the first of `slug-2`, `slug-3`, … that no other setting has.
fn free_folder(slug: &str, reference: &Case, cases: &[Case]) -> String {
    let slug = if slug.is_empty() { "setting" } else { slug };
    let is_taken = |name: &str| {
        std::iter::once(reference).chain(cases).any(|case| case.setting.folder == name)
    };
    let numbered = (2..).map(|i| format!("{slug}-{i}"));
    let mut names = std::iter::once(slug.to_owned()).chain(numbered);
    names.find(|name| !is_taken(name)).unwrap_or_default()
}
