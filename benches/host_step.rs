//! What a denoising step costs the host: recorded and compiled once, then bound, encoded and submitted every step.
//!
//! `cargo bench --bench host_step [-- MODEL [SECONDS]]` runs the steps of a published model (FLUX.1-dev if none is
//! named) on wgpu's noop backend: wgpu does everything it does on a GPU, validation and tracking included, and no GPU
//! works. Every resident is a stand-in of 16 bytes, as the noop backend allocates what it is asked for; no kernel
//! reads them. What a driver adds when it encodes the same commands is not in the figures.
//!
//! Times are CPU time of all threads of this process, so they can be compared on a busy machine.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ralu::gpu::{AdapterKind, Gpu, Program, SlotPool, Store, block_on, describe};
use ralu::models::builtin;
use ralu::pipeline::rehearsal::Rehearsal;
use ralu::pipeline::{RaluChoice, Request, Settings};
use ralu::sampling::Preset;
use ralu::tensor::{Band, BufferRef, Command, Recording, Resident, ResidentId, plan_memory};

/// What the GPU is taken to reach, in 10^12 operations a second: how many submissions a step becomes depends on it.
const TERAFLOPS: f64 = 20.0;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    // Cargo passes `--bench` to every benchmark.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let model = arguments.next().unwrap_or("flux.1-dev".into());
    let seconds: f64 = arguments.next().unwrap_or("2".into()).parse()?;
    let config = builtin::get(&model)
        .ok_or_else(|| format!("{model}: not one of {}", builtin::names().join(", ")))?;
    let gpu = noop()?;
    // Nothing can be learnt about the speed of a GPU that does nothing.
    gpu.assume_speed(TERAFLOPS * 1e12);
    let mut request = Request::new("");
    request.ralu = RaluChoice::Preset(Preset::X7);
    let settings = Settings::resolve(&request, &config)?;

    let started = cpu_time();
    let rehearsal = Rehearsal::new(&config, &settings, gpu.caps())?;
    let recorded = cpu_time() - started;
    println!(
        "{model}, RALU 7x, noop backend taken for {TERAFLOPS} TFLOP/s; recorded in {:.1} ms",
        1e3 * recorded.as_secs_f64()
    );
    println!(
        "stage  dispatches  buffers  pipelines  compile ms  submissions  step ms (median)  us a dispatch"
    );
    for (i, step) in rehearsal.steps.iter().enumerate() {
        let store = Store::default();
        let Rehearsal { modulations, scalars, .. } = &rehearsal;
        stand_ins(&gpu, &store, step, &[modulations, scalars])?;
        let pool = SlotPool::default();
        // Not timed: the noop backend clears what it allocates.
        block_on(&gpu, pool.reserve(&gpu, &[&plan_memory(step)]))?;
        let started = cpu_time();
        let program = block_on(&gpu, Program::compile(&gpu, &store, &pool, step))?;
        let compiled = cpu_time() - started;
        let id = ResidentId(u32::MAX);
        let table =
            Resident { id, label: "modulations of all steps".into(), ..modulations.clone() };
        block_on(&gpu, store.create(&gpu, &table))?;
        let values = vec![0.5; scalars.rows * scalars.cols];
        let once = || -> Result<Duration, Failure> {
            let started = cpu_time();
            block_on(&gpu, store.copy_rows(&gpu, &table, 0, modulations))?;
            block_on(&gpu, store.write(&gpu, scalars, &values))?;
            block_on(&gpu, program.run(&gpu))?;
            Ok(cpu_time() - started)
        };
        let before = gpu.counters().submissions;
        once()?;
        let submissions = gpu.counters().submissions - before;
        let mut times = Vec::new();
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        while Instant::now() < until {
            times.push(once()?);
        }
        times.sort();
        let median = times[times.len() / 2].as_secs_f64();
        let (dispatches, buffers, pipelines) = count(step);
        println!(
            "{:<5}  {dispatches:>10}  {buffers:>7}  {pipelines:>9}  {:>10.1}  {submissions:>11}  {:>16.3}  {:>13.2}",
            i + 1,
            1e3 * compiled.as_secs_f64(),
            1e3 * median,
            1e6 * median / dispatches as f64,
        );
    }
    Ok(())
}

/// The noop backend, taken for a discrete GPU.
fn noop() -> Result<Gpu, Failure> {
    let instance = ralu_testkit::noop_instance();
    let (device, queue, report) = pollster::block_on(async {
        let adapter = instance.request_adapter(&Default::default()).await?;
        let allowed = adapter.limits();
        let descriptor = wgpu::DeviceDescriptor {
            required_limits: wgpu::Limits {
                max_storage_buffer_binding_size: allowed.max_storage_buffer_binding_size,
                max_buffer_size: allowed.max_buffer_size,
                ..wgpu::Limits::defaults()
            },
            ..Default::default()
        };
        let (device, queue) = adapter.request_device(&descriptor).await?;
        let mut report = describe(0, &adapter);
        report.kind = AdapterKind::DiscreteGpu;
        Ok::<_, Failure>((device, queue, report))
    })?;
    Ok(Gpu::adopt(device, queue, report))
}

/// Gives every resident that a recording names buffers of 16 bytes; `real` ones have their size.
fn stand_ins(
    gpu: &Gpu,
    store: &Store,
    recording: &Recording,
    real: &[&Resident],
) -> Result<(), Failure> {
    let mut buffers: BTreeMap<ResidentId, usize> = BTreeMap::new();
    for command in &recording.commands {
        let Command::Dispatch(dispatch) = command else { continue };
        for binding in &dispatch.bindings {
            if let BufferRef::Resident(id, index) = binding.buffer {
                let n = buffers.entry(id).or_default();
                *n = (*n).max(index as usize + 1);
            }
        }
    }
    for (id, n) in buffers {
        let bands = (0..n).map(|row0| Band { row0, rows: 1 }).collect();
        let stand_in = Resident { id, label: "stand-in".into(), rows: n, cols: 4, bands };
        let resident = real.iter().find(|resident| resident.id == id).copied().unwrap_or(&stand_in);
        block_on(gpu, store.create(gpu, resident))?;
    }
    Ok(())
}

/// Dispatches, storage buffers they bind in all, and different pipelines.
fn count(recording: &Recording) -> (usize, usize, usize) {
    let (mut dispatches, mut buffers) = (0, 0);
    let mut pipelines = std::collections::BTreeSet::new();
    for command in &recording.commands {
        if let Command::Dispatch(dispatch) = command {
            dispatches += 1;
            buffers += dispatch.bindings.len();
            pipelines.insert(format!("{:?}", dispatch.pipeline));
        }
    }
    (dispatches, buffers, pipelines.len())
}

/// CPU time of all threads so far, in user and kernel mode.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
