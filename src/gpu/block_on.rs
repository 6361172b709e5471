//! An executor for native programs without one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread::Thread;
use std::time::Duration;

use super::Gpu;

/// How long to sleep where nothing is queued and the future waits all the same: for another thread, which wakes it.
const NAP: Duration = Duration::from_millis(1);

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
    let woken = Arc::new(Woken { set: AtomicBool::new(false), thread: std::thread::current() });
    let waker = Waker::from(woken.clone());
    let mut context = Context::from_waker(&waker);
    let _driven = gpu.poller.drive();
    while keep_going() {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return Some(value);
        }
        // A future that was woken meanwhile can go on at once.
        if woken.take() {
            continue;
        }
        // Not for everything that is queued: the GPU would run dry while the host is still asleep.
        let submission_index = gpu.oldest_pending();
        let wait = wgpu::PollType::Wait { submission_index, timeout: None };
        match gpu.device.poll(wait) {
            Err(_) => std::thread::yield_now(),
            Ok(wgpu::PollStatus::QueueEmpty) if !woken.is_set() => std::thread::park_timeout(NAP),
            Ok(_) => {}
        }
    }
    None
}

/// Remembers that the waker was called, and ends the sleep of the thread that drives the future.
struct Woken {
    set: AtomicBool,
    thread: Thread,
}

impl Woken {
    fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    fn take(&self) -> bool {
        self.set.swap(false, Ordering::AcqRel)
    }
}

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.set.store(true, Ordering::Release);
        self.thread.unpark();
    }
}
