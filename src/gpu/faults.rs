//! Faults to order: tests ask for them to see what is done about them. Nothing else does.

use std::sync::Arc;

use super::SimulatedClock;
use crate::sync::Locked;

/// What goes wrong on a device from now on. By default nothing.
#[derive(Default)]
pub struct Faults {
    /// Kernels, by the stem of their file, that do not compile.
    pub broken_kernels: Locked<Vec<&'static str>>,
    /// Kernels that compute something else: the stem of their file, what stands there, and what stands in its place.
    pub altered_kernels: Locked<Vec<[&'static str; 3]>>,
    /// Allocations that still succeed.
    pub allocations_left: Locked<Option<u64>>,
    /// Bytes that the device has: what would go beyond them fails.
    pub memory_bytes: Locked<Option<u64>>,
    /// Whether only one allocation fails then, rather than all that follow.
    pub fails_once: Locked<bool>,
    /// What was allocated since this was set to an empty list.
    pub allocated: Locked<Option<Vec<String>>>,
    /// Whether nobody looks at the flags of numbers beyond f16.
    pub f16_flags_unseen: Locked<bool>,
    /// Estimated FLOPs per second that submissions seem to run at, whatever a clock says: what follows from it is then the
    /// same on any machine, however busy.
    pub flops_per_second: Locked<Option<f64>>,
    /// What says when submissions end and how long the host waits for them, whatever a clock says. Set with the device's speed
    /// in [`Faults::flops_per_second`], which submissions are cut by.
    pub clock: Locked<Option<Arc<SimulatedClock>>>,
}

/// No kernel in any language.
const BROKEN: &str = "this does not compile";

impl Faults {
    /// The text of a kernel, or another one, or one that does not compile.
    pub(super) fn kernel(&self, shader: &str, mut text: String) -> String {
        if self.broken_kernels.lock().contains(&shader) {
            return BROKEN.to_owned();
        }
        for [kernel, from, to] in self.altered_kernels.lock().iter() {
            if *kernel == shader {
                text = text.replace(from, to);
            }
        }
        text
    }

    /// Notes a submission of so many FLOPs. Gives the time of its end, where time is simulated.
    pub(super) fn submit(&self, flops: f64) -> Option<f64> {
        self.clock.lock().as_ref().map(|clock| clock.submit(flops))
    }

    /// Whether the host is past a simulated time; `None` where time is none.
    pub(super) fn has_passed(&self, time: Option<f64>) -> Option<bool> {
        Some(self.clock.lock().as_ref()?.has_passed(time?))
    }

    /// Notes that the host has waited until a simulated time.
    pub(super) fn wait(&self, time: Option<f64>) {
        if let (Some(clock), Some(time)) = (&*self.clock.lock(), time) {
            clock.wait(time);
        }
    }

    /// Whether an allocation fails.
    pub(super) fn fails(&self, what: &str) -> bool {
        if let Some(allocated) = &mut *self.allocated.lock() {
            allocated.push(what.to_owned());
        }
        match self.allocations_left.get() {
            None => false,
            Some(0) => {
                if self.fails_once.get() {
                    self.allocations_left.set(None);
                }
                true
            }
            Some(left) => {
                self.allocations_left.set(Some(left - 1));
                false
            }
        }
    }
}
