//! What a second run in the same process uses again, and that it changes nothing in the picture.

use std::path::PathBuf;

use ralu::checkpoint::source::{Folder, Source};
use ralu::gpu::{Counters, block_on};
use ralu::pipeline::plan::plan;
use ralu::pipeline::{Event, NamedTensor, Options, Part, Pipeline, RaluChoice, Request, Settings};

const TINY_FLUX: &str = "models/tiny-flux";
/// Two branches of guidance, two CLIPs and T5.
const SD35_MEDIUM: &str = "tests/fixtures/sd35m-b/model";
/// A language model that is told how much of a text is padding.
const KLEIN: &str = "tests/fixtures/klein-a/model";

fn folder(model: &str) -> Folder {
    Folder::open(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(model)).unwrap()
}

/// Too little memory for anything to stay.
fn little() -> Options {
    Options::default().with(|options| options.memory_bytes = Some(0))
}

fn open(model: &str, options: Options) -> Pipeline {
    Pipeline::open(crate::common::gpu(), Box::new(folder(model)), options).unwrap()
}

fn request(prompt: &str, steps: usize) -> Request {
    let mut request = Request::new(prompt).size(64, 64).ralu(RaluChoice::Off);
    request.steps = Some(steps);
    request.max_sequence_length = Some(24);
    request.collect_tensors = true;
    request
}

struct Outcome {
    latents: Vec<u32>,
    events: Vec<String>,
}

fn run(pipeline: &Pipeline, request: Request) -> Outcome {
    let mut run = pipeline.start(request).unwrap();
    let mut outcome = Outcome { latents: vec![], events: vec![] };
    while let Some(event) = block_on(pipeline.gpu(), run.next()).unwrap() {
        outcome.events.push(match &event {
            Event::Loading { part, .. } => format!("loading {part:?}"),
            Event::Step(step) => format!("step {}", step.step),
            _ => String::new(),
        });
        if let Event::Image { tensors: Some(tensors), .. } = event {
            let Some(NamedTensor::F32 { data, .. }) = tensors.0.get("latents") else {
                panic!("no latents")
            };
            // Bits, so that NaN would not pass for equal.
            outcome.latents = data.iter().map(|v| v.to_bits()).collect();
        }
    }
    outcome
}

fn fresh(model: &str, options: Options, request: Request) -> Vec<u32> {
    run(&open(model, options), request).latents
}

/// What was made between two readings.
fn made(before: Counters, after: Counters) -> [u64; 4] {
    [
        after.buffers - before.buffers,
        after.bind_groups - before.bind_groups,
        after.pipelines - before.pipelines,
        after.uploaded_bytes - before.uploaded_bytes,
    ]
}

#[test]
fn a_second_prompt_uploads_and_creates_nothing() {
    for model in [TINY_FLUX, SD35_MEDIUM, KLEIN] {
        let pipeline = open(model, Options::default());
        run(&pipeline, request("a fox", 2));
        let before = pipeline.gpu().counters();
        // Another length of text, another seed.
        let second = request("a panda on a pink background", 2).seed(9);
        let again = run(&pipeline, second.clone());
        assert_eq!(made(before, pipeline.gpu().counters()), [0; 4], "{model}");
        assert!(again.latents == fresh(model, Options::default(), second), "{model}");
        assert!(!again.events.iter().any(|event| event.starts_with("loading")), "{model}");
    }
}

/// Of two texts, the negative one is the same in both runs: the second run submits one text's work less.
#[test]
fn a_text_is_encoded_once() {
    let pipeline = open(SD35_MEDIUM, Options::default());
    // So fast that each program is one submission.
    pipeline.gpu().faults().flops_per_second.set(Some(1e15));
    let submissions = |request: Request| {
        let before = pipeline.gpu().counters().submissions;
        run(&pipeline, request);
        pipeline.gpu().counters().submissions - before
    };
    let first = submissions(request("a fox", 2));
    let second = submissions(request("a panda", 2));
    let third = submissions(request("a fox", 2));
    let text = first - second;
    assert!(text > 0, "{first} and {second} submissions");
    assert_eq!(third, second - text);
}

#[test]
fn text_encoders_leave_where_memory_is_short() {
    let pipeline = open(TINY_FLUX, little());
    run(&pipeline, request("a fox", 2));
    let before = pipeline.gpu().counters();
    let second = request("a panda on a pink background", 2);
    let again = run(&pipeline, second.clone());
    let [_, _, pipelines, uploaded] = made(before, pipeline.gpu().counters());
    assert_eq!(pipelines, 0);
    let planned = plan_of(TINY_FLUX, &second, little());
    let modulations = planned.modulation_weights_bytes;
    let weights = planned.text_encoder_weights_bytes + modulations;
    assert_eq!(uploaded, weights, "the text encoders, what makes modulations, and nothing else");
    assert_eq!(before.bytes_alive, pipeline.gpu().counters().bytes_alive);
    assert!(again.latents == fresh(TINY_FLUX, Options::default(), second));
    // A known text needs no encoder, and after the same text the modulations are there, too.
    for expected in [modulations, 0] {
        let before = pipeline.gpu().counters();
        run(&pipeline, request("a fox", 2).seed(expected));
        let [_, _, pipelines, uploaded] = made(before, pipeline.gpu().counters());
        assert_eq!((pipelines, uploaded), (0, expected));
    }
}

fn plan_of(
    model: &str,
    request: &Request,
    options: Options,
) -> ralu::pipeline::plan::PlannedMemory {
    let folder = folder(model);
    let source: &dyn Source = &folder;
    let config = ralu::models::config::ModelConfig::load(source).unwrap();
    let settings = Settings::resolve(request, &config).unwrap();
    plan(&config, Some(source), &settings, crate::common::gpu().caps(), options).unwrap().memory
}

#[test]
fn memory_is_what_was_planned() {
    for model in [TINY_FLUX, SD35_MEDIUM, KLEIN] {
        for options in [Options::default(), little()] {
            let request = request("a fox", 1);
            let planned = plan_of(model, &request, options);
            assert_eq!(planned.keeps_text_encoders, options.memory_bytes.is_none());
            let pipeline = open(model, options);
            run(&pipeline, request);
            let peak = pipeline.gpu().counters().bytes_peak;
            // Buffers are multiples of 16 bytes, so tiny vectors weigh more than they are long.
            let slack = 16 * pipeline.gpu().counters().buffers;
            let close = (planned.peak_bytes..=planned.peak_bytes + slack).contains(&peak);
            assert!(close, "{model} {options:?}: {peak} bytes, planned {planned:?}");
        }
    }
}

#[test]
fn other_settings_leave_no_memory_behind() {
    let pipeline = open(TINY_FLUX, Options::default());
    let requests = [request("a fox", 2), request("a fox", 2).size(96, 64)];
    let mut alive = vec![];
    for i in 0..6 {
        run(&pipeline, requests[i % 2].clone());
        alive.push(pipeline.gpu().counters().bytes_alive);
    }
    // The pool has grown to the larger one's by then.
    assert_eq!(alive[2], alive[4]);
    assert_eq!(alive[3], alive[5]);
    assert!(
        run(&pipeline, requests[0].clone()).latents == run(&pipeline, requests[0].clone()).latents
    );
}

#[test]
fn a_dropped_run_spoils_nothing() {
    let whole = fresh(TINY_FLUX, Options::default(), request("a fox", 4));
    let pipeline = open(TINY_FLUX, Options::default());
    // In the middle of loading, encoded, under way, and between two steps.
    for stop in [1, 2, 4, 5] {
        let mut dropped = pipeline.start(request("a cat", 4)).unwrap();
        for _ in 0..stop {
            block_on(pipeline.gpu(), dropped.next()).unwrap();
        }
        drop(dropped);
        assert!(
            run(&pipeline, request("a fox", 4)).latents == whole,
            "dropped after {stop} events"
        );
    }
}

#[test]
fn steps_are_reported_in_order_and_once() {
    let pipeline = open(TINY_FLUX, Options::default());
    let events = run(&pipeline, request("a fox", 5)).events;
    let steps: Vec<&String> = events.iter().filter(|event| event.starts_with("step")).collect();
    assert_eq!(steps, ["step 1", "step 2", "step 3", "step 4", "step 5"]);
}

#[test]
fn parts_can_be_loaded_before_a_run() {
    let pipeline = open(TINY_FLUX, Options::default());
    for part in Part::ALL {
        let mut told = 0;
        block_on(pipeline.gpu(), pipeline.load(part, |_| told += 1)).unwrap();
        assert!(told > 0);
        block_on(pipeline.gpu(), pipeline.load(part, |_| panic!("loaded twice"))).unwrap();
    }
    let before = pipeline.gpu().counters().uploaded_bytes;
    let latents = run(&pipeline, request("a fox", 2)).latents;
    assert_eq!(pipeline.gpu().counters().uploaded_bytes, before);
    assert!(latents == fresh(TINY_FLUX, Options::default(), request("a fox", 2)));
}

/// Compiled pipelines as bytes. Adapters that cannot cache have nothing to give.
#[test]
fn damaged_and_foreign_pipeline_data_is_ignored() {
    let opened = |data: Option<&[u8]>| {
        let gpu = crate::common::gpu();
        let used = block_on(&gpu, gpu.use_pipeline_data(data)).unwrap();
        (Pipeline::open(gpu, Box::new(folder(TINY_FLUX)), Options::default()).unwrap(), used)
    };
    let (pipeline, used) = opened(None);
    assert!(!used);
    let whole = run(&pipeline, request("a fox", 1)).latents;
    let Some(data) = pipeline.gpu().pipeline_data() else {
        let offered = pipeline.gpu().report().features.contains(&"pipeline-cache");
        let forced = std::env::var("RALU_TEST_LIMITS").is_ok_and(|limits| limits == "webgpu");
        assert!(!offered || forced, "this adapter can cache pipelines");
        return;
    };
    let (pipeline, used) = opened(Some(&data));
    assert!(used);
    assert!(run(&pipeline, request("a fox", 1)).latents == whole);
    let used = |data: &[u8]| {
        let gpu = pipeline.gpu();
        block_on(gpu, gpu.use_pipeline_data(Some(data))).unwrap()
    };
    for at in (0..data.len()).step_by(data.len().div_ceil(40)) {
        let mut damaged = data.clone();
        damaged[at] ^= 4;
        assert!(!used(&damaged), "damaged at {at}");
        assert!(!used(&data[..at]), "cut at {at}");
    }
    // Whole, but of another adapter: the key says so, and the checksum is right.
    let key = pipeline.gpu().report().cache_key();
    assert!(key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{key}");
    assert!(!used(b"ralupip1 something else"));
}
