//! The table: shapes, storages, epilogues and magnitudes.

use ralu::ops::{Activation, Write};
use ralu::tensor::Storage;

#[derive(Clone, Copy, Debug)]
pub struct LinearCase {
    pub m: usize,
    pub k: usize,
    pub n: usize,
    pub storage: Storage,
    pub activation: Activation,
    pub bias: bool,
    pub gate: bool,
    pub write: Write,
    /// Of x; weights are about `1 / sqrt(K)`.
    pub magnitude: f32,
    /// Whether outputs have scales.
    pub scaled: bool,
}

const LINEAR: LinearCase = LinearCase {
    m: 17,
    k: 64,
    n: 64,
    storage: Storage::F16,
    activation: Activation::Identity,
    bias: true,
    gate: false,
    write: Write::Store,
    magnitude: 1.0,
    scaled: false,
};

#[rustfmt::skip]
pub const LINEAR_CASES: &[LinearCase] = &[
    // Rows around the borders of matvec (4) and of a block (16), and of four blocks.
    LinearCase { m: 1, ..LINEAR },
    LinearCase { m: 2, ..LINEAR },
    LinearCase { m: 4, ..LINEAR },
    LinearCase { m: 5, ..LINEAR },
    LinearCase { m: 15, ..LINEAR },
    LinearCase { m: 16, ..LINEAR },
    LinearCase { m: 63, ..LINEAR },
    LinearCase { m: 64, ..LINEAR },
    LinearCase { m: 65, ..LINEAR },
    LinearCase { m: 127, ..LINEAR },
    LinearCase { m: 129, ..LINEAR },
    // The tallest tiles, with every edge at once.
    LinearCase { m: 1155, k: 28, n: 84, ..LINEAR },
    LinearCase { m: 1155, k: 28, n: 84, storage: Storage::F32, ..LINEAR },
    // Several blocks of rows and of 64 columns, in every storage; the last ones end inside of one.
    LinearCase { m: 150, k: 100, n: 200, ..LINEAR },
    LinearCase { m: 150, k: 100, n: 200, storage: Storage::Bf16, ..LINEAR },
    LinearCase { m: 150, k: 100, n: 200, storage: Storage::F32, ..LINEAR },
    LinearCase { m: 150, k: 100, n: 200, storage: Storage::F8E4M3, ..LINEAR },
    // Ends of K inside a tile of 16 and of 32.
    LinearCase { m: 50, k: 4, n: 68, ..LINEAR },
    LinearCase { m: 50, k: 12, n: 68, ..LINEAR },
    LinearCase { m: 50, k: 36, n: 68, storage: Storage::Bf16, ..LINEAR },
    LinearCase { m: 130, k: 44, n: 36, ..LINEAR },
    // Narrow tiles, which hold fewer numbers of K at a time, with every edge.
    LinearCase { m: 130, k: 20, n: 4, ..LINEAR },
    LinearCase { m: 130, k: 20, n: 8, storage: Storage::Bf16, ..LINEAR },
    LinearCase { m: 130, k: 20, n: 16, storage: Storage::F8E4M3, ..LINEAR },
    LinearCase { m: 130, k: 20, n: 32, storage: Storage::F32, ..LINEAR },
    // Widths: every size of tile, one past a tile, not a multiple of 4.
    LinearCase { n: 1, ..LINEAR },
    LinearCase { n: 3, ..LINEAR },
    LinearCase { n: 4, ..LINEAR },
    LinearCase { n: 8, ..LINEAR },
    LinearCase { n: 12, ..LINEAR },
    LinearCase { n: 20, ..LINEAR },
    LinearCase { n: 36, ..LINEAR },
    LinearCase { n: 68, ..LINEAR },
    LinearCase { n: 70, ..LINEAR },
    LinearCase { n: 132, k: 4, ..LINEAR },
    LinearCase { m: 3, n: 3, ..LINEAR },
    LinearCase { m: 1, n: 68, k: 4, ..LINEAR },
    LinearCase { m: 4, n: 200, k: 20, ..LINEAR },
    // Many rows: more than 65,535, and more than 65,535 blocks of 16.
    LinearCase { m: 70_001, k: 4, n: 4, ..LINEAR },
    LinearCase { m: 65_535 * 16 + 17, k: 4, n: 4, ..LINEAR },
    // Storage types, for both kernels.
    LinearCase { storage: Storage::F32, ..LINEAR },
    LinearCase { storage: Storage::Bf16, ..LINEAR },
    LinearCase { storage: Storage::F32, m: 2, n: 68, ..LINEAR },
    LinearCase { storage: Storage::Bf16, m: 2, n: 68, ..LINEAR },
    LinearCase { storage: Storage::F8E4M3, ..LINEAR },
    LinearCase { storage: Storage::F8E4M3, m: 2, n: 68, ..LINEAR },
    LinearCase { storage: Storage::F8E4M3, m: 50, k: 36, n: 70, ..LINEAR },
    LinearCase { storage: Storage::F8E4M3, m: 1155, k: 28, n: 84, ..LINEAR },
    LinearCase { storage: Storage::F8E5M2, m: 50, k: 36, n: 70, ..LINEAR },
    LinearCase { storage: Storage::F8E5M2, m: 2, n: 68, ..LINEAR },
    // Blocks: rows that end inside of a kernel's, outputs that end inside of a tile, several blocks of K.
    LinearCase { storage: Storage::Q8_0, m: 150, k: 192, n: 200, ..LINEAR },
    LinearCase { storage: Storage::Q8_0, m: 2, k: 320, n: 68, ..LINEAR },
    LinearCase { storage: Storage::Q8_0, m: 70, k: 64, n: 3, ..LINEAR },
    LinearCase { storage: Storage::Q4_0, m: 50, k: 192, n: 70, ..LINEAR },
    LinearCase { storage: Storage::Q4_1, m: 50, k: 192, n: 70, ..LINEAR },
    LinearCase { storage: Storage::Q5_0, m: 50, k: 192, n: 70, ..LINEAR },
    LinearCase { storage: Storage::Q5_1, m: 50, k: 192, n: 70, ..LINEAR },
    LinearCase { storage: Storage::Iq4Nl, m: 50, k: 192, n: 70, ..LINEAR },
    LinearCase { storage: Storage::Q2K, m: 50, k: 512, n: 70, ..LINEAR },
    LinearCase { storage: Storage::Q3K, m: 50, k: 512, n: 70, ..LINEAR },
    LinearCase { storage: Storage::Q4K, m: 150, k: 768, n: 200, ..LINEAR },
    LinearCase { storage: Storage::Q4K, m: 2, k: 512, n: 68, ..LINEAR },
    LinearCase { storage: Storage::Q5K, m: 50, k: 512, n: 70, ..LINEAR },
    LinearCase { storage: Storage::Q6K, m: 50, k: 512, n: 70, ..LINEAR },
    LinearCase { storage: Storage::Iq4Xs, m: 50, k: 512, n: 70, ..LINEAR },
    // Of those that products of bytes take, every epilogue at a border of their blocks.
    LinearCase { storage: Storage::Q8_0, m: 65, k: 128, n: 132, gate: true, write: Write::Add, ..LINEAR },
    LinearCase { storage: Storage::Q4K, m: 64, k: 256, n: 64, bias: false, activation: Activation::GeluTanh, ..LINEAR },
    LinearCase { storage: Storage::Q4_0, m: 129, k: 64, n: 36, write: Write::Multiply, magnitude: 1e4, ..LINEAR },
    // A scale for each output, in several shards; and with all of an epilogue.
    LinearCase { storage: Storage::F8E4M3, m: 50, k: 36, n: 70, scaled: true, ..LINEAR },
    LinearCase { storage: Storage::F8E5M2, m: 2, n: 68, scaled: true, gate: true, write: Write::Add, ..LINEAR },
    // Epilogues, for both kernels.
    LinearCase { bias: false, ..LINEAR },
    LinearCase { activation: Activation::Silu, ..LINEAR },
    LinearCase { activation: Activation::GeluTanh, ..LINEAR },
    LinearCase { activation: Activation::QuickGelu, ..LINEAR },
    LinearCase { activation: Activation::GeluErf, ..LINEAR },
    LinearCase { gate: true, write: Write::Add, ..LINEAR },
    LinearCase { write: Write::Multiply, activation: Activation::GeluTanh, bias: false, ..LINEAR },
    LinearCase { gate: true, n: 132, write: Write::Multiply, activation: Activation::Silu, ..LINEAR },
    LinearCase { m: 3, bias: false, ..LINEAR },
    LinearCase { m: 3, activation: Activation::Silu, ..LINEAR },
    LinearCase { m: 3, activation: Activation::GeluTanh, ..LINEAR },
    LinearCase { m: 3, activation: Activation::QuickGelu, ..LINEAR },
    LinearCase { m: 3, activation: Activation::GeluErf, ..LINEAR },
    LinearCase { m: 3, gate: true, write: Write::Add, ..LINEAR },
    LinearCase { m: 3, gate: true, n: 132, write: Write::Multiply, activation: Activation::Silu, ..LINEAR },
    // Long sums, and the magnitudes of the last blocks of FLUX.
    LinearCase { m: 33, k: 3072, n: 68, ..LINEAR },
    LinearCase { m: 2, k: 3072, n: 68, storage: Storage::Bf16, ..LINEAR },
    LinearCase { m: 20, k: 4096, n: 20, storage: Storage::Bf16, ..LINEAR },
    LinearCase { magnitude: 1e4, ..LINEAR },
    LinearCase { magnitude: 1e6, activation: Activation::GeluTanh, ..LINEAR },
    LinearCase { magnitude: 1e6, activation: Activation::Silu, ..LINEAR },
    LinearCase { magnitude: 1e6, activation: Activation::QuickGelu, m: 2, ..LINEAR },
    LinearCase { magnitude: 1e6, activation: Activation::GeluErf, gate: true, write: Write::Add, ..LINEAR },
    LinearCase { magnitude: 1e-39, bias: false, ..LINEAR },
];
