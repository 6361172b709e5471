//! Waiting for the GPU without blocking.

use std::pin::Pin;
#[cfg(not(target_arch = "wasm32"))]
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use super::Gpu;

/// Set once from a wgpu callback, awaited from a future.
#[derive(Clone, Default)]
pub(super) struct Signal(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    set: bool,
    waker: Option<Waker>,
}

impl Signal {
    pub(super) fn set(&self) {
        let waker = self.0.lock().ok().and_then(|mut state| {
            state.set = true;
            state.waker.take()
        });
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn is_set(&self) -> bool {
        // After a panic in a callback there is nothing to wait for.
        self.0.lock().map_or(true, |state| state.set)
    }

    pub(super) fn wait<'a>(&self, gpu: &'a Gpu) -> impl Future<Output = ()> + 'a {
        Wait { signal: self.clone(), gpu }
    }
}

struct Wait<'a> {
    signal: Signal,
    gpu: &'a Gpu,
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // Natively, callbacks run inside `poll`; in a browser the event loop calls them.
        let _ = self.gpu.device.poll(wgpu::PollType::Poll);
        if self.gpu.check().is_err() {
            // A lost device calls nobody back: whoever awaits finds the error.
            return Poll::Ready(());
        }
        match self.signal.0.lock() {
            Ok(state) if state.set => Poll::Ready(()),
            Ok(mut state) => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
            // A panic in a callback: whoever awaits finds the device's error.
            Err(_) => Poll::Ready(()),
        }
    }
}

/// Drives a future to its end on this thread, sleeping inside the driver while the GPU works.
///
/// For native programs without an async runtime. The library itself never calls it.
#[cfg(not(target_arch = "wasm32"))]
pub fn block_on<T>(gpu: &Gpu, future: impl Future<Output = T>) -> T {
    match block_on_while(gpu, future, || true) {
        Some(value) => value,
        None => unreachable!("nothing cancels it"),
    }
}

/// Like [`block_on`], but gives up and drops the future as soon as `keep_going` says no. It is asked after every
/// slice of GPU work: about once a second on a slow device, however long a step takes.
#[cfg(not(target_arch = "wasm32"))]
pub fn block_on_while<T>(
    gpu: &Gpu,
    future: impl Future<Output = T>,
    mut keep_going: impl FnMut() -> bool,
) -> Option<T> {
    let mut future = std::pin::pin!(future);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut context = Context::from_waker(&waker);
    while keep_going() {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return Some(value);
        }
        // Whoever was woken meanwhile can go on at once.
        if woken.0.swap(false, Ordering::AcqRel) {
            continue;
        }
        // Not for everything that is queued: the GPU would run dry while the host is still asleep.
        let submission_index = gpu.oldest_pending();
        let wait = wgpu::PollType::Wait { submission_index, timeout: None };
        if gpu.device.poll(wait).is_err() {
            std::thread::yield_now();
        }
    }
    None
}

/// Remembers that somebody called the waker.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Default)]
struct Woken(AtomicBool);

#[cfg(not(target_arch = "wasm32"))]
impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}
