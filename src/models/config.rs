//! The configuration files of a diffusers model folder, read and checked.
//!
//! [`ModelConfig::load`] reads every `*.json` a run needs and fails with one message that names the file, the field,
//! what was found and what was expected. What it returns has been checked: sizes are positive and bounded, heads
//! divide, the parts fit together. No weight is looked at; that is [`weights`](super::weights)' work.
//!
//! Today one family is known, FLUX.1. Family-specific things sit in [`TransformerConfig`] and [`Folders`]; a second
//! family adds a variant there and a match arm in [`ModelConfig::load`].

use serde::Serialize;
use serde_json::{Map, Value};

use super::source::{Source, SourceError};

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

// ---------------------------------------------------------------------------------------------------------------------
// The whole model

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

/// The denoiser, by family.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "family", rename_all = "snake_case")]
pub enum TransformerConfig {
    /// FLUX.1.
    Flux(FluxConfig),
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

/// `path` as messages show it.
pub(crate) fn shown(source: &dyn Source, path: &str) -> String {
    format!("{}/{path}", source.name().trim_end_matches('/'))
}

// ---------------------------------------------------------------------------------------------------------------------
// model_index.json

/// `model_index.json`: which pipeline, made of which parts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelIndex {
    /// `_class_name`, e.g. `FluxPipeline`.
    pub class: String,
    /// The family that class belongs to.
    pub family: Family,
    /// `(part, library, class)` of every part that is present, in file order of names.
    pub parts: Vec<(String, String, String)>,
}

impl ModelIndex {
    /// Reads `model_index.json`.
    pub fn load(source: &dyn Source) -> Result<Self> {
        let fields = Fields::open(source, "model_index.json")?;
        let class = fields.string("_class_name")?;
        let family = match class.as_str() {
            "FluxPipeline" => Family::Flux,
            "StableDiffusion3Pipeline" => {
                return Err(ConfigError::NotYet { path: fields.path, found: class });
            }
            _ => return Err(ConfigError::Pipeline { path: fields.path, found: class }),
        };
        let mut parts = Vec::new();
        for (name, value) in &fields.map {
            if let Some([Value::String(library), Value::String(class)]) =
                value.as_array().map(Vec::as_slice)
            {
                parts.push((name.clone(), library.clone(), class.clone()));
            }
        }
        let index = Self { class, family, parts };
        match family {
            Family::Flux => {
                index.expect(&fields, "transformer", &["FluxTransformer2DModel"])?;
                index.expect(&fields, "text_encoder", &["CLIPTextModel"])?;
                index.expect(&fields, "text_encoder_2", &["T5EncoderModel"])?;
                // Not the tokenizers: transformers has renamed their classes, and their files say what they are.
                index.expect(&fields, "vae", &["AutoencoderKL"])?;
                index.expect(&fields, "scheduler", &["FlowMatchEulerDiscreteScheduler"])?;
            }
        }
        Ok(index)
    }

    /// The class of a part, if the model has that part.
    pub fn part(&self, name: &str) -> Option<&str> {
        self.parts.iter().find(|(part, ..)| part == name).map(|(_, _, class)| class.as_str())
    }

    fn expect(&self, fields: &Fields, part: &str, classes: &[&str]) -> Result<()> {
        match self.part(part) {
            None => Err(fields.missing(part, &format!("a part of class {}", classes.join(" or ")))),
            Some(class) if classes.contains(&class) => Ok(()),
            Some(class) => Err(fields.unsupported(part, format!("a {class}"), &classes.join(", "))),
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// transformer/config.json

/// `FluxTransformer2DModel`. Defaults as in diffusers' `transformer_flux.py`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FluxConfig {
    /// Numbers per packed image token: 4 x latent channels (64).
    pub in_channels: usize,
    /// Numbers per velocity token; `in_channels` if the file says null.
    pub out_channels: usize,
    /// Double blocks (19).
    pub num_layers: usize,
    /// Single blocks (38).
    pub num_single_layers: usize,
    /// D, numbers per head (128).
    pub attention_head_dim: usize,
    /// H (24).
    pub num_attention_heads: usize,
    /// Numbers per T5 token (4096).
    pub joint_attention_dim: usize,
    /// Numbers of the CLIP vector (768).
    pub pooled_projection_dim: usize,
    /// Whether distilled guidance is an input (dev: yes, schnell: no).
    pub guidance_embeds: bool,
    /// Rotary dimensions per position axis; even, sum D.
    pub axes_dims_rope: Vec<usize>,
}

impl FluxConfig {
    /// Width of a token inside the transformer: heads x head dim (3072).
    pub fn hidden(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Width of the feed-forward layers: 4 x hidden.
    pub fn mlp(&self) -> usize {
        4 * self.hidden()
    }

    /// Width of the sinusoidal embedding of timestep and guidance; fixed in the architecture.
    pub const TIME_CHANNELS: usize = 256;

    /// Reads a transformer's `config.json`.
    pub fn load(source: &dyn Source, path: &str) -> Result<Self> {
        let fields = Fields::open(source, path)?;
        fields.class("_class_name", "FluxTransformer2DModel")?;
        let in_channels = fields.count("in_channels")?;
        let config = Self {
            in_channels,
            out_channels: fields.count_or("out_channels", in_channels)?,
            num_layers: fields.layers("num_layers")?,
            num_single_layers: fields.layers("num_single_layers")?,
            attention_head_dim: fields.count("attention_head_dim")?,
            num_attention_heads: fields.count("num_attention_heads")?,
            joint_attention_dim: fields.count("joint_attention_dim")?,
            pooled_projection_dim: fields.count("pooled_projection_dim")?,
            guidance_embeds: fields.flag_or("guidance_embeds", false)?,
            axes_dims_rope: fields.counts_or("axes_dims_rope", &[16, 56, 56])?,
        };
        let patch_size = fields.count_or("patch_size", 1)?;
        if patch_size != 1 {
            return Err(fields.unsupported("patch_size", patch_size, "1"));
        }
        fields.width(
            "num_attention_heads x attention_head_dim",
            config.num_attention_heads,
            config.attention_head_dim,
        )?;
        let axes = &config.axes_dims_rope;
        if axes.len() != 3
            || axes.iter().any(|dim| dim % 2 == 1)
            || axes.iter().sum::<usize>() != config.attention_head_dim
        {
            let expected = format!(
                "3 even numbers whose sum is attention_head_dim = {}",
                config.attention_head_dim
            );
            return Err(fields.wrong("axes_dims_rope", format!("{axes:?}"), &expected));
        }
        Ok(config)
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// text_encoder/config.json

/// CLIP's activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClipAct {
    /// `x * sigmoid(1.702 x)`.
    QuickGelu,
    /// Exact (erf) GELU.
    Gelu,
}

/// `CLIPTextModel`. Absent fields have the defaults of transformers' `CLIPTextConfig`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClipConfig {
    /// Rows of the token table (49408).
    pub vocab_size: usize,
    /// Width of a token (768).
    pub hidden_size: usize,
    /// Width of the feed-forward layer (3072).
    pub intermediate_size: usize,
    /// Blocks (12).
    pub num_hidden_layers: usize,
    /// Heads; divides `hidden_size` (12).
    pub num_attention_heads: usize,
    /// Rows of the position table; also the number of tokens (77).
    pub max_position_embeddings: usize,
    /// Activation between the feed-forward layers.
    pub hidden_act: ClipAct,
    /// Added to the variance (1e-5).
    pub layer_norm_eps: f64,
    /// See [`ClipConfig::pooled_position`].
    pub eos_token_id: u32,
}

impl ClipConfig {
    /// Numbers per head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Which token's final hidden state is the pooled vector.
    ///
    /// transformers' `CLIPTextTransformer.forward`: with the legacy `eos_token_id == 2` (which the FLUX.1 repositories
    /// have) the first position of the largest id, else the first position equal to `eos_token_id`; 0 if there is
    /// none (that is what `argmax` over zeros gives).
    pub fn pooled_position(&self, ids: &[u32]) -> usize {
        if self.eos_token_id == 2 {
            let largest = ids.iter().copied().max();
            return ids.iter().position(|id| Some(*id) == largest).unwrap_or(0);
        }
        ids.iter().position(|id| *id == self.eos_token_id).unwrap_or(0)
    }

    /// Reads a CLIP text encoder's `config.json`.
    pub fn load(source: &dyn Source, path: &str) -> Result<Self> {
        let mut fields = Fields::open(source, path)?;
        // A full CLIP config keeps the text half one level down.
        if let Some(Value::Object(text)) = fields.map.get("text_config") {
            fields.map = text.clone();
        }
        let act = fields.string_or("hidden_act", "quick_gelu")?;
        let config = Self {
            vocab_size: fields.count_or("vocab_size", 49408)?,
            hidden_size: fields.count_or("hidden_size", 512)?,
            intermediate_size: fields.count_or("intermediate_size", 2048)?,
            num_hidden_layers: fields.layers_or("num_hidden_layers", 12)?,
            num_attention_heads: fields.count_or("num_attention_heads", 8)?,
            max_position_embeddings: fields.count_or("max_position_embeddings", 77)?,
            hidden_act: match act.as_str() {
                "quick_gelu" => ClipAct::QuickGelu,
                "gelu" => ClipAct::Gelu,
                _ => {
                    return Err(fields.unsupported("hidden_act", quoted(&act), "quick_gelu, gelu"));
                }
            },
            layer_norm_eps: fields.eps_or("layer_norm_eps", 1e-5)?,
            eos_token_id: fields.id_or("eos_token_id", 49407)?,
        };
        if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            let expected =
                format!("a multiple of num_attention_heads = {}", config.num_attention_heads);
            return Err(fields.wrong("hidden_size", config.hidden_size, &expected));
        }
        if config.max_position_embeddings < 3 {
            return Err(fields.wrong(
                "max_position_embeddings",
                config.max_position_embeddings,
                "at least 3 (77 in CLIP)",
            ));
        }
        Ok(config)
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// text_encoder_2/config.json

/// `T5EncoderModel` with gated GELU (T5 v1.1). Absent fields have the defaults of transformers' `T5Config`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct T5Config {
    /// Rows of the token table (32128).
    pub vocab_size: usize,
    /// Width of a token (4096).
    pub d_model: usize,
    /// Numbers per head; heads x d_kv need not be d_model.
    pub d_kv: usize,
    /// Width of the gated feed-forward layer (10240).
    pub d_ff: usize,
    /// Heads (64).
    pub num_heads: usize,
    /// Blocks (24).
    pub num_layers: usize,
    /// Rows of the position bias table; a multiple of 4 (32).
    pub relative_attention_num_buckets: usize,
    /// Distance from which on all share the last bucket (128).
    pub relative_attention_max_distance: usize,
    /// Added to the mean square (1e-6).
    pub layer_norm_epsilon: f64,
}

impl T5Config {
    /// Width of q, k and v: heads x d_kv.
    pub fn inner(&self) -> usize {
        self.num_heads * self.d_kv
    }

    /// Reads a T5 encoder's `config.json`.
    pub fn load(source: &dyn Source, path: &str) -> Result<Self> {
        let fields = Fields::open(source, path)?;
        let config = Self {
            vocab_size: fields.count_or("vocab_size", 32128)?,
            d_model: fields.count_or("d_model", 512)?,
            d_kv: fields.count_or("d_kv", 64)?,
            d_ff: fields.count_or("d_ff", 2048)?,
            num_heads: fields.count_or("num_heads", 8)?,
            num_layers: fields.layers_or("num_layers", 6)?,
            relative_attention_num_buckets: fields
                .count_or("relative_attention_num_buckets", 32)?,
            relative_attention_max_distance: fields
                .count_or("relative_attention_max_distance", 128)?,
            layer_norm_epsilon: fields.eps_or("layer_norm_epsilon", 1e-6)?,
        };
        // transformers derives the activation from feed_forward_proj: "gated-gelu" always means gelu_new (the tanh
        // form), whatever dense_act_fn says; the default "relu" is T5 v1.0.
        let proj = fields.string_or("feed_forward_proj", "relu")?;
        if proj != "gated-gelu" && proj != "gated-gelu_new" {
            return Err(fields.unsupported(
                "feed_forward_proj",
                quoted(&proj),
                "gated-gelu (T5 v1.1, as FLUX has)",
            ));
        }
        fields.width("num_heads x d_kv", config.num_heads, config.d_kv)?;
        let buckets = config.relative_attention_num_buckets;
        if !buckets.is_multiple_of(4) {
            return Err(fields.wrong("relative_attention_num_buckets", buckets, "a multiple of 4"));
        }
        if config.relative_attention_max_distance <= buckets / 4 {
            let expected =
                format!("more than a quarter of relative_attention_num_buckets = {buckets}");
            return Err(fields.wrong(
                "relative_attention_max_distance",
                config.relative_attention_max_distance,
                &expected,
            ));
        }
        Ok(config)
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// vae/config.json

/// `AutoencoderKL`; only the decoder's side is read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VaeConfig {
    /// Channels per resolution, from the picture's side (128, 256, 512, 512).
    pub block_out_channels: Vec<usize>,
    /// Residual blocks per encoder level; the decoder has one more.
    pub layers_per_block: usize,
    /// Channels of the latent (16).
    pub latent_channels: usize,
    /// Channels of the picture; 3.
    pub out_channels: usize,
    /// Groups of every group norm; divides all channels (32).
    pub norm_num_groups: usize,
    /// `z = x / scaling_factor + shift_factor` before decoding.
    pub scaling_factor: f64,
    /// 0 if the file says null.
    pub shift_factor: f64,
    /// Whether a 1x1 convolution comes before the decoder.
    pub use_post_quant_conv: bool,
    /// Whether the middle block has attention.
    pub mid_block_add_attention: bool,
}

impl VaeConfig {
    /// Pixels per latent pixel, in each direction (8).
    pub fn scale(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }

    /// Reads a VAE's `config.json`.
    pub fn load(source: &dyn Source, path: &str) -> Result<Self> {
        let fields = Fields::open(source, path)?;
        fields.class("_class_name", "AutoencoderKL")?;
        let config = Self {
            block_out_channels: fields.counts("block_out_channels")?,
            layers_per_block: fields.layers("layers_per_block")?,
            latent_channels: fields.count("latent_channels")?,
            out_channels: fields.count_or("out_channels", 3)?,
            norm_num_groups: fields.count_or("norm_num_groups", 32)?,
            scaling_factor: fields.number("scaling_factor")?,
            shift_factor: fields.number_or("shift_factor", 0.0)?,
            use_post_quant_conv: fields.flag_or("use_post_quant_conv", true)?,
            mid_block_add_attention: fields.flag_or("mid_block_add_attention", true)?,
        };
        let act = fields.string_or("act_fn", "silu")?;
        if act != "silu" && act != "swish" {
            return Err(fields.unsupported("act_fn", quoted(&act), "silu"));
        }
        if let Some(Value::Array(blocks)) = fields.get("up_block_types") {
            if let Some(other) =
                blocks.iter().find(|block| block.as_str() != Some("UpDecoderBlock2D"))
            {
                return Err(fields.unsupported("up_block_types", other, "UpDecoderBlock2D"));
            }
            if blocks.len() != config.block_out_channels.len() {
                let expected = format!(
                    "{} blocks, as block_out_channels has",
                    config.block_out_channels.len()
                );
                return Err(fields.wrong(
                    "up_block_types",
                    format!("{} blocks", blocks.len()),
                    &expected,
                ));
            }
        }
        let levels = config.block_out_channels.len();
        if !(1..=8).contains(&levels) {
            return Err(fields.wrong(
                "block_out_channels",
                format!("{levels} levels"),
                "1 to 8 levels",
            ));
        }
        if let Some(channels) =
            config.block_out_channels.iter().find(|c| *c % config.norm_num_groups != 0)
        {
            let expected = format!("multiples of norm_num_groups = {}", config.norm_num_groups);
            return Err(fields.wrong("block_out_channels", channels, &expected));
        }
        if config.out_channels != 3 {
            return Err(fields.unsupported(
                "out_channels",
                config.out_channels,
                "3 (red, green, blue)",
            ));
        }
        if config.scaling_factor == 0.0 {
            return Err(fields.wrong("scaling_factor", 0, "a number other than 0"));
        }
        Ok(config)
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// scheduler/scheduler_config.json

/// The form of the time shift.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeShiftType {
    /// `e^mu / (e^mu + 1/u - 1)`.
    Exponential,
    /// `mu / (mu + 1/u - 1)`.
    Linear,
}

/// `FlowMatchEulerDiscreteScheduler`. Absent fields have diffusers' defaults.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SchedulerConfig {
    /// `timestep` = this x sigma (1000).
    pub num_train_timesteps: usize,
    /// Static time shift; what RALU calls `h_ori`. Not used by plain sampling if `use_dynamic_shifting`.
    pub shift: f64,
    /// Whether the time shift depends on the number of image tokens.
    pub use_dynamic_shifting: bool,
    /// `mu` at `base_image_seq_len` tokens.
    pub base_shift: f64,
    /// `mu` at `max_image_seq_len` tokens.
    pub max_shift: f64,
    /// Image tokens at which `mu` is `base_shift` (256).
    pub base_image_seq_len: usize,
    /// Image tokens at which `mu` is `max_shift` (4096).
    pub max_image_seq_len: usize,
    /// If given, sigmas are stretched so that the last one before 0 has this value.
    pub shift_terminal: Option<f64>,
    /// What `mu` means.
    pub time_shift_type: TimeShiftType,
}

impl SchedulerConfig {
    /// Reads a `scheduler_config.json`.
    pub fn load(source: &dyn Source, path: &str) -> Result<Self> {
        let fields = Fields::open(source, path)?;
        fields.class("_class_name", "FlowMatchEulerDiscreteScheduler")?;
        for flag in [
            "use_karras_sigmas",
            "use_exponential_sigmas",
            "use_beta_sigmas",
            "stochastic_sampling",
            "invert_sigmas",
        ] {
            if fields.flag_or(flag, false)? {
                return Err(fields.unsupported(flag, true, "false (plain flow-matching Euler)"));
            }
        }
        let kind = fields.string_or("time_shift_type", "exponential")?;
        let config = Self {
            num_train_timesteps: fields.count_or("num_train_timesteps", 1000)?,
            shift: fields.number_or("shift", 1.0)?,
            use_dynamic_shifting: fields.flag_or("use_dynamic_shifting", false)?,
            base_shift: fields.number_or("base_shift", 0.5)?,
            max_shift: fields.number_or("max_shift", 1.15)?,
            base_image_seq_len: fields.count_or("base_image_seq_len", 256)?,
            max_image_seq_len: fields.count_or("max_image_seq_len", 4096)?,
            shift_terminal: fields.optional_number("shift_terminal")?,
            time_shift_type: match kind.as_str() {
                "exponential" => TimeShiftType::Exponential,
                "linear" => TimeShiftType::Linear,
                _ => {
                    return Err(fields.unsupported(
                        "time_shift_type",
                        quoted(&kind),
                        "exponential, linear",
                    ));
                }
            },
        };
        if config.shift <= 0.0 {
            return Err(fields.wrong("shift", config.shift, "a number above 0"));
        }
        if config.use_dynamic_shifting && config.base_image_seq_len >= config.max_image_seq_len {
            let expected = format!("more than base_image_seq_len = {}", config.base_image_seq_len);
            return Err(fields.wrong("max_image_seq_len", config.max_image_seq_len, &expected));
        }
        if config.shift_terminal.is_some_and(|terminal| !(terminal > 0.0 && terminal < 1.0)) {
            let found = config.shift_terminal.unwrap_or_default();
            return Err(fields.wrong("shift_terminal", found, "null or a number between 0 and 1"));
        }
        Ok(config)
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// generation_config.json

/// Optional `generation_config.json` beside `model_index.json`: the settings a model wants by default.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct GenerationConfig {
    /// Pixels.
    pub width: Option<usize>,
    /// Pixels.
    pub height: Option<usize>,
    /// Plain sampling steps.
    pub num_inference_steps: Option<usize>,
    /// Distilled guidance.
    pub guidance_scale: Option<f64>,
    /// Classifier-free guidance; 1 = off.
    pub true_cfg_scale: Option<f64>,
    /// The text that classifier-free guidance steers away from.
    pub negative_prompt: Option<String>,
    /// T5 tokens, padding included.
    pub max_sequence_length: Option<usize>,
}

impl GenerationConfig {
    /// Reads `generation_config.json`; all `None` if there is no such file.
    pub fn load(source: &dyn Source) -> Result<Self> {
        let Some(fields) = Fields::open_if_there(source, "generation_config.json")? else {
            return Ok(Self::default());
        };
        Ok(Self {
            width: fields.optional_count("width")?,
            height: fields.optional_count("height")?,
            num_inference_steps: fields.optional_count("num_inference_steps")?,
            guidance_scale: fields.optional_number("guidance_scale")?,
            true_cfg_scale: fields.optional_number("true_cfg_scale")?,
            negative_prompt: fields.optional_string("negative_prompt")?,
            max_sequence_length: fields.optional_count("max_sequence_length")?,
        })
    }
}

/// `model_max_length` in a tokenizer's `tokenizer_config.json`. transformers writes about 1e30 for "no limit".
fn model_max_length(source: &dyn Source, folder: &str) -> Result<Option<usize>> {
    let Some(fields) = Fields::open_if_there(source, &format!("{folder}/tokenizer_config.json"))?
    else {
        return Ok(None);
    };
    match fields.optional_number("model_max_length")? {
        Some(length) if (2.0..1e6).contains(&length) => Ok(Some(length as usize)),
        Some(length) if length >= 1e6 => Ok(None),
        Some(length) => Err(fields.wrong("model_max_length", length, "at least 2")),
        None => Ok(None),
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Reading fields

/// The largest size any field may have; keeps products of two far from overflow.
const MAX_COUNT: u64 = 1 << 22;
/// The largest product of heads and head dim.
const MAX_WIDTH: u64 = 1 << 20;
/// More layers than this is a damaged file.
const MAX_LAYERS: u64 = 1024;

/// One JSON object and the name of the file it came from. A null field counts as absent, as in Python.
pub(crate) struct Fields {
    pub(crate) path: String,
    pub(crate) map: Map<String, Value>,
}

impl Fields {
    pub(crate) fn open(source: &dyn Source, path: &str) -> Result<Self> {
        match Self::open_if_there(source, path)? {
            Some(fields) => Ok(fields),
            None => {
                let found = source.list("").unwrap_or_default();
                let found = if found.is_empty() { "nothing".into() } else { found.join(", ") };
                Err(ConfigError::MissingFile {
                    path: shown(source, path),
                    found: shortened(&found),
                })
            }
        }
    }

    pub(crate) fn open_if_there(source: &dyn Source, path: &str) -> Result<Option<Self>> {
        let Some(text) = source.text(path)? else {
            return Ok(None);
        };
        let path = shown(source, path);
        match serde_json::from_str(&text) {
            Ok(Value::Object(map)) => Ok(Some(Self { path, map })),
            Ok(other) => Err(ConfigError::Json {
                path,
                reason: format!(
                    "expected an object in braces, found {}",
                    shortened(&other.to_string())
                ),
            }),
            Err(error) => Err(ConfigError::Json { path, reason: error.to_string() }),
        }
    }

    pub(crate) fn get(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    fn missing(&self, field: &str, expected: &str) -> ConfigError {
        ConfigError::MissingField {
            path: self.path.clone(),
            field: field.into(),
            expected: expected.into(),
        }
    }

    fn wrong(&self, field: &str, found: impl std::fmt::Display, expected: &str) -> ConfigError {
        ConfigError::Field {
            path: self.path.clone(),
            field: field.into(),
            found: shortened(&found.to_string()),
            expected: expected.into(),
        }
    }

    fn unsupported(
        &self,
        field: &str,
        found: impl std::fmt::Display,
        supported: &str,
    ) -> ConfigError {
        ConfigError::Unsupported {
            path: self.path.clone(),
            field: field.into(),
            found: shortened(&found.to_string()),
            supported: supported.into(),
        }
    }

    fn optional<T>(
        &self,
        field: &str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.get(field) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(value) => Ok(Some(value)),
                None => Err(self.wrong(field, value, expected)),
            },
        }
    }

    fn optional_whole(&self, field: &str, max: u64) -> Result<Option<usize>> {
        // 1024.0 is the same number to Python's json, so take it.
        let whole = |value: &Value| match value.as_u64() {
            Some(n) => Some(n),
            None => value
                .as_f64()
                .filter(|x| x.fract() == 0.0 && (0.0..1e15).contains(x))
                .map(|x| x as u64),
        };
        self.optional(field, &format!("a whole number from 1 to {max}"), |value| {
            whole(value).filter(|n| (1..=max).contains(n)).and_then(|n| usize::try_from(n).ok())
        })
    }

    fn optional_count(&self, field: &str) -> Result<Option<usize>> {
        self.optional_whole(field, MAX_COUNT)
    }

    fn count(&self, field: &str) -> Result<usize> {
        self.optional_count(field)?.ok_or_else(|| self.missing(field, "a whole number above 0"))
    }

    fn count_or(&self, field: &str, default: usize) -> Result<usize> {
        Ok(self.optional_count(field)?.unwrap_or(default))
    }

    fn layers(&self, field: &str) -> Result<usize> {
        self.optional_whole(field, MAX_LAYERS)?
            .ok_or_else(|| self.missing(field, "a whole number above 0"))
    }

    fn layers_or(&self, field: &str, default: usize) -> Result<usize> {
        Ok(self.optional_whole(field, MAX_LAYERS)?.unwrap_or(default))
    }

    fn optional_counts(&self, field: &str) -> Result<Option<Vec<usize>>> {
        let one = |value: &Value| {
            value.as_u64().filter(|n| (1..=MAX_COUNT).contains(n)).map(|n| n as usize)
        };
        self.optional(field, "a list of whole numbers above 0", |value| {
            let list = value.as_array()?;
            if list.is_empty() || list.len() > 64 {
                return None;
            }
            list.iter().map(one).collect()
        })
    }

    fn counts(&self, field: &str) -> Result<Vec<usize>> {
        self.optional_counts(field)?
            .ok_or_else(|| self.missing(field, "a list of whole numbers above 0"))
    }

    fn counts_or(&self, field: &str, default: &[usize]) -> Result<Vec<usize>> {
        Ok(self.optional_counts(field)?.unwrap_or_else(|| default.to_vec()))
    }

    fn optional_number(&self, field: &str) -> Result<Option<f64>> {
        self.optional(field, "a finite number", |value| value.as_f64().filter(|x| x.is_finite()))
    }

    fn number(&self, field: &str) -> Result<f64> {
        self.optional_number(field)?.ok_or_else(|| self.missing(field, "a number"))
    }

    fn number_or(&self, field: &str, default: f64) -> Result<f64> {
        Ok(self.optional_number(field)?.unwrap_or(default))
    }

    fn eps_or(&self, field: &str, default: f64) -> Result<f64> {
        let eps = self.number_or(field, default)?;
        if eps > 0.0 && eps < 1.0 {
            return Ok(eps);
        }
        Err(self.wrong(field, eps, "a small number above 0"))
    }

    fn id_or(&self, field: &str, default: u32) -> Result<u32> {
        // Some configs list several ids; the first is the one transformers' tokenizers emit.
        let read = |value: &Value| match value {
            Value::Array(list) => list.first().and_then(Value::as_u64),
            _ => value.as_u64(),
        };
        let id = self.optional(field, "a token id", |value| {
            read(value).and_then(|id| u32::try_from(id).ok())
        })?;
        Ok(id.unwrap_or(default))
    }

    fn flag_or(&self, field: &str, default: bool) -> Result<bool> {
        Ok(self.optional(field, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    fn optional_string(&self, field: &str) -> Result<Option<String>> {
        self.optional(field, "a string", |value| value.as_str().map(str::to_string))
    }

    fn string(&self, field: &str) -> Result<String> {
        self.optional_string(field)?.ok_or_else(|| self.missing(field, "a string"))
    }

    fn string_or(&self, field: &str, default: &str) -> Result<String> {
        Ok(self.optional_string(field)?.unwrap_or_else(|| default.to_string()))
    }

    /// A class name, if there is one, must be the expected one.
    fn class(&self, field: &str, expected: &str) -> Result<()> {
        match self.optional_string(field)? {
            Some(class) if class != expected => {
                Err(self.unsupported(field, quoted(&class), expected))
            }
            _ => Ok(()),
        }
    }

    /// A product of two sizes stays within reason.
    fn width(&self, what: &str, a: usize, b: usize) -> Result<()> {
        if a as u64 * b as u64 > MAX_WIDTH {
            return Err(self.wrong(what, format!("{a} x {b}"), &format!("at most {MAX_WIDTH}")));
        }
        Ok(())
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// Keeps a damaged file from filling the screen.
fn shortened(text: &str) -> String {
    const MAX: usize = 200;
    match text.char_indices().nth(MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_string(),
    }
}
