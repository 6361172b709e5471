//! Which kernel runs: the one place that decides.
//!
//! A choice is valid if the kernel can do the job on the adapter at all, and good if it is fast there. What the user's
//! own adapter was measured to do best ([`Tuning`]) goes before what is written here; without either, results
//! are the same up to rounding.

use super::attention::attention_tile;
use crate::tensor::{
    AttentionKernel, Caps, Conv2dKernel, MAX_WORKGROUPS, MatmulKernel, RowClass, Storage,
};

/// The kernel of a product of `rows` rows with a weight stored as `storage`.
pub fn matmul(caps: &Caps, rows: usize, storage: Storage) -> MatmulKernel {
    let class = RowClass::of(rows);
    let valid = |kernel: &MatmulKernel| can_matmul(caps, *kernel, rows, storage);
    if let Some(kernel) = caps.tuning.matmul[class as usize].filter(valid) {
        return kernel;
    }
    let preferred: &[MatmulKernel] = match class {
        RowClass::Few => &[MatmulKernel::Row],
        // A block of 32 rows would be mostly padding.
        RowClass::Some if rows <= 16 => &[],
        _ if caps.is_cpu => &[MatmulKernel::Panel],
        _ => &[],
    };
    preferred.iter().copied().find(|kernel| valid(kernel)).unwrap_or(MatmulKernel::Direct)
}

/// Whether a kernel can do such a product on this adapter.
pub fn can_matmul(caps: &Caps, kernel: MatmulKernel, rows: usize, storage: Storage) -> bool {
    match kernel {
        // One workgroup a row, in the second dimension.
        MatmulKernel::Row => rows <= MAX_WORKGROUPS as usize,
        MatmulKernel::Direct | MatmulKernel::Panel => true,
        MatmulKernel::Tiled => false,
        MatmulKernel::Subgroup => false,
        MatmulKernel::Cooperative => caps.cooperative_matrix && storage == Storage::F16 && false,
    }
}

/// The kernel of attention with heads of `d` numbers.
pub fn attention(caps: &Caps, d: usize) -> AttentionKernel {
    let valid = |kernel: &AttentionKernel| can_attend(caps, *kernel, d);
    let tuned = caps.tuning.attention.filter(valid);
    tuned.or(Some(AttentionKernel::Tiled).filter(valid)).unwrap_or(AttentionKernel::Rows)
}

/// Whether a kernel can do heads of `d` numbers on this adapter.
pub fn can_attend(caps: &Caps, kernel: AttentionKernel, d: usize) -> bool {
    match kernel {
        AttentionKernel::Rows => true,
        AttentionKernel::Tiled => attention_tile(caps, d).is_some(),
    }
}

/// The kernel of a convolution whose weight has tiles of `4 * lanes` channels.
pub fn conv2d(caps: &Caps, lanes: usize) -> Conv2dKernel {
    let valid = |kernel: &Conv2dKernel| can_convolve(*kernel, lanes);
    let tuned = caps.tuning.conv2d.filter(valid);
    tuned.or(Some(Conv2dKernel::Tiled).filter(valid)).unwrap_or(Conv2dKernel::Direct)
}

/// Whether a kernel can do, with a use for its lanes, a weight with tiles of `4 * lanes` channels.
pub fn can_convolve(kernel: Conv2dKernel, lanes: usize) -> bool {
    match kernel {
        Conv2dKernel::Direct => true,
        // The three channels of a picture would leave most lanes idle.
        Conv2dKernel::Tiled => lanes >= 8,
    }
}
