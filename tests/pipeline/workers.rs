//! Weights that threads of the host pack.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use ralu::checkpoint::source::{Folder, Memory, Source};
use ralu::checkpoint::weights::Weights;
use ralu::gpu::block_on;
use ralu::models::quantise::Quantise;
use ralu::pipeline::{
    Event, MemoryBudget, NamedTensor, Options, Part, Pipeline, RaluChoice, Request,
};
use ralu::{Task, Workers};

const FLUX: &str = "models/tiny-flux";
const WEIGHTS: &str = "transformer/diffusion_pytorch_model.safetensors";

/// Three threads, which count what they do.
#[derive(Default)]
struct Threads {
    tasks: AtomicUsize,
}

impl Workers for Threads {
    fn count(&self) -> usize {
        3
    }

    fn run(&self, n: usize, task: &dyn Task) {
        thread::scope(|scope| {
            // Last tasks first: none may depend on the others.
            for thread in (0..self.count()).rev() {
                scope.spawn(move || {
                    (thread..n).step_by(self.count()).rev().for_each(|i| task.run(i));
                });
            }
        });
        self.tasks.fetch_add(n, Ordering::Relaxed);
    }
}

fn folder() -> Folder {
    Folder::open(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(FLUX)).unwrap()
}

/// The bits of the latents.
fn latents(pipeline: &Pipeline) -> Vec<u32> {
    let mut request = Request::new("a fox").size(64, 64).ralu(RaluChoice::Off);
    request.steps = Some(2);
    request.max_sequence_length = Some(24);
    request.collect_tensors = true;
    let mut run = pipeline.start(request).unwrap();
    loop {
        let event = block_on(pipeline.gpu(), run.next()).unwrap().expect("a picture");
        if let Event::Image { tensors: Some(tensors), .. } = event {
            let Some(NamedTensor::F32 { data, .. }) = tensors.0.get("latents") else {
                panic!("no latents")
            };
            return data.iter().map(|v| v.to_bits()).collect();
        }
    }
}

#[test]
fn threads_pack_the_same_weights() {
    let quantised = |format: &str| {
        let quantise: Quantise = format.parse().unwrap();
        Options::default().with(|options| options.quantise = Some(quantise))
    };
    // Blocks come and go.
    let within = |options: Options| {
        options.with(|options| options.memory_budget = MemoryBudget::Bytes(20 << 20))
    };
    // Scales of fp8 are measured before a weight is packed.
    for options in [Options::default(), quantised("q4_k"), within(quantised("fp8"))] {
        let open = || Pipeline::open(crate::common::gpu(), Box::new(folder()), options).unwrap();
        let expected = latents(&open());
        let threads = Arc::new(Threads::default());
        let pipeline = open();
        pipeline.set_workers(threads.clone());
        assert!(latents(&pipeline) == expected, "{options:?}");
        assert!(threads.tasks.load(Ordering::Relaxed) > 100, "{options:?}");
    }
}

/// Several tiles of a weight cannot be packed: the error is that of the first of them.
#[test]
fn the_first_error_is_told() {
    let mut model = Memory::new("model");
    let mut folders = vec![String::new()];
    let source = folder();
    while let Some(dir) = folders.pop() {
        for name in source.list(&dir).unwrap() {
            let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            match source.exists(&path) {
                true => model.insert(&path, std::fs::read(source.path().join(&path)).unwrap()),
                false => folders.push(path),
            }
        }
    }
    let weights = Weights::open_file(&model, WEIGHTS).unwrap();
    let info = weights.info("transformer_blocks.0.ff.net.0.proj.weight").unwrap();
    let mut bytes = std::fs::read(source.path().join(WEIGHTS)).unwrap();
    let (start, end) = (info.range.start as usize, info.range.end as usize);
    // NaN in 16 bits, in the second half and at the end.
    for at in [start + (end - start) / 2, end - 2] {
        bytes[at..at + 2].copy_from_slice(&[0xff, 0x7f]);
    }
    model.insert(WEIGHTS, bytes);
    let error = |threads: Option<Arc<Threads>>| {
        let gpu = crate::common::gpu();
        let pipeline = Pipeline::open(gpu, Box::new(model.clone()), Options::default()).unwrap();
        if let Some(threads) = threads {
            pipeline.set_workers(threads);
        }
        let loaded = block_on(pipeline.gpu(), pipeline.load(Part::Denoiser, |_| {}));
        loaded.expect_err("there is a NaN").to_string()
    };
    let expected = error(None);
    assert!(expected.contains("ff.net.0.proj.weight"), "{expected}");
    assert_eq!(error(Some(Arc::default())), expected);
}
