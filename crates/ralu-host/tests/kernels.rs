//! What is kept of the test of cooperative matrices from one run to the next.
//!
//! Devices say that they have matrices and have none, so that their test fails on any adapter.

use ralu::checkpoint::source::{Folder, Source};
use ralu::gpu::{AdapterChoice, FeaturesPolicy, Gpu};
use ralu::models::config::ModelConfig;
use ralu::pipeline::Settings;
use ralu::pipeline::tune::{MatrixTest, Tuner, TuningEvent};
use ralu::{Options, RaluChoice, Request};
use ralu_host::{CacheDir, kernels};

use crate::common::{choice, model};

fn pretender() -> Gpu {
    let choice = AdapterChoice { features: FeaturesPolicy::None, ..choice() };
    let gpu = pollster::block_on(Gpu::open(&choice)).expect("an adapter; software will do");
    gpu.with_caps(|caps| {
        caps.f16 = true;
        caps.subgroup_sizes = Some((32, 32));
        caps.cooperative_matrix = Some(8);
    })
}

/// Chooses kernels for `gpu`. Gives what was chosen, and what was told of kernels that failed.
fn choose(
    gpu: &Gpu,
    cache: &CacheDir,
    seconds: f64,
) -> (Result<kernels::Chosen, ralu::gpu::Error>, Vec<String>) {
    let folder = Folder::open(model()).expect("the fixture's model");
    let source = &folder as &dyn Source;
    let config = ModelConfig::load(source).expect("the fixture's model");
    let request = Request::new("a fox").size(64, 64).ralu(RaluChoice::Off);
    let settings = Settings::resolve(&request, &config).expect("a sensible request");
    let tuner = Tuner::new(gpu, &config, Some(source), &settings, Options::default(), seconds);
    let mut failed = vec![];
    let chosen = kernels::choose(
        gpu,
        tuner.expect("a sensible request"),
        Some(cache),
        || true,
        |event| {
            if let TuningEvent::Failed { what, .. } = event {
                failed.push(what.clone());
            }
        },
    );
    (chosen.map(|chosen| chosen.expect("nobody stops it")), failed)
}

fn says(failed: &[String]) -> bool {
    failed.iter().any(|what| what == "cooperative matrices")
}

#[test]
fn matrices_that_fail_are_off_in_later_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = CacheDir::find(Some(folder.path())).expect("given");
    let (first, failed) = choose(&pretender(), &cache, 0.0);
    assert!(says(&failed), "{failed:?}");
    let measured = first.expect("the device goes on").measured.expect("nothing was kept");
    assert!(matches!(measured.matrices, Some(MatrixTest::Failed { .. })), "{measured:?}");
    let (second, failed) = choose(&pretender(), &cache, 0.0);
    let second = second.expect("kept");
    assert!(second.measured.is_none() && failed.is_empty(), "{failed:?}");
    assert!(second.tuning.without_matrices);
}

/// A device that is lost in the test takes no other with it.
#[test]
fn the_loss_of_a_device_to_matrices_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = CacheDir::find(Some(folder.path())).expect("given");
    let gpu = pretender();
    gpu.destroy();
    let (lost, failed) = choose(&gpu, &cache, 0.0);
    assert!(matches!(lost, Err(ralu::gpu::Error::Lost { .. })), "it was destroyed");
    assert!(says(&failed), "{failed:?}");
    // What runs without measurements is told what was learnt.
    assert!(pretender().learn_from(&gpu).caps().tuning.without_matrices);

    // The next run measures the other kernels, and tests nothing that could be lost again: that the test was not run shows
    // in its reason, which is still the loss.
    let (second, _) = choose(&pretender(), &cache, 0.0);
    let measured = second.expect("this device goes on").measured.expect("nothing was measured yet");
    let Some(MatrixTest::Failed { reason, .. }) = &measured.matrices else {
        panic!("{measured:?}")
    };
    assert!(!reason.contains("kernel"), "{reason}");
    assert!(measured.tuning.without_matrices && !measured.measured.is_empty());
    let (third, _) = choose(&pretender(), &cache, 0.0);
    assert!(third.expect("kept").measured.is_none());
}
