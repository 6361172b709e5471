//! From arguments to a request.

use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::Path;

use ralu::checkpoint::source::open_file;
use ralu::escape::Escaped;
use ralu::models::quantise::QuantiseChoice;
use ralu::pipeline::{Mask, NamedTensors, Products, RaluChoice, Request, Saved, png_file};
use ralu::sampling::{CustomStages, MaskMode, ZPolicy};
use ralu_host::{loras, pictures, places};

use super::args::{CacheArg, GenerateArgs, ModelArgs, PartArgs, RaluArg, RequestArgs};
use super::error::{Error, Result};
use super::output::shown;
use super::tune::find_cache;
use super::weights::Weights;
use super::{files, hub, model};

mod effects;
mod prompts;

pub use effects::without_effect;
pub use prompts::Line;

/// More than this on stdin is no prompt.
const MAX_STDIN_BYTES: u64 = 16 << 20;

/// What a run needs: the request, and what the library does not know.
pub struct ParsedRequest {
    /// For the library.
    pub request: Request,
    /// The requests of `--prompts`, each of which is `request` but for what its line says.
    pub lines: Option<Vec<Line>>,
    /// What was read from stdin.
    pub stdin: Option<String>,
    /// `--model`, or the model of `--from`.
    pub model: ModelArgs,
    /// The model that the picture of `--from` says it was made with.
    pub made_with: Option<MadeWith>,
    /// How weights are kept.
    pub weights: Weights,
    /// What the products of the picture that is to be repeated rounded to, unless the arguments say how they are to be.
    pub products: Option<Products>,
    /// What should be said before the run.
    pub warnings: Vec<String>,
}

/// What a picture says about the model that made it.
pub struct MadeWith {
    /// What it was called.
    pub name: String,
    /// What stands for its files.
    pub hash: String,
}

/// Reads everything that the arguments name, and puts a request together.
///
/// `kept` is what an earlier run read from stdin, in place of it.
pub fn from_args(
    args: &GenerateArgs,
    prompt_needed: bool,
    kept: Option<&str>,
) -> Result<ParsedRequest> {
    check_combinations(&args.request)?;
    let given_names = given_names(args)?;
    let saved = args.from.as_deref().map(pictures::read_request).transpose()?;
    let mut warnings = Vec::new();

    let mut base = Request::default();
    let mut model = args.request.model.clone();
    let (mut precision, mut quantise, mut products, mut made_with) = (None, None, None, None);
    if let Some(saved) = &saved {
        base = saved.request().map_err(Error::failed)?;
        model = model_of(saved, args)?;
        made_with =
            saved.model_hash.clone().map(|hash| MadeWith { name: saved.model.clone(), hash });
        precision = Some(saved.precision);
        quantise = saved.quantize.map(QuantiseChoice::To);
        products = args.request.precision.is_none().then_some(saved.products);
        if args.given.is_none() && !saved.given.is_empty() {
            warnings.push(format!(
                "this picture was made with given tensors ({}), which it does not carry; without --given the \
                 result will differ",
                Escaped(&saved.given.join(", "))
            ));
        }
    }
    let mut request = apply(base, &args.request, saved.is_some())?;
    let mut stdin = None;
    match args.prompt() {
        Some(prompt) if prompt == "-" => {
            request.prompt = kept.map(str::to_owned).map_or_else(read_stdin, Ok)?;
            stdin = Some(request.prompt.clone());
        }
        Some(prompt) => request.prompt = prompt,
        None if saved.is_some() || args.prompts.is_some() || !prompt_needed => {}
        None => {
            return Err(Error::usage(
                "the prompt is missing; expected a text, as in `ralu generate \"a red teapot\"`, `-` to read it from stdin, \
                 --prompts FILE for many, or --from PICTURE.png to repeat a picture",
            ));
        }
    }
    if let Some(path) = &args.given {
        request.given = read_given(path, &given_names, args.given_names.is_some())?;
    }
    request.stage_pictures = args.stages.is_some();
    request.collect_tensors = args.save_tensors.is_some();
    request.profile = args.profile.is_some();
    let lines = match args.prompts.as_deref() {
        None => None,
        Some(path) => {
            let text = match kept.filter(|_| prompts::is_stdin(path)) {
                Some(kept) => kept.to_owned(),
                None => prompts::read(path)?,
            };
            let lines = prompts::parse(path, &text, &request, saved.is_some())?;
            stdin = prompts::is_stdin(path).then_some(text);
            Some(lines)
        }
    };
    let weights = Weights {
        precision: args.request.precision.or(precision).unwrap_or_default(),
        quantise: args.request.quantize.or(quantise).unwrap_or_default(),
        ..Weights::of(&args.request)
    };
    Ok(ParsedRequest { request, lines, stdin, model, made_with, weights, products, warnings })
}

/// The model that the arguments name, or else that of the picture.
fn model_of(saved: &Saved, args: &GenerateArgs) -> Result<ModelArgs> {
    let given = args.request.model.clone();
    let Some(picture) = args.from.as_deref().filter(|_| given.model.is_none()) else {
        // Another model's parts are no parts of this one.
        return Ok(given);
    };
    let cache = find_cache(args.tuning.cache.cache_dir.as_deref());
    let found = match places::of_picture(saved, picture, cache.as_ref()) {
        Some(found) => found,
        None => {
            let mut parts = saved.model_parts.clone().unwrap_or_default();
            loras::find(&mut parts.loras, picture);
            parts.with(|paths| paths.model = saved.model_path.clone().unwrap_or_default())
        }
    };
    let mut model = Some(found.model.clone()).filter(|path| !path.is_empty());
    if model.is_none() && saved.model != model::bundled_name() {
        let name = Path::new(&saved.model);
        model =
            (!name.exists() && hub::cached(&saved.model).is_some()).then(|| saved.model.clone());
    }
    let model = ModelArgs { model, parts: given.parts.or(PartArgs::from_saved(&found)) };
    if model.model.is_none()
        && model.parts.diffusion_model.is_none()
        && saved.model != model::bundled_name()
    {
        return Err(Error::usage(format!(
            "this picture was made with the model {}, which was not drawn with here and is not found under that name: pictures \
             do not say where it lay; give it with --model PATH",
            Escaped(&saved.model)
        )));
    }
    Ok(model)
}

/// The request of arguments without prompt and files, for measurements.
pub fn plain(args: &RequestArgs) -> Result<ParsedRequest> {
    check_combinations(args)?;
    let mut request = apply(Request::default(), args, false)?;
    request.seed = args.seed.unwrap_or(0);
    Ok(ParsedRequest {
        request,
        lines: None,
        stdin: None,
        model: args.model.clone(),
        made_with: None,
        weights: Weights::of(args),
        products: None,
        warnings: vec![],
    })
}

/// The system that gives no random numbers.
fn no_seed(error: getrandom::Error) -> Error {
    Error::failed(format!("the system gives no random seed ({error}); choose one with --seed"))
}

/// `base` with everything that `args` say.
fn apply(base: Request, args: &RequestArgs, repeats: bool) -> Result<Request> {
    let mut request = base;
    let (width, height) = args.size.unzip();
    request.width = args.width.or(width).or(request.width);
    request.height = args.height.or(height).or(request.height);
    request.steps = args.steps.or(request.steps);
    request.guidance = args.guidance.or(request.guidance);
    if let Some(negative) = &args.negative_prompt {
        request.negative_prompt = Some(negative.clone());
    }
    request.true_cfg = args.true_cfg.or(request.true_cfg);
    request.max_sequence_length = args.max_sequence_length.or(request.max_sequence_length);
    request.count = args.count.or(request.count);
    request.rng = args.rng.unwrap_or(request.rng);
    request.variant = args.ralu_variant.unwrap_or(request.variant);
    let rules = &mut request.rules;
    rules.upsample = args.upsample.or(rules.upsample);
    rules.rope_mode = args.rope_mode.or(rules.rope_mode);
    rules.region_score = args.region_score.or(rules.region_score);
    rules.jump_noise = args.jump_noise.or(rules.jump_noise);
    request.z_policy = match (args.z_policy, args.stage_z) {
        // It is the custom schedule's own that is wanted, not that of the picture.
        (None, Some(_)) => None,
        (asked, _) => asked.or(request.z_policy),
    };
    if let Some(CacheArg(cache)) = &args.cache {
        request.cache.clone_from(cache);
    }
    match args.seed {
        Some(seed) => request.seed = seed,
        None if repeats => {}
        // Short enough to be typed again.
        None => request.seed = u64::from(getrandom::u32().map_err(no_seed)?),
    }
    if let Some(ralu) = args.ralu {
        request.ralu = ralu_choice(ralu, args)?;
    } else if repeats && args.steps.is_some() {
        // Steps are steps of plain sampling, as without --from.
        request.ralu = RaluChoice::Off;
    }
    if repeats && args.steps.is_none() && !matches!(request.ralu, RaluChoice::Off) {
        // A picture names the steps of plain sampling, too. Nobody asked for them.
        request.steps = None;
    }
    if let Some(path) = &args.regions {
        let mode = if args.regions_add { MaskMode::Add } else { MaskMode::Replace };
        request.mask = Some(read_mask(path, mode)?);
    }
    Ok(request)
}

fn ralu_choice(ralu: RaluArg, args: &RequestArgs) -> Result<RaluChoice> {
    match ralu {
        RaluArg::Off => Ok(RaluChoice::Off),
        RaluArg::Auto => Ok(RaluChoice::Auto),
        RaluArg::Preset(preset) => Ok(RaluChoice::Preset(preset)),
        RaluArg::Custom => match (&args.stage_steps, &args.stage_ends, args.up_ratio) {
            (Some(stage_steps), Some(stage_ends), Some(up_ratio)) => {
                Ok(RaluChoice::Custom(CustomStages {
                    stage_steps: stage_steps.0.clone(),
                    stage_ends: stage_ends.0.clone(),
                    up_ratio,
                    stage_shifts: args.stage_shifts.as_ref().map(|shifts| shifts.0.clone()),
                    stage_z: args.stage_z,
                }))
            }
            _ => Err(Error::usage("--ralu custom is incomplete")),
        },
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
        // These solve for both.
        let solved = args.z_policy.is_some_and(|policy| policy != ZPolicy::Published);
        let given = names(&optional, true);
        if solved && !given.is_empty() {
            return Err(Error::usage(format!(
                "{given} would have no effect: --z-policy says the noise between stages, and solves for the time \
                 shifts; leave one of them out"
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
    let shown = shown(path);
    let file = open_file(path).map_err(|error| {
        Error::failed(format!("the given tensors cannot be read: {}", Escaped(&error.to_string())))
    })?;
    let tensors = NamedTensors::read_blob(file, names)
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

/// Why a text, which is `what`, could not be read from `name`.
fn no_text(error: &std::io::Error, what: &str, name: &str) -> Error {
    Error::failed(match error.kind() {
        ErrorKind::FileTooLarge => format!(
            "{name} is longer than {} MiB; expected {what} of a sentence or two",
            MAX_STDIN_BYTES >> 20
        ),
        _ => format!("{what} cannot be read from {name}: {error}"),
    })
}

fn read_stdin() -> Result<String> {
    let bytes = files::read_all(std::io::stdin().lock(), MAX_STDIN_BYTES)
        .map_err(|error| no_text(&error, "a prompt", "stdin"))?;
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
            shown(path)
        ))
    };
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    png_file::read_mask(BufReader::new(file), mode).map_err(|error| failed(error.to_string()))
}
