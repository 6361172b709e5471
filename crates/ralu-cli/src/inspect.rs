//! `ralu inspect`: what a model folder or file holds, without a GPU.

use std::collections::BTreeMap;
use std::path::Path;

use ralu::checkpoint::source::{Folder, Source};
use ralu::checkpoint::weights::Weights;
use ralu::escape::{Escaped, escape};
use ralu::gpu::human_bytes;
use ralu::models::config::{ModelConfig, ModelIndex, folder, stem};
use ralu::models::files::{Contents, ModelFiles, PartOrigin, Role};
use ralu::models::{builtin, cost::Parameters};
use ralu::pipeline::{Saved, check_model};
use ralu_host::models;
use ralu_host::pictures::{self, is_picture};
use serde::Serialize;

use super::args::{InspectArgs, PartArgs};
use super::error::{Error, Result};
use super::hub::{self, Place};
use super::{model, output};

/// What is known of a model.
#[derive(Serialize)]
struct Report {
    /// As it was given.
    model: String,
    /// `folder`, `file` or `builtin`.
    kind: &'static str,
    /// Of a file: `safetensors` or `GGUF`, with its architecture.
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<String>,
    family: Option<&'static str>,
    class: Option<String>,
    /// Whether `ralu generate` can run it.
    supported: bool,
    /// What stands in the way.
    problems: Vec<String>,
    /// Parameters of all parts that are used.
    parameters: Option<u64>,
    parts: Vec<Part>,
    /// Of a file: tensors that are left out on purpose.
    ignored: usize,
    /// Of a file: names of tensors that belong to nothing that is known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown: Vec<String>,
    /// What was found next to the file, and what was assumed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    /// The checked configuration.
    config: Option<ModelConfig>,
    /// What a run does when the user does not say.
    defaults: Option<ralu::models::config::Defaults>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tensors: Vec<Tensor>,
}

/// One part of a model.
#[derive(Serialize)]
struct Part {
    name: String,
    class: Option<String>,
    files: Vec<File>,
    /// How its names begin in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<&'static str>,
    /// Number of tensors by type.
    dtypes: BTreeMap<String, usize>,
    /// Bytes of the tensors by type.
    bytes_by_dtype: BTreeMap<String, u64>,
    tensors: usize,
    /// Of all tensors.
    bytes: u64,
    /// Why it cannot be used.
    problem: Option<String>,
}

#[derive(Serialize)]
struct File {
    file: String,
    bytes: u64,
}

/// One tensor; listed for single files only.
#[derive(Serialize)]
struct Tensor {
    name: String,
    dtype: String,
    shape: Vec<usize>,
}

/// Says how a picture was made.
fn inspect_picture(path: &Path, args: &InspectArgs) -> Result<()> {
    if args.files != PartArgs::default() {
        return Err(Error::usage(format!(
            "{} is a picture, which has no parts in other files; expected no option but --json",
            output::shown(path)
        )));
    }
    let saved = pictures::read_request(path)?;
    if args.json {
        return output::json(&saved);
    }
    let of_people = |keyword| ![Saved::KEYWORD, Saved::PARAMETERS].contains(&keyword);
    let texts = saved.texts()?.into_iter().filter(|(keyword, _)| of_people(keyword));
    let more = [
        ("version", saved.version.clone()),
        ("adapter", saved.adapter.clone()),
        ("precision", format!("{}, products in {}", saved.precision, saved.products)),
    ];
    for (keyword, text) in texts.chain(more) {
        output::line(format!("{keyword}: {}", Escaped(&text)))?;
    }
    output::line(format!("again: ralu generate --from {}", output::shown(path)))
}

/// Runs the command. What is wrong with a model is part of the report, and also its failure.
pub fn run(args: &InspectArgs) -> Result<()> {
    let picture = Path::new(&args.model);
    if is_picture(picture) {
        return inspect_picture(picture, args);
    }
    let Place { model: path, denoiser } = model::place(&args.model);
    let mut files = args.files.clone();
    let denoiser = denoiser.map(|file| file.to_string_lossy().into_owned());
    files.diffusion_model = files.diffusion_model.or(denoiser);
    let path = path.as_path();
    let is_name = !path.exists() && files == PartArgs::default();
    let report = match builtin::get(&args.model).filter(|_| is_name) {
        Some(config) => builtin_report(&args.model, config),
        // A configuration says which folder is meant.
        None if path.is_file() && (!is_json(path) || is_index(path)) => file_report(path, &files)?,
        None => folder_report(path, &files).map_err(|error| name_hint(error, &args.model))?,
    };
    if args.json {
        output::json(&report)?;
    } else {
        output::line(text(&report))?;
    }
    match report.problems.as_slice() {
        [] => Ok(()),
        problems => Err(Error::failed(problems.join("\n"))),
    }
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "json")
}

fn is_index(path: &Path) -> bool {
    path.to_string_lossy().ends_with(".index.json")
}

fn name_hint(error: Error, given: &str) -> Error {
    let path = Path::new(given);
    if path.exists() {
        return error;
    }
    if let Some(error) = model::why_not_bundled(given) {
        return error;
    }
    if let Some(advice) = hub::how_to_get(given) {
        return Error::failed(format!("{}; {advice}", error.message()));
    }
    if path.components().count() != 1 {
        return error;
    }
    let names = builtin::names().join(", ");
    Error::failed(format!("{}; known by name: {names}", error.message()))
}

fn builtin_report(name: &str, config: ModelConfig) -> Report {
    Report {
        model: name.to_ascii_lowercase(),
        kind: "builtin",
        family: Some(config.family().name()),
        class: Some(config.index.class.clone()),
        supported: true,
        problems: vec![],
        parameters: Some(Parameters::of(&config).total()),
        parts: config
            .index
            .parts
            .iter()
            .map(|(name, _, class)| Part::without_files(name, Some(class.clone())))
            .collect(),
        defaults: Some(config.defaults()),
        config: Some(config),
        container: None,
        ignored: 0,
        unknown: vec![],
        notes: vec![],
        tensors: vec![],
    }
}

/// A folder, with the parts that are given besides.
fn folder_report(path: &Path, parts: &PartArgs) -> Result<Report> {
    let files = models::open(&parts.paths(path.to_string_lossy().into_owned()))?;
    let source: &dyn Source = &files;
    let index = ModelIndex::load(source);
    let config = ModelConfig::load(source);
    let mut problems = Vec::new();
    let mut found = Vec::new();
    if let Ok(index) = &index {
        let class = |name: &str| index.part(name).map(str::to_owned);
        let encoders: Vec<_> = (index.family.text_encoders().iter())
            .filter(|slot| !slot.optional || index.part(slot.folder).is_some())
            .collect();
        found.push(Part::read(source, folder::TRANSFORMER, stem::DIFFUSERS, class));
        for slot in &encoders {
            found.push(Part::read(source, slot.folder, stem::TRANSFORMERS, class));
        }
        found.push(Part::read(source, folder::VAE, stem::DIFFUSERS, class));
        let tokenizers = encoders.iter().map(|slot| slot.tokenizer);
        for name in tokenizers.chain([folder::SCHEDULER]) {
            found.push(Part::list(source, name, class(name))?);
        }
    }
    problems.extend(config.as_ref().err().map(|error| escape(&error.to_string()).into_owned()));
    problems.extend(found.iter().filter_map(|part| part.problem.clone()));
    if problems.is_empty() {
        // Names and shapes of all weights, and the tokenizers.
        problems.extend(check_model(source).err().map(|error| error.to_string()));
    }
    let config = config.ok();
    Ok(Report {
        model: path.display().to_string(),
        kind: "folder",
        family: config.as_ref().map(|config| config.family().name()),
        class: index.ok().map(|index| index.class),
        supported: problems.is_empty(),
        problems,
        parameters: config.as_ref().map(|config| Parameters::of(config).total()),
        parts: found,
        defaults: config.as_ref().map(ModelConfig::defaults),
        config,
        container: None,
        ignored: 0,
        unknown: vec![],
        notes: notes_of(&files),
        tensors: vec![],
    })
}

/// A single file: what it holds, and what it wants besides to be run.
fn file_report(path: &Path, parts: &PartArgs) -> Result<Report> {
    let shown = path.to_string_lossy().into_owned();
    let source = Folder::anywhere();
    let weights = Weights::open_path(&source, &shown.replace('\\', "/"))?;
    let gguf = weights.gguf();
    let container = match gguf {
        None => "safetensors".to_owned(),
        Some(metadata) => match metadata.text("general.architecture") {
            None => "GGUF".to_owned(),
            Some(architecture) => {
                format!("GGUF, architecture {}", architecture.chars().take(60).collect::<String>())
            }
        },
    };
    let mut report = Report {
        model: path.display().to_string(),
        kind: "file",
        container: Some(container),
        family: None,
        class: None,
        supported: false,
        problems: vec![],
        parameters: None,
        parts: vec![],
        ignored: 0,
        unknown: vec![],
        notes: vec![],
        config: None,
        defaults: None,
        tensors: weights
            .iter()
            .map(|info| Tensor {
                name: info.name.to_string(),
                dtype: info.dtype.to_string(),
                shape: info.shape.clone(),
            })
            .collect(),
    };
    let contents = match Contents::of(&weights, None) {
        Ok(contents) => contents,
        Err(error) => {
            report.problems.push(escape(&error.to_string()).into_owned());
            report.parts.push(Part::of(&weights, &shown, None));
            return Ok(report);
        }
    };
    for (role, found) in &contents.parts {
        let class = found.denoiser.map(|(family, _)| family.transformer().to_owned());
        let mut part = Part::of(&found.tensors, &role.to_string(), class);
        part.prefix = (!found.prefix.is_empty()).then_some(found.prefix);
        part.files.clear();
        report.parts.push(part);
        if let Some((family, _)) = found.denoiser {
            report.family = Some(family.name());
            report.class = Some(family.pipeline().to_owned());
        }
    }
    report.ignored = contents.ignored.len();
    report.unknown = contents.unknown;
    if report.parts.is_empty() {
        report.parts.push(Part::of(&weights, &shown, None));
    }
    if contents.parts.contains_key(&Role::Denoiser) {
        match models::open(&parts.paths(shown)) {
            Ok(files) => model_of(&mut report, &files),
            Err(error) => report.problems.push(Error::from(error).message().to_owned()),
        }
    }
    Ok(report)
}

/// What was found and assumed, and what should be looked at.
fn notes_of(files: &ModelFiles) -> Vec<String> {
    let notes = files.notes().iter().cloned().chain(files.warnings());
    notes.map(|note| escape(&note).into_owned()).collect()
}

/// Adds what the whole model is that a file belongs to.
fn model_of(report: &mut Report, files: &ModelFiles) {
    report.notes = notes_of(files);
    let config = ModelConfig::load(files);
    let problem = match &config {
        Err(error) => Some(error.to_string()),
        Ok(_) => check_model(files).err().map(|error| error.to_string()),
    };
    report.problems.extend(problem.map(|problem| escape(&problem).into_owned()));
    report.supported = report.problems.is_empty();
    if let Ok(config) = config {
        report.parameters = Some(Parameters::of(&config).total());
        report.defaults = Some(config.defaults());
        report.config = Some(config);
    }
    for place in files.parts().iter().filter(|place| place.origin != PartOrigin::Model) {
        if let Some(weights) = files.weights(place.folder) {
            report.parts.push(Part::of(weights, &place.role.to_string(), None));
        }
    }
}

fn file_bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map(|meta| meta.len()).unwrap_or(0)
}

impl Part {
    fn without_files(name: &str, class: Option<String>) -> Self {
        Part {
            name: name.to_owned(),
            class,
            files: vec![],
            prefix: None,
            dtypes: BTreeMap::new(),
            bytes_by_dtype: BTreeMap::new(),
            tensors: 0,
            bytes: 0,
            problem: None,
        }
    }

    fn of(weights: &Weights, name: &str, class: Option<String>) -> Self {
        let mut part = Part::without_files(name, class);
        for info in weights.iter() {
            *part.dtypes.entry(info.dtype.to_string()).or_default() += 1;
            *part.bytes_by_dtype.entry(info.dtype.to_string()).or_default() += info.n_bytes();
        }
        part.tensors = weights.len();
        part.bytes = weights.total_bytes();
        part.files = weights
            .files()
            .map(|file| File { file: file.to_owned(), bytes: file_bytes(Path::new(file)) })
            .collect();
        part
    }

    /// A part with weights.
    fn read(
        source: &dyn Source,
        name: &str,
        stem: &str,
        class: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let class = class(name);
        match Weights::open(source, name, stem) {
            Ok(weights) => Part::of(&weights, name, class),
            Err(error) => {
                let problem = Some(error.to_string());
                Part { problem, ..Part::without_files(name, class) }
            }
        }
    }

    /// A part without weights.
    fn list(source: &dyn Source, name: &str, class: Option<String>) -> Result<Self> {
        let mut part = Part::without_files(name, class);
        for file in source.list(name)? {
            let file = source.shown(&format!("{name}/{file}"));
            part.files.push(File { bytes: file_bytes(Path::new(&file)), file });
        }
        Ok(part)
    }
}

fn text(report: &Report) -> String {
    let mut lines = vec![escape(&report.model).into_owned()];
    let mut line = |text: String| lines.push(text);
    if let Some(container) = &report.container {
        line(format!("container   {}", Escaped(container)));
    }
    if report.kind != "file" || report.family.is_some() {
        let unknown = || "not known".to_owned();
        let shown = |text: &str| escape(text).into_owned();
        line(format!("class       {}", report.class.as_deref().map_or_else(unknown, shown)));
        line(format!("family      {}", report.family.unwrap_or("not known")));
    }
    if let Some(parameters) = report.parameters {
        line(format!("parameters  {:.3} billion", parameters as f64 / 1e9));
    }
    if let Some(own) = &report.defaults {
        let guidance = own.guidance.map_or("none".to_owned(), |guidance| guidance.to_string());
        line(format!(
            "defaults    {} x {}, {} steps, guidance {guidance}, true guidance {}, {} text tokens",
            own.width, own.height, own.steps, own.true_cfg, own.max_sequence_length
        ));
    }
    for part in &report.parts {
        let class =
            part.class.as_ref().map(|class| format!(" ({})", Escaped(class))).unwrap_or_default();
        let weights = if part.tensors > 0 {
            let count = |(name, n): (&String, &usize)| {
                let bytes = part.bytes_by_dtype.get(name).copied().unwrap_or(0);
                format!("{n} {}: {}", Escaped(name), human_bytes(bytes))
            };
            let dtypes: Vec<String> = part.dtypes.iter().map(count).collect();
            format!(
                ": {} tensors ({}), {}",
                part.tensors,
                dtypes.join(", "),
                human_bytes(part.bytes)
            )
        } else {
            String::new()
        };
        let prefix = part.prefix.map(|prefix| format!(", under {prefix}")).unwrap_or_default();
        line(format!("\n{}{class}{prefix}{weights}", Escaped(&part.name)));
        for file in &part.files {
            line(format!("  {}  {}", Escaped(&file.file), human_bytes(file.bytes)));
        }
        if let Some(problem) = &part.problem {
            line(format!("  cannot be used: {}", Escaped(problem)));
        }
    }
    if report.ignored > 0 {
        line(format!("\nignored     {} tensors that are not needed to draw", report.ignored));
    }
    if let Some(first) = report.unknown.first() {
        let n = report.unknown.len();
        line(format!("\nunknown     {n} tensors, the first {}", Escaped(first)));
    }
    if !report.notes.is_empty() {
        line(String::new());
        report.notes.iter().for_each(|note| line(note.clone()));
    }
    if !report.tensors.is_empty() {
        line(String::new());
        for tensor in &report.tensors {
            let (name, dtype) = (Escaped(&tensor.name), Escaped(&tensor.dtype));
            line(format!("  {name}  {:?}  {dtype}", tensor.shape));
        }
    }
    line(format!(
        "\n{}",
        match (report.kind, report.supported) {
            ("file", false) if report.family.is_none() => {
                "cannot be run by itself: it holds no denoiser that is supported"
            }
            ("builtin", _) => {
                "supported; only the configuration is known here, for `ralu plan`: to run it, download the weights"
            }
            (_, true) => "can be run",
            (_, false) => "cannot be run",
        }
    ));
    lines.join("\n")
}
