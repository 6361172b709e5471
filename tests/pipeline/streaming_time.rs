//! What steps take whose weights are streamed, next to what a plan predicts: on a device and from a source of given speeds, by a
//! clock that counts and knows nothing of this machine's time.

use std::borrow::Cow;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use ralu::checkpoint::source::{Blob, Folder, Source, SourceError};
use ralu::gpu::{SimulatedClock, block_on};
use ralu::models::config::ModelConfig;
use ralu::pipeline::plan::plan;
use ralu::pipeline::{
    Error, Event, MemoryBudget, Options, Pipeline, Plan, RaluChoice, Request, Settings,
};
use ralu::sampling::Preset;

const MODEL: &str = "models/tiny-flux";
const FLOPS_PER_SECOND: f64 = 1e11;
/// How far a step may be from its prediction: its first block may arrive while the step before it ends.
const TOLERANCE: f64 = 0.08;

/// A folder from which so many bytes come in a second of a simulated clock.
struct Throttled {
    folder: Folder,
    clock: Arc<SimulatedClock>,
    bytes_per_second: f64,
}

impl Source for Throttled {
    fn name(&self) -> String {
        self.folder.name()
    }

    fn text(&self, path: &str) -> Result<Option<String>, SourceError> {
        self.folder.text(path)
    }

    fn exists(&self, path: &str) -> bool {
        self.folder.exists(path)
    }

    fn list(&self, dir: &str) -> Result<Vec<String>, SourceError> {
        self.folder.list(dir)
    }

    fn blob(&self, path: &str) -> Result<Box<dyn Blob>, SourceError> {
        let (clock, bytes_per_second) = (self.clock.clone(), self.bytes_per_second);
        Ok(Box::new(ThrottledBlob { blob: self.folder.blob(path)?, clock, bytes_per_second }))
    }
}

struct ThrottledBlob {
    blob: Box<dyn Blob>,
    clock: Arc<SimulatedClock>,
    bytes_per_second: f64,
}

impl Blob for ThrottledBlob {
    fn len(&self) -> u64 {
        self.blob.len()
    }

    fn bytes(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>, SourceError> {
        self.clock.spend((range.end - range.start) as f64 / self.bytes_per_second);
        self.blob.bytes(range)
    }
}

fn folder() -> Folder {
    Folder::open(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(MODEL)).unwrap()
}

fn within(budget: Option<u64>) -> Options {
    let budget = budget.map_or(MemoryBudget::Off, MemoryBudget::Bytes);
    Options::default().with(|options| options.memory_budget = budget)
}

fn planned(request: &Request, budget: Option<u64>) -> Result<Plan, Error> {
    let folder = folder();
    let config = ModelConfig::load(&folder as &dyn Source).unwrap();
    let settings = Settings::resolve(request, &config).unwrap();
    plan(&config, Some(&folder), &settings, crate::common::gpu().caps(), within(budget))
}

/// Simulated seconds of a step in each stage.
fn seconds(request: &Request, budget: Option<u64>, bytes_per_second: f64) -> Vec<f64> {
    let clock = Arc::new(SimulatedClock::new(FLOPS_PER_SECOND));
    let gpu = crate::common::gpu();
    gpu.faults().flops_per_second.set(Some(FLOPS_PER_SECOND));
    gpu.faults().clock.set(Some(clock.clone()));
    let source = Throttled { folder: folder(), clock: clock.clone(), bytes_per_second };
    let pipeline = Pipeline::open(gpu, Box::new(source), within(budget)).unwrap();
    let mut run = pipeline.start(request.clone()).unwrap();
    let (mut seconds, mut began) = (vec![], 0.0);
    while let Some(event) = block_on(pipeline.gpu(), run.next()).unwrap() {
        match event {
            Event::Stage(_) => began = clock.host(),
            Event::Step(step) if step.step == step.of => {
                seconds.push((clock.host() - began) / step.of as f64);
            }
            _ => {}
        }
    }
    seconds
}

#[test]
fn steps_take_what_a_plan_predicts() {
    let mut plain = Request::new("a fox").size(256, 256).ralu(RaluChoice::Off);
    plain.max_sequence_length = Some(24);
    plain.steps = Some(6);
    let mut staged = plain.clone().ralu(RaluChoice::Preset(Preset::X7));
    staged.steps = None;
    let mut off = vec![];
    for request in [plain, staged] {
        let Err(Error::MemoryBudget { least, .. }) = planned(&request, Some(1)) else {
            panic!("a byte is enough")
        };
        let whole = planned(&request, None).unwrap();
        let resident = seconds(&request, None, f64::INFINITY);
        assert_eq!(resident.len(), whole.stages.len());
        let streamed_bytes = |budget: u64| {
            let plan = planned(&request, Some(budget)).unwrap();
            plan.memory.streaming.unwrap().denoiser.streamed_bytes
        };
        // All blocks come and go, one after the other, then some of them, two at a time. The weights of a step with all tokens
        // arrive in these shares of the time that it computes.
        let mut budgets = (least..).step_by(1 << 20);
        let some = budgets.find(|budget| 3 * streamed_bytes(*budget) <= 2 * streamed_bytes(least));
        let some = some.expect("a budget for a third of the blocks");
        for (budget, shares) in [(least, &[0.2, 0.7, 3.0][..]), (some, &[0.7])] {
            let plan = planned(&request, Some(budget)).unwrap();
            let bytes = plan.memory.streaming.unwrap().denoiser.streamed_bytes as f64;
            assert!(bytes > 0.0);
            for share in shares {
                let rate = bytes / (share * resident.last().unwrap());
                let took = seconds(&request, Some(budget), rate);
                for (i, (took, alone)) in took.iter().zip(&resident).enumerate() {
                    let flops = plan.stages[i].tflops_per_step.with_attention * 1e12;
                    let step = plan.predict(rate, Some(flops / alone))[i];
                    let predicted = step.seconds.unwrap();
                    assert_eq!(step.is_bus_bound, Some(step.bus_seconds > *alone));
                    let by = took / predicted - 1.0;
                    let row = format!(
                        "{} stage {}: {:.1} MB of weights in {:.4} s, computing in {alone:.4} s: {predicted:.4} s \
                         predicted, {took:.4} taken, {:+.1} %",
                        plan.ralu,
                        i + 1,
                        bytes / 1e6,
                        step.bus_seconds,
                        100.0 * by,
                    );
                    println!("{row}");
                    if by.abs() > TOLERANCE {
                        off.push(row);
                    }
                }
            }
        }
    }
    assert_eq!(off, [""; 0]);
}
