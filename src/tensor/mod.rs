//! Descriptions of GPU work as plain data: shapes, handles, recordings and the memory plan.
//!
//! Nothing here runs, allocates GPU memory or does I/O. A [`Recorder`] hands out [`Tensor`] handles;
//! ops append [`Command`]s to it; [`Recorder::finish`] gives a [`Recording`] that [`crate::gpu`] compiles
//! and replays.
//!
//! Every tensor is a matrix `[rows, cols]` in row-major order, of f32, or of f16 if only products read it that round to
//! that. A sequence of tokens is `[N, D]`; an image is `[H * W, C]` (NHWC with one picture). A matrix that is larger than
//! one storage binding may be is held in **bands**: several buffers of consecutive rows. Ops never see that: they ask
//! [`row_pieces`] for the row ranges in which every operand lies in a single buffer.
//!
//! Low-level and unstable: public so that tests and tinkerers can reach it.

mod caps;
mod f16_range;
mod order;
mod picture;
mod plan;
mod recording;
mod resident;
mod spill;
mod storage;
mod work;

pub use caps::{
    AttentionKernel, Caps, Conv2dKernel, MatmulKernel, RowClass, Tuning, dispatch_flops,
};
pub use f16_range::{Blocks, F16Range, Fallback, Fallbacks};
pub use plan::{MemoryPlan, overlay, plan_memory};
pub use recording::{
    Access, Binding, BufferRef, Command, Dispatch, PipelineKey, Recorder, Recording, TempId,
    fold_groups,
};
pub use resident::{Band, PackedWeight, Resident, ResidentId, ResidentIds, split_rows};
pub use spill::spill;
pub use storage::{Block, CodeOrder, Storage};
pub use work::{Flops, Work};

use std::ops::Range;

/// Workgroups that WebGPU allows in one dimension of a dispatch.
pub const MAX_WORKGROUPS: u32 = 65_535;

/// A view of a matrix in a [`Recorder`]: a range of rows and of columns of a base tensor.
///
/// Copying it is free; it borrows the recorder, not the data.
#[derive(Clone, Copy)]
pub struct Tensor<'r> {
    pub(crate) recorder: &'r Recorder,
    pub(crate) base: u32,
    row0: usize,
    rows: usize,
    /// Rows of the base from one row of the view to the next.
    row_step: usize,
    col0: usize,
    cols: usize,
}

impl<'r> Tensor<'r> {
    /// Rows of this view.
    pub fn rows(self) -> usize {
        self.rows
    }

    /// Columns of this view.
    pub fn cols(self) -> usize {
        self.cols
    }

    /// The recorder this tensor belongs to.
    pub fn recorder(self) -> &'r Recorder {
        self.recorder
    }

    /// The rows `range` of this view, sharing its memory.
    #[track_caller]
    pub fn row_range(self, range: Range<usize>) -> Tensor<'r> {
        assert!(
            range.start <= range.end && range.end <= self.rows,
            "row_range: {range:?} of a tensor with {} rows",
            self.rows
        );
        let row0 = self.row0 + range.start * self.row_step;
        Tensor { row0, rows: range.len(), ..self }
    }

    /// Rows 0, `step`, `2 * step`, … of this view, sharing its memory.
    #[track_caller]
    pub fn every(self, step: usize) -> Tensor<'r> {
        assert!(step > 0, "every: a step of 0 rows");
        Tensor { rows: self.rows.div_ceil(step), row_step: self.row_step * step, ..self }
    }

    /// The columns `range` of this view, sharing its memory. Both ends must be multiples of 4, as kernels
    /// read four columns at a time.
    #[track_caller]
    pub fn col_range(self, range: Range<usize>) -> Tensor<'r> {
        assert!(
            range.start <= range.end
                && range.end <= self.cols
                && range.start.is_multiple_of(4)
                && range.end.is_multiple_of(4),
            "col_range: {range:?} of a tensor with {} columns",
            self.cols
        );
        Tensor { col0: self.col0 + range.start, cols: range.len(), ..self }
    }

    /// Splits the columns into `n` views of equal width: AdaLN's shift, scale and gate.
    #[track_caller]
    pub fn chunk_cols<const N: usize>(self) -> [Tensor<'r>; N] {
        assert!(
            self.cols.is_multiple_of(N),
            "chunk_cols: {} columns do not split into {N}",
            self.cols
        );
        let width = self.cols / N;
        std::array::from_fn(|i| self.col_range(i * width..(i + 1) * width))
    }

    /// Distance between two rows of the view, in elements.
    pub fn row_stride(self) -> usize {
        self.recorder.base(self.base).cols * self.row_step
    }

    /// Whether its numbers are f16.
    pub fn is_f16(self) -> bool {
        self.recorder.base(self.base).is_f16
    }

    /// Whether the view starts where its base does and has all its columns, so that a kernel may index the
    /// base from its start and without a stride.
    pub fn is_whole(self) -> bool {
        self.row0 == 0 && self.col0 == 0 && self.cols == self.row_stride()
    }

    /// Where the view lies if it is inside one buffer: the buffer and the element offset of its first
    /// element. `None` if it crosses a band border.
    pub fn single(self) -> Option<(BufferRef, usize)> {
        let pieces = row_pieces(&[self], usize::MAX);
        match &pieces[..] {
            [piece] => Some(piece.at[0]),
            _ => None,
        }
    }

    /// Like [`Tensor::single`], for an operand that a kernel needs in one binding.
    #[track_caller]
    pub fn expect_single(self, role: &str) -> (BufferRef, usize) {
        self.single().unwrap_or_else(|| {
            panic!(
                "{role}: {} ({} x {}) must lie in one buffer, but is split into bands",
                self.recorder.base(self.base).label,
                self.rows,
                self.cols
            )
        })
    }
}

/// A run of rows in which every operand of an op lies in a single buffer.
pub struct RowPiece {
    /// First row, relative to the views.
    pub row0: usize,
    /// Number of rows.
    pub rows: usize,
    /// For every operand: its buffer, and the element offset of its first element of this piece.
    pub at: Vec<(BufferRef, usize)>,
}

/// Cuts the rows of `views` (all with the same number of rows) into pieces that lie in one buffer for
/// every operand and have at most `max_rows` rows. All of them are in f32.
#[track_caller]
pub fn row_pieces(views: &[Tensor<'_>], max_rows: usize) -> Vec<RowPiece> {
    for view in views {
        let base = view.recorder.base(view.base);
        assert!(!base.is_f16, "{}: in f16, which this op cannot read or write", base.label);
    }
    row_pieces_of_any(views, max_rows)
}

/// [`row_pieces`] of views of which some may be in f16. Offsets count numbers.
#[track_caller]
pub(crate) fn row_pieces_of_any(views: &[Tensor<'_>], max_rows: usize) -> Vec<RowPiece> {
    let rows = views[0].rows;
    for view in views {
        assert_eq!(view.rows, rows, "row_pieces: operands differ in their number of rows");
    }
    let bases: Vec<_> = views.iter().map(|v| v.recorder.base(v.base)).collect();
    let mut pieces = Vec::new();
    let mut row = 0;
    while row < rows {
        let mut end = rows.min(row.saturating_add(max_rows.max(1)));
        let mut at = Vec::with_capacity(views.len());
        for (view, base) in views.iter().zip(&bases) {
            let absolute = view.row0 + row * view.row_step;
            let band = base.band_at(absolute);
            let left = (band.row0 + band.rows - absolute).div_ceil(view.row_step);
            end = end.min(row + left);
            // A banded image keeps `halo` rows of its upper neighbour in front of its own.
            let local = absolute - band.row0 + if band.row0 == 0 { 0 } else { base.halo };
            at.push((band.buffer, local * base.cols + view.col0));
        }
        pieces.push(RowPiece { row0: row, rows: end - row, at });
        row = end;
    }
    pieces
}
