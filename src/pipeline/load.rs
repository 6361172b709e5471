//! An open model: configuration, checked weights, and the memory they move into.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};

use super::kept::Kept;
use super::loading::{Loading, Residency};
use super::{Error, Event, LatentColors, Part, Request, Run, Settings};
use crate::checkpoint::source::{Source, read};
use crate::checkpoint::weights::{Manifest, Weights};
use crate::gpu::{Gpu, SlotPool, Store};
use crate::models::config::{ModelConfig, TextEncoderPart, folder, stem};
use crate::models::denoiser::Denoiser;
use crate::models::encoders::TextEncoder;
use crate::models::layers::{LoadContext, Loader, Precision, Upload};
use crate::models::position_table::Interpolation;
use crate::models::vae::VaeDecoder;
use crate::ops::MAX_HEAD_DIM;
use crate::tensor::{ResidentId, ResidentIds};
use crate::text::{Tokenizer, TokenizerFiles};
use crate::turns::{Turns, complete_at_once};

/// How a model is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// How weights are kept on the GPU.
    pub precision: Precision,
    /// Bytes that the adapter's memory can hold, if the host knows. With enough of it the text encoders stay on the GPU
    /// between prompts, and the denoiser is loaded while they work.
    pub memory_bytes: Option<u64>,
}

/// What an adapter is taken to hold if nobody says: the least that is sold for drawing.
const ASSUMED_MEMORY_BYTES: u64 = 4 << 30;

impl Options {
    /// Whether text encoders may stay beside the other weights: if all of them take no more than half of the memory.
    /// The other half is for temporaries, latents, and whoever else draws on the screen.
    pub(super) fn keeps_text_encoders(&self, parts: &Parts) -> bool {
        let weights = parts.text_encoder_bytes() + parts.denoiser_bytes();
        weights <= self.memory_bytes.unwrap_or(ASSUMED_MEMORY_BYTES) / 2
    }
}

/// A part of a model: its structure, and the weights that belong to it.
pub(super) struct ModelPart<M: ?Sized> {
    pub model: Box<M>,
    pub weights: Weights,
    pub uploads: Vec<Upload>,
    /// Names in the checkpoint that nothing asks for.
    pub extra: Vec<String>,
}

impl<M: ?Sized> ModelPart<M> {
    /// Builds the model from a checkpoint, and reports on its weights: each is checked by name and shape.
    fn build(
        weights: Weights,
        context: &LoadContext<'_>,
        ignored: &[Cow<'_, str>],
        build: impl FnOnce(&Loader<'_>) -> Box<M>,
    ) -> (Self, Result<(), Error>) {
        let manifest = Manifest::new(&weights);
        let model = build(&Loader::new(manifest.root(), context));
        let ignored: Vec<&str> = ignored.iter().map(|name| &**name).collect();
        let report = manifest.finish(&ignored);
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
            Upload::Vector { resident, .. } | Upload::BatchNorm { resident, .. } => resident.id,
        })
    }
}

/// A model, ready to draw. Opened once, it serves any number of requests.
pub struct Pipeline {
    /// Weights are read from it as they are needed.
    pub(super) source: Box<dyn Source>,
    options: Options,
    pub(super) gpu: Gpu,
    pub(super) config: ModelConfig,
    pub(super) ids: ResidentIds,
    pub(super) store: Store,
    pub(super) pool: SlotPool,
    /// In the order of [`ModelConfig::text_encoders`].
    pub(super) tokenizers: Vec<Box<dyn Tokenizer>>,
    pub(super) parts: Parts,
    /// Denoiser and decoder.
    denoiser: RefCell<Residency>,
    text_encoders: RefCell<Residency>,
    /// Whether they stay on the GPU.
    pub(super) keeps_text_encoders: Cell<bool>,
    /// How many runs have texts that are not encoded yet.
    pub(super) waiting_for_encoders: Cell<usize>,
    /// Held by the run that works. Runs share weights, programs, temporaries and the queue.
    pub(super) turn: async_lock::Mutex<()>,
    /// What the next run may use again.
    pub(super) kept: Kept,
    /// How positions between two entries of a table of positions are found; `None` until it was checked.
    pub(super) interpolation: Cell<Option<Interpolation>>,
    /// Of the VAE, for estimates.
    pub(super) colors: RefCell<LatentColors>,
}

/// What a pipeline's bytes on the GPU are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Weights.
    pub weights_bytes: u64,
    /// The pool of temporaries that all programs share.
    pub pool_bytes: u64,
    /// Latents, embeddings, positions, pixels and caches.
    pub states_bytes: u64,
}

/// Names in a VAE's checkpoint that belong to the encoder, which is not used, or count its training.
const IGNORED_VAE: &[Cow<'_, str>] = &[
    Cow::Borrowed("encoder."),
    Cow::Borrowed("quant_conv."),
    Cow::Borrowed("bn.num_batches_tracked"),
];

/// The files of a model's tokenizers, one for each text encoder.
struct AllTokenizerFiles(Vec<TokenizerFiles>);

impl AllTokenizerFiles {
    fn read(source: &dyn Source, config: &ModelConfig) -> Result<Self, Error> {
        let encoders = config.text_encoders.iter();
        let files = encoders
            .map(|encoder| Ok(encoder.config.tokenizer().read(source, encoder.tokenizer)?));
        Ok(AllTokenizerFiles(files.collect::<Result<_, Error>>()?))
    }

    async fn parse(
        &self,
        config: &ModelConfig,
        turns: &Turns,
    ) -> Result<Vec<Box<dyn Tokenizer>>, Error> {
        let mut tokenizers = Vec::new();
        for (files, encoder) in self.0.iter().zip(&config.text_encoders) {
            let tokenizer = encoder.config.tokenizer().parse(files, turns).await?;
            tokenizer.check_vocab(encoder.config.vocab_size())?;
            tokenizers.push(tokenizer);
        }
        Ok(tokenizers)
    }
}

/// The tokenizers of a model, one for each text encoder.
fn open_tokenizers(
    source: &dyn Source,
    config: &ModelConfig,
) -> Result<Vec<Box<dyn Tokenizer>>, Error> {
    let files = AllTokenizerFiles::read(source, config)?;
    complete_at_once(files.parse(config, &Turns::none()))
}

/// The model's parts, built but not uploaded.
pub(super) struct Parts {
    /// In the order of [`ModelConfig::text_encoders`].
    pub text_encoders: Vec<ModelPart<dyn TextEncoder>>,
    pub denoiser: ModelPart<dyn Denoiser>,
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
        Parts::build(
            config,
            &|dir, stem| Ok(Weights::open(source, dir, stem)?),
            context,
            |report| report,
        )
    }

    /// Those for a device that binds `limit` bytes at once, with the names of their memory.
    fn open_with_ids(
        source: &dyn Source,
        config: &ModelConfig,
        options: Options,
        limit: u64,
    ) -> Result<(ResidentIds, Self), Error> {
        let ids = ResidentIds::default();
        let context = LoadContext::new(&ids, options.precision, limit);
        let parts = Parts::open(source, config, &context)?;
        drop(context);
        Ok((ids, parts))
    }

    /// The parts of a model whose weights may be missing, for planning.
    pub fn plan(
        source: Option<&dyn Source>,
        config: &ModelConfig,
        context: &LoadContext<'_>,
    ) -> Result<Self, Error> {
        let weights = |dir: &str, stem: &str| {
            let found = source.and_then(|source| Weights::open(source, dir, stem).ok());
            Ok(found.unwrap_or_else(|| Weights::empty(dir.to_owned())))
        };
        Parts::build(config, &weights, context, |_| Ok(()))
    }

    /// `judge` says what becomes of the report on a part's weights.
    fn build(
        config: &ModelConfig,
        weights: &dyn Fn(&str, &str) -> Result<Weights, Error>,
        context: &LoadContext<'_>,
        judge: impl Fn(Result<(), Error>) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let mut text_encoders = Vec::new();
        for encoder in &config.text_encoders {
            let TextEncoderPart { folder, config, .. } = encoder;
            let weights = weights(folder, stem::TRANSFORMERS)?;
            let (part, report) =
                ModelPart::build(weights, context, &config.ignored_weights(), |loader| {
                    config.load(loader)
                });
            judge(report)?;
            text_encoders.push(part);
        }
        let weights_of = weights(folder::TRANSFORMER, stem::DIFFUSERS)?;
        let (denoiser, report) =
            ModelPart::build(weights_of, context, &[], |loader| config.transformer.load(loader));
        judge(report)?;
        let (vae, report) = ModelPart::build(
            weights(folder::VAE, stem::DIFFUSERS)?,
            context,
            IGNORED_VAE,
            |loader| Box::new(VaeDecoder::load(loader, &config.vae)),
        );
        judge(report)?;
        Ok(Parts { text_encoders, denoiser, vae })
    }

    /// Bytes of the text encoders on the GPU.
    pub fn text_encoder_bytes(&self) -> u64 {
        self.text_encoders.iter().map(ModelPart::bytes).sum()
    }

    /// Bytes of the denoiser and the decoder on the GPU.
    pub fn denoiser_bytes(&self) -> u64 {
        self.denoiser.bytes() + self.vae.bytes()
    }
}

/// Checks that the kernels can do a model's widths.
pub(super) fn check_widths(config: &ModelConfig) -> Result<(), Error> {
    let (network, vae) = (&config.transformer, &config.vae);
    let mut quads = vec![
        ("the transformer's attention_head_dim", network.head_dim()),
        ("the transformer's joint_attention_dim", network.text_dim()),
    ];
    quads.extend(network.pooled_dim().map(|dim| ("the transformer's pooled_projection_dim", dim)));
    let mut heads = vec![("the transformer's attention_head_dim", network.head_dim())];
    for encoder in &config.text_encoders {
        quads.extend(encoder.config.widths());
        heads.push(encoder.config.head_width());
    }
    quads.extend(vae.block_out_channels.iter().map(|c| ("a width of the VAE", *c)));
    for (what, width) in quads {
        if !width.is_multiple_of(4) {
            let expected = "a multiple of 4: kernels work on four numbers at a time";
            return Err(Error::setting(what, width, expected));
        }
    }
    let top = vae.block_out_channels.last().copied().unwrap_or(0);
    heads.push(("the VAE's attention width", if vae.mid_block_add_attention { top } else { 0 }));
    for (what, width) in heads {
        if width > MAX_HEAD_DIM {
            return Err(Error::setting(what, width, format!("at most {MAX_HEAD_DIM}")));
        }
    }
    if !vae.latent_channels.is_multiple_of(4) {
        let expected = "a multiple of 4: kernels work on four numbers at a time";
        return Err(Error::setting("the VAE's latent_channels", vae.latent_channels, expected));
    }
    Ok(())
}

/// Checks a model folder without a GPU: configuration, tokenizers, and every weight by name and shape.
pub fn check_model(source: &dyn Source) -> Result<(), Error> {
    let config = ModelConfig::load(source)?;
    open_tokenizers(source, &config)?;
    let ids = ResidentIds::default();
    Parts::open(source, &config, &LoadContext::new(&ids, Precision::Auto, u64::MAX))?;
    Ok(())
}

impl Pipeline {
    /// Opens a diffusers folder. Reads configurations, tokenizers and the headers of all checkpoints, and
    /// checks every weight; uploads nothing yet.
    pub fn open(gpu: Gpu, source: Box<dyn Source>, options: Options) -> Result<Self, Error> {
        let config = ModelConfig::load(&*source)?;
        let tokenizers = open_tokenizers(&*source, &config)?;
        let limit = gpu.caps().max_binding_bytes;
        let (ids, parts) = Parts::open_with_ids(&*source, &config, options, limit)?;
        Ok(Pipeline::of(gpu, source, options, config, tokenizers, ids, parts))
    }

    /// Like [`Pipeline::open`], for a source whose bytes have to be fetched. One thing after the other, so that no more
    /// than one is read again when something was lacking, and the event loop has its turns.
    pub async fn fetch(gpu: Gpu, source: Box<dyn Source>, options: Options) -> Result<Self, Error> {
        let from = &*source;
        let config = read(from, || Ok::<_, Error>(ModelConfig::load(from)?)).await?;
        let turns = Turns::new();
        let files = read(from, || AllTokenizerFiles::read(from, &config)).await?;
        let tokenizers = files.parse(&config, &turns).await?;
        drop(files);
        turns.yield_if_due().await;
        let limit = gpu.caps().max_binding_bytes;
        let open = || Parts::open_with_ids(from, &config, options, limit);
        let (ids, parts) = read(from, open).await?;
        Ok(Pipeline::of(gpu, source, options, config, tokenizers, ids, parts))
    }

    fn of(
        gpu: Gpu,
        source: Box<dyn Source>,
        options: Options,
        config: ModelConfig,
        tokenizers: Vec<Box<dyn Tokenizer>>,
        ids: ResidentIds,
        parts: Parts,
    ) -> Self {
        let keeps_text_encoders = Cell::new(options.keeps_text_encoders(&parts));
        Pipeline {
            gpu,
            config,
            options,
            ids,
            store: Store::default(),
            pool: SlotPool::default(),
            tokenizers,
            parts,
            denoiser: RefCell::default(),
            text_encoders: RefCell::default(),
            keeps_text_encoders,
            waiting_for_encoders: Cell::new(0),
            turn: async_lock::Mutex::new(()),
            kept: Kept::default(),
            interpolation: Cell::new(None),
            colors: RefCell::default(),
            source,
        }
    }

    /// The same model on another device, after the first was lost. Tokenizers, checked weights, encoded texts and learnt
    /// colours stay; weights are uploaded anew by the next run.
    pub async fn revive(self, gpu: Gpu) -> Result<Self, Error> {
        let Pipeline { source, options, config, tokenizers, kept, colors, gpu: old, .. } = self;
        let limit = gpu.caps().max_binding_bytes;
        let (ids, parts) = match old.caps().max_binding_bytes == limit {
            true => (self.ids, self.parts),
            false => {
                let from = &*source;
                let open = || Parts::open_with_ids(from, &config, options, limit);
                read(from, open).await?
            }
        };
        let pipeline = Pipeline::of(gpu, source, options, config, tokenizers, ids, parts);
        Ok(Pipeline { kept: kept.texts_only(), colors, ..pipeline })
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
    pub fn model_name(&self) -> String {
        self.source.name()
    }

    /// What the bytes that are on the GPU now are for.
    pub fn memory_use(&self) -> MemoryUse {
        let loaded = |part, bytes| if self.is_loaded(part) { bytes } else { 0 };
        let weights_bytes = loaded(Part::TextEncoders, self.parts.text_encoder_bytes())
            + loaded(Part::Denoiser, self.parts.denoiser_bytes());
        let pool_bytes = self.pool.bytes();
        let alive = self.gpu.counters().bytes_alive;
        let states_bytes = alive.saturating_sub(weights_bytes + pool_bytes);
        MemoryUse { weights_bytes, pool_bytes, states_bytes }
    }

    /// The colours that estimates are shown in, as learnt so far.
    pub fn latent_colors(&self) -> LatentColors {
        self.colors.borrow().clone()
    }

    /// Gives colours that were learnt before from the same VAE.
    pub fn set_latent_colors(&self, colors: LatentColors) {
        *self.colors.borrow_mut() = colors;
    }

    /// What `request` means for this model.
    pub fn settings(&self, request: &Request) -> Result<Settings, Error> {
        Settings::resolve(request, &self.config)
    }

    /// Checks a request and starts it. Nothing happens until the first [`Run::next`]; dropping the run cancels it.
    ///
    /// A pipeline may have any number of runs at once, in one task or in several. They take turns, a call of
    /// [`Run::next`] each, and draw what they draw alone; together they need the memory of all.
    pub fn start(&self, request: Request) -> Result<Run<'_>, Error> {
        Run::new(self, request)
    }

    /// Uploads a part now rather than in the first run that needs it. Text encoders that do not stay on the GPU are
    /// still there when the next prompt is encoded. `progress` gets [`Event::Loading`]s.
    pub async fn load(&self, part: Part, mut progress: impl FnMut(Event)) -> Result<(), Error> {
        let mut loading = Loading::new(self, part);
        loop {
            let event = {
                let _turn = self.turn.lock().await;
                loading.some().await?
            };
            match event {
                Some(event) => progress(event),
                None => return Ok(()),
            }
        }
    }

    pub(super) fn is_loaded(&self, part: Part) -> bool {
        matches!(*self.residency(part).borrow(), Residency::Loaded)
    }

    pub(super) fn residency(&self, part: Part) -> &RefCell<Residency> {
        match part {
            Part::TextEncoders => &self.text_encoders,
            Part::Denoiser => &self.denoiser,
        }
    }

    /// Frees the text encoders' memory, unless there is enough for them to stay, or another run needs them next.
    pub(super) fn release_text_encoders(&self) {
        if !self.keeps_text_encoders.get() && self.waiting_for_encoders.get() == 0 {
            self.free_text_encoders();
        }
    }

    fn free_text_encoders(&self) {
        let Pipeline { parts, store, kept, .. } = self;
        kept.encoders.clear(store);
        self.text_encoders.take();
        let encoders = parts.text_encoders.iter();
        encoders.flat_map(ModelPart::residents).for_each(|id| store.free(id));
    }

    /// Frees everything that a run can do without, after memory was short.
    pub(super) fn make_room(&self) {
        self.keeps_text_encoders.set(false);
        // A run that needs them loads them again.
        self.free_text_encoders();
        self.kept.forget_programs(&self.store);
        self.pool.clear();
    }

    /// Names in the checkpoints that nothing uses: harmless, but perhaps a sign of the wrong file.
    pub(super) fn extra_weights(&self) -> Vec<(&'static str, &[String])> {
        let Parts { text_encoders, denoiser, vae } = &self.parts;
        let encoders = self.config.text_encoders.iter().zip(text_encoders);
        encoders
            .map(|(encoder, part)| (encoder.folder, &part.extra))
            .chain([(folder::TRANSFORMER, &denoiser.extra), (folder::VAE, &vae.extra)])
            .filter(|(_, extra)| !extra.is_empty())
            .map(|(dir, extra)| (dir, extra.as_slice()))
            .collect()
    }
}
