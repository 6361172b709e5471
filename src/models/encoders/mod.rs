//! Text encoders: from token ids to the matrices that a denoiser reads.
//!
//! A family lists those it has ([`EncoderSlot`](super::family::EncoderSlot)) and says how what they give is joined. An
//! encoder's file has its network and how the traits here see it; its configuration is in
//! [`config`](super::config).

pub mod clip;
pub(crate) mod files;
pub mod qwen3;
pub mod t5;

use std::any::Any;
use std::borrow::Cow;
use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::cost::{self, Flops};
use super::layers::Loader;
use crate::checkpoint::weights::{TensorInfo, WeightError, Weights};
use crate::sync::{MaybeSend, MaybeSync};
use crate::tensor::{Tensor, Work};
use crate::text::TokenizerKind;

/// The configuration of a text encoder.
///
/// To reach the fields of one kind, see
/// [`ModelConfig::text_encoders_as`](super::config::ModelConfig::text_encoders_as).
pub trait TextEncoderConfig: Any + fmt::Debug + Send + Sync {
    /// What messages call it.
    fn title(&self) -> &'static str;

    /// What its token ids are called among saved tensors.
    fn ids_name(&self) -> &'static str;

    /// What turns text into its token ids.
    fn tokenizer(&self) -> TokenizerKind;

    /// Rows of the token table.
    fn vocab_size(&self) -> usize;

    /// Places in its table of positions; `None` if it has none.
    fn max_positions(&self) -> Option<usize> {
        None
    }

    /// Numbers of a text token that comes out.
    fn token_dim(&self) -> usize;

    /// The field of its configuration that says [`TextEncoderConfig::token_dim`].
    fn token_field(&self) -> Cow<'static, str>;

    /// Numbers of the pooled vector; `None` if it gives none.
    fn pooled_dim(&self) -> Option<usize> {
        None
    }

    /// The field of its configuration that says [`TextEncoderConfig::pooled_dim`].
    fn pooled_field(&self) -> &'static str {
        ""
    }

    /// The names of widths that kernels must be able to do, with what they are: all must be multiples of 4.
    fn widths(&self) -> Vec<(&'static str, usize)>;

    /// The width of a head, with its name.
    fn head_width(&self) -> (&'static str, usize);

    /// Tensors in checkpoints that are ignored on purpose, as
    /// [`Manifest::finish`](crate::checkpoint::weights::Manifest::finish) wants them.
    fn ignored_weights(&self) -> Vec<Cow<'static, str>>;

    /// Asks for all weights.
    fn load(&self, loader: &Loader<'_>) -> Box<dyn TextEncoder>;

    /// The encoding of a text of `n` tokens, padding included.
    fn flops(&self, n: usize) -> Flops {
        self.works(n).iter().map(Work::flops).sum()
    }

    /// What its ops compute for a text of `n` tokens, padding included, in order.
    fn works(&self, n: usize) -> Vec<Work> {
        cost::encoder_works(self, n)
    }

    /// Number of parameters: those of layers that are read. Embeddings are counted once.
    fn parameters(&self) -> u64 {
        cost::encoder_parameters(self)
    }

    /// All fields.
    fn to_json(&self) -> Value;
}

impl PartialEq for dyn TextEncoderConfig {
    fn eq(&self, other: &Self) -> bool {
        self.title() == other.title() && self.to_json() == other.to_json()
    }
}

impl Serialize for dyn TextEncoderConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

/// A text as an encoder reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenisedText {
    /// T token ids: text, marks and padding.
    pub ids: Vec<u32>,
    /// How many of the ids are no padding. It cannot be told from the ids: a text may have the token of the padding, too.
    pub n_real: usize,
}

/// A matrix that an encoder reads or writes: name, rows, columns.
pub type Shape = (&'static str, usize, usize);

/// What an encoder gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Text tokens, `[T, token_dim]`.
    Tokens,
    /// The pooled vector, `[1, pooled_dim]`.
    Pooled,
}

/// A text encoder with its weights.
pub trait TextEncoder: MaybeSend + MaybeSync {
    /// The matrices that it reads for a text of `n` tokens.
    fn inputs(&self, n: usize) -> Vec<Shape>;

    /// The values of those matrices for `text`: rows of the token table, which are picked on the host, as the
    /// tables of large encoders exceed a storage binding and one gather is not worth a kernel.
    fn embed(&self, weights: &Weights, text: &TokenisedText) -> Result<Vec<Vec<f32>>, WeightError>;

    /// The matrices that it writes. An encoder with a pooled vector always gives that, and its tokens if they are wanted.
    fn outputs(&self, n: usize, wants_tokens: bool) -> Vec<(Output, Shape)>;

    /// Records the encoding of `text`: from the matrices of [`TextEncoder::inputs`], which are overwritten, to
    /// those of [`TextEncoder::outputs`].
    fn record(&self, text: &TokenisedText, inputs: &[Tensor<'_>], outputs: &[Tensor<'_>]);
}

/// Rows `ids` of an embedding table, one after the other.
fn embed_rows(weights: &Weights, table: &TensorInfo, ids: &[u32]) -> Result<Vec<f32>, WeightError> {
    let mut rows = Vec::with_capacity(ids.len() * table.shape[1]);
    for &id in ids {
        rows.extend(weights.rows_f32(table, id as usize..id as usize + 1)?);
    }
    Ok(rows)
}
