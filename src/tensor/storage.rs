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
/// A kernel does not know it: it calls `weight4x4(i, lanes)`, which the storage's accessor file defines. Plain storages have
/// a number at a time. *Packed* ones keep the blocks of a quantised type, 64 to 512 numbers of `K`, as 32-bit words:
/// first those that hold scales, then codes, of which each word has consecutive numbers, the first in its lowest bits.
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
    /// 8-bit floats e5m2, four in a `u32`.
    F8E5M2,
    /// Signed bytes; an f16 scale for 32.
    Q8_0,
    /// 4 bits less 8; an f16 scale for 32.
    Q4_0,
    /// 4 bits; f16 scale and minimum for 32.
    Q4_1,
    /// 5 bits less 16; an f16 scale for 32.
    Q5_0,
    /// 5 bits; f16 scale and minimum for 32.
    Q5_1,
    /// 4 bits that pick one of 16 levels; an f16 scale for 32.
    Iq4Nl,
    /// 2 bits; scale and minimum of 4 bits for 16, f16 scales of both for 256.
    Q2K,
    /// 3 bits less 4; a scale of 6 bits for 16, an f16 scale of these for 256.
    Q3K,
    /// 4 bits; scale and minimum of 6 bits for 32, f16 scales of both for 256.
    Q4K,
    /// 5 bits; scale and minimum of 6 bits for 32, f16 scales of both for 256.
    Q5K,
    /// 6 bits less 32; a scale of 8 bits for 16, an f16 scale of these for 256.
    Q6K,
    /// 4 bits that pick one of 16 levels; a scale of 6 bits for 32, an f16 scale of these for 256.
    Iq4Xs,
    /// 4 bits that pick one of 16 levels; the largest magnitude of 64, as f32.
    Nf4,
    /// 4 bits that pick one of 16 levels; 8 bits that pick one of 256 factors for 64, f32 scale and offset of these for 512.
    Nf4Double,
}

/// The order of the codes of x in products of bytes, which is that of the weight's, as words fall apart into bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CodeOrder {
    /// That of `K`.
    Plain,
    /// Of eight numbers first 0, 2, 4 and 6, then 1, 3, 5 and 7: half bytes.
    Interleaved,
}

/// What is known of a storage.
struct Row {
    block: Block,
    accessor: &'static str,
    /// Words of scales at the beginning of a packed block, with which random codes become numbers of about 1/64.
    scales: &'static [u32],
}

/// Bytes of 1, and of 8.
const ONES: u32 = 0x0101_0101;
const EIGHTS: u32 = 0x0808_0808;
/// Half bytes: scales of 4, minimums of 6.
const FOUR_SIX: u32 = 0x6464_6464;

const fn plain(bytes: usize, accessor: &'static str) -> Row {
    Row { block: Block::number(bytes), accessor, scales: &[] }
}

/// A block of `numbers` numbers in as many 32-bit words, of which the first are `scales`.
const fn packed(
    numbers: usize,
    words: usize,
    accessor: &'static str,
    scales: &'static [u32],
) -> Row {
    Row { block: Block { numbers, bytes: 4 * words }, accessor, scales }
}

impl Storage {
    /// Storages with a number at a time.
    pub const PLAIN: [Storage; 5] =
        [Storage::F32, Storage::F16, Storage::Bf16, Storage::F8E4M3, Storage::F8E5M2];

    /// Storages with blocks of several numbers.
    pub const PACKED: [Storage; 14] = [
        Storage::Q8_0,
        Storage::Q4_0,
        Storage::Q4_1,
        Storage::Q5_0,
        Storage::Q5_1,
        Storage::Iq4Nl,
        Storage::Q2K,
        Storage::Q3K,
        Storage::Q4K,
        Storage::Q5K,
        Storage::Q6K,
        Storage::Iq4Xs,
        Storage::Nf4,
        Storage::Nf4Double,
    ];

    /// Scales are f16, but for the f32 of NF4, and that Q6_K and IQ4_XS have room for: 0x0c00, 0x1800, 0x1c00 and 0x2800 are 2^-12,
    /// 2^-9, 2^-8 and 2^-5, 0x3a800000, 0x38000000 and 0x3d000000 are 2^-10, 2^-15 and 2^-5.
    const fn row(self) -> Row {
        match self {
            Storage::F32 => plain(4, "weight_f32"),
            Storage::F16 => plain(2, "weight_f16"),
            Storage::Bf16 => plain(2, "weight_bf16"),
            Storage::F8E4M3 => plain(1, "weight_f8_e4m3"),
            Storage::F8E5M2 => plain(1, "weight_f8_e5m2"),
            Storage::Q8_0 => packed(64, 17, "weight_q8_0", &[0x0c00_0c00]),
            Storage::Q4_0 => packed(64, 9, "weight_q4_0", &[0x1c00_1c00]),
            Storage::Q4_1 => packed(64, 10, "weight_q4_1", &[0xa800_1c00; 2]),
            Storage::Q5_0 => packed(64, 11, "weight_q5_0", &[0x1800_1800]),
            Storage::Q5_1 => packed(64, 12, "weight_q5_1", &[0xa800_1800; 2]),
            Storage::Iq4Nl => packed(64, 9, "weight_iq4_nl", &[0x0c00_0c00]),
            Storage::Q2K => packed(
                256,
                21,
                "weight_q2_k",
                &[0x1c00_1c00, FOUR_SIX, FOUR_SIX, FOUR_SIX, FOUR_SIX],
            ),
            // Scales of 1 more than 32, and the bytes of d.
            Storage::Q3K => packed(
                256,
                28,
                "weight_q3_k",
                &[0x0086_1861, 0x2086_1861, 0x0086_1861, 0x2086_1861],
            ),
            Storage::Q4K => packed(256, 37, "weight_q4_k", &[0x2800_1c00, ONES, ONES, ONES, ONES]),
            Storage::Q5K => packed(256, 45, "weight_q5_k", &[0x2800_1800, ONES, ONES, ONES, ONES]),
            Storage::Q6K => packed(256, 53, "weight_q6_k", &[0x3a80_0000, ONES, ONES, ONES, ONES]),
            Storage::Iq4Xs => packed(256, 35, "weight_iq4_xs", &[0x3800_0000, EIGHTS, EIGHTS]),
            Storage::Nf4 => packed(64, 9, "weight_nf4", &[0x3d00_0000]),
            // Factors of 0, which are added to the offset.
            Storage::Nf4Double => {
                packed(512, 68, "weight_nf4_double", &[0, 0x3d00_0000, 0x7f7f_7f7f, 0x7f7f_7f7f])
            }
        }
    }

    /// How many numbers lie together, in how many bytes.
    pub const fn block(self) -> Block {
        self.row().block
    }

    /// The accessor file of `shaders/lib` that reads it.
    pub const fn accessor(self) -> &'static str {
        self.row().accessor
    }

    /// Whether numbers lie in blocks of several.
    pub const fn is_packed(self) -> bool {
        self.block().numbers > 1
    }

    /// Bytes of what lies together for each output: a number, or a word of a block.
    pub const fn unit_bytes(self) -> usize {
        if self.is_packed() { 4 } else { self.block().bytes }
    }

    /// Words of scales at the beginning of a block.
    pub const fn scale_words(self) -> usize {
        self.row().scales.len()
    }

    /// The order of codes in products of bytes, for storages whose numbers are `scale * code + offset` of integers of up to 8 bits,
    /// with one scale for 32 of them or more. `None` where there are no such products.
    pub const fn code_order(self) -> Option<CodeOrder> {
        match self {
            Storage::Q8_0 => Some(CodeOrder::Plain),
            Storage::Q4_0
            | Storage::Q4_1
            | Storage::Q5_0
            | Storage::Q5_1
            | Storage::Q4K
            | Storage::Q5K => Some(CodeOrder::Interleaved),
            _ => None,
        }
    }

    /// Words of scales at the beginning of a block, with which random codes become numbers of about 1/64. None but in packed
    /// storages.
    pub const fn random_scales(self) -> &'static [u32] {
        self.row().scales
    }

    /// The storage of the same codes whose scales are not quantised: itself, but for [`Storage::Nf4Double`].
    pub const fn with_single_scales(self) -> Self {
        match self {
            Storage::Nf4Double => Storage::Nf4,
            other => other,
        }
    }

    /// Whether rows of `k` numbers are whole blocks.
    pub const fn holds_rows_of(self, k: usize) -> bool {
        k.is_multiple_of(self.block().numbers)
    }

    /// Bytes of `numbers` numbers, of which a last block that is not full counts whole.
    pub fn bytes_of(self, numbers: usize) -> u64 {
        let block = self.block();
        numbers.div_ceil(block.numbers) as u64 * block.bytes as u64
    }
}
