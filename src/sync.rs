//! What threads share: bounds that hold natively, and a cell with a lock.
//!
//! Natively, whatever a pipeline and its runs hold can be moved to and used from other threads. In a browser, wgpu's
//! objects and JavaScript's stay on one thread, so there the bounds ask for nothing.

use std::fmt;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// [`Send`] natively; every type in a browser.
#[cfg(not(target_arch = "wasm32"))]
pub trait MaybeSend: Send {}
#[cfg(not(target_arch = "wasm32"))]
impl<T: Send + ?Sized> MaybeSend for T {}

/// [`Send`] natively; every type in a browser.
#[cfg(target_arch = "wasm32")]
pub trait MaybeSend {}
#[cfg(target_arch = "wasm32")]
impl<T: ?Sized> MaybeSend for T {}

/// [`Sync`] natively; every type in a browser.
#[cfg(not(target_arch = "wasm32"))]
pub trait MaybeSync: Sync {}
#[cfg(not(target_arch = "wasm32"))]
impl<T: Sync + ?Sized> MaybeSync for T {}

/// [`Sync`] natively; every type in a browser.
#[cfg(target_arch = "wasm32")]
pub trait MaybeSync {}
#[cfg(target_arch = "wasm32")]
impl<T: ?Sized> MaybeSync for T {}

/// A future in a box: [`Send`] natively; in a browser it stays on its thread.
#[cfg(not(target_arch = "wasm32"))]
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A future in a box: [`Send`] natively; in a browser it stays on its thread.
#[cfg(target_arch = "wasm32")]
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A value that threads read and change in turn. Never locked while something is awaited, so the wait for it is short.
#[derive(Default)]
pub struct Locked<T>(Mutex<T>);

impl<T> Locked<T> {
    /// A cell with `value` in it.
    pub fn new(value: T) -> Self {
        Locked(Mutex::new(value))
    }

    /// The value, for the caller alone until the result is dropped.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        // A thread that panicked leaves a whole value: each is changed in one go.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the value.
    pub fn get(&self) -> T
    where
        T: Copy,
    {
        *self.lock()
    }

    /// Puts `value` in the place of the one before, which is dropped after the lock is let go.
    pub fn set(&self, value: T) {
        drop(self.replace(value));
    }

    /// Puts `value` in the place of the one before, and gives that.
    pub fn replace(&self, value: T) -> T {
        std::mem::replace(&mut self.lock(), value)
    }

    /// The value, of a cell that nobody else has.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the value, and leaves the default.
    pub fn take(&self) -> T
    where
        T: Default,
    {
        self.replace(T::default())
    }
}

impl<T: fmt::Debug> fmt::Debug for Locked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
