//! Doing something useful while the GPU works.

use std::pin::pin;
use std::task::Poll;

/// Awaits `main`; whenever it has to wait, does a piece of `other`, which says whether there is more to do. An error of
/// `other` ends both.
pub(super) async fn meanwhile<T, E>(
    main: impl Future<Output = T>,
    mut other: impl AsyncFnMut() -> Result<bool, E>,
) -> Result<T, E> {
    let mut main = pin!(main);
    let mut more = true;
    while more {
        let poll = std::future::poll_fn(|context| Poll::Ready(main.as_mut().poll(context))).await;
        if let Poll::Ready(value) = poll {
            return Ok(value);
        }
        more = other().await?;
    }
    Ok(main.await)
}
