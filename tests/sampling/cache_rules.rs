//! Temporal caches: which steps are full, and what a reused one is predicted from. No GPU.

use ralu::sampling::FlowMatch;
use ralu::sampling::cache::spec::{MAGCACHE_FLUX, TEACACHE_FLUX};
use ralu::sampling::cache::{
    CacheError, CacheRule, CacheSpec, Cached, Decision, Probe, TaylorMode, TaylorUpdate,
    static_decisions,
};

fn spec(text: &str) -> CacheSpec {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// The schedule that `spec` wants to know, of a 1024 x 1024 picture.
fn plain_sigmas(spec: &CacheSpec) -> Vec<f64> {
    spec.plain_steps().map_or(Vec::new(), |n| FlowMatch::FLUX_DEV.sigmas(n, 4096).unwrap())
}

fn rule(text: &str) -> CacheRule {
    let spec = spec(text);
    let plain = plain_sigmas(&spec);
    CacheRule::new(spec, plain).unwrap()
}

/// `n + 1` sigmas; only MagCache looks at their values.
fn sigmas(n_steps: usize) -> Vec<f64> {
    (0..=n_steps).map(|i| 1.0 - i as f64 / n_steps as f64).collect()
}

/// One letter a step: `F`ull, `R`euse. Each probe finds the change of its step.
fn stage(rule: &mut CacheRule, sigmas: &[f64], is_last: bool, change: &[f64]) -> String {
    rule.begin_stage(sigmas, is_last);
    let letter = |step: usize| match rule.next(step) {
        Decision::Full => 'F',
        Decision::Reuse => 'R',
        Decision::Probe => match rule.probed(change[step]) {
            Decision::Full => 'F',
            Decision::Reuse => 'R',
            Decision::Probe => panic!("step {step}: a probe after a probe"),
        },
    };
    (0..sigmas.len() - 1).map(letter).collect()
}

/// A whole run of stages of so many steps, with `change` in every step; stages joined by `|`.
fn run(text: &str, stages: &[usize], change: f64) -> String {
    let mut rule = rule(text);
    let last = stages.len() - 1;
    let of = |(i, &n): (usize, &usize)| stage(&mut rule, &sigmas(n), i == last, &vec![change; n]);
    stages.iter().enumerate().map(of).collect::<Vec<_>>().join("|")
}

/// Stagings of `n` steps: plain, two stages, and three.
fn stagings(n: usize) -> Vec<Vec<usize>> {
    let mut all = vec![vec![n]];
    all.extend((1..n).map(|a| vec![a, n - a]));
    all.extend((1..n.saturating_sub(1)).map(|a| {
        let b = (n - a).div_ceil(2);
        vec![a, b, n - a - b]
    }));
    all
}

// ---- names and parameters --------------------------------------------------------------------

#[test]
fn what_is_printed_is_read_back() {
    let printed = [
        "fbc:threshold=0.05",
        "teacache:threshold=0.25,\
         coefficients=498.651651/-283.781631/55.8554382/-3.82021401/0.264230861",
        "taylorseer:order=1,interval=3,warmup=2,mode=output",
        "fora:interval=2",
        "magcache:threshold=0.06,max_skips=3,retention=0.2,ratios=1/1.21094/1.11719/1.07812/\
         1.0625/1.03906/1.03125/1.03906/1.02344/1.03125/1.02344/0.98047/1.01562/1.00781/1/1.00781/\
         1/1.00781/1/1/0.99609/0.99609/0.98047/0.98828/0.96484/0.95703/0.93359/0.89062",
    ];
    for (default, printed) in CacheSpec::defaults().into_iter().zip(printed) {
        assert_eq!(default.to_string(), printed);
        assert_eq!(spec(printed), default);
        assert_eq!(spec(default.name()), default, "a name alone has the defaults");
        assert_eq!(default.check(), Ok(()));
    }
    for text in [
        "fbc:threshold=0",
        "fbc:threshold=1e-300",
        "fbc:threshold=123456789.123",
        "teacache:threshold=0.1,coefficients=-2.5",
        "taylorseer:order=0,interval=7,warmup=0,mode=blocks",
        "taylorseer:order=2,interval=1,warmup=50,mode=output",
        "fora:interval=1",
        "magcache:threshold=0,max_skips=1,retention=1,ratios=0.1/0.30000000000000004",
    ] {
        let read = spec(text);
        assert_eq!(spec(&read.to_string()), read, "{text}");
    }
}

#[test]
fn texts_are_read() {
    let taylor =
        |order, interval, warmup, mode| CacheSpec::TaylorSeer { order, interval, warmup, mode };
    let cases = [
        ("first-block", CacheSpec::FirstBlock { threshold: 0.05 }),
        ("First-Block:threshold=1", CacheSpec::FirstBlock { threshold: 1.0 }),
        (" FBC : Threshold = .5 ", CacheSpec::FirstBlock { threshold: 0.5 }),
        (
            "teacache:coefficients= 1 / -2.5 /3e1",
            CacheSpec::TeaCache { threshold: 0.25, coefficients: vec![1.0, -2.5, 30.0] },
        ),
        // The warm-up follows the order unless it is given, wherever it stands.
        ("taylorseer:order=0", taylor(0, 3, 1, TaylorMode::Output)),
        ("taylorseer:order=2", taylor(2, 3, 3, TaylorMode::Output)),
        ("taylorseer:warmup=1,order=2", taylor(2, 3, 1, TaylorMode::Output)),
        ("taylorseer:mode=Blocks,interval=5", taylor(1, 5, 2, TaylorMode::Blocks)),
        ("fora:interval=4", CacheSpec::Fora { interval: 4 }),
        (
            "magcache:ratios=1/.9,max_skips=2",
            CacheSpec::MagCache {
                threshold: 0.06,
                max_skips: 2,
                retention: 0.2,
                ratios: vec![1.0, 0.9],
            },
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(text.parse(), Ok(expected.clone()), "{text}");
        assert_eq!(CacheSpec::parse_option(text), Ok(Some(expected)), "{text}");
    }
    for off in ["off", "none", " Off ", "NONE"] {
        assert_eq!(CacheSpec::parse_option(off), Ok(None), "{off}");
    }
}

#[test]
fn texts_are_refused_by_name() {
    let many = |n: usize| vec!["1"; n].join("/");
    let cases: &[(&str, &[&str])] = &[
        ("", &["''", "fbc, teacache, taylorseer, fora or magcache"]),
        ("off", &["'off'", "off alone"]),
        ("off:threshold=1", &["'off:threshold=1'"]),
        ("deltadit", &["'deltadit'", "fbc"]),
        ("fbc:", &["'' is not a setting of fbc", "threshold"]),
        ("fbc:0.05", &["'0.05' is not a setting of fbc", "key=value"]),
        ("fbc:threshold=0.1,", &["'' is not a setting"]),
        ("fbc:interval=3", &["'interval=3' is not a setting of fbc, which has threshold"]),
        ("teacache:order=1", &["threshold, coefficients"]),
        ("taylorseer:threshold=1", &["order, interval, warmup, mode"]),
        ("fora:order=1", &["which has interval"]),
        ("magcache:interval=2", &["threshold, max_skips, retention, ratios"]),
        ("fora:interval=2,interval=3", &["fora", "interval more than once"]),
        ("fbc:threshold=", &["fbc has threshold=,", "from 0 up"]),
        ("fbc:threshold=much", &["threshold=much", "for example threshold=0.1"]),
        ("fbc:threshold=-0.1", &["threshold=-0.1", "from 0 up"]),
        ("fbc:threshold=nan", &["threshold=NaN"]),
        ("teacache:threshold=inf", &["teacache has threshold=inf"]),
        ("magcache:threshold=-1", &["magcache has threshold=-1"]),
        ("teacache:coefficients=", &["coefficients=,", "1 to 16 numbers"]),
        ("teacache:coefficients=1//2", &["coefficients=1//2"]),
        ("teacache:coefficients=1/nan", &["coefficients=1/NaN"]),
        (&format!("teacache:coefficients={}", many(17)), &["1 to 16"]),
        ("taylorseer:order=3", &["order=3", "0, 1 or 2"]),
        ("taylorseer:order=18446744073709551615", &["0, 1 or 2"]),
        ("taylorseer:order=1.5", &["order=1.5"]),
        ("taylorseer:order=-1", &["order=-1"]),
        ("taylorseer:interval=0", &["interval=0", "from 1 up"]),
        ("taylorseer:warmup=-1", &["warmup=-1", "from 0 up"]),
        ("taylorseer:mode=lite", &["mode=lite", "output or blocks"]),
        ("fora:interval=0", &["fora has interval=0"]),
        ("magcache:max_skips=0", &["max_skips=0", "from 1 up"]),
        ("magcache:retention=1.1", &["retention=1.1", "from 0 to 1"]),
        ("magcache:retention=-0.1", &["retention=-0.1"]),
        ("magcache:ratios=", &["ratios=,", "above 0"]),
        ("magcache:ratios=1/0", &["ratios=1/0"]),
        ("magcache:ratios=1/-1", &["ratios=1/-1"]),
        ("magcache:ratios=1/inf", &["ratios=1/inf"]),
        (&format!("magcache:ratios={}", many(10_001)), &["1 to 10000"]),
    ];
    for (text, parts) in cases {
        let shown = &text[..text.len().min(60)];
        let error = match text.parse::<CacheSpec>() {
            Ok(read) => panic!("'{shown}' was read as {read}"),
            Err(error) => error.to_string(),
        };
        for part in *parts {
            assert!(error.contains(part), "'{shown}': '{part}' is not in: {error}");
        }
    }
}

#[test]
fn rules_refuse_parameters_out_of_range() {
    let refused = |spec: CacheSpec| match CacheRule::new(spec.clone(), plain_sigmas(&spec)) {
        Err(CacheError::Value { key, .. }) => key,
        other => panic!("{spec}: {other:?}"),
    };
    let mode = TaylorMode::Output;
    let taylor = |order, interval| CacheSpec::TaylorSeer { order, interval, warmup: 0, mode };
    let tea = |coefficients| CacheSpec::TeaCache { threshold: 1.0, coefficients };
    assert_eq!(refused(CacheSpec::FirstBlock { threshold: f64::NAN }), "threshold");
    assert_eq!(refused(tea(vec![])), "coefficients");
    assert_eq!(refused(taylor(3, 1)), "order");
    assert_eq!(refused(taylor(1, 0)), "interval");
    assert_eq!(refused(CacheSpec::Fora { interval: 0 }), "interval");
    let mag = CacheSpec::MagCache {
        threshold: 0.1,
        max_skips: 1,
        retention: 0.5,
        ratios: vec![1.0, f64::INFINITY],
    };
    assert_eq!(refused(mag), "ratios");

    let mag = spec("magcache:ratios=1/1/1");
    for n in [0, 3, 5] {
        let found = CacheRule::new(mag.clone(), vec![0.5; n]);
        assert_eq!(found, Err(CacheError::PlainSigmas { found: n, steps: 3 }));
    }
    let text = CacheRule::new(mag, vec![]).unwrap_err().to_string();
    assert!(text.contains("0 sigmas, expected 4") && text.contains("3 steps"), "{text}");
    // Rules without ratios ask for no schedule and mind none.
    assert!(CacheRule::new(spec("fora"), vec![0.5; 3]).is_ok());
}

#[test]
fn specs_say_what_an_engine_needs() {
    let cases = [
        ("fbc", Cached::BlocksTail, Some(Probe::FirstBlock), None),
        ("teacache", Cached::AllBlocks, Some(Probe::ModulatedInput), None),
        ("magcache", Cached::AllBlocks, None, Some(28)),
        ("magcache:ratios=1/1", Cached::AllBlocks, None, Some(2)),
        ("fora", Cached::Modules { factors: 1 }, None, None),
        ("taylorseer", Cached::Output { factors: 2 }, None, None),
        ("taylorseer:order=0,mode=blocks", Cached::Modules { factors: 1 }, None, None),
        ("taylorseer:order=2,mode=blocks", Cached::Modules { factors: 3 }, None, None),
    ];
    for (text, cached, probe, plain_steps) in cases {
        let spec = spec(text);
        assert_eq!((spec.cached(), spec.probe()), (cached, probe), "{text}");
        assert_eq!(spec.plain_steps(), plain_steps, "{text}");
    }
}

// ---- what holds for every rule ---------------------------------------------------------------

#[test]
fn threshold_0_and_interval_1_never_reuse() {
    let never = [
        "fbc:threshold=0",
        "teacache:threshold=0",
        // A polynomial below 0 must not open the door.
        "teacache:threshold=0,coefficients=-1",
        "teacache:threshold=0,coefficients=0/0",
        "taylorseer:interval=1",
        "taylorseer:interval=1,order=2,warmup=0,mode=blocks",
        "fora:interval=1",
        "magcache:threshold=0",
        // Ratios of exactly 1 have no error at all.
        "magcache:threshold=0,retention=0,ratios=1",
    ];
    for n in 1..60 {
        for stages in stagings(n) {
            for text in never {
                for change in [0.0, 0.05, f64::NAN] {
                    let steps = run(text, &stages, change);
                    assert!(!steps.contains('R'), "{text}, {stages:?}: {steps}");
                }
            }
        }
    }
}

#[test]
fn only_first_steps_and_the_last_are_forced() {
    // Each of these reuses whatever it may.
    let always = [
        "fbc:threshold=1",
        "teacache:threshold=1e9",
        "taylorseer:interval=1000,warmup=0",
        "fora:interval=1000",
        "magcache:threshold=1e9,max_skips=1000,retention=0",
    ];
    for n in 1..30 {
        for stages in stagings(n) {
            let mut expected: Vec<String> =
                stages.iter().map(|n| format!("F{}", "R".repeat(n - 1))).collect();
            let last = expected.last_mut().unwrap();
            last.pop();
            last.push('F');
            for text in always {
                assert_eq!(run(text, &stages, 0.01), expected.join("|"), "{text}, {stages:?}");
            }
        }
    }
}

#[test]
fn a_stage_without_steps_asks_nothing() {
    let mut rule = rule("magcache");
    rule.begin_stage(&[], false);
    rule.begin_stage(&[0.5], false);
    assert_eq!(stage(&mut rule, &sigmas(2), true, &[]), "FF");
}

#[test]
#[should_panic(expected = "step 1 asked for, expected step 0 of 3")]
fn steps_are_asked_for_in_order() {
    let mut rule = rule("fora");
    rule.begin_stage(&sigmas(3), true);
    rule.next(1);
}

#[test]
#[should_panic(expected = "step 1 asked for, expected step 1 of 1")]
fn a_stage_has_no_more_steps_than_sigmas() {
    let mut rule = rule("fora");
    rule.begin_stage(&sigmas(1), true);
    rule.next(0);
    rule.next(1);
}

#[test]
#[should_panic(expected = "before the change of the probed one")]
fn a_probe_is_answered() {
    let mut rule = rule("fbc");
    rule.begin_stage(&sigmas(4), true);
    for step in 0..3 {
        rule.next(step);
    }
}

#[test]
#[should_panic(expected = "without a probe asked for")]
fn an_answer_needs_a_probe() {
    let mut rule = rule("fbc");
    rule.begin_stage(&sigmas(4), true);
    rule.next(0);
    rule.probed(0.0);
}

// ---- rules that follow a change --------------------------------------------------------------

#[test]
fn first_block_compares_each_change_with_the_threshold() {
    let mut rule = rule("fbc:threshold=0.125");
    // The first change is never asked for, nor the last; one at the threshold is too much.
    let change = [0.0, 0.1, 0.12, 0.125, 0.0, f64::NAN, f64::INFINITY, 0.01, 0.0];
    assert_eq!(stage(&mut rule, &sigmas(9), false, &change), "FRRFRFFRR");
    assert_eq!(stage(&mut rule, &sigmas(9), true, &change), "FRRFRFFRF");
}

#[test]
fn teacache_sums_rescaled_changes() {
    // The polynomial 2 x^2 + x + 0 at 1/4, 1/2, 1: 3/8, 1, 3. All sums are exact.
    let mut rule = rule("teacache:threshold=1,coefficients=2/1/0");
    let change = [9.0, 0.25, 0.25, 0.25, 0.25, 0.5, 0.25, 1.0, 0.25, 0.25];
    // Sums:        -    3/8   6/8   9/8   3/8   11/8  3/8   27/8 3/8   6/8
    assert_eq!(stage(&mut rule, &sigmas(10), false, &change), "FRRFRFRFRR");
    // A new stage starts from 0, not from 6/8; so does a step after a sum that is exactly 1.
    let change = [9.0, 0.25, 0.25, 0.5, 0.5, 0.25];
    assert_eq!(stage(&mut rule, &sigmas(6), false, &change), "FRRFFR");
    // What is not a number makes its step full and is forgotten.
    let change = [9.0, 0.25, f64::NAN, 0.25, f64::INFINITY, 0.25, 0.0];
    assert_eq!(stage(&mut rule, &sigmas(7), true, &change), "FRFRFRF");
}

#[test]
fn teacache_counts_no_change_backward() {
    // x - 1/2 at 1, 0, 1: 1/2, then nothing instead of -1/2, then 1/2 once more.
    let mut rule = rule("teacache:threshold=1,coefficients=1/-0.5");
    assert_eq!(stage(&mut rule, &sigmas(5), false, &[0.0, 1.0, 0.0, 1.0, 0.0]), "FRRFR");
}

#[test]
fn teacache_has_the_polynomial_of_flux() {
    // 498.651651 x^4 - 283.781631 x^3 + 55.8554382 x^2 - 3.82021401 x + 0.264230861, at
    // 0.05: 0.00311657 - 0.03547270 + 0.13963860 - 0.19101070 + 0.26423086 = 0.18050263;
    // 0.1:  0.04986517 - 0.28378163 + 0.55855438 - 0.38202140 + 0.26423086 = 0.20684738.
    let at = |change: f64, threshold: f64| {
        let mut rule = rule(&format!("teacache:threshold={threshold}"));
        stage(&mut rule, &sigmas(2), false, &[change; 2])
    };
    // One unit of the last digit to either side.
    for (change, value) in [(0.05, 0.18050263), (0.1, 0.20684738), (0.0, 0.264230861)] {
        assert_eq!(at(change, value - 1e-8), "FF", "{change}");
        assert_eq!(at(change, value + 1e-8), "FR", "{change}");
    }
    let polynomial = |x: f64| TEACACHE_FLUX.iter().fold(0.0, |sum, c| sum * x + c);
    assert!((0..10_000).all(|i| polynomial(f64::from(i) * 1e-3) > 0.18), "never near 0");
}

// ---- rules that count ------------------------------------------------------------------------

#[test]
fn fora_is_full_at_multiples_of_the_interval() {
    assert_eq!(run("fora:interval=3", &[8], 0.0), "FRRFRRFF");
    assert_eq!(run("fora:interval=3", &[7], 0.0), "FRRFRRF");
    assert_eq!(run("fora", &[5, 6, 7], 0.0), "FRFRF|FRFRFR|FRFRFRF");
    for n in 1..40 {
        for interval in 1..8 {
            let fora = run(&format!("fora:interval={interval}"), &[n, n], 0.0);
            let taylor = format!("taylorseer:order=0,interval={interval},warmup=0,mode=blocks");
            assert_eq!(run(&taylor, &[n, n], 0.0), fora);
            for (step, letter) in fora[..n].chars().enumerate() {
                assert_eq!(letter == 'F', step.is_multiple_of(interval), "{fora}");
            }
        }
    }
}

#[test]
fn taylorseer_is_full_in_the_warmup_and_after_each_interval() {
    assert_eq!(run("taylorseer", &[10], 0.0), "FFRRFRRFRF");
    assert_eq!(run("taylorseer:warmup=3", &[10], 0.0), "FFFRRFRRFF");
    assert_eq!(run("taylorseer:warmup=0,interval=4", &[10], 0.0), "FRRRFRRRFF");
    assert_eq!(run("taylorseer:order=2", &[8], 0.0), "FFFRRFRF");
    // FLUX 4x and 7x: every stage warms up anew.
    assert_eq!(run("taylorseer", &[5, 6, 7], 0.0), "FFRRF|FFRRFR|FFRRFRF");
    assert_eq!(run("taylorseer", &[2, 3, 5], 0.0), "FF|FFR|FFRRF");
}

// ---- TaylorSeer's numbers --------------------------------------------------------------------

/// A single number under the rule, kept as an engine keeps a tensor: three factors, updated in
/// place. `value(step)` is what the network would give. Returns the prediction of each reused step.
fn predict(
    rule: &mut CacheRule,
    n_steps: usize,
    factors: &mut [f64; 3],
    value: impl Fn(usize) -> f64,
) -> Vec<(usize, f64)> {
    rule.begin_stage(&sigmas(n_steps), false);
    let mut predicted = Vec::new();
    for step in 0..n_steps {
        let [f0, f1, f2] = factors;
        if rule.next(step) == Decision::Full {
            let y = value(step);
            let TaylorUpdate { second: a, first: b } = rule.update_weights();
            *f2 = f64::from(a[0]) * y + f64::from(a[1]) * *f0 + f64::from(a[2]) * *f1;
            *f1 = f64::from(b[0]) * y + f64::from(b[1]) * *f0;
            *f0 = y;
        } else {
            let w = rule.predict_weights().map(f64::from);
            predicted.push((step, w[0] * *f0 + w[1] * *f1 + w[2] * *f2));
        }
    }
    predicted
}

/// Whatever a buffer may hold before its first use in a stage.
const STALE: [f64; 3] = [1e6, -7e5, 3e4];

#[test]
fn order_0_repeats_the_last_full_value() {
    for text in ["fora:interval=4", "taylorseer:order=0,interval=4,warmup=1"] {
        let found = predict(&mut rule(text), 8, &mut STALE.clone(), |step| step as f64);
        let repeated = [(1, 0.0), (2, 0.0), (3, 0.0), (5, 4.0), (6, 4.0), (7, 4.0)];
        assert_eq!(found, repeated, "{text}");
    }
}

#[test]
fn order_1_is_exact_on_a_line() {
    let line = |step: usize| 5.0 - 3.0 * step as f64;
    // 1 / interval is exact in f32, so all is.
    for (interval, warmup) in [(2, 2), (4, 2), (8, 2), (2, 3), (4, 5)] {
        let text = format!("taylorseer:interval={interval},warmup={warmup}");
        let predicted = predict(&mut rule(&text), 40, &mut STALE.clone(), line);
        assert!(!predicted.is_empty());
        for (step, found) in predicted {
            assert_eq!(found, line(step), "{text}, step {step}");
        }
    }
    // 1 / 3 is rounded once to f32 (2^-24, relatively), and with it the slope; the steps before
    // the next full one, 2 at most, carry that: 2 * 3 * 2^-24, and f64's rounding far below.
    for (step, found) in predict(&mut rule("taylorseer"), 40, &mut STALE.clone(), line) {
        let error = (found - line(step)).abs();
        assert!(error <= 6.0 * 0.5f64.powi(24) * 1.001, "step {step}: off by {error}");
    }
}

#[test]
fn missing_orders_are_left_out() {
    // Without a warm-up the first interval has one full step, so it repeats; the second has two
    // and extrapolates; only the third has the second difference.
    let mut rule = rule("taylorseer:order=2,interval=2,warmup=0");
    let square = |step: usize| (step * step) as f64;
    let found = predict(&mut rule, 6, &mut STALE.clone(), square);
    // Step 3: 4 + (4 - 0) / 2. Step 5: slopes 2 and (16 - 4) / 2 = 6, so F2 = (6 - 2) / 2 = 2:
    // 16 + 6 + 2 / 2.
    assert_eq!(found, [(1, 0.0), (3, 6.0), (5, 23.0)]);
}

#[test]
fn order_2_on_a_parabola_has_the_error_of_backward_differences() {
    // y = a t^2 + b t + c. A difference over D steps back is the slope in the middle of them,
    // y'(t) - a D. The one before, over E steps, is y'(t - D) - a E = y'(t) - 2 a D - a E. So
    // F2 = (F1 - F1 before) / D = a (D + E) / D, which is the true 2 a only for D = E, and
    // d steps on: y(t) + d (y'(t) - a D) + d^2 / 2 * a (D + E) / D.
    let (a, b, c) = (2.0, -3.0, 7.0);
    let y = |t: f64| (a * t + b) * t + c;
    for (interval, warmup) in [(2, 3), (4, 3), (4, 6), (8, 3)] {
        let text = format!("taylorseer:order=2,interval={interval},warmup={warmup}");
        let mut rule = rule(&text);
        let predicted = predict(&mut rule, 50, &mut STALE.clone(), |step| y(step as f64));
        let full = |step: usize| step < warmup || (step + 1 - warmup).is_multiple_of(interval);
        assert!(predicted.len() > 20);
        for (step, found) in predicted {
            assert!(!full(step), "{text}: step {step} was reused");
            let back = |from: usize| (0..from).rev().find(|&s| full(s)).unwrap();
            let t = back(step);
            let (d, width) = ((step - t) as f64, (t - back(t)) as f64);
            let width_before = (back(t) - back(back(t))) as f64;
            let slope = 2.0 * a * t as f64 + b;
            let expected = y(t as f64)
                + d * (slope - a * width)
                + d * d / 2.0 * a * (width + width_before) / width;
            // Powers of two and whole numbers: exact.
            assert_eq!(found, expected, "{text}, step {step}");
        }
    }
}

#[test]
fn predictions_follow_the_definition_for_any_parameters() {
    // Differences written as the recursion they are, over the list of full steps.
    fn factor(order: usize, full: &[(usize, f64)]) -> f64 {
        let (&(step, value), before) = full.split_last().unwrap();
        match order {
            0 => value,
            _ => {
                let width = (step - before.last().unwrap().0) as f64;
                (factor(order - 1, full) - factor(order - 1, before)) / width
            }
        }
    }
    let value = |step: usize| ((step * 37 + 11) % 23) as f64 - 11.0;
    let mut checked = 0;
    for order in 0..=2 {
        for interval in 1..=7 {
            for warmup in 0..=4 {
                let text = format!("taylorseer:order={order},interval={interval},warmup={warmup}");
                let mut rule = rule(&text);
                // Two stages: the second knows nothing of the first.
                let mut factors = STALE;
                for n_steps in [9, 23] {
                    let predicted = predict(&mut rule, n_steps, &mut factors, value);
                    let reused: Vec<usize> = predicted.iter().map(|p| p.0).collect();
                    let mut full = Vec::new();
                    for step in 0..n_steps {
                        let Some(at) = reused.iter().position(|&s| s == step) else {
                            full.push((step, value(step)));
                            continue;
                        };
                        let d = (step - full[full.len() - 1].0) as f64;
                        let expected: f64 = (0..=order.min(full.len() - 1))
                            .map(|j| factor(j, &full) * [1.0, d, d * d / 2.0][j])
                            .sum();
                        // Values are at most 11 in size, so F1 is at most 22 / D and F2 is made of
                        // 22 / D^2 and F1 before / D, 22 / D at most. Weights are off by 2^-24
                        // relatively, F1 before likewise. With d < 7: 6 * 22 + 18 * (22 + 2 * 22).
                        let bound = (6.0 * 22.0 + 18.0 * 66.0) * 0.5f64.powi(24);
                        let error = (predicted[at].1 - expected).abs();
                        assert!(error <= bound, "{text}, step {step}: off by {error}");
                        checked += 1;
                    }
                }
            }
        }
    }
    assert!(checked > 1000, "{checked}");
}

#[test]
fn weights_are_finite_and_zero_where_nothing_is_known() {
    let nothing = TaylorUpdate { second: [0.0; 3], first: [0.0; 2] };
    let mut seer = rule("taylorseer:order=2,interval=4,warmup=0");
    for _ in 0..2 {
        seer.begin_stage(&sigmas(9), false);
        for step in 0..9 {
            let decision = seer.next(step);
            let update = seer.update_weights();
            match step {
                0 => assert_eq!((decision, update), (Decision::Full, nothing)),
                4 => assert_eq!(update, TaylorUpdate { first: [0.25, -0.25], ..nothing }),
                8 => assert_eq!(
                    update,
                    TaylorUpdate { first: [0.25, -0.25], second: [0.0625, -0.0625, -0.25] }
                ),
                _ => assert_eq!(decision, Decision::Reuse),
            }
            // A full step's own prediction is its value.
            let d = (step % 4) as f32;
            let slope = if step > 4 { d } else { 0.0 };
            assert_eq!(seer.predict_weights(), [1.0, slope, 0.0]);
        }
    }
    // Rules that keep no differences take what they kept.
    for text in ["fbc", "teacache", "magcache", "fora"] {
        let mut rule = rule(text);
        stage(&mut rule, &sigmas(9), false, &[0.01; 9]);
        assert_eq!(rule.predict_weights(), [1.0, 0.0, 0.0], "{text}");
        assert_eq!(rule.update_weights(), nothing, "{text}");
    }
}

// ---- MagCache --------------------------------------------------------------------------------

#[test]
fn magcache_on_28_plain_steps_of_flux() {
    // By hand, the running product and the sum of its distances from 1 (bound 0.06):
    //  0 to 4: 20 % of 28 steps is 5.6
    //  5: 1.03906, 0.03906          6: 1.07153, 0.11059 full
    //  7: 1.03906, 0.03906          8: 1.06342, 0.10248 full
    //  9: 1.03125, 0.03125         10: 1.05542, 0.08667 full
    // 11: 0.98047, 0.01953         12: 0.99578, 0.02375    13: 1.00356, 0.02731    14: a fourth
    // 15: 1.00781, 0.00781         16: 1.00781, 0.01562    17: 1.01568, 0.03130    18: a fourth
    // 19: 1, 0                     20: 0.99609, 0.00391    21: 0.99220, 0.01172    22: a fourth
    // 23: 0.98828, 0.01172         24: 0.95353, 0.05819    25: 0.91256, 0.14563 full
    // 26: 0.93359, 0.06641 full    27: the last
    assert_eq!(run("magcache", &[28], 0.0), "FFFFFRFRFRFRRRFRRRFRRRFRRFFF");
    // A bound that is met exactly still holds: with ratios 0.5 and 1 the error is 0.5 twice.
    let exact = "magcache:retention=0,ratios=1/0.5/1/1/1,max_skips=9,threshold=";
    assert_eq!(run(&format!("{exact}1"), &[5], 0.0), "FRRFF");
    assert_eq!(run(&format!("{exact}0.99"), &[5], 0.0), "FRFRF");
}

#[test]
fn magcache_keeps_the_first_steps_full() {
    let run = |retention: &str, n: usize| {
        run(&format!("magcache:threshold=9,max_skips=99,ratios=1,retention={retention}"), &[n], 0.0)
    };
    assert_eq!(run("0.2", 10), "FFRRRRRRRF");
    assert_eq!(run("0.29", 10), "FFRRRRRRRF");
    assert_eq!(run("0.3", 10), "FFFRRRRRRF");
    assert_eq!(run("0.2", 4), "FRRF");
    assert_eq!(run("0", 4), "FRRF");
    assert_eq!(run("1", 4), "FFFF");
}

/// Which ratio each step of a stage uses, found by making only one of them harmless at a time;
/// `None` for steps that are full whatever their ratio.
fn ratios_used(
    n_ratios: usize,
    plain: &[f64],
    sigmas: &[f64],
    is_last: bool,
) -> Vec<Option<usize>> {
    let mut used = vec![None; sigmas.len() - 1];
    for k in 0..n_ratios {
        let ratios = (0..n_ratios).map(|i| if i == k { 1.0 } else { 9.0 }).collect();
        let spec = CacheSpec::MagCache { threshold: 0.5, max_skips: 1000, retention: 0.0, ratios };
        let mut rule = CacheRule::new(spec, plain.to_vec()).unwrap();
        for (step, letter) in stage(&mut rule, sigmas, is_last, &[]).chars().enumerate() {
            if letter == 'R' {
                assert_eq!(used[step].replace(k), None, "step {step} uses two ratios");
            }
        }
    }
    used
}

#[test]
fn magcache_spreads_ratios_over_a_plain_run_as_its_authors_do() {
    // numpy: np.round(np.arange(n) * ((m - 1) / (n - 1))), halves to even.
    let cases: &[(usize, usize, &[usize])] = &[
        (4, 7, &[0, 0, 1, 2, 2, 2, 3]),
        (3, 5, &[0, 0, 1, 2, 2]),
        (28, 10, &[0, 3, 6, 9, 12, 15, 18, 21, 24, 27]),
        (28, 7, &[0, 4, 9, 14, 18, 22, 27]),
        (6, 6, &[0, 1, 2, 3, 4, 5]),
        (1, 4, &[0, 0, 0, 0]),
    ];
    for &(n_ratios, n_steps, expected) in cases {
        let plain = vec![0.5; n_ratios + 1];
        let mut expected: Vec<_> = expected.iter().copied().map(Some).collect();
        (expected[0], expected[n_steps - 1]) = (None, None);
        let used = ratios_used(n_ratios, &plain, &sigmas(n_steps), true);
        assert_eq!(used, expected, "{n_ratios} ratios, {n_steps} steps");
    }
}

#[test]
fn magcache_takes_ratios_by_sigma_within_stages() {
    let plain = [1.0, 0.75, 0.25, 0.0];
    // 0.875 and 0.5 are as near to two: the noisier one. The final 0 is no step.
    let sigmas = [1.0, 0.9, 0.875, 0.8, 0.75, 0.51, 0.5, 0.49, 0.25, 0.01, 0.0];
    let expected = [0, 0, 0, 1, 1, 1, 1, 2, 2, 2].map(Some);
    let used = ratios_used(3, &plain, &sigmas, false);
    assert_eq!(used[0], None);
    assert_eq!(used[1..], expected[1..]);

    // So by index would be another thing: these are all late steps.
    let used = ratios_used(3, &plain, &[0.5, 0.4, 0.3, 0.2, 0.1], false);
    assert_eq!(used, [None, Some(2), Some(2), Some(2)]);

    // A last stage that is not the first goes by sigma, too.
    let spec = CacheSpec::MagCache {
        threshold: 0.5,
        max_skips: 9,
        retention: 0.0,
        ratios: vec![9.0, 9.0, 1.0],
    };
    let mut rule = CacheRule::new(spec, plain.to_vec()).unwrap();
    rule.begin_stage(&[1.0, 0.9], false);
    assert_eq!(stage(&mut rule, &[0.9, 0.8, 0.3, 0.2, 0.1, 0.0], true, &[]), "FFRRF");
}

#[test]
fn magcache_starts_each_stage_without_error() {
    // The error is 0.5 a step at a bound of 1: two reuses, then a full step. The first stage ends
    // after one reuse, and the second has two all the same.
    let text = "magcache:threshold=1,max_skips=9,retention=0,ratios=0.5/1";
    let mut rule = CacheRule::new(spec(text), vec![1.0, 0.5, 0.0]).unwrap();
    assert_eq!(stage(&mut rule, &[0.9, 0.8, 0.1], false, &[]), "FR");
    assert_eq!(stage(&mut rule, &[0.9, 0.8, 0.1, 0.1, 0.1], false, &[]), "FRRF");
}

#[test]
fn magcache_by_sigma_is_by_index_on_the_plain_schedule() {
    let plain = FlowMatch::FLUX_DEV.sigmas(28, 4096).unwrap();
    assert_eq!(MAGCACHE_FLUX.len(), 28);
    let by_sigma = stage(&mut rule("magcache"), &plain, false, &[]);
    let by_index = stage(&mut rule("magcache"), &plain, true, &[]);
    assert_eq!(by_sigma[..27], by_index[..27]);
}

// ---- decisions in advance --------------------------------------------------------------------

#[test]
fn static_decisions_are_those_of_the_rule() {
    for text in [
        "fora",
        "fora:interval=5",
        "taylorseer",
        "taylorseer:order=2,mode=blocks",
        "taylorseer:interval=2,warmup=0",
        "magcache",
        "magcache:threshold=0.5,max_skips=2,retention=0.5",
    ] {
        let spec = spec(text);
        let plain = plain_sigmas(&spec);
        let mut reused = 0;
        for n in 1..40 {
            for stages in stagings(n) {
                let stages: Vec<Vec<f64>> = stages.into_iter().map(sigmas).collect();
                let slices: Vec<&[f64]> = stages.iter().map(Vec::as_slice).collect();
                let found = static_decisions(&spec, &plain, &slices).unwrap().unwrap();
                let mut rule = CacheRule::new(spec.clone(), plain.clone()).unwrap();
                let expected: Vec<Vec<bool>> = (0..stages.len())
                    .map(|i| {
                        let is_last = i + 1 == stages.len();
                        let steps = stage(&mut rule, &stages[i], is_last, &[]);
                        steps.chars().map(|letter| letter == 'F').collect()
                    })
                    .collect();
                assert_eq!(found, expected, "{text}, {n} steps");
                reused += found.iter().flatten().filter(|full| !**full).count();
            }
        }
        assert!(reused > 0, "{text} reuses nothing");
    }
    for text in ["fbc", "teacache"] {
        assert_eq!(static_decisions(&spec(text), &[], &[&sigmas(9)]), Ok(None), "{text}");
    }
    let refused = static_decisions(&spec("magcache"), &[], &[&sigmas(9)]);
    assert_eq!(refused, Err(CacheError::PlainSigmas { found: 0, steps: 28 }));
    let unfit = CacheSpec::FirstBlock { threshold: -1.0 };
    assert!(static_decisions(&unfit, &[], &[]).is_err());
}

#[test]
fn flux_4x_under_each_static_rule() {
    let stages = ralu::models::flux1::PRESETS
        .params(ralu::sampling::Preset::X4, 3.0)
        .unwrap()
        .resolve(1024)
        .unwrap()
        .stages;
    let slices: Vec<&[f64]> = stages.iter().map(|s| s.sigmas.as_slice()).collect();
    let full = |text: &str| {
        let spec = spec(text);
        let run = static_decisions(&spec, &plain_sigmas(&spec), &slices).unwrap().unwrap();
        run.iter().flatten().filter(|full| **full).count()
    };
    // 5 + 6 + 7 steps; the sequences of TaylorSeer and FORA stand above.
    assert_eq!((full("taylorseer"), full("fora")), (3 + 3 + 4, 3 + 3 + 4));
    assert!((3 + 1..18).contains(&full("magcache")));
}
