//! What the engine asks of a family of models, and the one list of them.
//!
//! A family is a folder here: the configuration of its denoiser, the network, and a type that implements [`Family`]. To
//! add one, write that folder and put the type into [`FAMILIES`]; nothing else names a family.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::adapters::AdapterNames;
use super::config::{ModelConfig, Result, TransformerConfig};
use super::encoders::TextEncoderConfig;
use super::files::Role;
use super::{flux1, flux2, sd3};
use crate::checkpoint::source::Source;
use crate::checkpoint::weights::{TensorInfo, WeightError, Weights};
use crate::sampling::{FlowMatch, PresetTable};

/// All families.
pub static FAMILIES: &[&dyn Family] = &[&flux1::Flux1, &sd3::Sd3, &flux2::Flux2];

/// A family of models: how its folders are read, and how it differs from others when it draws.
pub trait Family: Send + Sync {
    /// Its name in reports, such as `flux`.
    fn name(&self) -> &'static str;

    /// `_class_name` of its pipelines in `model_index.json`.
    fn pipeline(&self) -> &'static str;

    /// Models that it is known from, for messages.
    fn examples(&self) -> &'static str;

    /// Class of the denoiser in `model_index.json`.
    fn transformer(&self) -> &'static str;

    /// Class of the VAE in `model_index.json`.
    fn vae(&self) -> &'static str {
        "AutoencoderKL"
    }

    /// The text encoders, in the order in which their outputs are joined.
    fn text_encoders(&self) -> &'static [EncoderSlot];

    /// Reads the denoiser's configuration from `path`.
    fn load_transformer(
        &self,
        source: &dyn Source,
        path: &str,
    ) -> Result<Arc<dyn TransformerConfig>>;

    /// Whether the parts of a model fit together, where that is not the same in all families.
    fn check_parts(&self, check: &PartsCheck<'_>) -> Result<()>;

    /// Whether a model is timestep-distilled to few steps. `source_name` is what its folder is called.
    fn is_distilled(&self, config: &ModelConfig, source_name: &str) -> bool;

    /// What a run does when neither the user nor the model says.
    fn defaults(&self, config: &ModelConfig) -> FamilyDefaults;

    /// Pixels of the largest pictures that its models were trained on, as their makers say: two megapixels of FLUX.1 and of
    /// SD3.5-medium.
    fn most_pixels(&self) -> usize {
        2 << 20
    }

    /// How a run of a model is guided.
    fn guidance(&self, config: &ModelConfig) -> Guidance;

    /// The text that the encoders read for `prompt`.
    fn prompt<'t>(&self, prompt: &'t str) -> Cow<'t, str> {
        prompt.into()
    }

    /// Whether a prompt's added tokens that were trained as several are written out before it is encoded.
    fn expands_tokens(&self) -> bool {
        false
    }

    /// Text tokens that the transformer sees, for `n` tokens of the encoder whose length can be chosen.
    fn text_tokens(&self, config: &ModelConfig, n: usize) -> usize {
        let _ = config;
        n
    }

    /// Joins what the encoders with [`EncoderSlot::gives_tokens`] give, in order, to `[n_text, text_dim]`. An encoder that
    /// the model is without is left out.
    fn join_tokens(&self, config: &ModelConfig, tokens: &[Vec<f32>], n_text: usize) -> Vec<f32>;

    /// Joins what the encoders with [`EncoderSlot::gives_pooled`] give, in order, to `[1, pooled_dim]`.
    fn join_pooled(&self, pooled: &[Vec<f32>]) -> Vec<f32> {
        pooled.concat()
    }

    /// The schedule of plain sampling in `steps` steps for a picture of `n_tokens` image tokens, where `flow` is what the
    /// scheduler's file says.
    fn schedule(
        &self,
        config: &ModelConfig,
        flow: FlowMatch,
        steps: usize,
        n_tokens: usize,
    ) -> FlowMatch {
        let _ = (config, steps, n_tokens);
        flow
    }

    /// RALU's base time shift (`h_ori`) for a picture of `n_tokens` image tokens. The authors take the static one of the
    /// scheduler's file.
    fn base_time_shift(&self, config: &ModelConfig, n_tokens: usize) -> f64 {
        let _ = n_tokens;
        config.scheduler.shift
    }

    /// Noise levels of plain sampling, `steps + 1` of them, for a picture of `n_tokens` image tokens. `flow` is what
    /// [`Family::schedule`] gives.
    fn sigmas(
        &self,
        config: &ModelConfig,
        flow: &FlowMatch,
        steps: usize,
        n_tokens: usize,
    ) -> std::result::Result<Vec<f64>, crate::sampling::Error>;

    /// What the network is told of `timestep`, a noise level times the scheduler's number of training steps, rounded as on
    /// its way through diffusers.
    fn timestep(&self, timestep: f32) -> f32 {
        timestep
    }

    /// All tables of RALU's presets that models of the family may have.
    fn preset_tables(&self) -> &'static [&'static PresetTable];

    /// RALU's presets for a model, one of [`Family::preset_tables`].
    fn presets(&self, config: &ModelConfig) -> &'static PresetTable;

    /// Steps of plain sampling that RALU's speed-ups are relative to.
    fn baseline_steps(&self, config: &ModelConfig) -> usize;

    /// Whether the default numbers of temporal caches were measured on a model of this family.
    fn has_measured_caches(&self) -> bool {
        false
    }

    /// Whether diffusers draws the initial noise as `[1, 4 C, H/16, W/16]`, a token's numbers at a pixel, rather than as
    /// `[1, C, H/8, W/8]`. That is also the form in which it is given and saved.
    fn packs_noise(&self) -> bool {
        false
    }

    /// Whether diffusers keeps finished latents packed as tokens, `[1, N, 4 C]`, rather than as `[1, C, H/8, W/8]`.
    fn packs_latents(&self) -> bool;

    /// Whether layers of one input, such as queries, keys and values, are one tensor in the files of the makers.
    fn fuses_layers(&self) -> bool {
        false
    }

    /// Whether the tensors of a file, their prefix taken off, are a denoiser of the family.
    fn recognise(&self, tensors: &Weights) -> Recognised {
        let _ = tensors;
        Recognised::Other
    }

    /// What its layers are called in files of changes; `None` if those are not read.
    fn adapter_names(&self) -> Option<&'static AdapterNames> {
        None
    }

    /// Models that are known by name.
    fn known_models(&self) -> &'static [KnownModel];
}

/// What a family says of a file's tensors.
#[derive(Clone, Copy)]
pub enum Recognised {
    /// They are not a denoiser of the family.
    Other,
    /// They are one, and this is how it is read.
    Own(&'static DenoiserFile),
    /// They are of a model close to the family's that is not supported: what it is, and what to do.
    Refused(&'static str),
}

/// A tensor as the makers of a model publish it: its name, and the tensors whose rows it consists of.
pub type Original = (String, Vec<TensorInfo>);

/// How a denoiser is read from a file that has no configuration next to it.
pub struct DenoiserFile {
    /// Its tensors under the names that the network asks for.
    pub views: fn(&Weights) -> std::result::Result<Weights, WeightError>,
    /// The tensors that such views show, under the names of the file that the makers of the model published, each with those
    /// whose rows it consists of. `None` if one is there in part.
    pub originals: fn(&Weights) -> Option<Vec<Original>>,
    /// The configuration, from the shapes of those views and, for what they leave open, from what the file is called.
    pub configuration: fn(&Weights, &str) -> std::result::Result<FileConfig, WeightError>,
}

/// What the configuration files of a model would say whose denoiser has none.
pub struct FileConfig {
    /// `transformer/config.json`.
    pub transformer: serde_json::Value,
    /// `scheduler/scheduler_config.json`.
    pub scheduler: serde_json::Value,
    /// `scaling_factor` of the VAE.
    pub vae_scale: f64,
    /// `shift_factor` of the VAE.
    pub vae_shift: f64,
    /// What the shapes leave open and was assumed, for the user; empty if nothing.
    pub note: Option<String>,
}

/// Where a family has a text encoder, and what for.
pub struct EncoderSlot {
    /// Its folder.
    pub folder: &'static str,
    /// Its tokenizer's folder.
    pub tokenizer: &'static str,
    /// What it is in files of their own; `None` if those are not read.
    pub role: Option<Role>,
    /// Its class in `model_index.json`.
    pub class: &'static str,
    /// Whether a model may be without it.
    pub optional: bool,
    /// Whether its tokens are used: see [`Family::join_tokens`].
    pub gives_tokens: bool,
    /// Whether its pooled vector is used: see [`Family::join_pooled`].
    pub gives_pooled: bool,
    /// How many tokens it reads.
    pub length: TextLength,
    /// Reads its configuration from a path.
    pub load: fn(&dyn Source, &str) -> Result<Arc<dyn TextEncoderConfig>>,
}

/// How many tokens a text encoder reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextLength {
    /// Always as many as its tokenizer says.
    Fixed,
    /// As many as the user asks for.
    Asked,
}

/// What a run does when neither the user nor the model says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FamilyDefaults {
    /// Width and height in pixels.
    pub side: usize,
    /// Steps of plain sampling.
    pub steps: usize,
    /// The family's guidance: distilled where [`Guidance::Distilled`], else the scale of classifier-free guidance.
    pub guidance: f64,
    /// Text tokens, padding included.
    pub text_tokens: usize,
}

/// How a model is guided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guidance {
    /// By an input of the network. Classifier-free guidance is apart from it, and off by default.
    Distilled,
    /// By one scale of classifier-free guidance, which diffusers calls guidance.
    ClassifierFree,
}

/// A published model.
pub struct KnownModel {
    /// What it is called here.
    pub name: &'static str,
    /// Its repositories on the Hugging Face hub, as it spells them. The first has all parts in diffusers' layout.
    pub repositories: &'static [&'static str],
    /// The licence that its publisher gives it, as the hub names it.
    pub licence: &'static str,
    /// Where its denoiser lies in fewer bits; `None` if no such files are known.
    pub quantised: Option<QuantisedFiles>,
    /// Its configuration, equal to what its folder says.
    pub config: fn() -> ModelConfig,
}

/// Files on the Hugging Face hub that hold a model's denoiser, each in another number format.
pub struct QuantisedFiles {
    /// Their repository.
    pub repository: &'static str,
    /// What they are called; `{}` stands for the format.
    pub file: &'static str,
    /// The formats: what they are called here, and in the files' names.
    pub formats: &'static [(&'static str, &'static str)],
}

/// Compares fields of the transformer's configuration with those of other parts.
pub struct PartsCheck<'a> {
    /// The model.
    pub config: &'a ModelConfig,
    /// Its files.
    source: &'a dyn Source,
}

impl<'a> PartsCheck<'a> {
    /// For a model whose files are in `source`.
    pub(super) fn new(config: &'a ModelConfig, source: &'a dyn Source) -> Self {
        PartsCheck { config, source }
    }

    /// The configuration of the part in `folder`, as messages show it.
    pub fn file(&self, folder: &str) -> String {
        self.source.shown(&format!("{folder}/config.json"))
    }

    /// The transformer's `field`, which is `found`, should be `expected`, because `other` says so.
    pub fn equal(&self, field: &str, found: usize, expected: usize, other: String) -> Result<()> {
        if found == expected {
            return Ok(());
        }
        self.mismatch(field, found, expected.to_string(), other)
    }

    /// The error that the transformer's `field` is `found`, not what `other` needs.
    pub fn mismatch(
        &self,
        field: &str,
        found: usize,
        expected: String,
        other: String,
    ) -> Result<()> {
        Err(super::config::ConfigError::Mismatch {
            path: self.file(super::config::folder::TRANSFORMER),
            field: field.into(),
            found: found.to_string(),
            expected,
            other,
        })
    }

    /// Compares the width of a text token with what the encoder gives whose length can be chosen.
    pub fn text_width(&self) -> Result<()> {
        let encoders = self.config.text_encoders.iter();
        for encoder in encoders.filter(|encoder| encoder.length == TextLength::Asked) {
            let field = encoder.config.token_field();
            let other = format!("{}'s {field}", self.file(encoder.folder));
            let (found, expected) =
                (self.config.transformer.text_dim(), encoder.config.token_dim());
            self.equal("joint_attention_dim", found, expected, other)?;
        }
        Ok(())
    }

    /// Compares the latent channels in and out with the VAE's, of which a token or patch has `times` as many.
    pub fn latent_channels(&self, channels: [usize; 2], times: usize) -> Result<()> {
        let latent = self.config.vae.latent_channels;
        let vae = match times {
            1 => format!("{}'s latent_channels", self.file(super::config::folder::VAE)),
            _ => format!("{}'s latent_channels x {times}", self.file(super::config::folder::VAE)),
        };
        let [channels_in, channels_out] = channels;
        self.equal("in_channels", channels_in, times * latent, vae.clone())?;
        self.equal("out_channels", channels_out, times * latent, vae)
    }
}

impl PartialEq for dyn Family {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl fmt::Debug for dyn Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for dyn Family {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
