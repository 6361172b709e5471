//! Whether products that round to f16 stayed within it.

use super::Run;
use crate::pipeline::prompt::check_finite;
use crate::pipeline::{Error, Pipeline};
use crate::tensor::F16Range;

impl Pipeline {
    /// Fails if any of the flags that were read back is raised.
    pub(in crate::pipeline) fn check_f16_range(
        &self,
        range: &F16Range,
        flags: &[f32],
    ) -> Result<(), Error> {
        let blocks = range.beyond(flags);
        if blocks.is_empty() || self.gpu.faults().f16_flags_unseen.get() {
            return Ok(());
        }
        Err(Error::BeyondF16 { blocks })
    }
}

impl Run<'_> {
    /// Fails if a product has met numbers beyond f16 so far, or else if any number is NaN or infinite: the first can be
    /// mended.
    pub(super) async fn check_finite(&self, what: &str, values: &[f32]) -> Result<(), Error> {
        if let Some(range) = &self.memory()?.shared.f16_range {
            let flags = self.read(range.flags()).await?;
            self.pipeline.check_f16_range(range, &flags)?;
        }
        check_finite(what, values)
    }
}
