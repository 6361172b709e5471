//! Presets: named RALU runs. Each family of models has a table of its own.
//!
//! ```
//! use ralu::models::sd3;
//! use ralu::sampling::Preset;
//!
//! let params = sd3::PRESETS.params(Preset::X3, 3.0)?;
//! assert_eq!(params.stage_steps, [3, 3, 6]);
//! # Ok::<(), ralu::sampling::Error>(())
//! ```

use serde::{Deserialize, Serialize};

use super::Error;
use super::ralu::RaluParams;
use crate::names::by_serde;

/// A named RALU run. Speed-ups are over a family's full number of plain steps, in linear-layer
/// FLOPs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// About twice as fast.
    #[serde(rename = "2x")]
    X2,
    /// About three times as fast.
    #[serde(rename = "3x")]
    X3,
    /// About four times as fast.
    #[serde(rename = "4x")]
    X4,
    /// About five times as fast.
    #[serde(rename = "5x")]
    X5,
    /// About seven times as fast.
    #[serde(rename = "7x")]
    X7,
    /// For models that need only four steps: the same number of steps, on fewer tokens.
    Distilled,
}

/// The presets of some models.
#[derive(Debug, PartialEq)]
pub struct PresetTable {
    /// What messages call the models.
    pub models: &'static str,
    /// The preset that changes pictures least and still pays: what a run has if nobody chooses.
    pub default: Preset,
    /// Whether these models are distilled to a few steps, so that presets for fifty make no sense for them.
    pub is_distilled: bool,
    /// The presets, slowest first. There may be several of a name, solved for different base time shifts.
    pub rows: &'static [PresetRow],
}

/// The numbers of a preset.
#[derive(Debug, PartialEq)]
pub struct PresetRow {
    /// Its name.
    pub preset: Preset,
    /// The base model's time shift (`h_ori`) that shifts and Z were solved for.
    pub base_time_shift: f64,
    /// Evaluations per stage.
    pub stage_steps: &'static [usize],
    /// Paper time at the end of each stage.
    pub stage_ends: &'static [f64],
    /// Share of coarse tokens that are refined early.
    pub up_ratio: f64,
    /// Time shift of each stage.
    pub shifts: &'static [f64],
    /// Strength of the noise at the jumps.
    pub noise: PresetNoise,
}

/// How a source states the strength of the noise at the jumps.
#[derive(Debug, PartialEq)]
pub enum PresetNoise {
    /// As it is.
    Z(f64),
    /// `c = 1 / Z^2`.
    C(f64),
}

/// Stage ends of the fastest presets.
pub const EARLY: &[f64] = &[0.2, 0.3, 1.0];
/// Stage ends of the other presets.
pub const LATE: &[f64] = &[0.3, 0.45, 1.0];

/// Of models that are distilled to four steps: FLUX.1-schnell's kind and SD3.5-large-turbo's, by their time shifts.
///
/// Steps, ends and ratio are the paper's (arXiv 2507.08422 v3); shifts and Z, which it does not print, were found for this
/// engine with an optimiser like the authors', which stops short of the minimum that [`super::ntdm::solve`] finds. At a
/// time shift of 3 the distances are .0058 and .0267; the least there are, .0056 and .0217, have Z of 67 and 90: hardly
/// anything coarse survives.
pub static DISTILLED_PRESETS: PresetTable = PresetTable {
    models: "distilled models",
    default: Preset::Distilled,
    is_distilled: true,
    rows: &[
        distilled(3.0, &[4.598, 2.283, 2.612], 38.4),
        distilled(1.0, &[1.008, 0.568, 0.864], 2.0),
    ],
};

const fn distilled(base_time_shift: f64, shifts: &'static [f64], z: f64) -> PresetRow {
    PresetRow {
        preset: Preset::Distilled,
        base_time_shift,
        stage_steps: &[1, 1, 2],
        stage_ends: LATE,
        up_ratio: 0.3,
        shifts,
        noise: PresetNoise::Z(z),
    }
}

impl PresetRow {
    /// The run that it stands for.
    pub fn params(&self) -> RaluParams {
        RaluParams {
            stage_steps: self.stage_steps.to_vec(),
            stage_ends: self.stage_ends.to_vec(),
            up_ratio: self.up_ratio,
            shifts: self.shifts.to_vec(),
            z: match self.noise {
                PresetNoise::Z(z) => z,
                PresetNoise::C(c) => 1.0 / libm::sqrt(c),
            },
            base_time_shift: self.base_time_shift,
        }
    }
}

impl PresetTable {
    /// The presets, slowest first.
    pub fn presets(&self) -> Vec<Preset> {
        let mut presets: Vec<Preset> = self.rows.iter().map(|row| row.preset).collect();
        presets.dedup();
        presets
    }

    /// The numbers of a preset for a model whose static time shift is `base_time_shift`: the row
    /// solved for the nearest one. [`Error::NoPreset`] names the presets that exist.
    pub fn params(&self, preset: Preset, base_time_shift: f64) -> Result<RaluParams, Error> {
        let distance = |row: &&PresetRow| (row.base_time_shift - base_time_shift).abs();
        self.rows
            .iter()
            .filter(|row| row.preset == preset)
            .min_by(|a, b| distance(a).total_cmp(&distance(b)))
            .map(PresetRow::params)
            .ok_or_else(|| Error::NoPreset {
                preset: preset.to_string(),
                family: self.models.to_owned(),
                expected: self.presets().iter().map(Preset::to_string).collect(),
            })
    }
}

impl Preset {
    /// All presets.
    pub const ALL: [Preset; 6] =
        [Preset::X2, Preset::X3, Preset::X4, Preset::X5, Preset::X7, Preset::Distilled];
}

by_serde!(Preset, "preset");
