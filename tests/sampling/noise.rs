//! Noise: known answers of its generators, and its statistics by definition.

use super::{close, close32, oracle};
use ralu::sampling::noise::philox4x32;
use ralu::sampling::ntdm::{self};
use ralu::sampling::{
    Error, Grid, Jump, KeptNoise, Transition, Upsample, bound_noise, initial_noise, jump_noise,
    low_noise, pack, torch_randn, unpack,
};

#[test]
fn philox_known_answers() {
    // Random123, kat_vectors, philox4x32 with 10 rounds.
    let cases = [
        ([0; 4], [0; 2], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]),
        ([u32::MAX; 4], [u32::MAX; 2], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]),
        (
            [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
            [0xa4093822, 0x299f31d0],
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
        ),
    ];
    for (counter, key, want) in cases {
        assert_eq!(philox4x32(counter, key), want);
    }
}

/// Values of the documented keying, from another program. A picture's seed means these numbers:
/// if this test fails, every seed of every user has changed its picture.
#[test]
fn noise_keying_is_as_documented() {
    let seed = (1 << 40) + 7;
    let (h, w) = (8, 6);
    let noise = initial_noise(seed, [16, h, w]);
    let at = |row: usize, col: usize, channel: usize| noise[channel * h * w + row * w + col];
    // The other program's logarithm and cosine may round differently in f64's last bit.
    let ulp = 3e-7;
    let found = [at(0, 0, 0), at(3, 5, 2), at(3, 5, 3), at(7, 1, 15)];
    let want = [1.720_348_8, -1.101_853_6, -1.153_941_2, 0.595_185_4];
    close32("initial noise", &found, &want, ulp);

    let grid = Grid { rows: 2, cols: 3 };
    let to_mixed = Transition::to_mixed(grid, &[5]).unwrap();
    // Coarse token (1, 2) is refined; its child 1 is entry 6 and lies at (2, 5).
    assert_eq!(to_mixed.entries[6].full_col, 5);
    for (rule, want) in [(Upsample::Token, 1.086_518_8), (Upsample::Latent, 1.079_865)] {
        let z = jump_noise(seed, 1, &to_mixed, -0.0128607, 1.0, rule, 64);
        close32("refined", &[z[6 * 64 + 37]], &[want], ulp);
    }
    let everything = Transition::mixed_to_full(grid, &[0, 1, 2, 3, 4, 5]).unwrap();
    let z = jump_noise(seed, 2, &everything.raster(), -0.2, 0.5, Upsample::Token, 64);
    let kept = z[(3 * 6 + 1) * 64 + 63];
    close32("kept", &[kept], &[-0.162_175_58], ulp);
}

#[test]
fn noise_depends_on_the_place_alone() {
    let small = initial_noise(5, [16, 4, 6]);
    let large = initial_noise(5, [16, 10, 8]);
    for channel in 0..16 {
        for row in 0..4 {
            for col in 0..6 {
                assert_eq!(
                    small[channel * 24 + row * 6 + col],
                    large[channel * 80 + row * 8 + col]
                );
            }
        }
    }
    assert_ne!(initial_noise(6, [16, 4, 6]), small);
    // The upper half of the seed counts too.
    assert_ne!(initial_noise(5 + (1 << 32), [16, 4, 6]), small);

    let grid = Grid { rows: 3, cols: 4 };
    let unsorted = Transition::mixed_to_full(grid, &[1, 4, 9]).unwrap();
    for rule in [Upsample::Token, Upsample::Latent] {
        let noise = |t: &Transition, jump| jump_noise(7, jump, t, -0.1, 0.9, rule, 64);
        let sorted = unsorted.sort_rows(&noise(&unsorted, 2)).unwrap();
        assert_eq!(sorted, noise(&unsorted.raster(), 2));
        assert_ne!(sorted, noise(&unsorted.raster(), 1));
    }
}

#[test]
fn initial_noise_is_standard_normal() {
    let noise = initial_noise(1, [16, 64, 64]); // 65,536 numbers
    let n = noise.len() as f64;
    let moment = |p: i32| noise.iter().map(|x| f64::from(*x).powi(p)).sum::<f64>() / n;
    // Four standard errors: sqrt(1, 2, 15, 96 / n).
    let found = [moment(1), moment(2), moment(3), moment(4)];
    for ((found, want), variance) in found.iter().zip([0.0, 1.0, 0.0, 3.0]).zip([1., 2., 15., 96.])
    {
        let error = 4.0 * f64::sqrt(variance / n);
        assert!((found - want).abs() < error, "{found}, expected {want} +- {error}");
    }
    // Neighbours along each axis, among them the two halves of a Box-Muller pair.
    for (axis, step) in [("channel", 64 * 64), ("row", 64), ("column", 1)] {
        let pairs = noise.len() - step;
        let sum: f64 = (0..pairs).map(|i| f64::from(noise[i]) * f64::from(noise[i + step])).sum();
        let correlation = sum / pairs as f64;
        assert!(correlation.abs() < 4.0 / n.sqrt(), "{axis}: {correlation}");
    }
}

#[test]
fn kappa_is_the_root_of_the_covariance() {
    for z in [2.0, 2.5, 4.0, 6.317, 100.0] {
        let Jump { kappa, c, .. } = Jump::new(0.3, z);
        let rest = 4.0 * kappa * kappa + 2.0 * kappa + c;
        assert!(rest.abs() < 1e-15, "Z = {z}: {rest}");
        assert!((-0.25..=0.0).contains(&kappa));
        let jump = Jump::new(0.3, z);
        let (s, b) = (ntdm::stage_start(0.3, z), jump.noise_gain);
        close("s", &[jump.gain * 0.3, 1.0 - b], &[s, s], 1e-15);
        // The part common to a block: a^2 (1 - e)^2 = b^2 c.
        let common = (jump.gain * 0.7).powi(2) - b * b * c;
        assert!(common.abs() < 1e-15, "Z = {z}: {common}");
        assert_eq!(jump.kept_amplitude(KeptNoise::Official), 1.0);
        close("kept", &[jump.kept_amplitude(KeptNoise::Exact).powi(2)], &[1.0 - c], 1e-15);
    }
}

/// Four copies of old noise plus the block's new noise must be white again.
#[test]
fn renoised_blocks_are_white() {
    let grid = Grid { rows: 80, cols: 80 };
    let up = Transition::low_to_full(grid).unwrap();
    let jump = Jump::new(0.3, 6.317);
    let sigma = jump.noise_gain;
    // Noise of a state at sigma = 0.7, 409,600 numbers.
    let old = pack(&initial_noise(3, [16, 160, 160]), 160, 160).unwrap();
    let old: Vec<f32> = old.iter().map(|x| 0.7 * x).collect();
    for rule in [Upsample::Token, Upsample::Latent] {
        let z = jump_noise(3, 1, &up, jump.kappa, 1.0, rule, 64);
        let new = unpack(&jump.renoise(&up.gather(&old, rule).unwrap(), &z), 320, 320).unwrap();
        // The four latent pixels that got copies of one number, by rule.
        let apart = match rule {
            Upsample::Token => 2,
            Upsample::Latent => 1,
        };
        let mut covariance = [[0.0; 4]; 4];
        let mut blocks = 0.0;
        for plane in new.chunks_exact(320 * 320) {
            for row in (0..320).filter(|r| r / apart % 2 == 0) {
                for col in (0..320).filter(|c| c / apart % 2 == 0) {
                    let block = [(0, 0), (0, apart), (apart, 0), (apart, apart)]
                        .map(|(p, q)| f64::from(plane[(row + p) * 320 + col + q]));
                    for i in 0..4 {
                        for j in 0..4 {
                            covariance[i][j] += block[i] * block[j];
                        }
                    }
                    blocks += 1.0;
                }
            }
        }
        for (i, line) in covariance.iter().enumerate() {
            for (j, sum) in line.iter().enumerate() {
                let want = if i == j { sigma * sigma } else { 0.0 };
                // About three standard errors at 409,600 blocks; without the correlation the
                // off-diagonals would be 0.022.
                let found = sum / blocks;
                assert!((found - want).abs() < 0.0055, "{rule:?} {i},{j}: {found}, {want}");
            }
        }
        assert_eq!(blocks, 409_600.0);
    }
}

#[test]
fn the_strongest_correlation_sums_to_zero() {
    let grid = Grid { rows: 2, cols: 3 };
    let up = Transition::mixed_to_full(grid, &[]).unwrap();
    let jump = Jump::new(0.4, 2.0);
    assert_eq!((jump.kappa, jump.c), (-0.25, 0.25));
    let z = jump_noise(9, 1, &up, jump.kappa, 1.0, Upsample::Token, 64);
    for family in z.chunks_exact(4 * 64) {
        for i in 0..64 {
            let sum: f32 = family.iter().skip(i).step_by(64).sum();
            assert!(sum.abs() < 2e-6, "{sum}"); // four f32 roundings of numbers up to 6
        }
    }
    let z = jump_noise(9, 1, &up, jump.kappa, 1.0, Upsample::Latent, 64);
    for patch in z.chunks_exact(4) {
        assert!(patch.iter().sum::<f32>().abs() < 2e-6);
    }
}

#[test]
fn bound_noise_is_the_initial_noise_at_each_place() {
    let grid = Grid { rows: 3, cols: 5 };
    let (h, w) = (4 * grid.rows, 4 * grid.cols);
    let initial = initial_noise(11, [16, h, w]);
    let fine = pack(&initial, h, w).unwrap();
    let coarse = pack(&low_noise(&initial, h, w).unwrap(), h / 2, w / 2).unwrap();
    let bound = |t: &Transition| bound_noise(&initial, h, w, t).unwrap();
    let everything: Vec<u32> = (0..15).collect();
    for selected in [&[][..], &[4], &[0, 6, 13], &everything] {
        let label = format!("{selected:?}");
        // Full lists: the field itself, whatever the order.
        let to_full = Transition::mixed_to_full(grid, selected).unwrap();
        assert_eq!(bound(&to_full.raster()), fine, "{label}");
        assert_eq!(to_full.sort_rows(&bound(&to_full)).unwrap(), fine, "{label}");
        // The mixed list: a coarse token has what it started from.
        let to_mixed = Transition::to_mixed(grid, selected).unwrap();
        let found = bound(&to_mixed);
        assert_eq!(found.len(), to_mixed.n_tokens() * 64, "{label}");
        for (entry, row) in to_mixed.entries.iter().zip(found.chunks_exact(64)) {
            let (field, at) = match entry.child {
                None => (&coarse, entry.src as usize),
                Some(_) => {
                    (&fine, entry.full_row as usize * 2 * grid.cols + entry.full_col as usize)
                }
            };
            assert_eq!(row, &field[at * 64..(at + 1) * 64], "{label}, {entry:?}");
        }
    }

    // Noise of another picture.
    let other = Transition::low_to_full(Grid { rows: 4, cols: 5 }).unwrap();
    let found = bound_noise(&initial, h, w, &other);
    assert!(matches!(found, Err(Error::Length { expected: 5120, .. })), "{found:?}");
    assert!(bound_noise(&initial[1..], h, w, &other).is_err());
    // Of a larger picture, on its side, and for no tokens at all: none has these tokens' places.
    let mixed = Transition::to_mixed(grid, &[4]).unwrap();
    let full = Transition::mixed_to_full(grid, &[4]).unwrap();
    for (h, w) in [(h + 4, w), (h, w + 4), (2 * h, 2 * w), (w, h)] {
        for transition in [&mixed, &full] {
            let found = bound_noise(&initial_noise(1, [16, h, w]), h, w, transition);
            assert!(matches!(found, Err(Error::Length { expected: 3840, .. })), "{h} x {w}");
        }
    }
    assert!(bound_noise(&initial, h, w, &Transition { entries: vec![] }).is_err());
    // A row, or a column, of tokens too few.
    for (h, w) in [(14, 20), (16, 18)] {
        let found = bound_noise(&initial_noise(1, [16, h, w]), h, w, &other);
        assert!(matches!(found, Err(Error::Length { expected: 5120, .. })), "{found:?}");
    }
}

#[test]
fn bound_gains_are_a_state_of_the_flow() {
    for (end, z) in [(0.3, 6.317), (0.45, 6.317), (0.2, 2.0), (0.3, 38.4)] {
        let [signal, noise] = Jump::new(end, z).bound_gains();
        let s = ntdm::stage_start(end, z);
        close(&format!("e {end}, Z {z}"), &[signal, noise], &[s, 1.0 - s], 1e-15);
    }
}

/// Bound noise on an exact clean estimate: `s x_1 + (1 - s) noise`, white in both kinds of tokens.
#[test]
fn bound_states_have_the_variance_of_their_sigma() {
    let grid = Grid { rows: 80, cols: 80 };
    let (h, w) = (4 * grid.rows, 4 * grid.cols);
    let initial = initial_noise(21, [16, h, w]);
    let clean: Vec<f32> = (0..grid.n_tokens() * 64).map(oracle).collect();
    // A third of the tokens, in no pattern of rows.
    let selected: Vec<u32> = (0..6400).filter(|i| i * 7 % 13 < 4).collect();
    let transition = Transition::to_mixed(grid, &selected).unwrap();
    let field = bound_noise(&initial, h, w, &transition).unwrap();
    let up = transition.gather(&clean, Upsample::Token).unwrap();
    for (end, z) in [(0.3, 6.317), (0.45, 6.317), (0.3, 2.0)] {
        let jump = Jump::new(end, z);
        let s = ntdm::stage_start(end, z);
        let [signal, noise] = jump.bound_gains();
        let x: Vec<f64> = up
            .iter()
            .zip(&field)
            .map(|(x, z)| signal * f64::from(*x) + noise * f64::from(*z) - s * f64::from(*x))
            .collect();
        for fine in [false, true] {
            let entries = transition.entries.iter().zip(x.chunks_exact(64));
            let of_kind: Vec<&[f64]> =
                entries.filter(|(e, _)| e.child.is_some() == fine).map(|(_, row)| row).collect();
            let n = (of_kind.len() * 64) as f64;
            let numbers = || of_kind.iter().copied().flatten();
            let (mean, square) =
                (numbers().sum::<f64>() / n, numbers().map(|x| x * x).sum::<f64>() / n);
            let label = format!("e {end}, Z {z}, fine {fine}");
            let sigma = 1.0 - s;
            // Four standard errors each.
            close(&label, &[mean], &[0.0], 4.0 * sigma / n.sqrt());
            close(&label, &[square], &[sigma * sigma], 4.0 * sigma * sigma * (2.0 / n).sqrt());
            if fine {
                // Siblings, which have one parent, share no noise: their sum has four variances.
                let sums = of_kind.chunks_exact(4).flat_map(|family| {
                    (0..64).map(|i| family.iter().map(|row| row[i]).sum::<f64>())
                });
                let square = sums.map(|x| x * x).sum::<f64>() / (n / 4.0);
                let want = 4.0 * sigma * sigma;
                close(&label, &[square], &[want], 4.0 * want * (8.0 / n).sqrt());
            }
        }
    }
}

#[derive(Debug)]
struct TorchCase {
    seed: u64,
    n: usize,
    at: Vec<usize>,
    values: Vec<f32>,
    sum: f64,
    sum_of_squares: f64,
}

fn torch_cases() -> Vec<TorchCase> {
    let text = include_str!("../fixtures/sampling/torch_randn.json");
    let file: serde_json::Value = serde_json::from_str(text).unwrap();
    let list = |v: &serde_json::Value| v.as_array().unwrap().clone();
    list(&file["cases"])
        .iter()
        .map(|case| TorchCase {
            seed: case["seed"].as_u64().unwrap(),
            n: case["n"].as_u64().unwrap() as usize,
            at: list(&case["at"]).iter().map(|v| v.as_u64().unwrap() as usize).collect(),
            values: list(&case["values"]).iter().map(|v| v.as_f64().unwrap() as f32).collect(),
            sum: case["sum"].as_f64().unwrap(),
            sum_of_squares: case["sum_of_squares"].as_f64().unwrap(),
        })
        .collect()
}

#[test]
fn torch_numbers_bit_for_bit() {
    let cases = torch_cases();
    assert_eq!(cases.len(), 4 * 5);
    for case in cases {
        let found = torch_randn(case.seed, case.n);
        assert_eq!(found.len(), case.n);
        let label = format!("seed {}, n {}", case.seed, case.n);
        for (&i, want) in case.at.iter().zip(&case.values) {
            assert_eq!(found[i].to_bits(), want.to_bits(), "{label}, element {i}");
        }
        let sum: f64 = found.iter().map(|x| f64::from(*x)).sum();
        let squares: f64 = found.iter().map(|x| f64::from(*x).powi(2)).sum();
        // Same values, another order of summation in f64.
        close(&label, &[sum], &[case.sum], 1e-9);
        close(&label, &[squares], &[case.sum_of_squares], 1e-8);
    }
    assert_eq!(torch_randn(7, 100), torch_randn((1 << 40) + 7, 100));
    assert!(torch_randn(0, 0).is_empty());
}
