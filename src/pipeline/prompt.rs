//! From text to embeddings: tokenise, run CLIP and T5.

use std::rc::Rc;

use super::encoders::Shape;
use super::kept::TextKey;
use super::load::ModelPart;
use super::programs::{record_clip, record_t5};
use super::{Error, NamedTensors, Pipeline, Settings};
use crate::checkpoint::source::read;
use crate::models::clip::Clip;
use crate::models::config::Family;
use crate::models::t5::T5;
use crate::tensor::Blocks;

/// A text as the denoiser wants it.
#[derive(Clone, Debug, Default)]
pub(super) struct Embedding {
    /// CLIP's tokens.
    pub clip_ids: Vec<u32>,
    /// T5's tokens; empty without T5.
    pub t5_ids: Vec<u32>,
    /// `[T, text_dim]`.
    pub txt: Vec<f32>,
    /// `[1, pooled_dim]`.
    pub pooled: Vec<f32>,
}

/// The encoded prompts of a run.
pub(super) struct Encoded {
    pub positive: Rc<Embedding>,
    /// Present under classifier-free guidance.
    pub negative: Option<Rc<Embedding>>,
}

/// What one CLIP makes of a text.
struct ClipOutput {
    /// `[1, pooled_dim]`.
    pooled: Vec<f32>,
    /// `[77, hidden]`; empty if not asked for.
    tokens: Vec<f32>,
}

/// The tokenised texts of a run.
pub(super) struct Prompts<'p> {
    pipeline: &'p Pipeline,
    positive: Text,
    negative: Option<Text>,
    need_encoders: bool,
    /// Blocks of the encoders whose products do not round to f16.
    in_f32: Blocks,
}

/// A tokenised text, and what is known of its encoding.
struct Text {
    key: TextKey,
    given_txt: Option<Vec<f32>>,
    given_pooled: Option<Vec<f32>>,
    /// From an earlier run.
    known: Option<Rc<Embedding>>,
}

impl Text {
    fn is_given(&self) -> bool {
        self.given_txt.is_some() && self.given_pooled.is_some()
    }
}

impl<'p> Prompts<'p> {
    /// Tokenises the texts of `settings`.
    pub fn new(
        pipeline: &'p Pipeline,
        settings: &Settings,
        given: &NamedTensors,
        in_f32: &Blocks,
        warnings: &mut Vec<String>,
    ) -> Result<Self, Error> {
        let mut text = |text: &str, prefix| {
            Prompts::tokenise(pipeline, text, prefix, settings, given, warnings)
        };
        let positive = text(&settings.prompt, "")?;
        let negative = match &settings.negative_prompt {
            None => None,
            Some(negative) => Some(text(negative, "negative_")?),
        };
        let needs = |text: &Text| text.known.is_none() && !text.is_given();
        let need_encoders = needs(&positive) || negative.as_ref().is_some_and(needs);
        if need_encoders {
            pipeline.waiting_for_encoders.update(|runs| runs + 1);
        }
        Ok(Prompts { pipeline, positive, negative, need_encoders, in_f32: in_f32.clone() })
    }

    fn tokenise(
        pipeline: &Pipeline,
        text: &str,
        prefix: &str,
        settings: &Settings,
        given: &NamedTensors,
        warnings: &mut Vec<String>,
    ) -> Result<Text, Error> {
        let Pipeline { tokenizers, config, kept, .. } = pipeline;
        let network = &config.transformer;
        let n_t5 = settings.max_sequence_length;
        let is_flux = config.family() == Family::Flux;
        let mut clips = Vec::new();
        for tokenizer in &tokenizers.clips {
            let text = if is_flux { tokenizer.expanded(text)? } else { text.into() };
            clips.push(tokenizer.encode(&text)?.ids);
        }
        let t5 = match &tokenizers.t5 {
            None => vec![],
            Some(tokenizer) => {
                let text = if is_flux { tokenizer.expanded(text)? } else { text.into() };
                let encoded = tokenizer.encode(&text, n_t5)?;
                if let Some(dropped) = encoded.truncated {
                    warnings.push(format!(
                        "the {prefix}prompt is {dropped} tokens longer than the {n_t5} that T5 reads here; its end is \
                         ignored (--max-sequence-length)"
                    ));
                }
                encoded.ids
            }
        };
        let key = TextKey { clips, t5, n_text: config.text_tokens(n_t5) };
        let txt_shape = [1, key.n_text, network.text_dim()];
        let given_txt = given.numbers(&format!("{prefix}prompt_embeds"), &txt_shape)?;
        let pooled_shape = [1, network.pooled_dim()];
        let given_pooled =
            given.numbers(&format!("{prefix}pooled_prompt_embeds"), &pooled_shape)?;
        let nothing_given = given_txt.is_none() && given_pooled.is_none();
        Ok(Text {
            known: if nothing_given { kept.text(&key) } else { None },
            key,
            given_txt: given_txt.map(<[f32]>::to_vec),
            given_pooled: given_pooled.map(<[f32]>::to_vec),
        })
    }

    /// Whether any text has yet to be encoded.
    pub fn need_encoders(&self) -> bool {
        self.need_encoders
    }

    /// Encodes the texts; the encoders' weights must be on the GPU if they are needed.
    pub async fn encode(&self) -> Result<Encoded, Error> {
        let positive = self.embed(&self.positive).await?;
        let negative = match &self.negative {
            None => None,
            Some(text) => Some(self.embed(text).await?),
        };
        Ok(Encoded { positive, negative })
    }

    async fn embed(&self, text: &Text) -> Result<Rc<Embedding>, Error> {
        let Text { key, given_txt, given_pooled, known } = text;
        if let Some(known) = known {
            return Ok(known.clone());
        }
        let Pipeline { config, parts, kept, .. } = self.pipeline;
        // SD3 has CLIP's tokens in front of T5's.
        let wants_tokens = given_txt.is_none() && config.family() == Family::Sd3;
        let mut clips = Vec::new();
        if given_pooled.is_none() || wants_tokens {
            for (i, (clip, ids)) in parts.clips.iter().zip(&key.clips).enumerate() {
                let output = self.run_clip(i, clip, ids, wants_tokens).await?;
                check_finite("CLIP's encoding of the prompt", &output.pooled)?;
                clips.push(output);
            }
        }
        let pooled = match given_pooled {
            Some(pooled) => pooled.clone(),
            None => clips.iter().flat_map(|clip| clip.pooled.iter().copied()).collect(),
        };
        let txt = match given_txt {
            Some(txt) => txt.clone(),
            None => {
                let size = key.n_text * config.transformer.text_dim();
                let mut txt = Vec::with_capacity(size);
                if wants_tokens {
                    txt.extend(self.clip_tokens(&clips));
                }
                if let Some(t5) = &parts.t5 {
                    txt.extend(self.run_t5(t5, &key.t5).await?);
                }
                // diffusers has zeros in place of a T5 that is not there.
                txt.resize(size, 0.0);
                txt
            }
        };
        check_finite("the encoding of the prompt", &txt)?;
        let clip_ids = key.clips.first().cloned().unwrap_or_default();
        let embedding = Rc::new(Embedding { clip_ids, t5_ids: key.t5.clone(), txt, pooled });
        if given_txt.is_none() && given_pooled.is_none() {
            kept.keep_text(key.clone(), embedding.clone());
        }
        Ok(embedding)
    }

    /// The CLIPs' tokens side by side, padded with zeros: `[77, text_dim]`. SD3 paper, figure 2.
    fn clip_tokens(&self, clips: &[ClipOutput]) -> Vec<f32> {
        let config = &self.pipeline.config;
        let (rows, width) = (config.clip_tokens(), config.transformer.text_dim());
        let mut tokens = vec![0.0; rows * width];
        let mut column = 0;
        for (clip, output) in config.clips.iter().zip(clips) {
            let d = clip.hidden_size;
            for (row, values) in output.tokens.chunks_exact(d).enumerate() {
                let at = row * width + column;
                tokens[at..at + d].copy_from_slice(values);
            }
            column += d;
        }
        tokens
    }

    async fn run_t5(&self, t5: &ModelPart<T5>, ids: &[u32]) -> Result<Vec<f32>, Error> {
        let Pipeline { source, gpu, config, kept, .. } = self.pipeline;
        let (n, d) = (ids.len(), config.transformer.text_dim());
        let bias = read(&**source, || t5.model.relative_bias(&t5.weights, n)).await?;
        let embedded = read(&**source, || t5.model.embed(&t5.weights, ids)).await?;
        let inputs =
            [(("t5.x", n, d), embedded.as_slice()), (("t5.bias", 1, bias.len()), bias.as_slice())];
        // Its number is the one behind the CLIPs'.
        let which = config.clips.len();
        let mut outputs = kept
            .encoders
            .run(self.pipeline, which, &inputs, &[("t5.out", n, d)], &self.in_f32, |r, range| {
                record_t5(gpu.caps(), range, &t5.model, &r[0], &r[1], &r[2])
            })
            .await?;
        Ok(outputs.pop().unwrap_or_default())
    }

    async fn run_clip(
        &self,
        i: usize,
        clip: &ModelPart<Clip>,
        ids: &[u32],
        wants_tokens: bool,
    ) -> Result<ClipOutput, Error> {
        let Pipeline { source, gpu, config, kept, .. } = self.pipeline;
        let own = &config.clips[i];
        let at = own.pooled_position(ids);
        let embedded = read(&**source, || clip.model.embed(&clip.weights, ids)).await?;
        let inputs = [(("clip.x", ids.len(), own.hidden_size), embedded.as_slice())];
        let mut outputs: Vec<Shape> = vec![("clip.pooled", 1, own.pooled_dim())];
        if wants_tokens {
            outputs.push(("clip.tokens", ids.len(), own.hidden_size));
        }
        let mut outputs = kept
            .encoders
            .run(self.pipeline, i, &inputs, &outputs, &self.in_f32, |r, range| {
                let tokens = wants_tokens.then(|| &r[2]);
                record_clip(gpu.caps(), range, &clip.model, &r[0], at, &r[1], tokens)
            })
            .await?
            .into_iter();
        Ok(ClipOutput {
            pooled: outputs.next().unwrap_or_default(),
            tokens: outputs.next().unwrap_or_default(),
        })
    }
}

impl Drop for Prompts<'_> {
    fn drop(&mut self) {
        if self.need_encoders {
            self.pipeline.waiting_for_encoders.update(|runs| runs - 1);
        }
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
