//! `ralu inspect`: what a model folder or file holds, without a GPU.

use std::collections::BTreeMap;
use std::path::Path;

use ralu::checkpoint::source::{Folder, Source};
use ralu::checkpoint::weights::Weights;
use ralu::escape::{Escaped, escape};
use ralu::gpu::human_bytes;
use ralu::models::config::{ModelConfig, ModelIndex, folder, stem};
use ralu::models::{builtin, cost::Parameters};
use ralu::pipeline::check_model;
use serde::Serialize;

use super::args::InspectArgs;
use super::error::{Error, Result};
use super::output;

/// What is known of a model.
#[derive(Serialize)]
struct Report {
    /// As it was given.
    model: String,
    /// `folder`, `file` or `builtin`.
    kind: &'static str,
    family: Option<&'static str>,
    class: Option<String>,
    /// Whether `ralu generate` can run it.
    supported: bool,
    /// What stands in the way.
    problems: Vec<String>,
    /// Parameters of all parts that are used.
    parameters: Option<u64>,
    parts: Vec<Part>,
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
    /// Number of tensors by type.
    dtypes: BTreeMap<String, usize>,
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

/// Runs the command. What is wrong with a model is part of the report, and also its failure.
pub fn run(args: &InspectArgs) -> Result<()> {
    let path = Path::new(&args.model);
    let report = match builtin::get(&args.model).filter(|_| !path.exists()) {
        Some(config) => builtin_report(&args.model, config),
        // A configuration says which folder is meant.
        None if path.is_file() && path.extension().is_none_or(|end| end != "json") => {
            file_report(path)?
        }
        None => folder_report(path).map_err(|error| name_hint(error, path))?,
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

fn name_hint(error: Error, path: &Path) -> Error {
    if path.components().count() != 1 || path.exists() {
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
        tensors: vec![],
    }
}

fn folder_report(path: &Path) -> Result<Report> {
    let folder = Folder::open(path)?;
    let source: &dyn Source = &folder;
    let index = ModelIndex::load(source);
    let config = ModelConfig::load(source);
    let mut problems = Vec::new();
    let mut parts = Vec::new();
    if let Ok(index) = &index {
        let class = |name: &str| index.part(name).map(str::to_owned);
        let encoders: Vec<_> = (index.family.text_encoders().iter())
            .filter(|slot| !slot.optional || index.part(slot.folder).is_some())
            .collect();
        parts.push(Part::read(source, folder::TRANSFORMER, stem::DIFFUSERS, class));
        for slot in &encoders {
            parts.push(Part::read(source, slot.folder, stem::TRANSFORMERS, class));
        }
        parts.push(Part::read(source, folder::VAE, stem::DIFFUSERS, class));
        let tokenizers = encoders.iter().map(|slot| slot.tokenizer);
        for name in tokenizers.chain([folder::SCHEDULER]) {
            parts.push(Part::list(source, path, name, class(name))?);
        }
    }
    problems.extend(config.as_ref().err().map(|error| escape(&error.to_string()).into_owned()));
    problems.extend(parts.iter().filter_map(|part| part.problem.clone()));
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
        parts,
        defaults: config.as_ref().map(ModelConfig::defaults),
        config,
        tensors: vec![],
    })
}

/// A single safetensors file: what it holds, though it is no model that can be run.
fn file_report(path: &Path) -> Result<Report> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let source = Folder::open(parent)?;
    let weights = Weights::open_file(&source, &name)?;
    let mut part = Part::of(&weights, &name, None);
    part.files = vec![File { file: name.clone(), bytes: file_bytes(path) }];
    Ok(Report {
        model: path.display().to_string(),
        kind: "file",
        family: None,
        class: None,
        supported: false,
        problems: vec![],
        parameters: None,
        parts: vec![part],
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
    })
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
            dtypes: BTreeMap::new(),
            tensors: 0,
            bytes: 0,
            problem: None,
        }
    }

    fn of(weights: &Weights, name: &str, class: Option<String>) -> Self {
        let mut part = Part::without_files(name, class);
        for info in weights.iter() {
            *part.dtypes.entry(info.dtype.to_string()).or_default() += 1;
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
    fn list(source: &dyn Source, root: &Path, name: &str, class: Option<String>) -> Result<Self> {
        let mut part = Part::without_files(name, class);
        for file in source.list(name)? {
            let path = root.join(name).join(&file);
            part.files.push(File { bytes: file_bytes(&path), file: path.display().to_string() });
        }
        Ok(part)
    }
}

fn text(report: &Report) -> String {
    let mut lines = vec![escape(&report.model).into_owned()];
    let mut line = |text: String| lines.push(text);
    if report.kind != "file" {
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
            let dtypes: Vec<String> =
                part.dtypes.iter().map(|(name, n)| format!("{n} {}", Escaped(name))).collect();
            format!(
                ": {} tensors ({}), {}",
                part.tensors,
                dtypes.join(", "),
                human_bytes(part.bytes)
            )
        } else {
            String::new()
        };
        line(format!("\n{}{class}{weights}", Escaped(&part.name)));
        for file in &part.files {
            line(format!("  {}  {}", Escaped(&file.file), human_bytes(file.bytes)));
        }
        if let Some(problem) = &part.problem {
            line(format!("  cannot be used: {}", Escaped(problem)));
        }
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
            ("file", _) => "a single file cannot be run: `ralu generate` wants a diffusers folder",
            ("builtin", _) => {
                "supported; only the configuration is known here, for `ralu plan`: to run it, download the weights"
            }
            (_, true) => "can be run",
            (_, false) => "cannot be run",
        }
    ));
    lines.join("\n")
}
