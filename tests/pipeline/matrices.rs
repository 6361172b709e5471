//! The test of cooperative matrices that goes before their first use, and what follows from it.
//!
//! Devices without matrices say that they have some: their compilers refuse such kernels, as a driver may that lists
//! matrices and cannot compile them.

use ralu::checkpoint::source::{Folder, Source};
use ralu::gpu::{AdapterChoice, FeaturesPolicy, Gpu, block_on};
use ralu::models::config::ModelConfig;
use ralu::models::layers::Precision;
use ralu::ops::choice;
use ralu::pipeline::tune::{MatrixTest, Tuner, TuningEvent, TuningRecord, test_matrices};
use ralu::pipeline::{RaluChoice, Request, Settings};
use ralu::tensor::{AttentionKernel, Caps, MatmulKernel};

/// A device that rounds products to f16, if it has matrices.
fn with_matrices() -> Option<Gpu> {
    let gpu = crate::common::gpu().with_caps(|caps| caps.f16 = true);
    let has_matrices = choice::matrices(&gpu.caps()).is_some();
    if !has_matrices {
        println!("this adapter has no cooperative matrices: NOT RUN");
    }
    has_matrices.then_some(gpu)
}

/// A device that only says so.
fn pretender() -> Gpu {
    let choice = AdapterChoice { features: FeaturesPolicy::None, ..crate::common::choice() };
    let gpu = pollster::block_on(Gpu::open(&choice)).unwrap();
    gpu.with_caps(|caps| {
        caps.f16 = true;
        caps.subgroup_sizes = Some((32, 32));
        caps.cooperative_matrix = Some(8);
    })
}

/// What recordings on a device would run.
fn kernels(caps: &Caps) -> (MatmulKernel, AttentionKernel) {
    let mut caps = *caps;
    caps.tuning.matmul = [Some(MatmulKernel::Cooperative); 3];
    caps.tuning.attention = Some(AttentionKernel::Matrices);
    let side = caps.cooperative_matrix.unwrap_or(16) as usize;
    (choice::matmul(&caps, 1000), choice::attention(&caps, 8 * side))
}

const ON_MATRICES: (MatmulKernel, AttentionKernel) =
    (MatmulKernel::Cooperative, AttentionKernel::Matrices);

#[track_caller]
fn assert_off(gpu: &Gpu) {
    assert!(gpu.caps().tuning.without_matrices);
    assert!(!gpu.caps().rounds_to_f16());
    let (product, attention) = kernels(&gpu.caps());
    assert_ne!(product, MatmulKernel::Cooperative);
    assert_ne!(attention, AttentionKernel::Matrices);
    // Nothing is left to be tested.
    assert_eq!(block_on(gpu, test_matrices(gpu)), None);
}

fn test(gpu: &Gpu) -> MatrixTest {
    block_on(gpu, test_matrices(gpu)).expect("there are matrices")
}

#[test]
fn matrices_of_this_adapter_are_right() {
    let Some(gpu) = with_matrices() else { return };
    assert_eq!(test(&gpu), MatrixTest::Ok);
    assert!(!gpu.caps().tuning.without_matrices);
    assert_eq!(kernels(&gpu.caps()), ON_MATRICES);
}

#[test]
fn wrong_results_turn_matrices_off() {
    // A product that leaves out a matrix, one that takes it for another, and a softmax without a row's largest score.
    for (kernel, from, to, in_words) in [
        ("matmul_cooperative", "s01 = coopMultiplyAdd(a0, b1, s01)", "s01 = s01", "a product"),
        (
            "matmul_cooperative",
            "put_w(to_w + STRIDE, next_w.b)",
            "put_w(to_w + STRIDE, next_w.c)",
            "a product",
        ),
        ("attention_matrices", "total *= decay;", "", "attention"),
        (
            "attention_matrices",
            "coopLoad<Right>(&tile[c + SIDE], V_STRIDE)",
            "coopLoad<Right>(&tile[c], V_STRIDE)",
            "attention",
        ),
    ] {
        let Some(gpu) = with_matrices() else { return };
        gpu.faults().altered_kernels.lock().push([kernel, from, to]);
        let outcome = test(&gpu);
        let MatrixTest::Mismatch { what, found } = &outcome else { panic!("{from}: {outcome:?}") };
        assert!(what.starts_with(in_words), "{from}: {what}");
        assert!(found.contains("where"), "{from}: {found}");
        assert!(outcome.complaint().is_some_and(|text| text.contains("is wrong")), "{outcome:?}");
        assert_off(&gpu);
        gpu.check().expect("the device goes on");
    }
}

#[test]
fn kernels_that_do_not_compile_turn_matrices_off() {
    if let Some(gpu) = with_matrices() {
        gpu.faults().broken_kernels.lock().push("attention_matrices");
        let outcome = test(&gpu);
        let MatrixTest::Failed { what, reason } = &outcome else { panic!("{outcome:?}") };
        assert!(
            what.starts_with("attention") && reason.contains("attention_matrices"),
            "{outcome:?}"
        );
        assert_off(&gpu);
    }
    let gpu = pretender();
    let outcome = test(&gpu);
    let MatrixTest::Failed { what, reason } = &outcome else { panic!("{outcome:?}") };
    assert!(what.starts_with("a product") && reason.contains("matmul_cooperative"), "{outcome:?}");
    assert_off(&gpu);
    gpu.check().expect("the device goes on");
}

#[test]
fn a_lost_device_turns_matrices_off() {
    let gpu = pretender();
    gpu.destroy();
    let outcome = pollster::block_on(test_matrices(&gpu)).expect("there are matrices");
    assert!(matches!(outcome, MatrixTest::Failed { .. }), "{outcome:?}");
    assert!(gpu.caps().tuning.without_matrices);
}

#[test]
fn without_leave_to_round_nothing_is_tested() {
    let gpu = pretender().with_caps(|caps| caps.f16 = false);
    assert_eq!(block_on(&gpu, test_matrices(&gpu)), None);
    assert!(!gpu.caps().tuning.without_matrices);
}

#[test]
fn the_tuner_tests_matrices_first_and_its_record_keeps_them_off() {
    let gpu = pretender();
    let folder =
        Folder::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/flux-a/model")).unwrap();
    let source = &folder as &dyn Source;
    let config = ModelConfig::load(source).unwrap();
    let request = Request::new("a fox").size(128, 128).ralu(RaluChoice::Off);
    let settings = Settings::resolve(&request, &config).unwrap();
    let mut tuner =
        Tuner::new(&gpu, &config, Some(source), &settings, Precision::Auto, 0.0).unwrap();
    let event = block_on(&gpu, tuner.next()).unwrap();
    let Some(TuningEvent::Failed { what, reason }) = event else { panic!("{event:?}") };
    assert_eq!(what, "cooperative matrices");
    assert!(reason.contains("a product") && reason.contains("failed"), "{reason}");
    while block_on(&gpu, tuner.next()).unwrap().is_some() {}
    let key = tuner.key().clone();
    let record = tuner.record();
    assert!(matches!(record.matrices, Some(MatrixTest::Failed { .. })), "{record:?}");
    // No kernel on matrices is left to be chosen, and what is kept says so to the next run.
    for measured in &record.measured {
        for kernel in &measured.kernels {
            assert!(!["cooperative", "matrices"].contains(&&*kernel.kernel), "{measured:?}");
        }
    }
    let kept = TuningRecord::read(record.to_json().unwrap().as_bytes(), &key).unwrap();
    assert_eq!(kept, record);
    let next = pretender().with_caps(|caps| caps.tuning = kept.tuning);
    assert_off(&next);
}
