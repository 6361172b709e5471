//! Which weights a run streams: decided once, before any of them is loaded.

use super::Run;
use crate::gpu::{self, human_bytes};
use crate::pipeline::context::RunContext;
use crate::pipeline::memory_budget::{Limit, usable_memory};
use crate::pipeline::programs::Models;
use crate::pipeline::recorded::{Asked, Recorded, differ};
use crate::pipeline::residency::Working;
use crate::pipeline::{Error, Event, MemoryBudget, Part};
use crate::tensor::ResidentIds;

impl Run {
    /// Decides which weights are streamed, where memory is limited: by a budget, or by what the adapter has free.
    pub(super) fn place(&mut self) -> Result<(), Error> {
        let residency = &self.context.residency;
        self.working.get_or_insert_with(|| Working::new(residency));
        let before = residency.limit();
        match before {
            Some(Limit { bytes, is_told: false }) => {
                let placement = self.recorded(MemoryBudget::Bytes(bytes));
                let placement = placement.map_err(|error| self.not_asked_for(error))?.placement;
                self.context.set_placement(placement);
                Ok(())
            }
            _ => self.place_in_free_memory(before),
        }
    }

    /// Keeps within what the adapter has free, if it tells that and the run needs more. `before` is what earlier runs kept
    /// within.
    fn place_in_free_memory(&mut self, before: Option<Limit>) -> Result<(), Error> {
        let RunContext { model, device, residency, .. } = &*self.context;
        let gpu = &device.gpu;
        let free = gpu.free_memory().filter(|_| model.options.memory_budget == MemoryBudget::Auto);
        let Some(free) = free else { return Ok(()) };
        // What is there already is the run's.
        let most = free + gpu.held_memory();
        let usable = usable_memory(most);
        let whole = self.recorded(MemoryBudget::Off)?;
        let need = whole.peak_with_staging();
        // Drivers also count what lies between our buffers: what fits and is there still does.
        let is_there = before.is_none() && residency.is_loaded(Part::Denoiser);
        let margin = if is_there { need / 16 } else { 0 };
        if need - margin <= usable {
            if before.is_some() {
                residency.set_limit(None);
                self.context.set_placement(whole.placement);
            }
            return Ok(());
        }
        let limit = before.map_or(Limit::told(usable), |limit| limit.renewed(usable));
        let (limit, placement) = match self.recorded(MemoryBudget::Bytes(limit.bytes)) {
            Ok(recorded) => (limit, recorded.placement),
            // Others get less than they should.
            Err(Error::MemoryBudget { least, .. }) if least <= most => {
                (Limit::told(least), self.recorded(MemoryBudget::Bytes(least))?.placement)
            }
            Err(Error::MemoryBudget { least, .. }) => {
                return Err(Error::TooLittleMemory { least, free: most });
            }
            Err(error) => return Err(error),
        };
        if before != Some(limit) && placement.streams() {
            self.events.push_back(Event::Warning(format!(
                "this run would take {} of GPU memory, and {} are free: it keeps within {}, so some weights come and go while \
                 it draws",
                human_bytes(need),
                human_bytes(most),
                human_bytes(limit.bytes)
            )));
        }
        residency.set_limit(Some(limit));
        self.context.set_placement(placement);
        Ok(())
    }

    /// What the run would do within a budget.
    fn recorded(&self, memory_budget: MemoryBudget) -> Result<Recorded, Error> {
        let RunContext { model, device, .. } = &*self.context;
        let options = model.options.with(|options| options.memory_budget = memory_budget);
        let (parts, caps) = (&model.parts, device.gpu.caps());
        let models = Models {
            config: model.config(),
            denoiser: &*parts.denoiser.model,
            vae: &parts.vae.model,
        };
        // Names for what is only planned.
        let ids = ResidentIds::starting_at(model.first_free_id);
        let (settings, schedule) = (&self.settings, &self.schedule);
        let asked = Asked {
            stage_pictures: self.stage_pictures,
            has_stage_modulations: differ(&self.change_weights, schedule.stages.len()),
        };
        Recorded::of_parts(parts, models, &ids, settings, schedule, caps, options, asked)
    }

    /// The error of a budget that nobody asked for: memory is full.
    fn not_asked_for(&self, error: Error) -> Error {
        match (error, &self.full_at) {
            (Error::MemoryBudget { .. }, Some([what, allocated])) => {
                let (what, allocated) = (what.clone(), allocated.clone());
                Error::Gpu(gpu::Error::OutOfMemory { what, allocated })
            }
            (error, _) => error,
        }
    }
}
