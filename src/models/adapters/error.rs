//! What can be wrong with a file of changes.

use super::LoraWeight;
use crate::checkpoint::source::SourceError;
use crate::checkpoint::weights::WeightError;
use crate::escape::Escaped;

/// Why a LoRA cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum AdapterError {
    /// The bytes could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The file is no safetensors file, or damaged.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// It is not there.
    #[error("{}: no such file; expected a LoRA as a safetensors file", Escaped(.file))]
    NoFile { file: String },
    /// It holds nothing.
    #[error("{}: there is no tensor in it; expected a LoRA: download or save the file again", Escaped(.file))]
    Empty { file: String },
    /// The weight is no number.
    #[error("{}: the weight is {weight}; expected a finite number", Escaped(.file))]
    Weight { file: String, weight: LoraWeight },
    /// Changes that are part of a weight cannot come and go.
    #[error(
        "{}: the change of {} ({kind}) is merged into the weight, which is the same in all stages; expected one weight for the \
         whole run",
        Escaped(.file), Escaped(.layer)
    )]
    StageWeights { file: String, layer: String, kind: &'static str },
    /// It is for another family.
    #[error(
        "{}: this file is made for {made_for} ({}); the model is of another family ({model}): take a LoRA for that",
        Escaped(.file), Escaped(.key)
    )]
    OtherFamily {
        file: String,
        made_for: &'static str,
        /// A key that says so.
        key: String,
        model: &'static str,
    },
    /// Nothing in it is known.
    #[error(
        "{}: no layer of the model is known by its {n} keys (the first: {}); expected a LoRA for {model} with names as \
         diffusers, kohya's sd-scripts, ComfyUI, ai-toolkit, XLabs, OneTrainer, LyCORIS or the model's makers write them",
        Escaped(.file), Escaped(&.first.join(", "))
    )]
    NothingKnown { file: String, n: usize, first: Vec<String>, model: &'static str },
    /// It is of a kind that is not read.
    #[error(
        "{}: {} is an {kind} adapter, which is not supported; expected LoRA, LoCon, LoHa, LoKr, DoRA or whole differences",
        Escaped(.file), Escaped(.key)
    )]
    Kind { file: String, key: String, kind: &'static str },
    /// A tensor belongs to another.
    #[error(
        "{}: the layer {} has {found} without {missing}; the file is incomplete, download or save it again",
        Escaped(.file), Escaped(.layer)
    )]
    Half { file: String, layer: String, found: &'static str, missing: &'static str },
    /// A tensor has a type that is none of numbers with a fraction.
    #[error(
        "{}: the tensor {} has the type {}; expected floats (F32, F16, BF16, F8_E4M3, F8_E5M2)",
        Escaped(.file), Escaped(.key), Escaped(.dtype)
    )]
    DType { file: String, key: String, dtype: String },
    /// Two factors do not fit together.
    #[error(
        "{}: the layer {} has {what}: rank {found} in one, rank {expected} in the other; the file is damaged",
        Escaped(.file), Escaped(.layer)
    )]
    Rank { file: String, layer: String, what: &'static str, found: usize, expected: usize },
    /// A change does not fit the layer.
    #[error(
        "{}: the change of {} has shape {found:?}; expected {expected:?}, as the model's layer {} has: this file is for a model \
         of another size",
        Escaped(.file), Escaped(.layer), Escaped(.target)
    )]
    Shape { file: String, layer: String, found: Vec<usize>, expected: Vec<usize>, target: String },
    /// A tensor has another shape than its kind has.
    #[error("{}: the tensor {} has shape {found:?}; expected {expected}", Escaped(.file), Escaped(.key))]
    TensorShape { file: String, key: String, found: Vec<usize>, expected: &'static str },
    /// It needs a picture to follow.
    #[error(
        "{}: this LoRA needs a control image ({} takes {found} inputs, the model's {expected}), which is not supported; take a \
         LoRA without one",
        Escaped(.file), Escaped(.layer)
    )]
    Control { file: String, layer: String, found: usize, expected: usize },
    /// A number is none.
    #[error("{}: the tensor {} holds {value}, which is not finite; download the file again", Escaped(.file), Escaped(.key))]
    NotFinite { file: String, key: String, value: f32 },
    /// One layer has two changes.
    #[error(
        "{}: {} and {} are the same layer twice, with different numbers; the file is damaged, or two files were mixed",
        Escaped(.file), Escaped(.first), Escaped(.second)
    )]
    Twice { file: String, first: String, second: String },
    /// A dense change of a quantised weight.
    #[error(
        "{}: the change of {} ({kind}) has to be added to the weight itself, which is stored in {}: nearly all of it would be \
         lost; take the model in 16 or 32 bits, or a plain LoRA",
        Escaped(.file), Escaped(.layer), Escaped(.dtype)
    )]
    Quantised { file: String, layer: String, kind: &'static str, dtype: String },
    /// It is another file than the one that a picture was made with.
    #[error(
        "{}: another file than the picture was made with (SHA-256 {found}, expected {expected}); give the right one",
        Escaped(.file)
    )]
    OtherFile { file: String, found: String, expected: String },
    /// PEFT's configuration cannot be read.
    #[error("{}: its lora_adapter_metadata {}; save the file again", Escaped(.file), Escaped(.reason))]
    Metadata { file: String, reason: String },
    /// The family's layers have no names here.
    #[error("{}: LoRAs for {model} are not supported", Escaped(.file))]
    Family { file: String, model: &'static str },
}
