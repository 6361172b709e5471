//! What a device says of its memory.

use ralu::gpu::{AdapterKind, Store, block_on};
use ralu::tensor::ResidentIds;

/// Of Vulkan's drivers, Mesa's software driver counts as those of cards do.
#[test]
fn a_driver_says_what_is_free() {
    let gpu = crate::common::gpu();
    match gpu.driver_free_memory() {
        // More than a page, and less than any machine has.
        Some(free) => assert!((1 << 20..1 << 50).contains(&free), "{free} bytes"),
        None => println!("NOT RUN: {} does not say what is free", gpu.report().name),
    }
    // What a processor's adapter takes is the machine's.
    if gpu.report().kind == AdapterKind::Cpu {
        assert_eq!(gpu.free_memory(), None);
    } else {
        assert_eq!(gpu.free_memory().is_some(), gpu.driver_free_memory().is_some());
    }
}

#[test]
fn what_is_held_is_not_free() {
    let gpu = crate::common::gpu();
    gpu.assume_memory(1 << 20);
    assert_eq!(gpu.free_memory(), Some(1 << 20));
    let store = Store::default();
    let matrix = ResidentIds::default().matrix("matrix", 256, 256, gpu.caps().max_binding_bytes);
    block_on(&gpu, store.create(&gpu, &matrix)).unwrap();
    assert_eq!(gpu.free_memory(), Some((1 << 20) - (256 << 10)));
    store.free(matrix.id);
    assert_eq!(gpu.free_memory(), Some(1 << 20));
}
