//! What a model costs: floating point operations (a multiply and an add count 2) and parameters, from its configuration
//! alone.
//!
//! A model is built without weights and recorded into a recorder that is thrown away, so costs cannot differ from what runs.
//! Only matrix products and convolutions are counted, as their ops define them; norms, activations and rotations are well
//! below one per cent. Linear layers and attention (`Q K^T` and `P V`) are kept apart in [`Flops`], because papers count
//! the former only.
//!
//! Recording panics for widths that kernels cannot do; a pipeline and a plan check these first.
//!
//! ```
//! use ralu::models::builtin;
//! let config = builtin::get("flux.1-dev").unwrap();
//! // 1024 x 1024 pixels are 4096 image tokens; 59.5 TFLOP linear, 74.4 with attention.
//! let step = config.transformer.step_flops(4096, 512);
//! assert!((step.linear / 1e12 - 59.5).abs() < 0.1);
//! assert!((step.total() / 1e12 - 74.4).abs() < 0.1);
//! ```

use serde::Serialize;

use super::config::{ModelConfig, TransformerConfig, VaeConfig};
use super::denoiser::{Denoiser, Direct, Inputs, Positions, State};
use super::encoders::{TextEncoderConfig, TokenisedText};
use super::layers::{LoadContext, Loader, Precision, TIME_CHANNELS};
use super::modulation::Conditions;
use super::vae::{IMAGE_CHANNELS, VaeDecoder};
use crate::checkpoint::weights::{Manifest, Weights};
pub use crate::tensor::Flops;
use crate::tensor::{Caps, Recorder, ResidentIds, Work};

/// A part of a model without weights, and the number of its parameters.
fn build<M>(load: impl FnOnce(&Loader<'_>) -> M) -> (M, u64) {
    let weights = Weights::empty(String::new());
    let ids = ResidentIds::default();
    let context = LoadContext::new(&ids, Precision::Auto, u64::MAX);
    let manifest = Manifest::counting(&weights);
    let model = load(&Loader::new(manifest.root(), &context));
    (model, manifest.n_parameters())
}

/// What the ops that `record` calls compute, in order.
fn works(record: impl FnOnce(&Recorder)) -> Vec<Work> {
    let recorder = Recorder::new(Caps::default());
    record(&recorder);
    recorder.finish("").works
}

fn products(works: Vec<Work>) -> Flops {
    works.iter().map(Work::flops).sum()
}

impl dyn TransformerConfig + '_ {
    /// One evaluation with `img` image tokens and `txt` text tokens, batch 1.
    pub fn step_flops(&self, img: usize, txt: usize) -> Flops {
        products(self.step_works(img, txt))
    }

    /// What the ops of an evaluation compute, in order, its modulations first.
    pub fn step_works(&self, img: usize, txt: usize) -> Vec<Work> {
        self.evaluation(img, txt, |network, state| {
            (0..network.n_blocks()).for_each(|i| network.block(i, state, &mut Direct));
        })
    }

    /// Number of parameters.
    pub fn parameters(&self) -> u64 {
        build(|loader| self.load(loader)).1
    }

    /// An evaluation in which `blocks` stands for the blocks.
    fn evaluation(
        &self,
        img: usize,
        txt: usize,
        blocks: impl FnOnce(&dyn Denoiser, &State<'_>),
    ) -> Vec<Work> {
        let network = build(|loader| self.load(loader)).0;
        works(|recorder| {
            let n = txt + img;
            let conditions = Conditions {
                time: recorder.temp("time", 1, TIME_CHANNELS),
                guidance: recorder.temp("guidance", 1, TIME_CHANNELS),
                pooled: self.pooled_dim().map(|dim| recorder.temp("pooled", 1, dim)),
            };
            let modulations = recorder.temp("modulations", 1, network.modulations().width());
            network.modulations().record(conditions, modulations);
            let inputs = Inputs {
                branches: 1,
                txt: recorder.temp("txt", txt, self.text_dim()),
                modulations,
                positions: match self.rope() {
                    Some(_) => Positions::Rotations(recorder.temp("pe", n, self.head_dim())),
                    None => Positions::Added(recorder.temp("pe", img, self.hidden())),
                },
            };
            let x = recorder.temp("x", n, self.hidden());
            let img = recorder.temp("img", img, self.token_channels());
            let state = network.begin(img, inputs, x);
            blocks(&*network, &state);
            network.velocity(&state);
        })
    }
}

/// What the ops of an encoder compute for a text of `n` tokens, padding included.
pub(super) fn encoder_works(config: &(impl TextEncoderConfig + ?Sized), n: usize) -> Vec<Work> {
    let encoder = build(|loader| config.load(loader)).0;
    works(|recorder| {
        let outputs = encoder.outputs(n, true);
        let [inputs, outputs] =
            [encoder.inputs(n), outputs.into_iter().map(|(_, shape)| shape).collect()].map(
                |shapes| {
                    let temp = |(name, rows, cols)| recorder.temp(name, rows, cols);
                    shapes.into_iter().map(temp).collect::<Vec<_>>()
                },
            );
        encoder.record(&TokenisedText { ids: vec![0; n], n_real: n }, &inputs, &outputs);
    })
}

/// Number of parameters of a text encoder. Embeddings are counted once.
pub(super) fn encoder_parameters(config: &(impl TextEncoderConfig + ?Sized)) -> u64 {
    build(|loader| config.load(loader)).1
}

/// All text encoders, once, for a text of `n` tokens where the length is not fixed.
pub fn text_encoders(config: &ModelConfig, n: usize) -> Flops {
    config.text_encoders.iter().map(|encoder| encoder.config.flops(encoder.length(n))).sum()
}

/// Decoding a latent of `height` x `width` latent pixels.
pub fn vae_decode(config: &VaeConfig, height: usize, width: usize) -> Flops {
    products(decode_works(config, height, width))
}

/// What the ops of decoding a latent of `height` x `width` latent pixels compute, in order.
pub fn decode_works(config: &VaeConfig, height: usize, width: usize) -> Vec<Work> {
    let decoder = build(|loader| VaeDecoder::load(loader, config)).0;
    works(|recorder| {
        let latents = recorder.image("latents", height, width, config.latent_channels);
        let scale = 1 << config.block_out_channels.len().saturating_sub(1);
        let pixels = recorder.image("pixels", scale * height, scale * width, IMAGE_CHANNELS);
        decoder.forward(latents, width, pixels);
    })
}

/// Numbers of parameters, per part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Parameters {
    /// The denoiser.
    pub transformer: u64,
    /// The text encoders, in the order of [`ModelConfig::text_encoders`]. Embeddings are counted once.
    pub text_encoders: Vec<u64>,
    /// The decoder alone: the encoder's half of the file is never loaded.
    pub vae_decoder: u64,
}

impl Parameters {
    /// Counts a model's parameters.
    pub fn of(config: &ModelConfig) -> Self {
        Self {
            transformer: config.transformer.parameters(),
            text_encoders: (config.text_encoders.iter())
                .map(|encoder| encoder.config.parameters())
                .collect(),
            vae_decoder: build(|loader| VaeDecoder::load(loader, &config.vae)).1,
        }
    }

    /// All parts together.
    pub fn total(&self) -> u64 {
        self.transformer + self.text_encoders.iter().sum::<u64>() + self.vae_decoder
    }
}

/// The works of one op in `works`, each once with the bytes or operations of all its calls, the most first. Storage is left
/// as recorded.
pub fn rank<'w>(works: impl IntoIterator<Item = &'w Work>) -> Vec<(Work, f64)> {
    let mut ranked: Vec<(Work, f64)> = Vec::new();
    for work in works {
        // A byte takes about as long as several operations.
        let cost = work.flops().total().max(16.0 * work.bytes());
        match ranked.iter_mut().find(|(known, _)| known == work) {
            Some((_, sum)) => *sum += cost,
            None => ranked.push((*work, cost)),
        }
    }
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked
}
