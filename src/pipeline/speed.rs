//! How fast a device is, before anything is recorded for it: dispatches are cut by time, which drivers limit, and nothing
//! that an adapter says of itself tells how long one takes.

use web_time::Instant;

use super::Error;
use crate::gpu::{Error as GpuError, Gpu, Program, SlotPool, Store};
use crate::ops::{Epilogue, LinearLayer, linear_into};
use crate::tensor::{Caps, PackedWeight, Recorder, Recording, ResidentIds, Storage};

/// Rows, columns and inner width of the products that are timed: one that tells enough of a slow device, and one that fills
/// a fast one, 0.3 and 4.3 GFLOP.
const PRODUCTS: [[usize; 3]; 2] = [[512, 512, 512], [2048, 1024, 1024]];
/// Seconds after which a measurement is long enough: what a submission costs hardly counts then.
const ENOUGH_SECONDS: f64 = 0.02;
/// Products at most: more than the fastest GPUs there are do in [`ENOUGH_SECONDS`].
const MOST_PRODUCTS: usize = 256;

/// Measures the speed of a device that nobody has said it of ([`Gpu::assume_speed`]), in a twentieth of a second: products
/// in f32, as many as that takes.
pub(super) async fn measure_speed(gpu: &Gpu) -> Result<(), Error> {
    if !gpu.needs_speed() {
        return Ok(());
    }
    let speed = match gpu.faults().flops_per_second.get() {
        Some(speed) => speed,
        None => match flops_per_second(gpu).await {
            // The cautious size remains.
            Err(GpuError::OutOfMemory { .. }) => return Ok(()),
            measured => measured?,
        },
    };
    gpu.assume_speed(speed);
    Ok(())
}

async fn flops_per_second(gpu: &Gpu) -> Result<f64, GpuError> {
    let [small, large] = PRODUCTS;
    // A single one, after one that had the driver prepare what it did not before.
    let (_, seconds) = time_products(gpu, small, 1).await?;
    if seconds >= ENOUGH_SECONDS {
        return Ok(flops(small) / seconds);
    }
    let (products, seconds) = time_products(gpu, large, MOST_PRODUCTS).await?;
    Ok(products as f64 * flops(large) / seconds.max(1e-6))
}

fn flops([m, n, k]: [usize; 3]) -> f64 {
    2.0 * (m * n * k) as f64
}

/// Times 1, 4, 16 and so on of a product, at most `most`, until that takes long enough. Gives their number and seconds.
async fn time_products(
    gpu: &Gpu,
    [m, n, k]: [usize; 3],
    most: usize,
) -> Result<(usize, f64), GpuError> {
    let (store, pool) = (Store::default(), SlotPool::default());
    // As products are that are always there.
    let caps = Caps { f16: false, ..gpu.caps() };
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
        let (x, y) = (recorder.temp("x", m, k), recorder.temp("y", m, n));
        let layer = LinearLayer { weight: weight.clone(), bias: None, low_rank: None };
        for _ in 0..times {
            linear_into("speed", x, &layer, y, Epilogue::default());
        }
        recorder.finish("speed")
    };
    Program::compile(gpu, &store, &pool, &record(1)).await?.run(gpu).await?;
    let mut products = 1;
    loop {
        let program = Program::compile(gpu, &store, &pool, &record(products)).await?;
        let started = Instant::now();
        program.run(gpu).await?;
        let seconds = started.elapsed().as_secs_f64();
        if seconds >= ENOUGH_SECONDS || products >= most {
            return Ok((products, seconds));
        }
        products *= 4;
    }
}
