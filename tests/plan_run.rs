//! What `ralu plan` says of a run, against the figures of RALU's paper and against a real run.

use ralu::models::builtin;
use ralu::models::layers::Precision;
use ralu::pipeline::{Plan, RaluChoice, Request, Settings, plan::plan};
use ralu::sampling::Preset;
use ralu::tensor::Caps;

fn planned(model: &str, request: Request) -> Plan {
    let config = builtin::get(model).unwrap();
    let settings = Settings::resolve(&request, &config).unwrap();
    plan(&config, None, &settings, Caps::default(), Precision::Auto).unwrap()
}

/// RALU paper v3, table 1 and 2, as computed by the cost model (linear operations, 10^12), at 1024 x 1024.
#[test]
fn plans_have_the_papers_operations_and_speed_ups() {
    let preset = |preset| Request::new("").ralu(RaluChoice::Preset(preset));
    let plain = |steps| Request { steps: Some(steps), ..Request::new("").ralu(RaluChoice::Off) };
    let text = |n, request| Request { max_sequence_length: Some(n), ..request };
    let four = RaluChoice::Custom {
        stage_steps: [1, 1, 2],
        stage_ends: [0.3, 0.45, 1.0],
        up_ratio: 0.3,
        shifts: None,
        z: None,
    };
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

/// 12 billion weights of the transformer in 16 bits are 23.8 GB; at 1024 x 1024 the decoder's pictures
/// (256 channels, 1 GiB) are the largest temporaries.
#[test]
fn memory_of_flux_1_dev_is_planned_without_weights() {
    let plan = planned("flux.1-dev", Request::new("").ralu(RaluChoice::Preset(Preset::X7)));
    let memory = plan.memory;
    let gb = |bytes: u64| bytes as f64 / 1e9;
    assert!((23.8..24.2).contains(&gb(memory.denoiser_weights_bytes)), "{memory:?}");
    assert!((9.0..10.0).contains(&gb(memory.text_encoder_weights_bytes)), "{memory:?}");
    assert!((1.0..4.5).contains(&gb(memory.temporaries_bytes)), "{memory:?}");
    assert_eq!(
        memory.peak_bytes,
        memory.denoiser_weights_bytes + memory.temporaries_bytes + memory.states_bytes
    );
}
