//! What a user asks for, and what that means for a given model.

use std::sync::Arc;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Checkpoint, Error, FirstStage, NamedTensors, painted};
use crate::models::config::ModelConfig;
use crate::models::config::ranges::{SCALES, SIDES, STEPS, TEXT_LENGTHS};
use crate::models::family::Guidance;
use crate::names::by_serde;
use crate::sampling::cache::CacheSpec;
use crate::sampling::cache::spec::{MAGCACHE_FLUX, TEACACHE_FLUX};
use crate::sampling::{
    CustomStages, Grid, MaskMode, Preset, RaluParams, RegionScore, RopeMode, RuleOverrides, Rules,
    Variant, ZPolicy,
};

/// Where the initial noise comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Rng {
    /// Counter-based and keyed by coordinates: the same for every adapter and picture size.
    #[default]
    Philox,
    /// What `torch.Generator("cpu").manual_seed(seed)` gives diffusers in float32. Under [`JumpNoise::Fresh`]
    /// (`official`) the noise of RALU's jumps stays counter-based, as the official code does not seed it.
    ///
    /// [`JumpNoise::Fresh`]: crate::sampling::JumpNoise::Fresh
    Torch,
}

by_serde!(Rng, "source of noise");

/// Which acceleration a run uses. Written as a name (`auto`, `off`, a preset's), or as the numbers of [`CustomStages`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RaluChoice {
    /// The model's own preset, or its family's best-tested one, where the picture is large enough for it, else plain sampling.
    #[default]
    Auto,
    /// Plain sampling.
    Off,
    /// A preset.
    #[serde(untagged)]
    Preset(Preset),
    /// Numbers that a user chooses; what is absent is solved by NT-DM.
    #[serde(untagged)]
    Custom(CustomStages),
}

impl<'de> Deserialize<'de> for RaluChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrNumbers;

        impl<'de> Visitor<'de> for NameOrNumbers {
            type Value = RaluChoice;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(
                    "auto, off, the name of a preset, or an object with the numbers of each stage",
                )
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<RaluChoice, E> {
                match name {
                    "auto" => Ok(RaluChoice::Auto),
                    "off" => Ok(RaluChoice::Off),
                    _ => name.parse().map(RaluChoice::Preset).map_err(|error| {
                        let others = "auto, off, or an object with the numbers of each stage";
                        E::custom(format_args!("{error}; else {others}"))
                    }),
                }
            }

            fn visit_map<M: MapAccess<'de>>(self, numbers: M) -> Result<RaluChoice, M::Error> {
                CustomStages::deserialize(MapAccessDeserializer::new(numbers))
                    .map(RaluChoice::Custom)
            }
        }

        deserializer.deserialize_any(NameOrNumbers)
    }
}

/// Regions that a user painted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Mask {
    /// Brightness, `[height, width]`: white is where detail matters.
    pub luma: Vec<u8>,
    /// Width in pixels, any.
    pub width: usize,
    /// Height in pixels, any.
    pub height: usize,
    /// Instead of the found regions, or added to them.
    #[serde(default)]
    pub mode: MaskMode,
}

/// What to make. Whatever is `None` is the model's own.
///
/// As JSON, a request has these fields without those that only mean something inside of this process: `given`,
/// `estimates`, `keep_first_stage`, `first_stage`, `resume` and `profile`. Unknown fields are an error.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Request {
    /// The text.
    pub prompt: String,
    /// What true classifier-free guidance steers away from.
    pub negative_prompt: Option<String>,
    /// Width in pixels, 16 to 8192; the model's own by default, in proportion to a height that is given alone.
    pub width: Option<usize>,
    /// Height in pixels, 16 to 8192; the model's own by default, in proportion to a width that is given alone.
    pub height: Option<usize>,
    /// Steps of plain sampling.
    pub steps: Option<usize>,
    /// FLUX.1: distilled guidance. Other families: scale of classifier-free guidance.
    pub guidance: Option<f64>,
    /// Scale of true classifier-free guidance; 1 is off.
    pub true_cfg: Option<f64>,
    /// Tokens of the text encoder whose length can be chosen, padding included.
    pub max_sequence_length: Option<usize>,
    /// Seed of the first picture; the i-th uses `seed + i`. The same seed is the same picture.
    #[serde(default)]
    pub seed: u64,
    /// Number of pictures; 1 by default.
    pub count: Option<usize>,
    /// Where the initial noise comes from.
    #[serde(default)]
    pub rng: Rng,
    /// Acceleration.
    #[serde(default)]
    pub ralu: RaluChoice,
    /// Follow RALU's official code, or correct it.
    #[serde(default)]
    pub variant: Variant,
    /// Single rules that differ from the variant's.
    #[serde(default)]
    pub rules: RuleOverrides,
    /// How strong the noise between stages is; the preset's by default.
    pub z_policy: Option<ZPolicy>,
    /// Temporal cache, with its parameters if they are not the usual ones, as in `teacache:threshold=0.25`; off by
    /// default.
    #[serde(default, deserialize_with = "cache_or_off")]
    pub cache: Option<CacheSpec>,
    /// User-painted regions.
    pub mask: Option<Mask>,
    /// Tensors that replace what the run would draw or compute.
    #[serde(skip)]
    pub given: NamedTensors,
    /// Pictures of all stages, not only those that cost nothing.
    #[serde(default)]
    pub stage_pictures: bool,
    /// Emit an [`super::Event::Estimate`] after every [`super::Event::Step`], of the latents that a run reads back in any
    /// case: nothing waits for it.
    #[serde(skip)]
    pub estimates: bool,
    /// Emit [`super::Event::FirstStage`], for [`Request::first_stage`].
    #[serde(skip)]
    pub keep_first_stage: bool,
    /// Go on from the end of another run's first stage, which differs in nothing but the regions.
    #[serde(skip)]
    pub first_stage: Option<Arc<FirstStage>>,
    /// Go on from where another run of the same request was: see [`super::Recovery`].
    #[serde(skip)]
    pub resume: Option<Arc<Checkpoint>>,
    /// What the run made (noise, embeddings, latents) with the picture.
    #[serde(default, rename = "tensors")]
    pub collect_tensors: bool,
    /// Time every kernel and emit [`super::Event::Profile`]s. An error on adapters without timestamps.
    #[serde(skip)]
    pub profile: bool,
}

fn cache_or_off<'de, D: Deserializer<'de>>(from: D) -> Result<Option<CacheSpec>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    let cache = text.map(|text| CacheSpec::parse_option(&text)).transpose();
    Ok(cache.map_err(serde::de::Error::custom)?.flatten())
}

impl Request {
    /// A request for `prompt` with the model's own settings.
    pub fn new(prompt: impl Into<String>) -> Self {
        Request { prompt: prompt.into(), ..Default::default() }
    }

    /// Changes any fields: `Request::new("a fox").with(|request| request.steps = Some(20))`.
    pub fn with(mut self, change: impl FnOnce(&mut Request)) -> Self {
        change(&mut self);
        self
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
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
    /// Tokens of the text encoder whose length can be chosen, padding included.
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
    /// How strong the noise at the jumps is.
    pub z_policy: ZPolicy,
    /// Temporal cache.
    pub cache: Option<CacheSpec>,
    /// Official or exact.
    pub variant: Variant,
    /// User-painted regions.
    pub mask: Option<Mask>,
    /// What to warn the user of.
    pub warnings: Vec<String>,
}

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
        let asked_width = request.width.map(|width| side("the width", width)).transpose()?;
        let asked_height = request.height.map(|height| side("the height", height)).transpose()?;
        let (width, height) = match (asked_width, asked_height) {
            (Some(width), None) => (width, in_proportion(width, own.width, own.height)),
            (None, Some(height)) => (in_proportion(height, own.height, own.width), height),
            (width, height) => (width.unwrap_or(own.width), height.unwrap_or(own.height)),
        };
        let steps = request.steps.unwrap_or(own.steps);
        // Fails on 0 and on absurd numbers with the scheduler's own words.
        const { assert!(*STEPS.end() == crate::sampling::schedule::MAX_STEPS) };
        config.plain_sigmas(steps, width.div_ceil(16) * height.div_ceil(16))?;
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
            if SCALES.contains(&value) {
                return Ok(value);
            }
            let (least, most) = (SCALES.start(), SCALES.end());
            Err(Error::setting(what, value, format!("a number from {least} to {most}")))
        };
        let guidance = scale("the guidance", request.guidance.or(own.guidance).unwrap_or(0.0))?;
        let is_distilled = config.family().guidance(config) == Guidance::Distilled;
        let asked_cfg = match config.family().guidance(config) {
            Guidance::Distilled => request.true_cfg,
            Guidance::ClassifierFree => request.true_cfg.or(request.guidance),
        };
        let wanted_cfg = scale("the true guidance", asked_cfg.unwrap_or(own.true_cfg))?;
        let negative = request.negative_prompt.clone().or(own.negative_prompt.clone());
        // diffusers: true guidance next to distilled guidance needs a negative prompt and a scale above 1, else only the
        // latter. Asking for the scale alone means an empty negative prompt.
        let guided =
            wanted_cfg > 1.0 && (negative.is_some() || asked_cfg.is_some() || !is_distilled);

        let mut warnings = Vec::new();
        if request.negative_prompt.is_some() && !guided {
            warnings.push(
                "the negative prompt has no effect without true guidance; give a scale above 1 (true_cfg)"
                    .to_owned(),
            );
        }
        if is_distilled && request.guidance.is_some() && !config.transformer.has_guidance_input() {
            warnings
                .push("this model has no guidance input; the guidance has no effect".to_owned());
        }

        let (ralu_name, ralu) = resolve_ralu(request, config, width, height, &mut warnings)?;
        let z_policy = request.z_policy.unwrap_or(ZPolicy::Published);
        let ralu = ralu.map(|params| params.with_z_policy(z_policy)).transpose()?;
        let rules = request.rules.apply(request.variant.rules());
        if let Some(cache) = &request.cache {
            cache.check()?;
            if !config.family().has_measured_caches() && has_flux_numbers(cache) {
                warnings.push(format!(
                    "{}'s numbers were measured on FLUX.1-dev and are a guess for this model; they can be given \
                     ({cache})",
                    cache.name()
                ));
            }
        }
        if ralu.is_some()
            && config.transformer.rope().is_none()
            && rules.rope_mode == RopeMode::Crpa
        {
            warnings.push("this model has no rotary positions; the rope mode has no effect".into());
        }
        if ralu.is_none()
            && (request.rules != RuleOverrides::default() || request.z_policy.is_some())
        {
            warnings.push("RALU's rules have no effect without RALU".to_owned());
        }
        let own_area = own.width * own.height;
        if ralu.is_some() && 2 * width * height < own_area {
            warnings.push(format!(
                "{width} x {height} is small for RALU with this model, whose own size is {} x {}: its first stage \
                 works at half the size. Without RALU it may look better",
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
        if let Some(params) = &ralu {
            let grid = Grid::of_image(width.next_multiple_of(32), height.next_multiple_of(32))?;
            warnings.extend(painted::warning(params, request.mask.as_ref(), grid)?);
            if rules.region_score == RegionScore::Variance && params.stage_steps[0] < 2 {
                warnings.push(
                    "one step in the first stage has no variance; the regions are chosen by the latents' gradient"
                        .to_owned(),
                );
            }
        }
        if !is_distilled && request.true_cfg.is_some() && request.guidance.is_some() {
            warnings.push(
                "this model has one scale of guidance: the true guidance is taken, and the guidance has no effect"
                    .to_owned(),
            );
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
            rules,
            z_policy,
            cache: request.cache.clone(),
            variant: request.variant,
            mask: request.mask.clone(),
            warnings,
        })
    }

    /// Evaluations of the network in one step: branches of guidance.
    pub fn evaluations_per_step(&self) -> usize {
        if self.negative_prompt.is_some() { 2 } else { 1 }
    }

    /// Whether regions are found in a decoded picture, rather than in latents.
    pub fn decodes_low_estimate(&self) -> bool {
        self.rules.region_score == RegionScore::Edges
    }
}

/// The side that goes with one that is given alone, in whole tokens, so that the picture has the shape of the model's own.
fn in_proportion(given: usize, own: usize, own_other: usize) -> usize {
    if given == own {
        return own_other;
    }
    if own == own_other {
        return given;
    }
    let tokens = (given as f64 * own_other as f64 / (16 * own) as f64).round();
    // A cast of what is too much gives the largest number.
    (16 * (tokens as usize).min(SIDES.end() / 16)).max(*SIDES.start())
}

/// Whether a cache has parameters that were measured on FLUX.1-dev.
fn has_flux_numbers(cache: &CacheSpec) -> bool {
    match cache {
        CacheSpec::TeaCache { coefficients, .. } => coefficients[..] == TEACACHE_FLUX[..],
        CacheSpec::MagCache { ratios, .. } => ratios[..] == MAGCACHE_FLUX[..],
        CacheSpec::FirstBlock { .. } | CacheSpec::TaylorSeer { .. } | CacheSpec::Fora { .. } => {
            false
        }
    }
}

fn resolve_ralu(
    request: &Request,
    config: &ModelConfig,
    width: usize,
    height: usize,
    warnings: &mut Vec<String>,
) -> Result<(String, Option<RaluParams>), Error> {
    let own = config.defaults();
    let presets = config.family().presets(config);
    let own_preset = config.default_preset();
    // RALU works on pairs of tokens, and what that adds at the border has to have positions too.
    let [rows, cols] = [height, width].map(|side| side.next_multiple_of(32) / 16);
    let base = config.family().base_time_shift(config, rows * cols);
    let large_enough =
        2 * width * height >= own.width * own.height && config.check_grid(rows, cols).is_ok();
    let named = |preset: Preset| -> Result<_, Error> {
        Ok((preset.to_string(), Some(presets.params(preset, base)?)))
    };
    match &request.ralu {
        RaluChoice::Off => Ok(("off".into(), None)),
        RaluChoice::Auto if !large_enough => Ok(("off".into(), None)),
        // Steps are steps of plain sampling: who counts them wants that.
        RaluChoice::Auto if request.steps.is_some() => {
            warnings.push(format!(
                "a number of steps is one of plain sampling, so RALU is off; without it, or with RALU {0} asked for, {0} is used",
                own_preset
            ));
            Ok(("off".into(), None))
        }
        RaluChoice::Auto => named(own_preset),
        // What speeds up fifty steps makes no sense for four.
        RaluChoice::Preset(asked) if presets.is_distilled && *asked != Preset::Distilled => {
            warnings.push(format!(
                "this model is distilled to {} steps; RALU {asked} is for models with about 50. Its own preset, \
                 {own_preset}, is used",
                own.steps
            ));
            named(own_preset)
        }
        RaluChoice::Preset(preset) => named(*preset),
        RaluChoice::Custom(chosen) => {
            Ok(("custom".into(), Some(RaluParams::custom(chosen, base)?)))
        }
    }
}
