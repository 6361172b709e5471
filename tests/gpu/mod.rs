//! Kernels without a GPU: translated, and compared with what ops bind.

mod machine_code;
mod shaders;
