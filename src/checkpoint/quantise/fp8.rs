//! 8-bit floats e4m3fn with a scale. <https://arxiv.org/abs/2209.05433>

/// The largest number.
pub(super) const LARGEST: f32 = 448.0;

/// `row / scale`, rounded.
pub(super) fn quantise(row: &[f32], scale: f32, out: &mut Vec<u8>) {
    out.extend(row.iter().map(|x| code(x / scale)));
}

/// The code of the nearest number, the even one of two. Numbers beyond the largest become it.
fn code(x: f32) -> u8 {
    let sign = if x.is_sign_negative() { 0x80 } else { 0 };
    let magnitude = x.abs().min(LARGEST);
    // Below 2^-6 numbers have the distance of those above, 2^-9; else it is an eighth of their power of two.
    let exponent = ((magnitude.to_bits() >> 23) as i32 - 127).max(-6);
    // Eighths of that power: exact, as a power of two scales them.
    let eighths = magnitude * f32::from_bits(((127 + 3 - exponent) as u32) << 23);
    // Sixteen eighths are eight of the next power, and in this sum they are.
    let code = eighths.round_ties_even() as i32 + 8 * (exponent + 6);
    sign | code as u8
}
