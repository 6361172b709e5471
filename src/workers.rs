//! Threads that a host program lends.

use crate::sync::{MaybeSend, MaybeSync};

/// Threads that help with work on the processor, such as packing weights. The library starts none for that: a host with threads
/// to spare gives them to [`Pipeline::set_workers`](crate::Pipeline::set_workers).
pub trait Workers: MaybeSend + MaybeSync {
    /// How many tasks run at a time, at least 1.
    fn count(&self) -> usize;

    /// Runs `task` with each of the numbers `0..n`, in any order and on any threads, and returns when all have ended.
    fn run(&self, n: usize, task: &dyn Task);
}

/// What workers do: a closure that takes the number of the task.
pub trait Task: MaybeSync {
    /// Does task number `i`.
    fn run(&self, i: usize);
}

impl<F: Fn(usize) + MaybeSync> Task for F {
    fn run(&self, i: usize) {
        self(i);
    }
}

/// No threads but that of the caller.
pub(crate) struct NoWorkers;

impl Workers for NoWorkers {
    fn count(&self) -> usize {
        1
    }

    fn run(&self, n: usize, task: &dyn Task) {
        (0..n).for_each(|i| task.run(i));
    }
}
