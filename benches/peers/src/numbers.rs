//! Operands that every racer makes for itself, the same in every language (`python/racer.py` has the other half).

/// Which operand of a case.
#[derive(Clone, Copy)]
pub enum Operand {
    /// A layer's or a convolution's input, or queries.
    X = 1,
    /// A weight, or keys.
    W = 2,
    /// Values.
    V = 3,
}

/// Number `i` of an operand, uniform in [-1, 1): a hash, so that no kernel meets a pattern.
pub fn at(operand: Operand, i: usize) -> f32 {
    let mut h = (i as u32).wrapping_mul(0x9E37_79B1) ^ (operand as u32).wrapping_mul(0x85EB_CA77);
    h = (h ^ (h >> 16)).wrapping_mul(0x7FEB_352D);
    h = (h ^ (h >> 15)).wrapping_mul(0x846C_A68B);
    h ^= h >> 16;
    // 24 bits: exact in f32.
    (h >> 8) as f32 / (1 << 23) as f32 - 1.0
}

/// The first `n` numbers of an operand, each times `scale`.
pub fn vector(operand: Operand, n: usize, scale: f32) -> Vec<f32> {
    (0..n).map(|i| at(operand, i) * scale).collect()
}
