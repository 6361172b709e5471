//! The stages of one run: how many tokens, at which noise levels. Pure numbers.

use super::{Error, Settings, painted};
use crate::models::config::{ModelConfig, TimeShiftType};
use crate::sampling::{DynamicShift, FlowMatch, Grid, Jump, RaluSchedule, ShiftKind};

/// Which tokens a stage works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageKind {
    /// All tokens of the half-size picture.
    Low,
    /// Coarse tokens, and the children of the chosen ones.
    Mixed,
    /// All tokens of the picture.
    Full,
}

/// One stage.
#[derive(Clone, Debug, PartialEq)]
pub struct StageSpec {
    /// Which tokens.
    pub kind: StageKind,
    /// Image tokens.
    pub n_tokens: usize,
    /// Noise levels, one more than steps.
    pub sigmas: Vec<f64>,
    /// Time shift of the noise levels: RALU's h, or exp(mu).
    pub time_shift: f64,
}

impl StageSpec {
    /// Evaluations of the network (or pairs of them, under true guidance).
    pub fn steps(&self) -> usize {
        self.sigmas.len() - 1
    }
}

/// All stages of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunSchedule {
    /// Working width: the picture's, rounded up to a multiple of 16, of 32 under RALU.
    pub width: usize,
    /// Working height.
    pub height: usize,
    /// Rows of tokens of the full grid.
    pub rows: usize,
    /// Columns of tokens of the full grid.
    pub cols: usize,
    /// One stage for plain sampling, else two or three.
    pub stages: Vec<StageSpec>,
    /// Between them.
    pub jumps: Vec<Jump>,
    /// Coarse tokens that are refined early.
    pub regions: usize,
}

impl ModelConfig {
    /// The model's flow-matching schedule for a plain run of `steps` steps and a picture of `n_tokens` image tokens.
    pub fn flow_match(&self, steps: usize, n_tokens: usize) -> FlowMatch {
        let scheduler = &self.scheduler;
        let flow = FlowMatch {
            shift: scheduler.shift,
            dynamic: scheduler.use_dynamic_shifting.then_some(DynamicShift {
                base_shift: scheduler.base_shift,
                max_shift: scheduler.max_shift,
                base_image_seq_len: scheduler.base_image_seq_len as f64,
                max_image_seq_len: scheduler.max_image_seq_len as f64,
                kind: match scheduler.time_shift_type {
                    TimeShiftType::Exponential => ShiftKind::Exponential,
                    TimeShiftType::Linear => ShiftKind::Linear,
                },
            }),
            shift_terminal: scheduler.shift_terminal,
            num_train_timesteps: scheduler.num_train_timesteps as u32,
        };
        self.family().schedule(self, flow, steps, n_tokens)
    }
}

impl ModelConfig {
    /// Noise levels of plain sampling, `steps + 1` of them, for a picture of `n_tokens` image tokens.
    pub fn plain_sigmas(&self, steps: usize, n_tokens: usize) -> Result<Vec<f64>, Error> {
        let flow = self.flow_match(steps, n_tokens);
        Ok(self.family().sigmas(self, &flow, steps, n_tokens)?)
    }

    /// The timestep that the network is told at noise level `sigma`: `num_train_timesteps` x sigma, rounded as on its way
    /// through diffusers.
    pub(super) fn timestep(&self, sigma: f64) -> f64 {
        let timestep = sigma as f32 * self.scheduler.num_train_timesteps as f32;
        f64::from(self.family().timestep(timestep))
    }

    /// Rejects pictures that are larger than the model's table of positions.
    pub(super) fn check_grid(&self, rows: usize, cols: usize) -> Result<(), Error> {
        let Some(side) = self.transformer.positions_per_side() else { return Ok(()) };
        for (what, tokens) in [("the width", cols), ("the height", rows)] {
            if tokens > side {
                let expected = format!(
                    "at most {} pixels: this model's table of positions has {side} x {side} entries of 16",
                    16 * side
                );
                return Err(Error::setting(what, 16 * tokens, expected));
            }
        }
        Ok(())
    }
}

impl RunSchedule {
    /// The stages that `settings` mean for `config`.
    pub fn new(settings: &Settings, config: &ModelConfig) -> Result<RunSchedule, Error> {
        let unit = if settings.ralu.is_some() { 32 } else { 16 };
        let width = settings.width.next_multiple_of(unit);
        let height = settings.height.next_multiple_of(unit);
        let (rows, cols) = (height / 16, width / 16);
        config.check_grid(rows, cols)?;
        let Some(params) = &settings.ralu else {
            let n_tokens = rows * cols;
            let stage = StageSpec {
                kind: StageKind::Full,
                n_tokens,
                sigmas: config.plain_sigmas(settings.steps, n_tokens)?,
                time_shift: config.flow_match(settings.steps, n_tokens).time_shift(n_tokens),
            };
            return Ok(RunSchedule {
                width,
                height,
                rows,
                cols,
                stages: vec![stage],
                jumps: vec![],
                regions: 0,
            });
        };
        let grid = Grid::of_image(width, height)?;
        let regions = painted::region_count(params, settings.mask.as_ref(), grid)?;
        let schedule = params.resolve_regions(grid.n_tokens(), regions)?;
        Ok(Self::with_regions(width, height, grid, regions, &schedule))
    }

    fn with_regions(
        width: usize,
        height: usize,
        grid: Grid,
        regions: usize,
        schedule: &RaluSchedule,
    ) -> RunSchedule {
        let low = grid.n_tokens();
        let kinds: &[(StageKind, usize)] = match schedule.stages.len() {
            2 => &[(StageKind::Low, low), (StageKind::Full, 4 * low)],
            _ => &[
                (StageKind::Low, low),
                (StageKind::Mixed, low + 3 * regions),
                (StageKind::Full, 4 * low),
            ],
        };
        let stages = kinds
            .iter()
            .zip(&schedule.stages)
            .map(|(&(kind, n_tokens), stage)| StageSpec {
                kind,
                n_tokens,
                sigmas: stage.sigmas.clone(),
                time_shift: stage.time_shift,
            })
            .collect();
        RunSchedule {
            width,
            height,
            rows: 2 * grid.rows,
            cols: 2 * grid.cols,
            stages,
            jumps: schedule.jumps.clone(),
            regions,
        }
    }

    /// The same run after it turned out that `regions` tokens are refined early (painted and found regions may
    /// overlap).
    pub fn set_regions(&mut self, regions: usize) {
        self.regions = regions;
        let low = self.rows / 2 * (self.cols / 2);
        for stage in &mut self.stages {
            if stage.kind == StageKind::Mixed {
                stage.n_tokens = low + 3 * regions;
            }
        }
    }

    /// The coarse grid; meaningful under RALU.
    pub fn grid(&self) -> Grid {
        Grid { rows: self.rows / 2, cols: self.cols / 2 }
    }

    /// Whether there are several stages.
    pub fn is_ralu(&self) -> bool {
        self.stages.len() > 1
    }

    /// Whether regions are chosen by the edges of a decoded preview.
    pub fn has_regions(&self) -> bool {
        self.stages.iter().any(|stage| stage.kind == StageKind::Mixed)
    }

    /// Steps of all stages.
    pub fn steps(&self) -> usize {
        self.stages.iter().map(StageSpec::steps).sum()
    }
}

#[cfg(test)]
mod tests {
    use crate::models::builtin;

    #[test]
    fn timesteps_are_those_of_diffusers() {
        let models = ["flux.1-dev", "sd3-medium"].map(|name| builtin::get(name).unwrap());
        for mut config in models {
            assert_eq!(config.timestep(0.75), 750.0);
            config.scheduler.num_train_timesteps = 500;
            assert_eq!(config.timestep(0.75), 375.0);
        }
    }
}
