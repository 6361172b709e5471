//! From text to embeddings: tokenise, run CLIP and T5, and let them go.

use super::load::ModelPart;
use super::programs::{record_clip, record_t5};
use super::{Error, Event, NamedTensors, Part, Pipeline, Settings};
use crate::gpu::{Program, SlotPool};
use crate::models::clip::Clip;
use crate::models::config::Family;
use crate::models::layers::Upload;
use crate::models::t5::T5;
use crate::tensor::Resident;

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
    pub positive: Embedding,
    /// Present under classifier-free guidance.
    pub negative: Option<Embedding>,
}

/// What one CLIP makes of a text.
struct ClipOutput {
    /// `[1, pooled_dim]`.
    pooled: Vec<f32>,
    /// `[77, hidden]`; empty if not asked for.
    tokens: Vec<f32>,
}

/// Encoding in progress: uploads one tensor at a time, so that progress can be shown.
pub(super) struct Encoder<'p> {
    pipeline: &'p Pipeline,
    next_upload: usize,
    bytes: u64,
}

impl<'p> Encoder<'p> {
    pub fn new(pipeline: &'p Pipeline) -> Self {
        Encoder { pipeline, next_upload: 0, bytes: 0 }
    }

    /// Uploads some weights; `None` when all are there.
    pub async fn upload_some(&mut self) -> Result<Option<Event>, Error> {
        let Pipeline { parts, gpu, store, .. } = self.pipeline;
        let of = parts.text_encoder_bytes();
        let start = self.bytes;
        while self.bytes - start < UPLOADS_PER_EVENT {
            let mut i = self.next_upload;
            // Which part upload number `i` belongs to.
            let mut find = |uploads: &'p [Upload]| {
                let found = uploads.get(i);
                i = i.saturating_sub(uploads.len());
                found
            };
            let mut done = None;
            for clip in &parts.clips {
                if let Some(upload) = find(&clip.uploads) {
                    clip.upload(gpu, store, upload).await?;
                    done = Some(upload.bytes());
                    break;
                }
            }
            if let (None, Some(t5)) = (done, &parts.t5)
                && let Some(upload) = find(&t5.uploads)
            {
                t5.upload(gpu, store, upload).await?;
                done = Some(upload.bytes());
            }
            match done {
                Some(bytes) => self.bytes += bytes,
                None if self.bytes > start => break,
                None => {
                    store.flush(gpu).await?;
                    return Ok(None);
                }
            }
            self.next_upload += 1;
        }
        Ok(Some(Event::Loading { part: Part::TextEncoders, bytes: self.bytes, of }))
    }

    /// Encodes the prompts of `settings`, then frees the encoders' memory.
    pub async fn encode(
        &self,
        settings: &Settings,
        given: &NamedTensors,
        warnings: &mut Vec<String>,
    ) -> Result<Encoded, Error> {
        let pool = SlotPool::default();
        let positive = self.embed(&settings.prompt, "", settings, given, &pool, warnings).await?;
        let negative = match &settings.negative_prompt {
            None => None,
            Some(text) => {
                Some(self.embed(text, "negative_", settings, given, &pool, warnings).await?)
            }
        };
        Ok(Encoded { positive, negative })
    }

    /// Frees the encoders' memory.
    pub fn release(&self) {
        let Pipeline { parts, store, .. } = self.pipeline;
        parts.clips.iter().flat_map(ModelPart::residents).for_each(|id| store.free(id));
        parts.t5.iter().flat_map(ModelPart::residents).for_each(|id| store.free(id));
    }

    async fn embed(
        &self,
        text: &str,
        prefix: &str,
        settings: &Settings,
        given: &NamedTensors,
        pool: &SlotPool,
        warnings: &mut Vec<String>,
    ) -> Result<Embedding, Error> {
        let Pipeline { tokenizers, config, parts, .. } = self.pipeline;
        let network = &config.transformer;
        let n_t5 = settings.max_sequence_length;
        let mut clip_ids = Vec::new();
        for tokenizer in &tokenizers.clips {
            clip_ids.push(tokenizer.encode(text)?.ids);
        }
        let t5_ids = match &tokenizers.t5 {
            None => vec![],
            Some(tokenizer) => {
                let encoded = tokenizer.encode(text, n_t5)?;
                if let Some(dropped) = encoded.truncated {
                    warnings.push(format!(
                        "the {prefix}prompt is {dropped} tokens longer than the {n_t5} that T5 reads here; its end is \
                         ignored (--max-sequence-length)"
                    ));
                }
                encoded.ids
            }
        };

        let txt_shape = [1, config.text_tokens(n_t5), network.text_dim()];
        let given_txt = given.numbers(&format!("{prefix}prompt_embeds"), &txt_shape)?;
        let pooled_shape = [1, network.pooled_dim()];
        let given_pooled =
            given.numbers(&format!("{prefix}pooled_prompt_embeds"), &pooled_shape)?;

        // SD3 has CLIP's tokens in front of T5's.
        let wants_tokens = given_txt.is_none() && config.family() == Family::Sd3;
        let mut clips = Vec::new();
        if given_pooled.is_none() || wants_tokens {
            for (i, (clip, ids)) in parts.clips.iter().zip(&clip_ids).enumerate() {
                let output = self.run_clip(i, clip, ids, wants_tokens, pool).await?;
                check_finite("CLIP's encoding of the prompt", &output.pooled)?;
                clips.push(output);
            }
        }
        let pooled = match given_pooled {
            Some(pooled) => pooled.to_vec(),
            None => clips.iter().flat_map(|clip| clip.pooled.iter().copied()).collect(),
        };
        let txt = match given_txt {
            Some(txt) => txt.to_vec(),
            None => {
                let mut txt = Vec::with_capacity(txt_shape.iter().product());
                if wants_tokens {
                    txt.extend(self.clip_tokens(&clips));
                }
                if let Some(t5) = &parts.t5 {
                    txt.extend(self.run_t5(t5, &t5_ids, pool).await?);
                }
                // diffusers has zeros in place of a T5 that is not there.
                txt.resize(txt_shape.iter().product(), 0.0);
                txt
            }
        };
        check_finite("the encoding of the prompt", &txt)?;
        let clip_ids = clip_ids.into_iter().next().unwrap_or_default();
        Ok(Embedding { clip_ids, t5_ids, txt, pooled })
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

    async fn run_t5(
        &self,
        t5: &ModelPart<T5>,
        ids: &[u32],
        pool: &SlotPool,
    ) -> Result<Vec<f32>, Error> {
        let Pipeline { gpu, config, .. } = self.pipeline;
        let d = config.transformer.text_dim();
        let bias = t5.model.relative_bias(&t5.weights, ids.len())?;
        let scratch = Scratch::new(self.pipeline);
        let x = scratch.matrix("t5.x", ids.len(), d, &t5.model.embed(&t5.weights, ids)?).await?;
        let bias = scratch.matrix("t5.bias", 1, bias.len(), &bias).await?;
        let out = scratch.matrix("t5.out", ids.len(), d, &[]).await?;
        scratch.run(&record_t5(gpu.caps(), &t5.model, &x, &bias, &out), pool).await?;
        scratch.read(&out).await
    }

    async fn run_clip(
        &self,
        i: usize,
        clip: &ModelPart<Clip>,
        ids: &[u32],
        wants_tokens: bool,
        pool: &SlotPool,
    ) -> Result<ClipOutput, Error> {
        let Pipeline { gpu, config, .. } = self.pipeline;
        let own = &config.clips[i];
        let scratch = Scratch::new(self.pipeline);
        let embedded = clip.model.embed(&clip.weights, ids)?;
        let x = scratch.matrix("clip.x", ids.len(), own.hidden_size, &embedded).await?;
        let pooled = scratch.matrix("clip.pooled", 1, own.pooled_dim(), &[]).await?;
        let tokens = match wants_tokens {
            true => Some(scratch.matrix("clip.tokens", ids.len(), own.hidden_size, &[]).await?),
            false => None,
        };
        let at = own.pooled_position(ids);
        let recording = record_clip(gpu.caps(), &clip.model, &x, at, &pooled, tokens.as_ref());
        scratch.run(&recording, pool).await?;
        Ok(ClipOutput {
            pooled: scratch.read(&pooled).await?,
            tokens: match &tokens {
                Some(tokens) => scratch.read(tokens).await?,
                None => vec![],
            },
        })
    }
}

/// Bytes uploaded between two progress events.
pub(super) const UPLOADS_PER_EVENT: u64 = 64 << 20;

/// Residents that live for one program; freed when dropped.
struct Scratch<'p> {
    pipeline: &'p Pipeline,
    residents: std::cell::RefCell<Vec<Resident>>,
}

impl<'p> Scratch<'p> {
    fn new(pipeline: &'p Pipeline) -> Self {
        Scratch { pipeline, residents: Default::default() }
    }

    async fn matrix(
        &self,
        label: &str,
        rows: usize,
        cols: usize,
        values: &[f32],
    ) -> Result<Resident, Error> {
        let Pipeline { ids, gpu, store, .. } = self.pipeline;
        let resident = ids.matrix(label, rows, cols, gpu.caps().max_binding_bytes);
        store.create(gpu, &resident).await?;
        self.residents.borrow_mut().push(resident.clone());
        if !values.is_empty() {
            store.write(gpu, &resident, values).await?;
        }
        Ok(resident)
    }

    async fn run(
        &self,
        recording: &crate::tensor::Recording,
        pool: &SlotPool,
    ) -> Result<(), Error> {
        let Pipeline { gpu, store, .. } = self.pipeline;
        let program = Program::compile(gpu, store, pool, recording).await?;
        Ok(program.run(gpu).await?)
    }

    async fn read(&self, resident: &Resident) -> Result<Vec<f32>, Error> {
        let Pipeline { gpu, store, .. } = self.pipeline;
        Ok(store.read(gpu, resident).await?)
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        for resident in self.residents.borrow().iter() {
            self.pipeline.store.free(resident.id);
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
