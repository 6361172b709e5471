//! Temporal caches: which denoising steps may reuse what an earlier step computed.
//!
//! Neighbouring steps of a run compute much the same, so some can be *reused*: part of the network
//! is replaced by what a *full* step has kept, or by an extrapolation of it. This module decides
//! which steps, and gives the weights of the extrapolation. It touches no network and no tensor.
//!
//! - [`CacheSpec`] is a rule with its parameters, read from and printed as one line of text. Its
//!   [`cached`](CacheSpec::cached) and [`probe`](CacheSpec::probe) say what an engine has to keep
//!   and to measure;
//! - [`CacheRule`] is that rule during a run: one [`Decision`] a step;
//! - [`static_decisions`] lists all decisions in advance, for rules that look at no values.
//!
//! What holds for every rule: the first step of each stage is full, because a stage has other
//! tokens than the one before and nothing kept fits them; everything is forgotten when a stage
//! begins; and the last step of the last stage is full, because its errors stay in the picture.
//!
//! ```
//! use ralu::sampling::cache::{CacheRule, CacheSpec, Decision};
//!
//! let spec: CacheSpec = "taylorseer:interval=3".parse()?;
//! assert_eq!(spec.to_string(), "taylorseer:order=1,interval=3,warmup=2,mode=output");
//!
//! let sigmas = [1.0, 0.9, 0.8, 0.7, 0.6, 0.4, 0.2, 0.0];
//! let mut rule = CacheRule::new(spec, Vec::new())?;
//! rule.begin_stage(&sigmas, true);
//! let full: Vec<bool> = (0..7).map(|step| rule.next(step) == Decision::Full).collect();
//! assert_eq!(full, [true, true, false, false, true, false, true]);
//! # Ok::<(), ralu::sampling::cache::CacheError>(())
//! ```

pub mod spec;

mod change;

mod interval;

mod magnitude;

mod error;

pub use error::CacheError;
pub use interval::TaylorUpdate;
pub use spec::{CacheSpec, Cached, Probe, TaylorMode};

use change::{FirstBlock, TeaCache};
use interval::Interval;
use magnitude::Magnitude;

/// How a step is to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Evaluate the whole network, and store what the rule keeps: [`CacheSpec::cached`], and for
    /// rules with a probe the probe's state. The engine stores that state in *every* full step, so
    /// a step that is full without having been probed leaves no gap.
    Full,
    /// Skip what is cached and take the kept or predicted value instead.
    Reuse,
    /// Measure the change named by [`CacheSpec::probe`] first, and hand it to
    /// [`CacheRule::probed`], which says `Full` or `Reuse`.
    Probe,
}

/// A rule during one run: it is told of each stage and asked about each step, in order.
///
/// One value serves one run; a new run starts with a new value.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheRule {
    spec: CacheSpec,
    rule: Rule,
    plain_sigmas: Vec<f64>,
    stages_begun: usize,
    n_steps: usize,
    is_last: bool,
    /// The step asked for next.
    step: usize,
    awaits_probe: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Rule {
    FirstBlock(FirstBlock),
    TeaCache(TeaCache),
    Interval(Interval),
    Magnitude(Magnitude),
}

impl CacheRule {
    /// The rule of `spec` before the first stage.
    ///
    /// `plain_sigmas`: the `n + 1` noise levels of a plain run of `n =` [`CacheSpec::plain_steps`]
    /// steps with the same model and picture size; rules for which that is `None` ignore them.
    ///
    /// Refuses parameters out of range, and a schedule of another length.
    pub fn new(spec: CacheSpec, plain_sigmas: Vec<f64>) -> Result<CacheRule, CacheError> {
        spec.check()?;
        if let Some(steps) = spec.plain_steps()
            && plain_sigmas.len() != steps + 1
        {
            return Err(CacheError::PlainSigmas { found: plain_sigmas.len(), steps });
        }
        let rule = match &spec {
            CacheSpec::FirstBlock { threshold } => Rule::FirstBlock(FirstBlock::new(*threshold)),
            CacheSpec::TeaCache { threshold, coefficients } => {
                Rule::TeaCache(TeaCache::new(*threshold, coefficients.clone()))
            }
            CacheSpec::TaylorSeer { order, interval, warmup, mode: _ } => {
                Rule::Interval(Interval::new(*order, *interval, *warmup))
            }
            CacheSpec::Fora { interval } => Rule::Interval(Interval::new(0, *interval, 0)),
            CacheSpec::MagCache { threshold, max_skips, retention, ratios } => {
                Rule::Magnitude(Magnitude::new(*threshold, *max_skips, *retention, ratios.clone()))
            }
        };
        Ok(CacheRule {
            spec,
            rule,
            plain_sigmas,
            stages_begun: 0,
            n_steps: 0,
            is_last: false,
            step: 0,
            awaits_probe: false,
        })
    }

    /// The rule's name and parameters.
    pub fn spec(&self) -> &CacheSpec {
        &self.spec
    }

    /// Begins a stage of `sigmas.len() - 1` steps and forgets what was before.
    ///
    /// `sigmas`: the stage's noise levels, one per step and the one it ends at. `is_last`: no stage
    /// follows. A run whose first stage is its last is a plain run.
    pub fn begin_stage(&mut self, sigmas: &[f64], is_last: bool) {
        let is_plain = self.stages_begun == 0 && is_last;
        self.stages_begun += 1;
        self.n_steps = sigmas.len().saturating_sub(1);
        self.is_last = is_last;
        self.step = 0;
        self.awaits_probe = false;
        match &mut self.rule {
            // Nothing to forget here: the first step is full, and clears what was summed.
            Rule::FirstBlock(_) | Rule::TeaCache(_) => {}
            Rule::Interval(rule) => rule.begin_stage(),
            Rule::Magnitude(rule) => {
                let by_sigma = (!is_plain).then_some(self.plain_sigmas.as_slice());
                rule.begin_stage(&sigmas[..self.n_steps], by_sigma);
            }
        }
    }

    /// How to run step `step` of the stage, counted from 0.
    ///
    /// To be asked once a step, in order; after [`Decision::Probe`] comes [`CacheRule::probed`].
    ///
    /// Panics (at the caller's line) out of that order: that is a bug in the engine.
    #[track_caller]
    pub fn next(&mut self, step: usize) -> Decision {
        assert!(!self.awaits_probe, "step {step} asked for before the change of the probed one");
        assert!(
            step == self.step && step < self.n_steps,
            "step {step} asked for, expected step {} of {}",
            self.step,
            self.n_steps
        );
        self.step += 1;
        let forced = step == 0 || (self.is_last && step + 1 == self.n_steps);
        match &mut self.rule {
            Rule::FirstBlock(_) | Rule::TeaCache(_) if !forced => {
                self.awaits_probe = true;
                Decision::Probe
            }
            Rule::FirstBlock(_) => Decision::Full,
            Rule::TeaCache(rule) => {
                rule.step_was_full();
                Decision::Full
            }
            Rule::Interval(rule) => full_or_reuse(rule.is_full(step, forced)),
            Rule::Magnitude(rule) => full_or_reuse(rule.is_full(step, forced)),
        }
    }

    /// The decision after a probe: `Full` or `Reuse`, never `Probe`.
    ///
    /// `change`: relative change of what [`CacheSpec::probe`] names, `mean|new - old| / mean|old|`.
    /// One that is not a number (nothing divided by nothing) makes the step full.
    ///
    /// Panics (at the caller's line) if no probe was asked for: that is a bug in the engine.
    #[track_caller]
    pub fn probed(&mut self, change: f64) -> Decision {
        assert!(self.awaits_probe, "a change of {change} came without a probe asked for");
        self.awaits_probe = false;
        let full = match &mut self.rule {
            Rule::FirstBlock(rule) => rule.is_full(change),
            Rule::TeaCache(rule) => rule.is_full(change),
            Rule::Interval(_) | Rule::Magnitude(_) => true,
        };
        full_or_reuse(full)
    }

    /// Weights of the Taylor factors `F0, F1, F2` in the prediction of the current step:
    /// `y = w[0] F0 + w[1] F1 + w[2] F2`, with `w[j] = d^j / j!` and `d` the steps since the last
    /// full one.
    ///
    /// Orders that the rule lacks, or has not yet gathered in this stage, have weight 0. Rules
    /// without factors have `[1, 0, 0]`: the kept value itself. To be read after
    /// [`CacheRule::next`].
    ///
    /// TaylorSeer (arXiv 2503.06923), eq. for the predicted feature.
    pub fn predict_weights(&self) -> [f32; 3] {
        match &self.rule {
            Rule::Interval(rule) => rule.predict_weights(),
            _ => [1.0, 0.0, 0.0],
        }
    }

    /// How the current step, a full one, renews the Taylor factors. To be read after
    /// [`CacheRule::next`].
    pub fn update_weights(&self) -> TaylorUpdate {
        match &self.rule {
            Rule::Interval(rule) => rule.update_weights(),
            _ => TaylorUpdate::NOTHING_YET,
        }
    }
}

/// All decisions of a run in advance: for each stage and step, whether it is full.
///
/// `stages`: each stage's sigmas, as for [`CacheRule::begin_stage`]; the last one ends the run.
/// `plain_sigmas` as for [`CacheRule::new`]. `None` for rules that probe, as nothing is known of
/// them in advance.
///
/// Refuses what [`CacheRule::new`] refuses.
pub fn static_decisions(
    spec: &CacheSpec,
    plain_sigmas: &[f64],
    stages: &[&[f64]],
) -> Result<Option<Vec<Vec<bool>>>, CacheError> {
    let mut rule = CacheRule::new(spec.clone(), plain_sigmas.to_vec())?;
    if spec.probe().is_some() {
        return Ok(None);
    }
    let mut run = Vec::with_capacity(stages.len());
    for (i, sigmas) in stages.iter().enumerate() {
        rule.begin_stage(sigmas, i + 1 == stages.len());
        let n_steps = sigmas.len().saturating_sub(1);
        run.push((0..n_steps).map(|step| rule.next(step) == Decision::Full).collect());
    }
    Ok(Some(run))
}

fn full_or_reuse(full: bool) -> Decision {
    if full { Decision::Full } else { Decision::Reuse }
}
