//! Threads for the library's work on the processor.

use std::sync::Arc;

use ralu::pipeline::Error;
use ralu::{Gpu, Options, Pipeline, Source, Task, Workers};
use rayon::prelude::*;

/// [`Pipeline::open`], with rayon's threads to pack weights: one for each core, unless `RAYON_NUM_THREADS` says otherwise.
///
/// # Errors
///
/// Those of [`Pipeline::open`].
pub fn open_pipeline(
    gpu: Gpu,
    source: Box<dyn Source>,
    options: Options,
) -> Result<Pipeline, Error> {
    let pipeline = Pipeline::open(gpu, source, options)?;
    pipeline.set_workers(Arc::new(Threads));
    Ok(pipeline)
}

struct Threads;

impl Workers for Threads {
    fn count(&self) -> usize {
        rayon::current_num_threads()
    }

    fn run(&self, n: usize, task: &dyn Task) {
        (0..n).into_par_iter().for_each(|i| task.run(i));
    }
}
