//! RALU's presets for Stable Diffusion 3 and 3.5, against 28 plain steps.

use crate::sampling::Preset::{self, X2, X3};
use crate::sampling::PresetNoise::{self, C};
use crate::sampling::presets::EARLY;
use crate::sampling::{PresetRow, PresetTable};

/// The numbers of arXiv 2507.08422 v3, as printed.
pub static PRESETS: PresetTable = PresetTable {
    models: "Stable Diffusion 3 models",
    default: X2,
    is_distilled: false,
    rows: &[
        // The optimiser gives 6.121 for the first shift, which makes no visible difference.
        row(X2, &[5, 6, 9], EARLY, 0.3, &[6.21, 2.23, 1.97], C(0.0586)),
        // The optimiser gives 2.273 for the last shift.
        row(X3, &[3, 3, 6], &[0.25, 0.3, 1.0], 0.2, &[6.40, 2.60, 2.23], C(0.0255)),
    ],
};

const fn row(
    preset: Preset,
    stage_steps: &'static [usize],
    stage_ends: &'static [f64],
    up_ratio: f64,
    shifts: &'static [f64],
    noise: PresetNoise,
) -> PresetRow {
    PresetRow { preset, base_time_shift: 3.0, stage_steps, stage_ends, up_ratio, shifts, noise }
}
