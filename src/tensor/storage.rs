//! How the numbers of a weight lie on the GPU.

/// Numbers that lie together, with what they share: one number of a plain type; 32 numbers and their scale in a
/// quantised type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    /// Numbers in a block.
    pub numbers: usize,
    /// Bytes of a block.
    pub bytes: usize,
}

impl Block {
    /// The block of a plain type: one number of `bytes` bytes.
    pub const fn number(bytes: usize) -> Self {
        Block { numbers: 1, bytes }
    }

    /// Bytes of `numbers` numbers. `None` if they are no whole number of blocks, or more bytes than a `u64` counts.
    pub fn bytes_of(self, numbers: u64) -> Option<u64> {
        let block = self.numbers as u64;
        numbers.is_multiple_of(block).then_some(numbers / block)?.checked_mul(self.bytes as u64)
    }
}

/// How the numbers of a weight are stored on the GPU. Sums are f32 whatever the storage.
///
/// A kernel does not know it: it calls `weight4(i)`, which the storage's accessor file defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Storage {
    /// 32-bit floats.
    F32,
    /// 16-bit IEEE floats, two in a `u32`.
    F16,
    /// bfloat16, two in a `u32`.
    Bf16,
    /// 8-bit floats e4m3fn, four in a `u32`.
    F8E4M3,
}

impl Storage {
    /// Every storage.
    pub const ALL: [Storage; 4] = [Storage::F32, Storage::F16, Storage::Bf16, Storage::F8E4M3];

    /// Its block, and the accessor file of `shaders/lib`.
    const fn row(self) -> (Block, &'static str) {
        match self {
            Storage::F32 => (Block::number(4), "weight_f32"),
            Storage::F16 => (Block::number(2), "weight_f16"),
            Storage::Bf16 => (Block::number(2), "weight_bf16"),
            Storage::F8E4M3 => (Block::number(1), "weight_f8_e4m3"),
        }
    }

    /// How many numbers lie together, in how many bytes.
    pub const fn block(self) -> Block {
        self.row().0
    }

    /// The accessor file of `shaders/lib` that reads it.
    pub const fn accessor(self) -> &'static str {
        self.row().1
    }

    /// Bytes of `numbers` numbers, of which a last block that is not full counts whole.
    pub fn bytes_of(self, numbers: usize) -> u64 {
        let block = self.block();
        numbers.div_ceil(block.numbers) as u64 * block.bytes as u64
    }
}
