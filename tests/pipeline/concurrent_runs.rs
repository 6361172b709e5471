//! Several runs of one pipeline at once: each draws what it draws alone, or says why not.

use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};

use pollster::block_on;
use ralu::checkpoint::source::Folder;
use ralu::pipeline::{Error, Event, Model, Options, Part, Picture, Pipeline, RaluChoice, Request};
use ralu::sampling::Preset;
use ralu::{Gpu, Run};

/// Too little memory for the text encoders to stay.
fn little() -> Options {
    Options::default().with(|options| options.memory_bytes = Some(0))
}

/// A step is several submissions, as a large model's is.
fn open(options: Options) -> Pipeline {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/flux-b/model");
    let gpu = crate::common::gpu().with_shorter_work(3e-3);
    Pipeline::open(gpu, Box::new(Folder::open(folder).unwrap()), options).unwrap()
}

fn plain(seed: u64) -> Request {
    let mut request = Request::new("a fox on a purple background").size(64, 64);
    request.steps = Some(3);
    request.max_sequence_length = Some(32);
    request.ralu(RaluChoice::Off).seed(seed)
}

/// Another text, three stages with regions, guidance: much more work a step.
fn staged(seed: u64) -> Request {
    let mut request = Request::new("a red apple").size(192, 128).seed(seed);
    request.negative_prompt = Some("a cat".into());
    request.true_cfg = Some(3.0);
    request.max_sequence_length = Some(32);
    request.ralu(RaluChoice::Preset(Preset::X7))
}

/// What a run told until its end.
#[derive(Default)]
struct Outcome {
    picture: Option<Picture>,
    warnings: Vec<String>,
    profiled: usize,
}

impl Outcome {
    fn note(&mut self, event: Event) {
        match event {
            Event::Image { picture, .. } => self.picture = Some(picture),
            Event::Warning(warning) if warning.contains("small for RALU") => {}
            Event::Warning(warning) => self.warnings.push(warning),
            Event::Profile(_) => self.profiled += 1,
            _ => {}
        }
    }

    fn rgb(&self) -> &[u8] {
        &self.picture.as_ref().expect("a picture").rgb
    }
}

async fn finish(run: &mut Run) -> Result<Outcome, Error> {
    let mut outcome = Outcome::default();
    while let Some(event) = run.next().await? {
        outcome.note(event);
    }
    Ok(outcome)
}

/// The pictures of `plain(1)` and `staged(2)`.
fn alone() -> &'static [Vec<u8>; 2] {
    static PICTURES: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    PICTURES.get_or_init(|| {
        [plain(1), staged(2)].map(|request| {
            let pipeline = open(Options::default());
            let outcome = block_on(finish(&mut pipeline.start(request).unwrap())).unwrap();
            outcome.rgb().to_vec()
        })
    })
}

/// Polls both until both have ended.
async fn join<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    fn step<F: Future>(future: Pin<&mut F>, out: &mut Option<F::Output>, cx: &mut Context<'_>) {
        if out.is_none()
            && let Poll::Ready(value) = future.poll(cx)
        {
            *out = Some(value);
        }
    }
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut first, mut second) = (None, None);
    std::future::poll_fn(|context| {
        step(a.as_mut(), &mut first, context);
        step(b.as_mut(), &mut second, context);
        match (first.take(), second.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            pending => {
                (first, second) = pending;
                Poll::Pending
            }
        }
    })
    .await
}

#[test]
fn runs_that_are_polled_together_draw_what_they_draw_alone() {
    let expected = alone();
    for options in [Options::default(), little()] {
        let pipeline = open(options);
        let mut runs = [pipeline.start(plain(1)).unwrap(), pipeline.start(staged(2)).unwrap()];
        let [a, b] = &mut runs;
        let (a, b) = block_on(join(finish(a), finish(b)));
        let found = [a.unwrap(), b.unwrap()];
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.rgb() == *expected, "{options:?}");
            assert!(found.warnings.is_empty(), "{:?}", found.warnings);
        }
    }
}

/// Also where the first frees the text encoders that the second has loaded and not used yet.
#[test]
fn runs_that_are_pulled_in_turn_draw_what_they_draw_alone() {
    let expected = alone();
    for options in [Options::default(), little()] {
        let pipeline = open(options);
        let mut runs = [plain(1), staged(2)].map(|r| Some(pipeline.start(r).unwrap()));
        let mut outcomes = [Outcome::default(), Outcome::default()];
        while runs.iter().any(Option::is_some) {
            for (run, outcome) in runs.iter_mut().zip(&mut outcomes) {
                match run.as_mut().map(|run| block_on(run.next()).unwrap()) {
                    None => {}
                    Some(None) => *run = None,
                    Some(Some(event)) => outcome.note(event),
                }
            }
        }
        for (outcome, expected) in outcomes.iter().zip(expected) {
            assert!(outcome.rgb() == *expected, "{options:?}");
        }
    }
}

/// Together they upload the weights once.
#[test]
fn runs_load_a_part_together() {
    let pipeline = open(little());
    block_on(finish(&mut pipeline.start(plain(1)).unwrap())).unwrap();
    let once = pipeline.gpu().counters().uploaded_bytes;
    let pipeline = open(little());
    let mut runs = [pipeline.start(plain(1)).unwrap(), pipeline.start(staged(2)).unwrap()];
    // Until both know that they need the text encoders.
    while !matches!(block_on(runs[0].next()).unwrap(), Some(Event::Loading { .. })) {}
    while !matches!(block_on(runs[1].next()).unwrap(), Some(Event::Encoded { .. })) {}
    let [a, b] = &mut runs;
    let (a, b) = block_on(join(finish(a), finish(b)));
    a.unwrap();
    b.unwrap();
    assert_eq!(pipeline.gpu().counters().uploaded_bytes, once);
}

/// Memory is full once, at allocations from the first to the last: the run that meets it frees what it can, also what the other
/// one has loaded.
#[test]
fn full_memory_in_one_run_spoils_no_other() {
    let expected = alone();
    let pipeline = open(little());
    pipeline.gpu().faults().allocated.replace(Some(vec![]));
    let mut runs = [pipeline.start(plain(1)).unwrap(), pipeline.start(staged(2)).unwrap()];
    let [a, b] = &mut runs;
    let (a, b) = block_on(join(finish(a), finish(b)));
    a.unwrap();
    b.unwrap();
    let allocations = pipeline.gpu().faults().allocated.take().unwrap().len() as u64;
    for at in (0..allocations).step_by((allocations / 5).max(1) as usize) {
        let pipeline = open(little());
        pipeline.gpu().faults().fails_once.set(true);
        pipeline.gpu().faults().allocations_left.set(Some(at));
        let mut runs = [pipeline.start(plain(1)).unwrap(), pipeline.start(staged(2)).unwrap()];
        let [a, b] = &mut runs;
        let (a, b) = block_on(join(finish(a), finish(b)));
        let found = [a.unwrap(), b.unwrap()];
        let warnings: usize = found.iter().map(|outcome| outcome.warnings.len()).sum();
        assert_eq!(warnings, 1, "allocation {at} of {allocations}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.rgb() == *expected, "allocation {at} of {allocations}");
        }
    }
}

/// A call of `next` that is dropped in the middle of its work: the run says so and still draws its picture.
#[test]
fn a_dropped_call_is_made_good() {
    let expected = &alone()[1];
    let pipeline = open(little());
    let mut run = pipeline.start(staged(2)).unwrap();
    let mut outcome = Outcome::default();
    let mut dropped = 0;
    for event in 0.. {
        // Every fifth event's work is dropped after some polls, each time after more.
        if event % 5 == 2 && dropped < 6 {
            let mut next = pin!(run.next());
            let mut context = Context::from_waker(Waker::noop());
            let polls = (0..1 + dropped).map(|_| next.as_mut().poll(&mut context));
            match polls.into_iter().find(Poll::is_ready) {
                None => dropped += 1,
                Some(Poll::Ready(Ok(Some(event)))) => outcome.note(event),
                Some(other) => panic!("{other:?}"),
            }
            continue;
        }
        match block_on(run.next()).unwrap() {
            Some(event) => outcome.note(event),
            None => break,
        }
    }
    assert!(dropped > 2, "{dropped}");
    assert_eq!(outcome.warnings.len(), dropped, "{:?}", outcome.warnings);
    assert!(outcome.rgb() == *expected);
}

/// A run that is dropped in the middle of its work, while another one waits for its turn.
#[test]
fn a_dropped_run_spoils_no_other() {
    let expected = &alone()[1];
    for polls in [1, 5, 20, 100] {
        let pipeline = open(little());
        let mut other = pipeline.start(staged(2)).unwrap();
        let mut other = pin!(finish(&mut other));
        {
            let mut dropped = pipeline.start(plain(1)).unwrap();
            let mut dropped = pin!(finish(&mut dropped));
            let mut context = Context::from_waker(Waker::noop());
            for _ in 0..polls {
                let first = dropped.as_mut().poll(&mut context);
                let second = other.as_mut().poll(&mut context);
                assert!(first.is_pending() && second.is_pending());
            }
        }
        let outcome = block_on(other).unwrap();
        assert!(outcome.rgb() == *expected, "after {polls} polls");
    }
}

/// A profile has its own run's kernels, and costs no other run anything.
#[test]
fn a_profile_is_of_its_own_run() {
    if !crate::common::gpu().report().features.contains(&"timestamp-query") {
        println!("no timestamps here: nothing to profile");
        return;
    }
    let profiled = || {
        let mut request = plain(1);
        request.profile = true;
        request
    };
    let pipeline = open(Options::default());
    let own = block_on(finish(&mut pipeline.start(profiled()).unwrap())).unwrap().profiled;
    let pipeline = open(Options::default());
    let mut runs = [profiled(), plain(2), profiled()].map(|r| pipeline.start(r).unwrap());
    let [a, b, c] = &mut runs;
    let ((a, b), c) = block_on(join(join(finish(a), finish(b)), finish(c)));
    let [a, b, c] = [a, b, c].map(Result::unwrap);
    assert!(own > 3, "{own}");
    assert_eq!(b.profiled, 0);
    // The second of two equal texts is not encoded again.
    assert!(a.profiled.max(c.profiled) == own && a.profiled.min(c.profiled) > 3);
    assert!(a.rgb() == c.rgb());
}

/// What threads and multi-threaded executors ask of the types, checked by the compiler.
#[test]
fn pipelines_and_runs_may_change_threads() {
    fn is_send<T: Send + 'static>() {}
    fn is_sync<T: Sync>() {}
    fn is_send_value<T: Send>(value: T) -> T {
        value
    }
    is_send::<Pipeline>();
    is_sync::<Pipeline>();
    is_send::<Model>();
    is_sync::<Model>();
    is_send::<Gpu>();
    is_sync::<Gpu>();
    is_send::<Run>();
    // Programs that name a run by the lifetime that it once had.
    fn with_lifetime(run: &mut ralu::pipeline::Run<'_>) -> impl Future + Send {
        is_send_value(run.next())
    }
    let pipeline = open(Options::default());
    drop(is_send_value(pipeline.load(Part::Denoiser, |_| {})));
    drop(with_lifetime(&mut pipeline.start(plain(1)).unwrap()));
}

/// Each thread has its executor: the one polls the device itself, the other leaves that to the library.
#[test]
fn two_threads_draw_with_one_pipeline() {
    let expected = alone();
    for options in [Options::default(), little()] {
        let pipeline = open(options);
        let [first, second] = [plain(1), staged(2)].map(|r| pipeline.start(r).unwrap());
        let own = {
            let (pipeline, mut run) = (pipeline.clone(), first);
            move || ralu::block_on(pipeline.gpu(), finish(&mut run)).unwrap()
        };
        let other = {
            let mut run = second;
            move || block_on(finish(&mut run)).unwrap()
        };
        let threads = [std::thread::spawn(own), std::thread::spawn(other)];
        for (thread, expected) in threads.into_iter().zip(expected) {
            assert!(thread.join().unwrap().rgb() == *expected, "{options:?}");
        }
    }
}

#[test]
fn tasks_of_a_multi_threaded_executor_draw_with_one_pipeline() {
    let expected = alone();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let pipeline = open(little());
    let tasks = [plain(1), staged(2), plain(1)].map(|request| {
        let mut run = pipeline.start(request).unwrap();
        runtime.spawn(async move { finish(&mut run).await.unwrap() })
    });
    for (task, expected) in tasks.into_iter().zip([0, 1, 0].map(|i| &expected[i])) {
        assert!(block_on(task).unwrap().rgb() == *expected);
    }
}

/// Every call of `next` is on a thread of its own.
#[test]
fn a_run_may_be_pulled_from_one_thread_after_another() {
    let pipeline = open(Options::default());
    let mut run = pipeline.start(staged(2)).unwrap();
    let mut outcome = Outcome::default();
    loop {
        let pull = move || (block_on(run.next()).unwrap(), run);
        let (event, back) = std::thread::spawn(pull).join().unwrap();
        run = back;
        match event {
            Some(event) => outcome.note(event),
            None => break,
        }
    }
    assert!(outcome.rgb() == alone()[1]);
}

#[test]
fn a_run_may_outlive_its_pipeline() {
    let mut run = {
        let pipeline = open(Options::default());
        pipeline.start(plain(1)).unwrap()
    };
    assert!(block_on(finish(&mut run)).unwrap().rgb() == alone()[0]);
}

/// A run of a lost device, started or not, ends with that error, while the revived pipeline draws.
#[test]
fn runs_of_a_lost_device_end_beside_the_revived_pipeline() {
    let pipeline = open(Options::default());
    let mut begun = pipeline.start(staged(2)).unwrap();
    while !matches!(block_on(begun.next()).unwrap(), Some(Event::Step(_))) {}
    let mut waiting = pipeline.start(plain(1)).unwrap();
    pipeline.gpu().destroy();
    let revived = block_on(pipeline.revive(crate::common::gpu())).unwrap();
    let mut new = revived.start(plain(1)).unwrap();
    let (new, old) = block_on(join(finish(&mut new), async {
        (finish(&mut begun).await, finish(&mut waiting).await)
    }));
    assert!(new.unwrap().rgb() == alone()[0]);
    for old in [old.0, old.1] {
        let error = old.map(|outcome| outcome.warnings).unwrap_err();
        assert!(error.is_lost(), "{error}");
    }
    // It is over.
    assert!(block_on(begun.next()).unwrap().is_none());
}
