//! NF4 of bitsandbytes: codes of four bits for the quantiles of a normal distribution. <https://arxiv.org/abs/2305.14314>

/// Numbers that share a scale.
pub(crate) const BLOCK_NUMBERS: u64 = 64;

/// The number of each code, in units of the largest number of a block.
pub(crate) const LEVELS: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// The numbers of bitsandbytes' dynamic map by code, which the scales of blocks are quantised to: 127 is 0, and codes `p` above
/// it and below are numbers of either sign. From each power of two of `p` to the next they are a decade, at even distances; the
/// last one is 1. Computed in f64: files have them in f32, with some roundings.
/// <https://github.com/bitsandbytes-foundation/bitsandbytes/blob/main/bitsandbytes/functional.py>
pub(crate) fn dynamic_map() -> [f64; 256] {
    std::array::from_fn(|code| {
        let p = code.abs_diff(127);
        let magnitude = match p.checked_ilog2() {
            None => 0.0,
            Some(7) => 1.0,
            Some(power) => {
                let fraction = (p as f64 + 0.5) / f64::from(1u32 << power) - 1.0;
                (0.1 + 0.9 * fraction) * f64::from(10u32.pow(power)) / 1e6
            }
        };
        if code < 127 { -magnitude } else { magnitude }
    })
}

/// Two codes a byte, the first in the high half.
pub(super) fn widen(bytes: &[u8], out: &mut Vec<f32>) {
    let codes = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    out.extend(codes.map(|code| LEVELS[usize::from(code)]));
}
