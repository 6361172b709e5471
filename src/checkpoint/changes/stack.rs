//! All low-rank changes of a layer as one pair of matrices: downs one below the other, ups side by side.

use std::sync::Arc;

use super::{LowRank, Matrix};

/// Kernels work on four numbers at a time.
const STEP: usize = 4;

/// Outputs of a layer, with what is added to them.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Number of outputs.
    pub n: usize,
    /// Which row of the checkpoint each output is; `None` is in order.
    pub order: Option<Arc<[usize]>>,
    /// What is added.
    pub changes: Vec<LowRank>,
}

/// The low-rank changes of layers of one input, whose outputs lie one after the other: `y += ((x downᵀ) * scales) upᵀ` with
/// `down` `[rank, k]`, `scales` `[rank]` and `up` `[n, rank]`.
#[derive(Clone, Debug)]
pub struct Stack {
    layers: Vec<Layer>,
    downs: Vec<Down>,
    rank: usize,
    k: usize,
}

/// A down, and where it is in the stack.
#[derive(Clone, Debug)]
struct Down {
    first: usize,
    matrix: Arc<Matrix>,
    scale: f64,
    file: usize,
}

impl Stack {
    /// Stacks what is added to layers of `k` inputs; `None` if that is nothing. A down that several layers share is there
    /// once.
    pub fn new(layers: Vec<Layer>, k: usize) -> Option<Stack> {
        let mut stack = Stack { layers: vec![], downs: vec![], rank: 0, k };
        for layer in &layers {
            // Each layer begins with four numbers of its own.
            stack.rank = stack.rank.next_multiple_of(STEP);
            layer.changes.iter().for_each(|change| stack.add(change));
        }
        stack.rank = stack.rank.next_multiple_of(STEP);
        stack.layers = layers;
        (!stack.downs.is_empty()).then_some(stack)
    }

    /// Adds a change's down, if it is not there.
    fn add(&mut self, change: &LowRank) {
        if self.place(change).is_none() {
            let LowRank { down, scale, file, .. } = change;
            let (first, matrix, scale, file) = (self.rank, down.clone(), *scale, *file);
            self.downs.push(Down { first, matrix, scale, file });
            self.rank += down.rows;
        }
    }

    /// Up to which row of `up` and which of `down` each layer goes, in multiples of 4, if each has rows of `down` of its own,
    /// which its rows of `up` alone need: else none.
    pub fn parts(&self) -> Vec<[usize; 2]> {
        let (mut parts, mut n, mut rank) = (vec![], 0, 0);
        for layer in &self.layers {
            n += layer.n;
            for change in &layer.changes {
                let Some(first) = self.place(change) else { return vec![] };
                let before = parts.last().map_or(0, |[_, rank]: &[usize; 2]| *rank);
                if first < before {
                    return vec![];
                }
                rank = rank.max((first + change.down.rows).next_multiple_of(STEP));
            }
            parts.push([n, rank]);
        }
        let is_whole = parts.iter().all(|[n, _]| n.is_multiple_of(STEP));
        if is_whole { parts } else { vec![] }
    }

    /// The first row of a change's down.
    fn place(&self, change: &LowRank) -> Option<usize> {
        let same =
            |down: &&Down| Arc::ptr_eq(&down.matrix, &change.down) && down.scale == change.scale;
        self.downs.iter().find(same).map(|down| down.first)
    }

    /// Rows of `down`, a multiple of 4.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Rows of `up`.
    pub fn n(&self) -> usize {
        self.layers.iter().map(|layer| layer.n).sum()
    }

    /// Columns of `down`.
    pub fn k(&self) -> usize {
        self.k
    }

    /// What `x downᵀ` is multiplied by, `[rank]`, with a weight for each file. A file without one has no effect.
    pub fn scales(&self, weights: &[f64]) -> Vec<f32> {
        let mut scales = vec![0.0; self.rank];
        for Down { first, matrix, scale, file } in &self.downs {
            let weight = weights.get(*file).copied().unwrap_or(0.0);
            scales[*first..first + matrix.rows].fill((scale * weight) as f32);
        }
        scales
    }

    /// Row `i` of `down`, `[k]`: zeros from the last change on.
    pub fn down_row(&self, i: usize, row: &mut [f32]) {
        row.fill(0.0);
        let last = self.downs.iter().rfind(|down| down.first <= i);
        if let Some(Down { first, matrix, .. }) = last
            && i - first < matrix.rows
        {
            row[..matrix.cols].copy_from_slice(matrix.row(i - first));
        }
    }

    /// Row `i` of `up`, `[rank]`: zeros for the changes of other layers.
    pub fn up_row(&self, i: usize, row: &mut [f32]) {
        row.fill(0.0);
        let mut first = 0;
        for layer in &self.layers {
            if i < first + layer.n {
                let own = layer.order.as_ref().map_or(i - first, |order| order[i - first]);
                for change in &layer.changes {
                    let Some(at) = self.place(change) else { continue };
                    let up = change.up.row(change.rows.of_file(own));
                    row[at..at + up.len()].iter_mut().zip(up).for_each(|(sum, up)| *sum += up);
                }
                return;
            }
            first += layer.n;
        }
    }
}
