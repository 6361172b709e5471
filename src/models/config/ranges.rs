//! The ranges of what can be asked of a run. What a model's files say by default has to be in them too.

use std::ops::RangeInclusive;

use super::fields::Fields;
use super::scheduler::LEAST_SHIFT;
use super::{ConfigError, ModelConfig, Result, SchedulerConfig, TimeShiftType};
use super::{config_of, folder, shown};
use crate::checkpoint::source::Source;
use crate::sampling::Preset;

/// Width and height in pixels.
pub const SIDES: RangeInclusive<usize> = 16..=8192;
/// Steps of plain sampling. The end keeps a slip of the finger from asking for gigabytes.
pub const STEPS: RangeInclusive<usize> = 1..=10_000;
/// Tokens that a text encoder reads whose length can be chosen, padding included.
pub const TEXT_LENGTHS: RangeInclusive<usize> = 1..=4096;
/// Distilled guidance, and the scale of classifier-free guidance.
pub const SCALES: RangeInclusive<f64> = 0.0..=1000.0;

impl Fields {
    /// A whole number that a request could have as well.
    pub(super) fn optional_in(
        &self,
        field: &str,
        range: RangeInclusive<usize>,
    ) -> Result<Option<usize>> {
        match self.optional_count(field)? {
            Some(found) if !range.contains(&found) => {
                let expected = format!("{} to {}", range.start(), range.end());
                Err(self.wrong(field, found, &expected))
            }
            found => Ok(found),
        }
    }

    /// A guidance that a request could have as well.
    pub(super) fn optional_scale(&self, field: &str) -> Result<Option<f64>> {
        match self.optional_number(field)? {
            Some(found) if !SCALES.contains(&found) => {
                let expected = format!("a number from {} to {}", SCALES.start(), SCALES.end());
                Err(self.wrong(field, found, &expected))
            }
            found => Ok(found),
        }
    }
}

impl SchedulerConfig {
    /// Rejects a dynamic time shift that gives no noise levels.
    pub(super) fn check_shift(&self, fields: &Fields) -> Result<()> {
        if !self.use_dynamic_shifting {
            return Ok(());
        }
        // `mu` is a line through two points. It is negative or not anywhere if it is so at the ends.
        let [base, max] = [self.base_image_seq_len, self.max_image_seq_len].map(|n| n as f64);
        let slope = (self.max_shift - self.base_shift) / (max - base);
        // What is beyond 80 is no number in 32 bits.
        let mus = LEAST_SHIFT.ln().ceil()..=80.0;
        let mu = |tokens: f64| self.base_shift + slope * (tokens - base);
        for (field, tokens) in [("base_shift", 1.0), ("base_shift", base), ("max_shift", max)] {
            let found = mu(tokens);
            let (given, expected) = match self.time_shift_type {
                TimeShiftType::Linear if found < LEAST_SHIFT => {
                    ("linear", format!("at least {LEAST_SHIFT:e}"))
                }
                TimeShiftType::Exponential if !mus.contains(&found) => {
                    ("exponential", format!("from {:.0} to {:.0}", mus.start(), mus.end()))
                }
                _ => continue,
            };
            let value = if field == "max_shift" { self.max_shift } else { self.base_shift };
            let expected = format!(
                "values of base_shift and max_shift whose {given} time shift is {expected} (here it is {found:.4} for \
                 {tokens} image tokens)"
            );
            return Err(fields.wrong(field, value, &expected));
        }
        Ok(())
    }
}

impl ModelConfig {
    /// Rejects a model whose own preset is none that it has.
    pub(super) fn check_own_preset(&self, source: &dyn Source) -> Result<()> {
        let presets = self.family().presets(self).presets();
        let Some(own) = self.generation.ralu.filter(|own| !presets.contains(own)) else {
            return Ok(());
        };
        let names: Vec<_> = presets.iter().map(Preset::to_string).collect();
        Err(ConfigError::Field {
            path: shown(source, "generation_config.json"),
            field: "ralu".into(),
            found: own.to_string(),
            expected: format!("one of this model's presets ({})", names.join(", ")),
        })
    }

    /// Rejects a model whose own size is none that can be asked for.
    pub(super) fn check_own_size(&self, source: &dyn Source) -> Result<()> {
        let Some(entries) = self.transformer.positions_per_side() else { return Ok(()) };
        let own = self.defaults();
        let generation = &self.generation;
        let most = (16 * entries).min(*SIDES.end());
        for (field, given, side) in
            [("width", generation.width, own.width), ("height", generation.height, own.height)]
        {
            if (*SIDES.start()..=most).contains(&side) {
                continue;
            }
            let (path, field) = match given {
                Some(_) => ("generation_config.json".to_owned(), field),
                None => (config_of(folder::TRANSFORMER), "sample_size"),
            };
            let unit = if given.is_some() { 1 } else { self.vae.scale() };
            return Err(ConfigError::Field {
                path: shown(source, &path),
                field: field.into(),
                found: (side / unit).to_string(),
                expected: format!(
                    "{} to {}: the table of positions has {} x {} entries of 16 pixels (pos_embed_max_size)",
                    SIDES.start().div_ceil(unit),
                    most / unit,
                    entries,
                    entries
                ),
            });
        }
        Ok(())
    }
}
