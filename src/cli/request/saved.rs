//! What a picture says about itself, and the request that makes it again.

use std::path::Path;
use std::str::FromStr;

use ralu::models::layers::Precision;
use ralu::pipeline::{Mask, RaluChoice, Request, Rng, Settings};
use ralu::sampling::{
    CacheSpec, Grid, MaskMode, Preset, PresetFamily, RaluParams, RuleOverrides, Rules, Variant,
    mask_regions, regions::PAINTED,
};
use serde::{Deserialize, Serialize};

use crate::cli::args::PrecisionArg;
use crate::cli::error::{Error, Result};
use crate::cli::png_file;

/// Of [`Saved`].
const FORMAT: u32 = 1;

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
    /// The temporal cache with its parameters; absent if off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
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
    /// The choices that make up the variant, with any that differ from it. Absent if off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<SavedRules>,
    /// Absent if off.
    pub parameters: Option<SavedParameters>,
    /// User-painted regions.
    pub regions: Option<SavedRegions>,
}

/// Choices of a RALU run that are not numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedRules {
    pub upsample: String,
    pub rope_mode: String,
    pub region_score: String,
    pub jump_noise: String,
}

impl From<Rules> for SavedRules {
    fn from(rules: Rules) -> Self {
        SavedRules {
            upsample: rules.upsample.to_string(),
            rope_mode: rules.rope_mode.to_string(),
            region_score: rules.region_score.to_string(),
            jump_noise: rules.jump_noise.to_string(),
        }
    }
}

impl SavedRules {
    fn overrides(&self) -> Result<RuleOverrides> {
        fn read<T: FromStr<Err = ralu::sampling::Error>>(name: &str) -> Result<Option<T>> {
            name.parse().map(Some).map_err(|error| {
                Error::failed(format!("the request in this picture cannot be read: {error}"))
            })
        }
        Ok(RuleOverrides {
            upsample: read(&self.upsample)?,
            rope_mode: read(&self.rope_mode)?,
            region_score: read(&self.region_score)?,
            jump_noise: read(&self.jump_noise)?,
        })
    }
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

impl SavedParameters {
    /// Whether these are a preset's numbers for any family of models.
    fn are_those_of(&self, preset: Preset) -> bool {
        let families = [PresetFamily::Flux, PresetFamily::Sd3, PresetFamily::Distilled];
        // The time shifts that models come with.
        families
            .into_iter()
            .flat_map(|family| [3.0, 1.0].map(|shift| family.params(preset, shift)))
            .flatten()
            .any(|params| SavedParameters::from(&params) == *self)
    }
}

/// What [`Saved`] knows beside the settings.
pub struct Origin<'a> {
    pub model: &'a str,
    pub model_path: Option<&'a str>,
    pub adapter: &'a str,
    pub has_guidance: bool,
    pub precision: Precision,
    pub given: Vec<String>,
}

pub(super) fn read_saved(path: &Path) -> Result<Saved> {
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
                rules: settings.ralu.map(|_| settings.rules.into()),
                parameters: settings.ralu.as_ref().map(SavedParameters::from),
                regions,
            },
            cache: settings.cache.as_ref().map(CacheSpec::to_string),
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
    pub(super) fn request(&self) -> Result<Request> {
        let ralu = match (&self.ralu.parameters, self.ralu.name.parse::<Preset>()) {
            (None, _) => RaluChoice::Off,
            (Some(saved), Ok(preset)) if saved.are_those_of(preset) => RaluChoice::Preset(preset),
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
            rules: match &self.ralu.rules {
                Some(rules) => rules.overrides()?,
                None => RuleOverrides::default(),
            },
            cache: match &self.cache {
                None => None,
                Some(cache) => CacheSpec::parse_option(cache).map_err(|error| {
                    Error::failed(format!("the request in this picture cannot be read: {error}"))
                })?,
            },
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

pub(super) fn parse_precision(name: &str) -> Result<Precision> {
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
