//! A device, and the memory that a pipeline has on it.

use std::sync::Arc;

use super::Error;
use crate::gpu::{Gpu, SlotPool, Store};
use crate::sync::Locked;
use crate::tensor::{F16Range, Resident, ResidentId, ResidentIds};
use crate::workers::{NoWorkers, Workers};

/// A GPU with the buffers of one model and its runs.
pub(super) struct Device {
    pub gpu: Gpu,
    /// Names for the memory of runs; the model's weights have theirs.
    pub ids: ResidentIds,
    /// Weights, and what outlives the steps of a run.
    pub store: Arc<Store>,
    /// Temporaries, which the programs of all runs share.
    pub pool: SlotPool,
    /// Threads that the host lends.
    pub workers: Locked<Arc<dyn Workers>>,
}

impl Device {
    /// Nothing is on it. Ids from `first_free_id` on are free.
    pub fn new(gpu: Gpu, first_free_id: ResidentId) -> Self {
        let ids = ResidentIds::starting_at(first_free_id);
        let workers = Locked::new(Arc::new(NoWorkers) as _);
        Device { gpu, ids, store: Arc::default(), pool: SlotPool::default(), workers }
    }

    /// Frees `residents` when what it gives is dropped: also where an error or a dropped future is the end.
    pub fn free_when_dropped<'r>(
        &self,
        residents: impl IntoIterator<Item = &'r Resident>,
    ) -> FreeWhenDropped {
        let ids = residents.into_iter().map(|resident| resident.id).collect();
        FreeWhenDropped { store: self.store.clone(), ids }
    }

    /// Writes a whole matrix, row-major.
    pub async fn write(&self, resident: &Resident, values: &[f32]) -> Result<(), Error> {
        Ok(self.store.write(&self.gpu, resident, values).await?)
    }

    /// Reads a whole matrix back, row-major.
    pub async fn read(&self, resident: &Resident) -> Result<Vec<f32>, Error> {
        Ok(self.store.read(&self.gpu, resident).await?)
    }

    /// Fails if any of the flags that were read back says that a product met numbers beyond f16.
    pub fn check_f16_range(&self, range: &F16Range, flags: &[f32]) -> Result<(), Error> {
        let blocks = range.beyond(flags);
        if blocks.is_empty() || self.gpu.faults().f16_flags_unseen.get() {
            return Ok(());
        }
        Err(Error::BeyondF16 { blocks })
    }
}

/// Memory that is freed when this is dropped, unless it is kept.
pub(super) struct FreeWhenDropped {
    store: Arc<Store>,
    ids: Vec<ResidentId>,
}

impl FreeWhenDropped {
    /// Nothing is freed: what the memory was made for is complete.
    pub fn keep(mut self) {
        self.ids.clear();
    }
}

impl Drop for FreeWhenDropped {
    fn drop(&mut self) {
        self.ids.iter().for_each(|id| self.store.free(*id));
    }
}
