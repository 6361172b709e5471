//! An open model: configuration, checked weights, and the memory they move into.

use std::cell::RefCell;

use super::{Error, Request, Run, Settings, tokens};
use crate::gpu::{Gpu, SlotPool, Store};
use crate::models::clip::Clip;
use crate::models::config::{ModelConfig, stem};
use crate::models::flux::Flux;
use crate::models::layers::{LoadContext, Loader, Precision, Upload, pack_tile};
use crate::models::source::Source;
use crate::models::t5::T5;
use crate::models::vae::VaeDecoder;
use crate::models::weights::{Manifest, Weights};
use crate::ops::MAX_HEAD_DIM;
use crate::tensor::{ResidentId, ResidentIds};

/// How a model is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// How weights are kept on the GPU.
    pub precision: Precision,
}

/// A part of a model: its structure, and the weights that belong to it.
pub(super) struct ModelPart<M> {
    pub model: M,
    pub weights: Weights,
    pub uploads: Vec<Upload>,
    /// Names in the checkpoint that nothing asks for.
    pub extra: Vec<String>,
}

impl<M> ModelPart<M> {
    /// Builds the model from a checkpoint; every weight is checked by name and shape.
    pub fn open(
        weights: Weights,
        context: &LoadContext<'_>,
        ignored: &[&str],
        build: impl FnOnce(&Loader<'_>) -> M,
    ) -> Result<Self, Error> {
        let (part, report) = Self::build(weights, context, ignored, build);
        report?;
        Ok(part)
    }

    /// Builds the model from a checkpoint that need not be complete, for planning.
    pub fn plan(
        weights: Weights,
        context: &LoadContext<'_>,
        build: impl FnOnce(&Loader<'_>) -> M,
    ) -> Self {
        Self::build(weights, context, &[], build).0
    }

    fn build(
        weights: Weights,
        context: &LoadContext<'_>,
        ignored: &[&str],
        build: impl FnOnce(&Loader<'_>) -> M,
    ) -> (Self, Result<(), Error>) {
        let manifest = Manifest::new(&weights);
        let model = build(&Loader::new(manifest.root(), context));
        let report = manifest.finish(ignored);
        drop(manifest);
        let uploads = context.uploads.take();
        let (extra, report) = match report {
            Ok(extra) => (extra, Ok(())),
            Err(error) => (vec![], Err(error.into())),
        };
        (ModelPart { model, weights, uploads, extra }, report)
    }

    /// Bytes on the GPU.
    pub fn bytes(&self) -> u64 {
        self.uploads.iter().map(Upload::bytes).sum()
    }

    /// What the uploads fill.
    pub fn residents(&self) -> impl Iterator<Item = ResidentId> + '_ {
        self.uploads.iter().map(|upload| match upload {
            Upload::Packed { weight, .. } => weight.id,
            Upload::Vector { resident, .. } => resident.id,
        })
    }

    /// Uploads one tensor. Reads, packs and hands over one tile of outputs at a time, so that no second copy
    /// of a weight is ever in host memory.
    pub async fn upload(&self, gpu: &Gpu, store: &Store, upload: &Upload) -> Result<(), Error> {
        match upload {
            Upload::Vector { resident, tensor } => {
                let mut values = self.weights.tensor_f32(tensor)?;
                values.resize(resident.cols, 0.0);
                store.create(gpu, resident).await?;
                store.write(gpu, resident, &values).await?;
            }
            Upload::Packed { weight, tensor } => {
                store.create_packed(gpu, weight).await?;
                for (i, shard) in weight.shards.iter().enumerate() {
                    let mut offset = 0;
                    for first in (shard.row0..shard.row0 + shard.rows).step_by(weight.tile) {
                        let bytes = pack_tile(&self.weights, tensor, weight, first)?;
                        store.write_bytes(gpu, weight.id, i, offset, &bytes).await?;
                        offset += bytes.len() as u64;
                    }
                }
            }
        }
        Ok(())
    }
}

/// A model, ready to draw. Opened once, it serves any number of requests.
pub struct Pipeline {
    pub(super) gpu: Gpu,
    pub(super) config: ModelConfig,
    pub(super) ids: ResidentIds,
    pub(super) store: Store,
    pub(super) pool: SlotPool,
    pub(super) clip_tokenizer: tokens::ClipTokenizer,
    pub(super) t5_tokenizer: tokens::T5Tokenizer,
    pub(super) clip: ModelPart<Clip>,
    pub(super) t5: ModelPart<T5>,
    pub(super) flux: ModelPart<Flux>,
    pub(super) vae: ModelPart<VaeDecoder>,
    /// Whether denoiser and decoder are on the GPU.
    pub(super) denoiser_loaded: RefCell<bool>,
    model_name: String,
}

/// Names in checkpoints that belong to parts we do not use.
const IGNORED_CLIP: &[&str] = &["position_ids", "text_projection.weight"];
const IGNORED_T5: &[&str] = &["encoder.embed_tokens.weight", "shared.weight"];
const IGNORED_VAE: &[&str] = &["encoder.", "quant_conv."];

/// The model's parts, built but not uploaded.
pub(super) struct Parts {
    pub clip: ModelPart<Clip>,
    pub t5: ModelPart<T5>,
    pub flux: ModelPart<Flux>,
    pub vae: ModelPart<VaeDecoder>,
}

impl Parts {
    /// Reads the headers of all checkpoints and checks every weight.
    fn open(
        source: &dyn Source,
        config: &ModelConfig,
        context: &LoadContext<'_>,
    ) -> Result<Self, Error> {
        check_widths(config)?;
        let folders = config.folders();
        let weights = |dir: &str, stem: &str| Weights::open(source, dir, stem);
        Ok(Parts {
            clip: ModelPart::open(
                weights(folders.clip, stem::TRANSFORMERS)?,
                context,
                IGNORED_CLIP,
                |loader| Clip::load(loader, &config.clip),
            )?,
            t5: ModelPart::open(
                weights(folders.t5, stem::TRANSFORMERS)?,
                context,
                IGNORED_T5,
                |loader| T5::load(loader, &config.t5),
            )?,
            flux: ModelPart::open(
                weights(folders.transformer, stem::DIFFUSERS)?,
                context,
                &[],
                |loader| Flux::load(loader, config.flux()),
            )?,
            vae: ModelPart::open(
                weights(folders.vae, stem::DIFFUSERS)?,
                context,
                IGNORED_VAE,
                |loader| VaeDecoder::load(loader, &config.vae),
            )?,
        })
    }

    /// The parts of a model whose weights may be missing, for planning.
    pub fn plan(
        source: Option<&dyn Source>,
        config: &ModelConfig,
        context: &LoadContext<'_>,
    ) -> Self {
        let folders = config.folders();
        let weights = |dir: &str, stem: &str| {
            source
                .and_then(|source| Weights::open(source, dir, stem).ok())
                .unwrap_or_else(|| Weights::empty(dir.to_owned()))
        };
        let clip = weights(folders.clip, stem::TRANSFORMERS);
        let t5 = weights(folders.t5, stem::TRANSFORMERS);
        let flux = weights(folders.transformer, stem::DIFFUSERS);
        let vae = weights(folders.vae, stem::DIFFUSERS);
        Parts {
            clip: ModelPart::plan(clip, context, |loader| Clip::load(loader, &config.clip)),
            t5: ModelPart::plan(t5, context, |loader| T5::load(loader, &config.t5)),
            flux: ModelPart::plan(flux, context, |loader| Flux::load(loader, config.flux())),
            vae: ModelPart::plan(vae, context, |loader| VaeDecoder::load(loader, &config.vae)),
        }
    }
}

/// Checks that the kernels can do a model's widths.
pub(super) fn check_widths(config: &ModelConfig) -> Result<(), Error> {
    let (flux, clip, t5, vae) = (config.flux(), &config.clip, &config.t5, &config.vae);
    let quads = [
        ("the transformer's attention_head_dim", flux.attention_head_dim),
        ("CLIP's hidden_size", clip.hidden_size),
        ("CLIP's intermediate_size", clip.intermediate_size),
        ("CLIP's head width", clip.head_dim()),
        ("T5's d_model", t5.d_model),
        ("T5's d_kv", t5.d_kv),
        ("T5's d_ff", t5.d_ff),
    ];
    let channels = vae.block_out_channels.iter().map(|c| ("a width of the VAE", *c));
    for (what, width) in quads.into_iter().chain(channels) {
        if !width.is_multiple_of(4) {
            let expected = "a multiple of 4: kernels work on four numbers at a time";
            return Err(Error::setting(what, width, expected));
        }
    }
    let top = vae.block_out_channels.last().copied().unwrap_or(0);
    let heads = [
        ("the transformer's attention_head_dim", flux.attention_head_dim),
        ("CLIP's head width", clip.head_dim()),
        ("T5's d_kv", t5.d_kv),
        ("the VAE's attention width", if vae.mid_block_add_attention { top } else { 0 }),
    ];
    for (what, width) in heads {
        if width > MAX_HEAD_DIM {
            return Err(Error::setting(what, width, format!("at most {MAX_HEAD_DIM}")));
        }
    }
    let channels = crate::sampling::noise::LATENT_CHANNELS;
    if vae.latent_channels != channels {
        let expected = format!("{channels}, as FLUX has");
        return Err(Error::setting("the VAE's latent_channels", vae.latent_channels, expected));
    }
    Ok(())
}

/// Checks a model folder without a GPU: configuration, tokenizers, and every weight by name and shape.
pub fn check_model(source: &dyn Source) -> Result<(), Error> {
    let config = ModelConfig::load(source)?;
    let folders = config.folders();
    tokens::ClipTokenizer::load(source, folders.clip_tokenizer)?
        .check_vocab(config.clip.vocab_size)?;
    tokens::T5Tokenizer::load(source, folders.t5_tokenizer)?.check_vocab(config.t5.vocab_size)?;
    let ids = ResidentIds::default();
    Parts::open(source, &config, &LoadContext::new(&ids, Precision::Auto, u64::MAX))?;
    Ok(())
}

impl Pipeline {
    /// Opens a diffusers folder. Reads configurations, tokenizers and the headers of all checkpoints, and
    /// checks every weight; uploads nothing yet.
    pub fn open(gpu: Gpu, source: Box<dyn Source>, options: Options) -> Result<Self, Error> {
        let config = ModelConfig::load(&*source)?;
        let folders = config.folders();
        let clip_tokenizer = tokens::ClipTokenizer::load(&*source, folders.clip_tokenizer)?;
        clip_tokenizer.check_vocab(config.clip.vocab_size)?;
        let t5_tokenizer = tokens::T5Tokenizer::load(&*source, folders.t5_tokenizer)?;
        t5_tokenizer.check_vocab(config.t5.vocab_size)?;
        let ids = ResidentIds::default();
        let context = LoadContext::new(&ids, options.precision, gpu.caps().max_binding_bytes);
        let Parts { clip, t5, flux, vae } = Parts::open(&*source, &config, &context)?;
        drop(context);
        Ok(Pipeline {
            gpu,
            config,
            ids,
            store: Store::default(),
            pool: SlotPool::default(),
            clip_tokenizer,
            t5_tokenizer,
            clip,
            t5,
            flux,
            vae,
            denoiser_loaded: RefCell::new(false),
            model_name: source.name(),
        })
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// What the model is called: its folder.
    pub fn model_name(&self) -> &str {
        &self.model_name
    }

    /// What `request` means for this model.
    pub fn settings(&self, request: &Request) -> Result<Settings, Error> {
        Settings::resolve(request, &self.config)
    }

    /// Checks a request and starts it. Nothing happens until the first [`Run::next`]; dropping the run
    /// cancels it.
    pub fn start(&self, request: Request) -> Result<Run<'_>, Error> {
        Run::new(self, request)
    }

    /// Names in the checkpoints that nothing uses: harmless, but perhaps a sign of the wrong file.
    pub(super) fn extra_weights(&self) -> Vec<(&'static str, &[String])> {
        let folders = self.config.folders();
        [
            (folders.clip, &self.clip.extra),
            (folders.t5, &self.t5.extra),
            (folders.transformer, &self.flux.extra),
            (folders.vae, &self.vae.extra),
        ]
        .into_iter()
        .filter(|(_, extra)| !extra.is_empty())
        .map(|(dir, extra)| (dir, extra.as_slice()))
        .collect()
    }
}
