//! The kernels of one op, measured in turn.

use web_time::Instant;

use super::record::{KernelSeconds, Measured};
use super::sample::Sample;
use crate::gpu::{Error, Gpu, Profiler, Program, ProgramTimes, SlotPool, Store};
use crate::tensor::{Caps, Command, PipelineKey, Recording, Tuning};

/// How often all kernels are timed once more, if there is time.
const ROUNDS: usize = 4;
/// A kernel must take at most this share of the default one's time to be chosen: noise must not choose.
const MAX_TIME_SHARE: f64 = 0.95;
/// [`MAX_TIME_SHARE`] on a processor, which has other things to do as well, and whose default kernels are well known.
const MAX_TIME_SHARE_ON_CPU: f64 = 0.75;
/// That share is multiplied by this where there was no time for a round, so that each kernel was timed only once.
const SINGLE_SAMPLE_FACTOR: f64 = 0.8;
/// Kernels slower than the fastest by this factor after a round are not run again.
const GIVE_UP_FACTOR: f64 = 2.0;

/// A kernel that takes part.
struct Candidate {
    kernel: String,
    asks: Tuning,
    recording: Recording,
    program: Option<Program>,
    seconds: Option<f64>,
    failure: Option<String>,
}

/// One op's kernels.
pub(super) struct Trial {
    sample: Sample,
    is_cpu: bool,
    /// The first is the one that runs without tuning.
    candidates: Vec<Candidate>,
    warm: usize,
    rounds: usize,
    store: Store,
    pool: SlotPool,
}

/// What happened.
pub(super) enum Advance {
    /// Something was measured.
    Measured(String),
    /// A kernel failed, and takes no further part.
    Failed { what: String, reason: String },
    /// There is nothing left to do.
    Over,
}

/// The kernels that a recording runs.
fn kernels(recording: &Recording) -> Vec<(&PipelineKey, [u32; 3])> {
    let mut kernels = Vec::new();
    for command in &recording.commands {
        if let Command::Dispatch(dispatch) = command {
            kernels.push((&dispatch.pipeline, dispatch.groups));
        }
    }
    kernels
}

/// The shaders that a recording runs: `matmul_panel`.
fn shaders(recording: &Recording) -> String {
    let mut shaders: Vec<&str> = Vec::new();
    for (key, _) in kernels(recording) {
        if !shaders.contains(&key.shader) {
            shaders.push(key.shader);
        }
    }
    shaders.join(", ")
}

impl Candidate {
    fn new(kernel: String, asks: Tuning, recording: Recording) -> Self {
        Candidate { kernel, asks, recording, program: None, seconds: None, failure: None }
    }
}

impl Trial {
    /// A trial of all kernels that can do the sample; `None` if there is no choice. Whether a kernel can is seen from
    /// what is recorded when it is asked for.
    pub fn new(sample: Sample, caps: Caps) -> Option<Self> {
        let record = |tuning| sample.record(Caps { tuning, ..caps });
        let default = Tuning::default();
        let mut candidates = vec![Candidate::new("default".to_owned(), default, record(default))];
        for (kernel, asks) in sample.op.kernels() {
            let recording = record(asks);
            let same = |candidate: &Candidate| kernels(&candidate.recording) == kernels(&recording);
            if !candidates.iter().any(same) {
                candidates.push(Candidate::new(kernel, asks, recording));
            }
        }
        let (store, pool) = Default::default();
        let is_cpu = caps.is_cpu;
        let trial = Trial { sample, is_cpu, candidates, warm: 0, rounds: 0, store, pool };
        (trial.candidates.len() > 1).then_some(trial)
    }

    /// Starts over with other capabilities.
    pub fn again(self, caps: Caps) -> Option<Self> {
        Trial::new(self.sample, caps)
    }

    /// How often it can be advanced before it is over, at most.
    pub fn length(&self) -> usize {
        self.candidates.len() + ROUNDS
    }

    /// `matmul of many rows`.
    fn name(&self) -> String {
        let op = self.sample.op;
        match op.class() {
            None => op.name().to_owned(),
            Some(class) => format!("{} of {class} rows", op.name()),
        }
    }

    /// Compiles the next kernel and times it once, or times all of them once more. Fails only if the device is lost.
    pub async fn advance(
        &mut self,
        gpu: &Gpu,
        profiler: Option<&Profiler<'_>>,
        deadline: Instant,
    ) -> Result<Advance, Error> {
        if self.warm < self.candidates.len() {
            if Instant::now() >= deadline {
                return Ok(Advance::Over);
            }
            let i = self.warm;
            self.warm += 1;
            let warmed = self.warm_up(gpu, i, profiler).await;
            return self.judge(gpu, i, warmed);
        }
        if self.rounds == ROUNDS || !self.has_time(deadline) {
            return Ok(Advance::Over);
        }
        self.rounds += 1;
        for i in 0..self.candidates.len() {
            if self.has_hope(i) {
                let timed = self.time(gpu, i, profiler).await;
                if timed.is_err() {
                    return self.judge(gpu, i, timed);
                }
            }
        }
        Ok(Advance::Measured(format!("{}, round {} of {ROUNDS}", self.name(), self.rounds)))
    }

    /// Compiles a kernel and runs it for the first time, when drivers compile too and clocks rise; then times it.
    async fn warm_up(
        &mut self,
        gpu: &Gpu,
        i: usize,
        profiler: Option<&Profiler<'_>>,
    ) -> Result<(), Error> {
        if i == 0 {
            for weight in self.sample.weights() {
                self.store.create_packed(gpu, weight).await?;
            }
            for vector in self.sample.vectors() {
                self.store.create(gpu, vector).await?;
            }
        }
        let recording = &self.candidates[i].recording;
        let program = Program::compile(gpu, &self.store, &self.pool, recording).await?;
        program.run(gpu).await?;
        if let Some(profiler) = profiler {
            profiler.take();
        }
        self.candidates[i].program = Some(program);
        self.time(gpu, i, profiler).await
    }

    /// Runs a kernel that has not failed, and keeps the least seconds: by the GPU's clock where it has one.
    async fn time(
        &mut self,
        gpu: &Gpu,
        i: usize,
        profiler: Option<&Profiler<'_>>,
    ) -> Result<(), Error> {
        let candidate = &mut self.candidates[i];
        let Some(program) = &candidate.program else { return Ok(()) };
        let started = Instant::now();
        program.run(gpu).await?;
        let whole = started.elapsed().as_secs_f64();
        let times = profiler.map(Profiler::take).unwrap_or_default();
        let kernels: f64 = times.iter().map(ProgramTimes::kernel_seconds).sum();
        // Some clocks stand still.
        let seconds = if kernels > 0.0 { kernels } else { whole };
        candidate.seconds = Some(candidate.seconds.map_or(seconds, |least| least.min(seconds)));
        Ok(())
    }

    /// What an error of a kernel means.
    fn judge(&mut self, gpu: &Gpu, i: usize, outcome: Result<(), Error>) -> Result<Advance, Error> {
        let what = format!("{}, {}", self.name(), self.candidates[i].kernel);
        let Err(error) = outcome else { return Ok(Advance::Measured(what)) };
        // Nothing runs on a lost device any more.
        gpu.check()?;
        let reason = error.to_string();
        let candidate = &mut self.candidates[i];
        candidate.program = None;
        candidate.seconds = None;
        candidate.failure = Some(reason.clone());
        Ok(Advance::Failed { what, reason })
    }

    fn fastest(&self) -> Option<f64> {
        self.candidates.iter().filter_map(|candidate| candidate.seconds).min_by(f64::total_cmp)
    }

    /// Whether it is worth running kernel `i` again. The default one stays in, as all are compared with it.
    fn has_hope(&self, i: usize) -> bool {
        match (self.candidates[i].seconds, self.fastest()) {
            (Some(seconds), Some(fastest)) => i == 0 || seconds <= GIVE_UP_FACTOR * fastest,
            _ => true,
        }
    }

    /// Whether another round will be over in time, as far as one can tell.
    fn has_time(&self, deadline: Instant) -> bool {
        let hopeful = (0..self.candidates.len()).filter(|i| self.has_hope(*i));
        let round: f64 = hopeful.filter_map(|i| self.candidates[i].seconds).sum();
        deadline.saturating_duration_since(Instant::now()).as_secs_f64() > round
    }

    /// The kernel that won, if it is clearly better than the default one.
    fn winner(&self) -> usize {
        let factor = if self.is_cpu { MAX_TIME_SHARE_ON_CPU } else { MAX_TIME_SHARE }
            * if self.rounds == 0 { SINGLE_SAMPLE_FACTOR } else { 1.0 };
        let limit = match (&self.candidates[0].failure, self.candidates[0].seconds) {
            (_, Some(seconds)) => factor * seconds,
            (Some(_), None) => f64::INFINITY,
            // Time was up.
            (None, None) => return 0,
        };
        let seconds = |i: usize| self.candidates[i].seconds.unwrap_or(f64::INFINITY);
        let better = (1..self.candidates.len()).filter(|i| seconds(*i) < limit);
        better.min_by(|a, b| seconds(*a).total_cmp(&seconds(*b))).unwrap_or(0)
    }

    /// Ends it: the choice goes into `tuning`.
    pub fn end(self, tuning: &mut Tuning) -> Measured {
        let winner = self.winner();
        let op = self.sample.op;
        op.take(&self.candidates[winner].asks, tuning);
        Measured {
            op: op.name().to_owned(),
            class: op.class(),
            shapes: self.sample.shapes(),
            flops: self.sample.flops(),
            kernels: self
                .candidates
                .into_iter()
                .enumerate()
                .map(|(i, candidate)| KernelSeconds {
                    shaders: shaders(&candidate.recording),
                    kernel: candidate.kernel,
                    seconds: candidate.seconds,
                    failure: candidate.failure,
                    chosen: i == winner,
                })
                .collect(),
        }
    }
}
