//! From arguments to a request, and from a request to what a picture says about itself.

use std::io::Read;
use std::path::Path;

use ralu::models::layers::Precision;
use ralu::pipeline::{Mask, NamedTensors, RaluChoice, Request, Rng, Settings};
use ralu::sampling::{Grid, MaskMode, Preset, RaluParams, Variant, mask_regions, regions::PAINTED};
use serde::{Deserialize, Serialize};

use super::args::{GenerateArgs, PrecisionArg, RaluArg, RequestArgs};
use super::error::{Error, Result};
use super::png_file;

/// More than this on stdin is no prompt.
const MAX_STDIN_BYTES: u64 = 16 << 20;

/// Everything a picture depends on, as its text chunk `ralu` holds it. Names are the command line's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// Version of this layout.
    pub format: u32,
    /// Version of the program.
    pub version: String,
    /// What the model is called.
    pub model: String,
    /// Where it lay, as the user said; absent for the bundled one.
    pub model_path: Option<String>,
    /// The adapter it was made on: another one may round differently.
    pub adapter: String,
    pub prompt: String,
    /// Present if true guidance was on.
    pub negative_prompt: Option<String>,
    pub width: usize,
    pub height: usize,
    pub steps: usize,
    /// Absent if the model has no input for it.
    pub guidance: Option<f64>,
    pub true_cfg: f64,
    pub max_sequence_length: usize,
    /// Of this picture.
    pub seed: u64,
    pub rng: String,
    pub ralu: SavedRalu,
    pub precision: String,
    /// Names of tensors that were given: they are not in here.
    #[serde(default)]
    pub given: Vec<String>,
}

/// RALU's part of [`Saved`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedRalu {
    /// The preset's name, `custom` or `off`.
    pub name: String,
    pub variant: String,
    /// Absent if off.
    pub parameters: Option<SavedParameters>,
    /// User-painted regions.
    pub regions: Option<SavedRegions>,
}

/// The numbers of a RALU run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedParameters {
    pub stage_steps: [usize; 3],
    pub stage_ends: [f64; 3],
    pub up_ratio: f64,
    pub stage_shifts: [f64; 3],
    pub stage_z: f64,
}

/// Painted regions, as the tokens they cover.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedRegions {
    /// Added to the found ones, or instead of them.
    pub add: bool,
    pub rows: usize,
    pub columns: usize,
    /// Raster indices of painted coarse tokens.
    pub tokens: Vec<usize>,
}

impl From<&RaluParams> for SavedParameters {
    fn from(params: &RaluParams) -> Self {
        SavedParameters {
            stage_steps: params.stage_steps,
            stage_ends: params.stage_ends,
            up_ratio: params.up_ratio,
            stage_shifts: params.shifts,
            stage_z: params.z,
        }
    }
}

/// What a run needs beside the request.
pub struct Asked {
    /// For the library.
    pub request: Request,
    /// `--model`, or the model of `--from`.
    pub model: Option<String>,
    /// How weights are kept.
    pub precision: Precision,
    /// What should be said before the run.
    pub warnings: Vec<String>,
}

/// Reads everything that the arguments name, and puts a request together.
pub fn from_args(args: &GenerateArgs, prompt_needed: bool) -> Result<Asked> {
    check_combinations(&args.request)?;
    let given_names = given_names(args)?;
    let saved = args.from.as_deref().map(read_saved).transpose()?;
    let mut warnings = Vec::new();

    let mut base = Request::default();
    let mut model = args.request.model.clone();
    let mut precision = None;
    if let Some(saved) = &saved {
        base = saved.request()?;
        model = model.or_else(|| saved.model_path.clone());
        precision = Some(parse_precision(&saved.precision)?);
        if args.given.is_none() && !saved.given.is_empty() {
            warnings.push(format!(
                "this picture was made with given tensors ({}), which it does not carry; without --given the \
                 result will differ",
                saved.given.join(", ")
            ));
        }
    }
    let mut request = apply(base, &args.request, saved.is_some())?;
    match &args.prompt {
        Some(prompt) if prompt == "-" => request.prompt = read_stdin()?,
        Some(prompt) => request.prompt.clone_from(prompt),
        None if saved.is_some() || !prompt_needed => {}
        None => {
            return Err(Error::usage(
                "the prompt is missing; expected a text, as in `ralu generate \"a red teapot\"`, `-` to read \
                 it from stdin, or --from PICTURE.png to repeat a picture",
            ));
        }
    }
    if let Some(path) = &args.given {
        request.given = read_given(path, &given_names, args.given_names.is_some())?;
    }
    request.stage_pictures = args.stages.is_some();
    request.collect_tensors = args.save_tensors.is_some();
    let precision = args.request.precision.map(Precision::from).or(precision).unwrap_or_default();
    Ok(Asked { request, model, precision, warnings })
}

/// The request of arguments without prompt and files, for measurements.
pub fn plain(args: &RequestArgs) -> Result<Asked> {
    check_combinations(args)?;
    let mut request = apply(Request::default(), args, false)?;
    request.seed = args.seed.unwrap_or(0);
    Ok(Asked {
        request,
        model: args.model.clone(),
        precision: args.precision.map(Precision::from).unwrap_or_default(),
        warnings: vec![],
    })
}

/// `base` with everything that `args` say.
fn apply(base: Request, args: &RequestArgs, repeats: bool) -> Result<Request> {
    let mut request = base;
    request.width = args.width.or(request.width);
    request.height = args.height.or(request.height);
    request.steps = args.steps.or(request.steps);
    request.guidance = args.guidance.or(request.guidance);
    if let Some(negative) = &args.negative_prompt {
        request.negative_prompt = Some(negative.clone());
    }
    request.true_cfg = args.true_cfg.or(request.true_cfg);
    request.max_sequence_length = args.max_sequence_length.or(request.max_sequence_length);
    request.count = args.count.or(request.count);
    request.rng = args.rng.map(Rng::from).unwrap_or(request.rng);
    request.variant = args.ralu_variant.map(Variant::from).unwrap_or(request.variant);
    match args.seed {
        Some(seed) => request.seed = seed,
        None if repeats => {}
        // Short enough to be typed again.
        None => request.seed = u64::from(rand::random::<u32>()),
    }
    if let Some(ralu) = args.ralu {
        request.ralu = ralu_choice(ralu, args)?;
    } else if repeats && args.steps.is_some() {
        // Steps are steps of plain sampling, as without --from.
        request.ralu = RaluChoice::Off;
    }
    if let Some(path) = &args.regions {
        let mode = if args.regions_add { MaskMode::Add } else { MaskMode::Replace };
        request.mask = Some(read_mask(path, mode)?);
    }
    Ok(request)
}

fn ralu_choice(ralu: RaluArg, args: &RequestArgs) -> Result<RaluChoice> {
    if let Some(preset) = ralu.preset() {
        return Ok(RaluChoice::Preset(preset));
    }
    match ralu {
        RaluArg::Off => Ok(RaluChoice::Off),
        RaluArg::Custom => match (args.stage_steps, args.stage_ends, args.up_ratio) {
            (Some(stage_steps), Some(stage_ends), Some(up_ratio)) => Ok(RaluChoice::Custom {
                stage_steps,
                stage_ends,
                up_ratio,
                shifts: args.stage_shifts,
                z: args.stage_z,
            }),
            _ => Err(Error::usage("--ralu custom is incomplete")),
        },
        _ => Ok(RaluChoice::Auto),
    }
}

/// What clap cannot say: which options only mean something together.
fn check_combinations(args: &RequestArgs) -> Result<()> {
    let needed = [
        ("--stage-steps", args.stage_steps.is_some()),
        ("--stage-ends", args.stage_ends.is_some()),
        ("--up-ratio", args.up_ratio.is_some()),
    ];
    let optional =
        [("--stage-shifts", args.stage_shifts.is_some()), ("--stage-z", args.stage_z.is_some())];
    let names = |options: &[(&str, bool)], present: bool| {
        options
            .iter()
            .filter(|(_, is_present)| *is_present == present)
            .map(|(name, _)| *name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    if args.ralu == Some(RaluArg::Custom) {
        let missing = names(&needed, false);
        if !missing.is_empty() {
            return Err(Error::usage(format!(
                "--ralu custom needs {missing}; expected for example --stage-steps 5,6,7 --stage-ends \
                 0.3,0.45,1 --up-ratio 0.3"
            )));
        }
        return Ok(());
    }
    let present = names(&[needed.as_slice(), optional.as_slice()].concat(), true);
    if present.is_empty() {
        return Ok(());
    }
    Err(Error::usage(format!(
        "{present} only {} something with --ralu custom; add it, or leave {} out",
        if present.contains(',') { "mean" } else { "means" },
        if present.contains(',') { "them" } else { "it" },
    )))
}

fn given_names(args: &GenerateArgs) -> Result<Vec<&str>> {
    let known = NamedTensors::GIVEN;
    let Some(names) = &args.given_names else {
        return Ok(NamedTensors::NOISES.to_vec());
    };
    if args.given.is_none() {
        return Err(Error::usage("--given-names needs --given FILE.safetensors"));
    }
    let names: Vec<&str> = names.iter().map(|name| name.trim()).collect();
    for name in &names {
        if !known.contains(name) {
            return Err(Error::usage(format!(
                "--given-names: {name:?} is not known; expected some of {}",
                known.join(", ")
            )));
        }
    }
    Ok(names)
}

fn read_given(path: &Path, names: &[&str], asked_for: bool) -> Result<NamedTensors> {
    let shown = path.display();
    let bytes = std::fs::read(path).map_err(|error| {
        Error::failed(format!("the given tensors {shown} cannot be read: {error}"))
    })?;
    let tensors = NamedTensors::read(&bytes, names)
        .map_err(|error| Error::failed(format!("{shown}: {error}")))?;
    let missing: Vec<&str> =
        names.iter().copied().filter(|name| !tensors.0.contains_key(*name)).collect();
    if asked_for && !missing.is_empty() {
        return Err(Error::failed(format!(
            "{shown}: does not hold {}, which --given-names asks for; leave the name out or give another file",
            missing.join(", ")
        )));
    }
    if tensors.0.is_empty() {
        return Err(Error::failed(format!(
            "{shown}: holds none of {}; say with --given-names which tensors to take (known: {})",
            names.join(", "),
            NamedTensors::GIVEN.join(", ")
        )));
    }
    Ok(tensors)
}

fn read_stdin() -> Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(MAX_STDIN_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::failed(format!("the prompt cannot be read from stdin: {error}")))?;
    if bytes.len() as u64 > MAX_STDIN_BYTES {
        return Err(Error::failed(format!(
            "the prompt on stdin is longer than {} MiB; expected a sentence or two",
            MAX_STDIN_BYTES >> 20
        )));
    }
    let mut text = String::from_utf8(bytes).map_err(|error| {
        Error::failed(format!(
            "the prompt on stdin is not UTF-8 (first other byte at {}); convert it first",
            error.utf8_error().valid_up_to()
        ))
    })?;
    // Shells end what they echo with a new line.
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

fn read_mask(path: &Path, mode: MaskMode) -> Result<Mask> {
    let failed = |reason: String| {
        Error::failed(format!(
            "the regions {} cannot be used: {reason}; expected a PNG, white where detail matters",
            path.display()
        ))
    };
    let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let picture = image::load_from_memory_with_format(&bytes, image::ImageFormat::Png)
        .map_err(|error| failed(error.to_string()))?
        .into_luma8();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    if width == 0 || height == 0 {
        return Err(failed("it has no pixels".into()));
    }
    Ok(Mask { luma: picture.into_raw(), width, height, mode })
}

fn read_saved(path: &Path) -> Result<Saved> {
    let shown = path.display();
    let text = png_file::read_request(path)?.ok_or_else(|| {
        Error::failed(format!(
            "{shown}: this PNG carries no request; expected a picture that `ralu generate` made (programs that \
             edit or share pictures often remove such texts)"
        ))
    })?;
    let saved: Saved = serde_json::from_str(&text).map_err(|error| {
        Error::failed(format!(
            "{shown}: the request in this picture cannot be read ({error}); it was made by another version or \
             changed"
        ))
    })?;
    if saved.format != FORMAT {
        return Err(Error::failed(format!(
            "{shown}: the request in this picture has format {}, expected {FORMAT}; use ralu {}",
            saved.format, saved.version
        )));
    }
    Ok(saved)
}

/// Of [`Saved`].
const FORMAT: u32 = 1;

/// What [`Saved`] knows beside the settings.
pub struct Origin<'a> {
    pub model: &'a str,
    pub model_path: Option<&'a str>,
    pub adapter: &'a str,
    pub has_guidance: bool,
    pub precision: Precision,
    pub given: Vec<String>,
}

impl Saved {
    /// What the picture with `seed` says about itself.
    pub fn new(settings: &Settings, seed: u64, origin: &Origin<'_>) -> Result<Saved> {
        let regions = match (&settings.mask, &settings.ralu) {
            (Some(mask), Some(_)) => Some(SavedRegions::new(mask, settings)?),
            _ => None,
        };
        Ok(Saved {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model: origin.model.to_owned(),
            model_path: origin.model_path.map(str::to_owned),
            adapter: origin.adapter.to_owned(),
            prompt: settings.prompt.clone(),
            negative_prompt: settings.negative_prompt.clone(),
            width: settings.width,
            height: settings.height,
            steps: settings.steps,
            guidance: origin.has_guidance.then_some(settings.guidance),
            true_cfg: settings.true_cfg,
            max_sequence_length: settings.max_sequence_length,
            seed,
            rng: match settings.rng {
                Rng::Philox => "philox",
                Rng::Torch => "torch",
            }
            .to_owned(),
            ralu: SavedRalu {
                name: settings.ralu_name.clone(),
                variant: match settings.variant {
                    Variant::Official => "official",
                    Variant::Exact => "exact",
                }
                .to_owned(),
                parameters: settings.ralu.as_ref().map(SavedParameters::from),
                regions,
            },
            precision: match origin.precision {
                Precision::Auto => "auto",
                Precision::F32 => "f32",
                Precision::F16 => "f16",
            }
            .to_owned(),
            given: origin.given.clone(),
        })
    }

    /// The request that makes the picture again.
    fn request(&self) -> Result<Request> {
        let ralu = match (&self.ralu.parameters, self.ralu.name.parse::<Preset>()) {
            (None, _) => RaluChoice::Off,
            (Some(saved), Ok(preset)) if SavedParameters::from(&preset.params()) == *saved => {
                RaluChoice::Preset(preset)
            }
            // Custom, or a preset that had other numbers when the picture was made.
            (Some(saved), _) => RaluChoice::Custom {
                stage_steps: saved.stage_steps,
                stage_ends: saved.stage_ends,
                up_ratio: saved.up_ratio,
                shifts: Some(saved.stage_shifts),
                z: Some(saved.stage_z),
            },
        };
        Ok(Request {
            prompt: self.prompt.clone(),
            negative_prompt: self.negative_prompt.clone(),
            width: Some(self.width),
            height: Some(self.height),
            steps: Some(self.steps),
            guidance: self.guidance,
            true_cfg: Some(self.true_cfg),
            max_sequence_length: Some(self.max_sequence_length),
            seed: self.seed,
            rng: parse("rng", &self.rng, &[("philox", Rng::Philox), ("torch", Rng::Torch)])?,
            ralu,
            variant: parse(
                "variant",
                &self.ralu.variant,
                &[("official", Variant::Official), ("exact", Variant::Exact)],
            )?,
            mask: self.ralu.regions.as_ref().map(SavedRegions::mask).transpose()?,
            ..Default::default()
        })
    }
}

impl SavedRegions {
    /// A mask says no more than which tokens it covers: that is what is kept of it.
    fn new(mask: &Mask, settings: &Settings) -> Result<Self> {
        let (width, height) =
            (settings.width.next_multiple_of(32), settings.height.next_multiple_of(32));
        let grid = Grid::of_image(width, height)?;
        let shares = mask_regions(&mask.luma, mask.width, mask.height, grid)?;
        Ok(SavedRegions {
            add: mask.mode == MaskMode::Add,
            rows: grid.rows,
            columns: grid.cols,
            tokens: (0..shares.len()).filter(|i| shares[*i] >= PAINTED).collect(),
        })
    }

    fn mask(&self) -> Result<Mask> {
        let damaged = || Error::failed("the regions in this picture's request make no sense");
        let size = self.rows.checked_mul(self.columns).filter(|size| (1..=1 << 20).contains(size));
        let mut luma = vec![0; size.ok_or_else(damaged)?];
        for &token in &self.tokens {
            *luma.get_mut(token).ok_or_else(damaged)? = 255;
        }
        let mode = if self.add { MaskMode::Add } else { MaskMode::Replace };
        Ok(Mask { luma, width: self.columns, height: self.rows, mode })
    }
}

fn parse_precision(name: &str) -> Result<Precision> {
    let known = [PrecisionArg::Auto, PrecisionArg::F32, PrecisionArg::F16];
    let named = ["auto", "f32", "f16"].into_iter().zip(known.map(Precision::from));
    parse("precision", name, &named.collect::<Vec<_>>())
}

fn parse<T: Copy>(what: &str, name: &str, known: &[(&str, T)]) -> Result<T> {
    known.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).ok_or_else(|| {
        Error::failed(format!(
            "the request in this picture has the {what} {name:?}; expected one of {}",
            known.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
        ))
    })
}
