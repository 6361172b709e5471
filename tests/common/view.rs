//! Operands as parts of larger matrices, with poison around them.

use ralu::tensor::{Recorder, Resident, Tensor};

/// Whether a matrix may be split over buffers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bands {
    One,
    AsNeeded,
}

/// Rows and columns around a view, and between its rows.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub above: usize,
    pub below: usize,
    pub left: usize,
    pub right: usize,
    /// Rows of the base from one row of the view to the next.
    pub step: usize,
}

impl Frame {
    /// Nothing around.
    pub const NONE: Frame = Frame { above: 0, below: 0, left: 0, right: 0, step: 1 };
    /// Different on every side.
    pub const WIDE: Frame = Frame { above: 2, below: 3, left: 8, right: 4, step: 1 };
    /// For operands that must start their buffer and be contiguous.
    pub const BELOW: Frame = Frame { above: 0, below: 2, left: 0, right: 0, step: 1 };
    /// Every fourth row.
    pub const SPARSE: Frame = Frame { above: 3, below: 1, left: 4, right: 8, step: 4 };

    /// Rows of the base from the first row of a view of `rows` rows to its last, both included.
    pub fn span(&self, rows: usize) -> usize {
        (rows - 1) * self.step + 1
    }
}

/// What surrounds a view: a NaN, so that a kernel that reads it cannot go unnoticed either.
pub const GUARD: u32 = 0x7fc0_6a5d;

/// A part of a resident matrix.
pub struct View {
    pub resident: Resident,
    pub rows: usize,
    pub cols: usize,
    pub frame: Frame,
}

impl View {
    pub fn on<'r>(&self, recorder: &'r Recorder) -> Tensor<'r> {
        let frame = self.frame;
        recorder
            .resident(&self.resident)
            .row_range(frame.above..frame.above + frame.span(self.rows))
            .every(frame.step)
            .col_range(frame.left..frame.left + self.cols)
    }
}
