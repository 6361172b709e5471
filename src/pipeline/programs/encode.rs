//! The recordings of the text encoders.

use std::sync::Arc;

use crate::models::config::TextEncoderPart;
use crate::models::encoders::{Shape, TextEncoder, TokenisedText};
use crate::tensor::{Caps, F16Range, Recorder, Recording, Resident, ResidentIds};

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

/// The encoding of a text of `max_tokens` tokens, or of as many as the encoder always reads, without a device: the recording,
/// and the matrices that it reads and writes.
pub(in crate::pipeline) fn rehearse_encoder(
    ids: &ResidentIds,
    caps: Caps,
    part: &TextEncoderPart,
    encoder: &dyn TextEncoder,
    max_tokens: usize,
) -> (Recording, Vec<Resident>) {
    let n = part.length(max_tokens);
    let matrices = |shapes: Vec<Shape>| -> Vec<Resident> {
        let matrix = |(_, rows, cols)| ids.matrix("", rows, cols, caps.max_binding_bytes);
        shapes.into_iter().map(matrix).collect()
    };
    let inputs = matrices(encoder.inputs(n));
    let outputs = encoder.outputs(n, part.gives_tokens);
    let outputs = matrices(outputs.into_iter().map(|(_, shape)| shape).collect());
    let text = TokenisedText { ids: vec![0; n], n_real: n };
    let name = part.config.title();
    let recording = record_encoder(caps, None, name, encoder, &text, &inputs, &outputs);
    (recording, inputs.into_iter().chain(outputs).collect())
}
