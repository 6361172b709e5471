//! Attention, over one matrix of keys and several.

use super::{EXP, MANY_PIECES, check_all};
use crate::common::{Bands, EPSILON, Frame, Lab, Random, Tolerance, assert_close, round};
use ralu::ops::{self, Attention, choice, reference};
use ralu::tensor::{AttentionKernel, Command, Recording, Storage};

#[derive(Clone, Copy, Debug)]
struct AttentionCase {
    m: usize,
    n: usize,
    heads: usize,
    /// Query heads that share a head of keys and values.
    group: usize,
    d: usize,
    causal: bool,
    bias: bool,
    /// Of q and k.
    magnitude: f32,
}

const ATTENTION: AttentionCase = AttentionCase {
    m: 33,
    n: 33,
    heads: 2,
    group: 1,
    d: 16,
    causal: false,
    bias: false,
    magnitude: 1.0,
};

#[rustfmt::skip]
const ATTENTION_CASES: &[AttentionCase] = &[
    // Keys around the step of 4, queries around the block of 16.
    AttentionCase { m: 1, n: 1, ..ATTENTION },
    AttentionCase { m: 1, n: 2, ..ATTENTION },
    AttentionCase { m: 2, n: 3, ..ATTENTION },
    AttentionCase { m: 5, n: 4, ..ATTENTION },
    AttentionCase { m: 15, n: 5, ..ATTENTION },
    AttentionCase { m: 16, n: 16, ..ATTENTION },
    AttentionCase { m: 17, n: 17, ..ATTENTION },
    AttentionCase { m: 100, n: 7, ..ATTENTION },
    AttentionCase { m: 7, n: 301, ..ATTENTION },
    AttentionCase { m: 257, n: 258, heads: 3, ..ATTENTION },
    // Widths of heads: those that fill their registers, and those that do not.
    AttentionCase { d: 4, ..ATTENTION },
    AttentionCase { d: 24, heads: 5, ..ATTENTION },
    AttentionCase { d: 32, ..ATTENTION },
    AttentionCase { d: 64, heads: 3, ..ATTENTION },
    AttentionCase { d: 128, ..ATTENTION },
    AttentionCase { d: 256, heads: 1, ..ATTENTION },
    AttentionCase { d: 512, heads: 1, ..ATTENTION },
    // Several blocks of keys and several workgroups for each width of tiles, with every edge.
    AttentionCase { m: 70, n: 141, d: 60, ..ATTENTION },
    AttentionCase { m: 70, n: 141, d: 100, ..ATTENTION },
    AttentionCase { m: 35, n: 133, d: 128, ..ATTENTION },
    AttentionCase { m: 35, n: 269, d: 196, heads: 1, ..ATTENTION },
    AttentionCase { m: 35, n: 269, d: 508, heads: 1, ..ATTENTION },
    // Scores in the thousands.
    AttentionCase { magnitude: 40.0, ..ATTENTION },
    AttentionCase { magnitude: 100.0, d: 64, ..ATTENTION },
    // Heads that kernels on matrices take, of 8 and of 16: queries around a block of 32 and of 64, keys around one of 16
    // and of 32, and scores that renew a row's reference many times.
    AttentionCase { m: 1, n: 1, d: 64, ..ATTENTION },
    AttentionCase { m: 31, n: 15, d: 64, ..ATTENTION },
    AttentionCase { m: 32, n: 16, d: 64, ..ATTENTION },
    AttentionCase { m: 65, n: 17, d: 64, ..ATTENTION },
    AttentionCase { m: 64, n: 65, d: 32, heads: 3, ..ATTENTION },
    AttentionCase { m: 70, n: 150, d: 32, ..ATTENTION },
    AttentionCase { m: 130, n: 97, d: 128, ..ATTENTION },
    AttentionCase { m: 70, n: 150, d: 64, magnitude: 3.0, ..ATTENTION },
    AttentionCase { m: 70, n: 150, d: 32, magnitude: 8.0, ..ATTENTION },
    AttentionCase { m: 70, n: 150, d: 128, magnitude: 3.0, ..ATTENTION },
];

#[rustfmt::skip]
const MASKED_CASES: &[AttentionCase] = &[
    // CLIP: causal; T5: relative positions, no scale.
    AttentionCase { causal: true, ..ATTENTION },
    AttentionCase { causal: true, m: 77, n: 77, heads: 3, d: 64, ..ATTENTION },
    AttentionCase { causal: true, bias: true, m: 77, n: 77, d: 32, ..ATTENTION },
    AttentionCase { causal: true, m: 70, n: 40, d: 128, ..ATTENTION },
    AttentionCase { causal: true, m: 20, n: 50, ..ATTENTION },
    AttentionCase { causal: true, m: 50, n: 20, ..ATTENTION },
    AttentionCase { bias: true, ..ATTENTION },
    AttentionCase { bias: true, m: 77, n: 77, heads: 3, d: 64, ..ATTENTION },
    AttentionCase { bias: true, m: 9, n: 40, heads: 4, ..ATTENTION },
    AttentionCase { bias: true, causal: true, m: 18, n: 18, ..ATTENTION },
    // Scores in the thousands.
    AttentionCase { magnitude: 100.0, causal: true, bias: true, ..ATTENTION },
];

#[rustfmt::skip]
const GROUPED_CASES: &[AttentionCase] = &[
    // Language models: causal, several query heads to a head of keys; right padding is fewer keys than queries.
    AttentionCase { heads: 2, group: 2, ..ATTENTION },
    AttentionCase { heads: 4, group: 2, causal: true, ..ATTENTION },
    AttentionCase { heads: 6, group: 3, causal: true, m: 70, n: 70, d: 64, ..ATTENTION },
    AttentionCase { heads: 8, group: 4, causal: true, m: 70, n: 23, d: 128, ..ATTENTION },
    AttentionCase { heads: 7, group: 7, causal: true, m: 64, n: 1, ..ATTENTION },
    AttentionCase { heads: 6, group: 2, m: 7, n: 301, ..ATTENTION },
    AttentionCase { heads: 4, group: 2, causal: true, bias: true, m: 18, n: 18, ..ATTENTION },
    AttentionCase { heads: 4, group: 4, m: 257, n: 258, magnitude: 40.0, ..ATTENTION },
    AttentionCase { heads: 2, group: 2, causal: true, m: 40, n: 270, d: 256, ..ATTENTION },
];

pub async fn attention() {
    check_attentions(ATTENTION_CASES).await;
}

/// Causal, or with a bias.
pub async fn attention_masked() {
    check_attentions(MASKED_CASES).await;
}

/// Several query heads to a head of keys and values.
pub async fn attention_grouped() {
    check_attentions(GROUPED_CASES).await;
}

async fn check_attentions(cases: &[AttentionCase]) {
    check_all(
        cases,
        |c| {
            // The state of rows whose keys are in bands is in one buffer: such cases skip 4 KiB bindings.
            let state = if c.m * c.heads > 500 { (MANY_PIECES + 1) * 4096 } else { 0 };
            let bytes = (c.m.max(c.n) * c.heads * c.d * 4) as u64;
            (bytes.max(state), 4.0 * (c.m * c.n * c.heads * c.d) as f64)
        },
        check_attention,
    )
    .await;
}

async fn check_attention(lab: &Lab, label: &str, case: &AttentionCase) {
    let &AttentionCase { m, n, heads, group, d, causal, magnitude, .. } = case;
    let (width, key_width) = (heads * d, heads / group * d);
    let mut random = Random::named(label);
    let mut q = random.numbers(m * width, magnitude);
    let mut k = random.numbers(n * key_width, magnitude);
    let mut v = random.numbers(n * key_width, 1.0);
    let on_matrices = asks_for_matrices(lab, d);
    if on_matrices {
        // So that scores are good to f32's roundings, wherever the scale is a power of two.
        for numbers in [&mut q, &mut k, &mut v] {
            *numbers = round(numbers, Storage::F16);
        }
    }
    let table = random.numbers(heads * (2 * n - 1), 3.0);
    let scale = 1.0 / (d as f32).sqrt();

    let qs = lab.view("q", [m, width], &q, Frame::WIDE, Bands::AsNeeded).await;
    let ks = lab.view("k", [n, key_width], &k, Frame::WIDE, Bands::AsNeeded).await;
    let vs = lab.view("v", [n, key_width], &v, Frame::WIDE, Bands::AsNeeded).await;
    let ys = lab.view("y", [m, width], &vec![0.0; m * width], Frame::WIDE, Bands::AsNeeded).await;
    let bias = lab.vector("bias", &table).await;
    let recording = lab
        .run(|r, _| {
            let bias = case.bias.then(|| r.resident(&bias));
            let options = Attention { head_dim: d, scale, causal, bias };
            ops::attention("y", [qs.on(r), ks.on(r), vs.on(r)], ys.on(r), options);
        })
        .await;
    assert_eq!(runs_on_matrices(&recording), on_matrices, "{label}");
    assert!(!lab.beyond_f16.get(), "{label}: all numbers fit f16");

    let y = lab.read_view(&ys).await;
    for head in 0..heads {
        let columns = |values: &[f32], width: usize, head: usize| -> Vec<f32> {
            values.chunks_exact(width).flat_map(|row| &row[head * d..][..d]).copied().collect()
        };
        let q = columns(&q, width, head);
        let [k, v] = [&k, &v].map(|values| columns(values, key_width, head / group));
        let bias = |i: usize, j: usize| {
            let at = head * (2 * n - 1) + (j + n - 1).wrapping_sub(i);
            (!causal || j <= i).then(|| if case.bias { f64::from(table[at]) } else { 0.0 })
        };
        let expected = reference::attention(&q, &k, &v, d, f64::from(scale), bias);
        // An error in a score is a relative error of its weight; then a weighted mean of numbers up to 1.
        let score = f64::from(magnitude).powi(2) * (d as f64).sqrt() + 3.0;
        let tolerance = Tolerance::absolute(2.0 * (Tolerance::sum(d).scale * score + EXP))
            .plus(Tolerance::absolute(Tolerance::sum(n).scale))
            .plus(match on_matrices {
                true => f16_tolerance(magnitude, if scale.log2().fract() == 0.0 { 0 } else { 1 }),
                false => Tolerance::default(),
            });
        let label = format!("attention head {head} of {label}");
        assert_close(&label, [m, d], &columns(&y, width, head), &expected, tolerance);
    }
}

/// Whether the case runs on matrices, as the variant wants.
fn asks_for_matrices(lab: &Lab, d: usize) -> bool {
    choice::attention(&lab.caps(), d) == AttentionKernel::Matrices
}

/// Whether it did.
fn runs_on_matrices(recording: &Recording) -> bool {
    let on_matrices = |command: &Command| match command {
        Command::Dispatch(dispatch) => choice::is_on_matrices(dispatch.pipeline.shader),
        _ => false,
    };
    recording.commands.iter().any(on_matrices)
}

/// What f16 costs where values are up to 1, and `factors` of queries and keys, which are up to `magnitude`, are rounded as
/// they are read.
///
/// A number keeps 11 bits, so it is off by 2^-11 of itself where a conversion rounds and by 2^-10 where it cuts off. Weights
/// are divided by the sum of the rounded ones, so that a mean moves by twice that; a value is off by it once. A score of
/// such numbers, all equally likely, has a spread of magnitude² / 3, so none of some thousand is four times as large; cut
/// off, a factor makes it smaller by 2^-11 of itself in the mean, and the errors' spread is magnitude² 2^-12 / 3, of which
/// six are no more: together less than 2^-10 magnitude² for each factor. An error of a score is a relative one of its weight,
/// and moves a mean by twice that.
fn f16_tolerance(magnitude: f32, factors: u8) -> Tolerance {
    let score = 2f64.powi(-10) * f64::from(factors) * f64::from(magnitude).powi(2);
    Tolerance::absolute(2.0 * score + 3.0 * 2f64.powi(-10))
}

/// Kernels that round to f16 say so if a query, a key or a value does not fit it.
pub async fn attention_flags_numbers_beyond_f16() {
    let mut lab = Lab::new().await;
    let base = lab.caps();
    let (m, n, d) = (37, 41, 64);
    for variant in super::variants::<AttentionCase>(&base) {
        lab = lab.with_caps(|caps| {
            *caps = base;
            (variant.change)(caps);
        });
        for (role, beyond) in [("q", true), ("k", true), ("v", true), ("q", false), ("v", false)] {
            let numbers = |own: &str, rows: usize, seed| {
                let mut numbers = Random::new(seed).numbers(rows * d, 1.0);
                if own == role {
                    // Queries are multiplied by the scale first.
                    let largest = if role == "q" { 65504.0 * 8.0 } else { 65504.0 };
                    numbers[rows * d - 1] = if beyond { -1.1 * largest } else { largest };
                }
                numbers
            };
            let on = async |label: &str, rows, seed| {
                let numbers = numbers(label, rows, seed);
                lab.view(label, [rows, d], &numbers, Frame::NONE, Bands::AsNeeded).await
            };
            let (qs, ks, vs) = (on("q", m, 1).await, on("k", n, 2).await, on("v", n, 3).await);
            let ys = on("y", m, 4).await;
            let options = Attention { head_dim: d, scale: 0.125, causal: false, bias: None };
            let recording = lab
                .run(|r, _| {
                    ops::attention("y", [qs.on(r), ks.on(r), vs.on(r)], ys.on(r), options);
                })
                .await;
            assert_eq!(
                lab.beyond_f16.get(),
                beyond && runs_on_matrices(&recording),
                "{role}, beyond: {beyond}, with {}",
                variant.name
            );
            lab.clear();
        }
    }
}

/// Values beyond f16 are divided before they are rounded, and results multiplied, also where dispatches follow one another.
pub async fn attention_falls_back() {
    let mut lab = Lab::new().await;
    let base = lab.caps();
    let (m, keys, d) = (37, [41, 50], 64);
    for variant in super::variants::<AttentionCase>(&base) {
        lab = lab.with_caps(|caps| {
            *caps = base;
            (variant.change)(caps);
        });
        let magnitude = 1_048_576.0;
        let scale = 0.125;
        let mut random = Random::new(5);
        // Good to f16's bits, values also after they are divided.
        let mut numbers = |rows: usize, most: f32| {
            let numbers = round(&random.numbers(rows * d, 1.0), Storage::F16);
            numbers.into_iter().map(|v| v * most).collect::<Vec<f32>>()
        };
        let q = numbers(m, 1.0);
        let k = keys.map(|n| numbers(n, 1.0));
        let v = keys.map(|n| numbers(n, magnitude));
        let qs = lab.view("q", [m, d], &q, Frame::WIDE, Bands::AsNeeded).await;
        let mut pairs = vec![];
        for ((n, k), v) in keys.iter().zip(&k).zip(&v) {
            pairs.push((
                lab.view("k", [*n, d], k, Frame::WIDE, Bands::AsNeeded).await,
                lab.view("v", [*n, d], v, Frame::WIDE, Bands::AsNeeded).await,
            ));
        }
        let ys = lab.view("y", [m, d], &vec![0.0; m * d], Frame::WIDE, Bands::AsNeeded).await;
        let run = async || {
            lab.run(|r, _| {
                let pairs: Vec<_> = pairs.iter().map(|(k, v)| (k.on(r), v.on(r))).collect();
                let options = Attention { head_dim: d, scale, causal: false, bias: None };
                ops::attention_over("y", qs.on(r), &pairs, ys.on(r), options);
            })
            .await
        };
        let mut on_matrices = runs_on_matrices(&run().await);
        assert_eq!(lab.beyond_f16.get(), on_matrices, "with {}", variant.name);
        if on_matrices {
            lab.fall_back();
            on_matrices = runs_on_matrices(&run().await);
            assert!(on_matrices, "with {}", variant.name);
            assert!(!lab.beyond_f16.get(), "values / 256 fit, with {}", variant.name);
        }
        let (k, v) = (k.concat(), v.concat());
        let expected = reference::attention(&q, &k, &v, d, f64::from(scale), |_, _| Some(0.0));
        let score = (d as f64).sqrt();
        let tolerance = Tolerance::absolute(2.0 * (Tolerance::sum(d).scale * score + EXP))
            .plus(Tolerance::absolute(Tolerance::sum(k.len() / d).scale))
            .plus(if on_matrices { f16_tolerance(1.0, 0) } else { Tolerance::default() });
        // All of that is about values up to 1. Values that f16 would flush are below 2^-14 * 256 = 2^-6.
        let tolerance = Tolerance::absolute(
            tolerance.absolute * f64::from(magnitude)
                + if on_matrices { 2f64.powi(-6) } else { 0.0 },
        );
        let label = format!("attention with values up to {magnitude} and {}", variant.name);
        assert_close(&label, [m, d], &lab.read_view(&ys).await, &expected, tolerance);
        lab.clear();
    }
}

/// Attention to several matrices of keys.
#[derive(Clone, Copy, Debug)]
struct RangesCase {
    m: usize,
    /// Keys in each matrix; the last one's are every fourth row.
    keys: &'static [usize],
    heads: usize,
    d: usize,
    magnitude: f32,
}

const RANGES: RangesCase = RangesCase { m: 33, keys: &[21, 12], heads: 2, d: 16, magnitude: 1.0 };

#[rustfmt::skip]
const RANGES_CASES: &[RangesCase] = &[
    RangesCase { m: 1, keys: &[1, 1], ..RANGES },
    RangesCase { m: 5, keys: &[4, 1, 4], ..RANGES },
    RangesCase { m: 17, keys: &[3, 5, 2], ..RANGES },
    RANGES,
    RangesCase { keys: &[33], ..RANGES },
    RangesCase { keys: &[7, 9, 50], ..RANGES },
    RangesCase { m: 70, keys: &[40, 100], d: 64, ..RANGES },
    RangesCase { m: 40, keys: &[7, 33, 1], d: 32, ..RANGES },
    RangesCase { m: 66, keys: &[40, 50], d: 128, ..RANGES },
    RangesCase { m: 66, keys: &[40, 50, 3], d: 64, magnitude: 3.0, ..RANGES },
    RangesCase { m: 18, keys: &[5, 6, 7], d: 128, heads: 3, ..RANGES },
    RangesCase { keys: &[30, 20], magnitude: 40.0, ..RANGES },
    RangesCase { m: 40, keys: &[70, 140], d: 128, ..RANGES },
    RangesCase { m: 20, keys: &[130, 9], d: 256, heads: 1, ..RANGES },
];

/// A NaN or an infinity in one query spoils that query's row and no other: pictures are checked for such numbers,
/// and a softmax must not hide them.
pub async fn attention_keeps_poison_in_its_row() {
    let mut lab = Lab::new().await;
    let base = lab.caps();
    for variant in super::variants::<AttentionCase>(&base) {
        lab = lab.with_caps(|caps| {
            *caps = base;
            (variant.change)(caps);
        });
        for (poison, d) in [f32::NAN, f32::INFINITY].into_iter().flat_map(|p| [(p, 16), (p, 64)]) {
            check_poison(&lab, variant.name, poison, d).await;
            lab.clear();
        }
    }
}

async fn check_poison(lab: &Lab, variant: &str, poison: f32, d: usize) {
    let (m, n, row) = (3, 9, 1);
    let mut random = Random::new(11);
    let mut q = random.numbers(m * d, 1.0);
    let [k, v] = [(); 2].map(|()| random.numbers(n * d, 1.0));
    q[row * d + 3] = poison;
    let on = async |label: &str, rows, values: &[f32]| {
        lab.view(label, [rows, d], values, Frame::NONE, Bands::One).await
    };
    let scale = 1.0 / (d as f32).sqrt();
    let (qs, ks, vs) = (on("q", m, &q).await, on("k", n, &k).await, on("v", n, &v).await);
    let ys = on("y", m, &vec![0.0; m * d]).await;
    let options = Attention { head_dim: d, scale, causal: false, bias: None };
    lab.run(|r, _| {
        ops::attention("y", [qs.on(r), ks.on(r), vs.on(r)], ys.on(r), options);
    })
    .await;
    for (i, y) in lab.read_view(&ys).await.chunks_exact(d).enumerate() {
        let is_finite = y.iter().all(|v| v.is_finite());
        let what = format!("{poison} in query {row} with {variant}");
        assert_eq!(is_finite, i != row, "{what}: row {i} is {y:?}");
    }
}

/// A row's numbers depend on its own query alone, not on the rows of its workgroup: wherever bands begin, the bits are the same.
/// On matrices rows renew their references together, but no picture in bands has heads of those widths.
pub async fn attention_gives_a_row_the_same_bits_in_any_workgroup() {
    let mut lab = Lab::new().await;
    let base = lab.caps();
    let (m, n, first) = (50, 150, 13);
    for variant in super::variants::<AttentionCase>(&base) {
        lab = lab.with_caps(|caps| {
            *caps = base;
            (variant.change)(caps);
        });
        for d in [16, 64] {
            if asks_for_matrices(&lab, d) {
                continue;
            }
            let mut random = Random::new(7);
            // Scores that renew the references of some rows.
            let [q, k, v] = [m, n, n].map(|rows| random.numbers(rows * d, 8.0));
            let run = async |q: &[f32]| {
                let on = async |label: &str, values: &[f32]| {
                    let shape = [values.len() / d, d];
                    lab.view(label, shape, values, Frame::NONE, Bands::One).await
                };
                let (qs, ks, vs) = (on("q", q).await, on("k", &k).await, on("v", &v).await);
                let ys = on("y", &vec![0.0; q.len()]).await;
                let scale = 1.0 / (d as f32).sqrt();
                let options = Attention { head_dim: d, scale, causal: false, bias: None };
                lab.run(|r, _| {
                    ops::attention("y", [qs.on(r), ks.on(r), vs.on(r)], ys.on(r), options);
                })
                .await;
                lab.read_view(&ys).await
            };
            let (all, some) = (run(&q).await, run(&q[first * d..]).await);
            assert!(all[first * d..] == some, "width {d} with {}", variant.name);
            lab.clear();
        }
    }
}

pub async fn attention_over() {
    check_all(
        RANGES_CASES,
        |c| {
            let n: usize = c.keys.iter().sum();
            let rows = c.m.max(4 * n);
            ((rows * c.heads * c.d * 4) as u64, 4.0 * (c.m * n * c.heads * c.d) as f64)
        },
        check_attention_over,
    )
    .await;
}

async fn check_attention_over(lab: &Lab, label: &str, case: &RangesCase) {
    let &RangesCase { m, keys, heads, d, magnitude } = case;
    let (n, width) = (keys.iter().sum::<usize>(), heads * d);
    let mut random = Random::named(label);
    let q = random.numbers(m * width, magnitude);
    let k = random.numbers(n * width, magnitude);
    let v = random.numbers(n * width, 1.0);
    let on_matrices = asks_for_matrices(lab, d);
    let scale = 1.0 / (d as f32).sqrt();

    let qs = lab.view("q", [m, width], &q, Frame::WIDE, Bands::AsNeeded).await;
    let ys = lab.view("y", [m, width], &vec![0.0; m * width], Frame::SPARSE, Bands::AsNeeded).await;
    let mut first = 0;
    let mut pairs = Vec::new();
    for (i, rows) in keys.iter().enumerate() {
        let range = first * width..(first + rows) * width;
        // Keys and values of one row need not lie in the same row of their matrices.
        let [k_frame, v_frame] = match i + 1 == keys.len() {
            true => [Frame::SPARSE, Frame { above: 0, ..Frame::SPARSE }],
            false => [Frame::WIDE, Frame::BELOW],
        };
        let view = async |values: &[f32], frame| {
            lab.view("keys", [*rows, width], &values[range.clone()], frame, Bands::AsNeeded).await
        };
        pairs.push((view(&k, k_frame).await, view(&v, v_frame).await));
        first += rows;
    }
    let recording = lab
        .run(|r, _| {
            let pairs: Vec<_> = pairs.iter().map(|(k, v)| (k.on(r), v.on(r))).collect();
            let options = Attention { head_dim: d, scale, causal: false, bias: None };
            ops::attention_over("y", qs.on(r), &pairs, ys.on(r), options);
        })
        .await;
    assert_eq!(runs_on_matrices(&recording), on_matrices, "{label}");

    let y = lab.read_view(&ys).await;
    for head in 0..heads {
        let own = |values: &[f32]| -> Vec<f32> {
            values.chunks_exact(width).flat_map(|row| &row[head * d..][..d]).copied().collect()
        };
        let expected =
            reference::attention(&own(&q), &own(&k), &own(&v), d, scale.into(), |_, _| Some(0.0));
        // As in `check_attention`: errors of scores, of exp, and of the weighted mean.
        let score = f64::from(magnitude).powi(2) * (d as f64).sqrt();
        let tolerance = Tolerance::absolute(2.0 * (Tolerance::sum(d).scale * score + EXP))
            .plus(Tolerance::absolute(Tolerance::sum(n).scale))
            .plus(match on_matrices {
                true => f16_tolerance(magnitude, 2),
                false => Tolerance::default(),
            });
        let label = format!("attention_over head {head} of {label}");
        assert_close(&label, [m, d], &own(&y), &expected, tolerance);
    }
}

/// Scores that are exact, so that the softmax shows the error of exp and nothing else, at the size of those of SD3's
/// widest heads.
pub async fn softmax_is_good_to_some_roundings() {
    const ROWS: usize = 4096;
    let lab = Lab::new().await;
    // From 0 to -87, in multiples of 2^-11: these are exact next to 4096, too.
    let steps: Vec<f32> = (0..ROWS).map(|i| -(((i + 1) * 87 / 2) as f32) / 2048.0).collect();
    for base in [0.0, 4096.0] {
        let q: Vec<f32> = steps.iter().flat_map(|step| [*step, base, 0.0, 0.0]).collect();
        // The largest score is met in the same group of four keys, and in a later one.
        for low_keys in [1, 4] {
            let mut k = [1.0, 1.0, 0.0, 0.0].repeat(low_keys);
            let mut v = [1.0, 0.5, 0.25, 0.125].repeat(low_keys);
            k.extend([0.0, 1.0, 0.0, 0.0]);
            v.extend([0.0; 4]);
            let view = async |name: &str, values: &[f32]| {
                lab.view(name, [values.len() / 4, 4], values, Frame::WIDE, Bands::One).await
            };
            let (qs, ks, vs) = (view("q", &q).await, view("k", &k).await, view("v", &v).await);
            let ys = view("y", &vec![0.0; ROWS * 4]).await;
            lab.run(|r, _| {
                let options = Attention { head_dim: 4, scale: 1.0, causal: false, bias: None };
                ops::attention("y", [qs.on(r), ks.on(r), vs.on(r)], ys.on(r), options);
            })
            .await;
            let expected = reference::attention(&q, &k, &v, 4, 1.0, |_, _| Some(0.0));
            // exp in the numerator and, for the total, an addition for each key, the division's 5 and two
            // products.
            let roundings = 9.0 + low_keys as f64;
            let tolerance = Tolerance::relative(2.0 * EXP + roundings * EPSILON);
            let label = format!("softmax of scores {base} and {base} - x, {low_keys} of these");
            // An eighth of exp(-84) is the smallest that is no denormal.
            let wide: Vec<usize> = (0..ROWS).filter(|i| steps[*i] > -84.0).collect();
            let of = |i: &usize| *i * 4..*i * 4 + 4;
            let y = lab.read_view(&ys).await;
            let y: Vec<f32> = wide.iter().flat_map(|i| y[of(i)].to_vec()).collect();
            let expected: Vec<f64> = wide.iter().flat_map(|i| expected[of(i)].to_vec()).collect();
            assert!(wide.len() > ROWS * 9 / 10, "{} rows", wide.len());
            assert_close(&label, [wide.len(), 4], &y, &expected, tolerance);
        }
    }
}
