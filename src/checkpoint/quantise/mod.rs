//! Quantisers: from rows of f32 to the blocks of a number format.
//!
//! Each is the rule that the format's own writers use (GGML's `quantize_row_*_ref`, bitsandbytes, ComfyUI), so that files
//! have the quality that people know. All arithmetic is in f32, and a row's blocks depend on that row alone.

mod fp8;
mod k_blocks;
mod nf4;
mod search;
mod simple_blocks;

use super::dtype::{DTYPES, DType};
use crate::tensor::Storage;

/// A number format that weights can be quantised to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuantFormat {
    /// 32 numbers in 34 bytes: 8.5 bits a number.
    Q8_0,
    /// 256 numbers in 210 bytes: 6.6 bits a number.
    Q6K,
    /// 256 numbers in 176 bytes: 5.5 bits a number.
    Q5K,
    /// 32 numbers in 22 bytes: 5.5 bits a number.
    Q5_0,
    /// 256 numbers in 144 bytes: 4.5 bits a number.
    Q4K,
    /// 32 numbers in 18 bytes: 4.5 bits a number.
    Q4_0,
    /// 256 numbers in 110 bytes: 3.4 bits a number.
    Q3K,
    /// 256 numbers in 84 bytes: 2.6 bits a number.
    Q2K,
    /// 8-bit floats e4m3fn, with a scale.
    Fp8,
    /// Four bits and a scale for every 64 numbers: 4.5 bits a number.
    Nf4,
}

impl QuantFormat {
    /// Every format.
    pub const ALL: [QuantFormat; 10] = [
        QuantFormat::Q8_0,
        QuantFormat::Q6K,
        QuantFormat::Q5K,
        QuantFormat::Q5_0,
        QuantFormat::Q4K,
        QuantFormat::Q4_0,
        QuantFormat::Q3K,
        QuantFormat::Q2K,
        QuantFormat::Fp8,
        QuantFormat::Nf4,
    ];

    /// What options call them.
    pub const NAMES: [&str; 10] = {
        let mut names = [""; 10];
        let mut i = 0;
        while i < names.len() {
            names[i] = Self::ALL[i].name();
            i += 1;
        }
        names
    };

    /// What options call it.
    pub const fn name(self) -> &'static str {
        match self {
            QuantFormat::Q8_0 => "q8_0",
            QuantFormat::Q6K => "q6_k",
            QuantFormat::Q5K => "q5_k",
            QuantFormat::Q5_0 => "q5_0",
            QuantFormat::Q4K => "q4_k",
            QuantFormat::Q4_0 => "q4_0",
            QuantFormat::Q3K => "q3_k",
            QuantFormat::Q2K => "q2_k",
            QuantFormat::Fp8 => "fp8",
            QuantFormat::Nf4 => "nf4",
        }
    }

    /// The format that options call `name`, in any case.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name))
    }

    /// The stored type that it makes.
    pub fn dtype(self) -> &'static DType {
        match self {
            QuantFormat::Q8_0 => row("Q8_0"),
            QuantFormat::Q6K => row("Q6_K"),
            QuantFormat::Q5K => row("Q5_K"),
            QuantFormat::Q5_0 => row("Q5_0"),
            QuantFormat::Q4K => row("Q4_K"),
            QuantFormat::Q4_0 => row("Q4_0"),
            QuantFormat::Q3K => row("Q3_K"),
            QuantFormat::Q2K => row("Q2_K"),
            QuantFormat::Fp8 => row("F8_E4M3"),
            QuantFormat::Nf4 => row("NF4"),
        }
    }

    /// Numbers in a block; a row is whole blocks.
    pub fn block_numbers(self) -> usize {
        self.dtype().block.numbers
    }

    /// As many bits or more in blocks that rows of any multiple of 32 have, for rows that are no multiple of this format's.
    /// GGML has no such blocks of fewer than four bits, and NF4 is in no file with them.
    pub fn in_small_blocks(self) -> Self {
        match self {
            QuantFormat::Q6K => QuantFormat::Q8_0,
            QuantFormat::Q5K => QuantFormat::Q5_0,
            QuantFormat::Q4K | QuantFormat::Q3K | QuantFormat::Q2K => QuantFormat::Q4_0,
            other => other,
        }
    }

    /// The format that a weight with rows of `k` numbers gets on its way to the GPU, which keeps blocks of 64 numbers or more:
    /// this one, or the one in small blocks. `None` if its rows are whole blocks of neither.
    pub fn for_rows(self, k: usize) -> Option<Self> {
        let holds = |format: &Self| format.storage().holds_rows_of(k);
        [self, self.in_small_blocks()].into_iter().find(holds)
    }

    /// How the GPU keeps it.
    pub fn storage(self) -> Storage {
        self.dtype().matrix
    }

    /// Appends the blocks of `row`, finite numbers that fill whole blocks, to `codes`; and its scales to `scales`, where they
    /// are no part of the blocks: one for each block of NF4. Those of fp8 are `row / scale`, rounded, and add none.
    pub fn quantise(self, row: &[f32], scale: f32, codes: &mut Vec<u8>, scales: &mut Vec<f32>) {
        match self {
            QuantFormat::Q8_0 => simple_blocks::q8_0(row, codes),
            QuantFormat::Q5_0 => simple_blocks::q5_0(row, codes),
            QuantFormat::Q4_0 => simple_blocks::q4_0(row, codes),
            QuantFormat::Q2K => k_blocks::q2_k(row, codes),
            QuantFormat::Q3K => k_blocks::q3_k(row, codes),
            QuantFormat::Q4K => k_blocks::q4_k(row, codes),
            QuantFormat::Q5K => k_blocks::q5_k(row, codes),
            QuantFormat::Q6K => k_blocks::q6_k(row, codes),
            QuantFormat::Fp8 => fp8::quantise(row, scale, codes),
            QuantFormat::Nf4 => nf4::quantise(row, codes, scales),
        }
    }
}

/// The row of the table of types that has that name. Those named here are in it, which a test says.
fn row(name: &str) -> &'static DType {
    DType::named(name).unwrap_or(&DTYPES[0])
}

/// The scale of a tensor in fp8, from its largest magnitude; positive, whatever that is.
pub(crate) fn fp8_scale(largest: f32) -> f32 {
    (largest / fp8::LARGEST).max(f32::MIN_POSITIVE)
}

/// The largest magnitude.
pub(crate) fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, value| value.abs().max(largest))
}

/// The number of the largest magnitude, with its sign; the first of several.
fn extreme(values: &[f32]) -> f32 {
    let further =
        |extreme: f32, value: &f32| if value.abs() > extreme.abs() { *value } else { extreme };
    values.iter().fold(0.0, further)
}

/// `1 / x`, or 0.
fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}
