//! The engine on its thread: commands in, events out.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use ralu::models::adapters::{Lora, LoraWeight};
use ralu::pipeline::tune::TuningEvent;
use ralu::{Event, Picture, Request};
use ralu_host::engine::{Ended, Engine, EngineEvent, EngineOptions, ModelInfo, OpenModel};
use ralu_host::{CacheDir, Device, End, Error};

use crate::common::{choice, gpu, model, request, undisturbed};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// An engine, and what it tells.
struct Heard {
    engine: Engine,
    events: Receiver<EngineEvent>,
}

/// What a job told.
#[derive(Default)]
struct Job {
    started: bool,
    is_resumed: bool,
    steps: usize,
    pictures: Vec<Picture>,
    warnings: Vec<String>,
    tuning: usize,
    tuned: bool,
}

fn start_on(device: Device, options: EngineOptions) -> Heard {
    let (tell, events) = channel();
    let engine = Engine::start(device, options, move |event| {
        // The test may have ended.
        let _ = tell.send(event);
    });
    Heard { engine: engine.expect("a thread"), events }
}

/// An engine with the small model.
fn start() -> Heard {
    let heard = start_on(Device::adapter(choice(), None), EngineOptions::default());
    heard.open();
    heard
}

impl Heard {
    fn next(&self) -> EngineEvent {
        self.events.recv_timeout(PATIENCE).expect("an event")
    }

    fn open(&self) {
        self.engine.open(OpenModel::new(model()));
        assert_eq!(self.opened().name, "model");
    }

    fn opened(&self) -> ModelInfo {
        match self.next() {
            EngineEvent::Opened(info) => *info,
            other => panic!("{other:?}"),
        }
    }

    /// Hears a job to its end; `each` hears along. Nothing else is told meanwhile.
    fn job_with(&self, number: u64, mut each: impl FnMut(&Job)) -> (Job, Ended) {
        let mut heard = Job::default();
        loop {
            match self.next() {
                EngineEvent::Started(started) => {
                    assert_eq!((started.job, heard.started), (number, false));
                    assert_eq!(started.schedule.steps(), 10);
                    assert!(started.plan.is_some());
                    (heard.started, heard.is_resumed) = (true, started.is_resumed);
                }
                EngineEvent::Event { job, event, .. } => {
                    assert_eq!((job, heard.started), (number, true));
                    match event {
                        Event::Step(_) => heard.steps += 1,
                        Event::Image { picture, .. } => heard.pictures.push(picture),
                        Event::Warning(text) if text.contains("is small for RALU") => {}
                        Event::Warning(text) => heard.warnings.push(text),
                        _ => {}
                    }
                }
                EngineEvent::Tuning { job, event } => {
                    assert_eq!((job, heard.started), (number, false));
                    heard.tuning += usize::from(matches!(event, TuningEvent::Measured { .. }));
                }
                EngineEvent::Tuned { job, file, .. } => {
                    assert_eq!((job, heard.started), (number, false));
                    assert!(file.is_some_and(|file| file.is_file()));
                    heard.tuned = true;
                }
                EngineEvent::Ended(ended) => {
                    assert_eq!(ended.job, number);
                    return (heard, *ended);
                }
                other => panic!("{other:?}"),
            }
            each(&heard);
        }
    }

    fn job(&self, number: u64) -> (Job, Ended) {
        self.job_with(number, |_| {})
    }

    /// Draws a request to its end.
    fn drawn(&self, request: Request) -> Job {
        let (heard, ended) = self.job(self.engine.generate(request));
        assert!(matches!(ended.end, End::Finished), "{:?}", ended.end);
        heard
    }

    /// Checks that nothing is told any more.
    fn is_silent(&self) {
        let told = self.events.recv_timeout(Duration::from_millis(200));
        assert!(matches!(told, Err(RecvTimeoutError::Timeout)), "{told:?}");
    }
}

#[track_caller]
fn error(ended: Ended) -> Error {
    match ended.end {
        End::Failed(error) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_handle_and_its_events_can_go_to_any_thread() {
    fn is_send<T: Send>() {}
    fn is_sync<T: Sync>() {}
    is_send::<Engine>();
    is_sync::<Engine>();
    is_send::<EngineEvent>();
    is_send::<Device>();
}

#[test]
fn requests_are_drawn_in_turn_by_one_model() {
    let heard = start();
    let other = request().seed(4);
    let (first, second) = (heard.engine.generate(request()), heard.engine.generate(other.clone()));
    let ((a, a_end), (b, b_end)) = (heard.job(first), heard.job(second));
    assert!(matches!((&a_end.end, &b_end.end), (End::Finished, End::Finished)));
    assert!(a.pictures == undisturbed(&request()) && b.pictures == undisturbed(&other));
    assert_eq!(a_end.settings.map(|s| s.seed), Some(3));
    assert_eq!(b_end.settings.map(|s| s.seed), Some(4));
    heard.is_silent();
}

/// Between jobs: weights without opening the model again, or with it where a file is merged into it; other files; and one that
/// is no file for it, which leaves it as it is.
#[test]
fn loras_change_between_jobs() {
    let heard = start_on(Device::adapter(choice(), None), EngineOptions::default());
    let fixtures = model().join("../..");
    heard.engine.open(OpenModel::new(fixtures.join("flux-a/model")));
    assert!(heard.opened().loras.is_empty());
    let set = |name: &str, weight: f64| {
        let file = fixtures.join("lora").join(name).to_string_lossy().into_owned();
        let weight = LoraWeight::Whole(weight);
        heard.engine.set_loras(vec![Lora { file, weight, sha256: None }]);
    };
    let drawn_with = |name: &str, weight: f64| {
        set(name, weight);
        let info = heard.opened();
        let parts = info.parts.expect("files of its own");
        assert_eq!((info.loras.len(), parts.loras.len()), (1, 1));
        assert_eq!(info.loras[0].weight, LoraWeight::Whole(weight));
        assert_eq!(parts.loras[0].weight, LoraWeight::Whole(weight));
        assert!(parts.loras[0].sha256.is_some());
        heard.drawn(request()).pictures
    };
    let plain = heard.drawn(request()).pictures;
    for name in ["flux-diffusers/lora.safetensors", "flux-diff/lora.safetensors"] {
        let whole = drawn_with(name, 1.0);
        let half = drawn_with(name, 0.5);
        assert!(whole != plain && half != plain && half != whole, "{name}");
        // Left out when the model is opened, and back again.
        heard.engine.set_loras(vec![]);
        assert!(heard.opened().loras.is_empty());
        assert!(heard.drawn(request()).pictures == plain);
        assert!(drawn_with(name, 0.0) == plain, "{name}");
        assert!(drawn_with(name, 0.5) == half, "{name}");
        set("bad/nan.safetensors", 1.0);
        match heard.next() {
            EngineEvent::LorasFailed(error) => {
                assert!(error.to_string().contains("nan"), "{error}")
            }
            other => panic!("{other:?}"),
        }
        assert!(heard.drawn(request()).pictures == half, "{name}");
    }
    heard.engine.close();
    assert!(matches!(heard.next(), EngineEvent::Closed));
    set("flux-diff/lora.safetensors", 1.0);
    assert!(matches!(heard.next(), EngineEvent::LorasFailed(Error::NoModel)));
}

#[test]
fn a_job_is_cancelled_in_its_middle_and_another_before_it_begins() {
    let heard = start();
    let whole = undisturbed(&request());
    let [first, second, third] = [(); 3].map(|()| heard.engine.generate(request()));
    heard.engine.cancel(second);
    let (a, a_end) = heard.job_with(first, |job| {
        if job.steps == 2 {
            heard.engine.cancel(first);
        }
    });
    assert!(matches!(a_end.end, End::Cancelled), "{:?}", a_end.end);
    // The thread may have been a step ahead of us.
    assert!((2..10).contains(&a.steps) && a.pictures.is_empty(), "{} steps", a.steps);
    let (b, b_end) = heard.job(second);
    assert!(matches!(b_end.end, End::Cancelled) && !b.started, "{:?}", b_end.end);
    let (c, c_end) = heard.job(third);
    assert!(matches!(c_end.end, End::Finished), "{:?}", c_end.end);
    assert!(c.pictures == whole, "another picture");

    // The place that it came to is enough for another process.
    let bytes = a_end.checkpoint.and_then(|checkpoint| checkpoint.to_bytes()).expect("steps");
    let other = start();
    let (d, d_end) = other.job(other.engine.resume(request(), Some(bytes)));
    assert!(matches!(d_end.end, End::Finished) && d.is_resumed, "{:?}", d_end.end);
    assert!(d.pictures == whole, "another picture");
    assert_eq!(d.steps, 10 - a.steps);

    // All at once, and what comes later is drawn.
    let jobs = [(); 2].map(|()| other.engine.generate(request()));
    other.engine.cancel_all();
    let later = other.engine.generate(request());
    for job in jobs {
        assert!(matches!(other.job(job).1.end, End::Cancelled));
    }
    assert!(other.job(later).0.pictures == whole, "another picture");
}

#[test]
fn a_checkpoint_that_does_not_fit_is_a_warning() {
    let heard = start();
    let (job, ended) = heard.job(heard.engine.resume(request(), Some(b"nothing".to_vec())));
    assert!(matches!(ended.end, End::Finished) && !job.is_resumed, "{:?}", ended.end);
    assert!(job.warnings[0].contains("drawn from the start"), "{:?}", job.warnings);
    assert_eq!(job.steps, 10);
}

#[test]
fn an_error_is_the_last_event_of_its_job() {
    let heard = start_on(Device::adapter(choice(), None), EngineOptions::default());
    let (job, ended) = heard.job(heard.engine.generate(request()));
    assert!(!job.started && ended.settings.is_none());
    assert!(matches!(error(ended), Error::NoModel));
    assert!(matches!(error(heard.job(heard.engine.tune(request())).1), Error::NoModel));

    heard.engine.open(OpenModel::new("no/such/folder"));
    match heard.next() {
        EngineEvent::OpenFailed(error) => {
            assert!(error.to_string().contains("no/such/folder"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    heard.open();
    let (job, ended) = heard.job(heard.engine.generate(request().size(7, 7)));
    assert!(!job.started);
    let message = error(ended).to_string();
    assert!(message.contains('7'), "{message}");
    heard.is_silent();
    // The engine goes on.
    assert!(heard.engine.is_running());
    assert_eq!(heard.drawn(request()).pictures.len(), 1);
}

#[test]
fn a_lost_device_is_opened_again() {
    let whole = undisturbed(&request());
    let heard = start();
    let job = heard.engine.generate(request());
    let (lost, ended) = heard.job_with(job, |job| {
        if job.steps == 3 && job.warnings.is_empty() {
            heard.engine.destroy_device();
        }
    });
    assert!(matches!(ended.end, End::Finished), "{:?}", ended.end);
    assert!(lost.warnings[0].contains("the GPU was lost"), "{:?}", lost.warnings);
    assert!(lost.pictures == whole, "another picture");
    // While nothing is drawn.
    heard.engine.destroy_device();
    let next = heard.drawn(request());
    assert_eq!(next.warnings.len(), 1, "{:?}", next.warnings);
    assert!(next.pictures == whole, "another picture");
    assert!(heard.drawn(request()).warnings.is_empty());
}

#[test]
fn a_shared_device_is_the_programs() {
    let whole = undisturbed(&request());
    let heard = start_on(Device::shared(gpu), EngineOptions::default());
    heard.open();
    let job = heard.engine.generate(request());
    let (_, mut ended) = heard.job_with(job, |job| {
        if job.steps == 3 {
            heard.engine.destroy_device();
        }
    });
    let bytes = ended.checkpoint.take().and_then(|at| at.to_bytes()).expect("three steps");
    assert!(ended.settings.is_some());
    assert!(error(ended).is_lost());
    // The program opens the model again, here on a device of its own.
    heard.open();
    let (job, ended) = heard.job(heard.engine.resume(request(), Some(bytes)));
    assert!(matches!(ended.end, End::Finished) && job.is_resumed, "{:?}", ended.end);
    assert!(job.pictures == whole, "another picture");
}

#[test]
fn kernels_are_measured_once_and_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = EngineOptions::default();
    options.cache = CacheDir::find(Some(folder.path()));
    options.tune = true;
    let device = || Device::adapter(choice(), CacheDir::find(Some(folder.path())));
    let first = start_on(device(), options.clone());
    first.open();
    let job = first.drawn(request());
    assert!(job.tuned && job.tuning > 0, "nothing was measured");
    let job = first.drawn(request());
    assert!(!job.tuned && job.tuning == 0, "measured again");
    drop(first);
    let second = start_on(device(), options.clone());
    second.open();
    let job = second.drawn(request());
    assert!(!job.tuned && job.tuning == 0, "measured again");
    let (job, ended) = second.job(second.engine.tune(request()));
    assert!(matches!(ended.end, End::Finished), "{:?}", ended.end);
    assert!(job.tuned && job.tuning > 0 && job.pictures.is_empty());
    assert_eq!(second.drawn(request()).pictures.len(), 1);
    // Measuring can be cancelled, too.
    let (job, ended) = {
        let job = second.engine.tune(request());
        second.engine.cancel(job);
        second.job(job)
    };
    assert!(matches!(ended.end, End::Cancelled) && !job.tuned, "{:?}", ended.end);
}

#[test]
fn a_closed_model_gives_its_memory_back() {
    let heard = start();
    heard.drawn(request());
    let job = heard.engine.generate(request());
    heard.engine.close();
    assert_eq!(heard.job(job).0.pictures.len(), 1);
    assert!(matches!(heard.next(), EngineEvent::Closed));
    assert!(matches!(error(heard.job(heard.engine.generate(request())).1), Error::NoModel));
    heard.open();
    assert_eq!(heard.drawn(request()).pictures.len(), 1);
}

#[test]
fn the_thread_ends_when_the_engine_is_dropped() {
    let heard = start();
    let jobs = [(); 3].map(|()| heard.engine.generate(request()));
    let mut steps = 0;
    while steps < 2 {
        if let EngineEvent::Event { event: Event::Step(_), .. } = heard.next() {
            steps += 1;
        }
    }
    let Heard { engine, events } = heard;
    drop(engine);
    // The thread is over: it owned the sender, so this ends. Every job has its end.
    let ended: Vec<Ended> = events
        .iter()
        .filter_map(|event| match event {
            EngineEvent::Ended(ended) => Some(*ended),
            _ => None,
        })
        .collect();
    assert_eq!(ended.iter().map(|ended| ended.job).collect::<Vec<_>>(), jobs);
    assert!(ended.iter().all(|ended| matches!(ended.end, End::Cancelled)));
    // What was asked for can be resumed elsewhere.
    assert!(ended.iter().all(|ended| ended.settings.is_some()));
}
