//! What lies in f16 between ops. Products on matrices round what they multiply to f16, so that the op before them may write what
//! only such products read in f16 ([`Recorder::temp_as`]): the same bits, for half of the memory and its traffic.
//!
//! Which kernels run is known when the output is made, before any of them is recorded. All of this is about the block that is
//! being recorded, which may have to be in f32.

use super::{LinearLayer, choice};
use crate::tensor::{AttentionKernel, PackedWeight, Recorder};

impl LinearLayer {
    /// Whether its product with `rows` rows reads x in f16 to the same bits as in f32.
    pub fn reads_f16(&self, recorder: &Recorder, rows: usize) -> bool {
        let reads = |weight: &PackedWeight| is_in_f16(recorder, weight, rows);
        reads(&self.weight) && self.low_rank.as_ref().is_none_or(|change| reads(&change.down))
    }

    /// Whether its product with `rows` rows can write f16: not if the output has to hold sums that are not over.
    pub fn writes_f16(&self, recorder: &Recorder, rows: usize) -> bool {
        let is_joined = self.low_rank.as_ref().is_none_or(|change| change.joins(&self.weight));
        is_joined && is_in_f16(recorder, &self.weight, rows)
    }
}

fn is_in_f16(recorder: &Recorder, weight: &PackedWeight, rows: usize) -> bool {
    choice::has_f16(choice::matmul(&recorder.matmul_caps(), rows, weight.storage))
}

/// Whether all layers, each with the number of rows that it reads, read x in f16. No layers read nothing so.
pub fn all_read_f16<'l>(
    recorder: &Recorder,
    readers: impl IntoIterator<Item = (&'l LinearLayer, usize)>,
) -> bool {
    let mut readers = readers.into_iter().peekable();
    readers.peek().is_some() && readers.all(|(reader, rows)| reader.reads_f16(recorder, rows))
}

/// Whether attention with heads of `head_dim` numbers can write f16, if its keys and values lie in one buffer.
pub fn attention_writes_f16(recorder: &Recorder, head_dim: usize) -> bool {
    choice::attention(&recorder.matmul_caps(), head_dim) == AttentionKernel::Matrices
}
