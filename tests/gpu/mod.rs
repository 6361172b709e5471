//! Kernels without a GPU: translated, and compared with what ops bind. And what a device says of its memory.

mod machine_code;
mod memory;
mod shaders;
