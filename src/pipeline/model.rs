//! An open model: configuration, tokenizers and checked weights. Nothing of it is on a GPU, and nothing of it changes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Error, MemoryBudget, Part};
use crate::checkpoint::changes::LowRank;
use crate::checkpoint::dtype::StoredDType;
use crate::checkpoint::source::{Memory, Source, read};
use crate::checkpoint::weights::{Manifest, Weights};
use crate::escape::Escaped;
use crate::models::config::{ModelConfig, TextEncoderPart, folder, stem};
use crate::models::denoiser::Denoiser;
use crate::models::encoders::TextEncoder;
use crate::models::layers::{LoadContext, Loader, Precision, Upload};
use crate::models::quantise::{Quantise, Quantising, Tally};
use crate::models::vae::VaeDecoder;
use crate::ops::MAX_HEAD_DIM;
use crate::tensor::{ResidentId, ResidentIds};
use crate::text::{Tokenizer, TokenizerFiles};
use crate::turns::{Turns, complete_at_once};

/// How a model is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Options {
    /// How weights are kept on the GPU, and whether products may round to f16.
    pub precision: Precision,
    /// What is quantised on the way to the GPU: large matrices of blocks that are stored in 16 or 32 bits. The bits are those
    /// of a file that `ralu convert` writes.
    pub quantise: Option<Quantise>,
    /// Bytes that the adapter's memory can hold, if the host knows. With enough of it the text encoders stay on the GPU
    /// between prompts, and the denoiser is loaded while they work.
    pub memory_bytes: Option<u64>,
    /// How much GPU memory runs may take. Blocks of the networks that do not fit are streamed: they are on the GPU while
    /// they compute. The pictures are the same, bit for bit.
    pub memory_budget: MemoryBudget,
    /// Bytes of the host's memory for copies of streamed blocks, packed as the GPU keeps them: each of these blocks is read
    /// and packed once, the others every time.
    pub host_memory: u64,
}

/// Assumed GPU memory when the host does not know: that of the smallest discrete cards on sale.
const ASSUMED_MEMORY_BYTES: u64 = 4 << 30;

impl Options {
    /// Changes any fields: `Options::default().with(|options| options.precision = Precision::F16)`.
    pub fn with(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self);
        self
    }

    /// Whether what only the time before the first step needs, text encoders and modulations, may stay on the GPU with the
    /// other weights: if all of them take no more than half of the memory. The other half is for temporaries, latents, and
    /// other programs that draw on the screen.
    pub(super) fn keeps_all_parts(&self, parts: &Parts) -> bool {
        let weights: u64 = Part::ALL.into_iter().map(|part| parts.bytes_of(part)).sum();
        weights <= self.memory_bytes.unwrap_or(ASSUMED_MEMORY_BYTES) / 2
    }
}

/// A part of a model: its structure, and the weights that belong to it.
pub(super) struct ModelPart<M: ?Sized> {
    pub model: Box<M>,
    pub weights: Weights,
    pub uploads: Vec<Upload>,
    /// Those of [`Part::Modulation`].
    pub modulation_uploads: Vec<Upload>,
    /// Names in the checkpoint that nothing asks for.
    pub extra: Vec<String>,
    /// What messages call it, and what became of its weights, if it was to be quantised.
    pub tally: Option<(String, Tally)>,
}

impl<M: ?Sized> ModelPart<M> {
    /// Builds the model from a checkpoint, and reports on its weights: each is checked by name and shape.
    fn build(
        weights: Weights,
        context: &LoadContext<'_>,
        (title, quantising): (&str, Option<Quantising>),
        ignored: &[Cow<'_, str>],
        build: impl FnOnce(&Loader<'_>) -> Box<M>,
    ) -> (Self, Result<(), Error>) {
        let manifest = Manifest::new(&weights);
        let model = build(&Loader::new(manifest.root(), context).quantising(quantising));
        let ignored: Vec<&str> = ignored.iter().map(|name| &**name).collect();
        let report = manifest.finish(&ignored);
        drop(manifest);
        let uploads = context.uploads.take();
        let modulation_uploads = context.modulation_uploads.take();
        let tally = context.tally.take();
        let tally = quantising.map(|_| (title.to_owned(), tally));
        let (extra, report) = match report {
            Ok(extra) => (extra, Ok(())),
            Err(error) => (vec![], Err(error.into())),
        };
        (ModelPart { model, weights, uploads, modulation_uploads, extra, tally }, report)
    }
}

/// Tensors in a VAE's checkpoint that we ignore on purpose: those of the encoder, and a count of training steps.
const IGNORED_VAE: &[Cow<'_, str>] = &[
    Cow::Borrowed("encoder."),
    Cow::Borrowed("quant_conv."),
    Cow::Borrowed("bn.num_batches_tracked"),
];

/// A model's tokenizers, in the order of [`ModelConfig::text_encoders`].
type Tokenizers = Arc<[Box<dyn Tokenizer>]>;

/// The files of a model's tokenizers, one for each text encoder.
struct AllTokenizerFiles(Vec<TokenizerFiles>);

impl AllTokenizerFiles {
    fn read(source: &dyn Source, config: &ModelConfig) -> Result<Self, Error> {
        let encoders = config.text_encoders.iter();
        let files = encoders.map(|encoder| {
            let (dir, rows) = (encoder.tokenizer, encoder.config.vocab_size());
            Ok(encoder.config.tokenizer().find(
                source,
                dir,
                source.weights(encoder.folder),
                rows,
            )?)
        });
        Ok(AllTokenizerFiles(files.collect::<Result<_, Error>>()?))
    }

    async fn parse(&self, config: &ModelConfig, turns: &Turns) -> Result<Tokenizers, Error> {
        let mut tokenizers = Vec::new();
        for (files, encoder) in self.0.iter().zip(&config.text_encoders) {
            let tokenizer = encoder.config.tokenizer().parse(files, turns).await?;
            tokenizer.check_vocab(encoder.config.vocab_size())?;
            tokenizers.push(tokenizer);
        }
        Ok(tokenizers.into())
    }
}

/// The tokenizers of a model, one for each text encoder.
fn open_tokenizers(source: &dyn Source, config: &ModelConfig) -> Result<Tokenizers, Error> {
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

    /// The parts for a device that binds `limit` bytes at once, and the first id that none of their weights has.
    fn open_for(
        source: &dyn Source,
        config: &ModelConfig,
        options: Options,
        limit: u64,
    ) -> Result<(ResidentId, Self), Error> {
        let ids = ResidentIds::default();
        let context = LoadContext::new(&ids, options.precision, limit).quantised(options.quantise);
        let parts = Parts::open(source, config, &context)?;
        Ok((ids.next(), parts))
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

    /// The parts of a model that is not on this machine, as if its checkpoints were stored in `dtype`.
    pub fn stored_as(
        dtype: &StoredDType,
        config: &ModelConfig,
        context: &LoadContext<'_>,
    ) -> Result<Self, Error> {
        Parts::changed(dtype, &BTreeMap::new(), config, context)
    }

    /// [`Parts::stored_as`] with products that are added to layers of the denoiser, by their names.
    pub fn changed(
        dtype: &StoredDType,
        low_rank: &BTreeMap<String, Vec<LowRank>>,
        config: &ModelConfig,
        context: &LoadContext<'_>,
    ) -> Result<Self, Error> {
        let weights = |dir: &str, _: &str| {
            let weights = Weights::stand_in(dir.to_owned(), dtype.clone());
            Ok(match dir {
                folder::TRANSFORMER => weights.with_low_rank(low_rank.clone()),
                _ => weights,
            })
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
        let of_parts = |has: &dyn Fn(Quantise) -> bool, is_fused| {
            let quantise = context.quantise.filter(|quantise| has(*quantise));
            quantise.map(|quantise| Quantising { format: quantise.format, is_fused })
        };
        let mut text_encoders = Vec::new();
        for encoder in &config.text_encoders {
            let TextEncoderPart { folder, config, .. } = encoder;
            let title = config.title();
            let quantising = of_parts(&|quantise| quantise.parts.has_encoder(title), false);
            let (part, report) = ModelPart::build(
                weights(folder, stem::TRANSFORMERS)?,
                context,
                (&format!("the {title} text encoder"), quantising),
                &config.ignored_weights(),
                |loader| config.load(loader),
            );
            judge(report)?;
            text_encoders.push(part);
        }
        let is_fused = config.family().fuses_layers();
        let quantising = of_parts(&|quantise| quantise.parts.has_denoiser(), is_fused);
        let (denoiser, report) = ModelPart::build(
            weights(folder::TRANSFORMER, stem::DIFFUSERS)?,
            context,
            ("the denoiser", quantising),
            &[],
            |loader| config.transformer.load(loader),
        );
        judge(report)?;
        let (vae, report) = ModelPart::build(
            weights(folder::VAE, stem::DIFFUSERS)?,
            context,
            ("the VAE", None),
            IGNORED_VAE,
            |loader| Box::new(VaeDecoder::load(loader, &config.vae)),
        );
        judge(report)?;
        let parts = Parts { text_encoders, denoiser, vae };
        if let Some(quantise) = context.quantise {
            check_quantised(quantise, &parts.tallies())?;
        }
        Ok(parts)
    }

    /// What messages call parts that were to be quantised, and what became of their weights.
    fn tallies(&self) -> Vec<&(String, Tally)> {
        let encoders = self.text_encoders.iter().map(|part| &part.tally);
        encoders.chain([&self.denoiser.tally]).flatten().collect()
    }

    /// What of the parts that were to be quantised was not, in sentences.
    pub fn not_quantised(&self, quantise: Quantise) -> Vec<String> {
        let tallies = self.tallies();
        let has = |name: &str| tallies.iter().any(|(title, _)| title.to_lowercase().contains(name));
        let missing = quantise.parts.named_encoders().filter(|name| !has(name));
        let missing =
            missing.map(|name| format!("this model has no {name} text encoder to quantise"));
        let unchanged = tallies.iter().flat_map(|(title, tally)| unchanged(title, tally, quantise));
        unchanged.chain(missing).collect()
    }

    /// Bytes of a part on the GPU.
    pub fn bytes_of(&self, part: Part) -> u64 {
        self.uploads_of(part).into_iter().map(|(_, upload)| upload.bytes()).sum()
    }

    /// The memory that the uploads of a part fill.
    pub fn residents_of(&self, part: Part) -> impl Iterator<Item = ResidentId> + '_ {
        self.uploads_of(part).into_iter().map(|(_, upload)| upload.resident())
    }

    /// The weights of a part, in the order in which they are uploaded, each with the checkpoint that it is in.
    pub fn uploads_of(&self, part: Part) -> Vec<(&Weights, &Upload)> {
        fn with<M: ?Sized>(part: &ModelPart<M>) -> impl Iterator<Item = (&Weights, &Upload)> {
            part.uploads.iter().map(|upload| (&part.weights, upload))
        }
        match part {
            Part::TextEncoders => self.text_encoders.iter().flat_map(with).collect(),
            Part::Modulation => {
                let ModelPart { weights, modulation_uploads, .. } = &self.denoiser;
                modulation_uploads.iter().map(|upload| (weights, upload)).collect()
            }
            Part::Denoiser => with(&self.denoiser).chain(with(&self.vae)).collect(),
        }
    }
}

/// What of a part was not quantised, in sentences.
fn unchanged(title: &str, tally: &Tally, Quantise { format, .. }: Quantise) -> Vec<String> {
    let Tally { quantised, narrow, packed, packed_in, narrow_rows } = tally;
    let mut sentences = vec![];
    let packed_in = Escaped(packed_in);
    match (packed, quantised + narrow) {
        (0, _) => {}
        (_, 0) => {
            sentences.push(format!("{title} is stored in {packed_in} already and stays as it is"));
        }
        (_, of) => sentences.push(format!(
            "{packed} of {} large matrices of {title} are stored in {packed_in} or the like already and stay as they are",
            of + packed
        )),
    }
    if *narrow > 0 {
        sentences.push(format!(
            "{narrow} of {} large matrices of {title} stay as they are: their rows, the first of {narrow_rows} numbers, are no \
             whole blocks of {}",
            quantised + narrow + packed,
            format.name()
        ));
    }
    sentences
}

/// Checks that there was something to quantise.
fn check_quantised(quantise: Quantise, tallies: &[&(String, Tally)]) -> Result<(), Error> {
    if tallies.iter().any(|(_, tally)| tally.quantised > 0) {
        return Ok(());
    }
    let mut reasons: Vec<String> =
        tallies.iter().flat_map(|(title, tally)| unchanged(title, tally, quantise)).collect();
    if reasons.is_empty() {
        reasons.push(match tallies {
            [] => format!("this model has no part {}", quantise.parts),
            _ => "no large matrix of a block is stored in 16 or 32 bits".into(),
        });
    }
    Err(Error::NothingToQuantise { quantise, reason: reasons.join("; ") })
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

/// An open model. Its weights are cut into pieces that a device can bind, so devices share it that bind as many bytes at
/// once.
pub struct Model {
    /// Weights are read from it as they are needed.
    pub(super) source: Arc<dyn Source>,
    pub(super) options: Options,
    pub(super) config: Arc<ModelConfig>,
    pub(super) tokenizers: Tokenizers,
    pub(super) parts: Parts,
    /// Weights are random numbers; there are no files.
    pub(super) is_random: bool,
    /// Ids from here on belong to no weight.
    pub(super) first_free_id: ResidentId,
    /// The bytes that such a device binds at once.
    max_binding_bytes: u64,
}

impl Model {
    /// Reads configurations, tokenizers and the headers of all checkpoints, and checks every weight.
    pub(super) fn open(
        source: Box<dyn Source>,
        options: Options,
        max_binding_bytes: u64,
    ) -> Result<Self, Error> {
        let config = ModelConfig::load(&*source)?;
        let tokenizers = open_tokenizers(&*source, &config)?;
        let opened = Parts::open_for(&*source, &config, options, max_binding_bytes)?;
        Ok(Model::of_files(source, options, config, tokenizers, opened, max_binding_bytes))
    }

    /// `opened` is what [`Parts::open_for`] gives.
    fn of_files(
        source: Box<dyn Source>,
        options: Options,
        config: ModelConfig,
        tokenizers: Tokenizers,
        (first_free_id, parts): (ResidentId, Parts),
        max_binding_bytes: u64,
    ) -> Self {
        Model {
            source: source.into(),
            options,
            config: Arc::new(config),
            tokenizers,
            parts,
            is_random: false,
            first_free_id,
            max_binding_bytes,
        }
    }

    /// Like [`Model::open`], for a source whose bytes have to be fetched. One thing after the other, so that no more
    /// than one is read again when something was lacking, and the event loop has its turns.
    pub(super) async fn fetch(
        source: Box<dyn Source>,
        options: Options,
        max_binding_bytes: u64,
    ) -> Result<Self, Error> {
        let from = &*source;
        let config = read(from, || Ok::<_, Error>(ModelConfig::load(from)?)).await?;
        let turns = Turns::new();
        let files = read(from, || AllTokenizerFiles::read(from, &config)).await?;
        let tokenizers = files.parse(&config, &turns).await?;
        drop(files);
        turns.yield_if_due().await;
        let open = || Parts::open_for(from, &config, options, max_binding_bytes);
        let opened = read(from, open).await?;
        Ok(Model::of_files(source, options, config, tokenizers, opened, max_binding_bytes))
    }

    /// A model of random weights, without text encoders. Weights that would be kept as they are stored are kept as f16.
    pub(super) fn random(
        config: ModelConfig,
        name: &str,
        options: Options,
        max_binding_bytes: u64,
    ) -> Result<Self, Error> {
        check_widths(&config)?;
        let precision = match options.precision {
            Precision::Auto => Precision::F16,
            asked => asked,
        };
        let ids = ResidentIds::default();
        let context =
            LoadContext::new(&ids, precision, max_binding_bytes).quantised(options.quantise);
        let parts = Parts::plan(None, &config, &context)?;
        Ok(Model {
            source: Arc::new(Memory::new(name)),
            options,
            config: Arc::new(config),
            tokenizers: Arc::new([]),
            parts: Parts { text_encoders: vec![], ..parts },
            is_random: true,
            first_free_id: ids.next(),
            max_binding_bytes,
        })
    }

    /// This model for a device that binds `max_binding_bytes` at once: itself, if its weights are cut for that.
    pub(super) async fn cut_for(
        self: &Arc<Self>,
        max_binding_bytes: u64,
    ) -> Result<Arc<Self>, Error> {
        if self.max_binding_bytes == max_binding_bytes {
            return Ok(self.clone());
        }
        let Model { source, options, config, tokenizers, .. } = &**self;
        if self.is_random {
            let config = ModelConfig::clone(config);
            let model = Model::random(config, &self.name(), *options, max_binding_bytes)?;
            return Ok(Arc::new(model));
        }
        let open = || Parts::open_for(&**source, config, *options, max_binding_bytes);
        let (first_free_id, parts) = read(&**source, open).await?;
        let (source, config) = (source.clone(), config.clone());
        Ok(Arc::new(Model {
            source,
            options: *options,
            config,
            tokenizers: tokenizers.clone(),
            parts,
            is_random: false,
            first_free_id,
            max_binding_bytes,
        }))
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The model's name: its folder.
    pub fn name(&self) -> String {
        self.source.name()
    }

    /// What was asked to be quantised and stays as it is stored, in sentences.
    pub(super) fn not_quantised(&self) -> Vec<String> {
        self.options.quantise.map_or(vec![], |quantise| self.parts.not_quantised(quantise))
    }

    /// Names in the checkpoints that nothing uses, by folder: harmless, but perhaps a sign of the wrong file.
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
