//! Which tokens painted regions cover, and what to say if that is not what somebody who paints expects.

use super::Mask;
use crate::sampling::regions::PAINTED;
use crate::sampling::{self, Grid, MaskMode, RaluParams, mask_regions};

impl Mask {
    /// Raster indices of the tokens of the coarse `grid` that are painted, ascending.
    pub fn painted_tokens(&self, grid: Grid) -> Result<Vec<usize>, sampling::Error> {
        let shares = mask_regions(&self.luma, self.width, self.height, grid)?;
        Ok((0..shares.len()).filter(|i| shares[*i] >= PAINTED).collect())
    }
}

/// How many tokens are refined early: painted ones, found ones, or both, which may overlap: then at most so many.
pub(super) fn region_count(
    params: &RaluParams,
    mask: Option<&Mask>,
    grid: Grid,
) -> Result<usize, sampling::Error> {
    let found = params.region_count(grid.n_tokens());
    let Some(mask) = mask else { return Ok(found) };
    let painted = mask.painted_tokens(grid)?.len();
    Ok(match mask.mode {
        MaskMode::Replace => painted,
        MaskMode::Add => (painted + found).min(grid.n_tokens()),
    })
}

/// Why regions, painted or found, have less effect than was asked for; `None` if they have what they should.
pub(super) fn warning(
    params: &RaluParams,
    mask: Option<&Mask>,
    grid: Grid,
) -> Result<Option<String>, sampling::Error> {
    let tokens = grid.n_tokens();
    let Some(mask) = mask else {
        let is_lost = params.up_ratio > 0.0 && params.region_count(tokens) == 0;
        return Ok(is_lost.then(|| {
            format!(
                "the up ratio of {} makes less than one of {tokens} tokens: no region is refined early, and the \
                 stage for that is left out; choose a larger ratio or picture",
                params.up_ratio
            )
        }));
    };
    let painted = mask.painted_tokens(grid)?.len();
    let count = region_count(params, Some(mask), grid)?;
    let consequence = match mask.mode {
        MaskMode::Replace => "no region is refined early, and the stage for that is left out",
        MaskMode::Add => "nothing is added to the found ones",
    };
    Ok(if painted == 0 {
        Some(format!(
            "the painted regions cover no token: {consequence}. Paint them wider or brighter: a token is a square of \
             32 x 32 pixels of the picture, and counts if at least half of it is white"
        ))
    } else if painted == tokens {
        Some(
            "the painted regions cover the whole picture: all of it is refined early, and the stage in which a part \
             is finer than the rest is left out. Paint black what matters less"
                .to_owned(),
        )
    } else if count == tokens {
        Some(
            "the painted and the found regions may cover the whole picture together: all of it is refined early, \
             wherever it was painted. Paint less, or let the painted regions replace the found ones"
                .to_owned(),
        )
    } else {
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::{DISTILLED_PRESETS, Preset};

    /// Columns of a mask over 4 x 4 tokens, from the left, of `value`.
    fn painted(columns: usize, value: u8, mode: MaskMode) -> Mask {
        let luma = (0..64).map(|i| if i % 8 < columns { value } else { 0 }).collect();
        Mask { luma, width: 8, height: 8, mode }
    }

    #[test]
    fn a_mask_without_effect_is_told_of() {
        let grid = Grid { rows: 4, cols: 4 };
        // 30 per cent, 4 tokens.
        let params = RaluParams {
            up_ratio: 0.3,
            ..DISTILLED_PRESETS.params(Preset::Distilled, 3.0).unwrap()
        };
        let told = |mask: &Mask| warning(&params, Some(mask), grid).unwrap().unwrap_or_default();
        for mode in [MaskMode::Replace, MaskMode::Add] {
            // Black, too dim, half a token at less than half, too narrow.
            for mask in [painted(8, 0, mode), painted(8, 100, mode), painted(1, 254, mode)] {
                assert_eq!(mask.painted_tokens(grid).unwrap(), [0usize; 0]);
                assert!(told(&mask).contains("cover no token"), "{}", told(&mask));
            }
            assert!(told(&painted(8, 255, mode)).contains("cover the whole picture"));
            // Half a token counts.
            assert_eq!(painted(3, 255, mode).painted_tokens(grid).unwrap().len(), 8);
            assert_eq!(told(&painted(3, 255, mode)), "");
        }
        assert_eq!(told(&painted(6, 255, MaskMode::Replace)), "");
        assert!(told(&painted(6, 255, MaskMode::Add)).contains("together"));
        assert_eq!(warning(&params, None, grid).unwrap(), None);
        let few = RaluParams { up_ratio: 0.05, ..params.clone() };
        assert!(warning(&few, None, grid).unwrap().unwrap().contains("up ratio of 0.05"));
        let none = RaluParams { up_ratio: 0.0, ..params };
        assert_eq!(warning(&none, None, grid).unwrap(), None);
    }
}
