//! Turns for others who need this thread: in a browser the event loop, which draws the page and hears clicks.
//!
//! [`yield_now`] is the one way in which the library lets go of its thread. Work that is long on the host asks [`Turns`] in
//! between, which gives one when it is due.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Lets everything that waits for this thread go first.
///
/// Natively that is the executor: some drivers block in `submit` instead of queueing, and then no wait ever pends. In a
/// browser it is the event loop, which is not reached by waking: what is woken runs before the current task ends. So a
/// message is sent to ourselves. (A timer would wait 4 ms at least, and a second in a tab that is not looked at.)
pub(crate) async fn yield_now() {
    #[cfg(not(target_arch = "wasm32"))]
    {
        let mut had_it = false;
        std::future::poll_fn(move |context| {
            if std::mem::replace(&mut had_it, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
    #[cfg(target_arch = "wasm32")]
    {
        // Only a page that is being closed refuses; then there is nobody to give a turn to.
        let Ok(channel) = web_sys::MessageChannel::new() else { return };
        let (to, from) = (channel.port1(), channel.port2());
        let arrival = js_sys::Promise::new(&mut |resolve, _| {
            from.set_onmessage(Some(&resolve));
            let _ = to.post_message(&wasm_bindgen::JsValue::NULL);
        });
        let _ = wasm_bindgen_futures::JsFuture::from(arrival).await;
        from.close();
    }
}

/// How long work on the host may go on. The bar is 50 ms, beyond which people feel a page stutter; what lies between two
/// questions comes on top, and takes several times as long on a phone as where it was measured.
#[cfg(target_arch = "wasm32")]
const DUE: std::time::Duration = std::time::Duration::from_millis(8);

/// Gives turns in the course of long work on the host, when they are due.
///
/// Natively they never are: there a thread of its own is the host program's to give.
pub(crate) struct Turns {
    /// When the last one ended; `None` where none can be given.
    #[cfg(target_arch = "wasm32")]
    last: std::cell::Cell<Option<web_time::Instant>>,
}

impl Turns {
    /// The first is due a while from now.
    pub fn new() -> Self {
        Turns {
            #[cfg(target_arch = "wasm32")]
            last: std::cell::Cell::new(Some(web_time::Instant::now())),
        }
    }

    /// Never gives one, for callers who cannot wait: see [`complete_at_once`].
    pub fn none() -> Self {
        Turns {
            #[cfg(target_arch = "wasm32")]
            last: std::cell::Cell::new(None),
        }
    }

    /// Gives a turn if it is time. To be asked every few milliseconds of work.
    pub async fn yield_if_due(&self) {
        #[cfg(target_arch = "wasm32")]
        if self.last.get().is_some_and(|last| last.elapsed() >= DUE) {
            yield_now().await;
            self.last.set(Some(web_time::Instant::now()));
        }
    }
}

/// What a future gives that waits for nothing but turns, and was given [`Turns::none`].
#[track_caller]
pub(crate) fn complete_at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("it waits for something"),
    }
}
