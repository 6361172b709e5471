//! What a user asks for, and what that means for a given model.

use super::{Error, NamedTensors};
use crate::models::config::ModelConfig;
use crate::sampling::{MaskMode, Preset, RaluParams, Rules, Variant};

/// Where the initial noise comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rng {
    /// Counter-based and keyed by coordinates: the same for every adapter and picture size.
    #[default]
    Philox,
    /// What `torch.Generator("cpu").manual_seed(seed)` gives diffusers in float32. The noise of RALU's
    /// jumps stays counter-based, as the official code does not seed it.
    Torch,
}

/// Which acceleration a run uses.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum RaluChoice {
    /// The family's best-tested preset where the picture is large enough for it, else plain sampling.
    #[default]
    Auto,
    /// Plain sampling.
    Off,
    /// A preset.
    Preset(Preset),
    /// Parameters of one's own; what is absent is solved by NT-DM.
    Custom {
        /// Evaluations per stage.
        stage_steps: [usize; 3],
        /// Paper time at the end of each stage.
        stage_ends: [f64; 3],
        /// Share of coarse tokens that are refined early.
        up_ratio: f64,
        /// Time shift of each stage.
        shifts: Option<[f64; 3]>,
        /// Strength of the noise at the jumps.
        z: Option<f64>,
    },
}

/// Regions that a user painted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Brightness, `[height, width]`: white is where detail matters.
    pub luma: Vec<u8>,
    /// Width in pixels, any.
    pub width: usize,
    /// Height in pixels, any.
    pub height: usize,
    /// Instead of the found regions, or beside them.
    pub mode: MaskMode,
}

/// What to make. Whatever is `None` is the model's own.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The text.
    pub prompt: String,
    /// What true classifier-free guidance steers away from.
    pub negative_prompt: Option<String>,
    /// Width in pixels, 16 to 8192.
    pub width: Option<usize>,
    /// Height in pixels, 16 to 8192.
    pub height: Option<usize>,
    /// Steps of plain sampling.
    pub steps: Option<usize>,
    /// Distilled guidance.
    pub guidance: Option<f64>,
    /// Scale of true classifier-free guidance; 1 is off.
    pub true_cfg: Option<f64>,
    /// T5 tokens.
    pub max_sequence_length: Option<usize>,
    /// Seed of the first picture; the i-th uses `seed + i`.
    pub seed: u64,
    /// Number of pictures.
    pub count: Option<usize>,
    /// Where the initial noise comes from.
    pub rng: Rng,
    /// Acceleration.
    pub ralu: RaluChoice,
    /// Follow RALU's official code, or correct it.
    pub variant: Variant,
    /// User-painted regions.
    pub mask: Option<Mask>,
    /// Tensors that replace what the run would draw or compute.
    pub given: NamedTensors,
    /// Emit [`super::Event::StagePicture`]s for all stages, not only those that cost nothing.
    pub stage_pictures: bool,
    /// Collect intermediate tensors into [`super::Event::Image`].
    pub collect_tensors: bool,
}

impl Request {
    /// A request for `prompt` with the model's own settings.
    pub fn new(prompt: impl Into<String>) -> Self {
        Request { prompt: prompt.into(), ..Default::default() }
    }

    /// Sets the size in pixels.
    pub fn size(mut self, width: usize, height: usize) -> Self {
        (self.width, self.height) = (Some(width), Some(height));
        self
    }

    /// Sets the acceleration.
    pub fn ralu(mut self, ralu: RaluChoice) -> Self {
        self.ralu = ralu;
        self
    }

    /// Sets the seed.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}

/// A request with every choice made and checked for one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The text.
    pub prompt: String,
    /// The negative text, if true guidance is on.
    pub negative_prompt: Option<String>,
    /// Width of the finished picture in pixels.
    pub width: usize,
    /// Height of the finished picture in pixels.
    pub height: usize,
    /// Steps of plain sampling.
    pub steps: usize,
    /// Distilled guidance; without effect in models that have no input for it.
    pub guidance: f64,
    /// Scale of true classifier-free guidance; 1 is off.
    pub true_cfg: f64,
    /// T5 tokens.
    pub max_sequence_length: usize,
    /// Seed of the first picture.
    pub seed: u64,
    /// Number of pictures.
    pub count: usize,
    /// Where the initial noise comes from.
    pub rng: Rng,
    /// The preset's name, `custom` or `off`.
    pub ralu_name: String,
    /// RALU's parameters; `None` is plain sampling.
    pub ralu: Option<RaluParams>,
    /// RALU's rules.
    pub rules: Rules,
    /// Official or exact.
    pub variant: Variant,
    /// User-painted regions.
    pub mask: Option<Mask>,
    /// What to warn the user of.
    pub warnings: Vec<String>,
}

/// Sides that can be asked for, in pixels.
const SIDES: std::ops::RangeInclusive<usize> = 16..=8192;
/// Text lengths that can be asked for, in tokens.
const TEXT_LENGTHS: std::ops::RangeInclusive<usize> = 1..=4096;
/// Pictures in one request.
const MAX_COUNT: usize = 100_000;

impl Settings {
    /// Checks a request against a model and fills in the model's own settings.
    pub fn resolve(request: &Request, config: &ModelConfig) -> Result<Settings, Error> {
        let own = config.defaults();
        let side = |what: &'static str, value: usize| {
            if SIDES.contains(&value) {
                return Ok(value);
            }
            let (least, most) = (SIDES.start(), SIDES.end());
            Err(Error::setting(what, value, format!("{least} to {most} pixels")))
        };
        let width = side("the width", request.width.unwrap_or(own.width))?;
        let height = side("the height", request.height.unwrap_or(own.height))?;
        let steps = request.steps.unwrap_or(own.steps);
        // Fails on 0 and on absurd numbers with the scheduler's own words.
        config.flow_match().sigmas(steps, 1)?;
        let max_sequence_length = request.max_sequence_length.unwrap_or(own.max_sequence_length);
        if !TEXT_LENGTHS.contains(&max_sequence_length) {
            let (least, most) = (TEXT_LENGTHS.start(), TEXT_LENGTHS.end());
            let expected =
                format!("{least} to {most} tokens (this model's own: {})", own.max_sequence_length);
            return Err(Error::setting("the text length", max_sequence_length, expected));
        }
        let count = request.count.unwrap_or(1);
        if !(1..=MAX_COUNT).contains(&count) {
            return Err(Error::setting(
                "the number of pictures",
                count,
                format!("1 to {MAX_COUNT}"),
            ));
        }
        let scale = |what, value: f64| {
            if value.is_finite() && (0.0..=1000.0).contains(&value) {
                return Ok(value);
            }
            Err(Error::setting(what, value, "a number from 0 to 1000"))
        };
        let guidance = scale("the guidance", request.guidance.or(own.guidance).unwrap_or(0.0))?;
        let wanted_cfg = scale("the true guidance", request.true_cfg.unwrap_or(own.true_cfg))?;
        let negative = request.negative_prompt.clone().or(own.negative_prompt.clone());
        // diffusers: true guidance needs a negative prompt and a scale above 1. Asking for the scale alone
        // means an empty negative prompt.
        let guided = wanted_cfg > 1.0 && (negative.is_some() || request.true_cfg.is_some());

        let mut warnings = Vec::new();
        if request.negative_prompt.is_some() && !guided {
            warnings.push(
                "the negative prompt has no effect without true guidance; give a scale above 1 (--true-cfg)"
                    .to_owned(),
            );
        }
        if request.guidance.is_some() && !config.flux().guidance_embeds {
            warnings
                .push("this model has no guidance input; the guidance has no effect".to_owned());
        }

        let (ralu_name, ralu) = resolve_ralu(request, config, width, height)?;
        let own_area = own.width * own.height;
        if ralu.is_some() && 2 * width * height < own_area {
            warnings.push(format!(
                "{width} x {height} is small for RALU with this model, whose own size is {} x {}: its first stage \
                 works at half the size. --ralu off may look better",
                own.width, own.height
            ));
        }
        if request.steps.is_some() && ralu.is_some() {
            warnings.push(format!(
                "the steps of plain sampling have no effect under RALU {ralu_name}, whose stages have their own"
            ));
        }
        if request.mask.is_some() && ralu.is_none() {
            warnings.push("painted regions have no effect without RALU".to_owned());
        }
        Ok(Settings {
            prompt: request.prompt.clone(),
            negative_prompt: guided.then(|| negative.unwrap_or_default()),
            width,
            height,
            steps,
            guidance,
            true_cfg: if guided { wanted_cfg } else { 1.0 },
            max_sequence_length,
            seed: request.seed,
            count,
            rng: request.rng,
            ralu_name,
            ralu,
            rules: request.variant.rules(),
            variant: request.variant,
            mask: request.mask.clone(),
            warnings,
        })
    }

    /// Evaluations of the network in one step.
    pub fn evaluations_per_step(&self) -> usize {
        if self.negative_prompt.is_some() { 2 } else { 1 }
    }
}

/// The preset that [`RaluChoice::Auto`] means for guidance-distilled FLUX models: the one that RALU's authors
/// publish with their code and that changes pictures least.
const FLUX_PRESET: Preset = Preset::X4;

fn resolve_ralu(
    request: &Request,
    config: &ModelConfig,
    width: usize,
    height: usize,
) -> Result<(String, Option<RaluParams>), Error> {
    let own = config.defaults();
    let large_enough = 2 * width * height >= own.width * own.height;
    match &request.ralu {
        RaluChoice::Off => Ok(("off".into(), None)),
        // Steps are steps of plain sampling: who counts them wants that. Four-step models have no preset.
        RaluChoice::Auto if request.steps.is_some() || !large_enough || config.is_schnell() => {
            Ok(("off".into(), None))
        }
        RaluChoice::Auto => Ok((FLUX_PRESET.to_string(), Some(FLUX_PRESET.params()))),
        RaluChoice::Preset(preset) => Ok((preset.to_string(), Some(preset.params()))),
        RaluChoice::Custom { stage_steps, stage_ends, up_ratio, shifts, z } => {
            let base = config.scheduler.shift;
            let params =
                RaluParams::custom(*stage_steps, *stage_ends, *up_ratio, *shifts, *z, base)?;
            Ok(("custom".into(), Some(params)))
        }
    }
}
