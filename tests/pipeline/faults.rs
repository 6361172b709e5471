//! Faults of the device, brought about on purpose: what a run does about them.

use std::cell::Cell;
use std::mem::{Discriminant, discriminant};
use std::path::PathBuf;

use ralu::Run;
use ralu::checkpoint::source::Folder;
use ralu::gpu::{Gpu, SHADER_FILES, block_on_while};
use ralu::pipeline::{
    Error, Event, NamedTensors, Options, Picture, Pipeline, RaluChoice, Recovery, Request,
};
use ralu::sampling::Preset;
use ralu::sampling::cache::CacheSpec;

fn open(gpu: Gpu) -> Pipeline {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/flux-b/model");
    Pipeline::open(gpu, Box::new(Folder::open(folder).unwrap()), Options::default()).unwrap()
}

/// Three stages of 4 x 4 to 8 x 8 tokens and a short text, ten steps.
fn request() -> Request {
    let request = Request::new("a red apple").size(128, 128).seed(3);
    request.ralu(RaluChoice::Preset(Preset::X7)).with(|r| r.max_sequence_length = Some(16))
}

/// What a run told.
#[derive(Default)]
struct Told {
    kinds: Vec<Discriminant<Event>>,
    pictures: Vec<Picture>,
    tensors: Option<NamedTensors>,
    /// Stage and step, both from 1.
    steps: Vec<(usize, usize)>,
    selected: Vec<u32>,
    computed: Vec<Vec<bool>>,
    warnings: Vec<String>,
}

/// When a device is destroyed: at the first event before which `due` holds.
#[derive(Clone, Copy)]
struct Loss<'a> {
    due: &'a dyn Fn(&Told) -> bool,
    /// In the middle of the work on that event, where a machine is slow enough to see it, or else right after it;
    /// otherwise before it.
    in_the_middle: bool,
}

impl<'a> Loss<'a> {
    const NONE: Loss<'static> = Loss { due: &|_| false, in_the_middle: false };

    fn during(due: &'a dyn Fn(&Told) -> bool) -> Loss<'a> {
        Loss { due, in_the_middle: true }
    }

    fn before(due: &'a dyn Fn(&Told) -> bool) -> Loss<'a> {
        Loss { due, in_the_middle: false }
    }
}

/// Pulls events until the end, or until the device is lost.
fn watch(run: &mut Run, gpu: &Gpu, told: &mut Told, loss: Loss<'_>) -> Result<(), Error> {
    loop {
        let due = Cell::new((loss.due)(told));
        let turns = Cell::new(0);
        let next = block_on_while(gpu, run.next(), || {
            // After the first turn something was submitted.
            if turns.replace(turns.get() + 1) == usize::from(loss.in_the_middle) && due.take() {
                gpu.destroy();
            }
            true
        });
        if due.take() {
            gpu.destroy();
        }
        let event = next.unwrap()?;
        told.kinds.extend(event.as_ref().map(discriminant));
        match event {
            None => return Ok(()),
            // That 128 x 128 is small for RALU is no news.
            Some(Event::Warning(warning)) if warning.contains("is small for RALU") => {}
            Some(Event::Warning(warning)) => told.warnings.push(warning),
            Some(Event::Step(step)) => told.steps.push((step.stage, step.step)),
            Some(Event::Regions { selected, .. }) => told.selected = selected,
            Some(Event::Image { picture, tensors, report, .. }) => {
                told.pictures.push(picture);
                told.tensors = tensors;
                told.computed = report.computed;
            }
            Some(_) => {}
        }
    }
}

fn undisturbed(request: &Request) -> Told {
    run(&open(crate::common::gpu()), request).unwrap()
}

fn run(pipeline: &Pipeline, request: &Request) -> Result<Told, Error> {
    let mut told = Told::default();
    let mut run = pipeline.start(request.clone())?;
    watch(&mut run, pipeline.gpu(), &mut told, Loss::NONE)?;
    Ok(told)
}

/// Peak signal-to-noise ratio of two pictures.
fn psnr(a: &Picture, b: &Picture) -> f64 {
    let squares = a.rgb.iter().zip(&b.rgb).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    10.0 * (255.0 * 255.0 * a.rgb.len() as f64 / squares.sum::<f64>()).log10()
}

/// Runs a request whose device is lost by the first of `losses`, the next one by the second, and so on. Gives also how
/// many were lost.
fn with_losses(request: &Request, losses: &[Loss<'_>]) -> (Told, usize) {
    let mut pipeline = open(crate::common::gpu());
    let mut recovery = Recovery::default();
    let mut told = Told::default();
    let mut lost = 0;
    loop {
        let mut run = pipeline.start(recovery.request(request)).unwrap();
        let loss = losses.get(lost).copied().unwrap_or(Loss::NONE);
        match watch(&mut run, pipeline.gpu(), &mut told, loss) {
            Ok(()) => return (told, lost),
            Err(error) => assert!(recovery.should_resume(&error, &run), "{error}"),
        }
        drop(run);
        lost += 1;
        let gpu = recovery.limit_work(crate::common::gpu());
        pipeline = pollster::block_on(pipeline.revive(gpu)).unwrap();
    }
}

#[test]
fn a_run_goes_on_from_its_last_step() {
    let whole = undisturbed(&request());
    assert_eq!(whole.steps.len(), 10);
    // In the middle of stage 1, of stage 2, right after its end, in stage 3, and while the picture is decoded.
    for after in [(1, 1), (1, 2), (2, 2), (2, 3), (3, 1), (3, 4), (3, 5)] {
        let lose = move |told: &Told| told.steps.last() == Some(&after);
        let (told, lost) = with_losses(&request(), &[Loss::during(&lose)]);
        assert_eq!(lost, 1, "the device was not lost after {after:?}");
        assert!(told.pictures == whole.pictures, "lost after {after:?}: another picture");
        assert_eq!(told.selected, whole.selected);
        assert_eq!(told.computed, whole.computed);
        // No step is made more than once, but for the one that was on its way.
        let again = told.steps.len() - whole.steps.len();
        assert!(again <= 1, "lost after {after:?}: {:?}", told.steps);
    }
}

/// What comes next differs by the kind of event: something is planned, compiled, uploaded, submitted or read, and each
/// has its own way to fail on a device that is gone.
#[test]
fn a_device_may_be_lost_after_any_kind_of_event() {
    let whole = undisturbed(&request());
    let kinds = &whole.kinds;
    let firsts: Vec<_> =
        (1..kinds.len()).filter(|i| !kinds[..i - 1].contains(&kinds[i - 1])).collect();
    assert!(firsts.len() > 6, "{firsts:?} of {kinds:?}");
    for events in firsts {
        let due = |told: &Told| told.kinds.len() == events;
        let (told, lost) = with_losses(&request(), &[Loss::before(&due)]);
        assert_eq!(lost, 1, "the device was not lost after event {events}");
        assert!(told.pictures == whole.pictures, "lost after event {events}: another picture");
    }
}

#[test]
fn a_run_with_a_cache_goes_on_from_its_last_stage() {
    let cache = CacheSpec::parse_option("taylorseer").unwrap();
    let request = request().with(|request| {
        request.cache = cache;
        request.collect_tensors = true;
    });
    let whole = undisturbed(&request);
    for after in [(1, 1), (2, 1), (3, 2)] {
        let lose = move |told: &Told| told.steps.last() == Some(&after);
        let (told, lost) = with_losses(&request, &[Loss::during(&lose)]);
        assert_eq!(lost, 1, "the device was not lost after {after:?}");
        assert!(told.pictures == whole.pictures, "lost after {after:?}: another picture");
        assert_eq!(told.computed, whole.computed);
        assert!(told.tensors == whole.tensors, "lost after {after:?}: other tensors");
        let first = told.steps.iter().filter(|step| **step == (after.0, 1)).count();
        assert_eq!(first, 2, "stage {} was to be run again: {:?}", after.0, told.steps);
    }
}

#[test]
fn a_second_picture_and_a_second_loss_change_nothing() {
    let request = request().with(|request| request.count = Some(2));
    let whole = undisturbed(&request);
    let early = |told: &Told| told.pictures.len() == 1 && told.steps.len() == 12;
    let late = |told: &Told| told.pictures.len() == 1 && told.steps.len() == 16;
    let (told, lost) = with_losses(&request, &[Loss::during(&early), Loss::during(&late)]);
    assert_eq!(lost, 2);
    assert!(told.pictures == whole.pictures, "other pictures");
}

#[test]
fn a_device_that_is_lost_again_and_again_ends_the_run() {
    let mut pipeline = open(crate::common::gpu());
    let mut recovery = Recovery::default();
    for attempt in 1..=3 {
        let mut run = pipeline.start(recovery.request(&request())).unwrap();
        let error = watch(&mut run, pipeline.gpu(), &mut Told::default(), Loss::before(&|_| true))
            .unwrap_err();
        assert!(error.to_string().contains("the GPU was lost"), "{error}");
        assert_eq!(recovery.should_resume(&error, &run), attempt < 3, "loss {attempt}");
        assert!(recovery.checkpoint().is_none(), "no step was made");
        drop(run);
        pipeline = pollster::block_on(pipeline.revive(crate::common::gpu())).unwrap();
    }
}

#[test]
fn other_errors_and_other_requests_do_not_go_on() {
    let pipeline = open(crate::common::gpu());
    let mut told = Told::default();
    let mut run = pipeline.start(request()).unwrap();
    watch(&mut run, pipeline.gpu(), &mut told, Loss::NONE).unwrap();
    let error = pipeline.start(request().size(7, 7)).err().unwrap();
    assert!(!Recovery::default().should_resume(&error, &run));
    let resume = run.checkpoint();
    assert!(resume.is_some());
    let other = request().seed(4).with(|request| request.resume = resume);
    let message = pipeline.start(other).err().unwrap().to_string();
    assert!(message.contains("the checkpoint is of other settings"), "{message}");
}

#[test]
fn kernels_that_do_not_compile_have_stand_ins() {
    let whole = undisturbed(&request());
    let used = |gpu: &Gpu, shader: &'static str| gpu.faults().broken_kernels.lock().push(shader);
    for shader in SHADER_FILES.iter().map(|(name, _)| *name) {
        let pipeline = open(crate::common::gpu());
        used(pipeline.gpu(), shader);
        match run(&pipeline, &request()) {
            // Stand-ins round differently; what was chosen by them is the same.
            Ok(told) => {
                let unused = told.warnings.is_empty();
                assert!(unused || told.warnings[0].contains(&format!("kernel {shader}")));
                assert!(!unused || told.pictures == whole.pictures, "{shader}: another picture");
                assert_eq!(told.selected, whole.selected, "{shader}");
                let close = psnr(&told.pictures[0], &whole.pictures[0]);
                assert!(close > 60.0, "{shader}: {close} dB");
            }
            // Of these there is only one.
            Err(error) => {
                let message = error.to_string();
                assert!(message.contains(&format!("cannot compile kernel {shader}")), "{message}");
                let has_stand_in = ["matmul_", "conv2d_", "attention_"];
                assert!(!has_stand_in.iter().any(|name| shader.starts_with(name)), "{message}");
            }
        }
    }
}

#[test]
fn full_memory_is_survived_or_explained() {
    let whole = undisturbed(&request());
    let pipeline = open(crate::common::gpu());
    *pipeline.gpu().faults().allocated.lock() = Some(vec![]);
    run(&pipeline, &request()).unwrap();
    let allocated = pipeline.gpu().faults().allocated.take().unwrap();
    // One of each kind: a part's weights, a program's parameters, temporaries, read-backs and so on.
    let kind = |label: &str| match label.rsplit_once(' ') {
        Some((_, "params")) => "params".to_owned(),
        _ => label.split(['.', ' ', '_']).next().unwrap_or_default().to_owned(),
    };
    let mut sites: Vec<(u64, String)> = Vec::new();
    for (at, label) in allocated.iter().enumerate() {
        if !sites.iter().any(|(_, known)| *known == kind(label)) {
            sites.push((at as u64, kind(label)));
        }
    }
    println!("{sites:?}");
    assert!(sites.len() > 10, "{sites:?}");
    for (at, site) in sites {
        let pipeline = open(crate::common::gpu());
        let faults = pipeline.gpu().faults();
        // Memory is full for good: an error that says where, and nothing that a later run trips over.
        faults.allocations_left.set(Some(at));
        let message =
            run(&pipeline, &request()).err().unwrap_or_else(|| panic!("{site}")).to_string();
        assert!(message.contains("out of GPU memory at"), "{site}: {message}");
        // Once: a warning, and the same picture.
        faults.fails_once.set(true);
        faults.allocations_left.set(Some(0));
        let told = run(&pipeline, &request()).unwrap_or_else(|error| panic!("{site}: {error}"));
        assert!(told.warnings[0].contains("GPU memory is full at"), "{site}: {:?}", told.warnings);
        assert!(told.pictures == whole.pictures, "{site}: another picture");
    }
}

#[test]
fn work_that_takes_too_long_is_cut_finer() {
    let gpu = || crate::common::gpu().with_caps(|caps| caps.is_cpu = false);
    // A text that is long enough to be cut.
    let request = || request().with(|request| request.max_sequence_length = Some(256));
    let pipeline = open(gpu());
    // So fast that nothing is cut.
    pipeline.gpu().faults().flops_per_second.set(Some(1e15));
    let whole = run(&pipeline, &request()).unwrap();
    let submissions = pipeline.gpu().counters().submissions;
    assert!(whole.warnings.is_empty());
    // So slow that a slice is soon a single dispatch, which still seems to take longer than a second.
    let pipeline = open(gpu());
    pipeline.gpu().faults().flops_per_second.set(Some(1e5));
    let before = pipeline.gpu().caps().max_dispatch_flops;
    let told = run(&pipeline, &request()).unwrap();
    assert!(told.warnings.iter().any(|w| w.contains("shorter ones from now on")));
    assert!(pipeline.gpu().caps().max_dispatch_flops < before);
    assert!(pipeline.gpu().counters().submissions > 2 * submissions);
    assert!(told.pictures == whole.pictures, "another picture");
}
