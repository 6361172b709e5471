//! What the tests of the host kit share: the adapter under test, a small model, a small request.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ralu::checkpoint::source::Folder;
use ralu::gpu::{AdapterChoice, Error, Gpu, LimitsPolicy};
use ralu::sampling::Preset;
use ralu::{Event, Options, Picture, Pipeline, RaluChoice, Request};
use ralu_host::{Device, End, Session};

/// The adapter under test, as `tests/common` of the library reads it.
pub fn choice() -> AdapterChoice {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    AdapterChoice {
        adapter: variable("RALU_TEST_ADAPTER"),
        backend: variable("RALU_TEST_BACKEND"),
        limits: match variable("RALU_TEST_LIMITS").as_deref() {
            None => LimitsPolicy::Adapter,
            Some("webgpu") => LimitsPolicy::WebGpuDefaults,
            Some(other) => panic!("RALU_TEST_LIMITS={other}: only `webgpu` is known"),
        },
        ..Default::default()
    }
}

pub fn gpu() -> Gpu {
    pollster::block_on(Gpu::open(&choice())).expect("an adapter; software will do")
}

pub fn model() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/flux-b/model")
}

pub fn pipeline(gpu: Gpu) -> Pipeline {
    let folder = Folder::open(model()).expect("the fixture's model");
    Pipeline::open(gpu, Box::new(folder), Options::default()).expect("the fixture's model")
}

/// Three stages of 4 x 4 to 8 x 8 tokens and a short text, ten steps.
pub fn request() -> Request {
    let request = Request::new("a red apple").size(128, 128).seed(3);
    request.ralu(RaluChoice::Preset(Preset::X7)).with(|r| r.max_sequence_length = Some(16))
}

/// A device, and how often it was opened. `prepare` gets the number of each, from 0.
pub fn counted(
    mut prepare: impl FnMut(usize, Gpu) -> Result<Gpu, Error> + Send + 'static,
) -> (Device, Arc<AtomicUsize>) {
    let opened = Arc::new(AtomicUsize::new(0));
    let count = opened.clone();
    let device = Device::opened_by(move || {
        let number = count.fetch_add(1, Ordering::Relaxed);
        prepare(number, pollster::block_on(Gpu::open(&choice()))?)
    });
    (device, opened)
}

/// The pictures of a request that nothing disturbs.
pub fn undisturbed(request: &Request) -> Vec<Picture> {
    let mut session = Session::new(pipeline(gpu()));
    let mut device = Device::adapter(choice(), None);
    let mut pictures = vec![];
    let outcome = session.draw(
        &mut device,
        request,
        || true,
        |_, event| {
            if let Event::Image { picture, .. } = event {
                pictures.push(picture);
            }
            Ok::<(), ralu::Error>(())
        },
    );
    assert!(matches!(outcome.end, End::Finished), "{outcome:?}");
    assert_eq!(outcome.losses, 0);
    pictures
}
