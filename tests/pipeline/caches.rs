//! Temporal caches in whole runs: that they change nothing when they never reuse, that what they reuse is right, and
//! that the work they leave out is left out.
//!
//! The rules themselves (which steps, which weights) are tested in `cache_rules.rs`.

use std::path::PathBuf;

use ralu::checkpoint::source::Folder;
use ralu::gpu::block_on;
use ralu::pipeline::{
    Event, ImageReport, NamedTensor, NamedTensors, Options, Pipeline, RaluChoice, Request,
};
use ralu::sampling::{CustomStages, low_noise, pack, unpack_planes};

fn open(model: &str) -> Pipeline {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(model);
    let folder = Folder::open(folder).unwrap();
    Pipeline::open(crate::common::gpu(), Box::new(folder), Options::default()).unwrap()
}

const TINY_FLUX: &str = "models/tiny-flux";
/// Of the same family, much smaller.
const FLUX_B: &str = "tests/fixtures/flux-b/model";
/// Two branches of guidance, dual attention, q/k norms.
const SD35_MEDIUM: &str = "tests/fixtures/sd35m-b/model";
/// Two branches of guidance, modulations that all blocks share, noise that is saved packed.
const KLEIN_BASE: &str = "tests/fixtures/klein-base-b/model";

/// What a run made, and what it took.
struct Outcome {
    tensors: NamedTensors,
    report: ImageReport,
}

impl Outcome {
    #[track_caller]
    fn numbers(&self, name: &str) -> &[f32] {
        match self.tensors.0.get(name) {
            Some(NamedTensor::F32 { data, .. }) => data,
            other => panic!("{name}: {:?}", other.map(NamedTensor::shape)),
        }
    }

    /// The steps of all stages: `FFr F`.
    fn pattern(&self) -> String {
        let letter = |computed: &bool| if *computed { 'F' } else { 'r' };
        let stages: Vec<String> =
            self.report.computed.iter().map(|s| s.iter().map(letter).collect()).collect();
        stages.join(" ")
    }
}

fn run(pipeline: &Pipeline, request: &Request, cache: &str) -> Outcome {
    let mut request = request.clone();
    request.collect_tensors = true;
    request.cache = ralu::sampling::CacheSpec::parse_option(cache).unwrap();
    let mut run = pipeline.start(request).unwrap();
    let mut outcome = None;
    while let Some(event) = block_on(pipeline.gpu(), run.next()).unwrap() {
        if let Event::Image { tensors, report, .. } = event {
            outcome = Some(Outcome { tensors: tensors.unwrap(), report });
        }
    }
    outcome.unwrap()
}

fn request() -> Request {
    let mut request = Request::new("a fox on a purple background").size(128, 128).seed(3);
    request.max_sequence_length = Some(24);
    request
}

fn plain(steps: usize) -> Request {
    let mut request = request();
    request.steps = Some(steps);
    request.ralu = RaluChoice::Off;
    request
}

/// Steps and the first stage's end; the rest does not matter here.
fn staged(stage_steps: [usize; 3], first_end: f64) -> Request {
    let stage_ends = [first_end, (1.0 + first_end) / 2.0, 1.0];
    let (shifts, z) = (Some(vec![3.0; 3]), Some(6.0));
    request().ralu(RaluChoice::Custom(CustomStages {
        stage_steps: stage_steps.into(),
        stage_ends: stage_ends.into(),
        up_ratio: 0.3,
        stage_shifts: shifts,
        stage_z: z,
    }))
}

/// Every rule with parameters by which it never reuses.
const NEVER: [&str; 7] = [
    "fbc:threshold=0",
    "teacache:threshold=0",
    "taylorseer:interval=1",
    "taylorseer:interval=1,order=2",
    "taylorseer:interval=1,order=2,mode=blocks",
    "fora:interval=1",
    "magcache:threshold=0",
];

#[test]
fn a_cache_that_never_reuses_changes_no_bit() {
    for model in [FLUX_B, SD35_MEDIUM, KLEIN_BASE] {
        let pipeline = open(model);
        for request in [plain(3), staged([1, 3, 1], 0.3)] {
            let without = run(&pipeline, &request, "off");
            for cache in NEVER {
                let with = run(&pipeline, &request, cache);
                assert_eq!(with.report.n_reused(), 0, "{model} {cache}: {}", with.pattern());
                // Bits, so that NaN would not pass for equal.
                let bits = |o: &Outcome| -> Vec<u32> {
                    o.numbers("latents").iter().map(|v| v.to_bits()).collect()
                };
                assert!(bits(&with) == bits(&without), "{model} {cache}: other latents");
            }
        }
    }
}

/// Every rule with parameters by which it reuses whatever it may.
const ALWAYS: [&str; 6] = [
    "fbc:threshold=1000",
    "teacache:threshold=1000",
    "taylorseer:interval=100,warmup=0,order=0",
    "taylorseer:interval=100,warmup=0,order=0,mode=blocks",
    "fora:interval=100",
    "magcache:threshold=1000,max_skips=100,retention=0",
];

/// Two steps of the first stage that are so close that the network gives nearly the same twice: a reused second step
/// must lead to nearly the same place. A wrong residual, gate or order of modules would not.
#[test]
fn what_is_reused_is_what_was_computed() {
    const END: f64 = 1e-4;
    for model in [TINY_FLUX, SD35_MEDIUM, KLEIN_BASE] {
        let pipeline = open(model);
        let request = staged([2, 1, 1], END);
        let start = run(&pipeline, &request, "off");
        let (h, w) = (16, 16);
        let drawn = start.numbers("initial_noise");
        let drawn = match pipeline.config().family().packs_noise() {
            true => unpack_planes(drawn, h, w).unwrap(),
            false => drawn.to_vec(),
        };
        let noise = low_noise(&drawn, h, w).unwrap();
        let noise = pack(&noise, h / 2, w / 2).unwrap();
        let way = |outcome: &Outcome| -> Vec<f64> {
            let end = outcome.numbers("stage1_latents");
            end.iter().zip(&noise).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect()
        };
        let expected = way(&start);
        let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
        for cache in ALWAYS {
            let made = run(&pipeline, &request, cache);
            assert_eq!(made.pattern(), "Fr F F", "{model} {cache}");
            let actual = way(&made);
            let difference: Vec<f64> = actual.iter().zip(&expected).map(|(a, b)| a - b).collect();
            let distance = norm(&difference) / norm(&expected);
            println!("{model} {cache}: {distance:.1e}");
            // Latents of size 1 are rounded to 6e-8 and move by about 5e-5: 1e-3. The network itself changes by
            // the noise level's 5e-5, which random weights amplify a hundredfold.
            assert!(distance < 2e-2, "{model} {cache}: {distance:.2e}");
        }
    }
}

/// TaylorSeer of the output, in closed form: the velocities of the full steps follow from runs of lower order, and
/// with them the way of a run of higher order.
#[test]
fn taylorseer_follows_its_definition() {
    let pipeline = open(TINY_FLUX);
    let request = staged([4, 1, 1], 0.4);
    let made = |order: usize, warmup: usize| {
        let cache = format!("taylorseer:interval=100,order={order},warmup={warmup}");
        let outcome = run(&pipeline, &request, &cache);
        let expected: String = (0..4).map(|i| if i < warmup { 'F' } else { 'r' }).collect();
        assert_eq!(outcome.pattern(), format!("{expected} F F"), "{cache}");
        outcome
    };
    let one = made(0, 1);
    let sigmas = one.numbers("sigmas")[..5].to_vec();
    let noise = low_noise(one.numbers("initial_noise"), 16, 16).unwrap();
    let x0: Vec<f64> = pack(&noise, 8, 8).unwrap().iter().map(|v| f64::from(*v)).collect();
    let end = |o: &Outcome| -> Vec<f64> {
        o.numbers("stage1_latents").iter().map(|v| f64::from(*v)).collect()
    };
    // From step i on one velocity leads to the end: v = (end - x) / (sigma_4 - sigma_i).
    let velocity = |x: &[f64], o: &Outcome, i: usize| -> Vec<f64> {
        let way = f64::from(sigmas[4]) - f64::from(sigmas[i]);
        x.iter().zip(end(o)).map(|(x, end)| (end - x) / way).collect()
    };
    let step = |x: &[f64], v: &[f64], i: usize| -> Vec<f64> {
        let delta = f64::from(sigmas[i + 1]) - f64::from(sigmas[i]);
        x.iter().zip(v).map(|(x, v)| x + delta * v).collect()
    };
    let combine = |parts: &[(&[f64], f64)]| -> Vec<f64> {
        (0..x0.len()).map(|i| parts.iter().map(|(v, w)| v[i] * w).sum()).collect()
    };
    let v0 = velocity(&x0, &one, 0);
    let x1 = step(&x0, &v0, 0);
    let v1 = velocity(&x1, &made(0, 2), 1);
    let x2 = step(&x1, &v1, 1);
    let v2 = velocity(&x2, &made(0, 3), 2);
    let x3 = step(&x2, &v2, 2);

    // Order 1 after two full steps: F1 = v1 - v0, predictions v1 + F1 and v1 + 2 F1.
    let mut order1 = x2.clone();
    for (i, d) in [(2, 1.0), (3, 2.0)] {
        order1 = step(&order1, &combine(&[(&v1, 1.0 + d), (&v0, -d)]), i);
    }
    // Order 2 after three: F1 = v2 - v1, F2 = F1 - (v1 - v0), prediction v2 + F1 + F2 / 2.
    let order2 = step(&x3, &combine(&[(&v2, 2.5), (&v1, -2.0), (&v0, 0.5)]), 3);
    // Order 2 with only two full steps is order 1.
    for (label, expected, outcome) in [
        ("order 1", &order1, made(1, 2)),
        ("order 2", &order2, made(2, 3)),
        ("order 2, too early", &order1, made(2, 2)),
    ] {
        let actual = end(&outcome);
        let most = actual.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        println!("{label}: {most:.1e}");
        // Latents of up to 5 rounded to f32 in four steps, 3e-7 each; the velocities above divide such errors by
        // ways of 0.1 and more and go back over as long a way, with weights of up to 3.
        assert!(most < 2e-5, "{label}: off by {most:.1e}");
    }
}

/// Work that is left out is not done: the GPU's programs have as many operations fewer as the reused steps had.
#[test]
fn reused_steps_cost_next_to_nothing() {
    let pipeline = open(TINY_FLUX);
    let request = plain(5);
    let without = run(&pipeline, &request, "off").report;
    let one = run(&pipeline, &plain(4), "off").report;
    let step = without.flops - one.flops;
    for cache in ALWAYS {
        let with = run(&pipeline, &request, cache).report;
        assert_eq!(with.n_reused(), 3, "{cache}");
        // What is left of a step: nothing (output), embeddings and last layer, or the first of eight blocks, too.
        let left = (with.flops - (without.flops - 3.0 * step)) / (3.0 * step);
        println!("{cache}: {:.1} % of a step is left", 100.0 * left);
        let most = if cache.starts_with("fbc") { 0.25 } else { 0.12 };
        assert!(left < most, "{cache}: {:.1} % of a step is left", 100.0 * left);
    }
}

/// A cache is forgotten at jumps, and every picture of a request has its own.
#[test]
fn every_picture_starts_anew() {
    let pipeline = open(TINY_FLUX);
    let mut request = staged([3, 3, 3], 0.3);
    request.count = Some(2);
    request.cache = "taylorseer:interval=2,warmup=1".parse().map(Some).unwrap();
    request.collect_tensors = true;
    let mut run_both = pipeline.start(request.clone()).unwrap();
    let mut latents = Vec::new();
    while let Some(event) = block_on(pipeline.gpu(), run_both.next()).unwrap() {
        if let Event::Image { tensors, report, .. } = event {
            let outcome = Outcome { tensors: tensors.unwrap(), report };
            assert_eq!(outcome.pattern(), "FrF FrF FrF");
            latents.push(outcome.numbers("latents").to_vec());
        }
    }
    request.count = None;
    request.seed += 1;
    let alone = run(&pipeline, &request, "taylorseer:interval=2,warmup=1");
    assert!(latents[1] == alone.numbers("latents"), "the second picture differs from its own run");
}
