//! What a picture says about itself, and the request that makes it again. Faces put it into their PNGs.

use std::fmt::{self, Formatter};
use std::marker::PhantomData;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Mask, Products, RaluChoice, Request, Rng, Settings};
use crate::escape::Escaped;
use crate::models::family::FAMILIES;
use crate::models::files::ModelPaths;
use crate::models::layers::Precision;
use crate::models::quantise::Quantise;
use crate::sampling::{
    self, CacheSpec, CustomStages, Grid, JumpNoise, MaskMode, Preset, PresetTable, RegionScore,
    RopeMode, RuleOverrides, Rules, Upsample, Variant,
};

/// Version of the layout of [`Saved`].
const FORMAT: u32 = 1;
/// Longest list of given tensors.
const MAX_GIVEN: usize = 64;
/// Most tokens of a picture's regions.
const MAX_REGION_TOKENS: usize = 1 << 20;

/// Everything a picture depends on, as its text chunk [`Saved::KEYWORD`] holds it, in JSON of ASCII alone: what made it,
/// and the settings under the names that [`Request`] has, RALU's in an object of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// Version of this layout.
    pub format: u32,
    /// Version of the program.
    pub version: String,
    /// What the model is called.
    pub model: String,
    /// What stands for its files, as the host counts it; absent where the host does not know all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_hash: Option<String>,
    /// Where it lay, in pictures of older versions: none is written any more, as pictures are for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_path: Option<String>,
    /// Its parts in files of their own, without the folders that these lay in. Absent if there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_parts: Option<ModelPaths>,
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
    pub rng: Rng,
    pub ralu: SavedRalu,
    /// The temporal cache with its parameters; absent if off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheSpec>,
    pub precision: Precision,
    /// What its weights were quantised to when they were loaded, and of which parts; absent if they were not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantize: Option<Quantise>,
    /// What its products rounded to. Pictures of versions that do not say it are of f32.
    #[serde(default)]
    pub products: Products,
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
    pub variant: Variant,
    /// The choices that make up the variant, with any that differ from it. Absent if off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<SavedRules>,
    /// Numbers of the run, all of them. Absent if off.
    pub parameters: Option<CustomStages>,
    /// User-painted regions.
    pub regions: Option<SavedRegions>,
}

/// Choices of a RALU run that are not numbers: those of [`RuleOverrides`], each of which is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedRules {
    pub upsample: Upsample,
    pub rope_mode: RopeMode,
    pub region_score: RegionScore,
    pub jump_noise: JumpNoise,
}

impl From<Rules> for SavedRules {
    fn from(Rules { upsample, rope_mode, region_score, jump_noise, .. }: Rules) -> Self {
        SavedRules { upsample, rope_mode, region_score, jump_noise }
    }
}

impl From<&SavedRules> for RuleOverrides {
    fn from(&SavedRules { upsample, rope_mode, region_score, jump_noise }: &SavedRules) -> Self {
        RuleOverrides {
            upsample: Some(upsample),
            rope_mode: Some(rope_mode),
            region_score: Some(region_score),
            jump_noise: Some(jump_noise),
        }
    }
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

/// Whether these are a preset's numbers for any family of models.
fn are_those_of(numbers: &CustomStages, preset: Preset) -> bool {
    // The time shifts that models come with.
    let params = |table: &PresetTable| [3.0, 1.0].map(|shift| table.params(preset, shift));
    let mut tables = FAMILIES.iter().flat_map(|family| family.preset_tables());
    tables.any(|table| {
        params(table).iter().flatten().any(|params| CustomStages::from(params) == *numbers)
    })
}

/// What [`Saved`] knows besides the settings.
pub struct Maker<'a> {
    /// See [`Saved::model`].
    pub model: &'a str,
    /// See [`Saved::model_hash`].
    pub model_hash: Option<&'a str>,
    /// See [`Saved::model_parts`]; folders are left out.
    pub model_parts: Option<ModelPaths>,
    /// See [`Saved::adapter`].
    pub adapter: &'a str,
    /// Whether the model has an input for guidance.
    pub has_guidance: bool,
    /// How weights were kept.
    pub precision: Precision,
    /// What weights were quantised to when they were loaded.
    pub quantise: Option<Quantise>,
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

impl Saved {
    /// The keyword of the PNG text chunk that holds it.
    pub const KEYWORD: &str = "ralu";
    /// The keyword of the text that other programs show, which they write themselves in the same form.
    pub const PARAMETERS: &str = "parameters";
    /// What wrote it, for the chunk `Software`.
    pub const SOFTWARE: &str = concat!("ralu ", env!("CARGO_PKG_VERSION"));

    /// What the picture with `seed` says about itself, whose report says what its `products` rounded to
    /// ([`ImageReport::products`](super::ImageReport)).
    pub fn new(
        settings: &Settings,
        seed: u64,
        maker: &Maker<'_>,
        products: Products,
    ) -> Result<Saved, sampling::Error> {
        let regions = match (&settings.mask, &settings.ralu) {
            (Some(mask), Some(_)) => Some(SavedRegions::new(mask, settings)?),
            _ => None,
        };
        Ok(Saved {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model: maker.model.to_owned(),
            model_hash: maker.model_hash.map(str::to_owned),
            model_path: None,
            model_parts: maker.model_parts.as_ref().map(ModelPaths::without_folders),
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
            rng: settings.rng,
            ralu: SavedRalu {
                name: settings.ralu_name.clone(),
                variant: settings.variant,
                rules: settings.ralu.as_ref().map(|_| settings.rules.into()),
                parameters: settings.ralu.as_ref().map(CustomStages::from),
                regions,
            },
            cache: settings.cache.clone(),
            precision: maker.precision,
            quantize: maker.quantise,
            products,
            given: maker.given.clone(),
        })
    }

    /// Reads the text chunk.
    pub fn parse(text: &str) -> Result<Saved, SavedError> {
        // All that another version's is sure to have.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
            version: String,
        }

        match serde_json::from_str(text)? {
            Head { format: FORMAT, .. } => Ok(serde_json::from_str(text)?),
            Head { format: found, version } => Err(SavedError::Format { found, version }),
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
                let steps: Vec<String> = p.stage_steps.iter().map(usize::to_string).collect();
                let (name, variant) = (&self.ralu.name, self.ralu.variant);
                format!("RALU {name} ({variant}): {} steps", steps.join(" + "))
            }
        };
        texts.push(("seed", self.seed.to_string()));
        texts.push(("size", format!("{} x {}", self.width, self.height)));
        texts.push(("schedule", schedule));
        texts.extend(self.guidance.map(|guidance| ("guidance", guidance.to_string())));
        texts.push(("model", self.model.clone()));
        texts.push((Saved::PARAMETERS, self.parameters()));
        Ok(texts)
    }

    /// The form of stable-diffusion-webui, which galleries show: the prompt, the negative one, and a line of names and
    /// values.
    fn parameters(&self) -> String {
        let steps = match &self.ralu.parameters {
            None => self.steps,
            Some(stages) => stages.stage_steps.iter().sum(),
        };
        let mut values = vec![
            ("Steps", steps.to_string()),
            ("Sampler", "Euler".into()),
            ("CFG scale", self.true_cfg.to_string()),
        ];
        values.extend(self.guidance.map(|scale| ("Distilled CFG Scale", scale.to_string())));
        values.push(("Seed", self.seed.to_string()));
        values.push(("Size", format!("{}x{}", self.width, self.height)));
        values.push(("Model", self.model.replace(['\n', ','], " ")));
        values.extend(self.ralu.parameters.as_ref().map(|_| ("RALU", self.ralu.name.clone())));
        values.push(("Version", Saved::SOFTWARE.into()));
        let values: Vec<String> =
            values.into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let negative = self.negative_prompt.as_ref().filter(|text| !text.is_empty());
        let negative = negative.map(|text| format!("Negative prompt: {text}"));
        let lines = [Some(self.prompt.clone()), negative, Some(values.join(", "))];
        lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
    }

    /// The request that makes the picture again.
    pub fn request(&self) -> Result<Request, SavedError> {
        let ralu = match (&self.ralu.parameters, self.ralu.name.parse::<Preset>()) {
            (None, _) => RaluChoice::Off,
            (Some(saved), Ok(preset)) if are_those_of(saved, preset) => RaluChoice::Preset(preset),
            // Custom, or a preset that had other numbers when the picture was made.
            (Some(saved), _) => RaluChoice::Custom(saved.clone()),
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
            rng: self.rng,
            ralu,
            variant: self.ralu.variant,
            rules: self.ralu.rules.as_ref().map(RuleOverrides::from).unwrap_or_default(),
            cache: self.cache.clone(),
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
