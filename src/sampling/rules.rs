//! The choices of a RALU run that are not numbers: where one may follow the authors' code, correct
//! it, or do something that the paper does not.
//!
//! [`Variant`] makes all of them at once, [`RuleOverrides`] single ones.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Error;
use crate::names::by_serde;

/// All of the choices in [`Rules`] at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// What the authors' published code does, for comparing results with it.
    Official,
    /// What the derivation asks for, and what `docs/quality` measured to be clearly better: noise
    /// bound to coordinates.
    #[default]
    Exact,
}

by_serde!(Variant, "variant");

impl Variant {
    /// The choices this variant makes.
    pub fn rules(self) -> Rules {
        match self {
            Variant::Official => Rules {
                kept_noise: KeptNoise::Official,
                gray_map: GrayMap::Official,
                upsample: Upsample::Token,
                tie_break: TieBreak::Index,
                rope_mode: RopeMode::Official,
                region_score: RegionScore::Edges,
                jump_noise: JumpNoise::Fresh,
            },
            Variant::Exact => Rules {
                kept_noise: KeptNoise::Exact,
                gray_map: GrayMap::Fixed,
                upsample: Upsample::Token,
                tie_break: TieBreak::Gradient,
                rope_mode: RopeMode::Official,
                region_score: RegionScore::Edges,
                jump_noise: JumpNoise::Bound,
            },
        }
    }
}

/// The choices of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Rules {
    /// Noise of tokens that are not refined in a transition; only with [`JumpNoise::Fresh`].
    pub kept_noise: KeptNoise,
    /// How a decoded picture becomes grey.
    pub gray_map: GrayMap,
    /// How a coarse token becomes four fine ones.
    pub upsample: Upsample,
    /// Which of two equally edgy patches is refined.
    pub tie_break: TieBreak,
    /// How rotary positions of two grids meet in the mixed stage.
    pub rope_mode: RopeMode,
    /// What the tokens to refine early are chosen by.
    pub region_score: RegionScore,
    /// What noise the jumps put back, and onto what.
    pub jump_noise: JumpNoise,
}

impl Default for Rules {
    fn default() -> Self {
        Variant::default().rules()
    }
}

impl From<Variant> for Rules {
    fn from(variant: Variant) -> Rules {
        variant.rules()
    }
}

/// Single choices that differ from a variant's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RuleOverrides {
    /// How a coarse token becomes four fine ones.
    pub upsample: Option<Upsample>,
    /// How rotary positions of two grids meet.
    pub rope_mode: Option<RopeMode>,
    /// What regions are chosen by.
    pub region_score: Option<RegionScore>,
    /// What noise the jumps put back.
    pub jump_noise: Option<JumpNoise>,
}

impl RuleOverrides {
    /// `rules` with these choices in place of their own.
    pub fn apply(self, rules: Rules) -> Rules {
        Rules {
            upsample: self.upsample.unwrap_or(rules.upsample),
            rope_mode: self.rope_mode.unwrap_or(rules.rope_mode),
            region_score: self.region_score.unwrap_or(rules.region_score),
            jump_noise: self.jump_noise.unwrap_or(rules.jump_noise),
            ..rules
        }
    }
}

/// Noise of tokens that are not refined in a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum KeptNoise {
    /// Unit variance, as the code has it: these tokens end up `sqrt(1 + c)` too noisy.
    Official,
    /// Variance `1 - c`, which is what the derivation gives for tokens without copies.
    Exact,
}

/// How a decoder's output, nominally in `[-1, 1]`, becomes grey in `[0, 1]` for the edge search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum GrayMap {
    /// `clip(y)`, as the code has it: the darker half of the picture is black and has no edges.
    Official,
    /// `clip(y / 2 + 1/2)`.
    Fixed,
}

/// How a coarse token becomes four fine ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Upsample {
    /// The packed 2x2 patch is repeated four times (the code, and the paper's figure).
    Token,
    /// Each latent pixel is repeated four times, so that child `(p, q)` is filled with pixel
    /// `(p, q)` of its parent: nearest neighbour on the latent itself.
    Latent,
}

by_serde!(Upsample, "upsampling");

/// Which of two patches with equally many edge pixels is refined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum TieBreak {
    /// The earlier one in raster order. The code adds unseeded noise of 1e-6 instead, which in f32
    /// decides only between patches without any edge; this is one of its possible outcomes.
    Index,
    /// The one with more gradient, then the earlier one.
    Gradient,
}

/// How rotary positions of coarse and fine tokens meet in the mixed stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RopeMode {
    /// All in units of the coarse grid, fine tokens at half steps: the code.
    Official,
    /// In units of the query's own grid: cross-resolution phase-aligned attention, arXiv
    /// 2511.19778. Positions of both units are [`super::TokenLayout::positions`] and
    /// [`super::TokenLayout::positions_in_full_units`].
    Crpa,
}

by_serde!(RopeMode, "rope mode");

/// What the tokens to refine early are chosen by, at the end of the first stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RegionScore {
    /// Canny edges of the decoded clean estimate: the code.
    Edges,
    /// Gradients of the clean estimate's latents. Nothing is decoded. RALU v3's ablation has such a
    /// score without stating it; this is [`super::regions::latent_gradient`].
    LatentGradient,
    /// How much the clean estimate has changed over the first stage's steps. Nothing is decoded.
    /// AViTS (2026) has it as one half of its score.
    Variance,
}

by_serde!(RegionScore, "region score");

/// What noise the jumps put back, and onto what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum JumpNoise {
    /// New noise for each jump, anti-correlated between copies, onto the noisy state: the paper.
    Fresh,
    /// One noise field bound to the full grid's coordinates, the run's initial noise, onto the
    /// clean estimate. After Fresco, arXiv 2601.07462. See [`super::Jump::bound_gains`].
    Bound,
}

by_serde!(JumpNoise, "jump noise");

/// How strong the noise at the jumps is: RALU's free parameter `Z`, of which its schedule's quality
/// depends little once it is above about 5.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum ZPolicy {
    /// The preset's.
    #[default]
    Published,
    /// The smallest that still gives a good schedule, so that as much as possible of the coarse
    /// state is kept: see [`super::ntdm::solve_least_noise`].
    MinNoise,
    /// This one, with time shifts solved for it.
    Fixed(f64),
}

impl fmt::Display for ZPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ZPolicy::Published => f.pad("published"),
            ZPolicy::MinNoise => f.pad("min-noise"),
            ZPolicy::Fixed(z) => write!(f, "fixed={z}"),
        }
    }
}

impl FromStr for ZPolicy {
    type Err = Error;

    /// Reads `published`, `min-noise` or `fixed=NUMBER`.
    fn from_str(s: &str) -> Result<Self, Error> {
        let text = s.trim().to_ascii_lowercase().replace('_', "-");
        match text.as_str() {
            "published" => return Ok(ZPolicy::Published),
            "min-noise" => return Ok(ZPolicy::MinNoise),
            _ => {}
        }
        text.strip_prefix("fixed=")
            .or_else(|| text.strip_prefix("fixed:"))
            .and_then(|z| z.parse().ok())
            .map(ZPolicy::Fixed)
            .ok_or_else(|| Error::Unknown {
                what: "policy for Z",
                found: s.to_string(),
                expected: "published, min-noise, fixed=NUMBER",
            })
    }
}

impl Serialize for ZPolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ZPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for ZPolicy {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ZPolicy".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "anyOf": [
            { "const": "published", "description": "The preset's." },
            { "const": "min-noise", "description": "The smallest that still gives a good schedule." },
            { "type": "string", "pattern": "^fixed=", "x-typescript": "`fixed=${number}`" },
        ] })
    }
}
