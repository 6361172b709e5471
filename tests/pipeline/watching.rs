//! What a program that shows a run relies on: estimates after every step, a kept first stage, short submissions.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use ralu::checkpoint::source::Folder;
use ralu::gpu::{AdapterChoice, Gpu, block_on, describe, device_descriptor};
use ralu::pipeline::{
    Event, FirstStage, LatentColors, Mask, Options, Picture, PictureKind, Pipeline, RaluChoice,
    Request,
};
use ralu::sampling::{MaskMode, Preset, RegionScore, initial_noise};

fn open() -> Pipeline {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/tiny-flux");
    let source = Box::new(Folder::open(folder).unwrap());
    Pipeline::open(crate::common::gpu(), source, Options::default()).unwrap()
}

/// 4 x 4 coarse tokens.
fn request() -> Request {
    Request::new("a red apple").size(128, 128).ralu(RaluChoice::Preset(Preset::X7)).seed(3)
}

/// The middle of the picture.
fn mask(mode: MaskMode) -> Mask {
    let painted = [5, 6, 9];
    let luma = (0..16).map(|i| if painted.contains(&i) { 255 } else { 0 }).collect();
    Mask { luma, width: 4, height: 4, mode }
}

#[derive(Default)]
struct Outcome {
    picture: Option<Picture>,
    decoded: Option<Picture>,
    selected: Vec<u32>,
    steps: Vec<(usize, usize)>,
    estimates: Vec<(usize, usize, Picture)>,
    first: Option<Arc<FirstStage>>,
    buffers_created: u64,
}

fn run(pipeline: &Pipeline, request: Request) -> Outcome {
    let mut run = pipeline.start(request).unwrap();
    let mut outcome = Outcome::default();
    while let Some(event) = block_on(pipeline.gpu(), run.next()).unwrap() {
        match event {
            Event::Step(step) => outcome.steps.push((step.stage, step.step)),
            Event::Estimate { stage, step, picture, .. } => {
                outcome.estimates.push((stage, step, picture));
            }
            Event::StagePicture { kind: PictureKind::Estimate, picture, .. } => {
                outcome.decoded = Some(picture);
            }
            Event::Regions { selected, .. } => outcome.selected = selected,
            Event::StageEnd(end) => outcome.buffers_created += end.buffers_created,
            Event::FirstStage(first) => outcome.first = Some(first),
            Event::Image { picture, .. } => outcome.picture = Some(picture),
            _ => {}
        }
    }
    outcome
}

/// Mean difference from `picture`, scaled down to the size of `small`, in 0..255.
fn distance(small: &Picture, picture: &Picture) -> f64 {
    let scale = picture.width / small.width;
    let mut sum = 0.0;
    for (i, value) in small.rgb.iter().enumerate() {
        let (pixel, c) = (i / 3, i % 3);
        let (row, col) = (pixel / small.width, pixel % small.width);
        let mut mean = 0.0;
        for y in scale * row..scale * (row + 1) {
            for x in scale * col..scale * (col + 1) {
                mean += f64::from(picture.rgb[3 * (y * picture.width + x) + c]);
            }
        }
        sum += (f64::from(*value) - mean / (scale * scale) as f64).abs();
    }
    sum / small.rgb.len() as f64
}

#[test]
fn estimates_come_after_every_step_and_look_like_the_picture() {
    let pipeline = open();
    let plain = run(&pipeline, request());
    assert!(plain.estimates.is_empty() && plain.first.is_none());
    let watched = run(&pipeline, request().with(|request| request.estimates = true));
    let shown: Vec<_> = watched.estimates.iter().map(|(stage, step, _)| (*stage, *step)).collect();
    assert_eq!(shown, watched.steps);
    assert_eq!(watched.picture, plain.picture, "watching changes the picture");
    // Half as large in stage 1.
    for (stage, _, picture) in &watched.estimates {
        let side = if *stage == 1 { 8 } else { 16 };
        assert_eq!((picture.width, picture.height), (side, side), "stage {stage}");
    }
    // A first run's colours are guessed from noise and one half-size picture; a second one's are learnt.
    let learnt = run(&pipeline, request().with(|request| request.estimates = true));
    let (_, _, last) = learnt.estimates.last().unwrap();
    let far = distance(last, &learnt.picture.unwrap());
    assert!(far < 16.0, "the last estimate is {far:.1} levels of 255 from the picture");
    let (_, _, first) = learnt.estimates.iter().rfind(|(stage, ..)| *stage == 1).unwrap();
    let far = distance(first, &learnt.decoded.unwrap());
    assert!(far < 24.0, "stage 1's estimate is {far:.1} levels of 255 from what was decoded");
}

#[test]
fn learnt_colours_can_be_kept() {
    let pipeline = open();
    assert!(!pipeline.latent_colors().is_fitted());
    run(&pipeline, request().with(|request| request.estimates = true));
    let colors = pipeline.latent_colors();
    assert!(colors.is_fitted());
    let text = serde_json::to_string(&colors).unwrap();
    let read: LatentColors = serde_json::from_str(&text).unwrap();
    assert_eq!(read, colors);
    let again = open();
    again.set_latent_colors(read);
    assert!(again.latent_colors().is_fitted());
}

#[test]
fn colours_of_a_linear_decoder_are_found() {
    let (rows, cols) = (12, 20);
    let size = rows * cols;
    let latents = initial_noise(1, [16, rows, cols]);
    let colour = |c: usize, at: usize| -> f32 {
        0.5 + (0..16).map(|i| 0.004 * (1 + i + c) as f32 * latents[i * size + at]).sum::<f32>()
    };
    let mut planes = vec![0.0; 3 * 64 * size];
    for c in 0..3 {
        for y in 0..8 * rows {
            for x in 0..8 * cols {
                planes[(c * 8 * rows + y) * 8 * cols + x] = colour(c, y / 8 * cols + x / 8);
            }
        }
    }
    let mut colors = LatentColors::default();
    assert_eq!(colors.picture(&latents, rows, cols), None);
    colors.learn(&latents, &planes, rows, cols);
    let found = colors.picture(&latents, rows, cols).unwrap();
    for (i, value) in found.rgb.iter().enumerate() {
        let expected = colour(i % 3, i / 3).clamp(0.0, 1.0) * 255.0;
        // What keeps the fit steady shrinks colours by 3 %.
        assert!((f32::from(*value) - expected).abs() < 6.0, "{value} is not {expected}");
    }
    // What was written by hand, or by another version, is no colours.
    let damaged = r#"{"sums": [1], "seen": 1, "map": [1, 2]}"#;
    let damaged: LatentColors = serde_json::from_str(damaged).unwrap();
    assert_eq!(damaged.picture(&latents, rows, cols), None);
}

#[test]
fn a_run_goes_on_from_a_kept_first_stage() {
    let pipeline = open();
    let kept = run(&pipeline, request().with(|request| request.keep_first_stage = true));
    let first = kept.first.expect("the first stage was not kept");
    for painted in [None, Some(mask(MaskMode::Replace)), Some(mask(MaskMode::Add))] {
        let wanted = request().with(|request| request.mask = painted.clone());
        let whole = run(&pipeline, wanted.clone());
        let resumed = run(
            &pipeline,
            wanted.clone().with(|request| request.first_stage = Some(first.clone())),
        );
        assert!(resumed.steps.iter().all(|(stage, _)| *stage > 1), "{:?}", resumed.steps);
        assert_eq!(resumed.selected, whole.selected, "{painted:?}");
        assert_eq!(resumed.picture, whole.picture, "{painted:?}");
        assert_eq!(resumed.decoded, whole.decoded, "{painted:?}");
        assert_eq!(resumed.buffers_created, 0);
    }
    assert!(first.seconds() > 0.0);
}

#[test]
fn a_kept_first_stage_keeps_what_regions_are_scored_by() {
    let pipeline = open();
    let mut wanted = request();
    wanted.rules.region_score = Some(RegionScore::Variance);
    let whole = run(&pipeline, wanted.clone().with(|request| request.keep_first_stage = true));
    let resumed = run(&pipeline, wanted.with(|request| request.first_stage = whole.first.clone()));
    assert_eq!(resumed.selected, whole.selected);
    assert_eq!(resumed.picture, whole.picture);
}

#[test]
fn a_first_stage_of_another_run_is_refused() {
    let pipeline = open();
    let kept = run(&pipeline, request().with(|request| request.keep_first_stage = true));
    let refused = |change: &dyn Fn(&mut Request)| {
        let mut wanted = request().with(|request| request.first_stage = kept.first.clone());
        change(&mut wanted);
        match pipeline.start(wanted) {
            Ok(_) => panic!("it was taken"),
            Err(error) => error.to_string(),
        }
    };
    let other = "the kept first stage is of other settings";
    assert!(refused(&|request| request.seed = 4).starts_with(other));
    assert!(refused(&|request| request.prompt = "a fox".into()).starts_with(other));
    assert!(refused(&|request| request.width = Some(160)).starts_with(other));
    assert!(refused(&|request| request.count = Some(2)).starts_with(other));
    // Regions everywhere leave two stages, of which the first is another one.
    let all = Mask { luma: vec![255; 16], width: 4, height: 4, mode: MaskMode::Replace };
    let message = refused(&|request| request.mask = Some(all.clone()));
    assert!(message.contains("refines none or all"), "{message}");
}

#[test]
fn short_submissions_change_nothing_but_their_number() {
    let pipeline = open();
    let usual = run(&pipeline, request());
    let before = pipeline.gpu().counters().submissions;
    run(&pipeline, request());
    let usually = pipeline.gpu().counters().submissions - before;
    pipeline.gpu().yield_every(0.005);
    let before = pipeline.gpu().counters().submissions;
    let short = run(&pipeline, request());
    let shortly = pipeline.gpu().counters().submissions - before;
    assert_eq!(short.picture, usual.picture);
    assert!(shortly > usually, "{shortly} submissions, usually {usually}");
}

#[test]
fn memory_in_use_adds_up() {
    let pipeline = open();
    assert_eq!(pipeline.memory_use(), Default::default());
    run(&pipeline, request());
    let used = pipeline.memory_use();
    assert!(used.weights_bytes > 0 && used.pool_bytes > 0 && used.states_bytes > 0, "{used:?}");
    let alive = pipeline.gpu().counters().bytes_alive;
    assert_eq!(used.weights_bytes + used.pool_bytes + used.states_bytes, alive);
}

#[test]
fn a_host_learns_that_its_device_is_gone_and_the_run_ends() {
    let instance = wgpu::Instance::default();
    let (gpu, device) = pollster::block_on(async {
        let adapter = instance.request_adapter(&Default::default()).await.unwrap();
        let descriptor = device_descriptor(&adapter, &AdapterChoice::default());
        let (device, queue) = adapter.request_device(&descriptor).await.unwrap();
        (Gpu::adopt(device.clone(), queue, describe(0, &adapter)), device)
    });
    let told = Arc::new(Mutex::new(Vec::new()));
    let note = told.clone();
    gpu.when_lost(move |reason| note.lock().unwrap().push(reason.to_owned()));
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/tiny-flux");
    let source = Box::new(Folder::open(folder).unwrap());
    let pipeline = Pipeline::open(gpu, source, Options::default()).unwrap();
    let mut run = pipeline.start(request()).unwrap();
    let error = loop {
        match block_on(pipeline.gpu(), run.next()) {
            Ok(Some(Event::Step(_))) => {
                device.destroy();
                device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
            }
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended as if nothing had happened"),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("the GPU was lost: it was closed"), "{error}");
    assert_eq!(*told.lock().unwrap(), ["it was closed"]);
    // Who asks later is told at once.
    let note = told.clone();
    pipeline.gpu().when_lost(move |reason| note.lock().unwrap().push(reason.to_owned()));
    assert_eq!(told.lock().unwrap().len(), 2);
}
