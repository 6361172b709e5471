//! Whether products that round to f16 stayed within it.

use super::Run;
use crate::pipeline::Error;
use crate::pipeline::conditioning::check_finite;

impl Run {
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
