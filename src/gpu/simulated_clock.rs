//! A clock that counts instead of waiting: what a host and a device of given speeds would take, the same on every machine.

use crate::sync::Locked;

/// Seconds of a host that reads at a given rate and of a device that computes at another, while both work in turn on a machine
/// of whatever speed. Tests set it as [`Faults::clock`](super::Faults::clock).
#[derive(Debug)]
pub struct SimulatedClock {
    flops_per_second: f64,
    times: Locked<Times>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Times {
    /// Where the host is.
    host: f64,
    /// When the device will have done all that was handed to it.
    device: f64,
}

impl SimulatedClock {
    /// Begins at 0, with a device of that speed.
    pub fn new(flops_per_second: f64) -> Self {
        SimulatedClock { flops_per_second, times: Locked::default() }
    }

    /// Seconds at which the host is.
    pub fn host(&self) -> f64 {
        self.times.get().host
    }

    /// The host is busy for some seconds.
    pub fn spend(&self, seconds: f64) {
        self.times.lock().host += seconds;
    }

    /// The device is handed some work, which it does after all that it has. Gives the time of its end.
    pub(super) fn submit(&self, flops: f64) -> f64 {
        let mut times = self.times.lock();
        times.device = times.device.max(times.host) + flops / self.flops_per_second;
        times.device
    }

    /// Whether that time has passed for the host.
    pub(super) fn has_passed(&self, time: f64) -> bool {
        time <= self.times.get().host
    }

    /// The host waits until that time.
    pub(super) fn wait(&self, time: f64) {
        let mut times = self.times.lock();
        times.host = times.host.max(time);
    }
}
