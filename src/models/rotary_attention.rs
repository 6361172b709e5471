//! Attention over a whole sequence, text first, with rotary positions and an RMS norm of each head's queries and keys: what
//! the blocks of FLUX's networks have in common.

use super::blocks::attention_is_in_f16;
use super::denoiser::{PerGrid, Positions, State};
use super::layers::LinearGroup;
use crate::ops::{
    Activation, Attention, Input, LinearLayer, Weights, Write, attention_over, combine,
    qk_norm_rope,
};
use crate::tensor::{Resident, Tensor};

/// Epsilon of the norms of queries and keys.
const EPS: f32 = 1e-6;

/// Queries, keys and values of a sequence.
#[derive(Clone, Copy)]
pub(super) struct Qkv<'r> {
    /// All three side by side: `[T + N, 3 * hidden]`.
    all: Tensor<'r>,
    /// With [`Positions::PerGrid`], the keys in units of the coarse grid.
    coarse_k: Option<Tensor<'r>>,
}

/// Queries, keys and values of one stream: a projection and two norms.
pub(super) struct QkvProjection {
    /// To queries, keys and values, one after the other, and perhaps to more.
    pub layers: LinearGroup,
    /// The weights of the RMS norm of a head's queries, `[1, head_dim]`.
    pub norm_q: Resident,
    /// The weights of the RMS norm of a head's keys, `[1, head_dim]`.
    pub norm_k: Resident,
}

impl QkvProjection {
    /// Queries, keys and values of `x`, which is rows `rows` of the sequence, with their rotations.
    pub fn forward<'r>(&self, x: Input<'r>, qkv: Qkv<'r>, rows: Rows, state: &State<'r>) {
        self.layers.forward_into("qkv", x, qkv.all.row_range(rows.clone()));
        self.normalize(qkv, rows, state);
    }

    /// [`QkvProjection::forward`] of a whole sequence, where the projection has more outputs than those: what `activation`
    /// makes of them goes to `rest`.
    pub fn forward_with_rest<'r>(
        &self,
        x: Input<'r>,
        qkv: Qkv<'r>,
        rest: Tensor<'r>,
        activation: Activation,
        state: &State<'r>,
    ) {
        self.layers.forward_split("qkv", x, [qkv.all, rest], activation);
        self.normalize(qkv, 0..x.x.rows(), state);
    }

    /// Norms and rotations of rows `rows` of the sequence.
    fn normalize<'r>(&self, qkv: Qkv<'r>, rows: Rows, state: &State<'r>) {
        let recorder = qkv.all.recorder();
        let [all_q, all_k, _] = qkv.all.chunk_cols();
        let [q, k] = [all_q, all_k].map(|m: Tensor<'r>| m.row_range(rows.clone()));
        let (norm_q, norm_k) = (recorder.resident(&self.norm_q), recorder.resident(&self.norm_k));
        match (state.positions, qkv.coarse_k) {
            (Positions::PerGrid(grids), Some(coarse_k)) => {
                let coarse_k = coarse_k.row_range(rows.clone());
                combine(
                    "k.coarse",
                    &[k],
                    Weights::Constant([1.0, 0.0, 0.0]),
                    None,
                    Write::Store,
                    coarse_k,
                );
                let own = |name, rows: Rows, table: Tensor<'r>| {
                    if !rows.is_empty() {
                        let q = all_q.row_range(rows.clone());
                        qk_norm_rope(name, q, norm_q, table.row_range(rows), EPS);
                    }
                };
                // Each query in units of its own grid; text has the same place in both.
                let coarse = state.n_text..state.n_text + grids.n_coarse;
                own("q.rope", intersection(&rows, &(0..coarse.start)), grids.fine);
                own("q.rope.coarse", intersection(&rows, &coarse), grids.coarse);
                own("q.rope.fine", intersection(&rows, &(coarse.end..usize::MAX)), grids.fine);
                let fine = grids.fine.row_range(rows.clone());
                qk_norm_rope("k.rope", k, norm_k, fine, EPS);
                qk_norm_rope("k.rope.coarse", coarse_k, norm_k, grids.coarse.row_range(rows), EPS);
            }
            (Positions::Rotations(pe), _) => {
                let pe = pe.row_range(rows);
                qk_norm_rope("q.rope", q, norm_q, pe, EPS);
                qk_norm_rope("k.rope", k, norm_k, pe, EPS);
            }
            (Positions::PerGrid(_) | Positions::Added(_), _) => {
                unreachable!("positions are rotary, and there are coarse keys where units differ")
            }
        }
    }
}

/// Memory `[rows, columns]` whose first `width` columns attention of a whole sequence writes, with heads of `head_dim` numbers. It
/// may be in f16 if what goes to the other columns may (`rest_in_f16`); `readers` alone read it, each so many rows.
pub(super) fn joint_output<'r, 'l>(
    name: &str,
    state: &State<'r>,
    head_dim: usize,
    [rows, width, columns]: [usize; 3],
    rest_in_f16: bool,
    readers: impl IntoIterator<Item = (&'l LinearLayer, usize)>,
) -> Tensor<'r> {
    let recorder = state.x.recorder();
    // Where units differ, coarse queries see keys in two matrices.
    let is_one = !matches!(state.positions, Positions::PerGrid(_));
    let in_f16 =
        is_one && rest_in_f16 && attention_is_in_f16(recorder, head_dim, [rows, width], readers);
    recorder.temp_as(name, [rows, columns], in_f16)
}

type Rows = std::ops::Range<usize>;

fn intersection(a: &Rows, b: &Rows) -> Rows {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

/// Attention of a whole sequence: `project` fills queries, keys and values, the result goes to `out`.
pub(super) fn joint_attention<'r>(
    head_dim: usize,
    out: Tensor<'r>,
    state: &State<'r>,
    project: impl FnOnce(Qkv<'r>),
) {
    let recorder = out.recorder();
    let grids = match state.positions {
        Positions::PerGrid(grids) => Some(grids),
        _ => None,
    };
    let qkv = Qkv {
        all: recorder.temp("qkv", out.rows(), 3 * out.cols()),
        coarse_k: grids.map(|_| recorder.temp("k.coarse", out.rows(), out.cols())),
    };
    project(qkv);
    let [q, k, v] = qkv.all.chunk_cols();
    let scale = 1.0 / (head_dim as f32).sqrt();
    let options = Attention { head_dim, scale, causal: false, bias: None };
    match (grids, qkv.coarse_k) {
        (Some(PerGrid { n_coarse, .. }), Some(coarse_k)) => {
            let coarse = state.n_text..state.n_text + n_coarse;
            let all = [(k, v)];
            for (name, rows) in
                [("attn.txt", 0..coarse.start), ("attn.fine", coarse.end..out.rows())]
            {
                let (q, out) = (q.row_range(rows.clone()), out.row_range(rows));
                attention_over(name, q, &all, out, options);
            }
            // Of four children only the first: its position is the parent's.
            let parts = [coarse_k, v]
                .map(|m| [m.row_range(0..coarse.end), m.row_range(coarse.end..m.rows()).every(4)]);
            let keys = [(parts[0][0], parts[1][0]), (parts[0][1], parts[1][1])];
            let (q, out) = (q.row_range(coarse.clone()), out.row_range(coarse));
            attention_over("attn.coarse", q, &keys, out, options);
        }
        _ => attention_over("attn", q, &[(k, v)], out, options),
    }
}
