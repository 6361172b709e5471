//! The configuration files of a diffusers model folder, read and checked.
//!
//! [`ModelConfig::load`] reads every `*.json` a run needs and fails with one message that names the file, the field,
//! what was found and what was expected. What it returns has been checked: sizes are positive and bounded, heads
//! divide, the parts fit together. No weight is looked at; that is [`weights`](super::weights)' work.
//!
//! This file has the whole model; each JSON file has a file of its own, and `fields.rs` reads what they consist of.
//!
//! Today one family is known, FLUX.1. Family-specific things sit in [`TransformerConfig`] and [`Folders`]; a second
//! family adds a variant there and a match arm in [`ModelConfig::load`].

mod fields;
mod generation;
mod index;
mod scheduler;
mod text_encoders;
mod transformer;
mod vae;

use serde::Serialize;

use super::source::{Source, SourceError};
use fields::shown;
use text_encoders::model_max_length;

pub use generation::GenerationConfig;
pub use index::ModelIndex;
pub use scheduler::{SchedulerConfig, TimeShiftType};
pub use text_encoders::{ClipAct, ClipConfig, T5Config};
pub use transformer::{FluxConfig, TransformerConfig};
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
        "{path}: no such file; expected a diffusers folder with model_index.json, transformer/, text_encoder/, \
         text_encoder_2/, vae/ and scheduler/ (found here: {found})"
    )]
    MissingFile { path: String, found: String },
    /// A file is not JSON.
    #[error("{path}: not valid JSON ({reason}); fetch the file again")]
    Json { path: String, reason: String },
    /// A field is not there.
    #[error("{path}: the field \"{field}\" is missing; expected {expected}")]
    MissingField { path: String, field: String, expected: String },
    /// A field has a value that makes no sense.
    #[error("{path}: \"{field}\" is {found}; expected {expected}")]
    Field { path: String, field: String, found: String, expected: String },
    /// A field has a value that makes sense, but not to us.
    #[error("{path}: \"{field}\" is {found}, which is not supported; supported: {supported}")]
    Unsupported { path: String, field: String, found: String, supported: String },
    /// A pipeline class we do not know.
    #[error(
        "{path}: the pipeline class is {found}, which is not supported; supported: FluxPipeline \
         (FLUX.1-dev, FLUX.1-schnell and models of their architecture)"
    )]
    Pipeline { path: String, found: String },
    /// A pipeline class we know, but cannot run yet.
    #[error(
        "{path}: the pipeline class is {found}; Stable Diffusion 3 is not supported yet, only FluxPipeline is"
    )]
    NotYet { path: String, found: String },
    /// Two files contradict each other.
    #[error(
        "{path}: \"{field}\" is {found}, but {other} needs {expected}; the model folder mixes parts that do not belong together"
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
    /// The CLIP text encoder, which makes the pooled vector.
    pub clip: ClipConfig,
    /// The T5 encoder, which makes the text tokens.
    pub t5: T5Config,
    /// Latent to picture.
    pub vae: VaeConfig,
    /// Noise levels of plain sampling.
    pub scheduler: SchedulerConfig,
    /// What `generation_config.json` says; empty if there is none.
    pub generation: GenerationConfig,
    /// `model_max_length` of the T5 tokenizer, unless absent or the "no limit" sentinel.
    pub t5_max_length: Option<usize>,
}

/// Model families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// FLUX.1: two-stream and one-stream blocks, rotary positions, CLIP-L and T5-XXL.
    Flux,
}

/// Where a family keeps its parts inside a diffusers folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Folders {
    /// The denoiser.
    pub transformer: &'static str,
    /// The CLIP text encoder.
    pub clip: &'static str,
    /// Its tokenizer.
    pub clip_tokenizer: &'static str,
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
                clip: "text_encoder",
                clip_tokenizer: "tokenizer",
                t5: "text_encoder_2",
                t5_tokenizer: "tokenizer_2",
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
    pub fn load(source: &dyn Source) -> Result<Self> {
        let index = ModelIndex::load(source)?;
        let folders = index.family.folders();
        let transformer = match index.family {
            Family::Flux => {
                TransformerConfig::Flux(FluxConfig::load(source, &config_of(folders.transformer))?)
            }
        };
        let config = Self {
            transformer,
            clip: ClipConfig::load(source, &config_of(folders.clip))?,
            t5: T5Config::load(source, &config_of(folders.t5))?,
            vae: VaeConfig::load(source, &config_of(folders.vae))?,
            scheduler: SchedulerConfig::load(
                source,
                &format!("{}/scheduler_config.json", folders.scheduler),
            )?,
            generation: GenerationConfig::load(source)?,
            t5_max_length: model_max_length(source, folders.t5_tokenizer)?,
            index,
        };
        config.check_parts(source)?;
        Ok(config)
    }

    /// The FLUX transformer's configuration.
    pub fn flux(&self) -> &FluxConfig {
        let TransformerConfig::Flux(flux) = &self.transformer;
        flux
    }

    /// The model's family.
    pub fn family(&self) -> Family {
        self.index.family
    }

    /// Where this model's parts lie.
    pub fn folders(&self) -> Folders {
        self.index.family.folders()
    }

    /// Timestep-distilled in the manner of FLUX.1-schnell: no guidance input, no dynamic time shift.
    pub fn is_schnell(&self) -> bool {
        !self.flux().guidance_embeds && !self.scheduler.use_dynamic_shifting
    }

    /// What to do when the user does not say.
    ///
    /// Family values: diffusers' `FluxPipeline.__call__` (28 steps, guidance 3.5, 512 tokens, 1024 x 1024) and the
    /// FLUX.1-schnell model card (4 steps, 256 tokens).
    pub fn defaults(&self) -> Defaults {
        let (steps, tokens) = if self.is_schnell() { (4, 256) } else { (28, 512) };
        let generation = &self.generation;
        let guidance = generation.guidance_scale.unwrap_or(3.5);
        Defaults {
            width: generation.width.unwrap_or(1024),
            height: generation.height.unwrap_or(1024),
            steps: generation.num_inference_steps.unwrap_or(steps),
            guidance: self.flux().guidance_embeds.then_some(guidance),
            true_cfg: generation.true_cfg_scale.unwrap_or(1.0),
            negative_prompt: generation.negative_prompt.clone(),
            max_sequence_length: generation
                .max_sequence_length
                .unwrap_or_else(|| self.t5_max_length.map_or(tokens, |limit| limit.min(tokens))),
        }
    }

    /// Do the parts fit together?
    fn check_parts(&self, source: &dyn Source) -> Result<()> {
        let folders = self.folders();
        let flux = self.flux();
        let path = shown(source, &config_of(folders.transformer));
        let check = |field: &str, found: usize, expected: usize, other: String| {
            if found == expected {
                return Ok(());
            }
            Err(ConfigError::Mismatch {
                path: path.clone(),
                field: field.into(),
                found: found.to_string(),
                expected: expected.to_string(),
                other,
            })
        };
        let vae = format!("{}'s latent_channels x 4", config_of(folders.vae));
        check("in_channels", flux.in_channels, 4 * self.vae.latent_channels, vae.clone())?;
        check("out_channels", flux.out_channels, 4 * self.vae.latent_channels, vae)?;
        let t5 = format!("{}'s d_model", config_of(folders.t5));
        check("joint_attention_dim", flux.joint_attention_dim, self.t5.d_model, t5)?;
        let clip = format!("{}'s hidden_size", config_of(folders.clip));
        check("pooled_projection_dim", flux.pooled_projection_dim, self.clip.hidden_size, clip)?;
        if self.vae.scale() != 8 {
            return Err(ConfigError::Unsupported {
                path: shown(source, &config_of(folders.vae)),
                field: "block_out_channels".into(),
                found: format!(
                    "{} levels (scale {})",
                    self.vae.block_out_channels.len(),
                    self.vae.scale()
                ),
                supported: "4 levels (8 pixels per latent pixel), as FLUX has".into(),
            });
        }
        Ok(())
    }
}

fn config_of(folder: &str) -> String {
    format!("{folder}/config.json")
}
