//! How streamed weights come to the GPU: a block at a time, in pieces between which the GPU gets work.
//!
//! A queue does one thing after the other, and what is copied to the device goes through few staging buffers. So a host that
//! hands over a whole block at once soon waits for its staging memory, which comes back when the work in front of it is done,
//! and the device then waits for the rest of the block. In pieces, with some of the work in front of each, neither does.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Error;
use crate::sync::{Locked, MaybeSend};

/// Brings weights to the GPU that share their memory with others ([`Store::create_streamed`](super::Store::create_streamed)).
pub trait Feed {
    /// What may go wrong.
    type Error: From<Error>;

    /// Hands the weights of block `block` to the device, so that they are there before whatever is submitted next. Whatever
    /// was submitted before still finds what was in that memory. After every few bytes it asks `pauses` whether to go on.
    fn bring(
        &self,
        block: u32,
        pauses: &Pauses,
    ) -> impl Future<Output = Result<(), Self::Error>> + MaybeSend;

    /// Whether two blocks may be on the GPU together.
    fn fit_together(&self, a: u32, b: u32) -> bool;

    /// How a block is cut: into pieces of at most half of the staging memory.
    fn pieces(&self, block: u32) -> Pieces;
}

/// How a block is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// Their number, at least 1.
    pub count: u64,
    /// Bytes of each.
    pub bytes: u64,
}

/// For programs all of whose weights are on the GPU.
pub(super) struct NothingToFeed;

impl Feed for NothingToFeed {
    type Error = Error;

    async fn bring(&self, block: u32, _: &Pauses) -> Result<(), Error> {
        unreachable!("block {block} is streamed, and nobody brings it")
    }

    fn fit_together(&self, _: u32, _: u32) -> bool {
        false
    }

    fn pieces(&self, _: u32) -> Pieces {
        Pieces { count: 1, bytes: u64::MAX }
    }
}

/// Where a block on its way lets work go first.
pub struct Pauses {
    /// Bytes until the next pause.
    left: Locked<u64>,
}

impl Pauses {
    /// None: the block comes at once.
    pub fn none() -> Self {
        Pauses { left: Locked::new(u64::MAX) }
    }

    /// Notes that `bytes` more were handed over, and waits if a pause is due.
    pub async fn after(&self, bytes: u64) {
        {
            let mut left = self.left.lock();
            *left = left.saturating_sub(bytes);
        }
        let wait = |_: &mut Context<'_>| match self.are_due() {
            true => Poll::Pending,
            false => Poll::Ready(()),
        };
        poll_fn(wait).await;
    }

    fn are_due(&self) -> bool {
        *self.left.lock() == 0
    }

    /// Works on `block` until it has brought `bytes` more. Its outcome, if it has come to its end.
    pub(super) async fn next<T>(
        &self,
        bytes: u64,
        mut block: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        self.left.set(bytes);
        let advance = |context: &mut Context<'_>| match block.as_mut().poll(context) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            // Nobody wakes it: whoever asks for the next piece polls it.
            Poll::Pending if self.are_due() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        };
        poll_fn(advance).await
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_block_comes_in_pieces() {
        let pauses = Pauses::none();
        let brought = Locked::new(0);
        let mut block = pin!(async {
            for _ in 0..5 {
                *brought.lock() += 10;
                pauses.after(10).await;
            }
            "all"
        });
        let mut next = |bytes: u64| {
            let mut context = Context::from_waker(Waker::noop());
            match pin!(pauses.next(bytes, block.as_mut())).poll(&mut context) {
                Poll::Ready(outcome) => (outcome, brought.get()),
                Poll::Pending => panic!("it waits for nothing else"),
            }
        };
        assert_eq!(next(20), (None, 20));
        // What is not whole pieces is a little more.
        assert_eq!(next(15), (None, 40));
        assert_eq!(next(u64::MAX), (Some("all"), 50));
    }
}
