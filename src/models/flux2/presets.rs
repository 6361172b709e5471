//! RALU's presets for FLUX.2 \[klein\].
//!
//! No paper has any. Shifts and Z were found for this engine with the authors' measure (NT-DM), for pictures of 1024 x 1024.
//! These models' schedules are steeper than those that the paper's stage ends belong to, so the ends keep the share of the
//! schedule that lies before them: an end `e` at a time shift of 3 becomes `F_h^-1(F_3(e))`, where
//! `F_h(t) = h t / (1 + (h - 1) t)`. With the paper's own ends the search answers with the largest Z there is, which throws
//! the coarse stages' work away. None was tried on published weights.

use crate::sampling::Preset::{self, Distilled, X4, X5, X7};
use crate::sampling::{PresetNoise, PresetRow, PresetTable};

/// Of the distilled models, against 4 plain steps: stages end where two and three of these do, (.0919, .2328).
///
/// The first shift is the plain schedule's, so that the first stage's noise levels are, too. A stage of one step has nothing
/// between its ends: the other shifts count for the measure alone, which is .078 with them and .077 at its least.
pub static DISTILLED: PresetTable = PresetTable {
    models: "FLUX.2 [klein] models",
    default: Distilled,
    is_distilled: true,
    rows: &[row(
        Distilled,
        9.887,
        &[2, 1, 1],
        &[0.0919, 0.2328, 1.0],
        0.3,
        &[9.887, 1.667, 5.402],
        2.0,
    )],
};

/// The presets of the base models; speed-ups are relative to 50 plain steps.
pub static BASE: PresetTable = PresetTable {
    models: "FLUX.2 [klein] base models",
    default: X4,
    is_distilled: false,
    rows: &[
        row(X4, 7.564, &[5, 6, 7], LATE, 0.3, &[17.053, 5.780, 3.804], 8.437),
        row(X5, 7.564, &[4, 5, 6], LATE, 0.2, &[17.713, 5.985, 3.917], 9.264),
        row(X7, 7.564, &[2, 3, 5], EARLY, 0.1, &[29.249, 5.962, 4.180], 6.976),
    ],
};

/// (.3, .45) at a time shift of 7.564.
const LATE: &[f64] = &[0.1453, 0.2450, 1.0];
/// (.2, .3) at a time shift of 7.564.
const EARLY: &[f64] = &[0.0902, 0.1453, 1.0];

const fn row(
    preset: Preset,
    base_time_shift: f64,
    stage_steps: &'static [usize],
    stage_ends: &'static [f64],
    up_ratio: f64,
    shifts: &'static [f64],
    z: f64,
) -> PresetRow {
    let noise = PresetNoise::Z(z);
    PresetRow { preset, base_time_shift, stage_steps, stage_ends, up_ratio, shifts, noise }
}
