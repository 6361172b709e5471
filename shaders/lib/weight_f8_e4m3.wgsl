// Reads a packed weight stored as f8 e4m3fn: sign, four bits of exponent (bias 7), three of mantissa; no infinities.

#import f8

const SHIFT: u32 = 20u;
const BIAS: u32 = 120u;
const NORMAL: u32 = 8u;
const SMALLEST: f32 = 1.0 / 512.0;
