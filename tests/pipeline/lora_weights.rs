//! Weights of LoRAs: they change between runs, and from stage to stage.

use std::sync::Arc;

use ralu::checkpoint::source::Folder;
use ralu::gpu::block_on;
use ralu::models::adapters::LoraWeight;
use ralu::models::files::ModelFiles;
use ralu::pipeline::{Event, FirstStage, NamedTensors, Picture, Pipeline, RaluChoice, Request};
use ralu::sampling::CustomStages;

use super::lora::{Case, bits, distance, in_f32, planned_and_drawn};
use super::references::{near, numbers, run};

/// Between runs nothing is loaded or compiled for other weights, and bits are those of a model that was opened with them.
#[test]
fn weights_change_between_runs() {
    let case = Case::open("flux-kohya");
    let pipeline = Pipeline::open(crate::common::gpu(), Box::new(case.files()), in_f32()).unwrap();
    let first = run(&pipeline, case.request()).tensors;
    pipeline.set_lora_weights(&[LoraWeight::Whole(-0.5)]).unwrap();
    let before = pipeline.gpu().counters().pipelines;
    let second = run(&pipeline, case.request()).tensors;
    assert_eq!(pipeline.gpu().counters().pipelines, before);
    let (fresh, _) = Case::open("flux-kohya").weighted(LoraWeight::Whole(-0.5)).draw(in_f32());
    assert!(bits(&second) == bits(&fresh));
    assert!(bits(&second) != bits(&first));
    pipeline.set_lora_weights(&[LoraWeight::Whole(1.0)]).unwrap();
    assert!(bits(&run(&pipeline, case.request()).tensors) == bits(&first));
    for (wrong, word) in [
        (&[LoraWeight::Whole(1.0); 2][..], "as many as"),
        (&[LoraWeight::Whole(f64::NAN)], "finite"),
    ] {
        let error = pipeline.set_lora_weights(wrong).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

/// What is merged into weights stays.
#[test]
fn merged_changes_have_fixed_weights() {
    let case = Case::open("flux-diff");
    let pipeline = Pipeline::open(crate::common::gpu(), Box::new(case.files()), in_f32()).unwrap();
    let error = pipeline.set_lora_weights(&[LoraWeight::Whole(0.25)]).unwrap_err().to_string();
    assert!(error.contains("merged") && error.contains("open the model again"), "{error}");
    let own = case.paths.loras[0].weight;
    pipeline.set_lora_weights(&[own]).unwrap();
    let mut paths = case.paths.clone();
    paths.loras[0].weight = LoraWeight::Stages([0.0, 0.0, 1.0]);
    let error = ModelFiles::open(Arc::new(Folder::anywhere()), &paths).err().expect("an error");
    assert!(error.to_string().contains("the same in all stages"), "{error}");
}

fn three_stages(request: &mut Request) {
    request.ralu = RaluChoice::Custom(CustomStages {
        stage_steps: vec![1, 1, 1],
        stage_ends: vec![0.3, 0.45, 1.0],
        up_ratio: 0.3,
        stage_shifts: Some(vec![5.019, 2.589, 2.226]),
        stage_z: Some(6.317_123_456_789_012),
    });
}

/// Where stages differ in weights, each has modulations of its own, which are planned.
#[test]
fn modulations_of_stages_are_planned() {
    let peak = |weight: LoraWeight| {
        let case = Case::open("flux-onetrainer-bfl").weighted(weight);
        planned_and_drawn(&case, case.request().with(three_stages), None).1
    };
    let same = peak(LoraWeight::Whole(1.0));
    assert_eq!(peak(LoraWeight::Stages([1.0; 3])), same);
    assert!(peak(LoraWeight::Stages([0.0, 0.5, 1.0])) > same);
}

/// A file whose weight is 0 at first leaves the first stage as it is without, modulations included.
#[test]
fn stages_have_weights_of_their_own() {
    let draw = |weight: Option<LoraWeight>| {
        let case = Case::open("flux-onetrainer-bfl");
        let case = match weight {
            Some(weight) => case.weighted(weight),
            None => case.without(),
        };
        let pipeline =
            Pipeline::open(crate::common::gpu(), Box::new(case.files()), in_f32()).unwrap();
        run(&pipeline, case.request().with(three_stages)).tensors
    };
    let plain = draw(None);
    let whole = draw(Some(LoraWeight::Whole(1.0)));
    let same = draw(Some(LoraWeight::Stages([1.0; 3])));
    assert!(bits(&whole) == bits(&same));
    let late = draw(Some(LoraWeight::Stages([0.0, 0.0, 1.0])));
    let first = |tensors: &NamedTensors| numbers(tensors, "stage1_latents").to_vec();
    near("the first stage", &first(&late), &first(&plain), 1e-6);
    assert!(distance(&late, &plain) > 1e-3 && distance(&late, &whole) > 1e-3);
}

/// The picture of a run, and the end of its first stage if it is the run's own.
fn drawn(pipeline: &Pipeline, request: Request) -> (Picture, Option<Arc<FirstStage>>) {
    let mut run = pipeline.start(request).unwrap();
    let (mut drawn, mut first) = (None, None);
    while let Some(event) = block_on(pipeline.gpu(), run.next()).unwrap() {
        match event {
            Event::FirstStage(kept) => first = Some(kept),
            Event::Image { picture, .. } => drawn = Some(picture),
            _ => {}
        }
    }
    (drawn.unwrap(), first)
}

/// Weights of later stages change without the first one, to the pixels of a whole run. The file changes text encoders, whose
/// weight is the largest of the three.
#[test]
fn a_kept_first_stage_takes_other_weights_in_later_stages() {
    let case = Case::open("flux-kohya");
    let pipeline = Pipeline::open(crate::common::gpu(), Box::new(case.files()), in_f32()).unwrap();
    let request = || case.request().with(three_stages);
    let (before, first) = drawn(&pipeline, request().with(|r| r.keep_first_stage = true));
    let first = first.expect("a first stage");
    let resumed = || request().with(|request| request.first_stage = Some(first.clone()));
    let late = [LoraWeight::Stages([1.0, -0.5, 0.25])];
    assert!(first.fits_lora_weights(&late));
    pipeline.set_lora_weights(&late).unwrap();
    let (whole, _) = drawn(&pipeline, request());
    let (picture, _) = drawn(&pipeline, resumed());
    assert!(picture == whole && picture != before);
    for other in [LoraWeight::Whole(0.5), LoraWeight::Stages([1.0, 1.5, 1.0])] {
        assert!(!first.fits_lora_weights(&[other]), "{other}");
        pipeline.set_lora_weights(&[other]).unwrap();
        let error = pipeline.start(resumed()).err().expect("an error").to_string();
        assert!(error.contains("of other LoRAs or weights of them"), "{error}");
    }
    assert!(!first.fits_lora_weights(&[]));
}
