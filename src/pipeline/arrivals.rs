//! When the streamed weights of a step arrive, and how long that makes the step.

use std::collections::HashMap;

use super::Part;
use super::model::Parts;
use super::placement::Placement;
use crate::tensor::{BufferRef, Command, Recording};

/// A streamed block of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Arrival {
    /// Bytes of its weights.
    bytes: u64,
    /// The share of the step's work that comes after its arrival and before the next block is needed.
    work: f64,
}

/// The order of work and arrivals in a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct StepArrivals {
    /// The share of the step's work in front of the first streamed block.
    work_before: f64,
    arrivals: Vec<Arrival>,
    /// Blocks on the GPU together.
    slots: usize,
    /// Bytes that staging memory holds.
    staging_bytes: u64,
}

impl StepArrivals {
    /// Of a step's recording, with the denoiser's blocks placed so.
    pub fn new(recording: &Recording, parts: &Parts, placement: &Placement) -> Self {
        let mut block_of = HashMap::new();
        for (number, block) in placement.blocks_of(Part::Denoiser) {
            let ids = parts.weights_of(block).into_iter().map(|weight| weight.id);
            block_of.extend(ids.map(|id| (id, (number, block.bytes()))));
        }
        let mut step = StepArrivals {
            slots: placement.slots_of(Part::Denoiser),
            staging_bytes: placement.staging_bytes(),
            ..Default::default()
        };
        let mut last = None;
        for command in &recording.commands {
            let Command::Dispatch(dispatch) = command else { continue };
            for binding in &dispatch.bindings {
                if let BufferRef::Resident(id, _) = binding.buffer
                    && let Some((number, bytes)) = block_of.get(&id)
                    && last.replace(*number) != Some(*number)
                {
                    step.arrivals.push(Arrival { bytes: *bytes, work: 0.0 });
                }
            }
            let work =
                step.arrivals.last_mut().map_or(&mut step.work_before, |last| &mut last.work);
            *work += dispatch.flops;
        }
        let all = step.work_before + step.arrivals.iter().map(|arrival| arrival.work).sum::<f64>();
        step.work_before /= all;
        step.arrivals.iter_mut().for_each(|arrival| arrival.work /= all);
        step
    }

    /// Bytes of all that arrives.
    pub fn bytes(&self) -> u64 {
        self.arrivals.iter().map(|arrival| arrival.bytes).sum()
    }

    /// Seconds of a step that computes for `compute_seconds`.
    ///
    /// A block is copied while the work in front of it runs, behind all work before that; the host is ahead of the copies by
    /// what staging memory holds. Where there is one slot, the block waits for all work in front of it.
    pub fn seconds(&self, bytes_per_second: f64, compute_seconds: f64) -> f64 {
        // Ends of arrivals, and of work: all that is submitted, and that which a block waits for.
        let (mut arrived, mut done, mut free) = (0.0_f64, self.work_before * compute_seconds, 0.0);
        for arrival in &self.arrivals {
            let way = arrival.bytes as f64 / bytes_per_second;
            let staged = way.min(self.staging_bytes as f64 / bytes_per_second);
            let waits_for = if self.slots == 1 && arrived > 0.0 { done } else { free };
            arrived = f64::max(arrived + way, waits_for + way - staged);
            free = done;
            done = f64::max(done, arrived) + arrival.work * compute_seconds;
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(slots: usize, staging_bytes: u64) -> StepArrivals {
        let arrivals = vec![Arrival { bytes: 100, work: 0.25 }; 4];
        StepArrivals { work_before: 0.0, arrivals, slots, staging_bytes }
    }

    #[test]
    fn the_shorter_is_hidden_but_for_a_block() {
        let step = step(2, 0);
        assert_eq!(step.bytes(), 400);
        // 1 s for each block: the first arrives, or the last works, while nothing else happens.
        assert_eq!(step.seconds(100.0, 2.0), 4.5);
        assert_eq!(step.seconds(100.0, 4.0), 5.0);
        assert_eq!(step.seconds(100.0, 8.0), 9.0);
        assert_eq!(step.seconds(f64::INFINITY, 8.0), 8.0);
    }

    #[test]
    fn one_slot_hides_what_staging_memory_holds() {
        assert_eq!(step(1, 0).seconds(100.0, 8.0), 12.0);
        assert_eq!(step(1, 50).seconds(100.0, 8.0), 10.5);
    }
}
