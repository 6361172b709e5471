//! Finding out which kernels are fastest on an adapter.
//!
//! Ops have several kernels that give the same results up to rounding. `ops::choice` knows which one is usually best;
//! a [`Tuner`] measures all that an adapter can run, on samples of the model's own shapes, and prefers another one
//! where that is clearly faster. Nothing needs it to be correct. Pull [`TuningEvent`]s from it with [`Tuner::next`];
//! drop it to cancel. What it finds is a [`TuningRecord`], plain data that can be kept: its [`TuningKey`] says what it
//! holds for.
//!
//! A new kernel in `tensor::Caps` takes part without a line here.

mod matrices;
mod record;
mod sample;
mod trial;

use std::collections::VecDeque;
use std::time::Duration;

use web_time::Instant;

use super::{Error, Options, RunSchedule, Settings};
use crate::checkpoint::source::Source;
use crate::checkpoint::weights::Weights;
use crate::gpu::{Error as GpuError, Gpu, Profiler};
use crate::models::config::{ModelConfig, folder, stem};
use crate::models::quantise::{Fate, Quantising};
use crate::tensor::{Caps, Storage, Tuning};
use trial::{Advance, Trial};

pub use crate::ops::choice::{is_in_int8, is_on_matrices};
pub(super) use matrices::prove_matrices;
pub use matrices::{MatrixTest, test_matrices};
pub use record::{KernelSeconds, Measured, TuningKey, TuningRecord};

/// Something happened while kernels were measured.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TuningEvent {
    /// A part of the work is done.
    Measured {
        /// Parts done.
        done: usize,
        /// Parts in all, at most.
        of: usize,
        /// What it was: `matmul of many rows, tiled`.
        what: String,
    },
    /// A kernel failed and takes no further part.
    Failed {
        /// Which: `matmul of many rows, tiled`.
        what: String,
        /// Why.
        reason: String,
    },
}

/// Measures kernels.
pub struct Tuner<'g> {
    gpu: &'g Gpu,
    key: TuningKey,
    trials: VecDeque<Trial>,
    /// When the first of them must end.
    deadline: Option<Instant>,
    /// When all must end.
    end: Option<Instant>,
    started: Option<Instant>,
    limit: Duration,
    profiler: Option<Profiler<'g>>,
    /// Trials that are over, and their lengths.
    done: usize,
    of: usize,
    tuning: Tuning,
    /// Products may round to f16.
    rounds: bool,
    matrices: Option<MatrixTest>,
    measured: Vec<Measured>,
}

/// Seconds that measuring may take in the first run on an adapter.
///
/// On processors the kernels that are usually best are well known, so samples are small there, and only a much faster
/// kernel replaces them.
pub fn usual_seconds(gpu: &Gpu) -> f64 {
    if gpu.caps().is_cpu { 3.0 } else { 4.0 }
}

impl<'g> Tuner<'g> {
    /// Prepares to measure for a model at a picture's size. Measures and compiles nothing yet.
    ///
    /// `source` and `options` say how weights are kept, see [`matrix_storage`]. After `seconds` whatever
    /// is not decided keeps the usual kernel; only the compilation or run that is then under way is finished.
    pub fn new(
        gpu: &'g Gpu,
        config: &ModelConfig,
        source: Option<&dyn Source>,
        settings: &Settings,
        options: Options,
        seconds: f64,
    ) -> Result<Self, Error> {
        let schedule = RunSchedule::new(settings, config)?;
        let storage = matrix_storage(source, options)?;
        let caps = options.precision.limit(Caps { tuning: Tuning::default(), ..gpu.caps() });
        let samples = sample::samples(&caps, config, settings, &schedule, storage);
        let shapes = samples.iter().flat_map(|sample| sample.shapes()).collect();
        let trials: VecDeque<Trial> =
            samples.into_iter().filter_map(|sample| Trial::new(sample, caps)).collect();
        Ok(Tuner {
            gpu,
            key: TuningKey::new(gpu.report(), &caps, shapes),
            of: trials.iter().map(Trial::length).sum(),
            trials,
            deadline: None,
            end: None,
            started: None,
            limit: Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO),
            profiler: None,
            done: 0,
            tuning: Tuning::default(),
            rounds: caps.f16,
            matrices: None,
            measured: Vec::new(),
        })
    }

    /// What the result will hold for.
    pub fn key(&self) -> &TuningKey {
        &self.key
    }

    /// Takes what an earlier test of cooperative matrices on this adapter gave, in place of a test.
    pub fn assume_matrices(&mut self, outcome: MatrixTest) {
        self.matrices = Some(outcome);
    }

    /// What the test of cooperative matrices gave, if there was one.
    pub fn matrices(&self) -> Option<&MatrixTest> {
        self.matrices.as_ref()
    }

    /// Measures until something is worth telling; `None` when everything is done. A kernel that fails is an event;
    /// an error means that the device is lost. Cooperative matrices are tested first: if they are wrong, or the device is
    /// lost by them, that is an event, the record says so, and has no kernel use them.
    pub async fn next(&mut self) -> Result<Option<TuningEvent>, GpuError> {
        let now = Instant::now();
        let end = match self.end {
            Some(end) => end,
            None => {
                // Adapters without a clock are timed from outside.
                self.profiler = self.gpu.profile().await.ok();
                self.started = Some(now);
                self.end = Some(now + self.limit);
                if let Some(reason) = self.test_matrices().await {
                    let what = "cooperative matrices".to_owned();
                    return Ok(Some(TuningEvent::Failed { what, reason }));
                }
                now + self.limit
            }
        };
        loop {
            let parts = self.trials.len().min(2) as u32;
            let Some(trial) = self.trials.front_mut() else {
                self.profiler = None;
                self.gpu.check()?;
                return Ok(None);
            };
            // Each may take half of what is left: those that matter most come first.
            let deadline = *self.deadline.get_or_insert_with(|| {
                let now = Instant::now();
                now + end.saturating_duration_since(now) / parts
            });
            match trial.advance(self.gpu, self.profiler.as_ref(), deadline).await? {
                Advance::Measured(what) => {
                    self.done += 1;
                    return Ok(Some(TuningEvent::Measured { done: self.done, of: self.of, what }));
                }
                Advance::Failed { what, reason } => {
                    self.done += 1;
                    return Ok(Some(TuningEvent::Failed { what, reason }));
                }
                Advance::Over => {
                    self.deadline = None;
                    if let Some(trial) = self.trials.pop_front() {
                        self.measured.push(trial.end(&mut self.tuning));
                    }
                }
            }
        }
    }

    /// What is wrong with cooperative matrices. Kernels on them take no part then.
    async fn test_matrices(&mut self) -> Option<String> {
        if !self.rounds {
            return None;
        }
        if self.matrices.is_none() {
            self.matrices = test_matrices(self.gpu).await;
        }
        let reason = self.matrices.as_ref()?.complaint()?;
        self.tuning.without_matrices = true;
        let caps = Caps { tuning: Tuning::default(), cooperative_matrix: None, ..self.gpu.caps() };
        let trials = std::mem::take(&mut self.trials);
        self.trials = trials.into_iter().filter_map(|trial| trial.again(caps)).collect();
        Some(reason)
    }

    /// What was found so far.
    pub fn record(self) -> TuningRecord {
        TuningRecord {
            key: self.key,
            tuning: self.tuning,
            matrices: self.matrices,
            measured: self.measured,
            seconds: self.started.map_or(0.0, |started| started.elapsed().as_secs_f64()),
        }
    }
}

/// How most numbers of the denoiser's matrices are kept on the GPU, if the model is opened with `options`: in the type that
/// `source` stores them in or, without, in bf16, which FLUX.1 is published in, unless that is quantised.
pub fn matrix_storage(source: Option<&dyn Source>, options: Options) -> Result<Storage, Error> {
    let quantise = options.quantise.filter(|quantise| quantise.parts.has_denoiser());
    let Some(source) = source else {
        return Ok(quantise.map_or(Storage::Bf16, |quantise| quantise.format.storage()));
    };
    let quantising =
        quantise.map(|quantise| Quantising { format: quantise.format, is_fused: false });
    let weights = Weights::open(source, folder::TRANSFORMER, stem::DIFFUSERS)?;
    let mut numbers: Vec<(Storage, u64)> = vec![];
    for info in weights.iter() {
        let [rows, k] = info.shape[..] else { continue };
        let storage = match quantising.map(|quantising| quantising.fate(info, rows, k)) {
            Some(Fate::Quantised(quantised)) => quantised.format.storage(),
            _ => options.precision.weight(info, k),
        };
        match numbers.iter_mut().find(|(seen, _)| *seen == storage) {
            Some((_, n)) => *n += info.n_elements(),
            None => numbers.push((storage, info.n_elements())),
        }
    }
    let most = numbers.into_iter().max_by_key(|(_, n)| *n);
    Ok(most.map_or(Storage::F32, |(storage, _)| storage))
}
