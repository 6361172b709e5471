//! Which regions become fine early, against the authors' code and by definition.

use super::close32;
use ralu::sampling::regions::region_count;
use ralu::sampling::{
    Error, Grid, MaskMode, Ranking, initial_noise, latent_gradient, mask_regions, pack,
    temporal_variance,
};

#[test]
fn region_counts_round_down() {
    let cases = [
        (0.1, 1024, 102),
        (0.2, 1024, 204),
        (0.3, 1024, 307),
        (0.37, 63, 23),
        (0.3, 64, 19),
        (0.0, 64, 0),
        (1.0, 64, 64),
        (f64::NAN, 64, 0),
        (-1.0, 64, 0),
        (2.0, 64, 64),
    ];
    for (ratio, low_tokens, want) in cases {
        assert_eq!(region_count(ratio, low_tokens), want, "{ratio}, {low_tokens}");
    }
}

#[test]
fn regions_of_the_authors_code() {
    let text = include_str!("../fixtures/sampling/regions.json");
    let cases: serde_json::Value = serde_json::from_str(text).unwrap();
    let mut boundary_ties = 0;
    for case in cases.as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let numbers = |key: &str| -> Vec<f64> {
            let list = case[key].as_array().unwrap();
            list.iter().map(|v| v.as_f64().unwrap()).collect()
        };
        // Their score sums pixels of value 255; ours counts them.
        let edges = numbers("edges");
        assert!(edges.iter().all(|e| e % 255.0 == 0.0), "{name}");
        let density: Vec<u32> = edges.iter().map(|e| (e / 255.0) as u32).collect();
        let want: Vec<u32> = numbers("selected").iter().map(|s| *s as u32).collect();
        let ranking = Ranking::by_edges(density.clone(), vec![]);
        assert_eq!(ranking.select(want.len()), want, "{name}");
        let least = want.iter().map(|&i| density[i as usize]).min().unwrap();
        boundary_ties +=
            (0..).zip(&density).filter(|(i, d)| **d == least && !want.contains(i)).count();
    }
    // The second case is decided by the index, so the tie rule is really tested.
    assert!(boundary_ties > 0);
}

#[test]
fn ties_are_broken_by_gradient_then_index() {
    let select = |density: &[u32], fine: &[f32], k| {
        Ranking::by_edges(density.to_vec(), fine.to_vec()).select(k)
    };
    let density = [3, 5, 3, 3, 0];
    assert_eq!(select(&density, &[], 2), [0, 1]);
    assert_eq!(select(&density, &[1.0, 0.0, 2.0, 2.0, 9.0], 2), [1, 2]);
    assert_eq!(select(&density, &[1.0, 0.0, 2.0, 2.5, 9.0], 3), [1, 2, 3]);
    assert_eq!(select(&[0; 6], &[], 3), [0, 1, 2]);
    assert_eq!(select(&density, &[], 99), [0, 1, 2, 3, 4]);
    assert!(select(&density, &[], 0).is_empty());
    assert!(select(&[], &[], 4).is_empty());
    assert_eq!(Ranking::by_edges(density.to_vec(), vec![]).scores(), [3.0, 5.0, 3.0, 3.0, 0.0]);
}

#[test]
fn scores_select_the_largest() {
    let ranking = Ranking::by_score(&[0.5, 2.5, 0.0, 2.5, 7.0]);
    assert_eq!(ranking.select(1), [4]);
    assert_eq!(ranking.select(2), [1, 4]);
    assert_eq!(ranking.select(4), [0, 1, 3, 4]);
    assert_eq!(ranking.scores(), [0.5, 2.5, 0.0, 2.5, 7.0]);
    let odd = Ranking::by_score(&[f32::NAN, -0.0, 0.0, -1.0, -f32::NAN, f32::INFINITY]);
    assert_eq!(odd.select(2), [1, 5]);
    assert_eq!(odd.select(4), [1, 2, 3, 5]);
    // Any scores, many of them equal.
    let noise = initial_noise(8, [16, 2, 60]);
    for (i, score) in noise.chunks_exact(60).enumerate() {
        let score: Vec<f32> = score.iter().map(|x| (2.0 * x).round()).collect();
        let ranking = Ranking::by_score(&score);
        for k in [0, 1, 7, 30, 59, 60, 61] {
            let selected = ranking.select(k);
            assert_eq!(selected.len(), k.min(60), "{i}, {k}");
            assert!(selected.is_sorted_by(|a, b| a < b), "{i}, {k}: {selected:?}");
            for low in (0..60).filter(|low| !selected.contains(low)) {
                for &high in &selected {
                    let (less, more) = (score[low as usize], score[high as usize]);
                    assert!(less < more || (less == more && high < low), "{i}, {k}: {low}, {high}");
                }
            }
            // More regions are the same ones and others.
            let fewer = ranking.select(k / 2);
            assert!(fewer.iter().all(|token| selected.contains(token)), "{i}, {k}");
        }
    }
}

#[test]
fn latent_gradients() {
    let grid = Grid { rows: 3, cols: 4 };
    let (h, w) = (6, 8);
    let score = |latent: &[f32]| latent_gradient(&pack(latent, h, w).unwrap(), grid).unwrap();
    // Channel 5 is a plane; Sobel's weights add up to 8 per step inside, and to half of that where
    // the neighbour across is the border's own pixel.
    let (down, right) = (3.0, 4.0);
    let mut latent = vec![0.0; 16 * h * w];
    for row in 0..h {
        for col in 0..w {
            latent[5 * h * w + row * w + col] = down * row as f32 + right * col as f32;
        }
    }
    let along = |i: usize, n: usize| if i == 0 || i == n - 1 { 4.0 } else { 8.0 };
    let mut want = vec![0.0f32; 12];
    for row in 0..h {
        for col in 0..w {
            let (gy, gx) = (f64::from(down) * along(row, h), f64::from(right) * along(col, w));
            want[row / 2 * 4 + col / 2] += gx.hypot(gy) as f32;
        }
    }
    assert_eq!(want[5], 4.0 * 40.0);
    // One rounding of sums up to 160.
    close32("a plane", &score(&latent), &want, 2e-5);
    // Channels add up: the same plane in another one, falling.
    for i in 0..h * w {
        latent[9 * h * w + i] = -2.0 * latent[5 * h * w + i];
    }
    let tripled: Vec<f32> = want.iter().map(|x| 3.0 * x).collect();
    close32("two planes", &score(&latent), &tripled, 6e-5);

    // A single pixel: its eight neighbours have 1 or 2 of it in a direction, it has none itself.
    let mut latent = vec![0.0; 16 * h * w];
    latent[2 * w + 3] = 1.0;
    let diagonal = 2f32.sqrt();
    let mut want = vec![0.0; 12];
    // Rows 1 to 3, columns 2 to 4, by token.
    want[1] = diagonal + 2.0; // (1, 2), (1, 3)
    want[2] = diagonal; // (1, 4)
    want[5] = 2.0 + diagonal + 2.0; // (2, 2), (3, 2), (3, 3)
    want[6] = 2.0 + diagonal; // (2, 4), (3, 4)
    close32("a pixel", &score(&latent), &want, 1e-6);

    assert_eq!(score(&vec![3.5; 16 * h * w]), [0.0; 12]);
    assert!(latent_gradient(&[0.0; 64], grid).is_err());
    assert!(latent_gradient(&[], Grid { rows: 0, cols: 1 }).is_err());
    assert!(latent_gradient(&[], Grid { rows: usize::MAX, cols: 2 }).is_err());
}

/// The definition, pixel by pixel on a latent with a border of copies.
#[test]
fn latent_gradients_by_definition() {
    let kernel = [[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]];
    for (rows, cols) in [(1, 1), (1, 6), (5, 1), (3, 4)] {
        let (h, w) = (2 * rows, 2 * cols);
        let latent = initial_noise(17, [16, h, w]);
        let mut want = vec![0.0f64; rows * cols];
        for plane in latent.chunks_exact(h * w) {
            let mut bordered = vec![vec![0.0f64; w + 2]; h + 2];
            for (i, line) in bordered.iter_mut().enumerate() {
                for (j, pixel) in line.iter_mut().enumerate() {
                    let (row, col) = (i.clamp(1, h) - 1, j.clamp(1, w) - 1);
                    *pixel = f64::from(plane[row * w + col]);
                }
            }
            for row in 0..h {
                for col in 0..w {
                    let (mut gx, mut gy) = (0.0, 0.0);
                    for i in 0..3 {
                        for j in 0..3 {
                            gx += kernel[i][j] * bordered[row + i][col + j];
                            gy += kernel[j][i] * bordered[row + i][col + j];
                        }
                    }
                    want[row / 2 * cols + col / 2] += f64::sqrt(gx * gx + gy * gy);
                }
            }
        }
        let tokens = pack(&latent, h, w).unwrap();
        let found = latent_gradient(&tokens, Grid { rows, cols }).unwrap();
        assert_eq!(found.len(), want.len());
        for (token, (found, want)) in found.iter().zip(&want).enumerate() {
            // Rounded to f32 once, half a unit in 24 bits; f64's own rounding is nothing next to it.
            let off = (f64::from(*found) - want).abs();
            assert!(off <= 6e-8 * want, "{rows} x {cols}, token {token}: {found}, {want}");
        }
    }
}

#[test]
fn a_step_has_its_gradient_where_it_lies() {
    let grid = Grid { rows: 5, cols: 7 };
    let (h, w) = (10, 14);
    for upright in [true, false] {
        // Between the two latent pixels of each line of tokens, in one channel.
        for line in 0..if upright { grid.cols } else { grid.rows } {
            let mut latent = vec![0.25; 16 * h * w];
            for row in 0..h {
                for col in 0..w {
                    let place = if upright { col } else { row };
                    latent[3 * h * w + row * w + col] = if place > 2 * line { 1.0 } else { -1.0 };
                }
            }
            let score = latent_gradient(&pack(&latent, h, w).unwrap(), grid).unwrap();
            let on_it = |token: &u32| {
                let (row, col) = (*token as usize / grid.cols, *token as usize % grid.cols);
                if upright { col == line } else { row == line }
            };
            let want: Vec<u32> = (0..35).filter(on_it).collect();
            assert_eq!(Ranking::by_score(&score).select(want.len()), want);
            for (token, score) in (0..).zip(&score) {
                // Four pixels with a difference of 2, and Sobel's weights of 4.
                let want = if on_it(&token) { 4.0 * 4.0 * 2.0 } else { 0.0 };
                assert_eq!(*score, want, "upright {upright}, line {line}, token {token}");
            }
        }
    }
}

/// A picture on its side has the same gradients, on their side.
#[test]
fn latent_gradients_know_no_direction() {
    let (h, w) = (6, 10);
    let latent = initial_noise(4, [16, h, w]);
    let mut turned = vec![0.0; latent.len()];
    for channel in 0..16 {
        for row in 0..h {
            for col in 0..w {
                let to = channel * h * w + col * h + row;
                turned[to] = latent[channel * h * w + row * w + col];
            }
        }
    }
    let grid = Grid { rows: 3, cols: 5 };
    let upright = latent_gradient(&pack(&latent, h, w).unwrap(), grid).unwrap();
    let grid = Grid { rows: 5, cols: 3 };
    let lying = latent_gradient(&pack(&turned, w, h).unwrap(), grid).unwrap();
    let turned_back: Vec<f32> = (0..15).map(|token| lying[token % 5 * 3 + token / 5]).collect();
    // Sums of 64 numbers of about 6, in f64 in another order, rounded once.
    close32("turned", &turned_back, &upright, 1e-4);
    assert!(upright.iter().all(|score| *score > 0.0));
}

#[test]
fn temporal_variances() {
    let grid = Grid { rows: 1, cols: 2 };
    // Token 0: 1, 3, 5 in all numbers, variance 8/3. Token 1: one number of 64 goes 0, 0, 6,
    // variance 8.
    let estimates: Vec<Vec<f32>> = [(1.0, 0.0), (3.0, 0.0), (5.0, 6.0)]
        .map(|(all, single)| {
            let mut estimate = vec![all; 64];
            estimate.extend([7.0; 64]);
            estimate[64 + 13] = single;
            estimate
        })
        .to_vec();
    let found = temporal_variance(&estimates, grid).unwrap();
    close32("by hand", &found, &[8.0 / 3.0, 8.0 / 64.0], 1e-6);

    let reversed: Vec<_> = estimates.iter().rev().cloned().collect();
    assert_eq!(temporal_variance(&reversed, grid).unwrap(), found);
    // Powers of 2 scale exactly.
    let twice: Vec<Vec<f32>> =
        estimates.iter().map(|e| e.iter().map(|x| 2.0 * x).collect()).collect();
    let want: Vec<f32> = found.iter().map(|x| 4.0 * x).collect();
    assert_eq!(temporal_variance(&twice, grid).unwrap(), want);
    assert_eq!(temporal_variance(&vec![vec![0.1; 128]; 5], grid).unwrap(), [0.0; 2]);

    for few in [&[][..], &estimates[..1]] {
        let message = temporal_variance(few, grid).unwrap_err().to_string();
        assert!(message.contains("expected at least 2: one step has no variance"), "{message}");
    }
    let mut short = estimates;
    short[1].pop();
    let found = temporal_variance(&short, grid);
    assert!(matches!(found, Err(Error::Length { found: 127, expected: 128, .. })), "{found:?}");
    assert!(temporal_variance(&[vec![], vec![]], Grid { rows: 0, cols: 2 }).is_err());
}

/// Half the mean squared difference of all pairs is the variance too, without a mean.
#[test]
fn temporal_variances_by_definition() {
    let grid = Grid { rows: 2, cols: 3 };
    for n in [2, 3, 7] {
        let estimates: Vec<Vec<f32>> =
            (0..n).map(|step| pack(&initial_noise(step, [16, 4, 6]), 4, 6).unwrap()).collect();
        let found = temporal_variance(&estimates, grid).unwrap();
        assert_eq!(found.len(), 6);
        for (token, found) in found.iter().enumerate() {
            let mut want = 0.0;
            for i in token * 64..(token + 1) * 64 {
                for a in &estimates {
                    for b in &estimates {
                        want += (f64::from(a[i]) - f64::from(b[i])).powi(2);
                    }
                }
            }
            want /= 2.0 * (n * n) as f64 * 64.0;
            // Rounded to f32 once.
            let off = (f64::from(*found) - want).abs();
            assert!(off <= 6e-8 * want, "{n} steps, token {token}: {found}, {want}");
        }
    }
}

#[test]
fn painted_regions() {
    let grid = Grid { rows: 2, cols: 3 };
    // A mask of 6 x 4 pixels: each token has 2 x 2 of them.
    #[rustfmt::skip]
    let mask = [
        255, 255, 0, 0, 0, 0,
        255, 255, 0, 0, 0, 255,
        0, 255, 255, 0, 0, 128,
        0, 0, 255, 0, 0, 0,
    ];
    let shares = mask_regions(&mask, 6, 4, grid).unwrap();
    let want = [1.0, 0.0, 0.25, 0.25, 0.5, 128.0 / 255.0 / 4.0];
    close32("shares", &shares, &want, 1e-7);

    let density = vec![0, 9, 0, 0, 8, 7];
    let score = density.iter().map(|count| *count as f32 / 3.0).collect::<Vec<_>>();
    for ranking in [Ranking::by_edges(density, vec![]), Ranking::by_score(&score)] {
        assert_eq!(ranking.select_with_mask(MaskMode::Add, &shares, 2), [0, 1, 4]);
        assert_eq!(ranking.select_with_mask(MaskMode::Add, &shares, 0), [0, 4]);
        assert_eq!(ranking.select_with_mask(MaskMode::Replace, &shares, 2), [0, 4]);
    }

    // A mask whose pixels do not line up with the tokens: 2 pixels over 3 columns.
    let shares = mask_regions(&[255, 0], 2, 1, Grid { rows: 1, cols: 3 }).unwrap();
    close32("cut", &shares, &[1.0, 0.5, 0.0], 1e-7);
    // A single pixel paints everything.
    assert_eq!(mask_regions(&[255], 1, 1, grid).unwrap(), [1.0; 6]);
    assert!(mask_regions(&[], 0, 0, grid).is_err());
    assert!(mask_regions(&[0; 5], 2, 3, grid).is_err());
}
