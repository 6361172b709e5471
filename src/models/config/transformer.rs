//! `transformer/config.json`: what every family's denoiser says about itself.

use std::any::Any;
use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::models::denoiser::Denoiser;
use crate::models::layers::Loader;
use crate::models::rope::Rope;

/// The configuration of a denoiser, whose family reads it from `transformer/config.json`.
///
/// To reach the fields of one family, see [`ModelConfig::transformer_as`](super::ModelConfig::transformer_as).
pub trait TransformerConfig: Any + fmt::Debug + Send + Sync {
    /// Asks for all weights.
    fn load(&self, loader: &Loader<'_>) -> Box<dyn Denoiser>;

    /// Numbers of an image token going in: 4 x latent channels.
    fn token_channels(&self) -> usize;

    /// Width of a token inside the transformer.
    fn hidden(&self) -> usize;

    /// Width of a token inside an MLP.
    fn mlp(&self) -> usize;

    /// Numbers per head.
    fn head_dim(&self) -> usize;

    /// Numbers per text token going in.
    fn text_dim(&self) -> usize;

    /// Numbers of the pooled text vector; `None` for a network without that input.
    fn pooled_dim(&self) -> Option<usize>;

    /// Whether distilled guidance is an input.
    fn has_guidance_input(&self) -> bool {
        false
    }

    /// The rotary positions; `None` for a network with a table of positions.
    fn rope(&self) -> Option<Rope>;

    /// Entries along each side of the table of positions: no grid of tokens may be larger. `None` for rotary positions,
    /// which have no end.
    fn positions_per_side(&self) -> Option<usize> {
        None
    }

    /// All fields, with the name of the family as `family`.
    fn to_json(&self) -> Value;
}

impl PartialEq for dyn TransformerConfig {
    fn eq(&self, other: &Self) -> bool {
        self.to_json() == other.to_json()
    }
}

impl Serialize for dyn TransformerConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

/// The fields of a configuration, and one more that says what kind it is.
pub fn to_json(config: &impl Serialize, tag: &str, kind: &str) -> Value {
    // Numbers, names and lists: these always become JSON.
    let mut json = serde_json::to_value(config).unwrap_or_default();
    json[tag] = kind.into();
    json
}
