//! Checkpoints as bytes, for a program that goes on in the place of another one.

use std::path::PathBuf;
use std::sync::Arc;

use ralu::Run;
use ralu::checkpoint::source::Folder;
use ralu::gpu::block_on_while;
use ralu::pipeline::{
    Checkpoint, Event, Options, Picture, Pipeline, RaluChoice, Request, Settings,
};
use ralu::sampling::Preset;
use ralu::sampling::cache::CacheSpec;

fn open() -> Pipeline {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/flux-b/model");
    let source = Box::new(Folder::open(folder).unwrap());
    Pipeline::open(crate::common::gpu(), source, Options::default()).unwrap()
}

/// Three stages of 4 x 4 to 8 x 8 tokens and a short text, ten steps.
fn request() -> Request {
    let request = Request::new("a red apple").size(128, 128).seed(3);
    request.ralu(RaluChoice::Preset(Preset::X7)).with(|r| r.max_sequence_length = Some(16))
}

/// Runs to the end, or until after the step of that stage; gives the picture, and how many steps were made.
fn watch(run: &mut Run, pipeline: &Pipeline, until: (usize, usize)) -> (Option<Picture>, usize) {
    let (mut picture, mut steps) = (None, 0);
    while let Some(event) = block_on_while(pipeline.gpu(), run.next(), || true).unwrap().unwrap() {
        match event {
            Event::Step(step) => {
                steps += 1;
                if (step.stage, step.step) == until {
                    break;
                }
            }
            Event::Image { picture: made, .. } => picture = Some(made),
            _ => {}
        }
    }
    (picture, steps)
}

/// The settings of a run, and the bytes of its checkpoint after a step.
fn stopped(request: &Request, after: (usize, usize)) -> (Settings, Option<Vec<u8>>) {
    let pipeline = open();
    let mut run = pipeline.start(request.clone()).unwrap();
    watch(&mut run, &pipeline, after);
    // At a stage's end it is kept while the next event is made.
    let _ = block_on_while(pipeline.gpu(), run.next(), || true).unwrap().unwrap();
    (run.settings().clone(), run.checkpoint().unwrap().to_bytes())
}

#[test]
fn another_process_goes_on_to_the_same_picture() {
    for request in [request(), request().ralu(RaluChoice::Off)] {
        let pipeline = open();
        let mut run = pipeline.start(request.clone()).unwrap();
        let (whole, steps) = watch(&mut run, &pipeline, (0, 0));
        drop(run);
        let stages = if request.ralu == RaluChoice::Off { 1 } else { 3 };
        for after in [(1, 1), (1, 2), (2, 1), (3, 1), (3, 4)] {
            if after.0 > stages {
                continue;
            }
            let (settings, bytes) = stopped(&request, after);
            let at = Checkpoint::read(&bytes.unwrap(), &settings, pipeline.config()).unwrap();
            assert!((at.stage(), at.steps()) >= after, "{:?}", (at.stage(), at.steps()));
            let resumed = request.clone().with(|request| request.resume = Some(Arc::new(at)));
            let mut run = pipeline.start(resumed).unwrap();
            let (picture, made) = watch(&mut run, &pipeline, (0, 0));
            assert!(picture == whole, "after {after:?}: another picture");
            assert!(made < steps, "after {after:?} all {made} steps were made again");
        }
    }
}

#[test]
fn what_cannot_leave_the_process_says_so() {
    let cache = CacheSpec::parse_option("taylorseer").unwrap();
    assert!(stopped(&request().with(|request| request.cache = cache), (2, 1)).1.is_none());
    assert!(stopped(&request().with(|request| request.collect_tensors = true), (2, 1)).1.is_none());
}

#[test]
fn damaged_ones_and_those_of_other_settings_are_errors() {
    let pipeline = open();
    let (settings, bytes) = stopped(&request(), (2, 1));
    let bytes = bytes.unwrap();
    let read = |bytes: &[u8], settings: &Settings| {
        Checkpoint::read(bytes, settings, pipeline.config()).map_err(|error| error.to_string())
    };
    read(&bytes, &settings).unwrap();
    let other = |change: fn(&mut Settings)| {
        let mut other = settings.clone();
        change(&mut other);
        other
    };
    let others = [
        other(|s| s.seed = 4),
        other(|s| s.prompt = "a red car".into()),
        other(|s| s.width = 256),
        other(|s| s.count = 2),
    ];
    for other in others {
        let message = read(&bytes, &other).unwrap_err();
        assert!(message.contains("the checkpoint is of other settings"), "{message}");
    }
    for length in (0..bytes.len()).step_by(97) {
        let message = read(&bytes[..length], &settings).unwrap_err();
        assert!(message.contains("the checkpoint is damaged"), "{message}");
    }
    // Whatever a byte is changed to: an error, or a run that starts.
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for at in 0..header {
        for byte in [b'0', b'9', b'"', b']', 0] {
            let mut changed = bytes.clone();
            changed[at] = byte;
            if let Ok(checkpoint) = read(&changed, &settings) {
                let resume = Some(Arc::new(checkpoint));
                pipeline.start(request().with(|request| request.resume = resume)).unwrap();
            }
        }
    }
    let text = String::from_utf8(bytes[8..header].to_vec()).unwrap();
    for (from, to, reason) in [
        (r#"\"stage\":1"#, r#"\"stage\":7"#, "no such stage"),
        (r#"\"stage\":1"#, r#"\"stage\":2"#, "latents of another size"),
        (r#"\"image\":0"#, r#"\"image\":1"#, "no such picture"),
        (r#"\"format\":2,\"settings"#, r#"\"format\":1,\"settings"#, "format 1"),
    ] {
        assert!(text.contains(from), "{text}");
        let mut changed = bytes[..8].to_vec();
        changed.extend_from_slice(text.replacen(from, to, 1).as_bytes());
        changed.extend_from_slice(&bytes[header..]);
        let message = read(&changed, &settings).unwrap_err();
        assert!(message.contains(reason), "{message}");
    }
}
