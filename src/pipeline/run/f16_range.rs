//! Whether products that round to f16 stayed within it.

use super::Run;
use crate::pipeline::conditioning::check_finite;
use crate::pipeline::{Error, Products};

impl Run {
    /// What the products of its programs round to.
    pub(super) fn products(&self) -> Products {
        match &self.memory().shared.f16_range {
            _ if self.programs().in_int8 => Products::Int8,
            Some(range) if range.is_used() => Products::F16,
            _ => Products::F32,
        }
    }

    /// Fails if a product has met numbers beyond f16 so far, or else if any number is NaN or infinite: the first can be
    /// mended.
    pub(super) async fn check_finite(&self, what: &str, values: &[f32]) -> Result<(), Error> {
        if let Some(range) = &self.memory().shared.f16_range {
            let flags = self.read(range.flags()).await?;
            self.context.device.check_f16_range(range, &flags)?;
        }
        check_finite(what, values)
    }
}
