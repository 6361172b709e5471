// Reads a packed weight in Q4_K: `(d scale) q - dmin min`. Words: f16 `d` and `dmin`; 4 of scales and minimums, a byte each, of
// 32 numbers each; 32 of half bytes.

#import packed_linear
#import packed_k_scales

const NUMBERS: u32 = 256u;
const D_WORDS: u32 = 1u;
const SCALE_WORDS: u32 = 4u;
const UPPER_WORDS: u32 = 0u;
const CODE_WORDS: u32 = 32u;
