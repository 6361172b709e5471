//! `ralu bench quality`: how far each of several settings is from the model's own plain picture, and how much faster.
//!
//! For every prompt and seed the reference is made first, plain with many steps, then each setting in turn from the
//! same noise, so that a machine that slows down slows all of them down. [`inputs`] reads what is asked for,
//! [`cases`] checks it, [`metrics`] compares, [`results`] and [`store`] keep what is done, so that a run that was
//! stopped can go on; [`table`] and [`sheet`] show it.

mod cases;
mod inputs;
mod metrics;
mod progress;
mod results;
mod sheet;
mod store;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use ralu::checkpoint::source::Source;
use ralu::gpu::{AdapterChoice, Gpu, block_on_while};
use ralu::models::config::ModelConfig;
use ralu::pipeline::plan::Tflops;
use ralu::pipeline::{Event, NamedTensor, NamedTensors, Options, Pipeline, Request, png_file};
use ralu_host::open_pipeline;

use self::cases::Case;
use self::progress::Progress;
use self::results::{Compared, Measures, Reference, Results, Subject, Work};
use self::store::{Made, Pictures, Store};
use crate::args::{BenchArgs, ModelArgs};
use crate::bench::device;
use crate::error::{Error, Result};
use crate::{files, generate, model, output, request, signals, tune};

/// Plain steps of the reference if the user does not say: what FLUX.1-dev and RALU's paper take.
const REFERENCE_STEPS: usize = 50;
/// Of the pictures if the user does not say.
const SEED: u64 = 7;

/// Runs the command.
pub fn run(args: &BenchArgs, quiet: bool) -> Result<()> {
    let mut bench = Bench::open(args, quiet)?;
    let measured = bench.measure();
    bench.progress.clear();
    if let (Err(Error::Cancelled), Some(store)) = (&measured, &bench.store) {
        bench.progress.say(&format!(
            "{} of {} pictures are kept in {}; the same command goes on from there",
            bench.results.n_done(),
            bench.n_pictures(),
            output::shown(store.folder())
        ));
    }
    measured?;
    bench.results.summarise(&bench.tflops());
    if let Some(store) = &bench.store {
        bench.results.write(store.folder())?;
        let table = table::markdown(&bench.results);
        files::write(&store.folder().join(store::TABLE), table.as_bytes())?;
        bench.draw_sheet(store)?;
    }
    if args.prints_json() {
        return output::json(&bench.results);
    }
    output::line(table::text(&bench.results))
}

/// An open model, what is compared, and what is done.
struct Bench {
    model: OpenModel,
    reference: Case,
    settings: Vec<Case>,
    results: Results,
    store: Option<Store>,
    /// The pictures that others are compared with, by prompt and seed, where some are made by other weights.
    references: BTreeMap<(usize, u64), Made>,
    progress: Progress,
    /// What was already warned of.
    warned: BTreeSet<String>,
}

impl Bench {
    /// Checks everything, takes over earlier results, and opens the model.
    fn open(args: &BenchArgs, quiet: bool) -> Result<Self> {
        let quality = &args.quality;
        let prompts = quality.prompts.as_deref().ok_or_else(|| {
            Error::usage(
                "the prompts are missing; expected --prompts FILE, a text file with one a line",
            )
        })?;
        let prompts = inputs::lines(prompts, "prompts", "\"a red apple on a blue background\"")?;
        let seeds = seeds(args)?;
        let request::ParsedRequest { request: shared, model: given, weights, .. } =
            request::plain(&args.request)?;
        let options = weights.options()?;
        let model = model::open(&given)?;
        let config = ModelConfig::load(&model.files as &dyn Source)?;
        let reference_steps = quality.reference_steps.unwrap_or(REFERENCE_STEPS);
        let reference = cases::reference(&shared, reference_steps, options, &config)?;
        let command_line: Vec<OsString> = std::env::args_os().collect();
        let mut checks = super::checks(args);
        let settings = cases::settings(args, &command_line, &reference, &config, &mut checks)?;
        let pictures = Pictures {
            folders: std::iter::once(&reference).chain(&settings).map(Case::folder).collect(),
            prompts: &prompts,
            seeds: &seeds,
        };
        let open = |folder| Store::open(folder, &mut checks, &pictures);
        let store = quality.output.as_deref().map(open).transpose()?;

        let measured = tune::TuneTarget {
            config: &config,
            source: Some(&model.files as &dyn Source),
            settings: &reference.settings,
            options,
        };
        let gpu = device::open(&args.adapter.choice(), &args.tuning, &measured, quiet, |_| Ok(()))?;
        let subject = Subject {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            adapter: gpu.report().name.clone(),
            backend: gpu.report().backend.to_owned(),
            model: model.name,
            model_path: model.given.model,
            precision: format!("{:?}", options.precision).to_lowercase(),
            width: reference.settings.width,
            height: reference.settings.height,
            reference_steps,
            reference_fingerprint: reference.setting.fingerprint.clone(),
            prompts,
            seeds,
        };
        let mut results =
            Results::new(subject, settings.iter().map(|case| case.setting.clone()).collect());
        if let Some(store) = &store {
            results.resume(store.folder())?;
        }
        for case in std::iter::once(&reference).chain(&settings) {
            generate::check_memory(&gpu, &config, &model.files, &case.settings, case.options)
                .map_err(|error| case.named(error))?;
        }
        let pipeline = open_pipeline(gpu, Box::new(model.files), options)?;
        let model = OpenModel { given, adapter: args.adapter.choice(), options, pipeline };
        let work = work_left(&results, &reference, &settings);
        let progress = Progress::new(quiet, work);
        let warned = BTreeSet::new();
        let references = BTreeMap::new();
        Ok(Bench { model, reference, settings, results, store, references, progress, warned })
    }

    /// Makes all pictures that are missing: first those with the reference's weights, then those with each other kind.
    fn measure(&mut self) -> Result<()> {
        let mut kinds = vec![self.reference.options];
        for case in &self.settings {
            if !kinds.contains(&case.options) {
                kinds.push(case.options);
            }
        }
        for options in &kinds {
            let mut is_warm = false;
            for prompt in 0..self.results.subject.prompts.len() {
                for seed in self.results.subject.seeds.clone() {
                    let missing = self.missing(*options, prompt, seed);
                    let has_reference = self.results.reference(prompt, seed).is_some();
                    if missing.is_empty() && (has_reference || *options != kinds[0]) {
                        continue;
                    }
                    if !is_warm {
                        self.warm_up(*options)?;
                        is_warm = true;
                    }
                    self.measure_one((prompt, seed), missing, kinds.len() > 1)?;
                }
            }
        }
        Ok(())
    }

    /// The settings with such weights whose picture of a prompt and seed is not made yet.
    fn missing(&self, options: Options, prompt: usize, seed: u64) -> Vec<usize> {
        let settings = self.settings.iter().enumerate();
        settings
            .filter(|(_, case)| case.options == options)
            .filter(|(_, case)| !self.results.has(&case.setting.name, prompt, seed))
            .map(|(i, _)| i)
            .collect()
    }

    /// One plain step. Drivers finish their compiling at the first use of a kernel; without this the reference, by
    /// which all others are measured, would pay for it.
    fn warm_up(&mut self, options: Options) -> Result<()> {
        self.progress.say("warming up");
        let prompt = self.results.subject.prompts[0].clone();
        let request = self.reference.request.clone().with(|request| {
            request.prompt = prompt;
            request.steps = Some(1);
        });
        events(self.model.opened_as(options)?, request, |_| {})
    }

    /// The reference of a prompt and seed, if it is not made yet, and the settings `missing` compared with it. It is kept in
    /// memory if there are `others` to come.
    fn measure_one(
        &mut self,
        (prompt, seed): (usize, u64),
        missing: Vec<usize>,
        others: bool,
    ) -> Result<()> {
        let has_reference = self.results.reference(prompt, seed).is_some();
        let saved = match &self.store {
            _ if self.references.contains_key(&(prompt, seed)) => {
                self.references.remove(&(prompt, seed))
            }
            Some(store) if has_reference => {
                let folder = &self.reference.setting.folder;
                store.load_with_latents(folder, self.prompt(prompt), seed)?
            }
            _ => None,
        };
        let reference = match saved {
            Some(saved) => saved,
            None => self.make_reference(prompt, seed)?,
        };
        for i in missing {
            let (made, work) = self.make(Some(i), prompt, seed)?;
            let setting = &self.settings[i].setting;
            if let Some(store) = &self.store {
                store.save(&setting.folder, self.prompt(prompt), seed, &made.picture)?;
            }
            let setting = setting.name.clone();
            let measures = compare(&made, &reference).map_err(|e| self.settings[i].named(e))?;
            self.results.pictures.push(Compared { setting, prompt, seed, work, measures });
            self.keep()?;
        }
        if others {
            self.references.insert((prompt, seed), reference);
        }
        Ok(())
    }

    fn make_reference(&mut self, prompt: usize, seed: u64) -> Result<Made> {
        let (made, work) = self.make(None, prompt, seed)?;
        if let Some(store) = &self.store {
            let folder = &self.reference.setting.folder;
            store.save_with_latents(folder, self.prompt(prompt), seed, &made)?;
        }
        self.results.set_reference(Reference { prompt, seed, work });
        self.keep()?;
        Ok(made)
    }

    /// A picture of a setting, or of the reference, and what it took.
    fn make(&mut self, setting: Option<usize>, prompt: usize, seed: u64) -> Result<(Made, Work)> {
        let (number, of) = (self.results.n_done() + 1, self.n_pictures());
        let case = setting.map_or(&self.reference, |i| &self.settings[i]);
        let name = &case.setting.name;
        let text = self.results.subject.prompts[prompt].clone();
        let request = case.request.clone().with(|request| {
            request.prompt = text;
            request.seed = seed;
        });
        self.progress.begin(number, of, name, case.tflops.with_attention);
        let mut done = None;
        let pipeline = self.model.opened_as(case.options).map_err(|error| case.named(error))?;
        events(pipeline, request, |event| match event {
            Event::Step(step) => self.progress.step(step.done),
            Event::Warning(message) => {
                let warning = format!("{name}: {message}");
                if self.warned.insert(warning.clone()) {
                    self.progress.warn(&warning);
                }
            }
            Event::Image { picture, tensors, seconds, report, .. } => {
                let (computed_steps, reused_steps) = (report.n_computed(), report.n_reused());
                let work = Work { seconds, computed_steps, reused_steps };
                done = Some((Made { picture, latents: latents(tensors) }, work));
            }
            _ => {}
        })
        .map_err(|error| case.named(error))?;
        self.progress.end();
        done.ok_or_else(|| Error::failed(format!("{name}: the run ended without a picture")))
    }

    /// Writes what is done, if anybody wants it.
    fn keep(&mut self) -> Result<()> {
        let tflops = self.tflops();
        let Some(store) = &self.store else { return Ok(()) };
        self.results.summarise(&tflops);
        self.results.write(store.folder())
    }

    /// Draws each prompt's first seed.
    fn draw_sheet(&self, store: &Store) -> Result<()> {
        let subject = &self.results.subject;
        let cases: Vec<&Case> = std::iter::once(&self.reference).chain(&self.settings).collect();
        let headings: Vec<sheet::Heading> = self
            .results
            .summary
            .iter()
            .map(|summary| sheet::Heading {
                name: summary.name.clone(),
                note: match &summary.psnr_db {
                    Some(psnr) => format!("{:.1} dB", psnr.mean),
                    None => format!("{} steps", subject.reference_steps),
                },
            })
            .collect();
        let mut rows = Vec::new();
        let seed = subject.seeds[0];
        for (i, prompt) in subject.prompts.iter().enumerate() {
            let mut pictures = Vec::new();
            for case in &cases {
                let picture = store.load(&case.setting.folder, self.prompt(i), seed)?;
                pictures.push(picture.map(sheet::thumbnail));
            }
            rows.push(sheet::Row { caption: format!("{}  {prompt}", i + 1), pictures });
        }
        let picture = sheet::draw(&headings, &rows, subject.width, subject.height);
        files::write(&store.folder().join(store::SHEET), &png_file::encode(&picture, None)?)
    }

    fn prompt(&self, i: usize) -> (usize, &str) {
        (i, &self.results.subject.prompts[i])
    }

    /// Of the reference, then of each setting.
    fn tflops(&self) -> Vec<Tflops> {
        std::iter::once(&self.reference).chain(&self.settings).map(|case| case.tflops).collect()
    }

    fn n_pictures(&self) -> usize {
        let subject = &self.results.subject;
        subject.prompts.len() * subject.seeds.len() * (1 + self.settings.len())
    }
}

/// The model, opened as a setting wants it: one at a time, so that no more memory is needed than for one.
struct OpenModel {
    /// Its files, as they were given.
    given: ModelArgs,
    adapter: AdapterChoice,
    /// How it is open.
    options: Options,
    pipeline: Pipeline,
}

impl OpenModel {
    fn opened_as(&mut self, options: Options) -> Result<&Pipeline> {
        if self.options != options {
            let gpu = pollster::block_on(Gpu::open(&self.adapter))?.learn_from(self.pipeline.gpu());
            let files = model::open(&self.given)?.files;
            self.pipeline = open_pipeline(gpu, Box::new(files), options)?;
            self.options = options;
        }
        Ok(&self.pipeline)
    }
}

/// Runs a request to its end, or until Ctrl-C.
fn events(pipeline: &Pipeline, request: Request, mut each: impl FnMut(Event)) -> Result<()> {
    let mut run = pipeline.start(request)?;
    loop {
        let next = block_on_while(pipeline.gpu(), run.next(), || signals::check().is_ok());
        signals::check()?;
        match next.transpose()?.flatten() {
            Some(event) => each(event),
            None => return Ok(()),
        }
    }
}

/// The seeds of each prompt, checked.
fn seeds(args: &BenchArgs) -> Result<Vec<u64>> {
    if args.request.seed.is_some() || args.request.count.is_some() || args.runs.is_some() {
        return Err(Error::usage(
            "`ralu bench quality` makes a picture for each prompt and seed; expected --seeds S,S,… instead of \
             --seed, --count and --runs",
        ));
    }
    let seeds = args.quality.seeds.clone().unwrap_or_else(|| vec![SEED]);
    if let Some(i) = (1..seeds.len()).find(|i| seeds[..*i].contains(&seeds[*i])) {
        return Err(Error::usage(format!("--seeds has {} twice; give each seed once", seeds[i])));
    }
    Ok(seeds)
}

/// Operations of all pictures that are not made yet.
fn work_left(results: &Results, reference: &Case, settings: &[Case]) -> f64 {
    let mut work = 0.0;
    for prompt in 0..results.subject.prompts.len() {
        for &seed in &results.subject.seeds {
            if results.reference(prompt, seed).is_none() {
                work += reference.tflops.with_attention;
            }
            work += settings
                .iter()
                .filter(|case| !results.has(&case.setting.name, prompt, seed))
                .map(|case| case.tflops.with_attention)
                .sum::<f64>();
        }
    }
    work
}

fn latents(tensors: Option<NamedTensors>) -> Vec<f32> {
    match tensors.and_then(|mut tensors| tensors.0.remove("latents")) {
        Some(NamedTensor::F32 { data, .. }) => data,
        _ => vec![],
    }
}

fn compare(made: &Made, reference: &Made) -> Result<Measures> {
    let (a, b) = (&made.picture, &reference.picture);
    let ssim = metrics::ssim(&a.rgb, &b.rgb, a.width, a.height);
    let distance = metrics::relative_distance(&made.latents, &reference.latents);
    let same_size = (a.width, a.height) == (b.width, b.height);
    let (Some(ssim), Some(latent_distance), true) = (ssim, distance, same_size) else {
        return Err(Error::failed(format!(
            "its picture ({} x {}, {} latents) cannot be compared with the reference ({} x {}, {} latents); \
             expected the same size, at least {} pixels",
            a.width,
            a.height,
            made.latents.len(),
            b.width,
            b.height,
            reference.latents.len(),
            metrics::WINDOW
        )));
    };
    let psnr_db = Some(metrics::psnr(&a.rgb, &b.rgb)).filter(|psnr| psnr.is_finite());
    Ok(Measures { psnr_db, ssim, latent_distance })
}
