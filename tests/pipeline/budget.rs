//! Runs within a budget of memory: blocks of weights are streamed, and the pictures are the same, bit for bit.

use std::path::PathBuf;

use ralu::Gpu;
use ralu::checkpoint::source::{Folder, Source};
use ralu::gpu::{Counters, block_on};
use ralu::models::config::ModelConfig;
use ralu::pipeline::plan::{PlannedMemory, PlannedStreaming, plan};
use ralu::pipeline::{
    Error, Event, MemoryBudget, NamedTensor, Options, Pipeline, RaluChoice, Recovery, Request,
    Settings,
};
use ralu::sampling::Preset;

const FLUX: &str = "models/tiny-flux";
/// Two branches of guidance, two CLIPs and T5.
const SD35_MEDIUM: &str = "tests/fixtures/sd35m-b/model";
/// A language model that is told how much of a text is padding.
const KLEIN: &str = "tests/fixtures/klein-a/model";

fn folder(model: &str) -> Folder {
    Folder::open(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(model)).unwrap()
}

fn within(budget: Option<u64>) -> Options {
    let budget = budget.map_or(MemoryBudget::Auto, MemoryBudget::Bytes);
    Options::default().with(|options| options.memory_budget = budget)
}

fn request(prompt: &str, ralu: RaluChoice) -> Request {
    let mut request = Request::new(prompt).size(64, 64).ralu(ralu);
    request.steps = Some(2);
    request.max_sequence_length = Some(24);
    request.collect_tensors = true;
    request
}

/// What the planner says of a run.
fn planned(
    model: &str,
    request: &Request,
    budget: Option<u64>,
    gpu: &Gpu,
) -> Result<PlannedMemory, Error> {
    let folder = folder(model);
    let source: &dyn Source = &folder;
    let config = ModelConfig::load(source).unwrap();
    let settings = Settings::resolve(request, &config).unwrap();
    plan(&config, Some(source), &settings, gpu.caps(), within(budget)).map(|plan| plan.memory)
}

/// The smallest budget of a run.
fn least(model: &str, request: &Request, gpu: &Gpu) -> u64 {
    match planned(model, request, Some(1), gpu) {
        Err(Error::MemoryBudget { least, budget: 1 }) => least,
        other => panic!("{other:?}"),
    }
}

#[derive(Default)]
struct Outcome {
    /// The bits of the latents, then those of the picture.
    latents: Vec<u32>,
    /// Buffers and bind groups that were made after a stage's first step.
    made_late: u64,
    warnings: Vec<String>,
}

/// Runs to the end; with `lose`, the device is lost after that many steps, and another one goes on.
fn run(pipeline: &mut Pipeline, request: &Request, mut lose: Option<usize>) -> Outcome {
    let mut outcome = Outcome::default();
    let mut recovery = Recovery::new(request);
    let mut steps = 0;
    'again: loop {
        let mut run = pipeline.start(recovery.request(request)).unwrap();
        loop {
            let event = match block_on(pipeline.gpu(), run.next()) {
                Ok(Some(event)) => event,
                Ok(None) => return outcome,
                Err(error) => {
                    assert!(recovery.should_resume(&error, &run), "{error}");
                    drop(run);
                    let revived = pipeline.clone().revive(crate::common::gpu());
                    *pipeline = pollster::block_on(revived).unwrap();
                    continue 'again;
                }
            };
            match event {
                Event::Step(_) => {
                    steps += 1;
                    if lose.is_some_and(|at| steps >= at) {
                        lose = None;
                        pipeline.gpu().destroy();
                    }
                }
                Event::StageEnd(end) => {
                    outcome.made_late += end.buffers_created + end.bind_groups_created;
                }
                Event::Warning(warning) if warning.contains("small for RALU") => {}
                Event::Warning(warning) => outcome.warnings.push(warning),
                Event::Image { tensors: Some(tensors), .. } => {
                    for name in ["latents", "image"] {
                        let Some(NamedTensor::F32 { data, .. }) = tensors.0.get(name) else {
                            panic!("no {name}")
                        };
                        outcome.latents.extend(data.iter().map(|v| v.to_bits()));
                    }
                }
                _ => {}
            }
        }
    }
}

/// Draws within a budget, and checks what it took. Gives the latents and what was planned.
fn draw(
    model: &str,
    request: &Request,
    budget: Option<u64>,
    gpu: Gpu,
) -> (Vec<u32>, PlannedMemory) {
    let planned = planned(model, request, budget, &gpu).unwrap();
    let mut pipeline = Pipeline::open(gpu, Box::new(folder(model)), within(budget)).unwrap();
    let outcome = run(&mut pipeline, request, None);
    let counters = pipeline.gpu().counters();
    assert_eq!(outcome.made_late, 0, "{model}");
    assert_eq!(outcome.warnings, [""; 0], "{model}");
    // Buffers are multiples of 16 bytes, so tiny vectors weigh more than they are long.
    let slack = 16 * counters.buffers;
    let Counters { bytes_peak, bytes_peak_with_staging, .. } = counters;
    // Where the denoiser stays, the most is needed for a second prompt.
    let is_for_two = !planned.keeps_text_encoders
        && planned.streaming.is_some_and(|streaming| streaming.keeps_denoiser);
    let most = planned.peak_bytes + slack;
    assert!(bytes_peak <= most, "{model}: {bytes_peak} bytes, planned {planned:?}");
    let is_reached = is_for_two || bytes_peak >= planned.peak_bytes;
    assert!(is_reached, "{model}: {bytes_peak} bytes, planned {planned:?}");
    if let Some(budget) = budget {
        assert!(bytes_peak_with_staging <= budget + slack, "{model}: {counters:?}, {budget}");
    }
    (outcome.latents, planned)
}

fn check(model: &str, request: &Request, gpu: impl Fn() -> Gpu) {
    let (expected, free) = draw(model, request, None, gpu());
    let least = least(model, request, &gpu());
    // All blocks come and go, then some.
    let mut blocks = vec![];
    for budget in [least, (least + free.peak_bytes) / 2] {
        let (latents, planned) = draw(model, request, Some(budget), gpu());
        assert!(latents == expected, "{model} within {budget}");
        let PlannedStreaming { denoiser, .. } = planned.streaming.unwrap();
        blocks.push(denoiser.streamed_blocks);
    }
    assert!(blocks[0] >= blocks[1], "{model}: {blocks:?}");
    // One byte less is refused, and enough for everything streams nothing.
    let error = planned(model, request, Some(least - 1), &gpu()).unwrap_err();
    assert!(matches!(error, Error::MemoryBudget { .. }), "{error}");
    let (latents, planned) = draw(model, request, Some(2 * free.peak_bytes + (64 << 20)), gpu());
    assert!(latents == expected && planned.streaming.unwrap().denoiser.streamed_blocks == 0);
}

#[test]
fn pictures_are_the_same_within_a_budget() {
    let guided = |mut request: Request| {
        request.negative_prompt = Some("a cat".into());
        request.true_cfg = Some(3.0);
        request
    };
    check(FLUX, &request("a fox", RaluChoice::Off), crate::common::gpu);
    check(SD35_MEDIUM, &guided(request("a fox", RaluChoice::Off)), crate::common::gpu);
    check(KLEIN, &request("a fox", RaluChoice::Off), crate::common::gpu);
    // Weights in several buffers.
    let small = || crate::common::gpu().with_caps(|caps| caps.max_binding_bytes = 1 << 17);
    check(FLUX, &request("a fox", RaluChoice::Off), small);
}

#[test]
fn stages_and_caches_stream_as_well() {
    let mut staged = request("a fox", RaluChoice::Preset(Preset::X7)).size(128, 128);
    staged.steps = None;
    check(FLUX, &staged, crate::common::gpu);
    for cache in ["fbc", "taylorseer", "fora"] {
        let mut cached = request("a fox", RaluChoice::Off);
        cached.steps = Some(6);
        cached.cache = Some(cache.parse().unwrap());
        let (expected, _) = draw(FLUX, &cached, None, crate::common::gpu());
        let budget = least(FLUX, &cached, &crate::common::gpu());
        let (latents, _) = draw(FLUX, &cached, Some(budget), crate::common::gpu());
        assert!(latents == expected, "{cache}");
    }
}

/// In every step, the streamed blocks and nothing else.
#[test]
fn a_step_uploads_the_streamed_blocks() {
    let gpu = crate::common::gpu;
    let mut request = request("a fox", RaluChoice::Off);
    request.steps = Some(5);
    let budget = least(FLUX, &request, &gpu());
    let PlannedStreaming { denoiser, .. } =
        planned(FLUX, &request, Some(budget), &gpu()).unwrap().streaming.unwrap();
    let uploaded = |steps: usize| {
        let mut request = request.clone();
        request.steps = Some(steps);
        let options = within(Some(budget));
        let mut pipeline = Pipeline::open(gpu(), Box::new(folder(FLUX)), options).unwrap();
        run(&mut pipeline, &request, None);
        pipeline.gpu().counters().uploaded_bytes
    };
    assert!(denoiser.streamed_blocks > 2);
    // The modulations of more steps are a larger table, for which there is no room: a budget for five.
    assert_eq!(uploaded(5) - uploaded(2), 3 * denoiser.streamed_bytes);
}

#[test]
fn other_prompts_other_sizes_and_a_lost_device() {
    let first = request("a fox", RaluChoice::Off);
    let second = request("a panda on a pink background", RaluChoice::Off);
    let wide = request("a fox", RaluChoice::Off).size(128, 64);
    let gpu = crate::common::gpu;
    let alone = |request: &Request| draw(FLUX, request, None, gpu()).0;
    let budget = least(FLUX, &wide, &gpu()) + (1 << 20);
    let options = within(Some(budget));
    let mut pipeline = Pipeline::open(gpu(), Box::new(folder(FLUX)), options).unwrap();
    for request in [&first, &second, &wide, &first] {
        assert!(run(&mut pipeline, request, None).latents == alone(request));
        let counters = pipeline.gpu().counters();
        let slack = 16 * counters.buffers;
        assert!(counters.bytes_peak_with_staging <= budget + slack, "{counters:?}, {budget}");
    }
    let mut long = first;
    long.steps = Some(5);
    assert!(run(&mut pipeline, &long, Some(2)).latents == alone(&long));
}

/// What works on another prompt streams through what the denoiser leaves of the budget.
#[test]
fn a_denoiser_stays_while_another_prompt_is_encoded() {
    let gpu = crate::common::gpu;
    let first = request("a fox", RaluChoice::Off);
    let second = request("a panda on a pink background", RaluChoice::Off);
    let wide = request("a cat", RaluChoice::Off).size(128, 64);
    let (alone, device) = (|request: &Request| draw(FLUX, request, None, gpu()).0, gpu());
    let stays = |request: &Request, budget: u64| {
        let planned = planned(FLUX, request, Some(budget), &device).unwrap();
        !planned.keeps_text_encoders && planned.streaming.unwrap().keeps_denoiser
    };
    let budgets = (least(FLUX, &wide, &device)..256 << 20).step_by(512 << 10);
    let budget = budgets.into_iter().find(|budget| stays(&first, *budget) && stays(&wide, *budget));
    let budget = budget.expect("a budget for the denoiser and some of the others");
    let planned = planned(FLUX, &first, Some(budget), &device).unwrap();
    let PlannedStreaming { denoiser, text_encoders, modulation, .. } = planned.streaming.unwrap();
    assert!(text_encoders.streamed_blocks + modulation.streamed_blocks > 0, "{planned:?}");

    let mut pipeline = Pipeline::open(gpu(), Box::new(folder(FLUX)), within(Some(budget))).unwrap();
    let mut uploaded = vec![];
    for request in [&first, &second, &wide, &first, &second] {
        assert!(run(&mut pipeline, request, None).latents == alone(request));
        let counters = pipeline.gpu().counters();
        let slack = 16 * counters.buffers;
        assert!(counters.bytes_peak_with_staging <= budget + slack, "{counters:?}, {budget}");
        uploaded.push(counters.uploaded_bytes);
    }
    // Both encode a prompt and make modulations; the first loads the denoiser.
    let saved = 2 * uploaded[0] - uploaded[1];
    assert!(saved > denoiser.resident_bytes / 10 * 9, "{uploaded:?}, {denoiser:?}");
}

/// An adapter that says what it has free: a run that needs more keeps within that, and says so.
#[test]
fn what_is_free_sets_a_budget() {
    let mut request = request("a fox", RaluChoice::Off);
    request.steps = Some(3);
    let (expected, whole) = draw(FLUX, &request, None, crate::common::gpu());
    let least = least(FLUX, &request, &crate::common::gpu());
    // What the screen needs, and what a run without a budget has for uploads.
    let (others, staging) = (512 << 20, 16 << 20);
    let open = |bytes: u64| {
        let gpu = crate::common::gpu();
        gpu.assume_memory(bytes);
        Pipeline::open(gpu, Box::new(folder(FLUX)), within(None)).unwrap()
    };
    let mut pipeline = open(others + whole.peak_bytes + staging);
    let outcome = run(&mut pipeline, &request, None);
    assert!(outcome.latents == expected && outcome.warnings.is_empty(), "{:?}", outcome.warnings);

    // Less than the denoiser takes.
    let usable = (least + whole.denoiser_weights_bytes) / 2;
    let mut pipeline = open(others + usable);
    let outcome = run(&mut pipeline, &request, None);
    assert!(outcome.latents == expected);
    let said = &outcome.warnings;
    assert!(said.len() == 1 && said[0].contains("some weights come and go"), "{said:?}");
    let counters = pipeline.gpu().counters();
    assert!(counters.bytes_peak_with_staging <= usable + 16 * counters.buffers, "{counters:?}");
    // Said once.
    let outcome = run(&mut pipeline, &request, None);
    assert!(outcome.latents == expected && outcome.warnings.is_empty(), "{:?}", outcome.warnings);
    // Another program has given memory back: nothing comes and goes any more.
    pipeline.gpu().assume_memory(others + 2 * whole.peak_bytes + staging);
    assert!(run(&mut pipeline, &request, None).latents == expected);
    let before = pipeline.gpu().counters().uploaded_bytes;
    assert!(run(&mut pipeline, &request, None).latents == expected);
    assert_eq!(pipeline.gpu().counters().uploaded_bytes, before);

    // Others get less than they should before a run is refused.
    let outcome = run(&mut open(least + staging), &request, None);
    assert!(outcome.latents == expected && outcome.warnings.len() == 1);
    let pipeline = open(least / 2);
    let mut run = pipeline.start(request).unwrap();
    let error = block_on(pipeline.gpu(), run.next()).unwrap_err();
    assert!(matches!(error, Error::TooLittleMemory { free, .. } if free == least / 2), "{error}");
}

/// Memory that turns out to be smaller than the run: it goes on within a budget, and says so.
#[test]
fn full_memory_sets_a_budget() {
    let mut request = request("a fox", RaluChoice::Off);
    request.steps = Some(3);
    let (expected, planned) = draw(FLUX, &request, None, crate::common::gpu());
    let gpu = crate::common::gpu();
    gpu.faults().memory_bytes.set(Some(planned.peak_bytes / 5 * 4));
    let mut pipeline = Pipeline::open(gpu, Box::new(folder(FLUX)), within(None)).unwrap();
    let outcome = run(&mut pipeline, &request, None);
    assert!(outcome.latents == expected);
    let last = outcome.warnings.last().expect("a warning");
    assert!(last.contains("within a budget of"), "{:?}", outcome.warnings);
    // Later runs know it.
    assert_eq!(run(&mut pipeline, &request, None).warnings, [""; 0]);
}

/// Blocks that the host keeps packed are read once, and draw the same.
#[test]
fn copies_on_the_host_draw_the_same() {
    let gpu = crate::common::gpu;
    let request = request("a fox", RaluChoice::Off);
    let (expected, _) = draw(FLUX, &request, None, gpu());
    let budget = least(FLUX, &request, &gpu());
    // For some blocks, and for all.
    for host_memory in [budget / 4, 1 << 30] {
        let options = within(Some(budget)).with(|options| options.host_memory = host_memory);
        let mut pipeline = Pipeline::open(gpu(), Box::new(folder(FLUX)), options).unwrap();
        assert!(run(&mut pipeline, &request, None).latents == expected, "{host_memory}");
    }
}

/// The scale of fp8 is measured before a block is packed, each time that it comes.
#[test]
fn weights_that_are_quantised_are_the_same_where_they_are_streamed() {
    let request = request("a fox", RaluChoice::Off);
    let options = |budget| within(budget).with(|options| options.quantise = "fp8".parse().ok());
    let source = folder(FLUX);
    let config = ModelConfig::load(&source as &dyn Source).unwrap();
    let settings = Settings::resolve(&request, &config).unwrap();
    let caps = crate::common::gpu().caps();
    let plan =
        |budget| plan(&config, Some(&source as &dyn Source), &settings, caps, options(budget));
    let Err(Error::MemoryBudget { least, .. }) = plan(Some(1)) else {
        panic!("one byte is enough")
    };
    assert!(plan(Some(least)).unwrap().memory.streaming.is_some());
    let draw = |budget| {
        let source = Box::new(folder(FLUX));
        let mut pipeline = Pipeline::open(crate::common::gpu(), source, options(budget)).unwrap();
        run(&mut pipeline, &request, None).latents
    };
    let whole = draw(None);
    assert!(!whole.is_empty() && draw(Some(least)) == whole);
}
