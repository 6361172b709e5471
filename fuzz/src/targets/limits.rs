//! Bounded memory: an allocator that counts, and ends a process that takes more than its input may.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::io::Write;

thread_local! {
    /// Bytes that this thread has allocated and not freed.
    static ALIVE: Cell<usize> = const { Cell::new(0) };
    /// What [`ALIVE`] may become.
    static LIMIT: Cell<usize> = const { Cell::new(usize::MAX) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Counts `bytes` more; ends the process where that is beyond the limit.
fn take(bytes: usize) {
    let alive = ALIVE.get().saturating_add(bytes);
    if alive > LIMIT.get() && !std::thread::panicking() {
        // What follows allocates, too.
        let limit = LIMIT.replace(usize::MAX);
        // Not `eprintln!`, which a test's harness keeps until its end: this process will not get there.
        let _ = writeln!(
            std::io::stderr(),
            "fuzz: {bytes} bytes more are {} beyond the limit of memory\n{}",
            alive - limit,
            Backtrace::force_capture()
        );
        std::process::abort();
    }
    ALIVE.set(alive);
}

fn give(bytes: usize) {
    // Allocated by another thread, or before counting began.
    ALIVE.set(ALIVE.get().saturating_sub(bytes));
}

// SAFETY: everything is `System`'s own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        take(size);
        give(layout.size());
        // SAFETY: the caller's.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        give(layout.size());
        // SAFETY: the caller's.
        unsafe { System.dealloc(at, layout) }
    }
}

/// What reading something may have allocated at any time.
#[derive(Clone, Copy)]
pub struct Memory {
    /// Whatever it reads.
    pub bytes: usize,
    /// For each byte of what it reads.
    pub per_byte: usize,
}

/// Runs `work`, which reads `length` bytes, with no more than `memory` allows allocated at any time on this thread
/// beyond what already is; an allocation that is too much ends the process.
pub fn bounded<T>(memory: Memory, length: usize, work: impl FnOnce() -> T) -> T {
    struct Unlimited;
    impl Drop for Unlimited {
        fn drop(&mut self) {
            LIMIT.set(usize::MAX);
        }
    }
    LIMIT.set(ALIVE.get() + memory.bytes + memory.per_byte * length);
    let _unlimited = Unlimited;
    work()
}
