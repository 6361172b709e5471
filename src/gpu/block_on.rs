//! An executor for native programs without one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use super::Gpu;

/// Drives a future to its end on this thread, sleeping inside the driver while the GPU works.
///
/// The library's futures work under any executor; this one needs no thread to poll the device. The library itself never
/// calls it.
pub fn block_on<T>(gpu: &Gpu, future: impl Future<Output = T>) -> T {
    match block_on_while(gpu, future, || true) {
        Some(value) => value,
        None => unreachable!("nothing cancels it"),
    }
}

/// Like [`block_on`], but gives up and drops the future as soon as `keep_going` returns false. It is asked after every
/// slice of GPU work: about once a second on a slow device, however long a step takes.
pub fn block_on_while<T>(
    gpu: &Gpu,
    future: impl Future<Output = T>,
    mut keep_going: impl FnMut() -> bool,
) -> Option<T> {
    let mut future = std::pin::pin!(future);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut context = Context::from_waker(&waker);
    let _driven = gpu.poller.drive();
    while keep_going() {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return Some(value);
        }
        // A future that was woken meanwhile can go on at once.
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

/// Remembers that the waker was called.
#[derive(Default)]
struct Woken(AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}
