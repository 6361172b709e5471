//! Schedules, layouts, noise, edges, regions and caches against known answers. No GPU.
//!
//! "Section 9.x" in these files means a table of known answers computed from the paper's published
//! constants with another program; each is written out where it is used.

mod cache_rules;
mod edges;
mod layouts;
mod noise;
mod ntdm;
mod presets;
mod regions;
mod schedules;
mod whole_run;

use ralu::models::{flux1, sd3 as sd3_family};
use ralu::sampling::ntdm::js_distance;
use ralu::sampling::{DISTILLED_PRESETS, Preset, PresetTable, RaluParams};

fn sd3(preset: Preset) -> RaluParams {
    sd3_family::PRESETS.params(preset, 3.0).unwrap()
}

/// A preset of FLUX.1-dev, or the distilled one for its time shift.
fn flux(preset: Preset) -> RaluParams {
    let table = if preset == Preset::Distilled { &DISTILLED_PRESETS } else { &flux1::PRESETS };
    table.params(preset, 3.0).unwrap()
}

/// Every row of the table of presets.
fn all_presets() -> Vec<(&'static str, Preset, RaluParams)> {
    let tables: [&PresetTable; 3] = [&flux1::PRESETS, &sd3_family::PRESETS, &DISTILLED_PRESETS];
    let mut rows = vec![];
    for table in tables {
        for preset in table.presets() {
            rows.push((table.models, preset, table.params(preset, 3.0).unwrap()));
        }
    }
    let schnell = DISTILLED_PRESETS.params(Preset::Distilled, 1.0).unwrap();
    rows.push((DISTILLED_PRESETS.models, Preset::Distilled, schnell));
    rows
}

/// The tables are printed with six digits.
const SIX_DIGITS: f64 = 6e-7;

#[track_caller]
fn close(label: &str, found: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(found.len(), want.len(), "{label}: {found:?}");
    for (i, (f, w)) in found.iter().zip(want).enumerate() {
        let off = (f - w).abs();
        // Not `off > tolerance`: a NaN must fail.
        assert!(off <= tolerance, "{label}, value {i}: {f}, expected {w} +- {tolerance}");
    }
}

#[track_caller]
fn close32(label: &str, found: &[f32], want: &[f32], tolerance: f32) {
    let wide = |v: &[f32]| v.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
    close(label, &wide(found), &wide(want), f64::from(tolerance));
}

/// Velocity of a network that knows the answer: every picture is the constant `C` per channel.
fn oracle(i: usize) -> f32 {
    (i % 64) as f32 * 0.05 - 1.6
}

fn distance_of(p: &RaluParams) -> f64 {
    js_distance(&p.stage_steps, &p.stage_ends, &p.shifts, p.z, p.base_time_shift)
}
