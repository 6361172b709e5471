//! The configuration files of a diffusers model folder, read and checked.
//!
//! [`ModelConfig::load`] reads every `*.json` a run needs and fails with one message that names the file, the field,
//! what was found and what was expected. What it returns has been checked: sizes are positive and bounded, heads
//! divide, the parts fit together. No weight is looked at; that is [`weights`](crate::checkpoint::weights)' work.
//!
//! This file has the whole model; each JSON file has a file of its own, and `fields.rs` reads what they consist of.
//!
//! What differs from family to family is in [`Family`].

pub(crate) mod fields;
mod generation;
mod index;
pub(crate) mod places;
mod qwen3;
pub mod ranges;
mod scheduler;
mod text_encoders;
mod transformer;
mod vae;

use std::any::Any;
use std::sync::Arc;

use serde::Serialize;

use super::encoders::TextEncoderConfig;
use super::family::{EncoderSlot, FAMILIES, Family, Guidance, PartsCheck, TextLength};
use crate::checkpoint::source::{Source, SourceError};
use crate::escape::Escaped;
use crate::sampling::Preset;
use fields::shown;
use text_encoders::{fixed_length, model_max_length};

pub use generation::GenerationConfig;
pub use index::ModelIndex;
pub use qwen3::Qwen3Config;
pub use scheduler::{SchedulerConfig, TimeShiftType};
pub use text_encoders::{ClipAct, ClipConfig, T5Config};
pub use transformer::{TransformerConfig, to_json};
pub use vae::VaeConfig;

/// Why a model folder's configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages name the fields")]
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
        "{}: the weights are quantised ({}: {}), which is not supported; supported: NF4 of bitsandbytes (load_in_4bit \
         with bnb_4bit_quant_type nf4, in uint8); get this part of the model so, or in 16 or 32 bits",
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
        "{}: the pipeline class is {}, which is not supported; supported: {} and models of their architectures",
        Escaped(.path), Escaped(.found), supported_pipelines()
    )]
    Pipeline { path: String, found: String },
    /// Two files contradict each other.
    #[error(
        "{}: \"{}\" is {}, but {} needs {}; these parts do not belong together",
        Escaped(.path), Escaped(.field), Escaped(.found), Escaped(.other), Escaped(.expected)
    )]
    Mismatch { path: String, field: String, found: String, expected: String, other: String },
}

/// The result of reading a configuration.
pub(crate) type Result<T> = std::result::Result<T, ConfigError>;

fn supported_pipelines() -> String {
    let named =
        FAMILIES.iter().map(|family| format!("{} ({})", family.pipeline(), family.examples()));
    named.collect::<Vec<_>>().join(", ")
}

/// What a model folder says about itself, checked.
#[derive(Clone, Debug, Serialize)]
pub struct ModelConfig {
    /// Pipeline class and parts.
    pub index: ModelIndex,
    /// The denoiser.
    pub transformer: Arc<dyn TransformerConfig>,
    /// The text encoders that the model has, in the order in which their outputs are joined.
    pub text_encoders: Vec<TextEncoderPart>,
    /// Latent to picture.
    pub vae: VaeConfig,
    /// Noise levels of plain sampling.
    pub scheduler: SchedulerConfig,
    /// What `generation_config.json` says; empty if there is none.
    pub generation: GenerationConfig,
    /// Timestep-distilled to a few steps without guidance, in the manner of FLUX.1-schnell and SD3.5-large-turbo: see
    /// [`Family::is_distilled`].
    pub distilled: bool,
}

/// A text encoder of a model.
#[derive(Clone, Debug, Serialize)]
pub struct TextEncoderPart {
    /// Its folder.
    pub folder: &'static str,
    /// Its tokenizer's folder.
    pub tokenizer: &'static str,
    /// Tokens that it reads at most, if the tokenizer or the encoder says.
    pub max_length: Option<usize>,
    /// Its network.
    pub config: Arc<dyn TextEncoderConfig>,
    /// How many tokens it reads.
    #[serde(skip)]
    pub length: TextLength,
    /// Whether its tokens go to the denoiser.
    #[serde(skip)]
    pub gives_tokens: bool,
    /// Whether its pooled vector goes to the denoiser.
    #[serde(skip)]
    pub gives_pooled: bool,
}

impl TextEncoderPart {
    /// The encoder at `slot`.
    pub(super) fn new(
        slot: &EncoderSlot,
        max_length: Option<usize>,
        config: Arc<dyn TextEncoderConfig>,
    ) -> Self {
        let EncoderSlot { folder, tokenizer, length, gives_tokens, gives_pooled, .. } = *slot;
        TextEncoderPart {
            folder,
            tokenizer,
            max_length,
            config,
            length,
            gives_tokens,
            gives_pooled,
        }
    }

    /// Tokens that it reads, where `asked` are asked for.
    pub fn length(&self, asked: usize) -> usize {
        match (self.length, self.max_length) {
            (TextLength::Fixed, Some(length)) => length,
            _ => asked,
        }
    }
}

// Derived, it would move what the pointers to traits point to.
impl PartialEq for ModelConfig {
    fn eq(&self, other: &Self) -> bool {
        let ModelConfig {
            index,
            transformer,
            text_encoders,
            vae,
            scheduler,
            generation,
            distilled,
        } = self;
        *index == other.index
            && **transformer == *other.transformer
            && *text_encoders == other.text_encoders
            && *vae == other.vae
            && *scheduler == other.scheduler
            && *generation == other.generation
            && *distilled == other.distilled
    }
}

impl PartialEq for TextEncoderPart {
    fn eq(&self, other: &Self) -> bool {
        self.folder == other.folder
            && self.max_length == other.max_length
            && *self.config == *other.config
    }
}

/// The sub-folders that all families have.
pub mod folder {
    /// The denoiser.
    pub const TRANSFORMER: &str = "transformer";
    /// The VAE.
    pub const VAE: &str = "vae";
    /// Holds `scheduler_config.json`.
    pub const SCHEDULER: &str = "scheduler";
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
    /// Text tokens, padding included, where they can be chosen.
    pub max_sequence_length: usize,
}

impl ModelConfig {
    /// Reads and checks the configuration of the model in `source`.
    pub fn load(source: &dyn Source) -> Result<Self> {
        let index = ModelIndex::load(source)?;
        let family = index.family;
        let transformer = family.load_transformer(source, &config_of(folder::TRANSFORMER))?;
        let mut encoders = Vec::new();
        for slot in family.text_encoders() {
            if index.part(slot.folder).is_some() {
                encoders.push((slot, (slot.load)(source, &config_of(slot.folder))?));
            }
        }
        let fixed = fixed_length(source, &encoders)?;
        let mut text_encoders = Vec::new();
        for (slot, config) in encoders {
            let max_length = match slot.length {
                TextLength::Fixed => fixed,
                TextLength::Asked => model_max_length(source, slot.tokenizer)?,
            };
            text_encoders.push(TextEncoderPart::new(slot, max_length, config));
        }
        let mut config = Self {
            transformer,
            text_encoders,
            vae: VaeConfig::load(source, &config_of(folder::VAE), family.vae())?,
            scheduler: SchedulerConfig::load(
                source,
                &format!("{}/scheduler_config.json", folder::SCHEDULER),
            )?,
            generation: GenerationConfig::load(source)?,
            index,
            distilled: false,
        };
        config.check_parts(source)?;
        config.distilled = family.is_distilled(&config, &source.name());
        config.check_own_size(source)?;
        config.check_own_preset(source)?;
        Ok(config)
    }

    /// The model's family.
    pub fn family(&self) -> &'static dyn Family {
        self.index.family
    }

    /// The denoiser's configuration, if it is of the kind `C`.
    pub fn transformer_as<C: TransformerConfig>(&self) -> Option<&C> {
        (&*self.transformer as &dyn Any).downcast_ref()
    }

    /// The configurations of the text encoders of the kind `C`.
    pub fn text_encoders_as<C: TextEncoderConfig>(&self) -> impl Iterator<Item = &C> {
        let configs = self.text_encoders.iter().map(|encoder| &*encoder.config as &dyn Any);
        configs.filter_map(|config| config.downcast_ref())
    }

    /// Text tokens that the transformer sees, for `asked` tokens of the encoder whose length can be chosen.
    pub fn text_tokens(&self, asked: usize) -> usize {
        self.family().text_tokens(self, asked)
    }

    /// Tokens that encoders of fixed length read (77 of CLIP); 0 if there are none.
    pub fn fixed_text_length(&self) -> usize {
        let fixed = self.text_encoders.iter().find(|encoder| encoder.length == TextLength::Fixed);
        fixed.map_or(0, |encoder| encoder.length(0))
    }

    /// What to do when the user does not say: the model's `generation_config.json`, else [`Family::defaults`].
    pub fn defaults(&self) -> Defaults {
        let generation = &self.generation;
        let own = self.family().defaults(self);
        let (guidance, true_cfg) = match self.family().guidance(self) {
            Guidance::Distilled => {
                let guidance = generation.guidance_scale.unwrap_or(own.guidance);
                let has_input = self.transformer.has_guidance_input();
                (has_input.then_some(guidance), generation.true_cfg_scale.unwrap_or(1.0))
            }
            Guidance::ClassifierFree => {
                let scale = generation.guidance_scale.or(generation.true_cfg_scale);
                (None, scale.unwrap_or(own.guidance))
            }
        };
        let asked = self.text_encoders.iter().find(|encoder| encoder.length == TextLength::Asked);
        let limit = asked.and_then(|encoder| encoder.max_length);
        Defaults {
            width: generation.width.unwrap_or(own.side),
            height: generation.height.unwrap_or(own.side),
            steps: generation.num_inference_steps.unwrap_or(own.steps),
            guidance,
            true_cfg,
            negative_prompt: generation.negative_prompt.clone(),
            max_sequence_length: generation.max_sequence_length.unwrap_or_else(|| {
                limit.map_or(own.text_tokens, |limit| limit.min(own.text_tokens))
            }),
        }
    }

    /// The preset of RALU that a run has if nobody chooses: the model's own, else its family's.
    pub fn default_preset(&self) -> Preset {
        self.generation.ralu.unwrap_or(self.family().presets(self).default)
    }

    /// Do the parts fit together?
    fn check_parts(&self, source: &dyn Source) -> Result<()> {
        let check = PartsCheck::new(self, source);
        self.family().check_parts(&check)?;
        if let Some(pooled_dim) = self.transformer.pooled_dim() {
            let poolers: Vec<_> = self.text_encoders.iter().filter(|e| e.gives_pooled).collect();
            let files: Vec<_> = poolers.iter().map(|e| check.file(e.folder)).collect();
            let field = poolers.first().map_or("", |encoder| encoder.config.pooled_field());
            let other = format!("the {field} of {} together", files.join(" and "));
            let pooled = poolers.iter().filter_map(|encoder| encoder.config.pooled_dim()).sum();
            check.equal("pooled_projection_dim", pooled_dim, pooled, other)?;
        }
        if self.vae.scale() != 8 {
            return Err(ConfigError::Unsupported {
                path: shown(source, &config_of(folder::VAE)),
                field: "block_out_channels".into(),
                found: format!(
                    "{} levels (scale {})",
                    self.vae.block_out_channels.len(),
                    self.vae.scale()
                ),
                supported: "4 levels (8 pixels per latent pixel)".into(),
            });
        }
        Ok(())
    }
}

fn config_of(folder: &str) -> String {
    format!("{folder}/config.json")
}
