//! Encoded texts, kept on the host from one run to the next.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::models::encoders::TokenisedText;
use crate::sync::Locked;

/// Encoded texts that are kept, in host memory: 8 MB each for FLUX.
const TEXTS: usize = 8;

/// A text as the denoiser wants it.
#[derive(Clone, Debug, Default)]
pub(super) struct Embedding {
    /// Token ids under the names that they are saved by.
    pub ids: Vec<(&'static str, Vec<u32>)>,
    /// `[T, text_dim]`.
    pub txt: Vec<f32>,
    /// `[1, pooled_dim]`; empty for networks without that input.
    pub pooled: Vec<f32>,
}

/// The tokens of a text, for each text encoder.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct TextKey {
    pub texts: Vec<TokenisedText>,
    /// Tokens of the encoding, padding included.
    pub n_text: usize,
    /// What low-rank changes of the text encoders are multiplied by.
    pub change_weights: Vec<f64>,
}

/// The texts that were used last.
#[derive(Default)]
pub(super) struct TextCache {
    /// The latest last.
    texts: Locked<VecDeque<(TextKey, Arc<Embedding>)>>,
}

impl TextCache {
    /// An encoded text, if it is kept.
    pub fn get(&self, key: &TextKey) -> Option<Arc<Embedding>> {
        let mut texts = self.texts.lock();
        let at = texts.iter().position(|(known, _)| known == key)?;
        let found = texts.remove(at)?;
        let embedding = found.1.clone();
        texts.push_back(found);
        Some(embedding)
    }

    /// Keeps an encoded text instead of the one that was used the longest time ago.
    pub fn insert(&self, key: TextKey, embedding: Arc<Embedding>) {
        let mut texts = self.texts.lock();
        texts.push_back((key, embedding));
        if texts.len() > TEXTS {
            texts.pop_front();
        }
    }
}

impl Clone for TextCache {
    fn clone(&self) -> Self {
        TextCache { texts: Locked::new(self.texts.lock().clone()) }
    }
}
