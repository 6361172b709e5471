//! What can be wrong with the numbers a caller hands in.

/// A rejected input of [`crate::sampling`]. Each message says what was found, what was expected
/// and what to do.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A step count of zero, or one beyond [`crate::sampling::schedule::MAX_STEPS`].
    #[error("{found} steps asked for {what}, expected 1 to {max}: choose a count in that range")]
    Steps {
        /// Whose steps: "the run", "stage 2".
        what: &'static str,
        /// The count found.
        found: usize,
        /// The largest count accepted.
        max: usize,
    },

    /// A single number outside its range, or not a number.
    #[error("{what} is {found}, expected {expected}: {hint}")]
    Value {
        /// The parameter's name.
        what: &'static str,
        /// The value found.
        found: f64,
        /// Its range, in words.
        expected: &'static str,
        /// What to do.
        hint: &'static str,
    },

    /// Another number of stages than a run can have.
    #[error(
        "{what} are {found} numbers, expected {expected}, one for each stage: for example 5,6,7 steps that end at \
         0.3,0.45,1"
    )]
    Stages {
        /// Which list: "the stage ends".
        what: &'static str,
        /// How many numbers it has.
        found: usize,
        /// How many it should have, in words: "three numbers".
        expected: &'static str,
    },

    /// Stage ends that do not rise from above 0 to exactly 1.
    #[error(
        "stage ends are {found:?}, expected rising times above 0 with 1 as the last \
         (paper time, 1 - sigma): for example 0.3, 0.45, 1"
    )]
    StageEnds {
        /// The ends found.
        found: Vec<f64>,
    },

    /// A word that names none of the choices.
    #[error("'{found}' is not a known {what}, expected one of {expected}")]
    Unknown {
        /// What was to be named: "preset", "variant".
        what: &'static str,
        /// The word found.
        found: String,
        /// The words accepted.
        expected: &'static str,
    },

    /// A preset that a model family does not have.
    #[error(
        "no preset {preset} is made for {family}, expected one of {}: choose one of these, or give \
         numbers of your own (custom)",
        expected.join(", ")
    )]
    NoPreset {
        /// The preset asked for.
        preset: String,
        /// The model family.
        family: String,
        /// The presets it has.
        expected: Vec<String>,
    },

    /// A picture larger than the model's table of positions.
    #[error(
        "the picture has {rows} x {cols} tokens, expected at most {side} x {side}, the size of \
         the model's table of positions: choose a smaller picture (a token is 16 x 16 pixels)"
    )]
    TableSize {
        /// Rows of tokens.
        rows: usize,
        /// Columns of tokens.
        cols: usize,
        /// Rows and columns of the table.
        side: usize,
    },

    /// A picture whose sides RALU cannot halve twice into whole tokens.
    #[error(
        "the picture is {width} x {height} pixels, expected sides that are multiples of 32 and \
         above 0: use {near_width} x {near_height} instead"
    )]
    ImageSize {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// The nearest width that works.
        near_width: usize,
        /// The nearest height that works.
        near_height: usize,
    },

    /// A grid without tokens, or with more than this crate counts in 32 bits.
    #[error(
        "the coarse grid is {rows} x {cols} tokens, expected 1 to {max} on each side: choose \
         another picture size"
    )]
    GridSize {
        /// Rows of tokens.
        rows: usize,
        /// Columns of tokens.
        cols: usize,
        /// The longest side accepted.
        max: usize,
    },

    /// Region tokens that are not ascending, unique and inside the grid.
    #[error(
        "region token {found} at place {place} does not fit, expected strictly ascending indices \
         below {n_tokens}: sort them, drop doubles, and use the coarse grid's raster order"
    )]
    Selection {
        /// Where in the list.
        place: usize,
        /// The index found there.
        found: u32,
        /// Tokens of the coarse grid.
        n_tokens: usize,
    },

    /// A buffer whose length does not follow from its shape.
    #[error("{what} has {found} values, expected {expected} ({shape}): pass the whole array")]
    Length {
        /// The buffer's name.
        what: &'static str,
        /// Values found.
        found: usize,
        /// Values expected.
        expected: usize,
        /// The shape, in words.
        shape: &'static str,
    },

    /// Latent sides that cannot be cut into 2x2 patches, or halved.
    #[error(
        "the latent is {height} x {width} pixels, expected even sides above 0: latent sides are \
         image sides / 8, and images come in multiples of 16 pixels"
    )]
    LatentSize {
        /// Latent rows.
        height: usize,
        /// Latent columns.
        width: usize,
    },

    /// A picture whose size does not match the grid of 16 x 16 blocks.
    #[error(
        "the picture is {width} x {height} pixels, expected {want_width} x {want_height} \
         (16 per token of the {rows} x {cols} grid): decode the same stage the grid describes"
    )]
    PictureGrid {
        /// Width found.
        width: usize,
        /// Height found.
        height: usize,
        /// Width expected.
        want_width: usize,
        /// Height expected.
        want_height: usize,
        /// Rows of tokens.
        rows: usize,
        /// Columns of tokens.
        cols: usize,
    },
}
