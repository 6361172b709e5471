//! Runs whose devices are lost or fail, on purpose: they end with the same pictures, or say why not.

use std::cell::Cell;
use std::mem::discriminant;
use std::sync::atomic::Ordering;

use ralu::gpu::Gpu;
use ralu::{Error, Event, Picture, Pipeline, Request};
use ralu_host::{Device, End, Outcome, Session};

use crate::common::{counted, gpu, pipeline, request, undisturbed};

/// What a run told.
#[derive(Default)]
struct Told {
    events: Vec<Event>,
    pictures: Vec<Picture>,
    warnings: Vec<String>,
    steps: usize,
}

impl Told {
    fn hear(&mut self, event: Event) {
        match &event {
            // That 128 x 128 is small for RALU is no news.
            Event::Warning(warning) if warning.contains("is small for RALU") => {}
            Event::Warning(warning) => self.warnings.push(warning.clone()),
            Event::Step(_) => self.steps += 1,
            Event::Image { picture, .. } => self.pictures.push(picture.clone()),
            _ => {}
        }
        self.events.push(event);
    }
}

/// Draws `request`, and destroys a device after each event at which `lose` says so.
fn draw(
    session: &mut Session,
    device: &mut Device,
    request: &Request,
    mut lose: impl FnMut(&Told) -> bool,
) -> (Told, Outcome<Error>) {
    let mut told = Told::default();
    let outcome = session.draw(
        device,
        request,
        || true,
        |pipeline, event| {
            told.hear(event);
            if lose(&told) {
                pipeline.gpu().destroy();
            }
            Ok(())
        },
    );
    (told, outcome)
}

fn session(device: &mut Device) -> Session {
    Session::new(pipeline(device.open().expect("an adapter")))
}

fn healthy() -> (Device, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    counted(|_, gpu| Ok(gpu))
}

/// What comes next differs by the kind of event, and each has its own way to fail on a device that is gone: so after the
/// first event of every kind, and in the middle of every stage.
#[test]
fn a_loss_anywhere_gives_the_same_picture() {
    let whole = undisturbed(&request());
    let (mut device, _) = healthy();
    let (all, _) = draw(&mut session(&mut device), &mut device, &request(), |_| false);
    let kinds: Vec<_> = all.events.iter().map(discriminant).collect();
    let mut places: Vec<usize> =
        (1..kinds.len()).filter(|i| !kinds[..i - 1].contains(&kinds[i - 1])).collect();
    for stage in 1..=3 {
        let is_second =
            |event: &Event| matches!(event, Event::Step(s) if s.stage == stage && s.step == 2);
        places.push(1 + all.events.iter().position(is_second).expect("two steps in each stage"));
    }
    assert!(places.len() > 8, "{places:?}");
    for place in places {
        let (mut device, opened) = healthy();
        let mut session = session(&mut device);
        let mut lost = false;
        let (told, outcome) = draw(&mut session, &mut device, &request(), |told| {
            !std::mem::replace(&mut lost, told.events.len() >= place) && lost
        });
        assert!(matches!(outcome.end, End::Finished), "lost after event {place}: {outcome:?}");
        assert_eq!(outcome.losses, 1, "lost after event {place}");
        assert_eq!(opened.load(Ordering::Relaxed), 2, "lost after event {place}");
        assert!(told.pictures == whole, "lost after event {place}: another picture");
        // It resumes: no step is made twice, but for one that was on its way.
        assert!(told.steps <= 11, "lost after event {place}: {} steps", told.steps);
        let [warning] = told.warnings.as_slice() else { panic!("{:?}", told.warnings) };
        let said = ["the GPU was lost", "Opening it again, to go on "];
        assert!(said.iter().all(|words| warning.contains(words)), "{warning}");
        assert!(session.pipeline().is_ok());
    }
}

#[test]
fn a_second_picture_and_a_second_loss_change_nothing() {
    let request = request().with(|request| request.count = Some(2));
    let whole = undisturbed(&request);
    assert_eq!(whole.len(), 2);
    let (mut device, opened) = healthy();
    let mut session = session(&mut device);
    let (told, outcome) = draw(&mut session, &mut device, &request, |told| {
        let is_step = matches!(told.events.last(), Some(Event::Step(_)));
        is_step && [4, 15].contains(&told.steps)
    });
    assert!(matches!(outcome.end, End::Finished), "{outcome:?}");
    assert_eq!((outcome.losses, opened.load(Ordering::Relaxed)), (2, 3));
    assert!(told.pictures == whole, "other pictures");
}

/// A loss, and then another fault of the next device.
#[test]
fn the_next_device_may_have_faults_of_its_own() {
    type Fault = fn(&Gpu);
    let faults: [(&str, Fault); 2] = [
        ("GPU memory is full at", |gpu| {
            gpu.faults().allocations_left.set(Some(20));
            gpu.faults().fails_once.set(true);
        }),
        ("shorter ones from now on", |gpu| gpu.faults().flops_per_second.set(Some(1e4))),
    ];
    // Work of a processor is never cut for being slow; and none is cut here because the machine that tests is busy.
    let prepared = |gpu: Gpu| {
        let gpu = gpu.with_caps(|caps| caps.is_cpu = false);
        gpu.faults().flops_per_second.set(Some(1e15));
        gpu
    };
    let (mut device, _) = counted(move |_, gpu| Ok(prepared(gpu)));
    let (whole, _) = draw(&mut session(&mut device), &mut device, &request(), |_| false);
    assert!(whole.warnings.is_empty() && whole.pictures.len() == 1, "{:?}", whole.warnings);
    for (words, fault) in faults {
        let (mut device, _) = counted(move |number, gpu| {
            let gpu = prepared(gpu);
            if number == 1 {
                fault(&gpu);
            }
            Ok(gpu)
        });
        let mut session = session(&mut device);
        let (told, outcome) = draw(&mut session, &mut device, &request(), |told| {
            matches!(told.events.last(), Some(Event::Step(_))) && told.steps == 3
        });
        assert!(matches!(outcome.end, End::Finished), "{words}: {outcome:?}");
        assert!(told.warnings.iter().any(|w| w.contains(words)), "{:?}", told.warnings);
        assert!(told.pictures == whole.pictures, "{words}: another picture");
    }
}

#[test]
fn a_device_that_is_lost_again_and_again_ends_the_run() {
    let (mut device, opened) = healthy();
    let mut session = session(&mut device);
    let (told, outcome) = draw(&mut session, &mut device, &request(), |_| true);
    let End::Failed(error) = outcome.end else { panic!("{outcome:?}") };
    assert!(error.is_lost(), "{error}");
    assert_eq!((outcome.losses, opened.load(Ordering::Relaxed)), (3, 3));
    assert_eq!(told.steps, 0);
    // Two were answered, the third is the error.
    assert_eq!(told.warnings.len(), 2, "{:?}", told.warnings);
}

#[test]
fn a_device_that_cannot_be_opened_again_is_an_error_that_a_later_run_survives() {
    let whole = undisturbed(&request());
    let (mut device, _) = counted(|number, gpu| match number {
        1 => Err(ralu::gpu::Error::Lost { reason: "the cable is out".to_owned() }),
        _ => Ok(gpu),
    });
    let mut session = session(&mut device);
    let (told, outcome) = draw(&mut session, &mut device, &request(), |told| {
        told.steps == 2 && told.warnings.is_empty()
    });
    let End::Failed(error) = &outcome.end else { panic!("{outcome:?}") };
    assert!(error.to_string().contains("the cable is out"), "{error}");
    assert_eq!(told.steps, 2);
    // The device that the model is still on is lost.
    let (told, outcome) = draw(&mut session, &mut device, &request(), |_| false);
    assert!(matches!(outcome.end, End::Finished), "{outcome:?}");
    assert_eq!(outcome.losses, 1);
    assert!(told.pictures == whole, "another picture");
}

#[test]
fn a_shared_device_ends_the_run_and_its_checkpoint_resumes_it() {
    let whole = undisturbed(&request());
    let mut device = Device::shared(gpu);
    let mut session = session(&mut device);
    let (told, outcome) = draw(&mut session, &mut device, &request(), |told| told.steps == 6);
    let End::Failed(error) = &outcome.end else { panic!("{outcome:?}") };
    assert!(error.is_lost() && outcome.losses == 1, "{error}");
    assert!(told.warnings.is_empty(), "{:?}", told.warnings);
    let checkpoint = outcome.checkpoint.expect("six steps were made");
    let resume = request().with(|request| request.resume = Some(checkpoint));

    let (mut device, _) = healthy();
    let mut session = self::session(&mut device);
    // It is lost once more before it makes a step of its own: the first run's steps are not made again.
    let first = Cell::new(true);
    let (told, outcome) = draw(&mut session, &mut device, &resume, |_| first.take());
    assert!(matches!(outcome.end, End::Finished), "{outcome:?}");
    assert!(told.pictures == whole, "another picture");
    assert!(told.steps <= 5, "{} steps", told.steps);
    assert!(!told.warnings[0].contains("from the start"), "{:?}", told.warnings);
}

#[test]
fn a_run_can_be_cancelled_and_its_listener_can_fail() {
    let (mut device, _) = healthy();
    let mut session = session(&mut device);
    let steps = Cell::new(0);
    let count = |event: &Event| steps.set(steps.get() + i32::from(matches!(event, Event::Step(_))));
    let outcome = session.draw(
        &mut device,
        &request(),
        || steps.get() < 2,
        |_: &Pipeline, event| {
            count(&event);
            Ok::<(), Error>(())
        },
    );
    assert!(matches!(outcome.end, End::Cancelled), "{outcome:?}");
    assert_eq!(steps.get(), 2);
    assert!(outcome.checkpoint.is_some());

    steps.set(0);
    let full = || {
        Error::Gpu(ralu::gpu::Error::Rejected {
            what: "a file".to_owned(),
            message: "the disk is full".to_owned(),
        })
    };
    let outcome = session.draw(
        &mut device,
        &request(),
        || true,
        |_, event| {
            count(&event);
            if steps.get() == 2 { Err(full()) } else { Ok(()) }
        },
    );
    let End::Failed(error) = outcome.end else { panic!("{outcome:?}") };
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert_eq!((steps.get(), outcome.losses), (2, 0));
}
