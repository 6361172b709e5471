//! What `ralu plan` says of a run, against the figures of RALU's paper and against a real run.

use ralu::models::builtin;
use ralu::pipeline::{Options, Plan, RaluChoice, Request, Settings, plan::plan};
use ralu::sampling::{CustomStages, Preset};
use ralu::tensor::Caps;

fn planned(model: &str, request: Request) -> Plan {
    planned_with(model, request, Options::default())
}

fn planned_with(model: &str, request: Request, options: Options) -> Plan {
    let config = builtin::get(model).unwrap();
    let settings = Settings::resolve(&request, &config).unwrap();
    plan(&config, None, &settings, Caps::default(), options).unwrap()
}

/// RALU paper v3, table 1 and 2, as computed by the cost model (linear operations, 10^12), at 1024 x 1024.
#[test]
fn plans_have_the_papers_operations_and_speed_ups() {
    let preset = |preset| Request::new("").ralu(RaluChoice::Preset(preset));
    let plain =
        |steps| Request::new("").ralu(RaluChoice::Off).with(|request| request.steps = Some(steps));
    let text = |n, request: Request| request.with(|request| request.max_sequence_length = Some(n));
    let four = RaluChoice::Custom(CustomStages {
        stage_steps: vec![1, 1, 2],
        stage_ends: vec![0.3, 0.45, 1.0],
        up_ratio: 0.3,
        stage_shifts: None,
        stage_z: None,
    });
    let cases = [
        ("flux.1-dev", plain(50), 2990.39, 1.0),
        ("flux.1-dev", plain(10), 609.90, 2990.39 / 609.90),
        ("flux.1-dev", plain(7), 431.37, 2990.39 / 431.37),
        ("flux.1-dev", preset(Preset::X4), 723.54, 4.133),
        ("flux.1-dev", text(256, preset(Preset::X5)), 540.37, 5.22),
        ("flux.1-dev", preset(Preset::X5), 592.49, 5.047),
        ("flux.1-dev", preset(Preset::X7), 425.92, 7.021),
        ("flux.1-schnell", text(512, plain(4)), 252.83, 1.0),
        ("flux.1-schnell", text(512, Request::new("").ralu(four)), 187.88, 252.83 / 187.88),
    ];
    for (model, request, tflops, speedup) in cases {
        let plan = planned(model, request.size(1024, 1024));
        let close = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-3;
        assert!(close(plan.tflops.linear, tflops), "{model}: {} TFLOPs", plan.tflops.linear);
        assert!(close(plan.speedup, speedup), "{model}: {}x, expected {speedup}", plan.speedup);
    }
}

/// RALU paper v3, tables 1 and 2, for SD3 at 1024 x 1024: 77 tokens of CLIP and 256 of T5. Under classifier-free
/// guidance (SD3's habit, not the turbo's) the text encoders and every step count twice, decoding once.
#[test]
fn plans_have_the_papers_operations_for_sd3() {
    let preset = |preset| Request::new("").ralu(RaluChoice::Preset(preset));
    let plain =
        |steps| Request::new("").ralu(RaluChoice::Off).with(|request| request.steps = Some(steps));
    let [medium, medium_3_5, large, turbo] =
        ["sd3-medium", "sd3.5-medium", "sd3.5-large", "sd3.5-large-turbo"];
    let cases = [
        (medium, plain(28), 2, 351.60),
        (medium, plain(14), 2, 183.27),
        (medium, plain(9), 2, 123.15),
        (medium, preset(Preset::X2), 2, 181.04),
        (medium, preset(Preset::X3), 2, 116.58),
        (turbo, plain(4), 1, 107.91),
        (turbo, preset(Preset::Distilled), 1, 82.21),
    ];
    for (model, request, evaluations, tflops) in cases {
        let plan = planned(model, request);
        assert_eq!((plan.width, plan.height, plan.text_tokens), (1024, 1024, 333));
        assert_eq!(plan.evaluations_per_step, evaluations, "{model}");
        assert_eq!(plan.baseline.steps, if evaluations == 2 { 28 } else { 4 });
        let found = plan.tflops.linear;
        assert!((found / tflops - 1.0).abs() < 1e-3, "{model}: {found} TFLOPs, expected {tflops}");
    }

    let cases = [
        (medium, Preset::X2, 1.94, 2.10),
        (medium, Preset::X3, 3.02, 3.28),
        (medium_3_5, Preset::X2, 1.97, 2.15),
        (medium_3_5, Preset::X3, 3.08, 3.39),
        (large, Preset::X2, 2.03, 2.12),
        (large, Preset::X3, 3.29, 3.44),
    ];
    for (model, ralu, linear, with_attention) in cases {
        let plan = planned(model, preset(ralu));
        // Two decimals are printed.
        let found = plan.speedup;
        assert!((found - linear).abs() < 0.006, "{model} {ralu}: {found}x, expected {linear}");
        // These leave out the decoder's attention, 0.58 TFLOP of no less than 150.
        let found = plan.speedup_with_attention;
        let tolerance = 0.005 + 0.58 / 150.0 * found;
        let close = (found - with_attention).abs() < tolerance;
        assert!(close, "{model} {ralu}: {found}x, expected {with_attention}");
    }
}

/// The widest pictures are those of the table of positions, not those of the largest request.
#[test]
fn sd3_pictures_are_not_larger_than_the_table_of_positions() {
    let resolve = |model: &str, width: usize| {
        let config = builtin::get(model).unwrap();
        let request = Request::new("").ralu(RaluChoice::Off).size(width, 16);
        let settings = Settings::resolve(&request, &config).unwrap();
        plan(&config, None, &settings, Caps::default(), Options::default())
    };
    assert!(resolve("sd3-medium", 192 * 16).is_ok());
    assert!(resolve("sd3.5-medium", 192 * 16 + 1).is_ok());
    let message = resolve("sd3-medium", 192 * 16 + 1).unwrap_err().to_string();
    for part in ["width", "3072", "192"] {
        assert!(message.contains(part), "{message}");
    }
}

/// Weights in 16 bits, as published: 2.03 billion in the transformer, 49.5 million in the decoder; 0.82 billion in the
/// CLIPs and 4.76 in T5, whose tables of tokens stay on the host (0.10 and 0.13 billion).
#[test]
fn memory_of_sd3_is_planned_without_weights() {
    let plan = planned("sd3-medium", Request::new("").ralu(RaluChoice::Preset(Preset::X2)));
    let memory = plan.memory;
    let gb = |bytes: u64| bytes as f64 / 1e9;
    let [denoiser, modulations] =
        [memory.denoiser_weights_bytes, memory.modulation_weights_bytes].map(gb);
    assert!((4.15..4.30).contains(&(denoiser + modulations)), "{memory:?}");
    // 24 blocks of 12 vectors of 1536, and the embeddings of time and text.
    assert!((1.35..1.45).contains(&modulations), "{memory:?}");
    assert!((10.6..10.9).contains(&gb(memory.text_encoder_weights_bytes)), "{memory:?}");
    assert_eq!(
        memory.peak_bytes,
        memory
            .encoding_bytes
            .max(memory.denoiser_weights_bytes + memory.temporaries_bytes + memory.states_bytes)
    );
}

/// 12 billion weights of the transformer in 16 bits are 23.8 GB; at 1024 x 1024 the decoder's pictures
/// (256 channels, 1 GiB) are the largest temporaries.
#[test]
fn memory_of_flux_1_dev_is_planned_without_weights() {
    let plan = planned("flux.1-dev", Request::new("").ralu(RaluChoice::Preset(Preset::X7)));
    let memory = plan.memory;
    let gb = |bytes: u64| bytes as f64 / 1e9;
    let [denoiser, modulations] =
        [memory.denoiser_weights_bytes, memory.modulation_weights_bytes].map(gb);
    assert!((23.8..24.2).contains(&(denoiser + modulations)), "{memory:?}");
    // 3.23 billion weights make modulations, and are not there while it draws.
    assert!((6.4..6.6).contains(&modulations), "{memory:?}");
    assert!((9.0..10.0).contains(&gb(memory.text_encoder_weights_bytes)), "{memory:?}");
    assert!((1.0..4.5).contains(&gb(memory.temporaries_bytes)), "{memory:?}");
    assert_eq!(
        memory.peak_bytes,
        memory.denoiser_weights_bytes + memory.temporaries_bytes + memory.states_bytes
    );
}

/// What a format saves is what its blocks take less than 16 bits a number, of the matrices of all blocks: of FLUX.1-dev's width
/// h = 3072, 24 h^2 numbers in each of 19 double blocks and 12 h^2 in each of 38 single ones, and for modulations 12 h^2 and
/// 3 h^2. T5-XXL's 24 layers have 4 matrices of 4096^2 numbers and 3 of 4096 x 10240, CLIP's 12 have 12 of 768^2.
#[test]
fn plans_have_the_bytes_of_quantised_weights() {
    let h2 = 3072u64 * 3072;
    let denoiser = (19 * 24 + 38 * 12) * h2;
    let modulation = (19 * 12 + 38 * 3) * h2;
    let t5 = 24 * (4 * 4096 * 4096 + 3 * 4096 * 10240u64);
    let clip = 12 * 12 * 768 * 768u64;
    let request = || Request::new("").ralu(RaluChoice::Off);
    let wide = planned("flux.1-dev", request()).memory;
    for (name, in_file, [numbers, bytes], has_encoders) in [
        ("q8_0", [32, 34], [64, 68], false),
        ("q6_k", [256, 210], [256, 212], false),
        ("q5_k", [256, 176], [256, 180], false),
        ("q5_0", [32, 22], [64, 44], false),
        ("q4_k", [256, 144], [256, 148], false),
        ("q4_0:all", [32, 18], [64, 36], true),
        ("q3_k", [256, 110], [256, 112], false),
        ("q2_k", [256, 84], [256, 84], false),
        // Codes, and an f32 for 64.
        ("nf4", [64, 36], [64, 36], false),
        ("fp8:all", [1, 1], [1, 1], true),
    ] {
        // Bytes of a number, in the file and here.
        let of = |[numbers, bytes]: [u64; 2]| bytes as f64 / numbers as f64;
        assert!(of([numbers, bytes]) <= 1.05 * of(in_file), "{name}");
        let options = Options::default().with(|options| options.quantise = name.parse().ok());
        let memory = planned_with("flux.1-dev", request(), options).memory;
        let saved = |all: u64| (2 * all - all / numbers * bytes) as f64;
        // fp8 has an f32 for each output, of which there are 1/768 as many as numbers, or fewer.
        let near = |wide: u64, found: u64, all: u64| {
            let off = saved(all) - (wide as f64 - found as f64);
            let most = if name.starts_with("fp8") { 4.0 * all as f64 / 768.0 } else { 0.0 };
            assert!((0.0..=most).contains(&off), "{name}: {found} of {wide} bytes are {off} off");
        };
        near(wide.denoiser_weights_bytes, memory.denoiser_weights_bytes, denoiser);
        near(wide.modulation_weights_bytes, memory.modulation_weights_bytes, modulation);
        let encoders = if has_encoders { t5 + clip } else { 0 };
        near(wide.text_encoder_weights_bytes, memory.text_encoder_weights_bytes, encoders);
    }
}
