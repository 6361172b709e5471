//! The library's futures under executors that know nothing of GPUs, and the snippets that documents show.

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use ralu::Run;
use ralu::checkpoint::source::Folder;
use ralu::gpu::block_on;
use ralu::pipeline::{Event, Options, Pipeline, RaluChoice, Request};

/// What README and the library's first page show.
#[path = "../../examples/generate.rs"]
#[allow(dead_code, reason = "its main is for people")]
mod example;

/// Long enough for a picture of the tests on any machine; a future that sleeps for ever is a failure, not a wait.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs `body` on a thread of its own, and fails if it does not come to its end.
fn in_time<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || send.send(body()));
    receive.recv_timeout(PATIENCE).expect("an end: did the executor sleep for ever?")
}

fn tokio(threads: bool) -> tokio::runtime::Runtime {
    match threads {
        true => tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap(),
        false => tokio::runtime::Builder::new_current_thread().build().unwrap(),
    }
}

fn request() -> Request {
    let mut request = Request::new("a red apple").size(64, 64).ralu(RaluChoice::Off).seed(1);
    request.steps = Some(2);
    request
}

#[test]
fn the_documented_snippet_runs_under_any_executor() {
    let expected = in_time(|| pollster::block_on(example::draw(request())).unwrap().rgb);
    for threads in [false, true] {
        let found = in_time(move || tokio(threads).block_on(example::draw(request())).unwrap().rgb);
        assert!(found == expected);
    }
}

/// The text of the example's `draw` is what README and lib.rs show.
#[test]
fn documents_show_the_snippet_that_is_tested() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap().replace("\r\n", "\n");
    let example = read("examples/generate.rs");
    let start = example.find("use ralu::").unwrap();
    let end = example.find("\n\nfn main").unwrap();
    let snippet = &example[start..end];
    assert!(read("README.md").contains(&format!("```rust\n{snippet}\n```")), "README.md");
    let commented: Vec<String> =
        snippet.lines().map(|line| format!("//! {line}").trim_end().to_owned()).collect();
    assert!(read("src/lib.rs").contains(&commented.join("\n")), "src/lib.rs");
}

fn open() -> Pipeline {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/tiny-flux");
    Pipeline::open(
        crate::common::gpu(),
        Box::new(Folder::open(folder).unwrap()),
        Options::default(),
    )
    .unwrap()
}

async fn picture(run: &mut Run) -> Vec<u8> {
    let mut rgb = vec![];
    while let Some(event) = run.next().await.unwrap() {
        if let Event::Image { picture, .. } = event {
            rgb = picture.rgb;
        }
    }
    rgb
}

/// The library's own executor polls the device itself; others leave that to the poller. A run may change hands.
#[test]
fn a_run_may_be_driven_by_one_executor_after_another() {
    let expected = in_time(|| {
        let pipeline = open();
        block_on(pipeline.gpu(), picture(&mut pipeline.start(request()).unwrap()))
    });
    let found = in_time(|| {
        let pipeline = open();
        let mut run = pipeline.start(request()).unwrap();
        let runtime = tokio(false);
        for turn in 0.. {
            let next = match turn % 3 {
                0 => block_on(pipeline.gpu(), run.next()),
                1 => pollster::block_on(run.next()),
                _ => runtime.block_on(run.next()),
            };
            match next.unwrap() {
                Some(Event::Image { picture, .. }) => return picture.rgb,
                Some(_) => {}
                None => break,
            }
        }
        panic!("no picture")
    });
    assert!(found == expected);
}

/// Two tasks of one thread, woken one by one: each wait has its own waker.
#[test]
fn two_tasks_share_a_pipeline() {
    let expected = in_time(|| {
        let pipeline = open();
        pollster::block_on(picture(&mut pipeline.start(request()).unwrap()))
    });
    let found = in_time(|| {
        tokio(false).block_on(tokio::task::LocalSet::new().run_until(async {
            let pipeline = std::rc::Rc::new(open());
            let tasks = [(), ()].map(|()| {
                let pipeline = pipeline.clone();
                tokio::task::spawn_local(async move {
                    picture(&mut pipeline.start(request()).unwrap()).await
                })
            });
            let mut pictures = vec![];
            for task in tasks {
                pictures.push(task.await.unwrap());
            }
            pictures
        }))
    });
    assert!(found.iter().all(|picture| *picture == expected));
}

/// A lost device calls nobody back; a future that waits for it is woken all the same.
#[test]
fn a_lost_device_ends_the_wait() {
    let end = in_time(|| {
        let pipeline = open();
        pollster::block_on(async {
            let mut run = pipeline.start(request()).unwrap();
            loop {
                match run.next().await {
                    Ok(Some(Event::Step(_))) => pipeline.gpu().destroy(),
                    Ok(Some(_)) => {}
                    Ok(None) => return None,
                    Err(error) => return Some(error),
                }
            }
        })
    });
    assert!(end.as_ref().is_some_and(|error| error.is_lost()), "{end:?}");
    // Also one that waits for nothing but the device.
    let lost = in_time(|| {
        let gpu = crate::common::gpu();
        gpu.destroy();
        pollster::block_on(gpu.idle()).is_err()
    });
    assert!(lost);
}
