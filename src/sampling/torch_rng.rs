//! PyTorch's CPU normal numbers, so that a seed from a Python script gives the same picture.
//!
//! [`torch_randn`] gives what
//! `torch.randn(n, generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.float32)` gives,
//! bit for bit as PyTorch computes it on x86 processors with AVX2 or AVX-512 (2.15 was compared,
//! 327,680 numbers over 20 seeds). Without AVX2 PyTorch itself gives slightly different numbers, as
//! it then takes `log`, `sin` and `cos` from the C library: up to 2.1e-6 apart over the same
//! numbers. Here they are the same on every machine.
//!
//! ```
//! let noise = ralu::sampling::torch_randn(0, 5);
//! assert_eq!(noise[0], 1.54099607); // as torch.randn(5) after manual_seed(0)
//! ```
//!
//! It is a stream, in contrast to [`super::noise`]: element `i` depends on how many were asked for.

use libm::fmaf;

/// `n` standard normal numbers as `torch.randn` makes them.
///
/// `seed` is cut to its lower 32 bits, as PyTorch's CPU generator does.
///
/// Sources: PyTorch `aten/src/ATen/core/MT19937RNGEngine.h`,
/// `aten/src/ATen/native/cpu/DistributionTemplates.h` (`normal_fill`), and
/// `aten/src/ATen/core/DistributionsHelper.h` (`normal_distribution`).
pub fn torch_randn(seed: u64, n: usize) -> Vec<f32> {
    let mut rng = Mt19937::new(seed as u32);
    if n < 16 {
        return scalar(&mut rng, n);
    }
    // All uniforms come first, in order; only then are they turned into normals, 16 at a time.
    let mut data: Vec<f32> = (0..n).map(|_| rng.uniform_f32()).collect();
    for block in data.chunks_exact_mut(16) {
        box_muller_16(block);
    }
    if !n.is_multiple_of(16) {
        // The last 16 are drawn afresh, overwriting normals already made.
        let tail = &mut data[n - 16..];
        for value in tail.iter_mut() {
            *value = rng.uniform_f32();
        }
        box_muller_16(tail);
    }
    data
}

/// Uniforms `0..8` are radii, `8..16` angles. All in f32, as the vector code does it.
///
/// PyTorch's compiler fuses multiplications with the additions that follow (`-ffp-contract`), so
/// each `fmaf` below stands where the built library has one rounding instead of two; plain
/// arithmetic differs in one number out of a hundred.
fn box_muller_16(block: &mut [f32]) {
    let (first, second) = block.split_at_mut(8);
    for (a, b) in first.iter_mut().zip(second) {
        // 1 - u is exact in f32 for a 24-bit u, and keeps the logarithm away from 0.
        let radius = libm::sqrtf(-2.0 * log_f32(1.0 - *a));
        let (sin, cos) = sin_cos_f32(std::f32::consts::TAU * *b);
        (*a, *b) = (radius * cos, radius * sin);
    }
}

/// Natural logarithm of a positive normal number, by the polynomial of Cephes' `logf` in the order
/// of operations of `avx_mathfun.h`.
fn log_f32(x: f32) -> f32 {
    const P: [f32; 9] = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_84e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_7e-1,
        2.000_071_4e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    // x = m * 2^e with m in [1/2, 1), then moved to [sqrt(1/2), sqrt(2)) and centred on 0.
    let mut e = ((x.to_bits() >> 23) as i32 - 126) as f32;
    let m = f32::from_bits(x.to_bits() & 0x007F_FFFF | 0x3F00_0000);
    let mut x = m - 1.0;
    if m < std::f32::consts::FRAC_1_SQRT_2 {
        e -= 1.0;
        x += m;
    }
    let z = x * x;
    let y = P[1..].iter().fold(P[0], |y, p| fmaf(y, x, *p)) * x;
    // ln 2 in two pieces, the larger of which has few bits.
    let y = fmaf(y, z, e * -2.121_944_4e-4) - z * 0.5;
    fmaf(e, 0.693_359_4, x + y)
}

/// Sine and cosine of an angle from 0 to 2 pi, by the polynomials of Cephes' `sinf` and `cosf` in
/// the order of operations of `avx_mathfun.h`.
fn sin_cos_f32(angle: f32) -> (f32, f32) {
    // The nearest even octant, and what is left, with pi / 4 in three pieces.
    let octant = ((angle * std::f32::consts::FRAC_2_PI * 2.0) as i32 + 1) & !1;
    let y = octant as f32;
    let x = [-0.785_156_25, -2.418_756_5e-4, -3.774_895e-8]
        .into_iter()
        .fold(angle, |x, piece| fmaf(y, piece, x));
    let z = x * x;
    let cos = fmaf(fmaf(2.443_315_7e-5, z, -1.388_731_6e-3), z, 4.166_664_6e-2) * z;
    let cos = fmaf(cos, z, -z * 0.5) + 1.0;
    let sin = fmaf(fmaf(-1.951_529_6e-4, z, 8.332_161e-3), z, -1.666_665_5e-1) * z;
    let sin = fmaf(sin, x, x);
    let (sin, cos) = if octant & 2 == 0 { (sin, cos) } else { (cos, sin) };
    (if octant & 4 == 0 { sin } else { -sin }, if (octant - 2) & 4 == 0 { -cos } else { cos })
}

/// Fewer than 16 numbers take the scalar path, in f64, one pair of uniforms per two normals.
fn scalar(rng: &mut Mt19937, n: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(n + 1);
    while out.len() < n {
        let u1 = rng.uniform_f64();
        let u2 = rng.uniform_f64();
        let radius = libm::sqrt(-2.0 * libm::log1p(-u2));
        let theta = std::f64::consts::TAU * u1;
        out.push((radius * libm::cos(theta)) as f32);
        out.push((radius * libm::sin(theta)) as f32); // the cached half of the pair
    }
    out.truncate(n);
    out
}

/// Mersenne Twister, 32 bits (Matsumoto and Nishimura, 1998).
struct Mt19937 {
    state: [u32; 624],
    next: usize,
}

impl Mt19937 {
    fn new(seed: u32) -> Self {
        let mut state = [seed; 624];
        for i in 1..624 {
            let last = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i as u32);
        }
        Mt19937 { state, next: 624 }
    }

    fn random(&mut self) -> u32 {
        if self.next == 624 {
            for i in 0..624 {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % 624] & 0x7FFF_FFFF);
                let odd = if y & 1 == 1 { 0x9908_B0DF } else { 0 };
                self.state[i] = self.state[(i + 397) % 624] ^ (y >> 1) ^ odd;
            }
            self.next = 0;
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9D2C_5680;
        y ^= (y << 15) & 0xEFC6_0000;
        y ^ (y >> 18)
    }

    /// 24 bits of one draw, in `[0, 1)`.
    fn uniform_f32(&mut self) -> f32 {
        (self.random() & 0x00FF_FFFF) as f32 / 16_777_216.0
    }

    /// 53 bits of two draws, the first being the high word, in `[0, 1)`.
    fn uniform_f64(&mut self) -> f64 {
        let high = u64::from(self.random());
        let low = u64::from(self.random());
        ((high << 32 | low) & ((1 << 53) - 1)) as f64 / 9_007_199_254_740_992.0
    }
}
