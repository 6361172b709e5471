//! The recordings of the text encoders.

use crate::models::clip::Clip;
use crate::models::t5::T5;
use crate::tensor::{Caps, Recorder, Recording, Resident};

/// T5 over `n_text` tokens: embeddings and relative positions in, encodings out.
pub(in crate::pipeline) fn record_t5(
    caps: Caps,
    t5: &T5,
    x: &Resident,
    relative_bias: &Resident,
    out: &Resident,
) -> Recording {
    let recorder = Recorder::new(caps);
    t5.forward(recorder.resident(x), recorder.resident(relative_bias), recorder.resident(out));
    recorder.finish("t5")
}

/// CLIP: embeddings in, pooled vector out, and the text tokens if there is memory for them.
pub(in crate::pipeline) fn record_clip(
    caps: Caps,
    clip: &Clip,
    x: &Resident,
    pooled_at: usize,
    pooled: &Resident,
    tokens: Option<&Resident>,
) -> Recording {
    let recorder = Recorder::new(caps);
    let tokens = tokens.map(|tokens| recorder.resident(tokens));
    clip.forward(recorder.resident(x), pooled_at, recorder.resident(pooled), tokens);
    recorder.finish("clip")
}
