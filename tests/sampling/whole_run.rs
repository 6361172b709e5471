//! A whole run with an oracle in place of a network.

use super::{all_presets, oracle};
use ralu::sampling::{
    Grid, JumpNoise, KeptNoise, RaluParams, Ranking, Rules, Transition, Upsample, Variant,
    bound_noise, initial_noise, jump_noise, low_noise, pack,
};

/// Steps through a stage; returns the clean estimate at its end, from its last velocity.
fn euler(x: &mut [f32], sigmas: &[f64]) -> Vec<f32> {
    let mut clean = vec![0.0; x.len()];
    for pair in sigmas.windows(2) {
        for (i, (x, clean)) in x.iter_mut().zip(&mut clean).enumerate() {
            let velocity = (*x - oracle(i)) / pair[0] as f32;
            *x += (pair[1] - pair[0]) as f32 * velocity;
            *clean = *x - pair[1] as f32 * velocity;
        }
    }
    clean
}

/// Variance of what is noise in the given tokens of a state at `sigma`, over `sigma^2`.
fn noise_ratio(x: &[f32], sigma: f64, tokens: impl Iterator<Item = usize>) -> (f64, f64) {
    let (mut sum, mut n) = (0.0, 0.0);
    for token in tokens {
        for (i, x) in x.iter().enumerate().skip(token * 64).take(64) {
            let noise = f64::from(*x) - (1.0 - sigma) * f64::from(oracle(i));
            sum += noise * noise;
            n += 1.0;
        }
    }
    (sum / n / (sigma * sigma), n)
}

#[test]
fn an_oracle_network_gets_its_picture() {
    let mut checked = [0; 4];
    for (_, _, preset) in all_presets() {
        for grid in [Grid { rows: 8, cols: 8 }, Grid { rows: 24, cols: 40 }] {
            for (ratio, seed) in [(None, 1), (Some(0.0), 2), (Some(0.5), 3), (Some(1.0), 4)] {
                for rules in [
                    Rules { jump_noise: JumpNoise::Fresh, ..Rules::default() },
                    Rules { upsample: Upsample::Latent, ..Variant::Official.rules() },
                    Rules { jump_noise: JumpNoise::Bound, ..Rules::default() },
                ] {
                    // The small grid does all combinations, the large one each preset with
                    // both noises.
                    if grid.rows != 8 && (ratio.is_some() || rules.kept_noise != KeptNoise::Exact) {
                        continue;
                    }
                    let params =
                        RaluParams { up_ratio: ratio.unwrap_or(preset.up_ratio), ..preset.clone() };
                    run_oracle(&params, grid, seed, rules, &mut checked);
                }
            }
        }
    }
    // Two-stage and three-stage runs, kept tokens under both rules, and bound noise with and
    // without a mixed stage have all occurred.
    assert!(checked.iter().all(|n| *n > 0), "{checked:?}");
}

fn run_oracle(params: &RaluParams, grid: Grid, seed: u64, rules: Rules, checked: &mut [usize; 4]) {
    let label = format!("{params:?} {grid:?} {rules:?}");
    let (kept, rule) = (rules.kept_noise, rules.upsample);
    let schedule = params.resolve(grid.n_tokens()).unwrap();
    let (height, width) = (4 * grid.rows, 4 * grid.cols);
    let full = initial_noise(seed, [16, height, width]);
    let low = low_noise(&full, height, width).unwrap();
    let mut x = pack(&low, height / 2, width / 2).unwrap();

    // Any regions will do; every third token or so, as many as the ratio says.
    let k = params.region_count(grid.n_tokens());
    let density: Vec<u32> = (0..grid.n_tokens() as u32).map(|i| i * 7 % 13).collect();
    let selected = Ranking::by_edges(density, vec![]).select(k);
    let transitions = if schedule.stages.len() == 2 {
        checked[0] += 1;
        vec![Transition::low_to_full(grid).unwrap()]
    } else {
        checked[1] += 1;
        vec![
            Transition::to_mixed(grid, &selected).unwrap(),
            Transition::mixed_to_full(grid, &selected).unwrap().raster(),
        ]
    };

    // The clean estimate at the end of a stage, from the state and the velocity before.
    let mut clean = vec![];
    for (number, stage) in schedule.stages.iter().enumerate() {
        if number > 0 {
            let (jump, transition) = (&schedule.jumps[number - 1], &transitions[number - 1]);
            x = match rules.jump_noise {
                JumpNoise::Fresh => {
                    let up = transition.gather(&x, rule).unwrap();
                    let amplitude = jump.kept_amplitude(kept);
                    let number = number as u32;
                    let z = jump_noise(seed, number, transition, jump.kappa, amplitude, rule, 64);
                    jump.renoise(&up, &z)
                }
                JumpNoise::Bound => {
                    checked[3] += 1;
                    let up = transition.gather(&clean, rule).unwrap();
                    let field = bound_noise(&full, height, width, transition).unwrap();
                    let [signal, noise] = jump.bound_gains().map(|gain| gain as f32);
                    up.iter().zip(&field).map(|(x, z)| signal * x + noise * z).collect()
                }
            };

            let sigma = stage.sigmas[0];
            let refined = |want: bool| {
                let entries = transition.entries.iter().enumerate();
                entries.filter_map(move |(i, e)| (e.child.is_some() == want).then_some(i))
            };
            // Kept tokens of the official rule are too noisy by 1 + c.
            let excess = match (rules.jump_noise, kept) {
                (JumpNoise::Bound, _) | (_, KeptNoise::Exact) => 1.0,
                (JumpNoise::Fresh, KeptNoise::Official) => 1.0 + jump.c,
            };
            // In the second transition they are refined: c of a block's variance comes from the
            // parent, so 1 - c + c (1 + c) is left of it.
            let inherited = if number == 2 { 1.0 + (excess - 1.0) * jump.c } else { 1.0 };
            for (want, tokens) in [(inherited, refined(true)), (excess, refined(false))] {
                let (found, n) = noise_ratio(&x, sigma, tokens);
                if n > 0.0 {
                    // Four and a half standard errors of a variance over n numbers.
                    let error = 4.5 * f64::sqrt(2.0 / n);
                    assert!((found - want).abs() < error, "{label}: {found}, {want} +- {error}");
                }
            }
            if kept == KeptNoise::Official && refined(false).next().is_some() {
                checked[2] += 1;
            }
        }
        clean = euler(&mut x, &stage.sigmas);
    }
    assert_eq!(x.len(), grid.n_full_tokens() * 64, "{label}");
    for (i, found) in x.iter().enumerate() {
        // The last step subtracts the whole remaining noise; what is left is its f32 rounding.
        let error = (found - oracle(i)).abs();
        assert!(error < 2e-6, "{label}, value {i}: off by {error}");
    }
}
