//! Kernels timed by the GPU's clock. Needs an adapter with timestamps, as all that run in CI have; one without them
//! fails here, and says so.

use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Waker};

use crate::common::Lab;
use ralu::advice::Advice;
use ralu::checkpoint::source::Folder;
use ralu::gpu::{
    AdapterChoice, Error, Gpu, LimitsPolicy, Program, ProgramTimes, SlotPool, block_on,
};
use ralu::ops::euler_step;
use ralu::pipeline::{
    Event, NamedTensor, Options, Pipeline, RaluChoice, Request, StageEnd, StepDone,
};
use ralu::sampling::CustomStages;
use ralu::tensor::{Recorder, Recording};

/// Three stages, with regions.
fn request() -> Request {
    let ralu = RaluChoice::Custom(CustomStages {
        stage_steps: vec![2, 2, 1],
        stage_ends: vec![0.3, 0.45, 1.0],
        up_ratio: 0.3,
        stage_shifts: Some(vec![5.019, 2.589, 2.226]),
        stage_z: Some(6.317),
    });
    Request::new("a fox").size(64, 64).ralu(ralu).with(|request| {
        request.max_sequence_length = Some(16);
        request.collect_tensors = true;
    })
}

fn pipeline(gpu: Gpu) -> Pipeline {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/flux-a/model");
    Pipeline::open(gpu, Box::new(Folder::open(model).unwrap()), Options::default()).unwrap()
}

fn events(pipeline: &Pipeline, request: Request) -> Vec<Event> {
    let mut run = pipeline.start(request).unwrap();
    let mut events = vec![];
    while let Some(event) = block_on(pipeline.gpu(), run.next()).unwrap() {
        events.push(event);
    }
    events
}

/// Bits of the picture and of everything else that a run made.
fn made(events: &[Event]) -> Vec<(String, Vec<u32>)> {
    let image = events.iter().find_map(|event| match event {
        Event::Image { tensors: Some(tensors), .. } => Some(tensors),
        _ => None,
    });
    let tensors = image.expect("a picture with its tensors").0.iter();
    tensors
        .filter_map(|(name, tensor)| match tensor {
            NamedTensor::F32 { data, .. } => {
                Some((name.clone(), data.iter().map(|value| value.to_bits()).collect()))
            }
            _ => None,
        })
        .collect()
}

/// Dispatches follow one another and take some time. Gives the end of the last.
#[track_caller]
fn check_order(times: &ProgramTimes, mut now: f64) -> f64 {
    // A tick, and the rounding of seconds since the first one.
    let slack = 1e-9 + 1e-12 * now;
    for kernel in &times.kernels {
        assert!(kernel.start >= now - slack, "{}: {kernel:?} begins before {now}", times.program);
        assert!(kernel.seconds >= 0.0 && kernel.seconds.is_finite(), "{kernel:?}");
        assert!(kernel.flops > 0.0 && kernel.bytes > 0.0, "{kernel:?}");
        now = kernel.start + kernel.seconds;
    }
    assert!(times.kernel_seconds() > 0.0, "{}: no time at all", times.program);
    now
}

#[track_caller]
fn check_profile(gpu: Gpu) {
    let pipeline = pipeline(gpu);
    // The first one, as later runs find the prompt encoded.
    let profiled = events(&pipeline, request().with(|request| request.profile = true));
    let plain = events(&pipeline, request());
    assert!(!plain.iter().any(|event| matches!(event, Event::Profile(_))), "nobody asked");
    assert_eq!(made(&plain), made(&profiled));

    let (mut now, mut since, mut names) = (0.0, vec![], vec![]);
    let mut steps = 0;
    for event in profiled {
        match event {
            Event::Profile(times) => {
                now = check_order(&times, now);
                names.push(times.program.clone());
                since.push(times);
            }
            Event::Step(StepDone { stage, seconds, .. }) => {
                steps += 1;
                let [times] = since.as_slice() else { panic!("programs of a step: {since:?}") };
                assert_eq!(times.program, format!("stage{stage}"));
                let labels: Vec<&str> = times.kernels.iter().map(|k| &*k.label).collect();
                assert!(labels.contains(&"double.0.attn"), "{labels:?}");
                // Two clocks, but of the same seconds.
                let kernels = times.kernel_seconds();
                assert!(kernels <= 1.01 * seconds, "{kernels} s of kernels in {seconds} s");
                since.clear();
            }
            Event::StageEnd(StageEnd { buffers_created, bind_groups_created, .. }) => {
                assert_eq!((buffers_created, bind_groups_created), (0, 0));
                since.clear();
            }
            _ => since.clear(),
        }
    }
    assert_eq!(steps, 5);
    for name in ["clip", "t5", "stage1", "jump1", "stage2", "jump2", "stage3", "decode"] {
        assert!(names.iter().any(|found| found == name), "no {name} in {names:?}");
    }
}

#[test]
fn profiled_runs_make_the_same_bits() {
    check_profile(crate::common::gpu());
}

/// As in a browser: no timestamps inside passes, so each dispatch has a pass.
#[test]
fn a_pass_for_each_dispatch_makes_the_same_bits() {
    let choice = AdapterChoice {
        adapter: std::env::var("RALU_TEST_ADAPTER").ok().filter(|name| !name.is_empty()),
        backend: std::env::var("RALU_TEST_BACKEND").ok().filter(|name| !name.is_empty()),
        limits: LimitsPolicy::WebGpuDefaults,
        ..AdapterChoice::default()
    };
    check_profile(pollster::block_on(Gpu::open(&choice)).unwrap());
}

/// `n` dispatches, more than one set of queries can time if that is more than 2048.
fn long(lab: &Lab, n: usize) -> Recording {
    let recorder = Recorder::new(lab.caps());
    let step = crate::common::block_on(lab.vector("step", &[0.5, 1.0, 0.0, 0.0]));
    let [v, velocity, x] = ["v", "velocity", "x"].map(|name| recorder.temp(name, 4, 64));
    for i in 0..n {
        let name = format!("euler.{i}");
        euler_step(&name, v, None, recorder.resident(&step), velocity, x);
    }
    recorder.finish("long")
}

#[test]
fn programs_may_be_longer_than_a_set_of_queries() {
    let lab = crate::common::block_on(Lab::new());
    let pool = SlotPool::default();
    let compile = |n| {
        block_on(&lab.gpu, Program::compile(&lab.gpu, &lab.store, &pool, &long(&lab, n))).unwrap()
    };
    let (short, longer) = (compile(3), compile(5000));
    let profiler = block_on(&lab.gpu, lab.gpu.profile()).unwrap();
    let mut buffers = vec![];
    for program in [&short, &longer, &longer, &short] {
        block_on(&lab.gpu, program.run(&lab.gpu)).unwrap();
        buffers.push(lab.gpu.counters().buffers);
    }
    let all = profiler.take();
    assert_eq!(all.iter().map(|times| times.kernels.len()).collect::<Vec<_>>(), [3, 5000, 5000, 3]);
    let mut now = 0.0;
    for times in &all {
        now = check_order(times, now);
        for (i, kernel) in times.kernels.iter().enumerate() {
            assert_eq!((&*kernel.label, &*kernel.kernel), (&*format!("euler.{i}"), "euler.main"));
        }
    }
    // What the longest program needs suffices for all that follow.
    assert_eq!(buffers[1], buffers[3]);
    assert!(profiler.take().is_empty(), "told twice");
    drop(profiler);
    block_on(&lab.gpu, short.run(&lab.gpu)).unwrap();
    let profiler = block_on(&lab.gpu, lab.gpu.profile()).unwrap();
    assert!(profiler.take().is_empty(), "timed without a profiler");
}

#[test]
fn a_run_that_is_given_up_does_not_spoil_the_next() {
    let lab = crate::common::block_on(Lab::new());
    let pool = SlotPool::default();
    let recording = long(&lab, 100);
    let program = block_on(&lab.gpu, Program::compile(&lab.gpu, &lab.store, &pool, &recording));
    let program = program.unwrap();
    let profiler = block_on(&lab.gpu, lab.gpu.profile()).unwrap();
    // However far it came: each attempt is given up one poll later.
    for polls in 1..8 {
        let mut run: Pin<Box<dyn Future<Output = _>>> = Box::pin(program.run(&lab.gpu));
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..polls {
            if run.as_mut().poll(&mut context).is_ready() {
                break;
            }
        }
    }
    profiler.take();
    block_on(&lab.gpu, program.run(&lab.gpu)).unwrap();
    let [times] = profiler.take().try_into().expect("one program");
    check_order(&times, 0.0);
    assert_eq!(times.kernels.len(), 100);
}

#[test]
fn a_device_without_timestamps_says_so() {
    let instance = wgpu::Instance::default();
    let gpu = pollster::block_on(async {
        let adapter = instance.request_adapter(&Default::default()).await.unwrap();
        let (device, queue) = adapter.request_device(&Default::default()).await.unwrap();
        Gpu::adopt(device, queue, ralu::gpu::describe(0, &adapter))
    });
    let error = block_on(&gpu, gpu.profile()).err();
    assert!(matches!(error, Some(Error::NoTimestamps { .. })), "{error:?}");
    let pipeline = pipeline(gpu);
    // Plain, as RALU would warn first that the picture is small.
    let request = request().with(|request| {
        request.profile = true;
        request.ralu = RaluChoice::Off;
    });
    let mut run = pipeline.start(request).unwrap();
    let error = block_on(pipeline.gpu(), run.next()).unwrap_err();
    assert!(error.to_string().contains("timestamp"), "{error}");
    assert_eq!(error.advice(), Some(Advice::NoProfiling));
}
