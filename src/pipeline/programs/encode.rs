//! The recordings of the text encoders.

use std::sync::Arc;

use crate::models::encoders::{TextEncoder, TokenisedText};
use crate::tensor::{Caps, F16Range, Recorder, Recording, Resident};

/// The encoding of `text` by what profiles call `name`: from the matrices of [`TextEncoder::inputs`] to those of
/// [`TextEncoder::outputs`].
pub(in crate::pipeline) fn record_encoder(
    caps: Caps,
    f16_range: Option<Arc<F16Range>>,
    name: &str,
    encoder: &dyn TextEncoder,
    text: &TokenisedText,
    inputs: &[Resident],
    outputs: &[Resident],
) -> Recording {
    let recorder = Recorder::with_f16_range(caps, f16_range);
    let on_gpu = |residents: &[Resident]| -> Vec<_> {
        residents.iter().map(|resident| recorder.resident(resident)).collect()
    };
    encoder.record(text, &on_gpu(inputs), &on_gpu(outputs));
    recorder.finish(&name.to_lowercase())
}
