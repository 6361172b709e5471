// Reads a packed weight stored as f8 e5m2: sign, five bits of exponent (bias 15), two of mantissa. Infinities and NaN are refused
// when weights are loaded.

#import f8

const SHIFT: u32 = 21u;
const BIAS: u32 = 112u;
const NORMAL: u32 = 4u;
const SMALLEST: f32 = 1.0 / 65536.0;
