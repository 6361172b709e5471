//! Schedules, layouts, noise, edges and regions against known answers. No GPU.
//!
//! "Section 9.x" below means a table of known answers computed from the paper's published
//! constants with another program; each is written out where it is used.

use ralu::sampling::edges::{canny, gray_u8};
use ralu::sampling::noise::philox4x32;
use ralu::sampling::ntdm::{
    self, js_distance, solve, solve_least_noise, solve_two_stage, solve_with,
};
use ralu::sampling::ralu::BASE_TIME_SHIFT;
use ralu::sampling::regions::region_count;
use ralu::sampling::{
    DynamicShift, EdgeMap, Entry, Error, FlowMatch, GrayMap, Grid, Jump, KeptNoise, MaskMode,
    Preset, RaluParams, RaluSchedule, Rules, ShiftKind, TieBreak, TokenLayout, Transition,
    Upsample, Variant, edge_density, edge_map, gradient_sum, initial_noise, jump_noise, low_noise,
    mask_regions, pack, select, select_with_mask, stage_sigmas, torch_randn, unpack,
};

// ---- schedules -------------------------------------------------------------------------------

/// The published SD3 presets, which are no [`Preset`] here as only FLUX is.
fn sd3_2x() -> RaluParams {
    let z = Some(1.0 / 0.0586f64.sqrt());
    let h = Some([6.21, 2.23, 1.97]);
    RaluParams::custom([5, 6, 9], [0.2, 0.3, 1.0], 0.3, h, z, 3.0).unwrap()
}

fn sd3_3x() -> RaluParams {
    let z = Some(1.0 / 0.0255f64.sqrt());
    let h = Some([6.40, 2.60, 2.23]);
    RaluParams::custom([3, 3, 6], [0.25, 0.3, 1.0], 0.2, h, z, 3.0).unwrap()
}

/// The tables are printed with six digits.
const SIX_DIGITS: f64 = 6e-7;

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
            params: Preset::X4.params(),
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
            params: Preset::X7.params(),
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
            params: Preset::X5.params(),
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
            params: sd3_2x(),
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
            params: sd3_3x(),
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

// ---- NT-DM -----------------------------------------------------------------------------------

fn distance_of(p: &RaluParams) -> f64 {
    js_distance(&p.stage_steps, &p.stage_ends, &p.shifts, p.z, 3.0)
}

#[test]
fn distances_at_the_published_constants() {
    let cases = [
        ("2x", Preset::X2.params(), 0.0176),
        ("3x", Preset::X3.params(), 0.0146),
        ("4x", Preset::X4.params(), 0.0175),
        ("5x", Preset::X5.params(), 0.0163),
        ("7x", Preset::X7.params(), 0.0266),
        ("SD3 2x", sd3_2x(), 0.0367),
        ("SD3 3x", sd3_3x(), 0.0214),
    ];
    for (name, params, want) in cases {
        let found = distance_of(&params);
        assert!((found - want).abs() < 1e-4, "{name}: {found}, {want} printed");
    }
}

#[test]
fn the_solver_is_no_worse_than_the_published_constants() {
    let mut cases: Vec<RaluParams> = Preset::ALL.map(Preset::params).to_vec();
    cases.extend([sd3_2x(), sd3_3x()]);
    for p in cases {
        let found = solve(p.stage_steps, p.stage_ends, 3.0).unwrap();
        let label = format!("{:?} {:?}: {found:?}", p.stage_steps, p.stage_ends);
        assert!(found.distance <= distance_of(&p) + 1e-4, "{label}");
        // The solution's own figures must agree with each other, and lie within the bounds.
        let again = js_distance(&p.stage_steps, &p.stage_ends, &found.shifts, found.z, 3.0);
        assert_eq!(again, found.distance, "{label}");
        assert!((2.0..=100.0).contains(&found.z), "{label}");
        assert!(found.shifts.iter().all(|h| (0.5..=10.0).contains(h)), "{label}");
    }
    // Where the authors' search stopped for a small custom run (distance from their numbers).
    let (n, e) = ([3, 2, 4], [0.25, 0.4, 1.0]);
    let theirs = [3.9205630720243962, 2.227565845880211, 2.869660983074041];
    let theirs = js_distance(&n, &e, &theirs, 3.247312276233748, 3.0);
    assert!(solve(n, e, 3.0).unwrap().distance <= theirs + 1e-4);
    // The least distances a log-space simplex elsewhere found, four digits.
    for (preset, least) in [(Preset::X4, 0.0169), (Preset::X5, 0.0158), (Preset::X7, 0.0263)] {
        let p = preset.params();
        let found = solve(p.stage_steps, p.stage_ends, 3.0).unwrap().distance;
        assert!(found < least + 1.5e-4, "{preset}: {found}");
    }
}

#[test]
fn the_two_stage_solver_finds_the_valley() {
    let (n, e) = ([5, 13], [0.3, 1.0]);
    let found = solve_two_stage(n, e, 3.0).unwrap();
    // A coarse search over everything; the solver must beat every point of it.
    let mut least = f64::INFINITY;
    for i in 0..20 {
        for j in 0..20 {
            for k in 0..20 {
                let h = |i: i32| 0.5 * 20f64.powf(f64::from(i) / 19.0);
                let z = 2.0 * 50f64.powf(f64::from(k) / 19.0);
                least = least.min(js_distance(&n, &e, &[h(i), h(j)], z, 3.0));
            }
        }
    }
    assert!(found.distance <= least, "{found:?}, grid {least}");
    assert!(least < 0.1, "the grid itself makes no sense: {least}");
}

#[test]
fn least_noise_stops_at_the_good_distance() {
    // The least distance of two stages lies at the bound of Z; .03 is reached near the published
    // Z of three stages.
    assert!(solve_two_stage([5, 13], [0.3, 1.0], 3.0).unwrap().z > 50.0);
    for (n, e, z) in [([5, 13], [0.3, 1.0], 6.5), ([2, 8], [0.2, 1.0], 5.9)] {
        let found = solve_least_noise(n, e, 3.0).unwrap();
        assert!(found.distance <= 0.03, "{found:?}");
        assert!((found.z - z).abs() < 0.25, "{found:?}");
        let less = solve_with(n, e, 3.0, None, Some(0.98 * found.z)).unwrap();
        assert!(less.distance > 0.03, "{less:?}");
    }
    // Printed for three stages, 4x: .0404 at Z = 3, .0253 at Z = 4.
    let found = solve_least_noise([5, 6, 7], [0.3, 0.45, 1.0], 3.0).unwrap();
    assert!(3.0 < found.z && found.z < 4.0, "{found:?}");
    // Never that good: the least distance it is.
    let (n, e) = ([5, 6, 9], [0.2, 0.3, 1.0]);
    assert_eq!(solve_least_noise(n, e, 3.0), solve(n, e, 3.0));
}

#[test]
fn what_is_given_is_kept_and_the_rest_solved() {
    let (n, e) = ([5, 6, 7], [0.3, 0.45, 1.0]);
    // Best shifts at Z = 4 as printed; the distance there is .0253.
    let p = RaluParams::custom(n, e, 0.3, None, Some(4.0), 3.0).unwrap();
    assert_eq!(p.z, 4.0);
    assert!(distance_of(&p) < 0.0253 + 1e-4, "{p:?}");
    close("h at Z = 4", &p.shifts, &[5.926, 3.037, 2.527], 0.05);
    let h = [5.019, 2.589, 2.226];
    let p = RaluParams::custom(n, e, 0.3, Some(h), None, 3.0).unwrap();
    assert_eq!(p.shifts, h);
    // The published Z is near the best for the published shifts.
    assert!(distance_of(&p) <= 0.0175 + 1e-4, "{p:?}");
    // Nothing left to solve.
    let all = solve_with(n, e, 3.0, Some(h), Some(6.317)).unwrap();
    assert_eq!((all.shifts, all.z), (h, 6.317));
}

#[test]
fn custom_runs_are_checked() {
    let ok = ([5, 6, 7], [0.3, 0.45, 1.0], 0.3);
    let make = |n, e, r, h, z, h_ori| RaluParams::custom(n, e, r, h, z, h_ori);
    let shifts = Some([3.0; 3]);
    assert!(make(ok.0, ok.1, ok.2, shifts, Some(4.0), 3.0).is_ok());

    assert_eq!(
        make([5, 0, 7], ok.1, ok.2, None, None, 3.0),
        Err(Error::Steps { what: "stage 2", found: 0, max: 10_000 })
    );
    for ends in [
        [0.45, 0.3, 1.0],
        [0.3, 0.3, 1.0],
        [0.0, 0.45, 1.0],
        [0.3, 0.45, 0.9],
        [0.3, 1.0, 1.0],
        [0.3, f64::NAN, 1.0],
    ] {
        let found = make(ok.0, ends, ok.2, None, None, 3.0);
        assert!(matches!(found, Err(Error::StageEnds { .. })), "{ends:?}");
    }
    for ratio in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        let found = make(ok.0, ok.1, ratio, None, None, 3.0);
        assert!(matches!(found, Err(Error::Value { .. })), "ratio {ratio}");
    }
    for z in [1.99, -3.0, f64::NAN, f64::INFINITY] {
        let found = make(ok.0, ok.1, ok.2, None, Some(z), 3.0);
        assert!(matches!(found, Err(Error::Value { .. })), "Z {z}");
    }
    for h in [0.0, -1.0, f64::NAN] {
        let found = make(ok.0, ok.1, ok.2, Some([3.0, h, 3.0]), None, 3.0);
        assert!(matches!(found, Err(Error::Value { .. })), "h {h}");
        let found = make(ok.0, ok.1, ok.2, None, None, h);
        assert!(matches!(found, Err(Error::Value { .. })), "h_ori {h}");
    }
}

#[test]
fn presets_and_variants_have_names() {
    for preset in Preset::ALL {
        assert_eq!(preset.to_string().parse(), Ok(preset));
        preset.params().validate().unwrap();
    }
    assert_eq!("4X".parse(), Ok(Preset::X4));
    let message = "6x".parse::<Preset>().unwrap_err().to_string();
    assert_eq!(message, "'6x' is not a known preset, expected one of 2x, 3x, 4x, 5x, 7x");
    assert_eq!("official".parse(), Ok(Variant::Official));
    assert_eq!(Variant::default(), Variant::Exact);
    assert_eq!(
        Rules::from(Variant::Official),
        Rules {
            kept_noise: KeptNoise::Official,
            gray_map: GrayMap::Official,
            upsample: Upsample::Token,
            tie_break: TieBreak::Index,
        }
    );
    assert_eq!(
        Rules::default(),
        Rules {
            kept_noise: KeptNoise::Exact,
            gray_map: GrayMap::Fixed,
            upsample: Upsample::Token,
            tie_break: TieBreak::Gradient,
        }
    );
}

// ---- collapse --------------------------------------------------------------------------------

#[test]
fn a_run_without_a_mixed_stage_has_two_stages() {
    let with = |up_ratio| RaluParams { up_ratio, ..Preset::X4.params() };
    // r = 0, r = 1, and two roundings to nothing.
    let cases = [(0.0, 1024), (1.0, 1024), (0.3, 3), (0.0009, 1024)];
    for (ratio, low_tokens) in cases {
        let schedule = with(ratio).resolve(low_tokens).unwrap();
        let label = format!("r = {ratio}, {low_tokens} tokens");
        assert_eq!(schedule.stages.len(), 2, "{label}");
        assert_eq!(schedule.jumps.len(), 1, "{label}");
        assert_eq!(schedule.stages[0].steps(), 5, "{label}");
        assert_eq!(schedule.stages[1].steps(), 6 + 7, "{label}");
        let solved = solve_least_noise([5, 13], [0.3, 1.0], BASE_TIME_SHIFT).unwrap();
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

// ---- layouts ---------------------------------------------------------------------------------

#[test]
fn sequence_bookkeeping_on_two_by_two() {
    let grid = Grid { rows: 2, cols: 2 };
    let mixed = TokenLayout::mixed(grid, &[3]).unwrap();
    let want = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.5], [1.5, 1.0], [1.5, 1.5]];
    assert_eq!(mixed.positions(), want);
    let fine: Vec<bool> = mixed.tokens.iter().map(|t| t.fine).collect();
    assert_eq!(fine, [false, false, false, true, true, true, true]);

    let to_mixed = Transition::to_mixed(grid, &[3]).unwrap();
    let from: Vec<_> = to_mixed.entries.iter().map(|e| (e.src, e.child)).collect();
    let children = |src| [0, 1, 2, 3].map(|c| (src, Some(c)));
    assert_eq!(from[..3], [0, 1, 2].map(|i| (i, None)));
    assert_eq!(from[3..], children(3));

    let to_full = Transition::mixed_to_full(grid, &[3]).unwrap();
    let at: Vec<_> = to_full.entries.iter().map(|e| (e.full_row, e.full_col)).collect();
    #[rustfmt::skip]
    let want = [
        (0, 0), (0, 1), (1, 0), (1, 1),
        (0, 2), (0, 3), (1, 2), (1, 3),
        (2, 0), (2, 1), (3, 0), (3, 1),
        (2, 2), (2, 3), (3, 2), (3, 3),
    ];
    assert_eq!(at, want);
    let from: Vec<_> = to_full.entries.iter().map(|e| (e.src, e.child)).collect();
    assert_eq!(from[4..8], children(1));
    assert_eq!(from[12..], [3, 4, 5, 6].map(|i| (i, None)));

    #[rustfmt::skip]
    let order = [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15];
    assert_eq!(to_full.sort_permutation(), order);
    let raster: Vec<[f32; 2]> =
        to_full.raster().entries.iter().map(|e| [e.full_row as f32, e.full_col as f32]).collect();
    let full = TokenLayout::full(grid).unwrap();
    assert_eq!(raster, full.positions());
    assert_eq!(full.positions()[5], [1.0, 1.0]);
    assert_eq!(full.n_tokens(), 16);
}

#[test]
fn layouts_of_other_shapes() {
    let grid = Grid { rows: 3, cols: 5 };
    let low = TokenLayout::low(grid).unwrap();
    assert_eq!(low.n_tokens(), 15);
    assert_eq!(low.positions()[7], [1.0, 2.0]);
    for selected in [&[][..], &[0], &[2, 7, 14], &(0..15).collect::<Vec<_>>()] {
        let mixed = TokenLayout::mixed(grid, selected).unwrap();
        assert_eq!(mixed.n_tokens(), 15 + 3 * selected.len());
        let raster = Transition::mixed_to_full(grid, selected).unwrap().raster();
        let full = TokenLayout::full(grid).unwrap();
        let found: Vec<_> = raster.entries.iter().map(|e| (e.full_row, e.full_col)).collect();
        let want: Vec<_> = full.tokens.iter().map(|t| (t.full_row, t.full_col)).collect();
        assert_eq!(found, want, "{selected:?}");
        // Every fine token comes from the mixed token that covers it.
        for entry in &raster.entries {
            let from = mixed.tokens[entry.src as usize];
            let unit = if from.fine { 1 } else { 2 };
            assert_eq!(from.fine, entry.child.is_none());
            assert_eq!(entry.full_row / unit, from.full_row / unit);
            assert_eq!(entry.full_col / unit, from.full_col / unit);
        }
    }
    let direct = Transition::low_to_full(grid).unwrap();
    assert_eq!(direct.n_tokens(), 60);
    assert_eq!(direct.entries[13], Entry { src: 1, child: Some(3), full_row: 1, full_col: 3 });
}

#[test]
fn layouts_reject_what_is_no_selection() {
    let grid = Grid { rows: 2, cols: 2 };
    for (selected, place, found) in [(&[1, 1][..], 1, 1), (&[2, 0], 1, 0), (&[4], 0, 4)] {
        let want = Err(Error::Selection { place, found, n_tokens: 4 });
        assert_eq!(Transition::to_mixed(grid, selected), want);
        assert_eq!(Transition::mixed_to_full(grid, selected), want);
    }
    let none = Grid { rows: 0, cols: 4 };
    assert!(TokenLayout::low(none).is_err());
    let huge = Grid { rows: usize::MAX, cols: 2 };
    assert!(TokenLayout::full(huge).is_err());
    assert_eq!(
        Grid::of_image(1000, 520).unwrap_err().to_string(),
        "the picture is 1000 x 520 pixels, expected sides that are multiples of 32 and above 0: \
         use 992 x 512 instead"
    );
    assert!(Grid::of_image(0, 32).is_err());
    assert!(Grid::of_image(usize::MAX - 31, 32).is_err());
    let grid = Grid::of_image(224, 288).unwrap();
    assert_eq!((grid.rows, grid.cols), (9, 7));
    let to_mixed = Transition::to_mixed(grid, &[3]).unwrap();
    assert!(to_mixed.gather(&[0.0; 64], Upsample::Token).is_err());
    assert!(to_mixed.sort_rows(&[0.0; 64]).is_err());
}

#[test]
fn the_two_upsampling_rules() {
    // One coarse token whose channel 0 patch is [1 2; 3 4], channel 1 [5 6; 7 8], ...
    let grid = Grid { rows: 1, cols: 1 };
    let token: Vec<f32> = (1..=64).map(|v| v as f32).collect();
    let up = Transition::low_to_full(grid).unwrap();

    let tiled = up.gather(&token, Upsample::Token).unwrap();
    assert_eq!(tiled, [&token[..]; 4].concat());
    // As latent pixels: the tile repeats.
    let latent = unpack(&tiled, 4, 4).unwrap();
    assert_eq!(latent[..8], [1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0]);

    let latent = unpack(&up.gather(&token, Upsample::Latent).unwrap(), 4, 4).unwrap();
    #[rustfmt::skip]
    let want = [
        1.0, 1.0, 2.0, 2.0,
        1.0, 1.0, 2.0, 2.0,
        3.0, 3.0, 4.0, 4.0,
        3.0, 3.0, 4.0, 4.0,
    ];
    assert_eq!(latent[..16], want);
    assert_eq!(latent[16..20], [5.0, 5.0, 6.0, 6.0]);
}

#[test]
fn packing() {
    let (h, w) = (4, 6);
    let latent: Vec<f32> = (0..16 * h * w).map(|v| v as f32).collect();
    let tokens = pack(&latent, h, w).unwrap();
    // Token (1, 2), channel 3, patch place (1, 0) is latent pixel (3, 4).
    assert_eq!(tokens[5 * 64 + 3 * 4 + 2], (3 * h * w + 3 * w + 4) as f32);
    assert_eq!(unpack(&tokens, h, w).unwrap(), latent);
    let low = low_noise(&latent, h, w).unwrap();
    assert_eq!(low.len(), 16 * 2 * 3);
    assert_eq!(low[..6], [0.0, 2.0, 4.0, 12.0, 14.0, 16.0]);
    assert!(pack(&latent, 3, 8).is_err());
    assert!(low_noise(&latent, h, w + 2).is_err());
    assert!(unpack(&[], 0, 0).is_err());
}

// ---- noise -----------------------------------------------------------------------------------

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
    let noise = initial_noise(seed, h, w);
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
        let z = jump_noise(seed, 1, &to_mixed, -0.0128607, 1.0, rule);
        close32("refined", &[z[6 * 64 + 37]], &[want], ulp);
    }
    let everything = Transition::mixed_to_full(grid, &[0, 1, 2, 3, 4, 5]).unwrap();
    let z = jump_noise(seed, 2, &everything.raster(), -0.2, 0.5, Upsample::Token);
    let kept = z[(3 * 6 + 1) * 64 + 63];
    close32("kept", &[kept], &[-0.162_175_58], ulp);
}

#[test]
fn noise_depends_on_the_place_alone() {
    let small = initial_noise(5, 4, 6);
    let large = initial_noise(5, 10, 8);
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
    assert_ne!(initial_noise(6, 4, 6), small);
    // The upper half of the seed counts too.
    assert_ne!(initial_noise(5 + (1 << 32), 4, 6), small);

    let grid = Grid { rows: 3, cols: 4 };
    let unsorted = Transition::mixed_to_full(grid, &[1, 4, 9]).unwrap();
    for rule in [Upsample::Token, Upsample::Latent] {
        let noise = |t: &Transition, jump| jump_noise(7, jump, t, -0.1, 0.9, rule);
        let sorted = unsorted.sort_rows(&noise(&unsorted, 2)).unwrap();
        assert_eq!(sorted, noise(&unsorted.raster(), 2));
        assert_ne!(sorted, noise(&unsorted.raster(), 1));
    }
}

#[test]
fn initial_noise_is_standard_normal() {
    let noise = initial_noise(1, 64, 64); // 65,536 numbers
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
    let old = pack(&initial_noise(3, 160, 160), 160, 160).unwrap();
    let old: Vec<f32> = old.iter().map(|x| 0.7 * x).collect();
    for rule in [Upsample::Token, Upsample::Latent] {
        let z = jump_noise(3, 1, &up, jump.kappa, 1.0, rule);
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
    let z = jump_noise(9, 1, &up, jump.kappa, 1.0, Upsample::Token);
    for family in z.chunks_exact(4 * 64) {
        for i in 0..64 {
            let sum: f32 = family.iter().skip(i).step_by(64).sum();
            assert!(sum.abs() < 2e-6, "{sum}"); // four f32 roundings of numbers up to 6
        }
    }
    let z = jump_noise(9, 1, &up, jump.kappa, 1.0, Upsample::Latent);
    for patch in z.chunks_exact(4) {
        assert!(patch.iter().sum::<f32>().abs() < 2e-6);
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
    let text = include_str!("fixtures/sampling/torch_randn.json");
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

// ---- edges -----------------------------------------------------------------------------------

fn check_edges(name: &str, gray: &[u8], side: usize, want: (usize, usize), blocks: &[u32]) {
    let map = canny(gray, side, side).unwrap();
    let places: usize =
        map.edges.iter().enumerate().filter(|(_, e)| **e == 1).map(|(i, _)| i).sum();
    assert_eq!((map.count(), places), want, "{name}");
    let grid = Grid { rows: side / 16, cols: side / 16 };
    let density = edge_density(&map, grid).unwrap();
    assert_eq!(density.iter().sum::<u32>() as usize, want.0, "{name}");
    if !blocks.is_empty() {
        assert_eq!(density, blocks, "{name}");
    }
}

/// Counts, index sums and block counts are those of OpenCV's `Canny(gray, 100, 200)`.
#[test]
fn canny_as_opencv_has_it() {
    let picture = |side: i32, f: &dyn Fn(i32, i32) -> u8| -> Vec<u8> {
        (0..side * side).map(|i| f(i % side, i / side)).collect()
    };
    let disc = picture(32, &|x, y| {
        if (x - 16).pow(2) + (y - 16).pow(2) < 100 { 255 } else { 20 }
    });
    check_edges("disc", &disc, 32, (64, 33561), &[15, 16, 16, 17]);

    let stripes = picture(32, &|x, y| ((37 * x + 61 * y) % 256) as u8);
    check_edges("stripes", &stripes, 32, (436, 222856), &[111, 107, 111, 107]);

    // A linear congruential generator, its upper bits in raster order.
    let mut state = 1u32;
    let noise: Vec<u8> = (0..512 * 512)
        .map(|_| {
            state = state.wrapping_mul(1_103_515_245).wrapping_add(12345) & 0x7FFF_FFFF;
            (state >> 16) as u8
        })
        .collect();
    // 5 x 5 box with replicated border, rounded down.
    let blur = |side: i32| {
        picture(side, &|x, y| {
            let mut sum = 0;
            for dy in -2..=2 {
                for dx in -2..=2 {
                    let (x, y) = ((x + dx).clamp(0, side - 1), (y + dy).clamp(0, side - 1));
                    sum += u32::from(noise[(y * side + x) as usize]);
                }
            }
            (sum / 25) as u8
        })
    };
    check_edges("noise", &noise[..64 * 64], 64, (1587, 3270798), &[]);
    // Large enough for each of the fixed-point tangents to decide somewhere.
    check_edges("large noise", &noise, 512, (96563, 12663741875), &[]);
    check_edges("large blur", &blur(512), 512, (15489, 2043704559), &[]);

    #[rustfmt::skip]
    let blocks = [
        40, 15, 0, 16,
        11, 21, 11, 0,
        22, 4, 0, 0,
        0, 22, 0, 15,
    ];
    check_edges("blurred noise", &blur(64), 64, (177, 297518), &blocks);
}

#[test]
fn a_weak_edge_needs_a_strong_one() {
    // A step whose gradient is 4 * 40 = 160, between the thresholds, ...
    let step = |height: usize, at: usize| -> Vec<u8> {
        (0..height * 32)
            .map(|i| {
                if i % 32 < 16 {
                    0
                } else if i / 32 < at {
                    60
                } else {
                    40
                }
            })
            .collect()
    };
    assert_eq!(canny(&step(32, 0), 32, 32).unwrap().count(), 0);
    // ... and the same line continued by one of 4 * 60 = 240, which it touches.
    let map = canny(&step(32, 16), 32, 32).unwrap();
    assert_eq!(map.count(), 32);
    assert_eq!(map.gradient[31 * 32 + 16], 160);
    let grid = Grid { rows: 2, cols: 2 };
    let score = gradient_sum(&map, grid).unwrap();
    // Two columns per row are not flat; the row where the halves meet differs a little.
    assert!(score[0] > score[2] && score[2] > 16.0 * 160.0 * 0.9);
}

#[test]
fn grey_maps() {
    // One pixel of each: black, mid grey, white, out of range, not a number.
    let levels = [-1.0, 0.0, 1.0, 7.0, f32::NAN];
    let image = [levels, levels, levels].concat();
    let gray = |map| gray_u8(&image, 5, 1, map).unwrap();
    assert_eq!(gray(GrayMap::Official), [0, 0, 255, 255, 0]);
    assert_eq!(gray(GrayMap::Fixed), [0, 127, 255, 255, 0]);
    // 0.299 R, 0.587 G, 0.114 B, times 255, cut.
    let primaries = [
        1.0, 0.0, 0.0, //
        0.0, 1.0, 0.0, //
        0.0, 0.0, 1.0,
    ];
    let gray = gray_u8(&primaries, 3, 1, GrayMap::Official).unwrap();
    assert_eq!(gray, [76, 149, 29]);
}

/// The official map turns the darker half black, so a dark picture has edges only when fixed.
#[test]
fn dark_edges_need_the_fixed_grey_map() {
    let plane: Vec<f32> = (0..32 * 32).map(|i| if i % 32 < 16 { -1.0 } else { -0.1 }).collect();
    let image = [&plane[..]; 3].concat();
    let count = |map| edge_map(&image, 32, 32, map).unwrap().count();
    assert_eq!(count(GrayMap::Official), 0);
    assert_eq!(count(GrayMap::Fixed), 32);
}

#[test]
fn edges_reject_wrong_sizes() {
    assert!(gray_u8(&[0.0; 5], 2, 1, GrayMap::Fixed).is_err());
    assert!(canny(&[0; 5], 2, 2).is_err());
    assert!(canny(&[], usize::MAX, 2).is_err());
    // An empty picture is no mistake here; a grid can never match it.
    let empty = canny(&[], 0, 0).unwrap();
    let grid = Grid { rows: 1, cols: 1 };
    assert!(matches!(edge_density(&empty, grid), Err(Error::PictureGrid { .. })));
    let broken = EdgeMap { width: 16, height: 16, edges: vec![0; 3], gradient: vec![0; 256] };
    assert!(edge_density(&broken, grid).is_err());
    assert!(gradient_sum(&broken, grid).is_err());
}

// ---- regions ---------------------------------------------------------------------------------

#[test]
fn regions_of_the_authors_code() {
    let text = include_str!("fixtures/sampling/regions.json");
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
        assert_eq!(select(&density, &[], want.len()), want, "{name}");
        let least = want.iter().map(|&i| density[i as usize]).min().unwrap();
        boundary_ties +=
            (0..).zip(&density).filter(|(i, d)| **d == least && !want.contains(i)).count();
    }
    // The second case is decided by the index, so the tie rule is really tested.
    assert!(boundary_ties > 0);
}

#[test]
fn ties_are_broken_by_gradient_then_index() {
    let density = [3, 5, 3, 3, 0];
    assert_eq!(select(&density, &[], 2), [0, 1]);
    assert_eq!(select(&density, &[1.0, 0.0, 2.0, 2.0, 9.0], 2), [1, 2]);
    assert_eq!(select(&density, &[1.0, 0.0, 2.0, 2.5, 9.0], 3), [1, 2, 3]);
    assert_eq!(select(&[0; 6], &[], 3), [0, 1, 2]);
    assert_eq!(select(&density, &[], 99), [0, 1, 2, 3, 4]);
    assert!(select(&density, &[], 0).is_empty());
    assert!(select(&[], &[], 4).is_empty());
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

    let density = [0, 9, 0, 0, 8, 7];
    let add = select_with_mask(MaskMode::Add, &shares, &density, &[], 2);
    assert_eq!(add, [0, 1, 4]);
    let replace = select_with_mask(MaskMode::Replace, &shares, &density, &[], 2);
    assert_eq!(replace, [0, 4]);

    // A mask whose pixels do not line up with the tokens: 2 pixels over 3 columns.
    let shares = mask_regions(&[255, 0], 2, 1, Grid { rows: 1, cols: 3 }).unwrap();
    close32("cut", &shares, &[1.0, 0.5, 0.0], 1e-7);
    // A single pixel paints everything.
    assert_eq!(mask_regions(&[255], 1, 1, grid).unwrap(), [1.0; 6]);
    assert!(mask_regions(&[], 0, 0, grid).is_err());
    assert!(mask_regions(&[0; 5], 2, 3, grid).is_err());
}

// ---- the whole run, with an oracle for a network ---------------------------------------------

/// Velocity of a network that knows the answer: every picture is the constant `C` per channel.
fn oracle(i: usize) -> f32 {
    (i % 64) as f32 * 0.05 - 1.6
}

fn euler(x: &mut [f32], sigmas: &[f64]) {
    for pair in sigmas.windows(2) {
        for (i, x) in x.iter_mut().enumerate() {
            let velocity = (*x - oracle(i)) / pair[0] as f32;
            *x += (pair[1] - pair[0]) as f32 * velocity;
        }
    }
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
    let mut checked = [0; 3];
    for preset in Preset::ALL {
        for grid in [Grid { rows: 8, cols: 8 }, Grid { rows: 24, cols: 40 }] {
            for (ratio, seed) in [(None, 1), (Some(0.0), 2), (Some(0.5), 3), (Some(1.0), 4)] {
                for (kept, rule) in
                    [(KeptNoise::Exact, Upsample::Token), (KeptNoise::Official, Upsample::Latent)]
                {
                    // The small grid does all combinations, the large one each preset once.
                    if grid.rows != 8 && (ratio.is_some() || rule == Upsample::Latent) {
                        continue;
                    }
                    let mut params = preset.params();
                    params.up_ratio = ratio.unwrap_or(params.up_ratio);
                    run_oracle(&params, grid, seed, kept, rule, &mut checked);
                }
            }
        }
    }
    // Two-stage and three-stage runs, and kept tokens under both rules, have all occurred.
    assert!(checked.iter().all(|n| *n > 0), "{checked:?}");
}

fn run_oracle(
    params: &RaluParams,
    grid: Grid,
    seed: u64,
    kept: KeptNoise,
    rule: Upsample,
    checked: &mut [usize; 3],
) {
    let label = format!("{params:?} {grid:?} {kept:?} {rule:?}");
    let schedule = params.resolve(grid.n_tokens()).unwrap();
    let (height, width) = (4 * grid.rows, 4 * grid.cols);
    let full = initial_noise(seed, height, width);
    let low = low_noise(&full, height, width).unwrap();
    let mut x = pack(&low, height / 2, width / 2).unwrap();

    // Any regions will do; every third token or so, as many as the ratio says.
    let k = params.region_count(grid.n_tokens());
    let density: Vec<u32> = (0..grid.n_tokens() as u32).map(|i| i * 7 % 13).collect();
    let selected = select(&density, &[], k);
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

    for (number, stage) in schedule.stages.iter().enumerate() {
        if number > 0 {
            let (jump, transition) = (&schedule.jumps[number - 1], &transitions[number - 1]);
            let up = transition.gather(&x, rule).unwrap();
            let amplitude = jump.kept_amplitude(kept);
            let z = jump_noise(seed, number as u32, transition, jump.kappa, amplitude, rule);
            x = jump.renoise(&up, &z);

            let sigma = stage.sigmas[0];
            let refined = |want: bool| {
                let entries = transition.entries.iter().enumerate();
                entries.filter_map(move |(i, e)| (e.child.is_some() == want).then_some(i))
            };
            // Kept tokens of the official rule are too noisy by 1 + c.
            let excess = match kept {
                KeptNoise::Exact => 1.0,
                KeptNoise::Official => 1.0 + jump.c,
            };
            for (want, tokens) in [(1.0, refined(true)), (excess, refined(false))] {
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
        euler(&mut x, &stage.sigmas);
    }
    assert_eq!(x.len(), grid.n_full_tokens() * 64, "{label}");
    for (i, found) in x.iter().enumerate() {
        // The last step subtracts the whole remaining noise; what is left is its f32 rounding.
        let error = (found - oracle(i)).abs();
        assert!(error < 2e-6, "{label}, value {i}: off by {error}");
    }
}

// ---- helpers ---------------------------------------------------------------------------------

#[track_caller]
fn close(label: &str, found: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(found.len(), want.len(), "{label}: {found:?}");
    for (i, (f, w)) in found.iter().zip(want).enumerate() {
        let off = (f - w).abs();
        // Not `off > tolerance`: a NaN must fail.
        assert!(off <= tolerance, "{label}, value {i}: {f}, expected {w} +- {tolerance}");
    }
}

#[track_caller]
fn close32(label: &str, found: &[f32], want: &[f32], tolerance: f32) {
    let wide = |v: &[f32]| v.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
    close(label, &wide(found), &wide(want), f64::from(tolerance));
}
