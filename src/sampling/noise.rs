//! Seeded normal noise that depends on nothing but the seed and the place it is for.
//!
//! Every number is made from a key, not drawn from a stream, so the same place gets the same noise
//! whatever the array's shape, order or batch, and a token's siblings can be computed from any of
//! them. The keying, in full:
//!
//! - the generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
//!   2011), with key words `seed & 0xffffffff` and `seed >> 32`;
//! - the counter is `[channel / 4, col, row, domain]`;
//! - domain 0 is the initial noise, with `row` and `col` counted in latent pixels of the full-size
//!   picture and `channel` the latent channel (0 to 15);
//! - domain 1 is the first transition, 2 the second, with `row` and `col` counted in tokens of the
//!   full grid (a coarse token that is kept has those of its first child) and `channel` the place
//!   in the packed token (0 to 63);
//! - the four output words `w0..w3` make two Box-Muller pairs: with
//!   `u1 = (w0 + 1/2) / 2^32`, `u2 = w1 / 2^32`, `r = sqrt(-2 ln u1)`, channel `4 i` gets
//!   `r cos(2 pi u2)` and `4 i + 1` gets `r sin(2 pi u2)`; `w2`, `w3` likewise make `4 i + 2` and
//!   `4 i + 3`. All in f64 with the `libm` crate, rounded to f32 once, so every platform gets the
//!   same bits.
//!
//! A two-stage run has a single transition, which is the first (domain 1).
//!
//! [`initial_noise`] starts a run, [`low_noise`] is its coarse half, [`jump_noise`] is what a
//! transition adds. The authors draw theirs once per pipeline from PyTorch's global generator,
//! whatever the seed; it can only be handed in from outside, in the order [`super::layout`] states.
//!
//! ```
//! use ralu::sampling::{initial_noise, low_noise, pack};
//!
//! // 64 x 32 pixels: latent 16 x 8 x 4, coarse latent 16 x 4 x 2, two coarse tokens.
//! let full = initial_noise(42, [16, 8, 4]);
//! let tokens = pack(&low_noise(&full, 8, 4)?, 4, 2)?;
//! assert_eq!(tokens.len(), 2 * 64);
//! # Ok::<(), ralu::sampling::Error>(())
//! ```

use super::Error;
use super::layout::{Entry, Transition};
use super::rules::Upsample;

/// Counter domain of the initial noise; transition `j` (1 or 2) has domain `j`.
const INITIAL: u32 = 0;

/// Philox4x32 with ten rounds: 128 bits of counter and 64 of key to 128 random bits.
///
/// Checked against the known answers of the Random123 library.
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let mul = |a: u32, b: u32| {
        let product = u64::from(a) * u64::from(b);
        ((product >> 32) as u32, product as u32)
    };
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let (high0, low0) = mul(0xD251_1F53, c0);
        let (high1, low1) = mul(0xCD9E_8D57, c2);
        (c0, c1, c2, c3) = (high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0);
        // The Weyl constants: golden ratio and sqrt(3) - 1.
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    [c0, c1, c2, c3]
}

/// Four standard normal numbers for channels `4 * group .. 4 * group + 4` of one place. See the
/// module's description of the keying.
fn normal4(seed: u64, domain: u32, row: u32, col: u32, group: u32) -> [f64; 4] {
    let w = philox4x32([group, col, row, domain], [seed as u32, (seed >> 32) as u32]);
    let pair = |a: u32, b: u32| {
        const STEP: f64 = 1.0 / 4_294_967_296.0; // 2^-32
        let radius = libm::sqrt(-2.0 * libm::log((f64::from(a) + 0.5) * STEP));
        let angle = std::f64::consts::TAU * (f64::from(b) * STEP);
        (radius * libm::cos(angle), radius * libm::sin(angle))
    };
    let ((a, b), (c, d)) = (pair(w[0], w[1]), pair(w[2], w[3]));
    [a, b, c, d]
}

/// Standard normal noise for a full-size latent of `shape`, `[C, latent_h, latent_w]`, keyed by latent pixel. `C` is a
/// multiple of 4.
///
/// `latent_h`, `latent_w`: picture height and width / 8. A larger picture has the same noise in its
/// upper left corner, and one with more channels in its first ones.
pub fn initial_noise(seed: u64, shape: [usize; 3]) -> Vec<f32> {
    let mut out = vec![0.0; shape.iter().product()];
    for row in 0..shape[1] {
        initial_noise_row(seed, row, shape, &mut out);
    }
    out
}

/// One row of [`initial_noise`] in all channels of a latent, for callers who have other things to do in between.
pub fn initial_noise_row(
    seed: u64,
    row: usize,
    [channels, latent_h, latent_w]: [usize; 3],
    latent: &mut [f32],
) {
    let plane = latent_h * latent_w;
    for col in 0..latent_w {
        for group in 0..channels / 4 {
            let four = normal4(seed, INITIAL, row as u32, col as u32, group as u32);
            for (i, value) in four.into_iter().enumerate() {
                latent[(group * 4 + i) * plane + row * latent_w + col] = value as f32;
            }
        }
    }
}

/// The coarse half of a full-size latent: every second row and column, starting with the first.
///
/// `[C, H, W]` to `[C, H/2, W/2]`, `H` and `W` even. This is the authors' nearest-neighbour
/// down-sampling (recorded runs agree: after stage 1 their state correlates with these places of
/// the initial noise, 0.60 and 0.68, and with no others). Averaging instead would leave a quarter
/// of the variance.
pub fn low_noise(full: &[f32], latent_h: usize, latent_w: usize) -> Result<Vec<f32>, Error> {
    check_latent(full, latent_h, latent_w)?;
    let mut out = Vec::with_capacity(full.len() / 4);
    for plane in full.chunks_exact(latent_h * latent_w) {
        for row in plane.chunks_exact(latent_w).step_by(2) {
            out.extend(row.iter().step_by(2));
        }
    }
    Ok(out)
}

/// Latent `[C, h, w]` to tokens `[(h/2) * (w/2), 4 C]`, raster order; value `channel * 4 + 2 p + q`
/// of a token is latent pixel `(p, q)` of its 2x2 patch. `h` and `w` even.
pub fn pack(latents: &[f32], latent_h: usize, latent_w: usize) -> Result<Vec<f32>, Error> {
    check_latent(latents, latent_h, latent_w)?;
    let mut out = Vec::with_capacity(latents.len());
    for row in (0..latent_h).step_by(2) {
        for col in (0..latent_w).step_by(2) {
            for plane in latents.chunks_exact(latent_h * latent_w) {
                let at = row * latent_w + col;
                out.extend_from_slice(&plane[at..at + 2]);
                out.extend_from_slice(&plane[at + latent_w..at + latent_w + 2]);
            }
        }
    }
    Ok(out)
}

/// Noise `[4 C, h/2, w/2]`, a token's numbers at a pixel, to a latent `[C, h, w]`. Both are the same tokens: see [`pack`].
pub fn unpack_planes(planes: &[f32], latent_h: usize, latent_w: usize) -> Result<Vec<f32>, Error> {
    let channels = check_latent(planes, latent_h, latent_w)?;
    unpack(&transposed(planes, 4 * channels), latent_h, latent_w)
}

/// A latent `[C, h, w]` to `[4 C, h/2, w/2]`; the inverse of [`unpack_planes`].
pub fn pack_planes(latents: &[f32], latent_h: usize, latent_w: usize) -> Result<Vec<f32>, Error> {
    let tokens = pack(latents, latent_h, latent_w)?;
    Ok(transposed(&tokens, latent_h / 2 * (latent_w / 2)))
}

/// The transpose of a matrix with `rows` rows, one after the other.
fn transposed(values: &[f32], rows: usize) -> Vec<f32> {
    let cols = values.len() / rows;
    (0..cols).flat_map(|col| (0..rows).map(move |row| values[row * cols + col])).collect()
}

/// Tokens `[(h/2) * (w/2), 4 C]` back to a latent `[C, h, w]`; the inverse of [`pack`].
pub fn unpack(tokens: &[f32], latent_h: usize, latent_w: usize) -> Result<Vec<f32>, Error> {
    let channels = check_latent(tokens, latent_h, latent_w)?;
    let plane = latent_h * latent_w;
    let mut out = vec![0.0; tokens.len()];
    for (index, token) in tokens.chunks_exact(4 * channels).enumerate() {
        let (row, col) = (2 * (index / (latent_w / 2)), 2 * (index % (latent_w / 2)));
        for (i, value) in token.iter().enumerate() {
            let (channel, p, q) = (i / 4, i / 2 % 2, i % 2);
            out[channel * plane + (row + p) * latent_w + col + q] = *value;
        }
    }
    Ok(out)
}

/// The noise `z` of a transition, `[n, token_channels]` in the order of `transition`'s entries, already
/// correlated: the new state is `gain * Up(x) + noise_gain * z`.
///
/// `jump`: 1 or 2, which transition of the run (a two-stage run has only 1). `kappa` from
/// [`super::Jump`], `kept_amplitude` from [`super::Jump::kept_amplitude`]. Kept tokens get
/// `kept_amplitude * eps`; refined ones `eps + kappa * (sum over the block of four)`, which has
/// covariance `I - c J`. A block is whatever holds four copies of one number: with
/// [`Upsample::Token`] the four siblings at one place of the packed token, with
/// [`Upsample::Latent`] the four pixels of one channel inside one token.
pub fn jump_noise(
    seed: u64,
    jump: u32,
    transition: &Transition,
    kappa: f64,
    kept_amplitude: f64,
    upsample: Upsample,
    token_channels: usize,
) -> Vec<f32> {
    let entries = &transition.entries;
    jump_noise_of(seed, jump, entries, kappa, kept_amplitude, upsample, token_channels)
}

/// [`jump_noise`] of some entries of a transition, for callers who have other things to do in between.
pub fn jump_noise_of(
    seed: u64,
    jump: u32,
    entries: &[Entry],
    kappa: f64,
    kept_amplitude: f64,
    upsample: Upsample,
    token_channels: usize,
) -> Vec<f32> {
    let mut out = Vec::with_capacity(entries.len() * token_channels);
    for entry in entries {
        let at = |row, col, group| normal4(seed, jump, row, col, group);
        let Entry { full_row: row, full_col: col, .. } = *entry;
        for group in 0..token_channels as u32 / 4 {
            let own = at(row, col, group);
            let z = match (entry.child, upsample) {
                (None, _) => own.map(|eps| kept_amplitude * eps),
                (Some(_), Upsample::Latent) => {
                    // Four consecutive values of a packed token are one channel's 2x2 patch.
                    let sum: f64 = own.iter().sum();
                    own.map(|eps| eps + kappa * sum)
                }
                (Some(_), Upsample::Token) => {
                    let (top, left) = (row & !1, col & !1);
                    let block =
                        [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(p, q)| at(top + p, left + q, group));
                    std::array::from_fn(|i| {
                        let sum = block[0][i] + block[1][i] + block[2][i] + block[3][i];
                        own[i] + kappa * sum
                    })
                }
            };
            out.extend(z.map(|value| value as f32));
        }
    }
    out
}

/// The noise field of [`super::JumpNoise::Bound`] for the tokens of a transition, `[n, 4 C]` in the
/// order of its entries.
///
/// `initial`: the run's initial noise, `[C, latent_h, latent_w]`. A fine token has the field's
/// numbers at its place, a coarse token those that it started from ([`low_noise`]). Noise of
/// another size than the transition's full grid is [`Error::Length`]. After Fresco (arXiv
/// 2601.07462).
pub fn bound_noise(
    initial: &[f32],
    latent_h: usize,
    latent_w: usize,
    transition: &Transition,
) -> Result<Vec<f32>, Error> {
    let token_channels = 4 * check_latent(initial, latent_h, latent_w)?;
    let fine = pack(initial, latent_h, latent_w)?;
    let (rows, cols) = (latent_h / 2, latent_w / 2);
    let extent = |at: fn(&Entry) -> u32| {
        transition.entries.iter().map(at).max().map_or(0, |last| last as usize + 1)
    };
    // The last token may be coarse: it then reaches one row and column further than its corner.
    let want_rows = extent(|e| e.full_row).next_multiple_of(2);
    let want_cols = extent(|e| e.full_col).next_multiple_of(2);
    if (rows, cols) != (want_rows, want_cols) {
        return Err(Error::Length {
            what: "the initial noise",
            found: initial.len(),
            expected: want_rows * want_cols * token_channels,
            shape: "channels x height x width of the transition's full grid, in that order",
        });
    }
    // A kept token is coarse in a mixed list, fine in a full one.
    let is_full = transition.entries.len() == rows * cols;
    let coarse = if is_full {
        vec![]
    } else {
        pack(&low_noise(initial, latent_h, latent_w)?, latent_h / 2, latent_w / 2)?
    };
    let mut out = Vec::with_capacity(transition.entries.len() * token_channels);
    for entry in &transition.entries {
        let (row, col) = (entry.full_row as usize, entry.full_col as usize);
        let (field, token) = match entry.child {
            None if !is_full => (&coarse, row / 2 * (cols / 2) + col / 2),
            _ => (&fine, row * cols + col),
        };
        out.extend_from_slice(&field[token * token_channels..(token + 1) * token_channels]);
    }
    Ok(out)
}

/// The number of channels of a latent with sides `latent_h` and `latent_w`.
fn check_latent(values: &[f32], latent_h: usize, latent_w: usize) -> Result<usize, Error> {
    if latent_h == 0 || latent_w == 0 || !latent_h.is_multiple_of(2) || !latent_w.is_multiple_of(2)
    {
        return Err(Error::LatentSize { height: latent_h, width: latent_w });
    }
    let channels = values.len().div_ceil(latent_h * latent_w).next_multiple_of(4).max(4);
    let expected = channels * latent_h * latent_w;
    if values.len() != expected {
        return Err(Error::Length {
            what: "the latent",
            found: values.len(),
            expected,
            shape: "channels, a multiple of 4, x height x width",
        });
    }
    Ok(channels)
}
