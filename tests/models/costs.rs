//! FLOPs and parameters, against the RALU paper's tables and diffusers 0.42.

use ralu::models::builtin;
use ralu::models::config::*;
use ralu::models::cost::{self, Flops, Parameters};
use ralu::models::encoders::TextEncoderConfig;
use ralu::models::sd3::Sd3Config;

use crate::folders::{clips, sd3, step, t5};

#[track_caller]
fn assert_tera(found: f64, expected: f64) {
    let found = found / 1e12;
    assert!((found / expected - 1.0).abs() < 1e-3, "{found} TFLOP, expected {expected}");
}

/// A plain run at `side` x `side` pixels: encoders, steps, one decode.
fn plain(config: &ModelConfig, side: usize, steps: usize, txt: usize) -> Flops {
    let m = (side / 16) * (side / 16);
    step(config, m, txt) * steps as f64
        + cost::vae_decode(&config.vae, side / 8, side / 8)
        + cost::text_encoders(config, txt)
}

/// A RALU run: three stages, a decode at either size.
fn ralu_run(config: &ModelConfig, side: usize, steps: [usize; 3], ratio: f64, txt: usize) -> Flops {
    let m = (side / 32) * (side / 32);
    let k = (ratio * m as f64) as usize;
    let stages = [m, m + 3 * k, 4 * m];
    stages.iter().zip(steps).map(|(m, n)| step(config, *m, txt) * n as f64).sum::<Flops>()
        + cost::vae_decode(&config.vae, side / 16, side / 16)
        + cost::vae_decode(&config.vae, side / 8, side / 8)
        + cost::text_encoders(config, txt)
}

const X4: ([usize; 3], f64) = ([5, 6, 7], 0.3);
const X5: ([usize; 3], f64) = ([4, 5, 6], 0.2);
const X7: ([usize; 3], f64) = ([2, 3, 5], 0.1);

#[test]
fn flops_of_the_papers_table() {
    let dev = builtin::get("flux.1-dev").unwrap();
    for (steps, expected) in [(50, 2990.39), (10, 609.90), (7, 431.37)] {
        assert_tera(plain(&dev, 1024, steps, 512).linear, expected);
    }
    let run =
        |(steps, _): ([usize; 3], f64), ratio, txt| ralu_run(&dev, 1024, steps, ratio, txt).linear;
    assert_tera(run(X4, 0.3, 512), 723.54);
    assert_tera(run(X5, 0.2, 256), 540.37);
    assert_tera(run(X5, 0.2, 512), 592.49);
    assert_tera(run(X7, 0.1, 512), 425.92);
    assert_tera(run(X7, 0.2, 512), 437.78);
    let edges = cost::vae_decode(&dev.vae, 64, 64).linear;
    assert_tera(run(X7, 0.1, 512) - edges, 423.44);
    assert_tera((step(&dev, 4096, 512) * 50.0).total(), 3719.2);

    let schnell = builtin::get("flux.1-schnell").unwrap();
    assert_tera(plain(&schnell, 1024, 4, 512).linear, 252.83);
    assert_tera(ralu_run(&schnell, 1024, [1, 1, 2], 0.3, 512).linear, 187.88);
}

#[test]
fn flops_of_one_step_and_of_the_parts() {
    let dev = builtin::get("flux.1-dev").unwrap();
    for (m, linear, total) in [
        (1024, 19.85, 21.50),
        (1330, 23.8, 26.18),
        (1636, 27.8, 30.98),
        (1945, 31.7, 35.97),
        (4096, 59.51, 74.38),
    ] {
        let step = step(&dev, m, 512);
        // The table has three digits here and there.
        assert!((step.linear / 1e12 - linear).abs() < 0.06, "{m}: {step:?}");
        assert!((step.total() / 1e12 - total).abs() < 0.01, "{m}: {step:?}");
    }
    let low = cost::vae_decode(&dev.vae, 64, 64);
    assert_tera(low.linear, 2.4806);
    assert!((low.linear / 4096.0 / 605.6e6 - 1.0).abs() < 1e-3);
    assert_eq!(low.attention, 2048.0 * 4096.0 * 4096.0);
    assert_tera(cost::vae_decode(&dev.vae, 128, 128).linear, 9.9224);
    let t5 = t5(&dev).unwrap();
    assert_tera(t5.flops(512).total(), 4.845);
    assert_tera(t5.flops(256).total(), 2.397);
    assert!((clips(&dev)[0].flops(77).total() / 1e9 - 13.0).abs() < 0.5);
}

/// An SD3 run as [`ralu_run`] or, with `None`, as [`plain`]: 77 tokens of CLIP and 256 of T5. Under classifier-free
/// guidance both prompts are encoded and both branches evaluated; the picture is decoded once.
fn sd3_run(
    config: &ModelConfig,
    steps: usize,
    ralu: Option<([usize; 3], f64)>,
    branches: usize,
) -> Flops {
    let decode = |side: usize| cost::vae_decode(&config.vae, side, side);
    let step = |tokens: usize| step(config, tokens, config.text_tokens(256));
    let sampling = match ralu {
        None => step(4096) * steps as f64,
        Some((steps, ratio)) => {
            let k = (ratio * 1024.0) as usize;
            let tokens = [1024, 1024 + 3 * k, 4096];
            tokens.iter().zip(steps).map(|(m, n)| step(*m) * n as f64).sum()
        }
    };
    let low = ralu.map_or(Flops::default(), |_| decode(64));
    (sampling + cost::text_encoders(config, 256)) * branches as f64 + low + decode(128)
}

const SD3_X2: ([usize; 3], f64) = ([5, 6, 9], 0.3);
const SD3_X3: ([usize; 3], f64) = ([3, 3, 6], 0.2);

#[test]
fn flops_of_the_papers_table_for_sd3() {
    let medium = builtin::get("sd3-medium").unwrap();
    assert_eq!(medium.text_tokens(256), 333);
    for (steps, expected) in [(28, 351.60), (14, 183.27), (9, 123.15)] {
        assert_tera(sd3_run(&medium, steps, None, 2).linear, expected);
    }
    assert_tera(sd3_run(&medium, 0, Some(SD3_X2), 2).linear, 181.04);
    assert_tera(sd3_run(&medium, 0, Some(SD3_X3), 2).linear, 116.58);
    let turbo = builtin::get("sd3.5-large-turbo").unwrap();
    assert_tera(sd3_run(&turbo, 4, None, 1).linear, 107.91);
    assert_tera(sd3_run(&turbo, 0, Some(([1, 1, 2], 0.3)), 1).linear, 82.21);
}

/// At 1024 x 1024 against 28 steps.
#[test]
fn speed_ups_of_sd3() {
    for (name, expected) in [
        ("sd3-medium", [1.94, 2.10, 3.02, 3.28]),
        ("sd3.5-medium", [1.97, 2.15, 3.08, 3.39]),
        ("sd3.5-large", [2.03, 2.12, 3.29, 3.44]),
    ] {
        let config = builtin::get(name).unwrap();
        // As in FLUX's table, the VAE's attention is left out, and the text encoders' is linear.
        let vae = |side: usize| cost::vae_decode(&config.vae, side, side).attention;
        let encoders = 2.0 * cost::text_encoders(&config, 256).attention;
        let full = sd3_run(&config, 28, None, 2);
        let mut found = Vec::new();
        for preset in [SD3_X2, SD3_X3] {
            let run = sd3_run(&config, 0, Some(preset), 2);
            found.push((full.linear + encoders) / (run.linear + encoders));
            found.push((full.total() - vae(128)) / (run.total() - vae(128) - vae(64)));
        }
        for (found, expected) in found.into_iter().zip(expected) {
            assert!((found - expected).abs() < 0.006, "{name}: {found}, expected {expected}");
        }
    }
}

/// GFLOP of one image token and one text token in the blocks, and the factors of attention.
#[test]
fn flops_of_sd3_tokens() {
    for (name, d, img, txt, joint, dual) in [
        ("sd3-medium", 1536.0, 1.358954, 1.316487, 147_456.0, 0.0),
        ("sd3.5-medium", 1536.0, 1.358954 + 0.245367, 1.316487, 147_456.0, 79_872.0),
        ("sd3.5-large", 2432.0, 5.394137, 5.287674, 369_664.0, 0.0),
    ] {
        let config = builtin::get(name).unwrap();
        let step = |m: usize, t: usize| step(&config, m, t);
        let Sd3Config { num_layers, dual_attention_layers, .. } = sd3(&config);
        let close = |found: f64, expected: f64| {
            // Seven digits are printed.
            assert!((found / 1e9 - expected).abs() < 1e-6, "{name}: {found}, expected {expected}");
        };
        // Without the patch embedding and the last layer, and without the context embedding.
        let base = step(1000, 100).linear;
        close(step(1001, 100).linear - base - 2.0 * 2.0 * 64.0 * d, img);
        // The paper's profiler counts the queries of the last block's text. Nothing reads what they would give, and we do
        // not compute them.
        let unread = 2.0 * d * d;
        close(step(1000, 101).linear - base - 2.0 * 4096.0 * d + unread, txt);
        let (m, t) = (1000.0, 100.0);
        let last = joint / *num_layers as f64;
        let attention = joint * (m + t) * (m + t) - last * t * (m + t) + dual * m * m;
        assert_eq!(step(1000, 100).attention, attention, "{name}");
        // The ends, and the blocks' modulations.
        let ends = Sd3Config { num_layers: 0, ..sd3(&config).clone() };
        let ends = (&ends as &dyn TransformerConfig).step_flops(1000, 100);
        let vectors = 12 * num_layers - 4 + 3 * dual_attention_layers.len();
        let modulations = 2.0 * d * d * vectors as f64;
        let blocks = base - ends.linear - modulations + 100.0 * unread;
        assert!((blocks / 1e9 / (1000.0 * img + 100.0 * txt) - 1.0).abs() < 1e-6, "{name}");
        assert_eq!(ends.attention, 0.0);
    }
    let config = builtin::get("sd3-medium").unwrap();
    let [l, g] = clips(&config)[..] else { panic!("two CLIPs") };
    // To the digits that are printed.
    assert!((l.flops(77).linear / 1e12 - 0.013).abs() < 5e-4);
    assert!((g.flops(77).linear / 1e12 - 0.097).abs() < 5e-4);
    let t5 = t5(&config).unwrap().flops(256);
    assert_eq!(cost::text_encoders(&config, 256), l.flops(77) + g.flops(77) + t5);
}

#[test]
fn speed_up_at_1024() {
    let dev = builtin::get("flux.1-dev").unwrap();
    // The table leaves the VAE's attention out (0.06 % of the 4x run); so do we, to compare two decimals.
    let vae = |side: usize| cost::vae_decode(&dev.vae, side / 8, side / 8).attention;
    let half = plain(&dev, 1024, 28, 512).total() - vae(1024);
    let full = plain(&dev, 1024, 50, 512);
    for ((steps, ratio), linear, total, honest) in
        [(X4, 4.13, 4.34, 2.44), (X5, 5.05, 5.30, 2.98), (X7, 7.02, 7.31, 4.11)]
    {
        let run = ralu_run(&dev, 1024, steps, ratio, 512);
        let run_total = run.total() - vae(512) - vae(1024);
        let found =
            [full.linear / run.linear, (full.total() - vae(1024)) / run_total, half / run_total];
        for (found, expected) in found.into_iter().zip([linear, total, honest]) {
            assert!((found - expected).abs() < 0.006, "{found}, expected {expected}");
        }
    }
}

#[test]
fn parameters_of_the_published_models() {
    let dev = Parameters::of(&builtin::get("flux.1-dev").unwrap());
    assert_eq!(dev.transformer, 11_901_408_320);
    let t5 = 4_762_310_656;
    assert_eq!(dev.text_encoders, [123_060_480, t5]);
    assert_eq!(dev.vae_decoder, 49_545_475);
    let schnell = builtin::get("flux.1-schnell").unwrap();
    assert_eq!(Parameters::of(&schnell).transformer, 11_891_178_560);
    assert_eq!(builtin::weight_bytes(&schnell, 2).transformer, 2 * 11_891_178_560);
    for (name, transformer) in [
        ("sd3-medium", 2_028_328_000),
        ("sd3.5-medium", 2_243_171_520),
        ("sd3.5-large", 8_056_627_520),
        ("sd3.5-large-turbo", 8_056_627_520),
    ] {
        let config = builtin::get(name).unwrap();
        let text_encoders = vec![123_650_304, 694_659_840, t5];
        let found = Parameters::of(&config);
        assert_eq!(found, Parameters { transformer, text_encoders, ..dev }, "{name}");
        let bytes = builtin::weight_bytes(&config, 2);
        assert_eq!((bytes.transformer, bytes.text_encoders[2]), (2 * transformer, 2 * t5));
    }
}
