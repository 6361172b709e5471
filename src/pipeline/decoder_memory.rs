//! How much memory the decoder's temporaries may take.
//!
//! Decoding needs more than a step does, for a moment, and a run's temporaries share one pool: where memory is short, the
//! decoder keeps its pictures in bands, and bands wait on the host, so that more weights can stay on the GPU in every step.

use super::Error;
use super::model::Parts;
use super::placement::{PhaseBytes, Placement, Slots};
use super::programs::DecodeRecordings;
use super::recorded::pool_bytes;
use crate::gpu::spill_staging_bytes;
use crate::tensor::{MemoryPlan, Recorder, Recording, plan_memory, spill};

/// Bands of a picture that fit into the memory: a convolution needs three, and the fewer are moved the more there are.
const BANDS: u64 = 12;

/// The memory of the decoder's temporaries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DecoderMemory {
    /// Bytes that they may take, if that is limited.
    most: Option<u64>,
}

impl DecoderMemory {
    /// Smaller and smaller shares of `bytes`, what a decoder takes without a limit.
    pub fn shares_of(bytes: u64) -> impl Iterator<Item = Self> {
        let shares = [13, 17, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480].into_iter();
        shares.map(move |n| DecoderMemory { most: Some(bytes / n * 10) })
    }

    /// A recorder with pictures in bands as they suit this memory.
    pub fn in_bands(self, recorder: Recorder) -> Recorder {
        match self.most {
            Some(most) => recorder.in_bands_of(most / BANDS),
            None => recorder,
        }
    }

    /// `recording` with temporaries that wait on the host where they do not fit. As it is, if they cannot be made to fit.
    pub fn fit(self, recording: Recording) -> Recording {
        self.most.and_then(|most| spill(&recording, most)).unwrap_or(recording)
    }
}

/// What a run needs with a decoder in some memory.
#[derive(Clone)]
pub(super) struct Decoding {
    memory: DecoderMemory,
    /// Of the decoder alone.
    own_bytes: u64,
    /// Of all phases after the prompt.
    pub temporaries_bytes: u64,
    /// Staging memory while bands are on their way.
    pub staging_bytes: u64,
    /// Bytes that cross the bus for one picture because bands wait on the host.
    pub spilled_bytes: u64,
}

impl Decoding {
    /// `others` are the plans of what is not decoding and uses the same pool.
    pub fn new(memory: DecoderMemory, decodes: &DecodeRecordings, others: &[MemoryPlan]) -> Self {
        let own: Vec<MemoryPlan> = decodes.all().map(plan_memory).collect();
        Decoding {
            memory,
            own_bytes: pool_bytes(&own),
            temporaries_bytes: pool_bytes(&[others, &own].concat()),
            staging_bytes: decodes.all().map(spill_staging_bytes).max().unwrap_or(0),
            spilled_bytes: decodes.all().map(Recording::spilled_bytes).sum(),
        }
    }
}

/// The placement within a budget for which the least bytes cross the bus from the first of `steps` steps to a picture, with what
/// its decoder takes; of several, one that keeps the denoiser for the next prompt. `whole` is a decoder without a limit; `record` records another one.
pub(super) fn place(
    budget: u64,
    parts: &Parts,
    steps: usize,
    whole: Decoding,
    record: impl Fn(DecoderMemory) -> Decoding,
    phases: impl Fn(&Decoding) -> PhaseBytes,
) -> Result<(Placement, Decoding), Error> {
    let in_turn = Slots { count: 2, have_decoder: false };
    match Placement::within(budget, parts, &phases(&whole), in_turn) {
        Ok(placement) if placement.streamed_bytes(steps) == 0 => return Ok((placement, whole)),
        Ok(_) | Err(Error::MemoryBudget { .. }) => {}
        Err(error) => return Err(error),
    }
    let own_bytes = whole.own_bytes;
    let mut candidates = Vec::new();
    for decoding in std::iter::once(whole).chain(DecoderMemory::shares_of(own_bytes).map(record)) {
        // Until less memory for the decoder does not help any more.
        let least = candidates.last().map_or(u64::MAX, |last: &Decoding| last.temporaries_bytes);
        if decoding.temporaries_bytes >= least {
            break;
        }
        candidates.push(decoding);
    }
    let mut lacks = u64::MAX;
    // With one slot only if there is no other way.
    for count in [2, 1] {
        let mut best: Option<((u64, bool), Placement, &Decoding)> = None;
        for decoding in &candidates {
            for have_decoder in [false, true] {
                let slots = Slots { count, have_decoder };
                match Placement::within(budget, parts, &phases(decoding), slots) {
                    Ok(placement) => {
                        let moved = placement.streamed_bytes(steps) + decoding.spilled_bytes;
                        let cost = (moved, !placement.keeps_denoiser);
                        if best.as_ref().is_none_or(|(least, ..)| cost < *least) {
                            let placement = Placement { decoder: decoding.memory, ..placement };
                            best = Some((cost, placement, decoding));
                        }
                    }
                    Err(Error::MemoryBudget { least, .. }) => lacks = lacks.min(least),
                    Err(error) => return Err(error),
                }
            }
        }
        if let Some((_, placement, decoding)) = best {
            return Ok((placement, decoding.clone()));
        }
    }
    Err(Error::MemoryBudget { budget, least: lacks })
}
