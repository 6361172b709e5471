//! The table of stored types: what a checkpoint's number type is called, how its bytes become numbers, and how the GPU
//! keeps it.
//!
//! A row is all that is known of a type; everybody else asks it. A new type is a row here and, if it is to stay as small
//! on the GPU as in the file, a [`Storage`] with its accessor (`tensor/storage.rs`, `shaders/lib`).

mod ggml;
pub(crate) mod nf4;

use std::fmt;

use half::{bf16, f16};

use crate::tensor::{Block, Storage};

pub(crate) use ggml::{iq4_xs_scale, k_scale_min, q3_k_scale};

/// The types that are read. Numbers are little-endian.
pub static DTYPES: [DType; 19] = [
    DType {
        name: "F32",
        in_safetensors: true,
        ggml: Some(0),
        block: Block::number(4),
        matrix: Storage::F32,
        kept_as_is: true,
        convolution: Storage::F32,
        rounding: 1.0 / 16_777_216.0,
        widen: |bytes, out| out.extend(numbers(bytes).map(f32::from_le_bytes)),
        first_not_finite: |bytes| {
            first(bytes, |b| u32::from_le_bytes(b) & 0x7f80_0000 == 0x7f80_0000)
        },
    },
    DType {
        name: "F16",
        in_safetensors: true,
        ggml: Some(1),
        block: Block::number(2),
        matrix: Storage::F16,
        kept_as_is: true,
        convolution: Storage::F16,
        rounding: 1.0 / 2048.0,
        widen: |bytes, out| out.extend(numbers(bytes).map(|b| f16::from_le_bytes(b).to_f32())),
        first_not_finite: |bytes| first(bytes, |b| u16::from_le_bytes(b) & 0x7c00 == 0x7c00),
    },
    DType {
        name: "BF16",
        in_safetensors: true,
        ggml: Some(30),
        block: Block::number(2),
        matrix: Storage::Bf16,
        kept_as_is: true,
        convolution: Storage::Bf16,
        rounding: 1.0 / 256.0,
        widen: |bytes, out| out.extend(numbers(bytes).map(|b| bf16::from_le_bytes(b).to_f32())),
        first_not_finite: |bytes| first(bytes, |b| u16::from_le_bytes(b) & 0x7f80 == 0x7f80),
    },
    DType {
        name: "F64",
        in_safetensors: true,
        ggml: None,
        block: Block::number(8),
        matrix: Storage::F32,
        kept_as_is: false,
        convolution: Storage::F32,
        rounding: 1.0 / 16_777_216.0,
        widen: |bytes, out| out.extend(numbers(bytes).map(|b| f64::from_le_bytes(b) as f32)),
        first_not_finite: |bytes| first(bytes, |b| !(f64::from_le_bytes(b) as f32).is_finite()),
    },
    // e4m3fn: no infinities, one NaN of each sign.
    DType {
        name: "F8_E4M3",
        in_safetensors: true,
        ggml: None,
        block: Block::number(1),
        matrix: Storage::F8E4M3,
        kept_as_is: true,
        convolution: Storage::F16,
        rounding: 1.0 / 16.0,
        widen: |bytes, out| out.extend(bytes.iter().map(|b| f8_e4m3(*b))),
        first_not_finite: |bytes| first(bytes, |[b]: [u8; 1]| b & 0x7f == 0x7f),
    },
    // The upper half of an f16, infinities and NaN included.
    DType {
        name: "F8_E5M2",
        in_safetensors: true,
        ggml: None,
        block: Block::number(1),
        matrix: Storage::F8E5M2,
        kept_as_is: true,
        convolution: Storage::F16,
        rounding: 1.0 / 8.0,
        widen: |bytes, out| {
            out.extend(bytes.iter().map(|b| f16::from_bits(u16::from(*b) << 8).to_f32()));
        },
        first_not_finite: |bytes| first(bytes, |[b]: [u8; 1]| b & 0x7c == 0x7c),
    },
    block_format("Q4_0", 2, (32, 18), Storage::Q4_0, ggml::q4_0, |b| {
        ggml::first_not_finite(b, (32, 18), &[0])
    }),
    block_format("Q4_1", 3, (32, 20), Storage::Q4_1, ggml::q4_1, |b| {
        ggml::first_not_finite(b, (32, 20), &[0, 2])
    }),
    block_format("Q5_0", 6, (32, 22), Storage::Q5_0, ggml::q5_0, |b| {
        ggml::first_not_finite(b, (32, 22), &[0])
    }),
    block_format("Q5_1", 7, (32, 24), Storage::Q5_1, ggml::q5_1, |b| {
        ggml::first_not_finite(b, (32, 24), &[0, 2])
    }),
    block_format("Q8_0", 8, (32, 34), Storage::Q8_0, ggml::q8_0, |b| {
        ggml::first_not_finite(b, (32, 34), &[0])
    }),
    block_format("Q2_K", 10, (256, 84), Storage::Q2K, ggml::q2_k, |b| {
        ggml::first_not_finite(b, (256, 84), &[80, 82])
    }),
    block_format("Q3_K", 11, (256, 110), Storage::Q3K, ggml::q3_k, |b| {
        ggml::first_not_finite(b, (256, 110), &[108])
    }),
    block_format("Q4_K", 12, (256, 144), Storage::Q4K, ggml::q4_k, |b| {
        ggml::first_not_finite(b, (256, 144), &[0, 2])
    }),
    block_format("Q5_K", 13, (256, 176), Storage::Q5K, ggml::q5_k, |b| {
        ggml::first_not_finite(b, (256, 176), &[0, 2])
    }),
    block_format("Q6_K", 14, (256, 210), Storage::Q6K, ggml::q6_k, |b| {
        ggml::first_not_finite(b, (256, 210), &[208])
    }),
    block_format("IQ4_NL", 20, (32, 18), Storage::Iq4Nl, ggml::iq4_nl, |b| {
        ggml::first_not_finite(b, (32, 18), &[0])
    }),
    block_format("IQ4_XS", 23, (256, 136), Storage::Iq4Xs, ggml::iq4_xs, |b| {
        ggml::first_not_finite(b, (256, 136), &[0])
    }),
    // What a code stands for, in units of its block's largest number, which is in another tensor.
    DType {
        name: "NF4",
        in_safetensors: false,
        ggml: None,
        block: Block {
            numbers: nf4::BLOCK_NUMBERS as usize,
            bytes: nf4::BLOCK_NUMBERS as usize / 2,
        },
        matrix: Storage::Nf4,
        kept_as_is: true,
        convolution: Storage::F32,
        rounding: 1.0 / 16_777_216.0,
        widen: nf4::widen,
        first_not_finite: |_| None,
    },
];

/// A block format of GGML: its number in GGUF files, numbers and bytes of a block, how the GPU keeps it.
const fn block_format(
    name: &'static str,
    ggml: u32,
    (numbers, bytes): (usize, usize),
    matrix: Storage,
    widen: fn(&[u8], &mut Vec<f32>),
    first_not_finite: fn(&[u8]) -> Option<usize>,
) -> DType {
    DType {
        name,
        in_safetensors: false,
        ggml: Some(ggml),
        block: Block { numbers, bytes },
        matrix,
        kept_as_is: true,
        convolution: Storage::F32,
        rounding: 1.0 / 16_777_216.0,
        widen,
        first_not_finite,
    }
}

/// A number type of checkpoints that is read: a row of [`DTYPES`].
pub struct DType {
    /// What it is called: in safetensors headers, or by GGML.
    pub name: &'static str,
    /// Whether safetensors files have it.
    pub in_safetensors: bool,
    /// Its number in GGUF files, if they have it.
    pub ggml: Option<u32>,
    /// How many numbers lie together in the file, in how many bytes.
    pub block: Block,
    /// How the weight of a linear layer is kept on the GPU.
    pub matrix: Storage,
    /// Whether `matrix` has the numbers of the file as they are: the same bytes or, in a packed storage, the same codes and
    /// scales in another order (`checkpoint/pack`). Else numbers are converted by way of f32.
    pub kept_as_is: bool,
    /// How the weight of a 3x3 convolution is kept on the GPU: there, numbers of a row change places, which those of
    /// larger blocks cannot. Holds every number of the type.
    pub convolution: Storage,
    /// How far off, relative to itself, a number of f32 is at most when it is rounded to this type (where neither
    /// overflows nor is subnormal); for wider types, when it is rounded to f32.
    pub rounding: f32,
    /// Appends whole blocks as f32.
    widen: fn(&[u8], &mut Vec<f32>),
    /// Index of the first number that is NaN or infinite.
    first_not_finite: fn(&[u8]) -> Option<usize>,
}

impl DType {
    /// The row of that name.
    pub fn named(name: &str) -> Option<&'static DType> {
        DTYPES.iter().find(|row| row.name == name)
    }

    /// Whether a weight that is kept as `storage` has the file's numbers as they are.
    pub fn is_kept_as_is(&self, storage: Storage) -> bool {
        self.kept_as_is && self.matrix == storage.with_single_scales()
    }

    /// Appends numbers to `out` as f32. Bytes that do not fill a block are left.
    pub fn widen(&self, bytes: &[u8], out: &mut Vec<f32>) {
        (self.widen)(bytes, out);
    }

    /// Index of the first NaN or infinity among numbers, also of a number too large for f32.
    ///
    /// Looks at exponents only where it can, and at many numbers before it looks for a single one, so that compilers can
    /// take many at a time: it runs over whole checkpoints while they are uploaded.
    pub fn first_not_finite(&self, bytes: &[u8]) -> Option<usize> {
        (self.first_not_finite)(bytes)
    }
}

impl fmt::Debug for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for DType {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for DType {}

/// What a checkpoint says the type of a tensor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredDType {
    /// A type that is read.
    Known(&'static DType),
    /// Another one, by the name it has in safetensors headers (`I8`, `F4`, …) or its number in GGUF files.
    Other(String),
}

impl StoredDType {
    /// The type that a safetensors header calls `name`.
    pub fn named(name: &str) -> Self {
        let row = DType::named(name).filter(|row| row.in_safetensors);
        row.map_or_else(|| Self::Other(name.into()), Self::Known)
    }

    /// The type that has a row of that name, whatever files have it.
    pub(crate) fn of_row(name: &str) -> Self {
        DType::named(name).map_or_else(|| Self::Other(name.into()), Self::Known)
    }

    /// The type of that number in a GGUF file.
    pub fn of_ggml(id: u32) -> Self {
        let row = DTYPES.iter().find(|row| row.ggml == Some(id));
        row.map_or_else(|| Self::Other(format!("GGML type {id}")), Self::Known)
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        match self {
            Self::Known(row) => row.name,
            Self::Other(name) => name,
        }
    }

    /// The type's row; `None` for types that are not read.
    pub fn known(&self) -> Option<&'static DType> {
        match self {
            Self::Known(row) => Some(row),
            Self::Other(_) => None,
        }
    }
}

/// F32: what a tensor that is not there counts as.
impl Default for StoredDType {
    fn default() -> Self {
        Self::Known(&DTYPES[0])
    }
}

impl fmt::Display for StoredDType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The number of an e4m3fn code: sign, four bits of exponent (bias 7), three of mantissa.
/// <https://arxiv.org/abs/2209.05433>
fn f8_e4m3(code: u8) -> f32 {
    let magnitude = code & 0x7f;
    let value = match magnitude {
        0x7f => f32::NAN,
        // Multiples of 2^-9.
        0..8 => f32::from(magnitude) / 512.0,
        // The bits of an f32, whose exponent has bias 127.
        _ => f32::from_bits((u32::from(magnitude) << 20) + (120 << 23)),
    };
    if code & 0x80 == 0 { value } else { -value }
}

/// Index of the first number of `N` bytes that is bad.
fn first<const N: usize>(bytes: &[u8], is_bad: impl Fn([u8; N]) -> bool) -> Option<usize> {
    const GROUP: usize = 1024;
    let groups = bytes.chunks(GROUP * N);
    let has_bad = |group: &[u8]| numbers(group).fold(false, |bad, b| bad | is_bad(b));
    let at = groups.clone().position(has_bad)?;
    let within = numbers(&bytes[at * GROUP * N..]).position(is_bad)?;
    Some(at * GROUP + within)
}

/// The bytes of each number of `N` bytes.
fn numbers<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    bytes.chunks_exact(N).map(|chunk| {
        let mut out = [0; N];
        out.copy_from_slice(chunk);
        out
    })
}
