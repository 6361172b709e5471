//! Who polls the device while somebody waits for it.
//!
//! Natively, wgpu's callbacks run only while somebody polls the device. Executors of other crates (pollster, tokio, smol)
//! know nothing of that and sleep until they are woken. So the first future that waits under one of them starts a
//! thread, which polls the device while any future waits and sleeps otherwise. [`super::block_on`] polls by itself and
//! needs no thread. In a browser the event loop calls back and none of this exists.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

use super::{Gpu, Loss};
use crate::sync::Locked;

/// How long one poll may sleep inside the driver. A slice of work takes a fifth of a second, so that its end is noticed
/// soon enough, and the locks that a poll holds are free often enough.
const POLL: Duration = Duration::from_millis(1);
/// Between two polls that found nothing queued: callbacks are on their way.
const PAUSE: Duration = Duration::from_micros(100);

/// A device's poller: nothing until the first future waits for it.
#[derive(Default)]
pub(super) struct Poller {
    shared: Arc<Shared>,
    thread: Locked<Option<JoinHandle<()>>>,
    next: AtomicU64,
    /// The threads on which an executor of ours drives the device now. It polls the device for what waits on its own
    /// thread, and for no longer than that waits: futures on other threads need the poller all the same.
    driven: Locked<Vec<ThreadId>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Futures that wait for the device.
    waiting: BTreeMap<u64, Waker>,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Polls while futures wait; returns when the device's owner is gone.
    fn run(&self, device: &wgpu::Device, lost: &Mutex<Loss>, failed: &Mutex<Option<String>>) {
        loop {
            let mut state = self.lock();
            while state.waiting.is_empty() && !state.closed {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.closed {
                return;
            }
            drop(state);
            let wait = wgpu::PollType::Wait { submission_index: None, timeout: Some(POLL) };
            if !matches!(device.poll(wait), Err(wgpu::PollError::Timeout)) {
                std::thread::sleep(PAUSE);
            }
            // A device that is lost or has failed calls nobody back: those who wait find the error.
            let is_lost = lost.lock().is_ok_and(|lost| lost.reason.is_some());
            if is_lost || failed.lock().is_ok_and(|failed| failed.is_some()) {
                let waiting = std::mem::take(&mut self.lock().waiting);
                waiting.into_values().for_each(Waker::wake);
            }
        }
    }
}

impl Poller {
    /// Says that the caller polls the device itself until the result is dropped.
    pub(super) fn drive(&self) -> Driven<'_> {
        self.driven.lock().push(std::thread::current().id());
        Driven(self)
    }

    fn is_driven_here(&self) -> bool {
        self.driven.lock().contains(&std::thread::current().id())
    }

    fn start(&self, gpu: &Gpu) {
        let mut thread = self.thread.lock();
        if thread.is_some() {
            return;
        }
        let (shared, device) = (self.shared.clone(), gpu.device.clone());
        let (lost, failed) = (gpu.lost.clone(), gpu.uncaptured.clone());
        let run = move || shared.run(&device, &lost, &failed);
        // Where no thread can be had, futures wake themselves: see `Waiter::register`.
        *thread = std::thread::Builder::new().name("ralu-poll".into()).spawn(run).ok();
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take()
            // A waker may drop the last owner of the device on the thread itself.
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

/// The caller's promise to poll the device, on this thread.
pub(super) struct Driven<'a>(&'a Poller);

impl Drop for Driven<'_> {
    fn drop(&mut self) {
        let mut driven = self.0.driven.lock();
        let here = std::thread::current().id();
        if let Some(at) = driven.iter().position(|thread| *thread == here) {
            driven.swap_remove(at);
        }
    }
}

/// A future's place among those that wait for a device.
#[derive(Default)]
pub(super) struct Waiter(Option<(Arc<Shared>, u64)>);

impl Waiter {
    /// Sees to it that the device is polled until this is dropped, and that `waker` is woken if the device fails.
    pub(super) fn register(&mut self, gpu: &Gpu, waker: &Waker) {
        let poller = &gpu.poller;
        if poller.is_driven_here() {
            return;
        }
        poller.start(gpu);
        if poller.thread.lock().is_none() {
            // Without a thread the executor has to come back and poll: busy, but right.
            waker.wake_by_ref();
            return;
        }
        let (shared, id) = self.0.get_or_insert_with(|| {
            (poller.shared.clone(), poller.next.fetch_add(1, Ordering::Relaxed))
        });
        let (is_first, _before) = {
            let mut state = shared.lock();
            (state.waiting.is_empty(), state.waiting.insert(*id, waker.clone()))
        };
        if is_first {
            shared.changed.notify_all();
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some((shared, id)) = &self.0 {
            // Dropping a waker may drop a future that waits, too: not while the lock is held.
            let _waker = shared.lock().waiting.remove(id);
        }
    }
}
