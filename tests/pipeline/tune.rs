//! Choosing kernels by measuring them: the tuner and its record. The command line's part is tested with the command line.
//!
//! Needs an adapter, software will do. The variables of `tests/common` choose it. How fast a kernel is depends on the
//! machine and on what else it does, so no test expects one to win.

use ralu::checkpoint::source::{Folder, Source};
use ralu::gpu::{AdapterChoice, Gpu, LimitsPolicy, block_on};
use ralu::models::config::ModelConfig;
use ralu::pipeline::tune::{Tuner, TuningEvent, TuningRecord};
use ralu::pipeline::{Event, NamedTensor, Options, Pipeline, RaluChoice, Request, Settings};
use ralu::tensor::{MatmulKernel, RowClass, Tuning};
use serde_json::Value;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/flux-a/model");

/// Seconds that are enough however busy the machine is.
const UNHURRIED: f64 = 3600.0;

// ---- the tuner -----------------------------------------------------------------------------------

fn folder() -> Folder {
    Folder::open(MODEL).unwrap()
}

fn request() -> Request {
    let request = Request::new("a fox").size(128, 128).ralu(RaluChoice::Off);
    request.with(|request| {
        request.steps = Some(1);
        request.max_sequence_length = Some(16);
    })
}

fn with_tuner<T>(gpu: &Gpu, seconds: f64, action: impl FnOnce(Tuner<'_>) -> T) -> T {
    let folder = folder();
    let config = ModelConfig::load(&folder as &dyn Source).unwrap();
    let settings = Settings::resolve(&request(), &config).unwrap();
    let source = Some(&folder as &dyn Source);
    action(Tuner::new(gpu, &config, source, &settings, Options::default(), seconds).unwrap())
}

/// Measures to the end; gives the record and all events.
fn tune(gpu: &Gpu, seconds: f64) -> (TuningRecord, Vec<TuningEvent>) {
    with_tuner(gpu, seconds, |mut tuner| {
        let mut events = vec![];
        while let Some(event) = block_on(gpu, tuner.next()).unwrap() {
            events.push(event);
        }
        (tuner.record(), events)
    })
}

#[test]
fn a_measurement_chooses_among_the_kernels_that_can_run() {
    let gpu = crate::common::gpu();
    let (record, events) = tune(&gpu, UNHURRIED);

    let ops: Vec<(&str, Option<&str>)> =
        record.measured.iter().map(|m| (&*m.op, m.class.as_deref())).collect();
    // 64 image tokens and 16 of text are some rows, text alone is some; the decoder has pictures.
    assert!(ops.contains(&("matmul", Some("some"))), "{ops:?}");
    assert!(ops.contains(&("matmul", Some("few"))), "{ops:?}");
    for measured in &record.measured {
        let kernels = &measured.kernels;
        assert!(kernels.len() > 1, "{measured:?}");
        assert_eq!(kernels[0].kernel, "default");
        assert!(!measured.shapes.is_empty());
        let chosen: Vec<_> = kernels.iter().filter(|kernel| kernel.chosen).collect();
        let [chosen] = chosen[..] else { panic!("one is chosen: {measured:?}") };
        for kernel in kernels {
            assert_eq!(kernel.failure, None, "{measured:?}");
            let seconds = kernel.seconds.expect("there was time");
            assert!(seconds > 0.0 && seconds < UNHURRIED, "{measured:?}");
            // The chosen one is the default one, or faster than all others.
            assert!(chosen.kernel == "default" || chosen.seconds <= kernel.seconds, "{measured:?}");
        }
        // What runs differs, else there would be nothing to choose.
        let names: Vec<&String> = kernels.iter().map(|kernel| &kernel.kernel).collect();
        let mut different = names.clone();
        different.sort();
        different.dedup();
        assert_eq!(names.len(), different.len(), "{names:?}");
    }
    // The choice is what the table says.
    let few = record.measured.iter().find(|m| m.class.as_deref() == Some("few")).unwrap();
    let chosen = few.kernels.iter().find(|kernel| kernel.chosen).unwrap();
    let asked = record.tuning.matmul[RowClass::Few as usize].map(|kernel| kernel.to_string());
    assert_eq!(asked.as_deref().unwrap_or("default"), chosen.kernel);

    let mut last = 0;
    for event in &events {
        let TuningEvent::Measured { done, of, what } = event else { panic!("{event:?}") };
        assert_eq!(*done, last + 1, "{what}");
        assert!(done <= of, "{what}: {done} of {of}");
        last = *done;
    }
    assert!(last > record.measured.len(), "{events:?}");
}

#[test]
fn without_time_the_usual_kernels_stay() {
    let gpu = crate::common::gpu();
    let (record, events) = tune(&gpu, 0.0);
    assert_eq!(record.tuning, Tuning::default());
    assert!(events.is_empty(), "{events:?}");
    for kernel in record.measured.iter().flat_map(|measured| &measured.kernels) {
        assert_eq!((kernel.seconds, kernel.chosen), (None, kernel.kernel == "default"));
    }
    assert!(!record.measured.is_empty());
}

#[test]
fn a_kernel_that_fails_is_left_out() {
    // A device of WebGPU's features that says it has subgroups too: such kernels do not compile. Of four, so that they
    // are nowhere the usual ones.
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    let choice = AdapterChoice {
        adapter: variable("RALU_TEST_ADAPTER"),
        backend: variable("RALU_TEST_BACKEND"),
        limits: LimitsPolicy::WebGpuDefaults,
        ..Default::default()
    };
    let gpu = pollster::block_on(Gpu::open(&choice)).unwrap();
    let gpu = gpu.with_caps(|caps| caps.subgroup_sizes = Some((4, 4)));
    let (record, events) = tune(&gpu, UNHURRIED);
    let mut failures = 0;
    for event in &events {
        if let TuningEvent::Failed { what, reason } = event {
            assert!(what.contains("subgroup") && reason.contains("_subgroup"), "{event:?}");
            failures += 1;
        }
    }
    assert!(failures > 0, "{events:?}");
    for measured in &record.measured {
        let failed = measured.kernels.iter().filter(|kernel| kernel.failure.is_some());
        for kernel in failed {
            assert_eq!((kernel.kernel.as_str(), kernel.chosen), ("subgroup", false));
            failures -= 1;
        }
        // The others go on.
        assert!(measured.kernels[0].seconds.is_some(), "{measured:?}");
    }
    assert_eq!(failures, 0, "{record:?}");
    gpu.check().expect("the device goes on");
}

#[test]
fn a_tuned_device_draws_the_same_picture() {
    let draw = |tuning: Tuning| -> Vec<f32> {
        let gpu = crate::common::gpu().with_caps(|caps| caps.tuning = tuning);
        let pipeline = Pipeline::open(gpu, Box::new(folder()), Options::default()).unwrap();
        let mut run =
            pipeline.start(request().with(|request| request.collect_tensors = true)).unwrap();
        while let Some(event) = block_on(pipeline.gpu(), run.next()).unwrap() {
            if let Event::Image { tensors: Some(tensors), .. } = event {
                match &tensors.0["latents"] {
                    NamedTensor::F32 { data, .. } => return data.clone(),
                    other => panic!("{other:?}"),
                }
            }
        }
        panic!("no picture")
    };
    let (usual, other) = (
        draw(Tuning::default()),
        draw(Tuning { matmul: [Some(MatmulKernel::Direct); 3], ..Tuning::default() }),
    );
    let square = |values: &mut dyn Iterator<Item = f32>| -> f64 {
        values.map(|value| f64::from(value).powi(2)).sum()
    };
    let far = square(&mut usual.iter().zip(&other).map(|(a, b)| a - b));
    let distance = (far / square(&mut usual.iter().copied())).sqrt();
    // A step's few hundred sums in a row, each rounded otherwise.
    assert!(distance < 1e-5, "{distance}");
}

// ---- the record ----------------------------------------------------------------------------------

#[test]
fn a_record_is_read_as_it_was_written() {
    let gpu = crate::common::gpu();
    let (mut record, _) = tune(&gpu, 0.0);
    record.tuning.matmul[RowClass::Many as usize] = Some(MatmulKernel::Direct);
    record.measured[0].kernels[0].seconds = Some(0.1 + 0.2);
    let json = record.to_json().unwrap();
    with_tuner(&gpu, 1.0, |tuner| {
        assert_eq!(TuningRecord::read(json.as_bytes(), tuner.key()), Ok(record.clone()));
        assert_eq!(tuner.key().file_name(), record.key.file_name());
    });
}

#[test]
fn damaged_and_foreign_records_are_refused() {
    let gpu = crate::common::gpu();
    let (record, _) = tune(&gpu, 0.0);
    let json = record.to_json().unwrap();
    let read = |text: &str| TuningRecord::read(text.as_bytes(), &record.key);
    assert!(read(&json).is_ok());
    for length in (0..json.len()).step_by(97) {
        assert!(read(&json[..length]).is_err(), "{length} bytes");
    }
    let changed = |field: &str, value: Value| {
        let mut document: Value = serde_json::from_str(&json).unwrap();
        assert!(document.get(field).is_some(), "{field}");
        document[field] = value;
        document.to_string()
    };
    for (field, value) in [
        ("format", 0.into()),
        ("ralu", "0.0.1".into()),
        ("driver", "another".into()),
        ("adapter", "another".into()),
        ("backend", "another".into()),
        ("kind", "another".into()),
        ("shapes", Value::Array(vec![])),
    ] {
        let reason = read(&changed(field, value)).expect_err(field);
        assert!(reason.contains("another adapter"), "{reason}");
    }
    // A kernel that this version does not have.
    let mut tuning: Value = serde_json::to_value(record.tuning).unwrap();
    tuning["matmul"][0] = "quantum".into();
    assert!(read(&changed("tuning", tuning)).is_err());
    // Other limits are another device.
    let small = gpu.with_caps(|caps| caps.max_workgroup_bytes /= 2);
    with_tuner(&small, 1.0, |tuner| {
        assert_ne!(tuner.key().file_name(), record.key.file_name());
        assert!(TuningRecord::read(json.as_bytes(), tuner.key()).is_err());
    });
}
