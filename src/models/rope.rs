//! Rotary positions: which angle each pair of numbers of a query or key is turned by.

/// Where text tokens are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextPositions {
    /// All at the origin.
    Origin,
    /// One after the other on an axis of their own, from 0.
    Counted {
        /// The number of that axis.
        axis: usize,
    },
}

/// The rotary positions of a network. Axis 1 is the row and axis 2 the column of an image token, which is at 0 of all
/// other axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Numbers of a head that each axis turns; even.
    pub axes: Vec<usize>,
    /// Base of the frequencies: pair `i` of an axis of width `d` turns by `position * theta^(-2 i / d)`.
    pub theta: f64,
    /// Where text tokens are.
    pub text: TextPositions,
}

/// The axes of an image token's row and column.
const IMAGE_AXES: [usize; 2] = [1, 2];

impl Rope {
    /// The rotations of `n` text tokens, `[n, head_dim]`: cos and sin for each pair of numbers.
    pub fn text_table(&self, n: usize) -> Vec<f32> {
        self.table((0..n).map(|i| match self.text {
            TextPositions::Origin => [].into(),
            TextPositions::Counted { axis } => [(axis, i as f64)].into(),
        }))
    }

    /// The rotations of image tokens at `positions` (row, column), `[N, head_dim]`: cos and sin for each pair of numbers.
    /// Positions may be any real number.
    pub fn image_table(&self, positions: &[[f32; 2]]) -> Vec<f32> {
        let [row, column] = IMAGE_AXES;
        self.table(
            positions.iter().map(|[r, c]| vec![(row, f64::from(*r)), (column, f64::from(*c))]),
        )
    }

    /// The rotations of tokens that are at 0 of all axes but those that are listed. Angles are f64, as in the references.
    fn table(&self, tokens: impl Iterator<Item = Vec<(usize, f64)>>) -> Vec<f32> {
        let frequency = |i: usize, dim: usize| libm::pow(self.theta, -2.0 * i as f64 / dim as f64);
        let frequencies: Vec<Vec<f64>> = self
            .axes
            .iter()
            .map(|&dim| (0..dim / 2).map(|i| frequency(i, dim)).collect())
            .collect();
        let mut table = Vec::new();
        for token in tokens {
            for (axis, frequencies) in frequencies.iter().enumerate() {
                let position = token.iter().find(|(a, _)| *a == axis).map_or(0.0, |(_, at)| *at);
                for frequency in frequencies {
                    let angle = position * frequency;
                    table.extend([libm::cos(angle) as f32, libm::sin(angle) as f32]);
                }
            }
        }
        table
    }
}
