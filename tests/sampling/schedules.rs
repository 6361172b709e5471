//! Steps of plain runs and of the published presets, against the tables of the paper and of diffusers.

use super::{SIX_DIGITS, close, flux, sd3};
use ralu::sampling::ntdm::{self, solve_least_noise};
use ralu::sampling::ralu::BASE_TIME_SHIFT;
use ralu::sampling::{
    DynamicShift, Error, FlowMatch, Preset, RaluParams, RaluSchedule, ShiftKind, stage_sigmas,
};

#[test]
fn stage_sigmas_and_jumps_of_the_published_presets() {
    struct Case {
        name: &'static str,
        params: RaluParams,
        starts: [f64; 2],
        gains: [f64; 2],
        noise_gains: [f64; 2],
        kappa: f64,
        sigmas: [&'static [f64]; 3],
    }
    let cases = [
        Case {
            name: "FLUX 4x",
            params: flux(Preset::X4),
            starts: [0.063534, 0.114669],
            gains: [0.211779, 0.254819],
            noise_gains: [0.936466, 0.885331],
            kappa: -0.0128607,
            sigmas: [
                &[1.0, 0.969459, 0.930371, 0.878565, 0.806629, 0.7],
                &[0.936466, 0.892494, 0.842563, 0.785372, 0.719215, 0.641804, 0.55],
                &[0.885331, 0.815674, 0.734741, 0.639555, 0.525985, 0.388137, 0.217294, 0.0],
            ],
        },
        Case {
            name: "FLUX 7x",
            params: flux(Preset::X7),
            starts: [0.038397, 0.064066],
            gains: [0.191983, 0.213552],
            noise_gains: [0.961603, 0.935934],
            kappa: -0.0130982,
            sigmas: [
                &[1.0, 0.941660, 0.8],
                &[0.961603, 0.894637, 0.810091, 0.7],
                &[0.935934, 0.833637, 0.705178, 0.539048, 0.315832, 0.0],
            ],
        },
        Case {
            name: "FLUX 5x",
            params: flux(Preset::X5),
            starts: [0.053942, 0.098166],
            gains: [0.179807, 0.218148],
            noise_gains: [0.946058, 0.901834],
            kappa: -0.0090124,
            sigmas: [
                &[1.0, 0.961079, 0.907293, 0.828113, 0.7],
                &[0.946058, 0.892442, 0.829403, 0.754216, 0.662995, 0.55],
                &[0.901834, 0.820001, 0.721761, 0.601631, 0.451377, 0.258042, 0.0],
            ],
        },
        Case {
            name: "SD3 2x",
            params: sd3(Preset::X2),
            starts: [0.057065, 0.093995],
            gains: [0.285325, 0.313315],
            noise_gains: [0.942935, 0.906005],
            kappa: -0.0312536,
            sigmas: [
                &[1.0, 0.978185, 0.950775, 0.915302, 0.867594, 0.8],
                &[0.942935, 0.910088, 0.874665, 0.836348, 0.794768, 0.749491, 0.7],
                &[
                    0.906005, 0.847338, 0.782215, 0.709509, 0.627812, 0.535347, 0.429836, 0.308308,
                    0.166816, 0.0,
                ],
            ],
        },
        Case {
            name: "SD3 3x",
            params: sd3(Preset::X3),
            starts: [0.050539, 0.064054],
            gains: [0.202156, 0.213512],
            noise_gains: [0.949461, 0.935946],
            kappa: -0.0130928,
            sigmas: [
                &[1.0, 0.956140, 0.885057, 0.75],
                &[0.949461, 0.882734, 0.801381, 0.7],
                &[0.935946, 0.853380, 0.753653, 0.630793, 0.475698, 0.273764, 0.0],
            ],
        },
    ];
    for case in cases {
        let schedule = RaluSchedule::new(&case.params).unwrap();
        assert_eq!(schedule.stages.len(), 3, "{}", case.name);
        assert_eq!(schedule.jumps.len(), 2, "{}", case.name);
        for (k, (stage, want)) in schedule.stages.iter().zip(case.sigmas).enumerate() {
            let label = format!("{} stage {}", case.name, k + 1);
            close(&label, &stage.sigmas, want, SIX_DIGITS);
            assert_eq!(stage.steps(), case.params.stage_steps[k], "{label}");
            assert_eq!(stage.time_shift, case.params.shifts[k], "{label}");
        }
        assert_eq!(schedule.stages[2].sigmas.last(), Some(&0.0), "{}", case.name);
        for (k, jump) in schedule.jumps.iter().enumerate() {
            let label = format!("{} jump {}", case.name, k + 1);
            let found = [jump.gain, jump.noise_gain, 1.0 - jump.noise_gain];
            let want = [case.gains[k], case.noise_gains[k], case.starts[k]];
            close(&label, &found, &want, SIX_DIGITS);
            // Printed with seven digits.
            close(&label, &[jump.kappa], &[case.kappa], 6e-8);
            let first = schedule.stages[k + 1].sigmas[0];
            close(&label, &[first], &[jump.noise_gain], 1e-15);
        }
        assert_eq!(schedule.steps(), case.params.stage_steps.iter().sum::<usize>());
    }
}

#[test]
fn flux_time_shift_follows_the_token_count() {
    let cases = [
        (256, 1.6487),
        (1024, 1.8776),
        (2304, 2.3319),
        (4096, 3.1582),
        (9216, 7.5132),
        (16384, 25.280),
    ];
    for (n_tokens, want) in cases {
        let found = FlowMatch::FLUX_DEV.time_shift(n_tokens);
        // Printed with five digits.
        assert!((found - want).abs() < 5e-5 * want, "{n_tokens}: {found}");
    }
    assert_eq!(FlowMatch::FLUX_SCHNELL.time_shift(4096), 1.0);
}

#[test]
fn plain_flux_sigmas() {
    let sigmas = FlowMatch::FLUX_DEV.sigmas(28, 4096).unwrap();
    assert_eq!(sigmas.len(), 29);
    let found = [sigmas[0], sigmas[1], sigmas[2], sigmas[26], sigmas[27]];
    let want = [1.0, 0.988409, 0.976222, 0.195455, 0.104721];
    close("28 steps at 1024 x 1024", &found, &want, SIX_DIGITS);
    assert_eq!(sigmas[28], 0.0);

    // What diffusers printed for two small pictures. It works in f32, hence 2e-7.
    let cases: [(usize, [f64; 7]); 2] = [
        (256, [1.0, 0.8918171, 0.76730347, 0.62245935, 0.45186275, 0.2479757, 0.0]),
        (252, [1.0, 0.89175177, 0.767182529, 0.62230015, 0.451695055, 0.24784945, 0.0]),
    ];
    for (n_tokens, want) in cases {
        let found = FlowMatch::FLUX_DEV.sigmas(6, n_tokens).unwrap();
        close(&format!("{n_tokens} tokens"), &found, &want, 2e-7);
    }

    let schnell = FlowMatch::FLUX_SCHNELL.sigmas(4, 4096).unwrap();
    close("schnell", &schnell, &[1.0, 0.75, 0.5, 0.25, 0.0], 1e-15);
    assert_eq!(FlowMatch::FLUX_DEV.sigmas(1, 4096).unwrap(), [1.0, 0.0]);
}

#[test]
fn sd3_sigmas_are_shifted_twice() {
    let sigmas = FlowMatch::SD3.sigmas_sd3(28, 4096).unwrap();
    assert_eq!(sigmas.len(), 29);
    let found = [sigmas[0], sigmas[1], sigmas[2], sigmas[26], sigmas[27]];
    let want = [1.0, 0.987381, 0.974108, 0.110906, 0.008929];
    close("28 steps", &found, &want, SIX_DIGITS);
    assert_eq!(sigmas[28], 0.0);
}

#[test]
fn shift_terminal_and_linear_shift() {
    let flow = FlowMatch { shift_terminal: Some(0.02), ..FlowMatch::FLUX_SCHNELL };
    // 1 - (1 - u) * 0.98 / 0.75, by hand.
    let want = [1.0, 1.0 - 0.98 / 3.0, 1.0 - 1.96 / 3.0, 0.02, 0.0];
    close("stretched", &flow.sigmas(4, 1).unwrap(), &want, 1e-12);
    // A single step at sigma 1 has nothing to stretch; the reference divides by zero here.
    assert_eq!(flow.sigmas(1, 1).unwrap(), [1.0, 0.0]);

    let linear = FlowMatch {
        dynamic: Some(DynamicShift {
            base_shift: 1.0,
            max_shift: 3.0,
            base_image_seq_len: 0.0,
            max_image_seq_len: 100.0,
            kind: ShiftKind::Linear,
        }),
        ..FlowMatch::FLUX_DEV
    };
    close("linear", &[linear.time_shift(50)], &[2.0], 1e-15);
}

#[test]
fn schedules_reject_what_they_cannot_do() {
    let steps = |found| Err(Error::Steps { what: "the run", found, max: 10_000 });
    assert_eq!(FlowMatch::FLUX_DEV.sigmas(0, 4096), steps(0));
    assert_eq!(FlowMatch::FLUX_DEV.sigmas(usize::MAX, 4096), steps(usize::MAX));
    assert_eq!(FlowMatch::SD3.sigmas_sd3(0, 4096), steps(0));
    let twice = FlowMatch {
        dynamic: FlowMatch::FLUX_DEV
            .dynamic
            .map(|d| DynamicShift { max_image_seq_len: d.base_image_seq_len, ..d }),
        ..FlowMatch::FLUX_DEV
    };
    assert!(matches!(twice.sigmas(4, 4096), Err(Error::Value { .. })));
    let message = FlowMatch::FLUX_DEV.sigmas(0, 1).unwrap_err().to_string();
    assert_eq!(
        message,
        "0 steps asked for the run, expected 1 to 10000: choose a count in that range"
    );
    assert_eq!(stage_sigmas(3.0, 0.1, 0.5, 0), [0.9]);
}

#[test]
fn a_run_without_a_mixed_stage_has_two_stages() {
    let with = |up_ratio| RaluParams { up_ratio, ..flux(Preset::X4) };
    // r = 0, r = 1, and two roundings to nothing.
    let cases = [(0.0, 1024), (1.0, 1024), (0.3, 3), (0.0009, 1024)];
    for (ratio, low_tokens) in cases {
        let schedule = with(ratio).resolve(low_tokens).unwrap();
        let label = format!("r = {ratio}, {low_tokens} tokens");
        assert_eq!(schedule.stages.len(), 2, "{label}");
        assert_eq!(schedule.jumps.len(), 1, "{label}");
        assert_eq!(schedule.stages[0].steps(), 5, "{label}");
        assert_eq!(schedule.stages[1].steps(), 6 + 7, "{label}");
        let solved = solve_least_noise(&[5, 13], &[0.3, 1.0], BASE_TIME_SHIFT).unwrap();
        assert_eq!(schedule.stages[1].time_shift, solved.shifts[1], "{label}");
        assert_eq!(schedule.stages[0].sigmas[5], 0.7, "{label}");
        close(
            &label,
            &[schedule.stages[1].sigmas[0], schedule.jumps[0].noise_gain],
            &[1.0 - ntdm::stage_start(0.3, solved.z); 2],
            1e-15,
        );
        assert_eq!(schedule.stages[1].sigmas.last(), Some(&0.0), "{label}");
    }
    // The smallest and largest number of regions that still have a mixed stage.
    assert_eq!(with(0.001).resolve(1024).unwrap().stages.len(), 3);
    assert_eq!(with(0.3).resolve_regions(64, 1).unwrap().stages.len(), 3);
    assert_eq!(with(0.3).resolve_regions(64, 63).unwrap().stages.len(), 3);
    assert_eq!(with(0.3).resolve_regions(64, 64).unwrap().stages.len(), 2);
    assert_eq!(with(0.3).resolve(1024).unwrap(), RaluSchedule::new(&with(0.3)).unwrap());
    assert!(with(f64::NAN).resolve(1024).is_err());
}
