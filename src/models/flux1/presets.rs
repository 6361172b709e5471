//! RALU's presets for FLUX.1-dev, against 50 plain steps.

use crate::sampling::Preset::{self, X2, X3, X4, X5, X7};
use crate::sampling::PresetNoise::{self, C, Z};
use crate::sampling::presets::{EARLY, LATE};
use crate::sampling::{PresetRow, PresetTable};

/// Sources: "code" is the authors' repository (github ignoww/RALU, 2025-08), "paper" is arXiv
/// 2507.08422 v3, "own" was found for this engine with an optimiser like the authors', which stops
/// short of the minimum that [`crate::sampling::ntdm::solve`] finds. Printed values stand as printed,
/// also where that optimiser disagrees.
pub static PRESETS: PresetTable = PresetTable {
    models: "FLUX.1 models",
    default: X4,
    is_distilled: false,
    rows: &[
        // own
        row(X2, &[12, 12, 14], LATE, 0.3, &[4.514, 2.343, 2.226], Z(4.276)),
        // own
        row(X3, &[7, 8, 10], LATE, 0.3, &[4.954, 2.598, 2.324], Z(6.415)),
        // code
        row(X4, &[5, 6, 7], LATE, 0.3, &[5.019, 2.589, 2.226], Z(6.317)),
        // paper
        row(X5, &[4, 5, 6], LATE, 0.2, &[5.12, 2.64, 2.25], C(0.0177)),
        // code and paper; up_ratio is the code's: the paper says 0.2, but its printed cost fits 0.1
        row(X7, &[2, 3, 5], EARLY, 0.1, &[8.141, 2.856, 2.193], Z(6.261)),
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
