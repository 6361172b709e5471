//! How fast weights get to a device that the host has ready.

use web_time::Instant;

use super::{Error, Gpu, Store, Uploads};
use crate::tensor::ResidentIds;

/// Bytes of a buffer that is written again and again.
const BYTES: usize = 32 << 20;
/// Seconds that are enough.
const ENOUGH_SECONDS: f64 = 0.2;
/// Writes at most.
const MOST_WRITES: usize = 256;

impl Uploads {
    /// Measures how many bytes a second get from the host's memory to the device, as packed copies of streamed weights do. Takes
    /// about 0.2 s.
    ///
    /// # Errors
    ///
    /// If the device is lost, or has less than 48 MiB free.
    pub async fn bytes_per_second(gpu: &Gpu) -> Result<f64, Error> {
        let (store, uploads) = (Store::default(), Uploads::default());
        let ids = ResidentIds::default();
        let target = ids.matrix("upload speed", BYTES / 4096, 1024, gpu.caps().max_binding_bytes);
        store.create(gpu, &target).await?;
        let bytes = vec![0; target.bands.first().map_or(0, |band| band.rows * 4096)];
        // The first one allocates staging memory, and has the driver touch what it has never seen.
        uploads.write(gpu, &store, target.id, 0, 0, &bytes).await?;
        uploads.flush(gpu).await?;
        gpu.idle().await?;
        let started = Instant::now();
        let mut writes = 0;
        while writes < MOST_WRITES && started.elapsed().as_secs_f64() < ENOUGH_SECONDS {
            uploads.write(gpu, &store, target.id, 0, 0, &bytes).await?;
            writes += 1;
        }
        uploads.finish(gpu).await?;
        Ok((writes * bytes.len()) as f64 / started.elapsed().as_secs_f64())
    }
}
