//! What a picture says about itself, and the request that makes it again. Faces put it into their PNGs.

use std::fmt::{self, Formatter};
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Mask, RaluChoice, Request, Rng, Settings};
use crate::escape::Escaped;
use crate::models::family::FAMILIES;
use crate::models::layers::Precision;
use crate::sampling::{
    self, CacheSpec, Grid, MaskMode, Preset, PresetTable, RaluParams, RuleOverrides, Rules, Variant,
};

/// Of [`Saved`].
const FORMAT: u32 = 1;
/// Longest list of given tensors.
const MAX_GIVEN: usize = 64;
/// Most tokens of a picture's regions.
const MAX_REGION_TOKENS: usize = 1 << 20;

const PRECISIONS: [(&str, Precision); 3] =
    [("auto", Precision::Auto), ("f32", Precision::F32), ("f16", Precision::F16)];

/// Everything a picture depends on, as its text chunk [`Saved::KEYWORD`] holds it, in JSON of ASCII alone. Names are the command line's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// Version of this layout.
    pub format: u32,
    /// Version of the program.
    pub version: String,
    /// What the model is called.
    pub model: String,
    /// The folder where it lay, as the user said; absent for the bundled one, and in browsers.
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
    #[serde(default, deserialize_with = "at_most::<_, _, MAX_GIVEN>")]
    pub given: Vec<String>,
}

/// Reads a list of at most `MOST` values: what is written in 64 MiB could fill gigabytes.
fn at_most<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MOST: usize>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    struct Values<T, const MOST: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Values<T, MOST> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MOST} values")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut values = vec![];
            while let Some(value) = list.next_element()? {
                if values.len() == MOST {
                    return Err(serde::de::Error::invalid_length(MOST + 1, &self));
                }
                values.push(value);
            }
            Ok(values)
        }
    }

    deserializer.deserialize_seq(Values::<T, MOST>(PhantomData))
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
    fn overrides(&self) -> Result<RuleOverrides, SavedError> {
        fn read<T: FromStr<Err = sampling::Error>>(name: &str) -> Result<Option<T>, SavedError> {
            name.parse().map(Some).map_err(unreadable)
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
    #[serde(deserialize_with = "at_most::<_, _, MAX_REGION_TOKENS>")]
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
        // The time shifts that models come with.
        let params = |table: &PresetTable| [3.0, 1.0].map(|shift| table.params(preset, shift));
        let mut tables = FAMILIES.iter().flat_map(|family| family.preset_tables());
        tables.any(|table| {
            params(table).iter().flatten().any(|params| SavedParameters::from(params) == *self)
        })
    }
}

/// What [`Saved`] knows beside the settings.
pub struct Maker<'a> {
    /// See [`Saved::model`].
    pub model: &'a str,
    /// See [`Saved::model_path`].
    pub model_path: Option<&'a str>,
    /// See [`Saved::adapter`].
    pub adapter: &'a str,
    /// Whether the model has an input for guidance.
    pub has_guidance: bool,
    /// How weights were kept.
    pub precision: Precision,
    /// Names of tensors that were given.
    pub given: Vec<String>,
}

/// Why what a picture says makes no request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SavedError {
    /// It is no JSON, or lacks something.
    #[error(
        "the request in this picture cannot be read ({}); it was made by another version or changed",
        Escaped(&.0.to_string())
    )]
    Json(#[from] serde_json::Error),
    /// It is of another version.
    #[error(
        "the request in this picture has format {found}, expected {FORMAT}; use ralu {}",
        Escaped(.version)
    )]
    Format {
        /// Its format.
        found: u32,
        /// The version that wrote it.
        version: String,
    },
    /// A name that this version does not know.
    #[error(
        "the request in this picture has the {what} \"{}\"; expected one of {expected}",
        Escaped(.found)
    )]
    Name {
        /// Of what.
        what: &'static str,
        /// The name.
        found: String,
        /// Those that there are.
        expected: String,
    },
    /// A rule or a cache that this version does not know.
    #[error("the request in this picture cannot be read: {}", Escaped(.0))]
    Setting(String),
    /// Painted regions that are none.
    #[error("the regions in this picture's request make no sense")]
    Regions,
}

/// JSON in which all but ASCII is escaped: programs that rewrite PNGs keep it in any kind of text chunk.
fn ascii_json(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut ascii = String::new();
    // Outside of strings JSON is ASCII.
    for c in serde_json::to_string(value)?.chars() {
        match c {
            ' '..='~' => ascii.push(c),
            _ => ascii
                .extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}"))),
        }
    }
    Ok(ascii)
}

fn unreadable(error: impl ToString) -> SavedError {
    SavedError::Setting(error.to_string())
}

impl Saved {
    /// The keyword of the PNG text chunk that holds it.
    pub const KEYWORD: &str = "ralu";
    /// What wrote it, for the chunk `Software`.
    pub const SOFTWARE: &str = concat!("ralu ", env!("CARGO_PKG_VERSION"));

    /// What the picture with `seed` says about itself.
    pub fn new(
        settings: &Settings,
        seed: u64,
        maker: &Maker<'_>,
    ) -> Result<Saved, sampling::Error> {
        let regions = match (&settings.mask, &settings.ralu) {
            (Some(mask), Some(_)) => Some(SavedRegions::new(mask, settings)?),
            _ => None,
        };
        Ok(Saved {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model: maker.model.to_owned(),
            model_path: maker.model_path.map(str::to_owned),
            adapter: maker.adapter.to_owned(),
            prompt: settings.prompt.clone(),
            negative_prompt: settings.negative_prompt.clone(),
            width: settings.width,
            height: settings.height,
            steps: settings.steps,
            guidance: maker.has_guidance.then_some(settings.guidance),
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
            precision: match maker.precision {
                Precision::Auto => "auto",
                Precision::F32 => "f32",
                Precision::F16 => "f16",
            }
            .to_owned(),
            given: maker.given.clone(),
        })
    }

    /// Reads the text chunk.
    pub fn parse(text: &str) -> Result<Saved, SavedError> {
        let saved: Saved = serde_json::from_str(text)?;
        match saved.format {
            FORMAT => Ok(saved),
            found => Err(SavedError::Format { found, version: saved.version }),
        }
    }

    /// All text chunks of the picture, keyword and text: itself whole, and the best parts of it for people and for other
    /// programs.
    pub fn texts(&self) -> Result<Vec<(&'static str, String)>, serde_json::Error> {
        let mut texts = vec![(Saved::KEYWORD, ascii_json(self)?)];
        texts.push(("prompt", self.prompt.clone()));
        if let Some(negative) = &self.negative_prompt {
            texts.push(("negative prompt", negative.clone()));
            texts.push(("true guidance", self.true_cfg.to_string()));
        }
        let schedule = match &self.ralu.parameters {
            None => format!("{} steps", self.steps),
            Some(p) => {
                let [a, b, c] = p.stage_steps;
                format!("RALU {} ({}): {a} + {b} + {c} steps", self.ralu.name, self.ralu.variant)
            }
        };
        texts.push(("seed", self.seed.to_string()));
        texts.push(("size", format!("{} x {}", self.width, self.height)));
        texts.push(("schedule", schedule));
        texts.extend(self.guidance.map(|guidance| ("guidance", guidance.to_string())));
        texts.push(("model", self.model.clone()));
        Ok(texts)
    }

    /// How weights were kept.
    pub fn precision(&self) -> Result<Precision, SavedError> {
        parse("precision", &self.precision, &PRECISIONS)
    }

    /// The request that makes the picture again.
    pub fn request(&self) -> Result<Request, SavedError> {
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
                Some(cache) => CacheSpec::parse_option(cache).map_err(unreadable)?,
            },
            mask: self.ralu.regions.as_ref().map(SavedRegions::mask).transpose()?,
            ..Default::default()
        })
    }
}

impl SavedRegions {
    /// A mask says no more than which tokens it covers: that is what is kept of it.
    fn new(mask: &Mask, settings: &Settings) -> Result<Self, sampling::Error> {
        let (width, height) =
            (settings.width.next_multiple_of(32), settings.height.next_multiple_of(32));
        let grid = Grid::of_image(width, height)?;
        Ok(SavedRegions {
            add: mask.mode == MaskMode::Add,
            rows: grid.rows,
            columns: grid.cols,
            tokens: mask.painted_tokens(grid)?,
        })
    }

    fn mask(&self) -> Result<Mask, SavedError> {
        let damaged = || SavedError::Regions;
        let size = self
            .rows
            .checked_mul(self.columns)
            .filter(|size| (1..=MAX_REGION_TOKENS).contains(size));
        let mut luma = vec![0; size.ok_or_else(damaged)?];
        for &token in &self.tokens {
            *luma.get_mut(token).ok_or_else(damaged)? = 255;
        }
        let mode = if self.add { MaskMode::Add } else { MaskMode::Replace };
        Ok(Mask { luma, width: self.columns, height: self.rows, mode })
    }
}

fn parse<T: Copy>(what: &'static str, name: &str, known: &[(&str, T)]) -> Result<T, SavedError> {
    known.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).ok_or_else(|| {
        let expected = known.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        SavedError::Name { what, found: name.to_owned(), expected }
    })
}
