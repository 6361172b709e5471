//! The recordings of a step: the whole network, and what a temporal cache leaves of it.

use super::memory::{CacheMemory, ProbeMemory, SharedInputs, StageMemory, taylor};
use crate::models::config::TransformerConfig;
use crate::models::denoiser::{Denoiser, Direct, Inputs, Residual, State};
use crate::ops::{
    Epilogue, LinearLayer, Weights, Write, change, change_rows, combine, euler_step, linear,
    linear_into,
};
use crate::sampling::cache::Probe;
use crate::tensor::{Caps, Recorder, Recording, Resident, Tensor};

/// How a stage's steps are run.
pub(in crate::pipeline) struct StepRecordings<T = Recording> {
    /// With a cache that looks at values: what comes before its decision. Both others then go on from it.
    pub probe: Option<T>,
    /// The network, and the Euler step. Stores what the cache keeps.
    pub full: T,
    /// With a cache: the same from what it keeps.
    pub reuse: Option<T>,
}

impl<T> StepRecordings<T> {
    /// Those that there are.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.probe.iter().chain([&self.full]).chain(&self.reuse)
    }
}

/// Records the steps of one stage.
pub(in crate::pipeline) struct StepRecorder<'a> {
    pub caps: Caps,
    pub denoiser: &'a dyn Denoiser,
    pub network: &'a dyn TransformerConfig,
    /// Branches of guidance.
    pub branches: usize,
    pub shared: &'a SharedInputs,
    pub stage: &'a StageMemory,
    /// With a temporal cache.
    pub cache: Option<&'a CacheMemory>,
}

/// `1 * x`.
const ONCE: Weights<'static> = Weights::Constant([1.0, 0.0, 0.0]);
/// `a - b`.
const DIFFERENCE: Weights<'static> = Weights::Constant([1.0, -1.0, 0.0]);

impl StepRecorder<'_> {
    /// All recordings of the stage's steps.
    pub fn record(&self, label: &str) -> StepRecordings {
        let recording = |name: &str, body: &dyn Fn(&Self, &Recorder)| {
            let f16_range = self.shared.f16_range.clone();
            let recorder = Recorder::with_f16_range(self.caps, f16_range);
            body(self, &recorder);
            recorder.finish(&format!("{label}{name}"))
        };
        let Some(cache) = self.cache else {
            let full = recording("", &|step, recorder| {
                let state = step.begin(recorder, None);
                step.blocks(&state, 0, &mut Direct);
                step.finish(&state);
            });
            return StepRecordings { probe: None, full, reuse: None };
        };
        StepRecordings {
            probe: cache
                .probe()
                .map(|probe| recording(".probe", &|step, recorder| step.probe(recorder, probe))),
            full: recording("", &|step, recorder| step.full(recorder, cache)),
            reuse: Some(recording(".reuse", &|step, recorder| step.reuse(recorder, cache))),
        }
    }

    fn n_text(&self) -> usize {
        self.shared.txt.rows / self.branches
    }

    /// Rows of all branches' image tokens.
    fn image_rows(&self) -> usize {
        self.branches * self.stage.x.rows
    }

    /// The part of a cached matrix that this stage uses.
    fn part<'r>(&self, recorder: &'r Recorder, resident: &Resident, rows: usize) -> Tensor<'r> {
        recorder.resident(resident).row_range(0..rows)
    }

    /// The sequence's memory: the probe's, or for this recording alone.
    fn state_memory<'r>(&self, recorder: &'r Recorder, probe: Option<&ProbeMemory>) -> Tensor<'r> {
        let rows = self.branches * (self.n_text() + self.stage.x.rows);
        match probe {
            Some(probe) => self.part(recorder, &probe.x, rows),
            None => recorder.temp("x", rows, self.network.hidden()),
        }
    }

    /// Embeds everything.
    fn begin<'r>(&self, recorder: &'r Recorder, probe: Option<&ProbeMemory>) -> State<'r> {
        let inputs = Inputs {
            branches: self.branches,
            txt: recorder.resident(&self.shared.txt),
            modulations: recorder.resident(&self.shared.modulations),
            positions: self.stage.positions.on(recorder),
        };
        let x = self.state_memory(recorder, probe);
        self.denoiser.begin(recorder.resident(&self.stage.x), inputs, x)
    }

    /// The sequence as a probe left it; without a probe, embedded here.
    fn resume<'r>(&self, recorder: &'r Recorder, probe: Option<&ProbeMemory>) -> State<'r> {
        if probe.is_none() {
            return self.begin(recorder, None);
        }
        State {
            x: self.state_memory(recorder, probe),
            modulations: recorder.resident(&self.shared.modulations),
            positions: self.stage.positions.on(recorder),
            n_text: self.n_text(),
        }
    }

    fn blocks<'r>(&self, state: &State<'r>, from: usize, residual: &mut dyn Residual<'r>) {
        for i in from..self.denoiser.n_blocks() {
            self.denoiser.block(i, state, residual);
        }
    }

    /// From the sequence to the next latents.
    fn finish(&self, state: &State<'_>) {
        let velocity = self.denoiser.velocity(state);
        self.euler(state.x.recorder(), velocity[0], velocity.get(1).copied());
    }

    fn euler<'r>(
        &self,
        recorder: &'r Recorder,
        conditional: Tensor<'r>,
        unconditional: Option<Tensor<'r>>,
    ) {
        euler_step(
            "euler",
            conditional,
            unconditional,
            recorder.resident(&self.shared.step),
            recorder.resident(&self.stage.velocity),
            recorder.resident(&self.stage.x),
        );
    }

    /// The image tokens of all branches, `[B * N, hidden]`, in memory of their own.
    fn copy_images<'r>(&self, name: &str, state: &State<'r>) -> Tensor<'r> {
        let copy = state.x.recorder().temp(name, self.image_rows(), self.network.hidden());
        for (b, streams) in state.branches().enumerate() {
            combine(name, &[streams.img], ONCE, None, Write::Store, self.images_of(copy, b));
        }
        copy
    }

    /// `to = image tokens - before`, both `[B * N, hidden]`: what the blocks in between have added.
    fn store_added<'r>(&self, name: &str, state: &State<'r>, before: Tensor<'r>, to: Tensor<'r>) {
        for (b, streams) in state.branches().enumerate() {
            let inputs = [streams.img, self.images_of(before, b)];
            combine(name, &inputs, DIFFERENCE, None, Write::Store, self.images_of(to, b));
        }
    }

    /// The rows of branch `b` in a matrix `[B * N, ..]`.
    fn images_of<'r>(&self, matrix: Tensor<'r>, b: usize) -> Tensor<'r> {
        let n = self.stage.x.rows;
        matrix.row_range(b * n..(b + 1) * n)
    }

    /// What must be known before a cache that looks at values can decide.
    fn probe(&self, recorder: &Recorder, probe: &ProbeMemory) {
        let ProbeMemory { kind, new, old, partials, .. } = probe;
        let rows = self.image_rows();
        let [new, old] = [new, old].map(|m| self.part(recorder, m, rows));
        let partials = self.part(recorder, partials, change_rows(rows));
        let state = self.begin(recorder, Some(probe));
        match kind {
            Probe::FirstBlock => {
                let before = self.copy_images("before", &state);
                self.denoiser.block(0, &state, &mut Direct);
                self.store_added("first_block", &state, before, new);
                change("change", new, old, partials);
            }
            Probe::ModulatedInput => {
                let inputs = self.denoiser.modulated_input(&state);
                for (b, input) in inputs.into_iter().enumerate() {
                    let new = self.images_of(new, b);
                    combine("modulated", &[input], ONCE, None, Write::Store, new);
                }
                change("change", new, old, partials);
                // Compared with the step before, whatever became of that.
                combine("remember", &[new], ONCE, None, Write::Store, old);
            }
        }
    }

    fn full(&self, recorder: &Recorder, cache: &CacheMemory) {
        match cache {
            CacheMemory::Residual { first_block, added, probe } => {
                let state = self.resume(recorder, probe.as_deref());
                let rows = self.image_rows();
                if let Some(ProbeMemory { kind: Probe::FirstBlock, new, old, .. }) =
                    probe.as_deref()
                {
                    let [new, old] = [new, old].map(|m| self.part(recorder, m, rows));
                    combine("remember", &[new], ONCE, None, Write::Store, old);
                }
                let before = self.copy_images("before", &state);
                self.blocks(&state, *first_block, &mut Direct);
                self.store_added("keep", &state, before, self.part(recorder, added, rows));
                self.finish(&state);
            }
            CacheMemory::Output { factors, weights } => {
                let state = self.begin(recorder, None);
                self.blocks(&state, 0, &mut Direct);
                self.finish(&state);
                let velocity = recorder.resident(&self.stage.velocity);
                Taylor::new(recorder, weights).update(velocity, factors);
            }
            CacheMemory::Modules { factors, weights } => {
                let state = self.begin(recorder, None);
                let taylor = Taylor::new(recorder, weights);
                self.blocks(&state, 0, &mut Keep { taylor, modules: factors.iter() });
                self.finish(&state);
            }
        }
    }

    fn reuse(&self, recorder: &Recorder, cache: &CacheMemory) {
        match cache {
            CacheMemory::Residual { added, probe, .. } => {
                let state = self.resume(recorder, probe.as_deref());
                let added = self.part(recorder, added, self.image_rows());
                for (b, streams) in state.branches().enumerate() {
                    let kept = self.images_of(added, b);
                    combine("reuse", &[kept], ONCE, None, Write::Add, streams.img);
                }
                self.finish(&state);
            }
            CacheMemory::Output { factors, weights } => {
                let x = &self.stage.x;
                let velocity = recorder.temp("predicted", x.rows, x.cols);
                Taylor::new(recorder, weights).predict(factors, None, Write::Store, velocity);
                self.euler(recorder, velocity, None);
            }
            CacheMemory::Modules { factors, weights } => {
                let state = self.begin(recorder, None);
                let taylor = Taylor::new(recorder, weights);
                let mut modules = factors.iter();
                for i in 0..self.denoiser.n_blocks() {
                    self.denoiser.replay(i, &state, &mut |x, gate| {
                        taylor.predict(next_module(&mut modules), Some(gate), Write::Add, x);
                    });
                }
                self.finish(&state);
            }
        }
    }
}

/// The factors of the module that comes next.
#[track_caller]
fn next_module<'a>(modules: &mut std::slice::Iter<'a, Vec<Resident>>) -> &'a [Resident] {
    match modules.next() {
        Some(factors) => factors,
        None => unreachable!("memory was made for as many modules as a replay asks for"),
    }
}

/// The arithmetic of Taylor factors, with weights that the host rewrites each step.
#[derive(Clone, Copy)]
struct Taylor<'r> {
    recorder: &'r Recorder,
    weights: Tensor<'r>,
}

impl<'r> Taylor<'r> {
    fn new(recorder: &'r Recorder, weights: &Resident) -> Self {
        Taylor { recorder, weights: recorder.resident(weights) }
    }

    fn weights(self, first: usize) -> Weights<'r> {
        Weights::Buffer { values: self.weights, first }
    }

    fn factors(self, factors: &[Resident], rows: usize) -> Vec<Tensor<'r>> {
        factors.iter().map(|f| self.recorder.resident(f).row_range(0..rows)).collect()
    }

    /// Computes the new factors from `y`. The highest comes first: each reads the old ones below it.
    fn update(self, y: Tensor<'r>, factors: &[Resident]) {
        let factors = self.factors(factors, y.rows());
        if let [f0, f1, f2] = factors[..] {
            let second = self.weights(taylor::SECOND);
            combine("taylor.2", &[y, f0, f1], second, None, Write::Store, f2);
        }
        if let [f0, f1, ..] = factors[..] {
            combine("taylor.1", &[y, f0], self.weights(taylor::FIRST), None, Write::Store, f1);
        }
        combine("taylor.0", &[y], ONCE, None, Write::Store, factors[0]);
    }

    /// `y = prediction` or `y += gate * prediction`.
    fn predict(self, factors: &[Resident], gate: Option<Tensor<'r>>, write: Write, y: Tensor<'r>) {
        let factors = self.factors(factors, y.rows());
        combine("taylor", &factors, self.weights(taylor::PREDICT), gate, write, y);
    }
}

/// A residual stream that keeps what every module gives.
struct Keep<'r, 'a> {
    taylor: Taylor<'r>,
    modules: std::slice::Iter<'a, Vec<Resident>>,
}

impl<'r> Residual<'r> for Keep<'r, '_> {
    fn add(&mut self, x: Tensor<'r>, gate: Tensor<'r>, input: Tensor<'r>, layer: &LinearLayer) {
        let factors = next_module(&mut self.modules);
        // Of order 0 the output itself is kept; else it is needed besides the old factors.
        let y = match factors {
            [only] => {
                let y = self.taylor.recorder.resident(only).row_range(0..x.rows());
                linear_into("residual", input, layer, y, Epilogue::default());
                y
            }
            _ => {
                let y = linear("residual", input, layer, Default::default());
                self.taylor.update(y, factors);
                y
            }
        };
        combine("residual.add", &[y], ONCE, Some(gate), Write::Add, x);
    }
}
