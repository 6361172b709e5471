//! The configuration files of a diffusers model folder, read and checked.
//!
//! [`ModelConfig::load`] reads every `*.json` a run needs and fails with one message that names the file, the field,
//! what was found and what was expected. What it returns has been checked: sizes are positive and bounded, heads
//! divide, the parts fit together. No weight is looked at; that is [`weights`](super::weights)' work.
//!
//! This file has the whole model; each JSON file has a file of its own, and `fields.rs` reads what they consist of.
//!
//! Two families are known, FLUX.1 and Stable Diffusion 3. What differs between them sits in [`TransformerConfig`],
//! [`Folders`] and [`Family`]; another family adds a variant there and a match arm in [`ModelConfig::load`].

mod fields;
mod generation;
mod index;
pub(crate) mod places;
pub mod ranges;
mod scheduler;
mod text_encoders;
mod transformer;
mod vae;

use serde::Serialize;

use crate::checkpoint::source::{Source, SourceError};
use crate::escape::Escaped;
use fields::shown;
use text_encoders::{clip_max_length, model_max_length};

pub use generation::GenerationConfig;
pub use index::ModelIndex;
pub use scheduler::{SchedulerConfig, TimeShiftType};
pub use text_encoders::{ClipAct, ClipConfig, T5Config};
pub use transformer::{FluxConfig, Sd3Config, TransformerConfig};
pub use vae::VaeConfig;

/// Why a model folder's configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The bytes could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A configuration file is not there.
    #[error(
        "{}: no such file; expected a diffusers folder with model_index.json, transformer/, text_encoder/, \
         text_encoder_2/, vae/ and scheduler/ (found here: {}){}",
        Escaped(.path), Escaped(.found), Escaped(.hint)
    )]
    MissingFile {
        path: String,
        found: String,
        /// What the folder is instead and what to do, after a semicolon; may be empty.
        hint: String,
    },
    /// A file is not JSON.
    #[error("{}: not valid JSON ({}); fetch the file again", Escaped(.path), Escaped(.reason))]
    Json { path: String, reason: String },
    /// A field is not there.
    #[error(
        "{}: the field \"{}\" is missing; expected {}",
        Escaped(.path), Escaped(.field), Escaped(.expected)
    )]
    MissingField { path: String, field: String, expected: String },
    /// A part of the pipeline is null.
    #[error(
        "{}: \"{}\" is null: the pipeline was saved without this part; the part is missing, expected {}; get the whole \
         model, or save it again with this part",
        Escaped(.path), Escaped(.part), Escaped(.expected)
    )]
    NullPart { path: String, part: String, expected: String },
    /// A field has a value that makes no sense.
    #[error(
        "{}: \"{}\" is {}; expected {}",
        Escaped(.path), Escaped(.field), Escaped(.found), Escaped(.expected)
    )]
    Field { path: String, field: String, found: String, expected: String },
    /// A field has a value that makes sense, but not to us.
    #[error(
        "{}: \"{}\" is {}, which is not supported; supported: {}",
        Escaped(.path), Escaped(.field), Escaped(.found), Escaped(.supported)
    )]
    Unsupported { path: String, field: String, found: String, supported: String },
    /// The weights of a part are quantised.
    #[error(
        "{}: the weights are quantised ({}: {}), which is not supported; get this part of the model in 16 or 32 bits",
        Escaped(.path), Escaped(.field), Escaped(.how)
    )]
    Quantised {
        path: String,
        /// The field that says so.
        field: String,
        /// Its value.
        how: String,
    },
    /// A pipeline class we do not know.
    #[error(
        "{}: the pipeline class is {}, which is not supported; supported: FluxPipeline (FLUX.1-dev, \
         FLUX.1-schnell), StableDiffusion3Pipeline (SD3, SD3.5) and models of their architectures",
        Escaped(.path), Escaped(.found)
    )]
    Pipeline { path: String, found: String },
    /// Two files contradict each other.
    #[error(
        "{}: \"{}\" is {}, but {} needs {}; the model folder mixes parts that do not belong together",
        Escaped(.path), Escaped(.field), Escaped(.found), Escaped(.other), Escaped(.expected)
    )]
    Mismatch { path: String, field: String, found: String, expected: String, other: String },
}

type Result<T> = std::result::Result<T, ConfigError>;

/// What a model folder says about itself, checked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelConfig {
    /// Pipeline class and parts.
    pub index: ModelIndex,
    /// The denoiser.
    pub transformer: TransformerConfig,
    /// The CLIP text encoders: FLUX's makes the pooled vector; SD3's two make one half of it each, and 77 text
    /// tokens between them.
    pub clips: Vec<ClipConfig>,
    /// The T5 encoder, which makes the other text tokens. SD3 may do without.
    pub t5: Option<T5Config>,
    /// Latent to picture.
    pub vae: VaeConfig,
    /// Noise levels of plain sampling.
    pub scheduler: SchedulerConfig,
    /// What `generation_config.json` says; empty if there is none.
    pub generation: GenerationConfig,
    /// Tokens that CLIP reads (77): the `model_max_length` of its tokenizer, else the places in its table of positions.
    pub clip_max_length: usize,
    /// `model_max_length` of the T5 tokenizer, unless absent or the "no limit" sentinel.
    pub t5_max_length: Option<usize>,
    /// Timestep-distilled to about four steps without guidance, in the manner of FLUX.1-schnell and
    /// SD3.5-large-turbo: see [`ModelConfig::load`].
    pub distilled: bool,
}

/// Model families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// FLUX.1: two-stream and one-stream blocks, rotary positions, CLIP-L and T5-XXL.
    Flux,
    /// Stable Diffusion 3 and 3.5: two-stream blocks, a table of positions, CLIP-L, CLIP-G and T5-XXL.
    Sd3,
}

/// Where a family keeps its parts inside a diffusers folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Folders {
    /// The denoiser.
    pub transformer: &'static str,
    /// The CLIP text encoders, each with its tokenizer.
    pub clips: &'static [(&'static str, &'static str)],
    /// The T5 encoder.
    pub t5: &'static str,
    /// Its tokenizer.
    pub t5_tokenizer: &'static str,
    /// The VAE.
    pub vae: &'static str,
    /// Holds `scheduler_config.json`.
    pub scheduler: &'static str,
}

impl Family {
    /// The sub-folders of this family's parts.
    pub const fn folders(self) -> Folders {
        match self {
            Family::Flux => Folders {
                transformer: "transformer",
                clips: &[("text_encoder", "tokenizer")],
                t5: "text_encoder_2",
                t5_tokenizer: "tokenizer_2",
                vae: "vae",
                scheduler: "scheduler",
            },
            Family::Sd3 => Folders {
                transformer: "transformer",
                clips: &[("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")],
                t5: "text_encoder_3",
                t5_tokenizer: "tokenizer_3",
                vae: "vae",
                scheduler: "scheduler",
            },
        }
    }
}

/// File name stems of weights, as diffusers and transformers write them.
pub mod stem {
    /// For diffusers parts: transformer and VAE.
    pub const DIFFUSERS: &str = "diffusion_pytorch_model";
    /// For transformers parts: the text encoders.
    pub const TRANSFORMERS: &str = "model";
}

/// What a run does when the user does not say: the model's `generation_config.json`, else the family's habit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Defaults {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Plain sampling steps.
    pub steps: usize,
    /// Distilled guidance; meaningless (and `None`) for a transformer without guidance input.
    pub guidance: Option<f64>,
    /// Scale of classifier-free guidance; 1 = off.
    pub true_cfg: f64,
    /// The text that classifier-free guidance steers away from.
    pub negative_prompt: Option<String>,
    /// T5 tokens, padding included.
    pub max_sequence_length: usize,
}

impl ModelConfig {
    /// Reads and checks the configuration of the model in `source`.
    ///
    /// Whether a model is timestep-distilled is not written in any one place. A FLUX model is if it has neither a
    /// guidance input nor a dynamic time shift (FLUX.1-schnell). An SD3 model is if its `generation_config.json` asks
    /// for at most 8 steps, or, without that, if its folder or `_name_or_path` has "turbo" in its
    /// name: the files of SD3.5-large-turbo are otherwise those of SD3.5-large.
    pub fn load(source: &dyn Source) -> Result<Self> {
        let index = ModelIndex::load(source)?;
        let folders = index.family.folders();
        let path = config_of(folders.transformer);
        let transformer = match index.family {
            Family::Flux => TransformerConfig::Flux(FluxConfig::load(source, &path)?),
            Family::Sd3 => TransformerConfig::Sd3(Sd3Config::load(source, &path)?),
        };
        let projected = index.family == Family::Sd3;
        let clips = folders
            .clips
            .iter()
            .map(|(folder, _)| ClipConfig::load(source, &config_of(folder), projected))
            .collect::<Result<Vec<_>>>()?;
        let has_t5 = index.part(folders.t5).is_some();
        let clip_max_length = clip_max_length(source, folders.clips, &clips)?;
        let mut config = Self {
            transformer,
            clips,
            t5: has_t5.then(|| T5Config::load(source, &config_of(folders.t5))).transpose()?,
            vae: VaeConfig::load(source, &config_of(folders.vae))?,
            scheduler: SchedulerConfig::load(
                source,
                &format!("{}/scheduler_config.json", folders.scheduler),
            )?,
            generation: GenerationConfig::load(source)?,
            clip_max_length,
            t5_max_length: match has_t5 {
                true => model_max_length(source, folders.t5_tokenizer)?,
                false => None,
            },
            index,
            distilled: false,
        };
        config.check_parts(source)?;
        config.distilled = config.looks_distilled(&source.name());
        config.check_own_size(source)?;
        Ok(config)
    }

    fn looks_distilled(&self, name: &str) -> bool {
        match (&self.transformer, self.generation.num_inference_steps) {
            (TransformerConfig::Flux(flux), _) => {
                !flux.guidance_embeds && !self.scheduler.use_dynamic_shifting
            }
            (TransformerConfig::Sd3(_), Some(steps)) => steps <= DISTILLED_STEPS,
            (TransformerConfig::Sd3(_), None) => {
                says_turbo(name) || self.index.name_or_path.as_deref().is_some_and(says_turbo)
            }
        }
    }

    /// The model's family.
    pub fn family(&self) -> Family {
        self.index.family
    }

    /// Where this model's parts lie.
    pub fn folders(&self) -> Folders {
        self.index.family.folders()
    }

    /// Text tokens that the transformer sees: T5's, in SD3 after CLIP's 77.
    ///
    /// An SD3 folder without T5 has as many tokens of zeros in its place, as in diffusers.
    pub fn text_tokens(&self, t5_tokens: usize) -> usize {
        match self.family() {
            Family::Flux => t5_tokens,
            Family::Sd3 => self.clip_tokens() + t5_tokens,
        }
    }

    /// Tokens that CLIP reads (77).
    pub fn clip_tokens(&self) -> usize {
        self.clip_max_length
    }

    /// What to do when the user does not say.
    ///
    /// Family values: diffusers' `FluxPipeline.__call__` (28 steps, guidance 3.5, 512 tokens, 1024 x 1024) and the
    /// FLUX.1-schnell model card (4 steps, 256 tokens); `StableDiffusion3Pipeline.__call__` (28 steps, guidance 7,
    /// 256 tokens, the transformer's `sample_size`) and the SD3.5-large-turbo model card (4 steps, no guidance).
    pub fn defaults(&self) -> Defaults {
        let generation = &self.generation;
        let steps = if self.distilled { 4 } else { 28 };
        let (tokens, side) = match &self.transformer {
            TransformerConfig::Flux(_) => (if self.distilled { 256 } else { 512 }, 1024),
            TransformerConfig::Sd3(sd3) => (256, sd3.sample_size * self.vae.scale()),
        };
        let (guidance, true_cfg) = match &self.transformer {
            TransformerConfig::Flux(flux) => {
                let guidance = generation.guidance_scale.unwrap_or(3.5);
                (flux.guidance_embeds.then_some(guidance), generation.true_cfg_scale.unwrap_or(1.0))
            }
            // One scale, which diffusers calls guidance.
            TransformerConfig::Sd3(_) => {
                let own = if self.distilled { 1.0 } else { 7.0 };
                (None, generation.guidance_scale.or(generation.true_cfg_scale).unwrap_or(own))
            }
        };
        Defaults {
            width: generation.width.unwrap_or(side),
            height: generation.height.unwrap_or(side),
            steps: generation.num_inference_steps.unwrap_or(steps),
            guidance,
            true_cfg,
            negative_prompt: generation.negative_prompt.clone(),
            max_sequence_length: generation
                .max_sequence_length
                .unwrap_or_else(|| self.t5_max_length.map_or(tokens, |limit| limit.min(tokens))),
        }
    }

    /// Do the parts fit together?
    fn check_parts(&self, source: &dyn Source) -> Result<()> {
        let folders = self.folders();
        let path = shown(source, &config_of(folders.transformer));
        let mismatch = |field: &str, found: usize, expected: String, other: String| {
            Err(ConfigError::Mismatch {
                path: path.clone(),
                field: field.into(),
                found: found.to_string(),
                expected,
                other,
            })
        };
        let check = |field: &str, found: usize, expected: usize, other: String| {
            if found == expected {
                return Ok(());
            }
            mismatch(field, found, expected.to_string(), other)
        };
        let vae = config_of(folders.vae);
        let latent = self.vae.latent_channels;
        match &self.transformer {
            TransformerConfig::Flux(flux) => {
                let vae = format!("{vae}'s latent_channels x 4");
                check("in_channels", flux.in_channels, 4 * latent, vae.clone())?;
                check("out_channels", flux.out_channels, 4 * latent, vae)?;
            }
            TransformerConfig::Sd3(sd3) => {
                let vae = format!("{vae}'s latent_channels");
                check("in_channels", sd3.in_channels, latent, vae.clone())?;
                check("out_channels", sd3.out_channels, latent, vae)?;
            }
        }
        let (text_dim, pooled_dim) = (self.transformer.text_dim(), self.transformer.pooled_dim());
        if let Some(t5) = &self.t5 {
            let t5_config = format!("{}'s d_model", config_of(folders.t5));
            check("joint_attention_dim", text_dim, t5.d_model, t5_config)?;
        }
        let clips: Vec<String> =
            folders.clips.iter().map(|(folder, _)| config_of(folder)).collect();
        let pooled = self.clips.iter().map(ClipConfig::pooled_dim).sum();
        let pooled_field =
            if self.family() == Family::Sd3 { "projection_dim" } else { "hidden_size" };
        let other = format!("the {pooled_field} of {} together", clips.join(" and "));
        check("pooled_projection_dim", pooled_dim, pooled, other)?;
        if self.family() == Family::Sd3 {
            let width: usize = self.clips.iter().map(|clip| clip.hidden_size).sum();
            if width > text_dim {
                let other = format!("the hidden_size of {} together", clips.join(" and "));
                return mismatch(
                    "joint_attention_dim",
                    text_dim,
                    format!("at least {width}"),
                    other,
                );
            }
        }
        if self.vae.scale() != 8 {
            return Err(ConfigError::Unsupported {
                path: shown(source, &config_of(folders.vae)),
                field: "block_out_channels".into(),
                found: format!(
                    "{} levels (scale {})",
                    self.vae.block_out_channels.len(),
                    self.vae.scale()
                ),
                supported: "4 levels (8 pixels per latent pixel), as FLUX and SD3 have".into(),
            });
        }
        Ok(())
    }
}

/// The most steps that a timestep-distilled model asks for.
const DISTILLED_STEPS: usize = 8;

/// Whether the last part of a path has "turbo" in it, or the part that is a model's name in the Hugging Face cache:
/// `models--OWNER--NAME/snapshots/HASH`.
fn says_turbo(path: &str) -> bool {
    let mut parts = path.rsplit(['/', '\\']).filter(|part| !part.is_empty());
    let named = |part: &str| part.to_ascii_lowercase().contains("turbo");
    parts.next().is_some_and(named) || parts.any(|part| part.starts_with("models--") && named(part))
}

fn config_of(folder: &str) -> String {
    format!("{folder}/config.json")
}
