//! What is raced.

use serde::{Deserialize, Serialize};

/// How the constant operand of a matmul is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weights {
    F32,
    F16,
}

/// One line of the table. Sizes are as in ralu's ops: `x` is `[M, K]`, a weight `[N, K]`, pictures are `[H * W, C]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Case {
    /// `x Wᵀ`.
    Matmul { m: usize, k: usize, n: usize, weights: Weights },
    /// `softmax(q kᵀ / sqrt(D)) v` of all heads.
    Attention { tokens: usize, heads: usize, head_dim: usize },
    /// 3 x 3, stride 1, zeros around.
    Conv2d { height: usize, width: usize, input: usize, output: usize },
    /// A FLUX transformer of one double and one single block, once: `folder` is in diffusers' layout.
    Blocks { folder: String, hidden: usize, image_rows: usize, image_cols: usize, text: usize },
    /// A whole picture, prompt to pixels: `folder` is a model in diffusers' layout.
    Picture { folder: String, prompt: String, width: usize, height: usize, steps: usize, seed: u64 },
}

impl Case {
    /// The group of cases it belongs to, as `--only` has it.
    pub fn group(&self) -> &'static str {
        match self {
            Case::Matmul { .. } => "matmul",
            Case::Attention { .. } => "attention",
            Case::Conv2d { .. } => "conv2d",
            Case::Blocks { .. } => "blocks",
            Case::Picture { .. } => "picture",
        }
    }

    /// What the table calls it.
    pub fn label(&self) -> String {
        match self {
            Case::Matmul { m, k, n, weights } => {
                format!("{m} x {k} x {n}, {}", format!("{weights:?}").to_lowercase())
            }
            Case::Attention { tokens, heads, head_dim } => {
                format!("{tokens} tokens, {heads} x {head_dim}")
            }
            Case::Conv2d { height, width, input, output } => {
                format!("{height} x {width}, {input} to {output}")
            }
            Case::Blocks { hidden, image_rows, image_cols, text, .. } => {
                format!(
                    "double + single, {hidden} wide, {} + {text} tokens",
                    image_rows * image_cols
                )
            }
            Case::Picture { width, height, steps, .. } => {
                format!("tiny-flux, {width} x {height}, {steps} steps, true guidance")
            }
        }
    }

    /// Multiplications and additions of products; `None` where seconds say more.
    pub fn flops(&self) -> Option<f64> {
        let product = |sizes: &[usize]| sizes.iter().map(|size| *size as f64).product::<f64>();
        Some(match *self {
            Case::Matmul { m, k, n, .. } => 2.0 * product(&[m, n, k]),
            Case::Attention { tokens, heads, head_dim } => {
                4.0 * product(&[tokens, tokens, heads, head_dim])
            }
            Case::Conv2d { height, width, input, output } => {
                18.0 * product(&[height, width, input, output])
            }
            // Of the products with weights and of attention; embeddings and the last layer are a thousandth.
            Case::Blocks { hidden: d, image_rows, image_cols, text, .. } => {
                let tokens = image_rows * image_cols + text;
                2.0 * product(&[tokens, 24, d, d]) + 2.0 * 4.0 * product(&[tokens, tokens, d])
            }
            Case::Picture { .. } => return None,
        })
    }

    /// Length of the result.
    pub fn outputs(&self) -> usize {
        match *self {
            Case::Matmul { m, n, .. } => m * n,
            Case::Attention { tokens, heads, head_dim } => tokens * heads * head_dim,
            Case::Conv2d { height, width, output, .. } => height * width * output,
            Case::Blocks { image_rows, image_cols, .. } => image_rows * image_cols * 64,
            Case::Picture { width, height, .. } => width * height * 3,
        }
    }
}

/// Every case of `groups`, in the table's order. `models` holds tiny-flux, `blocks` the folder of the two blocks.
pub fn all(tiny_flux: &str, blocks: &str, small: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    for weights in [Weights::F32, Weights::F16] {
        for m in [256, 1024, 1280, 4608] {
            cases.push(Case::Matmul { m, k: 3072, n: 3072, weights });
        }
        cases.push(Case::Matmul { m: 1024, k: 3072, n: 12288, weights });
        for m in [280, 1048] {
            for (k, n) in [(320, 320), (320, 1280), (1280, 320), (1600, 320)] {
                cases.push(Case::Matmul { m, k, n, weights });
            }
        }
    }
    for (tokens, heads, head_dim) in [
        (333, 5, 64),
        (1024, 5, 64),
        (1280, 5, 64),
        (4608, 5, 64),
        (333, 24, 128),
        (1280, 24, 128),
        // All 24 heads would take the slow ones ten minutes each time.
        (4608, 4, 128),
    ] {
        cases.push(Case::Attention { tokens, heads, head_dim });
    }
    for (side, input, output) in [
        // tiny-flux's decoder at 256 x 256 and 512 x 512.
        (64, 128, 128),
        (128, 64, 64),
        (256, 32, 32),
        (512, 32, 32),
        // FLUX's.
        (64, 512, 512),
        (128, 512, 512),
        (256, 128, 128),
    ] {
        cases.push(Case::Conv2d { height: side, width: side, input, output });
    }
    cases.push(Case::Blocks {
        folder: blocks.into(),
        hidden: 3072,
        image_rows: 16,
        image_cols: 16,
        text: 64,
    });
    cases.push(Case::Picture {
        folder: tiny_flux.into(),
        prompt: "a fox on a purple background".into(),
        width: 256,
        height: 256,
        steps: 28,
        seed: 5,
    });
    if small {
        cases.retain(|case| case.flops().is_none_or(|flops| flops < 8e9));
        for case in &mut cases {
            if let Case::Picture { steps, .. } = case {
                *steps = 4;
            }
        }
    }
    cases
}
