//! How fast a device is, before anything is recorded for it: dispatches are cut by time, which drivers limit, and nothing
//! that an adapter says of itself tells how long one takes.

use web_time::Instant;

use super::Error;
use crate::gpu::{Error as GpuError, Gpu, Program, SlotPool, Store};
use crate::ops::{Epilogue, LinearLayer, linear_into};
use crate::tensor::{PackedWeight, Recorder, Recording, ResidentIds, Storage};

/// Rows, columns and inner width of the product that is timed: 4.3 GFLOP in 256 workgroups of the usual kernel.
const PRODUCT: [usize; 3] = [2048, 1024, 1024];
/// Seconds after which a measurement is long enough: what a submission costs hardly counts then.
const ENOUGH_SECONDS: f64 = 0.02;
/// Products at most: the fastest GPUs there are do as many in less time than [`ENOUGH_SECONDS`].
const MOST_PRODUCTS: usize = 256;

/// Measures the speed of a device that nobody has said it of ([`Gpu::assume_speed`]), in a twentieth of a second: products
/// in f32, as many as that takes.
pub(super) async fn measure_speed(gpu: &Gpu) -> Result<(), Error> {
    if !gpu.needs_speed() {
        return Ok(());
    }
    let speed = match gpu.faults().flops_per_second.get() {
        Some(speed) => speed,
        None => products_per_second(gpu).await? * product_flops(),
    };
    gpu.assume_speed(speed);
    Ok(())
}

fn product_flops() -> f64 {
    let [m, n, k] = PRODUCT;
    2.0 * (m * n * k) as f64
}

async fn products_per_second(gpu: &Gpu) -> Result<f64, GpuError> {
    let (store, pool) = (Store::default(), SlotPool::default());
    let [_, n, k] = PRODUCT;
    let caps = gpu.caps();
    let weight = PackedWeight::new(
        &ResidentIds::default(),
        "speed",
        n,
        k,
        Storage::F32,
        caps.max_binding_bytes,
    );
    store.create_packed(gpu, &weight).await?;
    let record = |times: usize| -> Recording {
        let recorder = Recorder::new(caps);
        let [m, n, k] = PRODUCT;
        let (x, y) = (recorder.temp("x", m, k), recorder.temp("y", m, n));
        let layer = LinearLayer { weight: weight.clone(), bias: None };
        for _ in 0..times {
            linear_into("speed", x, &layer, y, Epilogue::default());
        }
        recorder.finish("speed")
    };
    // The first time a driver prepares what it did not before.
    Program::compile(gpu, &store, &pool, &record(1)).await?.run(gpu).await?;
    let mut products = 1;
    loop {
        let program = Program::compile(gpu, &store, &pool, &record(products)).await?;
        let started = Instant::now();
        program.run(gpu).await?;
        let seconds = started.elapsed().as_secs_f64();
        if seconds >= ENOUGH_SECONDS || products >= MOST_PRODUCTS {
            return Ok(products as f64 / seconds.max(1e-6));
        }
        products *= 4;
    }
}
