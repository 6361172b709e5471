//! What the denoiser is conditioned on: texts are tokenised, the text encoders run, and their outputs joined.

use std::sync::Arc;

use super::device::Device;
use super::encoders::EncoderMemory;
use super::model::{Model, ModelPart};
use super::programs::record_encoder;
use super::residency::{NeedsPart, Residency};
use super::streaming::Feeder;
use super::text_cache::{Embedding, TextCache, TextKey};
use super::{Error, NamedTensors, Settings, random_weights};
use crate::checkpoint::source::read;
use crate::models::encoders::{Output, TokenisedText};
use crate::models::family::TextLength;
use crate::tensor::Fallbacks;

/// The encoded prompts of a run.
pub(super) struct Encoded {
    pub positive: Arc<Embedding>,
    /// Present under classifier-free guidance.
    pub negative: Option<Arc<Embedding>>,
}

/// What one encoder makes of a text.
#[derive(Default)]
struct Encoding {
    /// `[1, pooled_dim]`; empty if it gives none.
    pooled: Vec<f32>,
    /// `[T, token_dim]`; empty if nobody asked for it.
    tokens: Vec<f32>,
}

/// What runs the text encoders, whose weights are on the GPU, and keeps what they give.
pub(super) struct Encoders<'a> {
    pub model: &'a Model,
    pub device: &'a Device,
    pub feeder: Feeder<'a>,
    pub memory: &'a EncoderMemory,
    pub texts: &'a TextCache,
}

/// What texts are encoded with.
#[derive(Clone, Copy)]
pub(super) struct TextModel<'a> {
    pub model: &'a Model,
    pub texts: &'a TextCache,
    pub residency: &'a Arc<Residency>,
    /// What low-rank changes of the encoders are multiplied by, for each of their files.
    pub change_weights: &'a [f64],
}

/// The tokenised texts of a run.
pub(super) struct Prompts {
    positive: Text,
    negative: Option<Text>,
    /// If any text has yet to be encoded.
    needs_encoders: Option<NeedsPart>,
    /// What becomes of the encoders' blocks that met numbers beyond f16.
    fallbacks: Fallbacks,
}

/// A tokenised text, and what is known of its encoding.
struct Text {
    key: TextKey,
    given_txt: Option<Vec<f32>>,
    given_pooled: Option<Vec<f32>>,
    /// From an earlier run.
    known: Option<Arc<Embedding>>,
    /// Whether all of it is computed, so that a later run may use it again.
    is_whole: bool,
}

impl Text {
    fn is_given(&self) -> bool {
        self.given_txt.is_some() && self.given_pooled.is_some()
    }
}

impl Prompts {
    /// Tokenises the texts of `settings`, and finds those of them whose encodings are kept.
    pub fn new(
        text_model: TextModel<'_>,
        settings: &Settings,
        given: &NamedTensors,
        fallbacks: &Fallbacks,
        warnings: &mut Vec<String>,
    ) -> Result<Self, Error> {
        let mut text = |text: &str, prefix| {
            Prompts::tokenise(text_model, (text, prefix), settings, given, warnings)
        };
        let positive = text(&settings.prompt, "")?;
        let negative = match &settings.negative_prompt {
            None => None,
            Some(negative) => Some(text(negative, "negative_")?),
        };
        let needs = |text: &Text| text.known.is_none() && !text.is_given();
        let needs_encoders = (needs(&positive) || negative.as_ref().is_some_and(needs))
            .then(|| NeedsPart::text_encoders(text_model.residency));
        Ok(Prompts { positive, negative, needs_encoders, fallbacks: fallbacks.clone() })
    }

    fn tokenise(
        TextModel { model, texts: known, change_weights, .. }: TextModel<'_>,
        (text, prefix): (&str, &str),
        settings: &Settings,
        given: &NamedTensors,
        warnings: &mut Vec<String>,
    ) -> Result<Text, Error> {
        let Model { tokenizers, config, .. } = model;
        let (network, family) = (&config.transformer, config.family());
        let asked = settings.max_sequence_length;
        let mut texts = Vec::new();
        for (encoder, tokenizer) in config.text_encoders.iter().zip(tokenizers.iter()) {
            let text = family.prompt(text);
            let text = if family.expands_tokens() { tokenizer.expanded(&text)? } else { text };
            let length = encoder.length(asked);
            let encoded = tokenizer.encode(&text, length)?;
            if let (TextLength::Asked, Some(dropped)) = (encoder.length, encoded.truncated) {
                let title = encoder.config.title();
                warnings.push(format!(
                    "the {prefix}prompt is {dropped} tokens longer than the {length} that {title} reads here; its end is \
                     ignored (max_sequence_length)"
                ));
            }
            let vocab_size = encoder.config.vocab_size();
            if let Some(id) = encoded.ids.iter().find(|id| **id as usize >= vocab_size) {
                let expected = format!(
                    "tokens that {} has embeddings of, 0 to {}; leave out marks such as <extra_id_0>",
                    encoder.config.title(),
                    vocab_size - 1
                );
                let what = if prefix.is_empty() { "the prompt" } else { "the negative prompt" };
                return Err(Error::setting(what, format!("a text with token {id}"), expected));
            }
            texts.push(TokenisedText { ids: encoded.ids, n_real: encoded.real });
        }
        let (n_text, change_weights) = (config.text_tokens(asked), change_weights.to_vec());
        let key = TextKey { texts, n_text, change_weights };
        let txt_shape = [1, key.n_text, network.text_dim()];
        let given_txt = given.numbers(&format!("{prefix}prompt_embeds"), &txt_shape)?;
        let given_pooled = match network.pooled_dim() {
            Some(dim) => given.numbers(&format!("{prefix}pooled_prompt_embeds"), &[1, dim])?,
            // There is nothing to compute.
            None => Some(&[][..]),
        };
        let nothing_given =
            given_txt.is_none() && (given_pooled.is_none() || network.pooled_dim().is_none());
        let mut text = Text {
            known: if nothing_given { known.get(&key) } else { None },
            is_whole: nothing_given,
            key,
            given_txt: given_txt.map(<[f32]>::to_vec),
            given_pooled: given_pooled.map(<[f32]>::to_vec),
        };
        if model.is_random {
            // It has nothing that would encode a text.
            let random = |shape: [usize; 2]| random_weights::embedding(shape[0] * shape[1]);
            text.given_txt.get_or_insert_with(|| random([text.key.n_text, network.text_dim()]));
            text.given_pooled.get_or_insert_with(|| random([1, network.pooled_dim().unwrap_or(0)]));
        }
        Ok(text)
    }

    /// Whether any text has yet to be encoded.
    pub fn need_encoders(&self) -> bool {
        self.needs_encoders.is_some()
    }

    /// Encodes the texts; the encoders' weights must be on the GPU if they are needed.
    pub async fn encode(&self, encoders: Encoders<'_>) -> Result<Encoded, Error> {
        let positive = encoders.embed(&self.positive, &self.fallbacks).await?;
        let negative = match &self.negative {
            None => None,
            Some(text) => Some(encoders.embed(text, &self.fallbacks).await?),
        };
        Ok(Encoded { positive, negative })
    }
}

impl Encoders<'_> {
    /// The encoding of a text: given, from an earlier run, or computed.
    async fn embed(&self, text: &Text, fallbacks: &Fallbacks) -> Result<Arc<Embedding>, Error> {
        let Text { key, given_txt, given_pooled, known, is_whole } = text;
        if let Some(known) = known {
            return Ok(known.clone());
        }
        let config = &*self.model.config;
        let (family, network) = (config.family(), &config.transformer);
        let mut encodings = Vec::new();
        for (i, encoder) in config.text_encoders.iter().take(key.texts.len()).enumerate() {
            let wants_tokens = encoder.gives_tokens && given_txt.is_none();
            let wants_pooled = encoder.gives_pooled && given_pooled.is_none();
            encodings.push(match wants_tokens || wants_pooled {
                true => self.run(i, &key.texts[i], wants_tokens, fallbacks).await?,
                false => Encoding::default(),
            });
            let what = format!("{}'s encoding of the prompt", encoder.config.title());
            check_finite(&what, &encodings[i].pooled)?;
        }
        let pooled = match given_pooled {
            Some(pooled) => pooled.clone(),
            None => {
                let encoders = config.text_encoders.iter().zip(&mut encodings);
                let pooled = encoders.filter(|(encoder, _)| encoder.gives_pooled);
                let pooled: Vec<_> = pooled.map(|(_, e)| std::mem::take(&mut e.pooled)).collect();
                family.join_pooled(&pooled)
            }
        };
        let txt = match given_txt {
            Some(txt) => txt.clone(),
            None => {
                let encoders = config.text_encoders.iter().zip(&mut encodings);
                let tokens = encoders.filter(|(encoder, _)| encoder.gives_tokens);
                let tokens: Vec<_> = tokens.map(|(_, e)| std::mem::take(&mut e.tokens)).collect();
                family.join_tokens(config, &tokens, key.n_text)
            }
        };
        debug_assert_eq!(txt.len(), key.n_text * network.text_dim());
        check_finite("the encoding of the prompt", &txt)?;
        // Of encoders whose ids have one name, the first one's.
        let mut ids: Vec<(&'static str, Vec<u32>)> = Vec::new();
        for (encoder, encoded) in config.text_encoders.iter().zip(&key.texts) {
            let name = encoder.config.ids_name();
            if ids.iter().all(|(known, _)| *known != name) {
                ids.push((name, encoded.ids.clone()));
            }
        }
        let embedding = Arc::new(Embedding { ids, txt, pooled });
        if *is_whole {
            self.texts.insert(key.clone(), embedding.clone());
        }
        Ok(embedding)
    }

    /// Runs encoder number `i`.
    async fn run(
        &self,
        i: usize,
        text: &TokenisedText,
        wants_tokens: bool,
        fallbacks: &Fallbacks,
    ) -> Result<Encoding, Error> {
        let Model { source, config, parts, .. } = self.model;
        let name = config.text_encoders[i].config.title();
        let ModelPart { model, weights, .. } = &parts.text_encoders[i];
        let values = read(&**source, || model.embed(weights, text)).await?;
        let shapes = model.inputs(text.ids.len());
        let inputs: Vec<_> = shapes.into_iter().zip(values.iter().map(Vec::as_slice)).collect();
        let (kinds, outputs): (Vec<Output>, Vec<_>) =
            model.outputs(text.ids.len(), wants_tokens).into_iter().unzip();
        let caps = self.device.gpu.caps();
        let results = self
            .memory
            .run(&self.feeder, i, &inputs, &outputs, fallbacks, |residents, f16_range| {
                let (inputs, outputs) = residents.split_at(inputs.len());
                let outputs = &outputs[..kinds.len()];
                record_encoder(caps, f16_range, name, &**model, text, inputs, outputs)
            })
            .await?;
        let mut encoding = Encoding::default();
        for (kind, values) in kinds.iter().zip(results) {
            match kind {
                Output::Tokens => encoding.tokens = values,
                Output::Pooled => encoding.pooled = values,
            }
        }
        Ok(encoding)
    }
}

/// Fails if any number is NaN or infinite.
pub(super) fn check_finite(what: &str, values: &[f32]) -> Result<(), Error> {
    let bad = values.iter().filter(|v| !v.is_finite()).count();
    if bad == 0 {
        return Ok(());
    }
    Err(Error::NotFinite { what: what.to_owned(), bad, of: values.len() })
}
