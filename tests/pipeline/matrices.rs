//! The test of cooperative matrices that goes before their first use, and what follows from it.
//!
//! Devices without matrices say that they have some: their compilers refuse such kernels, as a driver may that lists
//! matrices and cannot compile them.

use ralu::checkpoint::source::{Folder, Source};
use ralu::gpu::{AdapterChoice, FeaturesPolicy, Gpu, block_on, block_on_while};
use ralu::models::config::ModelConfig;
use ralu::models::layers::Precision;
use ralu::ops::choice;
use ralu::pipeline::tune::{MatrixTest, Tuner, TuningEvent, TuningRecord, test_matrices};
use ralu::pipeline::{
    Error, Event, ImageReport, Options, Picture, Pipeline, Products, RaluChoice, Request, Settings,
};
use ralu::tensor::{AttentionKernel, Caps, MatmulKernel, Storage};

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
    (choice::matmul(&caps, 1000, Storage::F16), choice::attention(&caps, 8 * side))
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
    // A product and a convolution that leave out a matrix, or take one for another, and a softmax without a row's largest score.
    for (kernel, from, to, in_words) in [
        ("matmul_cooperative", "s01 = coopMultiplyAdd(a0, b1, s01)", "s01 = s01", "a product"),
        (
            "matmul_cooperative",
            "put_w(to_w + STRIDE, next_w.b)",
            "put_w(to_w + STRIDE, next_w.c)",
            "a product",
        ),
        ("conv2d_matrices", "s11 = coopMultiplyAdd(a1, b1, s11)", "s11 = s11", "a convolution"),
        (
            "conv2d_matrices",
            "put_w(to_w + CHANNELS, w2, w3)",
            "put_w(to_w + CHANNELS, w0, w1)",
            "a convolution",
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
    // Not by the path that it was built in: `scripts/gpu-check` runs it elsewhere.
    let folder = Folder::open("tests/fixtures/flux-a/model").unwrap();
    let source = &folder as &dyn Source;
    let config = ModelConfig::load(source).unwrap();
    let request = Request::new("a fox").size(128, 128).ralu(RaluChoice::Off);
    let settings = Settings::resolve(&request, &config).unwrap();
    let mut tuner =
        Tuner::new(&gpu, &config, Some(source), &settings, Options::default(), 0.0).unwrap();
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

// ---- before a run uses them ------------------------------------------------------------------------

fn open(gpu: Gpu, precision: Precision) -> Pipeline {
    let model = Folder::open("models/tiny-flux").unwrap();
    let options = Options::default().with(|options| options.precision = precision);
    Pipeline::open(gpu, Box::new(model), options).unwrap()
}

/// A picture of 8 x 8 tokens, two steps: products have hundreds of rows with the text's.
fn draw(pipeline: &Pipeline) -> (Picture, ImageReport) {
    let (drawn, warnings) = told(pipeline);
    assert!(warnings.is_empty(), "{warnings:?}");
    drawn.unwrap()
}

fn told(pipeline: &Pipeline) -> (Result<(Picture, ImageReport), Error>, Vec<String>) {
    let request = Request::new("a red apple").size(128, 128).ralu(RaluChoice::Off).seed(3);
    let mut run = pipeline.start(request.with(|request| request.steps = Some(2))).unwrap();
    let mut warnings = vec![];
    loop {
        match block_on_while(pipeline.gpu(), run.next(), || true).unwrap() {
            Err(error) => return (Err(error), warnings),
            Ok(Some(Event::Warning(warning))) => warnings.push(warning),
            Ok(Some(Event::Image { picture, report, .. })) => {
                return (Ok((picture, report)), warnings);
            }
            Ok(Some(_)) => {}
            Ok(None) => unreachable!("a run ends with its picture"),
        }
    }
}

/// Has a device use matrices wherever it can.
fn prefers_matrices(gpu: Gpu) -> Gpu {
    gpu.with_caps(|caps| {
        caps.tuning.matmul = [Some(MatmulKernel::Cooperative); 3];
        caps.tuning.attention = Some(AttentionKernel::Matrices);
    })
}

#[test]
fn a_run_tests_matrices_before_it_uses_them() {
    let Some(gpu) = with_matrices() else { return };
    let pipeline = open(prefers_matrices(gpu), Precision::Auto);
    let (_, report) = draw(&pipeline);
    assert_eq!(report.products, Products::F16);
    assert!(pipeline.gpu().caps().rounds_to_f16());
    // Not once more: a kernel that is wrong by now is not found out.
    let before = pipeline.gpu().counters().pipelines;
    draw(&pipeline);
    assert_eq!(pipeline.gpu().counters().pipelines, before);
}

#[test]
fn a_run_does_without_matrices_that_are_wrong() {
    let Some(gpu) = with_matrices() else { return };
    let in_f32 = open(crate::common::gpu().with_caps(|caps| caps.f16 = false), Precision::Auto);
    let (expected, _) = draw(&in_f32);
    let wrong = ["matmul_cooperative", "s01 = coopMultiplyAdd(a0, b1, s01)", "s01 = s01"];
    gpu.faults().altered_kernels.lock().push(wrong);
    // The kernels that run without matrices are those that run where there are none.
    let pipeline = open(gpu, Precision::Auto);
    let (drawn, warnings) = told(&pipeline);
    let (picture, report) = drawn.unwrap();
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(
        warning.contains("a product of")
            && warning.contains("is wrong")
            && warning.contains("in f32"),
        "{warning}"
    );
    assert!(picture == expected, "another picture");
    assert_eq!(report.products, Products::F32);
    assert_off(pipeline.gpu());
    // It is told once.
    draw(&pipeline);
    // A next device of this adapter knows.
    let next = with_matrices().unwrap().learn_from(pipeline.gpu());
    assert_off(&next);
}

/// On any adapter: a device that says it has matrices, and has none.
#[test]
fn a_run_does_without_matrices_that_do_not_compile() {
    let honest = pretender().with_caps(|caps| caps.f16 = false);
    let (expected, _) = draw(&open(honest, Precision::Auto));
    let pipeline = open(pretender(), Precision::Auto);
    let (drawn, warnings) = told(&pipeline);
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(warning.contains("a product of") && warning.contains("failed"), "{warning}");
    let (picture, report) = drawn.unwrap();
    assert!(picture == expected, "another picture");
    assert_eq!(report.products, Products::F32);
    assert_off(pipeline.gpu());
}

/// A norm that writes f16 for products is no kernel on matrices, but without matrices nobody asks for it.
#[test]
fn a_run_does_without_norms_in_f16_that_do_not_compile() {
    let Some(gpu) = with_matrices() else { return };
    let in_f32 = open(crate::common::gpu().with_caps(|caps| caps.f16 = false), Precision::Auto);
    let (expected, _) = draw(&in_f32);
    gpu.faults().altered_kernels.lock().push(["norm", "enable f16;", "this does not compile"]);
    let pipeline = open(prefers_matrices(gpu), Precision::Auto);
    let (drawn, warnings) = told(&pipeline);
    let (picture, report) = drawn.unwrap();
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(warning.contains("cannot compile kernel norm"), "{warning}");
    // The prompt was encoded on matrices by then, which keep f32 between their products.
    let close = super::f16_range::psnr(&picture, &expected);
    assert!(close >= 40.0, "{close} dB");
    assert_eq!(report.products, Products::F32);
    assert_off(pipeline.gpu());
}

#[test]
fn the_loss_of_a_device_in_the_test_is_told_and_learnt_from() {
    let pipeline = open(pretender(), Precision::Auto);
    pipeline.gpu().destroy();
    let (drawn, warnings) = told(&pipeline);
    assert!(drawn.unwrap_err().is_lost());
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(warning.contains("a product of") && warning.contains("failed"), "{warning}");
    let next = pretender().learn_from(pipeline.gpu());
    assert_off(&next);
    draw(&open(next, Precision::Auto));
}

/// That memory is full says nothing about matrices: the run makes room and tests them then.
#[test]
fn full_memory_turns_nothing_off() {
    let Some(gpu) = with_matrices() else { return };
    gpu.faults().allocations_left.set(Some(1));
    gpu.faults().fails_once.set(true);
    let pipeline = open(gpu, Precision::Auto);
    let (drawn, warnings) = told(&pipeline);
    drawn.unwrap();
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(warning.contains("memory is full"), "{warning}");
    assert!(pipeline.gpu().caps().rounds_to_f16());
}

#[test]
fn nothing_is_tested_where_the_user_asks_for_f32() {
    let pipeline = open(pretender(), Precision::F32);
    let (_, report) = draw(&pipeline);
    assert_eq!(report.products, Products::F32);
    assert!(!pipeline.gpu().caps().f16 && !pipeline.gpu().caps().tuning.without_matrices);
}

/// What was tested in an earlier run is not tested again: here that shows, as there are no matrices.
#[test]
fn matrices_that_were_tested_before_are_trusted() {
    let gpu = prefers_matrices(pretender());
    gpu.trust_matrices();
    let (drawn, warnings) = told(&open(gpu, Precision::Auto));
    drawn.unwrap();
    assert!(warnings.iter().all(|warning| warning.contains("cannot compile")), "{warnings:?}");
    assert!(!warnings.is_empty());
}
