//! Waiting for the GPU without blocking.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use super::Gpu;
#[cfg(not(target_arch = "wasm32"))]
use super::poller::Waiter;

/// Set once from a wgpu callback, awaited from any number of futures.
#[derive(Clone, Default)]
pub(super) struct Signal(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    set: bool,
    wakers: Vec<Waker>,
}

impl Signal {
    pub(super) fn set(&self) {
        let wakers = self.0.lock().map(|mut state| {
            state.set = true;
            std::mem::take(&mut state.wakers)
        });
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    pub(super) fn is_set(&self) -> bool {
        // After a panic in a callback there is nothing to wait for.
        self.0.lock().map_or(true, |state| state.set)
    }

    /// A future that ends when the signal is set, or when the device is lost or has failed: then no callback comes, and
    /// the caller finds the error. It works under any executor, see [`super::poller`].
    pub(super) fn wait<'a>(&self, gpu: &'a Gpu) -> impl Future<Output = ()> + 'a {
        Wait {
            signal: self.clone(),
            gpu,
            #[cfg(not(target_arch = "wasm32"))]
            waiter: Waiter::default(),
        }
    }
}

struct Wait<'a> {
    signal: Signal,
    gpu: &'a Gpu,
    /// Registered with the device's poller while this pends.
    #[cfg(not(target_arch = "wasm32"))]
    waiter: Waiter,
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        // Natively, callbacks run inside `poll`; in a browser the event loop calls them.
        let _ = this.gpu.device.poll(wgpu::PollType::Poll);
        if this.gpu.check().is_err() {
            return Poll::Ready(());
        }
        match this.signal.0.lock() {
            Ok(state) if state.set => return Poll::Ready(()),
            Ok(mut state) => {
                let waker = context.waker();
                if !state.wakers.iter().any(|known| known.will_wake(waker)) {
                    state.wakers.push(waker.clone());
                }
            }
            // A panic in a callback: the caller finds the device's error.
            Err(_) => return Poll::Ready(()),
        }
        #[cfg(not(target_arch = "wasm32"))]
        this.waiter.register(this.gpu, context.waker());
        Poll::Pending
    }
}
