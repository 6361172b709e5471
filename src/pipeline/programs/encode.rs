//! The recordings of the text encoders.

use std::rc::Rc;

use crate::models::clip::Clip;
use crate::models::t5::T5;
use crate::tensor::{Caps, F16Range, Recorder, Recording, Resident};

/// T5 over `n_text` tokens: embeddings and relative positions in, encodings out.
pub(in crate::pipeline) fn record_t5(
    caps: Caps,
    f16_range: Option<Rc<F16Range>>,
    t5: &T5,
    x: &Resident,
    relative_bias: &Resident,
    out: &Resident,
) -> Recording {
    let recorder = Recorder::with_f16_range(caps, f16_range);
    t5.forward(recorder.resident(x), recorder.resident(relative_bias), recorder.resident(out));
    recorder.finish("t5")
}

/// CLIP: embeddings in, pooled vector out, and the text tokens if there is memory for them.
pub(in crate::pipeline) fn record_clip(
    caps: Caps,
    f16_range: Option<Rc<F16Range>>,
    clip: &Clip,
    x: &Resident,
    pooled_at: usize,
    pooled: &Resident,
    tokens: Option<&Resident>,
) -> Recording {
    let recorder = Recorder::with_f16_range(caps, f16_range);
    let tokens = tokens.map(|tokens| recorder.resident(tokens));
    clip.forward(recorder.resident(x), pooled_at, recorder.resident(pooled), tokens);
    recorder.finish("clip")
}
