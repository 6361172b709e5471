//! `ralu convert`: a model's weights in one file, quantised on the way.

use std::collections::BTreeMap;
use std::io::BufWriter;
use std::io::Write as _;
use std::path::Path;

use ralu::checkpoint::export::{Container, Export, ExportError, OutTensor, Stored, not_had};
use ralu::checkpoint::source::{Folder, Source};
use ralu::checkpoint::weights::{TensorInfo, Weights};
use ralu::escape::Escaped;
use ralu::gpu::human_bytes;
use ralu::models::config::{folder, stem};
use ralu::models::files::{Contents, Found, Role};
use ralu::models::quantise::Quantise;
use ralu_host::files::folder_of;

use super::args::ConvertArgs;
use super::error::{Error, Result};
use super::files::{self, Checks};
use super::output::{self, shown};
use super::progress::Progress;
use super::signals;

/// Runs the command. Opens no GPU, and has a few megabytes of numbers in memory at a time.
pub fn run(args: &ConvertArgs, quiet: bool) -> Result<()> {
    signals::listen()?;
    let container = container_of(&args.output)?;
    if let Some(Quantise { format, .. }) = args.quantize
        && !container.has(format)
    {
        return Err(Error::usage(not_had(container, format)));
    }
    let weights = open(&args.input)?;
    let mut checks = Checks::default();
    match args.input.is_dir() {
        true => checks.model(&args.input),
        false => checks.input(&args.input, "the model"),
    }
    checks.output(&args.output, "the model")?;

    // Counters and positions, which are no weights.
    let (read, others): (Vec<&TensorInfo>, Vec<_>) =
        weights.iter().partition(|info| info.dtype.known().is_some());
    if let Some(first) = others.first() {
        output::diagnostic(&format!(
            "warning: {} tensors of types that are not read are left out, the first is {} ({})",
            others.len(),
            Escaped(&first.name),
            Escaped(first.dtype.name())
        ));
    }
    let Named { architecture, tensors } = named(&weights, read)?;
    let tensors = tensors.into_iter().map(|(name, sources)| {
        let format = args.quantize.filter(|quantise| part_of(&name).is_in(*quantise));
        let format = format.map(|quantise| quantise.format);
        OutTensor::new(name, sources, container, format)
    });
    let export = Export::new(container, architecture, tensors.collect()).map_err(Error::failed)?;
    if let Some(quantise) = args.quantize
        && !export.tensors().iter().any(|tensor| matches!(tensor.stored, Stored::Quantised(_)))
    {
        return Err(Error::failed(format!(
            "{}: nothing to quantise to {quantise}: no large matrix of a block is stored in 16 or 32 bits",
            shown(&args.input)
        )));
    }
    let mut progress = Progress::new(quiet, 1);
    let (mut written, of) = (0, export.n_bytes());
    let done = files::write_by(&args.output, |file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let mut told = |bytes| {
            written += bytes;
            progress.writing(written, of);
            signals::check().map_err(|_| std::io::ErrorKind::Interrupted.into())
        };
        export.write(&weights, &mut out, &mut told)?;
        Ok::<_, ExportError>(out.flush()?)
    });
    progress.clear();
    signals::check()?;
    done?;
    let mut formats: BTreeMap<&str, usize> = BTreeMap::new();
    for tensor in export.tensors() {
        *formats.entry(tensor.format_name()).or_default() += 1;
    }
    let formats: Vec<String> =
        formats.into_iter().map(|(format, count)| format!("{count} {format}")).collect();
    output::line(format!(
        "{}: {} tensors ({}), {}",
        shown(&args.output),
        export.tensors().len(),
        formats.join(", "),
        human_bytes(of)
    ))
}

fn container_of(path: &Path) -> Result<Container> {
    let end = path.extension().map(|end| end.to_ascii_lowercase());
    match end.as_ref().and_then(|end| end.to_str()) {
        Some("gguf") => Ok(Container::Gguf),
        Some("safetensors" | "sft") => Ok(Container::Safetensors),
        _ => Err(Error::usage(format!(
            "{}: expected a name that ends in .gguf or .safetensors",
            shown(path)
        ))),
    }
}

/// The weights of a file, of a part's folder, or of a model folder's denoiser.
fn open(path: &Path) -> Result<Weights> {
    if path.is_dir() {
        let source = Folder::open(path)?;
        let dir = if source.exists("model_index.json") { folder::TRANSFORMER } else { "" };
        let has = |stem: &str| {
            let names = source.list(dir).unwrap_or_default();
            names.iter().any(|name| name.starts_with(stem) && name.contains(".safetensors"))
        };
        let stem = if has(stem::TRANSFORMERS) { stem::TRANSFORMERS } else { stem::DIFFUSERS };
        return Ok(Weights::open(&source, dir, stem)?);
    }
    let source = Folder::open(folder_of(path))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(Weights::open_path(&source, &name)?)
}

/// Tensors with the names that they get, each with those whose rows it consists of.
struct Named {
    /// What programs that read GGUF files call models like this.
    architecture: Option<String>,
    tensors: Vec<(String, Vec<TensorInfo>)>,
}

/// A denoiser gets the names that its makers gave it, which other programs read. Everything else keeps its names.
fn named(weights: &Weights, tensors: Vec<&TensorInfo>) -> Result<Named> {
    let contents = Contents::of(weights, None)?;
    let as_they_are = tensors.iter().map(|info| (info.name.to_string(), vec![(*info).clone()]));
    let as_they_are: Vec<_> = as_they_are.collect();
    let only = contents.parts.get(&Role::Denoiser).filter(|_| contents.parts.len() == 1);
    let Some(Found { prefix, tensors, denoiser: Some((family, file)) }) = only else {
        return Ok(Named { architecture: None, tensors: as_they_are });
    };
    let architecture = Some(family.name().to_owned());
    let views = (file.views)(tensors)?;
    // Views have diffusers' names: if these are the file's own, they are not the makers'.
    let is_diffusers = views.names().eq(tensors.names());
    let originals = (file.originals)(&views).filter(|_| prefix.is_empty() && is_diffusers);
    Ok(Named { architecture, tensors: originals.unwrap_or(as_they_are) })
}

/// What a tensor belongs to, by the beginning of its name in files that hold several parts.
#[derive(Clone, Copy)]
enum NamedPart {
    /// A file of one part says nothing of it.
    Only,
    Denoiser,
    Clip,
    T5,
    Vae,
}

impl NamedPart {
    fn is_in(self, Quantise { parts, .. }: Quantise) -> bool {
        match self {
            NamedPart::Only => true,
            NamedPart::Denoiser => parts.has_denoiser(),
            NamedPart::Clip => parts.has_encoder("CLIP"),
            NamedPart::T5 => parts.has_encoder("T5"),
            NamedPart::Vae => false,
        }
    }
}

fn part_of(name: &str) -> NamedPart {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    if starts(&["first_stage_model.", "vae."]) {
        NamedPart::Vae
    } else if starts(&["text_encoders.t5xxl.", "t5xxl."]) {
        NamedPart::T5
    } else if starts(&["text_encoders.", "text_encoder.", "clip_l.", "clip_g."]) {
        NamedPart::Clip
    } else if starts(&["model.diffusion_model.", "diffusion_model.", "transformer."]) {
        NamedPart::Denoiser
    } else {
        NamedPart::Only
    }
}
