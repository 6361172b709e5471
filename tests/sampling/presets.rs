//! Tables of presets, rules and their names.

use super::{all_presets, close, distance_of, flux};
use ralu::models::{flux1, sd3 as sd3_family};
use ralu::names::UnknownName;
use ralu::sampling::ntdm::{self, solve, solve_with};
use ralu::sampling::{
    DISTILLED_PRESETS, GrayMap, JumpNoise, KeptNoise, Preset, PresetTable, RaluSchedule,
    RegionScore, RopeMode, RuleOverrides, Rules, TieBreak, Upsample, Variant, ZPolicy,
};

#[test]
fn families_have_their_presets() {
    use Preset::{Distilled, X2, X3, X4, X5, X7};
    let cases: [(&PresetTable, _, _); 3] = [
        (&flux1::PRESETS, vec![X2, X3, X4, X5, X7], X4),
        (&sd3_family::PRESETS, vec![X2, X3], X2),
        (&DISTILLED_PRESETS, vec![Distilled], Distilled),
    ];
    for (table, presets, default) in cases {
        let models = table.models;
        assert_eq!(table.presets(), presets, "{models}");
        assert_eq!(table.default, default, "{models}");
        assert!(presets.contains(&default), "{models}");
        for preset in Preset::ALL {
            let found = table.params(preset, 3.0);
            assert_eq!(found.is_ok(), presets.contains(&preset), "{models} {preset}");
        }
    }
    let message = sd3_family::PRESETS.params(X7, 3.0).unwrap_err().to_string();
    assert_eq!(
        message,
        "no preset 7x is made for Stable Diffusion 3 models, expected one of 2x, 3x: choose one of \
         these, or give numbers of your own (custom)"
    );
    let message = flux1::PRESETS.params(Distilled, 1.0).unwrap_err().to_string();
    assert!(message.contains("expected one of 2x, 3x, 4x, 5x, 7x:"), "{message}");
    let message = DISTILLED_PRESETS.params(X4, 3.0).unwrap_err().to_string();
    assert!(message.contains("expected one of distilled:"), "{message}");
}

#[test]
fn every_preset_is_a_run() {
    let presets = all_presets();
    assert_eq!(presets.len(), 5 + 2 + 2);
    for (family, preset, params) in presets {
        let label = format!("{family} {preset} {params:?}");
        params.validate().unwrap();
        // A mixed stage at every usual size, 512 x 512 to 2048 x 2048.
        for low_tokens in [256, 1024, 4096] {
            let k = params.region_count(low_tokens);
            assert!(0 < k && k < low_tokens, "{label}: {k}");
            assert_eq!(params.resolve(low_tokens).unwrap().stages.len(), 3, "{label}");
        }
        let schedule = RaluSchedule::new(&params).unwrap();
        assert_eq!(schedule.stages[0].sigmas[0], 1.0, "{label}");
        for stage in &schedule.stages {
            assert!(stage.sigmas.is_sorted_by(|a, b| a > b), "{label}: {stage:?}");
        }
        for (pair, jump) in schedule.stages.windows(2).zip(&schedule.jumps) {
            let (end, start) = (pair[0].sigmas.last().unwrap(), pair[1].sigmas[0]);
            assert!(*end < start && start < 1.0, "{label}: {end}, {start}");
            // Above 1/4 the covariance of the noise would not be positive.
            assert!(0.0 < jump.c && jump.c <= 0.25, "{label}: {jump:?}");
        }
    }
}

#[test]
fn presets_of_distilled_models_follow_the_base_time_shift() {
    let params = |base| DISTILLED_PRESETS.params(Preset::Distilled, base).unwrap();
    let (turbo, schnell) = (params(3.0), params(1.0));
    assert_eq!((&turbo.shifts[..], turbo.z), (&[4.598, 2.283, 2.612][..], 38.4));
    assert_eq!((&schnell.shifts[..], schnell.z), (&[1.008, 0.568, 0.864][..], 2.0));
    assert_eq!((turbo.base_time_shift, schnell.base_time_shift), (3.0, 1.0));
    assert_eq!((params(3.158), params(0.5)), (turbo.clone(), schnell.clone()));
    for p in [&turbo, &schnell] {
        assert_eq!(p.stage_steps, [1, 1, 2]);
        assert_eq!(p.stage_ends, [0.3, 0.45, 1.0]);
        assert_eq!(p.up_ratio, 0.3);
        // Best for their Z, to the digits printed.
        let best = solve_with(&p.stage_steps, &p.stage_ends, p.base_time_shift, None, Some(p.z));
        assert!(distance_of(p) < best.unwrap().distance + 1e-5, "{p:?}");
    }
    // The figures next to the rows, printed with four digits. The optimum has hardly anything of
    // the coarse stage left, which is why the rows are not it.
    for (p, published, least) in [(&turbo, 0.0058, 0.0056), (&schnell, 0.0267, 0.0217)] {
        let best = solve(&p.stage_steps, &p.stage_ends, p.base_time_shift).unwrap();
        close("distances", &[distance_of(p), best.distance], &[published, least], 5e-5);
        assert!(best.z > 50.0 && ntdm::stage_start(0.45, best.z) < 0.02, "{best:?}");
    }
    // "stage 3 restarts at about .98"
    let restart = RaluSchedule::new(&turbo).unwrap().stages[2].sigmas[0];
    assert!((restart - 0.98).abs() < 5e-3, "{restart}");
}

#[test]
fn rules_have_names() {
    fn check<T>(names: &[(&str, T)], what: &str)
    where
        T: std::str::FromStr<Err = UnknownName> + std::fmt::Display + std::fmt::Debug + PartialEq,
    {
        for (name, value) in names {
            assert_eq!(value.to_string(), *name);
            assert_eq!(name.parse::<T>().as_ref(), Ok(value));
            assert_eq!(name.to_uppercase().parse::<T>().as_ref(), Ok(value));
        }
        let message = "nonsense".parse::<T>().unwrap_err().to_string();
        let expected: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        let expected = expected.join(", ");
        assert_eq!(
            message,
            format!("'nonsense' is not a known {what}, expected one of {expected}")
        );
    }
    check(&[("official", Variant::Official), ("exact", Variant::Exact)], "variant");
    check(&[("token", Upsample::Token), ("latent", Upsample::Latent)], "upsampling");
    check(&[("official", RopeMode::Official), ("crpa", RopeMode::Crpa)], "rope mode");
    let scores = [
        ("edges", RegionScore::Edges),
        ("latent-gradient", RegionScore::LatentGradient),
        ("variance", RegionScore::Variance),
    ];
    check(&scores, "region score");
    check(&[("fresh", JumpNoise::Fresh), ("bound", JumpNoise::Bound)], "jump noise");

    for policy in [ZPolicy::Published, ZPolicy::MinNoise, ZPolicy::Fixed(4.0), ZPolicy::Fixed(2.5)]
    {
        assert_eq!(policy.to_string().parse(), Ok(policy));
    }
    assert_eq!(ZPolicy::Fixed(4.0).to_string(), "fixed=4");
    assert_eq!("min_noise".parse(), Ok(ZPolicy::MinNoise));
    for text in ["fixed", "fixed=", "fixed=four", "4", "min", ""] {
        let message = text.parse::<ZPolicy>().unwrap_err().to_string();
        assert!(message.contains("published, min-noise, fixed=NUMBER"), "{message}");
    }
}

#[test]
fn overrides_change_what_they_name() {
    for variant in [Variant::Official, Variant::Exact] {
        let rules = variant.rules();
        assert_eq!(RuleOverrides::default().apply(rules), rules);
        let none = RuleOverrides::default();
        let other_noise = match rules.jump_noise {
            JumpNoise::Fresh => JumpNoise::Bound,
            JumpNoise::Bound => JumpNoise::Fresh,
        };
        let cases = [
            (
                RuleOverrides { upsample: Some(Upsample::Latent), ..none },
                Rules { upsample: Upsample::Latent, ..rules },
            ),
            (
                RuleOverrides { rope_mode: Some(RopeMode::Crpa), ..none },
                Rules { rope_mode: RopeMode::Crpa, ..rules },
            ),
            (
                RuleOverrides { region_score: Some(RegionScore::Variance), ..none },
                Rules { region_score: RegionScore::Variance, ..rules },
            ),
            (
                RuleOverrides { jump_noise: Some(other_noise), ..none },
                Rules { jump_noise: other_noise, ..rules },
            ),
        ];
        for (overrides, want) in cases {
            assert_eq!(overrides.apply(rules), want);
            assert_ne!(want, rules);
        }
    }
}

#[test]
fn presets_and_variants_have_names() {
    for preset in Preset::ALL {
        assert_eq!(preset.to_string().parse(), Ok(preset));
        flux(preset).validate().unwrap();
    }
    assert_eq!("4X".parse(), Ok(Preset::X4));
    let message = "6x".parse::<Preset>().unwrap_err().to_string();
    assert_eq!(
        message,
        "'6x' is not a known preset, expected one of 2x, 3x, 4x, 5x, 7x, distilled"
    );
    assert_eq!("official".parse(), Ok(Variant::Official));
    assert_eq!(Variant::default(), Variant::Exact);
    assert_eq!(
        Rules::from(Variant::Official),
        Rules {
            kept_noise: KeptNoise::Official,
            gray_map: GrayMap::Official,
            upsample: Upsample::Token,
            tie_break: TieBreak::Index,
            rope_mode: RopeMode::Official,
            region_score: RegionScore::Edges,
            jump_noise: JumpNoise::Fresh,
        }
    );
    assert_eq!(
        Rules::default(),
        Rules {
            kept_noise: KeptNoise::Exact,
            gray_map: GrayMap::Fixed,
            upsample: Upsample::Token,
            tie_break: TieBreak::Gradient,
            rope_mode: RopeMode::Official,
            region_score: RegionScore::Edges,
            jump_noise: JumpNoise::Bound,
        }
    );
}
