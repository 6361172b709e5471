//! From text to embeddings: tokenise, run CLIP and T5, and let them go.

use super::programs::{record_clip, record_t5};
use super::{Error, Event, NamedTensors, Part, Pipeline, Settings};
use crate::gpu::{Program, SlotPool};
use crate::tensor::Resident;

/// A text as the denoiser wants it.
#[derive(Clone, Debug, Default)]
pub(super) struct Embedding {
    /// CLIP's tokens.
    pub clip_ids: Vec<u32>,
    /// T5's tokens.
    pub t5_ids: Vec<u32>,
    /// `[T, joint_attention_dim]`.
    pub txt: Vec<f32>,
    /// `[1, pooled_projection_dim]`.
    pub pooled: Vec<f32>,
}

/// The encoded prompts of a run.
pub(super) struct Encoded {
    pub positive: Embedding,
    /// Present under true guidance.
    pub negative: Option<Embedding>,
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
        let Pipeline { clip, t5, gpu, store, .. } = self.pipeline;
        let of = clip.bytes() + t5.bytes();
        let start = self.bytes;
        while self.bytes - start < UPLOADS_PER_EVENT {
            let i = self.next_upload;
            if let Some(upload) = clip.uploads.get(i) {
                clip.upload(gpu, store, upload).await?;
                self.bytes += upload.bytes();
            } else if let Some(upload) = t5.uploads.get(i - clip.uploads.len()) {
                t5.upload(gpu, store, upload).await?;
                self.bytes += upload.bytes();
            } else if self.bytes > start {
                break;
            } else {
                store.flush(gpu).await?;
                return Ok(None);
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
        let Pipeline { clip, t5, store, .. } = self.pipeline;
        clip.residents().chain(t5.residents()).for_each(|id| store.free(id));
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
        let pipeline = self.pipeline;
        let config = &pipeline.config;
        let n_text = settings.max_sequence_length;
        let clip = pipeline.clip_tokenizer.encode(text)?;
        let t5 = pipeline.t5_tokenizer.encode(text, n_text)?;
        if let Some(dropped) = t5.truncated {
            warnings.push(format!(
                "the {prefix}prompt is {dropped} tokens longer than the {n_text} that T5 reads here; its end is ignored \
                 (--max-sequence-length)"
            ));
        }

        let txt_shape = [1, n_text, config.t5.d_model];
        let txt = match given.numbers(&format!("{prefix}prompt_embeds"), &txt_shape)? {
            Some(txt) => txt.to_vec(),
            None => self.run_t5(&t5.ids, pool).await?,
        };
        let pooled_shape = [1, config.clip.hidden_size];
        let pooled = match given.numbers(&format!("{prefix}pooled_prompt_embeds"), &pooled_shape)? {
            Some(pooled) => pooled.to_vec(),
            None => self.run_clip(&clip.ids, pool).await?,
        };
        for (what, values) in
            [("T5's encoding of the prompt", &txt), ("CLIP's encoding of the prompt", &pooled)]
        {
            check_finite(what, values)?;
        }
        Ok(Embedding { clip_ids: clip.ids, t5_ids: t5.ids, txt, pooled })
    }

    async fn run_t5(&self, ids: &[u32], pool: &SlotPool) -> Result<Vec<f32>, Error> {
        let Pipeline { t5, gpu, config, .. } = self.pipeline;
        let d = config.t5.d_model;
        let bias = t5.model.relative_bias(&t5.weights, ids.len())?;
        let scratch = Scratch::new(self.pipeline);
        let x = scratch.matrix("t5.x", ids.len(), d, &t5.model.embed(&t5.weights, ids)?).await?;
        let bias = scratch.matrix("t5.bias", 1, bias.len(), &bias).await?;
        let out = scratch.matrix("t5.out", ids.len(), d, &[]).await?;
        let recording = record_t5(gpu.caps(), &t5.model, &x, &bias, &out);
        scratch.run(&recording, pool, &out).await
    }

    async fn run_clip(&self, ids: &[u32], pool: &SlotPool) -> Result<Vec<f32>, Error> {
        let Pipeline { clip, gpu, config, .. } = self.pipeline;
        let d = config.clip.hidden_size;
        let pooled_at = config.clip.pooled_position(ids);
        let scratch = Scratch::new(self.pipeline);
        let embedded = clip.model.embed(&clip.weights, ids)?;
        let x = scratch.matrix("clip.x", ids.len(), d, &embedded).await?;
        let out = scratch.matrix("clip.out", 1, d, &[]).await?;
        let recording = record_clip(gpu.caps(), &clip.model, &x, pooled_at, &out);
        scratch.run(&recording, pool, &out).await
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
        out: &Resident,
    ) -> Result<Vec<f32>, Error> {
        let Pipeline { gpu, store, .. } = self.pipeline;
        let program = Program::compile(gpu, store, pool, recording).await?;
        program.run(gpu).await?;
        Ok(store.read(gpu, out).await?)
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
